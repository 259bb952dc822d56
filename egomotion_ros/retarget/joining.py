# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Sampling, joining and stopping robot motions, apart from any model.

This is the safety path: NumPy only, no ROS, no inference.  A motion is the curve that a
``joint_trajectory_controller`` makes of its rows (cubic Hermite); the base moves on the same kind
of curve.  What is promised, and held by tests:

* :func:`join` repeats the running plan row by row up to the switch-over; there, joint positions
  and velocities, base position, heading and twist are those of the running plan (C1, rounding
  only), after it the difference to the new plan decays to exactly zero.  Joint position, velocity
  and acceleration limits hold on the interpolated curve if both plans hold them; base speed at
  most that of :class:`RootLimits` along every axis, base acceleration likewise.
* :func:`decelerate` ends at zero velocity within the limits, along the running path where there
  is one (a foot that stands there keeps standing), by braking each joint where there is none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from egomotion_ros.body.rotations import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    quaternion_to_matrix,
    transpose,
)
from egomotion_ros.retarget.limits import Box, JointLimits, RootLimits, govern
from egomotion_ros.retarget.root import angular_velocity, to_quaternions
from egomotion_ros.retarget.spline import controls, hermite, waypoints
from egomotion_ros.retarget.states import MotionState, check_state, sample, still
from egomotion_ros.types import RobotMotion

__all__ = ['Joined', 'MotionState', 'decelerate', 'hold', 'join', 'sample', 'still']

#: Seconds between the rows of motions made here where no running motion sets them.
STEP = 1.0 / 30.0
#: Seconds of the running plan that a joined motion repeats before it leaves it.
LEAD = 0.1
#: Shortest time in which the difference between two plans decays (s).
BLEND = 0.4
#: Longest such time (s): plans that are farther apart are not of one robot.
FARTHEST = 10.0
#: Shortest stop along a running path (s), and the base's deceleration in it (m/s^2, rad/s^2).
SHORTEST_STOP = 0.3
STOP_LINEAR, STOP_ANGULAR = 3.0, 10.0
#: A joint this far (rad) from the plan is not following it: the stop starts where it really is.
LOST = 0.5


class Joined(NamedTuple):
    """``motion``, whose first row is at ``start`` seconds on the running motion's clock."""

    motion: RobotMotion
    start: float


def hold(
    joint_names: tuple[str, ...],
    state: MotionState,
    duration: float = 0.5,
    step_dt: float = STEP,
    frame_id: str = 'odom',
) -> RobotMotion:
    """
    Stand still at the pose of ``state`` for ``duration`` seconds; its velocities are ignored.

    Raises ValueError where the count of joints does not fit or a number is not finite.
    """
    check_state(state, len(joint_names))
    rows = max(int(np.ceil(duration / step_dt)), 1) + 1
    return RobotMotion(
        joint_names=tuple(joint_names),
        step_dt=step_dt,
        positions=np.tile(state.positions, (rows, 1)),
        velocities=np.zeros((rows, len(joint_names))),
        root_position=np.tile(state.root_position, (rows, 1)),
        root_quaternion=np.tile(state.root_quaternion, (rows, 1)),
        root_twist=np.zeros((rows, 6)),
        contacts=np.tile(state.contacts, (rows, 1)),
        frame_id=frame_id,
    )


