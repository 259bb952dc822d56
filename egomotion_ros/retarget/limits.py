# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What a robot must never exceed, and how a sequence is made to respect it.

Everything here works on control points of the spline of spline.py, so that position, velocity and
acceleration limits hold on the whole interpolated curve and not only at its waypoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egomotion_ros.retarget.spline import hermite
from egomotion_ros.types import RobotMotion

#: Rate at which :func:`check` looks at the interpolated curve (Hz).
CHECK_RATE = 1000.0
#: Rounding error that :func:`check` forgives (rad, rad/s, and a thousandth of rad/s^2).
TOLERANCE = 1e-6
#: A step below this (rad, m), far below any encoder's, is none: so that a sequence ends.
STILL = 1e-9


@dataclass(frozen=True)
class JointLimits:
    """
    Limits of the joints ``joint_names``, each array (J,).

    ``lower`` < ``upper`` (rad), ``velocity`` > 0 (rad/s), ``acceleration`` > 0 (rad/s^2).
    Raises ValueError where lengths differ or a limit is not finite or not in order.
    """

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    joint_names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ('lower', 'upper', 'velocity', 'acceleration'):
            value = np.asarray(getattr(self, name), dtype=np.float64)
            if value.shape != (len(self.joint_names),) or not np.isfinite(value).all():
                raise ValueError(
                    f'{name}: expected {len(self.joint_names)} finite numbers, '
                    f'got shape {value.shape}'
                )
            object.__setattr__(self, name, value)
        for j, name in enumerate(self.joint_names):
            if not self.lower[j] < self.upper[j]:
                raise ValueError(f'{name}: lower limit {self.lower[j]} >= upper {self.upper[j]}')
            if not (self.velocity[j] > 0 and self.acceleration[j] > 0):
                raise ValueError(f'{name}: velocity and acceleration limits must be > 0')


@dataclass(frozen=True)
class RootLimits:
    """Limits of the floating base: m/s, rad/s, m/s^2, rad/s^2, each for every axis."""

    linear_velocity: float = 4.0
    angular_velocity: float = 8.0
    linear_acceleration: float = 40.0
    angular_acceleration: float = 120.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f'root {name}: expected a number > 0, got {value}')


@dataclass(frozen=True)
class Violations:
    """
    What :func:`check` found on the 1 kHz curve: counts of (instant, joint) pairs, worst excess.

    ``position``, ``velocity``, ``acceleration`` counts; ``worst_*`` the largest excess over a
    limit (rad, rad/s, rad/s^2); ``samples`` instants looked at; ``worst_joint`` the joint with
    most violations, '' where there are none.
    """

    position: int
    velocity: int
    acceleration: int
    worst_position: float
    worst_velocity: float
    worst_acceleration: float
    samples: int
    worst_joint: str

    @property
    def total(self) -> int:
        """Position and velocity violations together: the count that must be zero."""
        return self.position + self.velocity


def fastest(room: np.ndarray, brake: np.ndarray) -> np.ndarray:
    """
    Largest step after which one can still stop within ``room`` by shrinking it by ``brake``.

    Steps u, u - brake, u - 2 brake, ... > 0 must sum to at most ``room``: with n of them,
    u = room / n + brake (n - 1) / 2.  If u <= fastest(r) then u - brake <= fastest(r - u), so a
    sequence that keeps to this never has to choose between a limit and its deceleration.
    ``room`` >= 0 may be infinite; arrays broadcast.
    """
    room = np.minimum(room, 1e6)  # a kilometre or a thousand turns: no limit at all
    n = np.maximum(np.ceil(0.5 * (np.sqrt(1.0 + 8.0 * room / brake) - 1.0)), 1.0)
    return room / n + 0.5 * brake * (n - 1.0)


