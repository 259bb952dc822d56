# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The latched status topic: one message per change, never more."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.clock import Clock

from egomotion_ros.msg import Status
from egomotion_ros.nodes.errors import ErrorCode

_NAMES = {
    getattr(Status, name): name.lower()
    for name in 'IDLE REASONING GENERATING RETARGETING EXECUTING STOPPING HOLDING REFUSED'.split()
}


class StatusBoard:
    """Holds the status and publishes it when it changes."""

    def __init__(self, clock: Clock, publish: Callable[[Status], None]) -> None:
        self._clock, self._publish = clock, publish
        self._message = Status()
        self._shown: tuple | None = None

    @property
    def state(self) -> int:
        """Constant of ``egomotion_ros/Status``."""
        return self._message.state

    @property
    def code(self) -> ErrorCode:
        """Why the node is in this state."""
        return ErrorCode(self._message.code)

    @property
    def text(self) -> str:
        """Line that goes with the code."""
        return self._message.message

    @property
    def name(self) -> str:
        """Name of the state in lower case."""
        return _NAMES[self._message.state]

    def times(
        self, first_ms: float, latency_ms: float, milliseconds: dict[str, float]
    ) -> None:
        """Note how long the newest plan took; goes out with the next change."""
        self._message.first_ms, self._message.latency_ms = first_ms, latency_ms
        self._message.reason_ms = milliseconds['reason']
        self._message.generate_ms = milliseconds['generate']
        self._message.retarget_ms = milliseconds['retarget']

    def about(self, instruction: str, plan_id: str) -> None:
        """Note what the status is about."""
        self._message.instruction, self._message.plan_id = instruction, plan_id

    def output(self, enabled: bool) -> None:
        """Note whether anything may move."""
        self._message.output_enabled = enabled

    def show(
        self, state: int, code: ErrorCode = ErrorCode.NONE, text: str = '', anew: bool = False
    ) -> None:
        """Publish, if anything differs from what was published last, or ``anew``."""
        message = self._message
        message.state, message.code, message.message = state, int(code), text
        now = (
            state,
            int(code),
            text,
            message.plan_id,
            message.instruction,
            message.output_enabled,
        )
        if anew or now != self._shown:
            self._shown = now
            message.header.stamp = self._clock.now().to_msg()
            self._publish(message)
