# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The action server: goals in, feedback and numbered results out.

A goal is accepted while the node is active, a bad one included, so that its result can say why
(an action cannot explain a rejection).  What a goal means is the controller's business.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup

from egomotion_ros.action import GenerateMotion
from egomotion_ros.nodes.errors import ErrorCode

if TYPE_CHECKING:
    from egomotion_ros.nodes.controller import Controller
    from egomotion_ros.nodes.lifecycle import ManagedNode

#: Seconds the server may take to note a cancel request it has itself accepted.
CANCEL_NOTED = 2.0
#: Seconds a result is kept for clients that ask late; each holds a whole motion.
RESULT_KEPT = 60


class Goal:
    """One accepted goal, from acceptance to its result."""

    def __init__(self, handle: ServerGoalHandle) -> None:
        self.request: GenerateMotion.Goal = handle.request
        self.result = GenerateMotion.Result(error_code=ErrorCode.NONE)
        self._handle = handle
        self._done = threading.Event()

    @property
    def is_done(self) -> bool:
        """True once :meth:`finish` was called."""
        return self._done.is_set()

    def feedback(self, state: int, progress: float, tokens: list[int]) -> None:
        """Tell the client how far the goal is."""
        if not self.is_done:
            self._handle.publish_feedback(
                GenerateMotion.Feedback(state=state, progress=float(progress), tokens=tokens)
            )

    def finish(self, code: ErrorCode = ErrorCode.NONE, message: str = '') -> None:
        """End the goal; the first call counts.  Returns at once."""
        if not self.is_done:
            self.result.error_code = int(code)
            self.result.error_msg = message
            self._done.set()

    def wait(self) -> GenerateMotion.Result:
        """Block a thread of the executor until the goal is over; set its terminal state."""
        self._done.wait()
        code = self.result.error_code
        if code == ErrorCode.NONE:
            self._handle.succeed()
        elif code == ErrorCode.CANCELED:
            # The cancel callback ends the goal before the server notes that it is canceling.
            deadline = time.monotonic() + CANCEL_NOTED
            while not self._handle.is_cancel_requested and time.monotonic() < deadline:
                time.sleep(0.002)
            if self._handle.is_cancel_requested:
                self._handle.canceled()
            else:
                self._handle.abort()
        else:
            self._handle.abort()
        return self.result


class GoalServer:
    """Action ``generate_motion``: hands goals to the controller."""

    def __init__(self, node: ManagedNode) -> None:
        self._node = node
        self._controller: Controller | None = None
        self._goals: dict[bytes, Goal] = {}
        self._server = ActionServer(
            node,
            GenerateMotion,
            'generate_motion',
            execute_callback=self._execute,
            goal_callback=node.guarded(self._accepts),
            handle_accepted_callback=node.guarded(self._accepted),
            cancel_callback=self._cancel,
            callback_group=ReentrantCallbackGroup(),
            result_timeout=RESULT_KEPT,
        )

    def serve(self, controller: Controller | None) -> None:
        """Give goals to ``controller``; None rejects them."""
        self._controller = controller

    def destroy(self) -> None:
        """Close the server."""
        self._server.destroy()

    def _accepts(self, request: GenerateMotion.Goal) -> GoalResponse:
        if self._controller is None:
            self._node.get_logger().warning(
                f'goal rejected: the node is {self._node.state_label}, not active'
            )
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _accepted(self, handle: ServerGoalHandle) -> None:
        goal = Goal(handle)
        self._goals[bytes(handle.goal_id.uuid)] = goal
        controller = self._controller
        try:
            if controller is None:
                goal.finish(ErrorCode.DEACTIVATED, 'the node was deactivated')
            else:
                controller.accept(goal)
        except Exception:
            goal.finish(ErrorCode.UNKNOWN, 'internal error, see the log of the node')
            raise
        finally:
            handle.execute()

    def _execute(self, handle: ServerGoalHandle) -> GenerateMotion.Result:
        name = bytes(handle.goal_id.uuid)
        try:
            return self._goals[name].wait()
        finally:
            del self._goals[name]

    def _cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        goal = self._goals.get(bytes(handle.goal_id.uuid))
        controller = self._controller
        if goal is not None and controller is not None:
            controller.cancel(goal)
        return CancelResponse.ACCEPT
