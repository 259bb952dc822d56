# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The clock a plan is played on: what runs, how the next plan joins it, how it stops.

No ROS in here; times are integer nanoseconds of whatever clock the caller keeps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from egomotion_ros.body.edits import slice_frames
from egomotion_ros.retarget.beginning import MARGIN, stop_after
from egomotion_ros.retarget.joining import LOST, MotionState, decelerate, join, sample
from egomotion_ros.retarget.limits import JointLimits, RootLimits
from egomotion_ros.types import HumanMotion, RobotMotion

#: Two motions that differ by less (rad, m and their rates) are one.
SAME = 1e-4


@dataclass(frozen=True)
class Beginning:
    """
    How the beginning of a plan came to be played, so that the whole plan comes in the same way.

    ``plan_id`` of the plan; it joined ``before``, None where it began from rest, at ``now`` (ns)
    with ``lead`` and ``blend`` (s); ``stop`` (ns) is when its stop begins.
    """

    plan_id: str
    before: Playing | None
    now: int
    lead: float
    blend: float
    stop: int


@dataclass(frozen=True)
class Playing:
    """
    A motion being executed.

    ``motion`` with its first row due at ``start`` (ns); ``human`` motion it was made from, its
    first frame at ``human_start`` (ns), None for a stop; ``hold`` True for a stop; ``beginning``
    where it is only the beginning of a plan, None where it is a whole one.
    """

    motion: RobotMotion
    start: int
    human: HumanMotion | None
    human_start: int
    hold: bool
    beginning: Beginning | None = None

    @property
    def end(self) -> int:
        """When the last row is due (ns)."""
        return self.start + round(1e9 * self.motion.duration)

    def seconds(self, now: int) -> float:
        """Seconds from the first row to ``now``."""
        return 1e-9 * (now - self.start)


