# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's own ROS node: brings the others up, asks, interrupts, and records what happens."""

from __future__ import annotations

from collections.abc import Callable
import threading
import time
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
import numpy as np
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger

from egomotion_ros.action import GenerateMotion
from egomotion_ros.demo.processes import Children, DemoError
from egomotion_ros.demo.record import Attempt, Sent, Visit
from egomotion_ros.msg import HumanMotion, RobotMotion, Status
from egomotion_ros.nodes.conversions import human_from_msg, robot_from_msg, time_from_msg
from egomotion_ros.nodes.errors import ErrorCode
from egomotion_ros.nodes.process import end, leave
from egomotion_ros.nodes.qos import profile

#: Most looks for what is out of view.
LOOKS = 15
#: Seconds that a process may take to appear, to answer, and to act on an instruction.
APPEAR, ANSWER, ACT = 60.0, 60.0, 60.0
_STATES = {getattr(Status, name): name.lower() for name in
           'IDLE REASONING GENERATING RETARGETING EXECUTING STOPPING HOLDING REFUSED'.split()}


class Session:
    """
    Talks to ``egomotion_node`` and ``simulation_node``; every wait has an end.

    A wait that takes too long, and a child that dies meanwhile, raise DemoError with the
    child's last words.  ``joint_names`` in the order of the robot description.
    """

    def __init__(self, children: Children, domain: int, joint_names: tuple[str, ...]) -> None:
        self._children, self._names = children, joint_names
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain,
                   signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('egomotion_demo', context=self._context)
        self._lock = threading.Lock()
        self.visit: Visit | None = None
        self._odometry: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._joints: dict[int, np.ndarray] = {}
        self._humans: dict[str, Any] = {}
        self.now = 0
        many = QoSProfile(depth=20)
        for kind, topic, callback, qos in (
                (Image, 'image', self._on_image, many),
                (JointState, 'joint_states', self._on_joints, many),
                (Odometry, 'odom', self._on_odometry, many),
                (RobotMotion, 'robot_motion', self._on_motion, profile('motion')),
                (HumanMotion, 'human_motion', self._on_human, profile('motion')),
                (Status, 'status', self._on_status, profile('latched'))):
            self._node.create_subscription(kind, topic, callback, qos)
        self._goals = ActionClient(self._node, GenerateMotion, 'generate_motion')
        self._change = self._node.create_client(ChangeState, 'egomotion_node/change_state')
        self._stop = self._node.create_client(Trigger, 'egomotion_node/stop')
        self._set = self._node.create_client(SetParameters, 'simulation_node/set_parameters')
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, name='session', daemon=True)
        self._thread.start()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *unused: object) -> None:
        self._closing.set()
        end(self._executor, self._thread)
        self._goals.destroy()
        leave(self._executor, self._node)

    # What the demo does -----------------------------------------------------------------------
    def bring_up(self) -> None:
        """Wait for both nodes, then configure ``egomotion_node`` (which loads the bundle)."""
        self.wait(self._set.service_is_ready, APPEAR, 'simulation_node to appear')
        self.wait(self._change.service_is_ready, APPEAR, 'egomotion_node to appear')
        self.transition(Transition.TRANSITION_CONFIGURE, 'configure')

    def transition(self, number: int, name: str) -> None:
        """Take ``egomotion_node`` through a lifecycle transition."""
        request = ChangeState.Request(transition=Transition(id=number))
        if not self._call(self._change, request, f'egomotion_node to {name}').success:
            raise DemoError(f'egomotion_node refused to {name}\n'
                            f'{self._children.last_words("egomotion_node")}')

    def enter(self, seed: int) -> Visit:
        """Load a room with the robot at its start and record from now on; the node is active."""
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
        request = SetParameters.Request(parameters=[Parameter(name='scene_seed', value=value)])
        result = self._call(self._set, request, f'scene {seed}').results[0]
        if not result.successful:
            raise DemoError(f'simulation_node did not load scene {seed}: {result.reason}')
        before = self.now
        self.wait(lambda: self.now > before + 200_000_000, ANSWER, 'the simulation to go on')
        with self._lock:
            self._odometry.clear()
            self._joints.clear()
            self.visit = Visit(seed)
        self.wait(lambda: self.visit.images and self.visit.states, ANSWER,
                  'the first image, joint states and odometry')
        self.transition(Transition.TRANSITION_ACTIVATE, 'activate')
        self.wait(self._goals.server_is_ready, ANSWER, 'the action generate_motion')
        return self.visit

    def leave(self) -> None:
        """Let the picture rest for a moment, then stop recording and deactivate."""
        end = self.now + 400_000_000
        self.wait(lambda: self.now > end, ANSWER, 'the simulation to go on')
        self.transition(Transition.TRANSITION_DEACTIVATE, 'deactivate')
        with self._lock:
            self.visit = None

    def ask(self, instruction: str, seed: int, then: str,
            after: float) -> tuple[Attempt, Callable[[], Attempt]]:
        """
        Give an instruction; return the attempt and a call that waits for its end.

        ``then`` 'stop' calls ``~/stop`` after ``after`` seconds of motion; 'change' returns at
        that time, for the next instruction to come while the robot moves; 'look' lets the robot
        look up to LOOKS times.
        """
        attempt = Attempt(instruction, self.now)
        self.visit.attempts.append(attempt)
        goal = GenerateMotion.Goal(instruction=instruction, seed=seed, execute=True,
                                   looks=LOOKS if then == 'look' else 1)
        sending = self._send(lambda: self._goals.send_goal_async(goal))
        handle = self._result(sending, f'an answer to {instruction!r}')
        if not handle.accepted:
            raise DemoError(f'egomotion_node did not accept {instruction!r}\n'
                            f'{self._children.last_words("egomotion_node")}')
        ending = self._send(handle.get_result_async)
        if then in ('change', 'stop'):
            count = len(self.visit.sent)
            self.wait(lambda: ending.done() or any(
                self.now > sent.start + after * 1e9 for sent in self.visit.sent[count:]
                if not sent.hold), ACT, f'{after} s of motion for {instruction!r}')
        if then == 'stop':
            self._call(self._stop, Trigger.Request(), 'egomotion_node to stop')

        def finish() -> Attempt:
            what, seconds = f'the end of {instruction!r}', ACT * (3 if then == 'look' else 1)
            self.wait(ending.done, seconds, what)
            result = ending.result().result
            if then == 'stop' and self.visit.sent:  # the result comes when the stop begins
                motion = self.visit.sent[-1]
                end = motion.start + motion.motion.duration * 1e9
                self.wait(lambda: self.now > end, ACT, 'the robot to come to rest')
            self._fill(attempt, result)
            if then == 'change' and not (attempt.error or attempt.ending):
                attempt.error = 'the motion was over before the instruction was changed'
            return attempt

        return attempt, finish

    def wait(self, ready: Callable[[], Any], seconds: float, what: str) -> None:
        """Wait until ``ready()``; DemoError after ``seconds`` or when a child has ended."""
        deadline = time.monotonic() + seconds
        while not ready():
            self._children.check()
            if not self._thread.is_alive():
                raise DemoError('the demo stopped listening to ROS')
            if time.monotonic() > deadline:
                words = self._children.every_last_word()
                self._children.dump()
                raise DemoError(f'waited {seconds:.0f} s for {what}; what every thread was doing '
                                f'stands in the logs\n{words}')
            time.sleep(0.01)

    def _call(self, client, request, what: str):
        self.wait(client.service_is_ready, ANSWER, f'{client.srv_name} to be there')
        return self._result(self._send(lambda: client.call_async(request)), what)

    def _send(self, call: Callable[[], Any]):
        """
        Let the executor make a request; return the request's own future.

        An answer that the executor hears before the sending thread has noted the request is lost
        (rclpy's action client has no lock), so the executor's thread sends.
        """
        task = self._executor.create_task(call)
        self._executor.wake()
        return self._result(task, 'the demo to send a request')

    def _result(self, future, what: str):
        self.wait(future.done, ANSWER, what)
        return future.result()

    def _fill(self, attempt: Attempt, result: GenerateMotion.Result) -> None:
        attempt.ended = self.now
        attempt.plan_id = result.plan_id
        code = ErrorCode(result.error_code)
        if code in (ErrorCode.PREEMPTED, ErrorCode.STOPPED):
            attempt.ending = {'PREEMPTED': 'changed', 'STOPPED': 'stopped'}[code.name]
        elif code != ErrorCode.NOT_FOUND and code:  # where it ended up tells
            attempt.error = f'{code.name}: {result.error_msg}'
        levels = max(result.primitives.levels, 1)
        attempt.tokens = tuple(result.primitives.tokens[::levels])
        if result.reason_ms:
            attempt.milliseconds = {'reason': result.reason_ms, 'generate': result.generate_ms,
                                    'retarget': result.retarget_ms}
        attempt.human = self._humans.get(result.plan_id)

    # What the demo hears ----------------------------------------------------------------------
    def _spin(self) -> None:
        while not self._closing.is_set():
            self._executor.spin_once(timeout_sec=0.2)

    def _on_image(self, message: Image) -> None:
        image = np.frombuffer(message.data, np.uint8)
        image = image.reshape(message.height, message.width, 3)
        with self._lock:
            if self.visit is not None:
                self.visit.images.append((time_from_msg(message.header.stamp), image))

    def _on_joints(self, message: JointState) -> None:
        where = {name: i for i, name in enumerate(message.name)}
        positions = np.array(message.position)[[where[name] for name in self._names]]
        stamp = time_from_msg(message.header.stamp)
        with self._lock:
            self._joints[stamp] = positions
            self._pair(stamp)

    def _on_odometry(self, message: Odometry) -> None:
        p, q = message.pose.pose.position, message.pose.pose.orientation
        stamp = time_from_msg(message.header.stamp)
        with self._lock:
            self.now = max(self.now, stamp)
            self._odometry[stamp] = (np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]))
            self._pair(stamp)

    def _pair(self, stamp: int) -> None:
        """Keep a state once both halves of it are here."""
        if stamp in self._joints and stamp in self._odometry:
            state = (stamp, self._joints.pop(stamp), *self._odometry.pop(stamp))
            if self.visit is not None:
                self.visit.states.append(state)

    def _on_motion(self, message: RobotMotion) -> None:
        sent = Sent(robot_from_msg(message), time_from_msg(message.plan.header.stamp),
                    message.plan.plan_id, message.hold)
        with self._lock:
            if self.visit is not None:
                self.visit.sent.append(sent)

    def _on_human(self, message: HumanMotion) -> None:
        self._humans[message.plan.plan_id] = human_from_msg(message)

    def _on_status(self, message: Status) -> None:
        with self._lock:
            if self.visit is not None:
                self.visit.captions.append((self.now, _STATES.get(message.state, '')))
