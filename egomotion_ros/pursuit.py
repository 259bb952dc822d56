# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Where the plans of one instruction lead, remembered from look to look.

A plan sees one picture.  Told to walk to something, a body that has arrived often sees it at the
lower edge of the picture or not at all, and a plan made there looks for it: it turns away.  On the
way a look may be worse than the one before.  Therefore a plan counts only where it agrees with
where the plans before lead, or where two looks in a row from different places say so; a search
gives way to whatever leads somewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

from egomotion_ros.aim import IN_PLACE, SWEEP
from egomotion_ros.types import PlanarPose, Target

#: Ends that are nearer (m, in human metres) and turned by less (rad) are one place.
SAME_PLACE, SAME_HEADING = 0.7, math.radians(45.0)
#: A plan that ends IN_PLACE, in human metres, turns if it turns by more than this (rad), and
#: searches if it turns left by SWEEP, about: plans turn less exactly than the samples of one.
TURNS, ABOUT = math.radians(15.0), math.radians(45.0)
#: A moving body this near (m, in human metres) to where it is led, and turned by so little (rad),
#: is there; one at rest is from IN_PLACE on, and this angle.
THERE, THERE_TURN, AT_REST_TURN = 0.1, math.radians(10.0), math.radians(25.0)
#: A body that is there, and did not have to go as far as SAME_PLACE, takes a step of more than
#: STEP (m, in human metres) to where a closer look leads, at most STEPS of them: hands need it.
STEP, STEPS = 0.15, 2
#: What it turned to is in the middle of its picture, unlike what it walked to: where a look from
#: there searches it may have been something else.  So often a search is followed then, by a body
#: that had to search before; of what was in view from the start that is seldom true.
DOUBTS = 2
#: Two looks whose places are farther apart (m, in human metres) are two witnesses.
ELSEWHERE = 0.3
#: A body that searched through so much (rad) without finding anything has looked all around.
ALL_AROUND = math.radians(345.0)


@dataclass(frozen=True)
class Leads:
    """
    One plan: its picture was taken at ``here``, it ends at ``end``, both in ``odom``.

    ``begins`` is where it may first differ from what is executed anyway, ``scale`` the robot's,
    ``has_target`` False where the instruction names nothing that could be looked for.
    """

    here: PlanarPose
    end: PlanarPose
    begins: PlanarPose
    scale: float
    has_target: bool = True

    @property
    def way(self) -> float:
        """Metres from where it begins to its end, in human metres."""
        return _apart(self.begins, self.end) / self.scale

    @property
    def turn(self) -> float:
        """Angle (rad) to the left by which it turns."""
        return _turned(self.begins, self.end)

    @property
    def is_turn(self) -> bool:
        """Whether it turns in place."""
        return self.way < IN_PLACE and abs(self.turn) > TURNS

    @property
    def is_search(self) -> bool:
        """Whether it turns as one that looks for something."""
        return self.has_target and self.is_turn and abs(self.turn - SWEEP) < ABOUT

    def begins_where_it_ends(self, other: Leads, at_rest: bool) -> bool:
        """Whether the other one has led the body to its end; nearly is enough for one at rest."""
        near, turned = (IN_PLACE, AT_REST_TURN) if at_rest else (THERE, THERE_TURN)
        return (_apart(self.here, other.end) < near * self.scale
                and abs(_turned(self.here, other.end)) < turned)

    def agrees(self, other: Leads) -> bool:
        """Whether both end in one place; what turns on the spot must be at that place."""
        far = IN_PLACE if self.is_turn else SAME_PLACE
        return (_apart(self.end, other.end) < far * self.scale
                and abs(_turned(self.end, other.end)) < SAME_HEADING)


