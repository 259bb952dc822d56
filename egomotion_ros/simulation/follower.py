# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A robot that does exactly what it is told: the simulation's stand-in for a whole-body controller.

The follower samples the reference at the present time: joints **and root** take the planned
values, no forces are computed.  So the simulation shows the plan, not whether a body of flesh or
steel could balance on it.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from egomotion_ros.types import RobotMotion

#: Farthest into the future a reference may start (s).
EARLIEST_START = 2.0
#: Largest jump from the present state to a new reference that is followed (rad; m).
JOINT_JUMP = 0.5
ROOT_JUMP = 0.25


@dataclass(frozen=True)
class State:
    """
    The robot at one time.

    ``positions``, ``velocities`` (J,) rad and rad/s; ``root_position`` (3,) m and
    ``root_quaternion`` (4,) xyzw of the base link in ``odom``; ``root_twist`` (6,) linear then
    angular, expressed in ``odom``.
    """

    positions: np.ndarray
    velocities: np.ndarray
    root_position: np.ndarray
    root_quaternion: np.ndarray
    root_twist: np.ndarray

    def still(self) -> State:
        """Return the same place at rest."""
        return State(self.positions, np.zeros_like(self.velocities), self.root_position,
                     self.root_quaternion, np.zeros(6))


class Follower:
    """
    Follows the newest accepted reference, holds where there is none or where it has ended.

    ``joint_names``, ``lower``, ``upper`` (J,) describe the robot; ``state`` is where it stands.
    A reference that is refused changes nothing: what runs goes on to its own end.
    """

    def __init__(self, joint_names: tuple[str, ...], lower: np.ndarray, upper: np.ndarray,
                 state: State) -> None:
        self.joint_names = tuple(joint_names)
        self._lower, self._upper = np.asarray(lower), np.asarray(upper)
        self._state = state.still()
        self._running: tuple[int, RobotMotion] | None = None
        self._next: tuple[int, RobotMotion] | None = None

    def place(self, state: State) -> None:
        """Forget every reference and stand at ``state``."""
        self._state, self._running, self._next = state.still(), None, None

    def offer(self, motion: RobotMotion, start: int, now: int) -> None:
        """
        Take over ``motion``, whose first row is due at ``start`` (ns); ``now`` in ns.

        Raises ValueError, saying why, for a reference of another robot or frame, with numbers
        that are not finite or outside the joint limits, that is over or starts too late, or that
        begins somewhere else than where the robot is.
        """
        motion = self._in_order(motion)
        seconds = (now - start) * 1e-9
        if seconds > motion.duration:
            raise ValueError(f'stale: it ended {seconds - motion.duration:.2f} s ago')
        if seconds < -EARLIEST_START:
            raise ValueError(f'it starts {-seconds:.2f} s from now, at most {EARLIEST_START} s '
                             'are accepted')
        here, there = self.sample(max(now, start)), sample(motion, max(seconds, 0.0))
        joint = float(np.abs(here.positions - there.positions).max())
        root = float(np.linalg.norm(here.root_position - there.root_position))
        if joint > JOINT_JUMP or root > ROOT_JUMP:
            raise ValueError(f'it does not begin where the robot is: joints {joint:.2f} rad and '
                             f'base {root:.2f} m away (at most {JOINT_JUMP} rad, {ROOT_JUMP} m)')
        self._next = (start, motion)

    def sample(self, now: int) -> State:
        """Return the state at ``now`` (ns), which must not run backwards while moving."""
        if self._next is not None and now >= self._next[0]:
            self._running, self._next = self._next, None
        if self._running is not None:
            start, motion = self._running
            seconds = (now - start) * 1e-9
            self._state = sample(motion, seconds)
            if seconds >= motion.duration:
                self._state, self._running = self._state.still(), None
        return self._state

    @property
    def moving(self) -> bool:
        """Whether a reference is being followed."""
        return self._running is not None

    def _in_order(self, motion: RobotMotion) -> RobotMotion:
        """Return ``motion`` with its joints in the robot's order, or raise ValueError."""
        if motion.frame_id != 'odom':
            raise ValueError(f'expected a reference in odom, got frame {motion.frame_id!r}')
        if sorted(motion.joint_names) != sorted(self.joint_names):
            missing = sorted(set(self.joint_names) - set(motion.joint_names))
            unknown = sorted(set(motion.joint_names) - set(self.joint_names))
            raise ValueError(f'not for this robot: joints missing {missing}, unknown {unknown}')
        rows, joints = motion.steps, len(self.joint_names)
        shapes = {'positions': (rows, joints), 'velocities': (rows, joints),
                  'root_position': (rows, 3), 'root_quaternion': (rows, 4),
                  'root_twist': (rows, 6)}
        for name, shape in shapes.items():
            value = getattr(motion, name)
            if value.shape != shape:
                raise ValueError(f'expected {name} of shape {shape}, got {value.shape}')
            if not np.isfinite(value).all():
                raise ValueError(f'{name} holds numbers that are not finite')
        if rows < 2 or not (math.isfinite(motion.step_dt) and motion.step_dt > 0.0):
            raise ValueError(f'expected two rows or more and step_dt > 0, got {rows} rows '
                             f'{motion.step_dt} s apart')
        norms = np.linalg.norm(motion.root_quaternion, axis=1)
        if np.abs(norms - 1.0).max() > 1e-3:
            raise ValueError('root_quaternion holds rows that are not of unit length')
        order = [motion.joint_names.index(name) for name in self.joint_names]
        positions = motion.positions[:, order]
        beyond = np.maximum(self._lower - positions, positions - self._upper).max(axis=0)
        if beyond.max() > 1e-3:
            worst = int(beyond.argmax())
            raise ValueError(f'{self.joint_names[worst]} is {beyond[worst]:.3f} rad beyond its '
                             'limit')
        return RobotMotion(self.joint_names, motion.step_dt, positions,
                           motion.velocities[:, order], motion.root_position,
                           motion.root_quaternion / norms[:, None], motion.root_twist,
                           motion.contacts, motion.frame_id)