@dataclass(frozen=True)
class Measured:
    """
    The robot as it was measured.

    ``positions``, ``velocities`` (J,) at ``stamp`` (ns); ``base`` position (3,), quaternion (4,)
    xyzw and twist (6,) of the base link, None where it is not known.
    """

    positions: np.ndarray
    velocities: np.ndarray
    stamp: int
    base: tuple[np.ndarray, np.ndarray, np.ndarray] | None

    @property
    def root(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Position and quaternion of the base link, where known."""
        return None if self.base is None else self.base[:2]

    def state(self, commanded: MotionState) -> MotionState:
        """As a state of motion; the contacts, and the base if unknown, as ``commanded``."""
        measured = replace(commanded, positions=self.positions, velocities=self.velocities)
        if self.base is None:
            return measured
        position, quaternion, twist = self.base
        return replace(
            measured, root_position=position, root_quaternion=quaternion, root_twist=twist
        )


class Player:
    """Knows at every time what the robot was told to do."""

    def __init__(self, limits: JointLimits, root_limits: RootLimits) -> None:
        self._limits, self._root_limits = limits, root_limits
        self.playing: Playing | None = None

    def is_moving(self, now: int) -> bool:
        """Return True while a motion, a stop included, is not over."""
        return self.playing is not None and now < self.playing.end

    def is_stopping(self, now: int) -> bool:
        """Return True while the motion under way is a stop."""
        return self.is_moving(now) and self.playing.hold

    def progress(self, now: int) -> float:
        """Share of the motion under way that has passed, 0..1; 1 where nothing runs."""
        if self.playing is None or self.playing.motion.duration <= 0:
            return 1.0
        return min(max(self.playing.seconds(now) / self.playing.motion.duration, 0.0), 1.0)

    def state(self, now: int) -> MotionState | None:
        """Commanded state at ``now``, None where nothing was ever played; for any thread."""
        playing = self.playing
        return None if playing is None else sample(playing.motion, playing.seconds(now))

    def prefix(self, stamp: int, seconds: float) -> HumanMotion | None:
        """
        Human motion executed from ``stamp`` (ns) on, ``seconds`` of it, for in-painting.

        None where no plan is under way at ``stamp`` or nothing of it is left.
        """
        playing = self.playing
        if playing is None or playing.human is None or not self.is_moving(stamp):
            return None
        human = playing.human
        first = round(1e-9 * (stamp - playing.human_start) * human.fps)
        last = min(first + round(seconds * human.fps), human.frames)
        if first < 0 or last - first < 2:
            return None
        rows = slice(first, last)
        return HumanMotion(
            human.root_position[rows],
            human.rotations[rows],
            human.contacts[rows],
            human.fps,
            human.frame_id,
            human.scale,
        )

    def begin(self, motion: RobotMotion, human: HumanMotion | None, now: int) -> Playing:
        """Play ``motion`` from its first row at ``now``: nothing else is under way."""
        self.playing = Playing(motion, now, human, now, hold=False)
        return self.playing

    def follow(
        self,
        motion: RobotMotion,
        human: HumanMotion | None,
        observed: int,
        now: int,
        lead: float,
        blend: float,
    ) -> Playing:
        """
        Let ``motion``, whose first row belongs to ``observed`` (ns), join what is under way.

        The answer starts at or before ``now`` with rows of the running motion.  Raises ValueError
        where the new motion is over before it could be joined.
        """
        self.playing = self._joined(self.playing, motion, human, observed, now, lead, blend)
        return self.playing

    def begun(self, plan_id: str) -> int | None:
        """When (ns) the plan began whose beginning is what plays; None for any other plan."""
        how = None if self.playing is None else self.playing.beginning
        return None if how is None or how.plan_id != plan_id else self.playing.human_start

    def open(
        self,
        plan_id: str,
        motion: RobotMotion,
        solved: float,
        human: HumanMotion,
        observed: int | None,
        now: int,
        lead: float,
        blend: float,
    ) -> Playing | None:
        """
        Play the beginning of a plan, which ends in a stop unless :meth:`complete` follows.

        The rows of ``motion`` are those of the plan up to ``solved`` seconds; the stop begins
        MARGIN before that.  It joins what is under way as in :meth:`follow`, or begins at ``now``
        where ``observed`` is None.  None, and nothing changes, where the stop would begin within
        ``lead`` seconds.
        """
        origin = now if observed is None else observed
        stop = origin + round(1e9 * (solved - MARGIN))
        if stop <= now + round(1e9 * lead):
            return None
        before = None if observed is None else replace(self.playing, beginning=None)
        how = Beginning(plan_id, before, now, lead, blend, stop)
        playing = self._enter(how, motion, human, origin)
        row = int(np.floor(playing.seconds(stop) / motion.step_dt + 1e-6))
        stop = playing.start + round(1e9 * row * motion.step_dt)
        frames = round(1e-9 * (stop - origin) * human.fps)
        self.playing = replace(
            playing,
            motion=stop_after(playing.motion, row, self._limits, self._root_limits),
            # What comes after the stop has begun is not what will be executed.
            human=slice_frames(human, 0, min(max(frames, 2), human.frames)),
            beginning=replace(how, stop=stop),
        )
        return self.playing

    def complete(
        self, motion: RobotMotion, human: HumanMotion, now: int, lead: float, blend: float
    ) -> Playing:
        """
        Let the whole plan ``motion`` take the place of its beginning, which is what plays.

        Up to the row where the stop of the beginning would begin, the answer is the same motion
        with the same start.  Where that row is less than ``lead`` seconds away, or gone, the plan
        joins the stop instead, as in :meth:`follow`, and raises what that raises: it goes on,
        later, from where on its path the stop has brought the robot.
        """
        begun = self.playing
        how, origin, leaves = begun.beginning, begun.human_start, now + round(1e9 * lead)
        if leaves <= how.stop:
            whole = self._enter(how, motion, human, origin)
            if _agree(begun, whole, now, leaves):
                self.playing = whole
                return whole
        gone, slowing = max(leaves - how.stop, 0), max(begun.end - how.stop, 1)
        share = min(gone / slowing, 1.0)
        delay = gone - round(slowing * (share - 0.5 * share**2))
        # The speed that the stop took away comes back in a third of the blend without overshoot.
        delay += round(1e9 * blend * share / 3.0)
        return self.follow(motion, human, origin + delay, now, lead, blend)

    def _enter(
        self, how: Beginning, motion: RobotMotion, human: HumanMotion, origin: int
    ) -> Playing:
        """Let ``motion``, whose first row belongs to ``origin`` (ns), come in as ``how`` says."""
        if how.before is None:
            return Playing(motion, origin, human, origin, hold=False)
        return self._joined(how.before, motion, human, origin, how.now, how.lead, how.blend)

    def _joined(
        self,
        before: Playing,
        motion: RobotMotion,
        human: HumanMotion | None,
        observed: int,
        now: int,
        lead: float,
        blend: float,
    ) -> Playing:
        joined = join(
            before.motion,
            max(before.seconds(now), 0.0),
            motion,
            1e-9 * (observed - before.start),
            self._limits,
            self._root_limits,
            lead,
            blend,
        )
        start = before.start + round(1e9 * joined.start)
        return Playing(joined.motion, start, human, observed, hold=False)

    def stop(self, now: int, measured: Measured | None) -> Playing | None:
        """
        Come to rest within the limits, from the row at or before ``now`` on.

        None where nothing moves or a stop is under way; what was only begun is over then, too.
        ``measured`` is compared with what was commanded when it was measured, so that an old
        message is not taken for a robot that does not follow; None where nothing is known.
        """
        if self.playing is not None:
            self.playing = replace(self.playing, beginning=None)
        if not self.is_moving(now) or self.playing.hold:
            return None
        running = self.playing
        seconds = max(running.seconds(now), 0.0)
        state = sample(running.motion, seconds)
        if measured is not None:
            then = sample(running.motion, running.seconds(measured.stamp))
            if np.abs(measured.positions - then.positions).max() > LOST:
                state = measured.state(state)
        stop = decelerate(running.motion, seconds, state, self._limits, self._root_limits)
        start = running.start + round(1e9 * stop.start)
        self.playing = Playing(stop.motion, start, None, start, hold=True)
        return self.playing

    def shift(self, nanoseconds: int) -> Playing:
        """Move the motion under way in time: the clock was set."""
        playing = self.playing
        self.playing = replace(
            playing,
            start=playing.start + nanoseconds,
            human_start=playing.human_start + nanoseconds,
        )
        return self.playing

    def forget(self) -> None:
        """Nothing runs any more."""
        self.playing = None


def _agree(one: Playing, other: Playing, begin: int, end: int) -> bool:
    """Return True where both move the robot alike from ``begin`` to ``end`` (ns)."""
    times = np.linspace(0.0, 1e-9 * (end - begin), 5)
    a, b = (sample(x.motion, x.seconds(begin) + times) for x in (one, other))
    turned = 1.0 - np.abs((a.root_quaternion * b.root_quaternion).sum(axis=-1))
    pairs = ((a.positions, b.positions), (a.velocities, b.velocities),
             (a.root_position, b.root_position), (a.root_twist, b.root_twist))
    return turned.max() < SAME and all(np.abs(x - y).max() < SAME for x, y in pairs)


def check_motion(motion: RobotMotion, limits: JointLimits) -> None:
    """
    Refuse a motion that must not reach a robot.

    Raises ValueError for other joints, numbers that are not finite, positions outside the limits
    or an end that is not at rest.
    """
    if motion.joint_names != limits.joint_names:
        raise ValueError(f'motion: expected the joints {limits.joint_names}')
    for name in 'positions velocities root_position root_quaternion root_twist contacts'.split():
        rows = getattr(motion, name)
        if len(rows) != motion.steps or not np.isfinite(rows).all():
            raise ValueError(f'motion: {name} must have {motion.steps} finite rows')
    out = np.maximum(limits.lower - motion.positions, motion.positions - limits.upper)
    if out.max() > 1e-4:
        worst = int(out.max(axis=0).argmax())
        raise ValueError(f'motion: {limits.joint_names[worst]} leaves its limits')
    if np.abs(motion.velocities[-1]).max() > 1e-6:
        raise ValueError('motion: does not end at rest')