def join(
    running: RobotMotion,
    time_now: float,
    new: RobotMotion,
    new_start_time: float,
    limits: JointLimits,
    root_limits: RootLimits | None = None,
    lead: float = LEAD,
    blend: float = BLEND,
) -> Joined:
    """
    Leave ``running`` for ``new`` without a seam.

    Times are seconds on the running motion's clock (0 = its first row): ``time_now`` when the
    result can be published, ``new_start_time`` of the new plan's first row (the stamp of its
    image, usually earlier).  The result starts at the running row at or before ``time_now``,
    repeats the running rows for at least ``lead`` seconds from now, and reaches the new plan
    ``blend`` seconds after that, later where the plans are so far apart that the limits need it.
    It ends, at zero velocity, where the new plan ends.

    Raises ValueError for other joints or frames, a time that is not finite, a ``time_now`` before
    the running plan starts, a new plan that is over at the switch-over, or one that is more than
    FARTHEST seconds away.
    """
    root_limits = root_limits or RootLimits()
    if running.joint_names != new.joint_names or new.joint_names != limits.joint_names:
        raise ValueError('join: running plan, new plan and limits must have the same joints')
    if running.frame_id != new.frame_id:
        raise ValueError(f'join: frames differ: {running.frame_id!r} and {new.frame_id!r}')
    if not np.isfinite([time_now, new_start_time]).all() or time_now < 0:
        raise ValueError(f'join: bad times: now {time_now}, new plan {new_start_time}')
    if not (lead >= 0 and blend > 0):
        raise ValueError(f'join: expected lead >= 0 and blend > 0, got {lead} and {blend}')
    step = running.step_dt
    first = int(np.floor(time_now / step + 1e-6))
    switch = int(np.ceil((time_now + lead) / step - 1e-6))
    if switch * step - new_start_time >= new.duration:
        raise ValueError(
            f'join: the new plan ends at {new_start_time + new.duration:.3f} s, '
            f'before the switch-over at {switch * step:.3f} s'
        )
    old = sample(running, step * np.arange(first, switch + 1))
    there = sample(new, switch * step - new_start_time)

    # Where the running plan is at the switch-over, relative to the new one.
    gap = old.positions[-1] - there.positions
    gap_rate = old.velocities[-1] - there.velocities
    shift = old.root_position[-1] - there.root_position
    shift_rate = old.root_twist[-1, :3] - there.root_twist[:3]
    turn = matrix_to_axis_angle(
        quaternion_to_matrix(old.root_quaternion[-1])
        @ transpose(quaternion_to_matrix(there.root_quaternion))
    )
    turn_rate = old.root_twist[-1, 3:] - there.root_twist[3:]
    # The decay runs at most at 1.5 gap / duration: give it the time that half the limits need.
    duration = max(
        blend,
        float(np.max(1.5 * np.abs(gap) / (0.5 * limits.velocity))),
        float(np.max(1.5 * np.abs(shift))) / (0.5 * root_limits.linear_velocity),
        float(np.linalg.norm(1.5 * turn)) / (0.5 * root_limits.angular_velocity),
    )
    if duration > FARTHEST:
        raise ValueError(f'join: the plans are {duration:.3g} s apart')
    end = max(new_start_time + new.duration, switch * step + duration)
    rows = np.arange(switch, int(np.ceil(end / step - 1e-6)) + 1)
    ahead = sample(new, step * rows - new_start_time)
    u = np.minimum(step * (rows - switch) / duration, 1.0)[:, None]

    def decay(value: np.ndarray, rate: np.ndarray) -> np.ndarray:
        zero = np.zeros((1, len(value)))
        return hermite(value[None], rate[None], zero, zero, u, duration)[0]

    rotation = axis_angle_to_matrix(decay(turn, turn_rate)) @ quaternion_to_matrix(
        ahead.root_quaternion
    )
    path = _Path(
        ahead.positions + decay(gap, gap_rate),
        ahead.root_position + decay(shift, shift_rate),
        rotation,
        np.minimum(ahead.contacts, np.where(u < 1.0, old.contacts[-1], 1.0)),
    )
    return _leave(running, first, switch, path, limits, root_limits)


