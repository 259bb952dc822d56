# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What may not go on while the robot moves: inputs gone stale, a plan that never comes, a set clock.

Looks and tells; what is done about it is the controller's business.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from egomotion_ros.nodes.errors import ErrorCode, NodeError
from egomotion_ros.nodes.observer import Observer
from egomotion_ros.nodes.parameters import Parameters
from egomotion_ros.nodes.planning import PlanRequest
from egomotion_ros.nodes.player import Player

if TYPE_CHECKING:
    from egomotion_ros.nodes.lifecycle import ManagedNode

#: Clock jumps forward above this (s) stop motion, as every jump back does.
FORWARD_JUMP = 3.0
#: So do shorter ones that leave out more than this (s) of a motion, its end included.
END_JUMP = 1.0
#: Jumps forward above this (s) are told of: half of what joint states may be silent by default.
TOLD_JUMP = 0.25
#: A system clock that moved against the steady one by more than this (s) was set.
CLOCK_SLIP = 0.1
#: Two clocks that could not be read within this time (s) were not read together.
TOGETHER = 0.01


class Watch:
    """Looks after the inputs, the planning and the clock of a node."""

    def __init__(self, node: ManagedNode, parameters: Parameters, observer: Observer) -> None:
        self._clock, self._steady = node.get_clock(), node.steady_clock
        self._parameters, self._observer = parameters, observer
        self._slip: int | None = None

    def begin(self) -> None:
        """Something is under way from now on: what the clock did before does not matter."""
        self._slip = None

    def problem(
        self, request: PlanRequest | None, moving: bool, standing: bool
    ) -> NodeError | None:
        """
        Say why everything must stop, None if nothing must.

        ``request`` the plan being made; ``moving`` True while a motion other than a stop runs,
        whoever asked for it; ``standing`` True while an instruction waits for its next plan.
        """
        p = self._parameters
        if request is not None and time.monotonic() - request.started > p['planning_timeout']:
            return NodeError(ErrorCode.TIMEOUT, f'no plan within {p["planning_timeout"]} s')
        if moving and p['joint_states.required']:
            lapse = self._observer.joint_lapse()
            if lapse is not None:
                return lapse
        if moving or standing:
            return self._observer.lapse()
        return None

    def slip(self) -> int:
        """
        Nanoseconds by which the system clock was set since the last look, 0 if it was not.

        Of simulated time ROS tells the jumps, of the system's nobody does.
        """
        if self._clock.ros_time_is_active:
            return 0
        first = self._steady.now().nanoseconds
        told = self._clock.now().nanoseconds
        last = self._steady.now().nanoseconds
        if last - first > 1e9 * TOGETHER:  # this thread had to wait in between: look again later
            return 0
        before, self._slip = self._slip, told - (first + last) // 2
        slip = 0 if before is None else self._slip - before
        return slip if abs(slip) > 1e9 * CLOCK_SLIP else 0


def is_harmless(jump: int, now: int, player: Player) -> bool:
    """
    Return True for a jump (ns) that brought the clock to ``now`` and need not stop anything.

    A short one forward is nothing but a clock that comes late, unless a good part of the motion
    up to its end is in it: then a robot would be cut off in the middle of a step.
    """
    before = now - jump
    cut = player.is_moving(before) and not player.is_moving(now)
    left = player.playing.end - before if cut else 0
    return 0 <= jump <= 1e9 * FORWARD_JUMP and left <= 1e9 * END_JUMP
