# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A robot that does exactly what it is told: the simulation's stand-in for a whole-body controller.

The follower samples the reference at the present time: joints **and root** take the planned
values, no forces are computed.  So the simulation shows the plan, not whether a body of flesh or
steel could balance on it.
"""

from __future__ import annotations

from dataclasses import replace
import math

import numpy as np

from egomotion_ros.body.rotations import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_quaternion,
    quaternion_to_matrix,
)
from egomotion_ros.retarget.joining import MotionState, sample, still
from egomotion_ros.types import RobotMotion

#: Farthest into the future a reference may start (s).
EARLIEST_START = 2.0
#: Largest step from the robot's state to the first row of a reference that is followed (rad; m).
JOINT_JUMP = 0.5
ROOT_JUMP = 0.25
#: Seconds in which the robot catches up with a reference that reached it late.
CATCH_UP = 0.3


class Follower:
    """
    Follows the newest accepted reference, holds where there is none or where it has ended.

    A reference takes effect at its first row's stamp.  Where it arrives later, the robot is
    behind it by the motion of that delay, and catches up within CATCH_UP seconds.

    ``joint_names``, ``lower``, ``upper`` (J,) describe the robot; ``state`` is where it stands.
    A reference that is refused changes nothing: what runs goes on to its own end.
    """

    def __init__(self, joint_names: tuple[str, ...], lower: np.ndarray, upper: np.ndarray,
                 state: MotionState) -> None:
        self.joint_names = tuple(joint_names)
        self._lower, self._upper = np.asarray(lower), np.asarray(upper)
        self.place(state)

    def place(self, state: MotionState) -> None:
        """Forget every reference and stand at ``state``."""
        self._state = state
        self._running: tuple[int, RobotMotion] | None = None
        #: Start of the reference, the reference, and when it takes over.
        self._next: tuple[int, RobotMotion, int] | None = None
        self._lag: _Lag | None = None

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
        here, there = self._reference(start), sample(motion, 0.0)
        joint = float(np.abs(here.positions - there.positions).max())
        root = float(np.linalg.norm(here.root_position - there.root_position))
        if joint > JOINT_JUMP or root > ROOT_JUMP:
            raise ValueError(f'it does not begin where the robot is: joints {joint:.2f} rad and '
                             f'base {root:.2f} m away (at most {JOINT_JUMP} rad, {ROOT_JUMP} m)')
        self._next = (start, motion, max(start, now))

    def sample(self, now: int) -> MotionState:
        """Return the state at ``now`` (ns), which must not run backwards while moving."""
        if self._next is not None and now >= self._next[2]:
            start, motion, begin = self._next
            self._next = None
            before = self.sample(begin)
            self._running = (start, motion)
            self._lag = _Lag(begin, before, self._reference(begin))
        if self._running is not None:
            self._state = self._reference(now)
            if self._lag is not None:
                self._state = self._lag.applied(self._state, now)
            if (now - self._running[0]) * 1e-9 >= self._running[1].duration + CATCH_UP:
                self._state = still(self._state.positions, self._state.root_position,
                                    self._state.root_quaternion)
                self._running = self._lag = None
        return self._state

    def _reference(self, now: int) -> MotionState:
        """Return what the running reference says of ``now`` (ns); the state where none runs."""
        if self._running is None:
            return self._state
        start, motion = self._running
        return sample(motion, (now - start) * 1e-9)

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
                  'root_twist': (rows, 6), 'contacts': (rows, 2)}
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
        return replace(motion, joint_names=self.joint_names, positions=positions,
                       velocities=motion.velocities[:, order],
                       root_quaternion=motion.root_quaternion / norms[:, None])


class _Lag:
    """What a late reference is ahead of the robot by, decaying to zero with a smooth step."""

    def __init__(self, now: int, robot: MotionState, reference: MotionState) -> None:
        self._start = now
        self._joints = robot.positions - reference.positions
        self._root = robot.root_position - reference.root_position
        self._turn = matrix_to_axis_angle(quaternion_to_matrix(robot.root_quaternion)
                                          @ quaternion_to_matrix(reference.root_quaternion).T)

    def applied(self, state: MotionState, now: int) -> MotionState:
        """Return ``state`` of the reference as the robot has it at ``now`` (ns)."""
        done = min((now - self._start) * 1e-9 / CATCH_UP, 1.0)
        share = 1.0 - done * done * (3.0 - 2.0 * done)
        rate = -6.0 * done * (1.0 - done) / CATCH_UP
        turn = axis_angle_to_matrix(share * self._turn)
        rotation = turn @ quaternion_to_matrix(state.root_quaternion)
        twist = state.root_twist + rate * np.concatenate([self._root, self._turn])
        return replace(
            state, positions=state.positions + share * self._joints,
            velocities=state.velocities + rate * self._joints,
            root_position=state.root_position + share * self._root,
            root_quaternion=np.asarray(matrix_to_quaternion(rotation)), root_twist=twist)