def decelerate(
    running: RobotMotion | None,
    time: float,
    measured: MotionState,
    limits: JointLimits,
    root_limits: RootLimits | None = None,
) -> Joined:
    """
    Come to rest as fast as is safe, and hold: the motion a stop publishes.

    ``running`` is the motion being executed and ``time`` the seconds since its first row. With a
    running motion the result starts at its row at or before ``time``, repeats it up to the row at
    or after ``time``, and then follows its path ever slower (time scaling), at most STOP_LINEAR
    and STOP_ANGULAR of the base and half the joints' acceleration limits. Without one, or where
    ``measured`` is LOST rad off the plan, each joint brakes from its measured position and
    velocity at its acceleration limit and the base from its measured twist; planted feet are then
    not kept. Never refuses a state for being outside the limits: the robot is where it is. There
    the limits are widened to what was measured.

    The last row has zero velocity; ``start`` of the answer is on the clock of ``time``.  Raises
    ValueError where joints do not fit or a number is not finite.
    """
    root_limits = root_limits or RootLimits()
    check_state(measured, len(limits.joint_names))
    if running is not None:
        if running.joint_names != limits.joint_names:
            raise ValueError('decelerate: the running plan and the limits have other joints')
        if not np.isfinite(time):
            raise ValueError(f'decelerate: time is not finite: {time}')
        time = max(time, 0.0)
        if np.abs(sample(running, time).positions - measured.positions).max() <= LOST:
            return _slow_down(running, time, limits, root_limits)
    step = STEP if running is None else running.step_dt
    frame = 'odom' if running is None else running.frame_id
    box = _admit(Box.of_joints(limits, step), measured.positions)
    speed = np.clip(measured.velocities, -limits.velocity, limits.velocity)
    positions, velocities = _brake(measured.positions, speed, box, step)
    root_box = Box.of_root_position(root_limits, step)
    linear_speed = np.clip(measured.root_twist[:3], -root_box.rate / step, root_box.rate / step)
    root, linear = _brake(measured.root_position, linear_speed, root_box, step)
    free = np.full(3, np.inf)
    turn_box = Box(
        -free,
        free,
        np.full(3, root_limits.angular_velocity * step),
        np.full(3, root_limits.angular_acceleration * step**2),
    )
    angular_speed = np.clip(measured.root_twist[3:], -turn_box.rate / step, turn_box.rate / step)
    turn, _ = _brake(np.zeros(3), angular_speed, turn_box, step)
    rows = max(len(positions), len(root), len(turn))
    rotation = axis_angle_to_matrix(_extend(turn, rows)) @ quaternion_to_matrix(
        measured.root_quaternion
    )
    angular = angular_velocity(rotation, step, angular_speed, np.zeros(3))
    motion = RobotMotion(
        joint_names=limits.joint_names,
        step_dt=step,
        positions=_extend(positions, rows),
        velocities=_extend(velocities, rows),
        root_position=_extend(root, rows),
        root_quaternion=to_quaternions(rotation),
        root_twist=np.concatenate([_extend(linear, rows), angular], axis=-1),
        contacts=np.tile(measured.contacts, (rows, 1)),
        frame_id=frame,
    )
    return Joined(motion, time)


def _slow_down(
    running: RobotMotion, time: float, limits: JointLimits, root_limits: RootLimits
) -> Joined:
    """Follow ``running`` from ``time`` on at a speed that falls linearly from 1 to 0."""
    step = running.step_dt
    first = int(np.floor(time / step + 1e-6))
    switch = int(np.ceil(time / step - 1e-6))
    near = sample(running, switch * step + np.linspace(0.0, 0.25, 16))
    duration = max(
        SHORTEST_STOP,
        float((np.abs(near.velocities) / (0.5 * limits.acceleration)).max()),
        float(np.linalg.norm(near.root_twist[:, :3], axis=-1).max()) / STOP_LINEAR,
        float(np.linalg.norm(near.root_twist[:, 3:], axis=-1).max()) / STOP_ANGULAR,
    )
    rows = int(np.ceil(duration / step)) + 1
    share = np.arange(rows) / (rows - 1)
    ahead = sample(running, switch * step + duration * (share - 0.5 * share**2))
    path = _Path(
        ahead.positions,
        ahead.root_position,
        quaternion_to_matrix(ahead.root_quaternion),
        ahead.contacts,
    )
    return _leave(running, first, switch, path, limits, root_limits)


class _Path(NamedTuple):
    """Where to go, row by row: joints (T, J), base (T, 3) and (T, 3, 3), contacts (T, 2)."""

    positions: np.ndarray
    root: np.ndarray
    rotation: np.ndarray
    contacts: np.ndarray