def sample(motion: RobotMotion, seconds: float) -> State:
    """
    Return the reference ``seconds`` after its first row; the ends are held.

    Joints and root position run on the cubic Hermite curve through positions and velocities, as
    joint_trajectory_controller interpolates; orientation along the shortest arc.
    """
    dt = motion.step_dt
    seconds = min(max(seconds, 0.0), motion.duration)
    row = min(int(seconds / dt), motion.steps - 2)
    u = seconds / dt - row
    positions, velocities = _hermite(motion.positions, motion.velocities, row, u, dt)
    place, linear = _hermite(motion.root_position, motion.root_twist[:, :3], row, u, dt)
    a, b = motion.root_quaternion[row], motion.root_quaternion[row + 1]
    angular = (1 - u) * motion.root_twist[row, 3:] + u * motion.root_twist[row + 1, 3:]
    return State(positions, velocities, place, slerp(a, b, u), np.concatenate([linear, angular]))


def _hermite(values: np.ndarray, slopes: np.ndarray, row: int, u: float,
             dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Value and slope of the cubic between ``row`` and the next, ``u`` in [0, 1]."""
    a, b, s, t = values[row], values[row + 1], slopes[row] * dt, slopes[row + 1] * dt
    value = ((2 * u**3 - 3 * u**2 + 1) * a + (u**3 - 2 * u**2 + u) * s
             + (3 * u**2 - 2 * u**3) * b + (u**3 - u**2) * t)
    slope = ((6 * u**2 - 6 * u) * (a - b) + (3 * u**2 - 4 * u + 1) * s
             + (3 * u**2 - 2 * u) * t) / dt
    return value, slope


def slerp(a: np.ndarray, b: np.ndarray, u: float) -> np.ndarray:
    """Return the unit quaternion ``u`` of the way along the shortest arc from a to b."""
    dot = float(a @ b)
    if dot < 0.0:
        b, dot = -b, -dot
    angle = math.acos(min(dot, 1.0))
    if angle < 1e-6:
        mixed = (1 - u) * a + u * b
    else:
        mixed = (math.sin((1 - u) * angle) * a + math.sin(u * angle) * b) / math.sin(angle)
    return mixed / np.linalg.norm(mixed)
