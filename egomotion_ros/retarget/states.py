# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The state of a robot motion at any instant, on the curve that its rows stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egomotion_ros.body.rotations import quaternion_to_matrix
from egomotion_ros.retarget.root import orientation_between, to_quaternions
from egomotion_ros.retarget.spline import hermite
from egomotion_ros.types import RobotMotion


@dataclass(frozen=True)
class MotionState:
    """
    A robot motion at one instant, or at N instants (leading dimension N on every array).

    ``positions``, ``velocities`` (J,) rad, rad/s; ``root_position`` (3,) m, ``root_quaternion``
    (4,) xyzw, ``root_twist`` (6,) linear then angular, all in the motion's frame; ``contacts``
    (2,) left and right foot.
    """

    positions: np.ndarray
    velocities: np.ndarray
    root_position: np.ndarray
    root_quaternion: np.ndarray
    root_twist: np.ndarray
    contacts: np.ndarray


def still(
    positions: np.ndarray,
    root_position: np.ndarray = (0.0, 0.0, 0.0),
    root_quaternion: np.ndarray = (0.0, 0.0, 0.0, 1.0),
) -> MotionState:
    """State at rest with both feet down, at joint ``positions`` (J,) and a base pose."""
    positions = np.array(positions, dtype=np.float64)
    return MotionState(
        positions=positions,
        velocities=np.zeros_like(positions),
        root_position=np.array(root_position, dtype=np.float64),
        root_quaternion=np.array(root_quaternion, dtype=np.float64),
        root_twist=np.zeros(6),
        contacts=np.ones(2),
    )


def sample(motion: RobotMotion, time: float | np.ndarray) -> MotionState:
    """
    State of ``motion`` at ``time`` seconds (scalar or (N,)) after its first row.

    Before the first and after the last row the pose of that row at rest.  Raises ValueError for
    times that are not finite.
    """
    times = np.atleast_1d(np.asarray(time, dtype=np.float64))
    if times.ndim != 1 or not np.isfinite(times).all():
        raise ValueError(f'time: expected finite seconds, scalar or (N,), got {time}')
    step, last = motion.step_dt, motion.steps - 1
    place = times / step
    # A millionth of a row past the last one is the rounding of the caller's clock, not its end.
    outside = (place < -1e-6) | (place > last + 1e-6)
    place = np.clip(place, 0.0, last)
    nearest = np.rint(place)
    place = np.where(np.abs(place - nearest) < 1e-6, nearest, place)
    row = np.minimum(place.astype(int), max(last - 1, 0))
    after = np.minimum(row + 1, last)
    u = (place - row)[:, None]
    p, v, _ = hermite(
        motion.positions[row],
        motion.velocities[row],
        motion.positions[after],
        motion.velocities[after],
        u,
        step,
    )
    root, linear, _ = hermite(
        motion.root_position[row],
        motion.root_twist[row, :3],
        motion.root_position[after],
        motion.root_twist[after, :3],
        u,
        step,
    )
    rotation, angular = orientation_between(
        quaternion_to_matrix(motion.root_quaternion[row]),
        motion.root_twist[row, 3:],
        quaternion_to_matrix(motion.root_quaternion[after]),
        motion.root_twist[after, 3:],
        u,
        step,
    )
    contacts = (1 - u) * motion.contacts[row] + u * motion.contacts[after]
    twist = np.concatenate([linear, angular], axis=-1)
    v[outside], twist[outside] = 0.0, 0.0
    quaternion = to_quaternions(rotation)
    state = (p, v, root, quaternion, twist, contacts)
    return MotionState(*(x if np.ndim(time) else x[0] for x in state))


def check_state(state: MotionState, joints: int) -> None:
    """Raise ValueError where ``state`` is not that of one instant of ``joints`` joints."""
    for name, shape in (
        ('positions', (joints,)),
        ('velocities', (joints,)),
        ('root_position', (3,)),
        ('root_quaternion', (4,)),
        ('root_twist', (6,)),
        ('contacts', (2,)),
    ):
        value = np.asarray(getattr(state, name))
        if value.shape != shape or not np.isfinite(value).all():
            raise ValueError(f'{name}: expected {shape} finite numbers, got {value}')
    if not np.linalg.norm(state.root_quaternion) > 0.5:
        raise ValueError(f'root_quaternion: expected unit length, got {state.root_quaternion}')