@dataclass(frozen=True)
class Box:
    """
    The limits of a sequence of control points ``step`` seconds apart.

    ``lower``, ``upper`` bound the points, ``rate`` their differences, ``change`` the differences
    of these; all (J,), in units of the points.
    """

    lower: np.ndarray
    upper: np.ndarray
    rate: np.ndarray
    change: np.ndarray

    @classmethod
    def of_joints(cls, limits: JointLimits, step: float) -> Box:
        """Box of joint limits for points ``step`` seconds apart."""
        return cls(
            limits.lower,
            limits.upper,
            limits.velocity * step,
            limits.acceleration * step**2,
        )

    @classmethod
    def of_root_position(cls, limits: RootLimits, step: float) -> Box:
        """Box of the base's position (3,) for points ``step`` seconds apart."""
        free = np.full(3, np.inf)
        return cls(
            -free,
            free,
            np.full(3, limits.linear_velocity * step),
            np.full(3, limits.linear_acceleration * step**2),
        )

    def interval(self, point: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Smallest and largest next difference at ``point`` (J,) after the difference ``last`` (J,).

        Never empty and never leads to a state without a next difference.  If ``last`` itself
        came in too fast to stop before a limit, the limit wins over ``change``.
        """
        down, up = self.steps(point)
        low = np.clip(last - self.change, -down, up)
        high = np.clip(last + self.change, -down, up)
        return low, high

    def around(self, point: np.ndarray, last: np.ndarray, wider: Box) -> Box:
        """
        This box, opened towards ``wider`` just enough for a ``point`` that is outside it.

        After the difference ``last`` the opened box still lets every joint stop.
        """
        speed = np.maximum(np.abs(last) - self.change, 0.0)
        steps = np.ceil(speed / self.change)
        way = speed * steps - 0.5 * self.change * steps * (steps - 1.0)
        below = np.maximum(point - np.where(last < 0.0, way, 0.0), wider.lower)
        above = np.minimum(point + np.where(last > 0.0, way, 0.0), wider.upper)
        lower, upper = np.minimum(self.lower, below), np.maximum(self.upper, above)
        return Box(lower, upper, self.rate, self.change)

    def start(
        self,
        position: np.ndarray,
        velocity: np.ndarray,
        step: float,
        wishes: tuple[np.ndarray, ...] = (),
    ) -> np.ndarray:
        """
        First three control points (3, J) of a curve that starts at ``position``, ``velocity``.

        ``wishes`` are accelerations (J,) the curve would like to start with, best first; each
        joint gets the first that the limits allow, or the allowed one nearest to the first wish.
        Where there is none, because the joint is too fast to be stopped before a limit, its
        velocity is lowered.  ``position`` and ``velocity`` must be inside the limits.
        """
        most = self.change / step**2
        first = np.clip(wishes[0], -most, most) if wishes else np.zeros_like(most)
        # Up to three times the limit: braking too hard once is better than hitting a stop.
        spread = np.sort(np.outer(np.linspace(-3.0, 3.0, 49), most), axis=0)
        cost = np.abs(spread - first) + np.where(np.abs(spread) > 1.001 * most, 1e6, 0.0)
        ordered = np.take_along_axis(spread, np.argsort(cost, axis=0), axis=0)
        tries = np.stack([np.clip(w, -most, most) for w in wishes] + list(ordered))
        here = position - tries * step**2 / 6.0
        ahead = velocity * step + 0.5 * tries * step**2
        down, up = self.steps(here)
        slack = 1e-9  # a running plan is right at its limits, up to rounding
        good = (here >= self.lower - slack) & (here <= self.upper + slack)
        good &= (ahead >= -down - slack) & (ahead <= up + slack)
        here, ahead = np.clip(here, self.lower, self.upper), np.clip(ahead, -down, up)
        pick, any_good = good.argmax(axis=0)[None], good.any(axis=0)
        here = np.where(any_good, np.take_along_axis(here, pick, axis=0)[0], position)
        ahead = np.take_along_axis(ahead, pick, axis=0)[0]
        down, up = self.steps(position)
        slower = np.clip(velocity * step, -down, up)
        ahead = np.where(any_good, ahead, slower)
        before = np.where(any_good, here + ahead - 2.0 * step * velocity, here - slower)
        return np.stack([before, here, here + ahead])

    def steps(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Longest steps down and up from ``point`` (..., J), whatever came before."""
        down = fastest(np.maximum(point - self.lower, 0.0), self.change)
        up = fastest(np.maximum(self.upper - point, 0.0), self.change)
        return np.minimum(self.rate, down), np.minimum(self.rate, up)


def govern(targets: np.ndarray, start: np.ndarray, box: Box, settle: bool = True) -> np.ndarray:
    """
    Follow control points ``targets`` as closely as ``box`` allows.

    ``start`` (3, J) from :meth:`Box.start`, whose points two and three stand for the first two
    targets; ``targets`` (T, J).  Where the targets keep the limits, they are the answer; after a
    jump the answer catches up without overshoot.  With ``settle`` rows are added until all
    joints rest, and the last three points are equal: the curve ends at exactly zero velocity.
    Returns (T + 1 + tail, J).
    """
    kept = _keeps(targets, start, box)
    straight = np.concatenate([start, targets[2:]])
    if settle:
        still = (np.abs(straight[-1] - straight[-2]) < STILL)[kept].all()
        rest = 2 if still else 3
        straight = np.concatenate([straight, np.repeat(straight[-1:], rest, axis=0)])
    if kept.all():
        return straight
    # Joints do not depend on each other: the others are led row by row, which takes its time.
    led_ones = ~kept
    some = Box(*(limit[led_ones] for limit in (box.lower, box.upper, box.rate, box.change)))
    led = _lead(targets[:, led_ones], start[:, led_ones], some, settle)
    rows = max(len(led), len(straight))
    out = np.concatenate([straight, np.repeat(straight[-1:], rows - len(straight), axis=0)])
    out[:, led_ones] = np.concatenate([led, np.repeat(led[-1:], rows - len(led), axis=0)])
    return out


def _keeps(targets: np.ndarray, start: np.ndarray, box: Box) -> np.ndarray:
    """Tell which joints (J,) keep the limits by going through all targets and resting then."""
    path = np.concatenate([start[1:], targets[2:], targets[-1:]])
    steps = np.diff(path, axis=0)
    low, high = box.interval(path[1:-1], steps[:-1])
    inside = ((steps[1:] >= low) & (steps[1:] <= high)).all(axis=0)
    return inside & (np.abs(targets[1] - start[2]) < 1e-12)


def _lead(targets: np.ndarray, start: np.ndarray, box: Box, settle: bool) -> np.ndarray:
    """Do what :func:`govern` says, one row after the other."""
    out = list(start)
    last = start[2] - start[1]
    row = 2
    while True:
        ended = row >= len(targets)
        if ended and (not settle or not last.any()):
            break
        here = out[-1]
        now = targets[min(row - 1, len(targets) - 1)]
        want = targets[-1] if ended else targets[row]
        error = now - here
        catch = np.minimum(np.abs(error), fastest(np.abs(error), 0.5 * box.change))
        low, high = box.interval(here, last)
        last = np.clip(want - now + np.copysign(catch, error), low, high)
        last[(np.abs(last) < STILL) & (low <= 0.0) & (high >= 0.0)] = 0.0
        out.append(here + last)
        row += 1
    if settle:
        out += [out[-1]] * 2
    return np.array(out)


def check(motion: RobotMotion, limits: JointLimits) -> Violations:
    """
    Count limit violations of ``motion`` on the cubic Hermite curve at 1 kHz.

    Raises ValueError where the joints differ or a number is not finite.
    """
    if motion.joint_names != limits.joint_names:
        raise ValueError(f'joints: expected {limits.joint_names}, got {motion.joint_names}')
    if not (np.isfinite(motion.positions).all() and np.isfinite(motion.velocities).all()):
        raise ValueError('motion: positions and velocities must be finite')
    times = np.arange(0.0, motion.duration + 0.5 / CHECK_RATE, 1.0 / CHECK_RATE)
    place = np.minimum(times / motion.step_dt, motion.steps - 1)
    row = np.minimum(place.astype(int), max(motion.steps - 2, 0))
    after = np.minimum(row + 1, motion.steps - 1)
    p, v, a = hermite(
        motion.positions[row],
        motion.velocities[row],
        motion.positions[after],
        motion.velocities[after],
        (place - row)[:, None],
        motion.step_dt,
    )
    over_p = np.maximum(limits.lower - p, p - limits.upper)
    over_v = np.abs(v) - limits.velocity
    over_a = np.abs(a) - limits.acceleration
    bad_p, bad_v = over_p > TOLERANCE, over_v > TOLERANCE
    bad_a = over_a > 1e3 * TOLERANCE
    by_joint = (bad_p | bad_v).sum(axis=0)
    return Violations(
        position=int(bad_p.sum()),
        velocity=int(bad_v.sum()),
        acceleration=int(bad_a.sum()),
        worst_position=float(max(over_p.max(), 0.0)),
        worst_velocity=float(max(over_v.max(), 0.0)),
        worst_acceleration=float(max(over_a.max(), 0.0)),
        samples=len(times),
        worst_joint=limits.joint_names[int(by_joint.argmax())] if by_joint.any() else '',
    )
