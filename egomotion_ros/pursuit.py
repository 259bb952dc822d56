# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Where the plans of one instruction lead, remembered from look to look.

A plan sees one picture.  Told to walk to something, a body that has arrived often sees it at the
lower edge of the picture or not at all, and a plan made there looks for it: it turns away.  On the
way a look may be worse than the one before.  Therefore a plan counts only where it agrees with
where the plans before lead, or where two looks in a row from different places say so; what
turns in place, a search perhaps, gives way to whatever leads somewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

from egomotion_ros.types import PlanarPose

#: Ends that are nearer (m, in human metres) and turned by less (rad) are one place.
SAME_PLACE, SAME_HEADING = 0.7, math.radians(45.0)
#: A plan that ends nearer than this (m, in human metres) to where it begins stays in place,
IN_PLACE = 0.4
#: and turns if it turns by more than this (rad).
TURNS = math.radians(15.0)
#: A moving body this near (m, in human metres) to where it is led, and turned by so little (rad),
#: is there; one at rest is from IN_PLACE on, and this angle.
THERE, THERE_TURN, AT_REST_TURN = 0.1, math.radians(10.0), math.radians(25.0)
#: Two looks whose places are farther apart (m, in human metres) are two witnesses.
ELSEWHERE = 0.3
#: A body that turned in place by so much (rad) without finding anything has looked all around.
ALL_AROUND = 2.0 * math.pi


@dataclass(frozen=True)
class Leads:
    """Where one plan leads from ``here`` to ``end``, both in ``odom``."""

    here: PlanarPose
    end: PlanarPose
    scale: float

    @property
    def way(self) -> float:
        """Metres, in human metres."""
        return _apart(self.here, self.end) / self.scale

    @property
    def turn(self) -> float:
        """Angle (rad) between the headings."""
        return _turned(self.here, self.end)

    @property
    def is_turn(self) -> bool:
        """Whether it turns in place."""
        return self.way < IN_PLACE and self.turn > TURNS

    def begins_where_it_ends(self, other: Leads, at_rest: bool) -> bool:
        """Whether the other one has led the body to its end; nearly is enough for one at rest."""
        near, turned = (IN_PLACE, AT_REST_TURN) if at_rest else (THERE, THERE_TURN)
        return (_apart(self.here, other.end) < near * self.scale
                and _turned(self.here, other.end) < turned)

    def agrees(self, other: Leads) -> bool:
        """Whether both end in one place."""
        return (_apart(self.end, other.end) < SAME_PLACE * self.scale
                and _turned(self.end, other.end) < SAME_HEADING)


class Pursuit:
    """
    Decides which plans of one instruction are followed, by a robot of this ``scale``.

    :meth:`follows` is asked about every plan in turn, the first one included.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self._scale = scale
        # The newest plan that was followed, and the one that first led to this place: corrections
        # of corrections must not carry "two metres ahead" on and on.
        self._led: Leads | None = None
        self._first: Leads | None = None
        self._doubt: Leads | None = None
        self._turned = 0.0

    def follows(self, here: PlanarPose, end: PlanarPose, at_rest: bool) -> bool:
        """
        Return whether to follow a plan that was seen at ``here`` and ends at ``end``.

        ``at_rest`` is True where the motion of the plan before is over.
        """
        new, led = Leads(here, end, self._scale), self._led
        if led is None:
            return self._take(new)
        there = new.begins_where_it_ends(led, at_rest)
        if led.is_turn:
            # A picture taken while the body turns shows what is looked for at its edge.
            if not (there or at_rest):
                return False
            self._turned += led.turn
            return self._turned < ALL_AROUND and self._take(new)
        if new.is_turn:
            return False
        if not there and new.agrees(self._first):
            self._led, self._doubt = new, None
            return True
        if self._is_confirmed(new):
            return self._take(new)
        self._doubt = new
        return False

    @property
    def is_lost(self) -> bool:
        """True once the body has looked all around without finding anything."""
        return self._turned >= ALL_AROUND

    def _is_confirmed(self, new: Leads) -> bool:
        """Return whether the look before said the same, from another place."""
        doubt = self._doubt
        if doubt is None or not new.agrees(doubt):
            return False
        moved = _apart(doubt.here, new.here)
        # A place stays where it is; what is told by a measure moves along with the body.
        return (moved > ELSEWHERE * self._scale
                and _apart(doubt.end, new.end) < 0.5 * moved)

    def _take(self, new: Leads) -> bool:
        self._led = self._first = new
        self._doubt = None
        if not new.is_turn:
            self._turned = 0.0
        return True


def _apart(a: PlanarPose, b: PlanarPose) -> float:
    return math.hypot(a.x - b.x, a.y - b.y)


def _turned(a: PlanarPose, b: PlanarPose) -> float:
    return abs(math.remainder(a.yaw - b.yaw, 2.0 * math.pi))
