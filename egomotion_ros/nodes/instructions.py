# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What may be asked: instructions and numbers from outside, before any work is done on them."""

from __future__ import annotations

from egomotion_ros.bundle import MAX_GUIDANCE, MAX_STEPS
from egomotion_ros.nodes.errors import ErrorCode, NodeError
from egomotion_ros.text import InstructionTooLongError, clean_instruction

#: What ROS makes of bytes that are no UTF-8.
_REPLACEMENT = chr(0xFFFD)


def check_instruction(text: str) -> str:
    """Return the instruction as the models see it; raises NodeError for one that is none."""
    if not text.strip():
        raise NodeError(ErrorCode.EMPTY_INSTRUCTION, 'the instruction is empty')
    if _REPLACEMENT in text:
        raise NodeError(ErrorCode.BAD_INSTRUCTION, 'the instruction is not valid UTF-8')
    try:
        return clean_instruction(text)
    except InstructionTooLongError as error:
        raise NodeError(ErrorCode.INSTRUCTION_TOO_LONG, str(error)) from error
    except ValueError as error:
        raise NodeError(ErrorCode.BAD_INSTRUCTION, str(error)) from error


def check_numbers(guidance: float, steps: int) -> None:
    """Raise NodeError for a guidance or a count of steps that no bundle takes."""
    if not 0.0 <= guidance <= MAX_GUIDANCE or not 0 <= steps <= MAX_STEPS:
        raise NodeError(
            ErrorCode.PLAN_INVALID,
            f'expected guidance 0..{MAX_GUIDANCE:g} and steps 0..{MAX_STEPS}, got {guidance} and '
            f'{steps}',
        )