def _leave(
    running: RobotMotion,
    first: int,
    switch: int,
    path: _Path,
    limits: JointLimits,
    root_limits: RootLimits,
) -> Joined:
    """Rows ``first`` to ``switch`` of ``running``, then ``path``, which begins at ``switch``."""
    step = running.step_dt
    old = sample(running, step * np.arange(first, switch + 1))
    positions, velocities = _within(
        path.positions,
        old.positions[-1],
        old.velocities[-1],
        _admit(Box.of_joints(limits, step), old.positions[-1]),
        step,
        _acceleration(running.positions, running.velocities, switch, step),
    )
    root, linear = _within(
        path.root,
        old.root_position[-1],
        old.root_twist[-1, :3],
        Box.of_root_position(root_limits, step),
        step,
        _acceleration(running.root_position, running.root_twist[:, :3], switch, step),
    )
    rows = max(len(positions), len(root))
    rotation = _extend(path.rotation, rows)
    angular = angular_velocity(rotation, step, old.root_twist[-1, 3:], np.zeros(3))
    quaternion = to_quaternions(rotation)
    if np.dot(quaternion[0], old.root_quaternion[-1]) < 0:
        quaternion = -quaternion
    tail = (
        _extend(positions, rows),
        _extend(velocities, rows),
        _extend(root, rows),
        quaternion,
        np.concatenate([_extend(linear, rows), angular], axis=-1),
        _extend(path.contacts, rows),
    )
    head = (
        old.positions,
        old.velocities,
        old.root_position,
        old.root_quaternion,
        old.root_twist,
        old.contacts,
    )
    # The switch-over row is the running plan's own; the new part continues after it.
    whole = [np.concatenate([a, b[1:]]) for a, b in zip(head, tail, strict=True)]
    motion = RobotMotion(running.joint_names, step, *whole, frame_id=running.frame_id)
    return Joined(motion, first * step)


def _acceleration(
    positions: np.ndarray, velocities: np.ndarray, row: int, step: float
) -> np.ndarray:
    """Acceleration (J,) of a motion's curve at one of its rows, zero after its end."""
    if row >= len(positions) - 1:
        return np.zeros(positions.shape[1])
    jump = positions[row + 1] - positions[row]
    return (6.0 * jump / step - 4.0 * velocities[row] - 2.0 * velocities[row + 1]) / step


def _within(
    path: np.ndarray,
    position: np.ndarray,
    velocity: np.ndarray,
    box: Box,
    step: float,
    acceleration: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Rows (T', J) from ``position``, ``velocity`` along ``path`` (T, J) inside ``box``, to rest.

    Where the path keeps the limits and ends at rest the rows are the path itself.
    ``acceleration`` (J,) is one that certainly leads on from the start.
    """
    inside = np.clip(position, box.lower, box.upper)
    velocity = np.clip(velocity, -box.rate / step, box.rate / step)
    if len(path) < 2:
        path = np.concatenate([path, path])
    wish = controls(path, velocity, np.zeros_like(velocity), step)
    wishes = ((wish[0] - 2 * wish[1] + wish[2]) / step**2, acceleration)
    start = box.start(inside, velocity, step, wishes)
    # The last control point mirrors the last but one for a flat end; the governor settles.
    targets = np.concatenate([wish[1:-1], path[-1:]])
    return waypoints(govern(targets, start, box), step)


def _brake(
    position: np.ndarray, velocity: np.ndarray, box: Box, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rows from ``position``, ``velocity`` to rest in the shortest way ``box`` allows."""
    start = box.start(position, velocity, step)
    points, last = list(start), start[2] - start[1]
    while last.any():
        low, high = box.interval(points[-1], last)
        last = np.clip(0.0, low, high)
        points.append(points[-1] + last)
    points += [points[-1]] * 2
    return waypoints(np.array(points), step)


def _admit(box: Box, position: np.ndarray) -> Box:
    """``box`` widened so that ``position`` is inside."""
    return Box(
        np.minimum(box.lower, position), np.maximum(box.upper, position), box.rate, box.change
    )


def _extend(rows: np.ndarray, count: int) -> np.ndarray:
    """Repeat the last row until there are ``count``."""
    return np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)])
