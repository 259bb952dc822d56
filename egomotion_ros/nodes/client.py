# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A client that makes the action a function call.

    with EgoMotionClient() as client:
        motion = client.generate('walk to the red ball')
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import threading
from uuid import uuid4

from action_msgs.msg import GoalStatus
import rclpy
from rclpy.action import ActionClient
from rclpy.context import Context
from rclpy.exceptions import InvalidNamespaceException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.task import Future
from rclpy.validate_namespace import validate_namespace
from std_srvs.srv import Trigger

from egomotion_ros.action import GenerateMotion
from egomotion_ros.nodes.conversions import robot_from_msg
from egomotion_ros.nodes.errors import ErrorCode, NodeError
from egomotion_ros.nodes.instructions import check_numbers
from egomotion_ros.nodes.process import end, leave
from egomotion_ros.types import RobotMotion

#: Name of the node whose stop service is called.
NODE = 'egomotion_node'


@dataclass(frozen=True)
class Generated:
    """
    What came of an instruction.

    ``motion`` the robot's reference; ``plan_id``, ``seed`` to make it again; ``tokens`` base
    codes of the primitives; ``milliseconds`` by stage.
    """

    motion: RobotMotion
    plan_id: str
    seed: int
    tokens: tuple[int, ...]
    milliseconds: dict[str, float]


class EgoMotionClient:
    """
    Talks to a running ``egomotion_node``; usable from any thread, one goal at a time.

    ``namespace`` of that node.  Brings an own ROS context, so that it works beside other nodes
    and in a notebook.
    """

    def __init__(self, namespace: str = '', timeout: float = 10.0) -> None:
        """
        Wait ``timeout`` seconds for the node.

        Raises NodeError (TIMEOUT) without one, ValueError for a name that is no namespace.
        """
        if namespace:
            try:
                validate_namespace(namespace if namespace.startswith('/') else f'/{namespace}')
            except InvalidNamespaceException as error:
                raise ValueError(' '.join(str(error).split())) from error
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node(
            f'egomotion_client_{uuid4().hex[:8]}', namespace=namespace, context=self._context
        )
        self._action = ActionClient(self._node, GenerateMotion, 'generate_motion')
        self._stop = self._node.create_client(Trigger, f'{NODE}/stop')
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self._goal = None
        if not self._action.wait_for_server(timeout_sec=timeout):
            self.close()
            raise NodeError(
                ErrorCode.TIMEOUT, f'no action server generate_motion within {timeout} s'
            )

    def generate(
        self,
        instruction: str,
        seed: int = 0,
        execute: bool = True,
        guidance: float = 0.0,
        steps: int = 0,
        looks: int = 1,
        timeout: float = 60.0,
        on_feedback: Callable[[GenerateMotion.Feedback], None] | None = None,
    ) -> Generated:
        """
        Turn ``instruction`` into motion and wait until it was executed.

        ``execute`` False returns as soon as the plan is made, nothing moves.  With more ``looks``
        than one the robot looks again on the way, and around for what it does not see, until it is
        at rest where that has led; the motion returned is the last one.  Raises NodeError
        with the code of the refusal; TIMEOUT, and the goal canceled, after ``timeout`` seconds.
        """
        check_numbers(float(guidance), steps)
        try:
            instruction.encode()
        except UnicodeEncodeError as error:
            raise NodeError(ErrorCode.BAD_INSTRUCTION, str(error)) from error
        goal = GenerateMotion.Goal(
            instruction=instruction,
            seed=seed,
            execute=execute,
            guidance=float(guidance),
            steps=steps,
            looks=looks,
        )

        def feedback(message) -> None:
            if on_feedback is not None:
                on_feedback(message.feedback)

        self._goal = self._ask(lambda: self._action.send_goal_async(goal, feedback), timeout)
        if not self._goal.accepted:
            raise NodeError(ErrorCode.DEACTIVATED, 'goal rejected: the node is not active')
        try:
            answer = self._ask(self._goal.get_result_async, timeout)
        except (NodeError, KeyboardInterrupt):
            self.cancel()
            raise
        result = answer.result
        if answer.status != GoalStatus.STATUS_SUCCEEDED:
            known = result.error_code in set(ErrorCode)
            code = ErrorCode(result.error_code) if known else ErrorCode.UNKNOWN
            raise NodeError(
                code if code != ErrorCode.NONE else ErrorCode.UNKNOWN, result.error_msg
            )
        primitives = result.primitives
        return Generated(
            motion=robot_from_msg(result.robot_motion),
            plan_id=result.plan_id,
            seed=result.seed,
            tokens=tuple(primitives.tokens[:: max(primitives.levels, 1)]),
            milliseconds={
                'reason': result.reason_ms,
                'generate': result.generate_ms,
                'retarget': result.retarget_ms,
            },
        )

    def cancel(self, timeout: float = 5.0) -> None:
        """Cancel the goal that is running, if any; the robot stops."""
        if self._goal is not None:
            self._ask(self._goal.cancel_goal_async, timeout)

    def stop(self, timeout: float = 5.0) -> str:
        """Call ``~/stop``; returns what the node answered, raises NodeError if it failed."""
        if not self._stop.wait_for_service(timeout_sec=timeout):
            raise NodeError(ErrorCode.TIMEOUT, f'no service {self._stop.srv_name}')
        answer = self._ask(lambda: self._stop.call_async(Trigger.Request()), timeout)
        if not answer.success:
            raise NodeError(ErrorCode.UNKNOWN, answer.message)
        return answer.message

    def close(self) -> None:
        """Leave the network."""
        self._closing.set()
        end(self._executor, self._thread)
        self._action.destroy()
        leave(self._executor, self._node)

    def __enter__(self) -> EgoMotionClient:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _spin(self) -> None:
        # Not ended by the executor's shutdown, which takes away what it is waiting for.
        while not self._closing.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.5)
            except ExternalShutdownException:
                return

    def _ask(self, send: Callable[[], Future], timeout: float):
        """
        Run ``send`` in the executor's thread and wait for the answer to what it sent.

        rclpy's action client notes a request only after sending it: sent from another thread, an
        answer that is quick enough would be thrown away as unexpected.
        """

        def attempt() -> Future | Exception:
            try:
                return send()
            except Exception as error:  # would end the executor
                return error

        sent = self._wait(self._executor.create_task(attempt), timeout)
        if isinstance(sent, Exception):
            raise sent
        return self._wait(sent, timeout)

    @staticmethod
    def _wait(future: Future, timeout: float):
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout):
            raise NodeError(ErrorCode.TIMEOUT, f'no answer within {timeout} s')
        return future.result()