class Pursuit:
    """
    Decides which plans of one instruction are followed, by a robot of this ``scale``.

    :meth:`follows` is asked about every plan in turn, the first one included; :meth:`commit` says
    that the plan it was asked about last is being executed.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self._scale = scale
        # The newest plan that was followed, and the one that first led to this place: corrections
        # of corrections must not carry "two metres ahead" on and on.
        self._led: Leads | None = None
        self._first: Leads | None = None
        self._doubt: Leads | None = None
        self._asked: tuple[Leads, bool] | None = None
        self._searched = 0.0
        self._steps = 0
        self._doubted = 0
        self._has_searched = False
        #: True once the newest plan would search on where all around was searched.
        self.is_lost = False
        #: True where the newest plan was made where the one before has led.
        self.is_there = False

    @property
    def is_searching(self) -> bool:
        """Whether what is being executed, or was executed last, is a search."""
        return self._led is not None and self._led.is_search

    def follows(self, here: PlanarPose, end: PlanarPose, at_rest: bool,
                begins: PlanarPose | None = None, target: Target = Target.UNKNOWN) -> bool:
        """
        Return whether to follow a plan that was seen at ``here`` and ends at ``end``.

        ``at_rest`` is True where the motion of the plan before is over; ``begins`` where the plan
        may first differ from that motion, ``here`` if None; ``target`` what the reasoner
        says.
        """
        has_target = target is not Target.NONE
        new, led = Leads(here, end, begins or here, self._scale, has_target), self._led
        self.is_lost = False
        self.is_there = led is not None and new.begins_where_it_ends(led, at_rest)
        corrects = self._corrects(new, at_rest)
        self._asked = None if corrects is None else (new, corrects)
        return corrects is not None

    def commit(self) -> None:
        """Note that the plan that was asked about last is executed."""
        if self._asked is None:
            return
        new, corrects = self._asked
        if self.is_searching and not corrects:
            self._searched += self._led.turn
        elif self._led is not None and new.is_search:
            self._doubted += 1
        self._has_searched |= new.is_search
        self._steps = self._steps + self.is_there if corrects else 0
        self._led, self._asked = new, None
        if not corrects:
            self._first, self._doubt = new, None
        if not new.is_search:
            self._searched = 0.0

    def _corrects(self, new: Leads, at_rest: bool) -> bool | None:
        """Whether ``new`` corrects what leads or leads anew; None where it is not followed."""
        led = self._led
        if led is None:
            return False
        if not new.has_target:
            # "Turn left" is done once it was turned: no look tells how much of it is left.
            return None
        if led.is_turn and not (self.is_there or at_rest):
            # A picture taken while the body turns shows what is looked for at its edge.
            return None
        if led.is_search:
            self.is_lost = new.is_search and self._searched + led.turn >= ALL_AROUND
            return None if self.is_lost else False
        if new.agrees(self._first) and (not self.is_there or self._improves(new)):
            self._doubt = None
            return True
        if (new.is_search and self.is_there and self._first.way < IN_PLACE
                and self._has_searched and self._doubted < DOUBTS):
            return False
        if new.is_turn:
            self._doubt = None
            return None
        if self._is_confirmed(new):
            return False
        self._doubt = new
        return None

    def _improves(self, new: Leads) -> bool:
        """Return whether a body that has arrived where it needed a step should take another."""
        return (not new.is_turn and self._steps < STEPS and self._first.way < SAME_PLACE
                and _apart(new.end, self._led.end) > STEP * self._scale)

    def _is_confirmed(self, new: Leads) -> bool:
        """Return whether the look before said the same, from another place."""
        doubt = self._doubt
        if doubt is None or not new.agrees(doubt):
            return False
        moved = _apart(doubt.here, new.here)
        # A place stays where it is; what is told by a measure moves along with the body.
        return (moved > ELSEWHERE * self._scale
                and _apart(doubt.end, new.end) < 0.5 * moved)


def _apart(a: PlanarPose, b: PlanarPose) -> float:
    return math.hypot(a.x - b.x, a.y - b.y)


def _turned(a: PlanarPose, b: PlanarPose) -> float:
    """Angle (rad) to the left from the heading of ``a`` to that of ``b``."""
    return math.remainder(b.yaw - a.yaw, 2.0 * math.pi)
