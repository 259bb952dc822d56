# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Joint states and odometry from messages, checked as if they could not be trusted."""

from __future__ import annotations

from nav_msgs.msg import Odometry
import numpy as np
from sensor_msgs.msg import JointState

from egomotion_ros.body.rotations import quaternion_to_matrix
from egomotion_ros.nodes.conversions import pose_from_msg
from egomotion_ros.nodes.inputs import Sample
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.retargeter import FORGIVEN

#: Heights of the base above the floor, of its height where the robot stands, that a robot which
#: walks, bends or jumps can have.
PLAUSIBLE_HEIGHT = (0.4, 1.6)
#: Steeper than this (sine of the pitch) an axis tells no heading.
STEEP = float(np.sin(np.radians(60.0)))


def read_joints(
    message: JointState, robot: RobotDescription, names: dict[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """
    Positions and velocities (J,) in the order of ``robot.joint_names``.

    ``names`` maps names of the description to those of the message.  Velocities that the message
    does not carry, or gives as NaN as ros2_control does for joints that have none, are zero.
    Raises ValueError for joints that are missing or stand twice, sizes that do not fit, numbers
    that are not finite, or positions that no plan may start from.
    """
    if len(message.position) != len(message.name):
        raise ValueError(
            f'joint states: {len(message.name)} names but {len(message.position)} positions'
        )
    if len(message.velocity) not in (0, len(message.name)):
        raise ValueError(
            f'joint states: {len(message.name)} names but {len(message.velocity)} velocities'
        )
    place = {name: i for i, name in enumerate(message.name)}
    wanted = [names.get(name, name) for name in robot.joint_names]
    if len(place) != len(message.name):
        twice = sorted(name for name in set(wanted) if message.name.count(name) > 1)
        if twice:
            raise ValueError(f'joint states: {", ".join(twice)} stand twice')
    missing = [name for name in wanted if name not in place]
    if missing:
        raise ValueError(f'joint states: missing {", ".join(missing)}')
    rows = [place[name] for name in wanted]
    positions = np.array(message.position, dtype=np.float64)[rows]
    velocities = np.zeros(len(rows))
    if len(message.velocity):
        velocities = np.array(message.velocity, dtype=np.float64)[rows]
        velocities[np.isnan(velocities)] = 0.0
    if not (np.isfinite(positions).all() and np.isfinite(velocities).all()):
        bad = np.flatnonzero(~(np.isfinite(positions) & np.isfinite(velocities)))
        raise ValueError(f'joint states: {wanted[bad[0]]} is not finite')
    limits = robot.limits
    out = np.maximum(limits.lower - positions, positions - limits.upper)
    if out.max() > FORGIVEN:
        worst = int(out.argmax())
        raise ValueError(
            f'joint states: {wanted[worst]} at {positions[worst]:.2f} rad is {out[worst]:.2f} rad '
            'outside its limits'
        )
    return positions, velocities


def read_odometry(message: Odometry, frame: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Position, quaternion and twist (linear, angular; in ``frame``) of the base link.

    Raises ValueError for another frame, numbers that are not finite or no unit quaternion.
    """
    check_frame(message.header.frame_id, frame, 'odometry')
    position, quaternion = pose_from_msg(message.pose.pose)
    linear, angular = message.twist.twist.linear, message.twist.twist.angular
    twist = np.array([[linear.x, linear.y, linear.z], [angular.x, angular.y, angular.z]])
    if not np.isfinite(twist).all():
        raise ValueError('odometry: twist must be finite')
    # REP-105 odometry gives its twist in the child frame.
    return position, quaternion, (twist @ quaternion_to_matrix(quaternion).T).ravel()


def check_height(height: float, robot: RobotDescription) -> None:
    """
    Raise ValueError where no robot has its base at ``height`` (m) above the floor.

    Odometry of wheels, of the plane, or that counts from where it began, tells no height: a robot
    would jump to where it stands already.
    """
    low, high = (share * robot.home_height for share in PLAUSIBLE_HEIGHT)
    if not low <= height <= high:
        raise ValueError(
            f'odometry: the base is {height:.2f} m above floor_height, a {robot.name} that stands '
            f'has it at {robot.home_height:.2f} m; where the odometry tells no heights set '
            f'floor_height {robot.home_height:.2f} m below what it says'
        )


def heading(rotation: np.ndarray) -> float:
    """
    Yaw (rad) of a body (x forward, y left, z up) whose rotation (3, 3) is known.

    Where it looks steeply down or up its forward axis tells none, and its left one does.
    """
    forward, left = rotation[:, 0], rotation[:, 1]
    if abs(forward[2]) <= STEEP:
        return float(np.arctan2(forward[1], forward[0]))
    return float(np.arctan2(-left[0], left[1]))


def around(samples: list[Sample], stamp: int | None) -> list[Sample]:
    """Return the samples just before and after ``stamp``, or the one that is nearest."""
    if stamp is None:
        return samples[-1:]
    before = [sample for sample in samples if sample.stamp <= stamp]
    after = [sample for sample in samples if sample.stamp > stamp]
    return before[-1:] + after[:1]


def between(
    states: list[tuple[np.ndarray, np.ndarray, np.ndarray]], stamps: list[int], stamp: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interpolate one or two states at ``stamp``; never beyond them."""
    if len(states) == 1 or stamp is None:
        return states[-1]
    (p, q, v), (p2, q2, v2) = states
    share = (stamp - stamps[0]) / max(stamps[1] - stamps[0], 1)
    q2 = q2 if np.dot(q, q2) >= 0 else -q2
    quaternion = (1 - share) * q + share * q2
    return (
        (1 - share) * p + share * p2,
        quaternion / np.linalg.norm(quaternion),
        (1 - share) * v + share * v2,
    )


def check_frame(frame: str, expected: str, what: str) -> None:
    """Raise ValueError where ``what`` is not given in the ``expected`` frame."""
    if frame != expected:
        raise ValueError(f'{what}: expected the frame {expected!r}, got {frame!r}')
