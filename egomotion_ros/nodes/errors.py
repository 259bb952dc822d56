# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Error codes of the node in one place: the constants of ``action/GenerateMotion.action``.

Whatever goes wrong in the node travels as one :class:`NodeError`, so that the action's result,
the status topic and the log say the same.
"""

from __future__ import annotations

from enum import IntEnum

from egomotion_ros.action import GenerateMotion

_CONSTANTS = (
    'NONE UNKNOWN EMPTY_INSTRUCTION INSTRUCTION_TOO_LONG NO_IMAGE STALE_IMAGE BAD_IMAGE '
    'NO_CALIBRATION STALE_JOINT_STATES BAD_JOINT_STATES NO_ODOMETRY PLAN_INVALID PREEMPTED '
    'CANCELED DEACTIVATED STOPPED TIMEOUT BACKEND_FAILED OUTPUT_DISABLED CLOCK_JUMPED '
    'BAD_INSTRUCTION FOREIGN_BUNDLE BAD_PRIMITIVES STALE_PRIMITIVES WRONG_STAGE '
    'NOT_FOUND'
).split()

#: Number and name of everything that can go wrong (0 = NONE).
ErrorCode = IntEnum(
    'ErrorCode', {name: getattr(GenerateMotion.Result, name) for name in _CONSTANTS}
)


class NodeError(Exception):
    """A refusal or failure with its ``code`` (:class:`ErrorCode`) and a line for the user."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = ErrorCode(code)
        self.message = message

    def __str__(self) -> str:
        return f'{self.code.name}: {self.message}'
