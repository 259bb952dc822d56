# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""HumanMotion -> RobotMotion: whole-body inverse kinematics under the robot's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from egomotion_ros.body.rotations import (
    matrix_to_axis_angle,
    matrix_to_quaternion,
    quaternion_to_matrix,
    transpose,
)
from egomotion_ros.body.skeleton import JOINTS
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.ik import Stepper
from egomotion_ros.retarget.limits import Box
from egomotion_ros.retarget.root import smooth, to_quaternions
from egomotion_ros.retarget.spline import waypoints
from egomotion_ros.retarget.targets import BodyPoses, TargetMaker, Targets, settle
from egomotion_ros.types import FPS, HumanMotion, RobotMotion

#: Seconds over which a plan comes to rest at its end (its last half of them, played slower).
SLOW = 0.6
#: Seconds in which a plan goes over from the measured pose to the human's.
BLEND = 0.5
#: Steps that find the first pose where none was measured.
FIRST_STEPS = 40
#: A measured joint may be this far (rad) outside its limits and is then taken at the limit.
FORGIVEN = 0.1


@dataclass
class _Track:
    """
    Control points so far: joints (J,), base (3,) and quaternion (4,) xyzw of each.

    ``point`` the last of them and ``last`` the step to it, over all degrees of freedom (nv,).
    """

    points: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    point: np.ndarray
    last: np.ndarray


class Retargeter:
    """
    Makes human motions into motions of one robot.

    Control points of a spline (spline.py) are found one row at a time: ``solves`` steps of
    differential inverse kinematics each, inside the box of positions, velocities and
    accelerations that limits.py leaves for the next point.  The limits therefore hold on the
    interpolated curve, and the targets are met as well as that allows.
    """

    def __init__(self, description: RobotDescription, solves: int = 2) -> None:
        """Prepare for ``description``; ``solves`` >= 1 steps a row, more follow fast motion."""
        if solves < 1:
            raise ValueError(f'solves: expected >= 1, got {solves}')
        self.description = description
        self.solves = solves
        self._stepper = Stepper(description)
        self._maker = TargetMaker(description)

    def retarget(
        self,
        human: HumanMotion,
        joint_positions: np.ndarray | None = None,
        root: tuple[np.ndarray, np.ndarray] | None = None,
        joint_velocities: np.ndarray | None = None,
        first: float = 0.0,
        on_first: Callable[[RobotMotion], None] | None = None,
    ) -> RobotMotion:
        """
        Retarget ``human``, whose ``scale`` and root path are already the robot's.

        ``joint_positions`` (J,), in the order of the description, is the measured state the
        result starts from; without it the result starts in the human's first pose.  ``root``
        is the measured base: position (3,) and quaternion (4,) xyzw in the frame of ``human``;
        without it the base starts where the first pose puts it.  ``joint_velocities`` (J,) are
        taken as zero when not given.  Rows are 1/30 s apart whatever the rate of ``human``; the
        result ends at rest, SLOW / 2 seconds and a few rows after the last human frame.

        ``on_first`` is called once, as soon as the rows up to ``first`` seconds are solved and
        where more than these are to come, with a motion of its own: up to ``first`` its rows are
        those of the result (a row depends on earlier ones only), a row later it brakes to rest
        inside the limits.  What it raises ends the retargeting.

        Raises ValueError for arrays of a wrong shape, numbers that are not finite, rotations that
        are none, or a state far outside the limits.
        """
        check_human(human)
        step = 1.0 / FPS
        start = self._start(joint_positions, root)
        motion = settle(human, step, SLOW)
        poses = None
        if start is not None:
            qpos, has_root = start
            if not has_root:
                qpos = self._settle_base(self._maker.make(motion, None, BLEND), qpos)
            self._stepper.place(qpos)
            poses = self._poses()
        targets = self._maker.make(motion, poses, BLEND)
        velocity = None
        if start is not None:
            velocity = np.zeros(len(self.description.joint_names))
            if joint_velocities is not None:
                velocity = self._vector(joint_velocities, 'joint_velocities')
                most = self.description.limits.velocity
                velocity = np.clip(velocity, -most, most)

        def made(track: _Track) -> RobotMotion:
            planted = targets.planted[: len(track.points)]
            return self._rows(*self._braked(track, hard), planted, step, human.frame_id)

        hard, work = self._boxes(step)
        # The spline at a row depends on the row after it: that one is solved too.
        enough = int(np.ceil(first / step - 1e-9)) + 2
        for track in self._follow(targets, velocity, step, hard, work):
            if on_first is not None and len(track.points) == enough < len(targets.positions):
                on_first(made(track))
        return made(track)

    def _vector(self, value: np.ndarray, name: str) -> np.ndarray:
        out = np.asarray(value, dtype=np.float64)
        if out.shape != (len(self.description.joint_names),) or not np.isfinite(out).all():
            raise ValueError(
                f'{name}: expected {len(self.description.joint_names)} finite numbers, '
                f'got shape {out.shape}'
            )
        return out

    def _start(
        self,
        joint_positions: np.ndarray | None,
        root: tuple[np.ndarray, np.ndarray] | None,
    ) -> tuple[np.ndarray, bool] | None:
        """Measured configuration (nq,), and whether its base was measured."""
        if joint_positions is None:
            if root is not None:
                raise ValueError('root: the measured base needs the measured joint positions')
            return None
        measured = self._vector(joint_positions, 'joint_positions')
        limits = self.description.limits
        inside = np.clip(measured, limits.lower, limits.upper)
        worst = int(np.abs(inside - measured).argmax())
        if abs(inside[worst] - measured[worst]) > FORGIVEN:
            raise ValueError(
                f'joint_positions: {limits.joint_names[worst]} is at {measured[worst]:.3f} rad, '
                f'outside [{limits.lower[worst]:.3f}, {limits.upper[worst]:.3f}]'
            )
        qpos = np.zeros(self._stepper.model.nq)
        qpos[2], qpos[3] = self.description.home_height, 1.0
        qpos[self._stepper.places] = inside
        if root is not None:
            position, quaternion = (np.asarray(x, dtype=np.float64) for x in root)
            good = position.shape == (3,) and quaternion.shape == (4,)
            if not (good and np.isfinite([*position, *quaternion]).all()):
                raise ValueError('root: expected a position (3,) and a quaternion (4,), finite')
            length = np.linalg.norm(quaternion)
            if not 0.9 < length < 1.1:
                raise ValueError(f'root: expected a unit quaternion, got length {length:.3f}')
            qpos[:3] = position
            qpos[3:7] = quaternion[[3, 0, 1, 2]] / length
        return qpos, root is not None

    def _poses(self) -> BodyPoses:
        data, ids = self._stepper.data, self._stepper.task.ids
        return BodyPoses(data.xpos[ids].copy(), data.xmat[ids].reshape(-1, 3, 3).copy())

    def _settle_base(self, targets: Targets, qpos: np.ndarray) -> np.ndarray:
        """Base pose that brings a robot with the joints of ``qpos`` closest to the first row."""
        stepper, still = self._stepper, np.zeros(self._stepper.model.nv)
        qpos = self._under_pelvis(targets, qpos)
        stepper.place(qpos)
        stepper.task.set_targets(targets.positions[:1], _wxyz(targets.rotations[:1]))
        reach = np.zeros(stepper.model.nv)
        reach[:6] = 0.2
        for _ in range(FIRST_STEPS // 4):
            stepper.step(-reach, reach, still)
        return stepper.data.qpos.copy()

    def _under_pelvis(self, targets: Targets, qpos: np.ndarray) -> np.ndarray:
        """``qpos`` with its base where and how the pelvis target of the first row is."""
        pelvis = [link.joint for link in self.description.links].index('pelvis')
        self._stepper.place(qpos)
        here = self._poses()
        turn = targets.rotations[0, pelvis] @ here.rotations[pelvis].T
        out = qpos.copy()
        out[:3] = targets.positions[0, pelvis] + turn @ (qpos[:3] - here.positions[pelvis])
        base = turn @ quaternion_to_matrix(qpos[[4, 5, 6, 3]])
        out[3:7] = _wxyz(base[None])[0]
        return out

    def _first_pose(self, targets: Targets) -> None:
        """Put the stepper at the pose of the first row, found from the standing posture."""
        stepper, (lower, upper) = self._stepper, self.description.working_range.T
        qpos = np.zeros(stepper.model.nq)
        qpos[2], qpos[3] = self.description.home_height, 1.0
        qpos[stepper.places] = self.description.standing
        stepper.place(self._under_pelvis(targets, qpos))
        stepper.task.set_targets(targets.positions[:1], _wxyz(targets.rotations[:1]))
        still = np.zeros(stepper.model.nv)
        high = np.full(stepper.model.nv, 0.3)
        low = -high
        for _ in range(FIRST_STEPS):
            joints = stepper.data.qpos[stepper.places]
            high[stepper.dofs] = np.minimum(0.3, upper - joints)
            low[stepper.dofs] = np.maximum(-0.3, lower - joints)
            if np.abs(stepper.step(low, high, still)).max() < 1e-4:
                break

    def _follow(
        self, targets: Targets, velocity: np.ndarray | None, step: float, hard: Box, work: Box
    ) -> Iterator[_Track]:
        """
        Control points that follow the targets: the same track, row by row longer.

        Starts at the stepper's pose with ``velocity``, or at the first target in motion.
        """
        stepper, description = self._stepper, self.description
        if velocity is None:
            self._first_pose(targets)
        stepper.task.set_targets(targets.positions, _wxyz(targets.rotations))
        nv, dofs = stepper.model.nv, stepper.dofs
        joints = stepper.data.qpos[stepper.places].copy()
        point, last = np.zeros(nv), np.zeros(nv)
        point[dofs] = joints
        if velocity is not None:
            joint_box = Box.of_joints(description.limits, step)
            begin = joint_box.start(joints, velocity, step)
            last[dofs] = begin[2] - begin[1]
        track = _Track([(joints, *_base(stepper.data.qpos))], point, last)
        yield track
        for row in range(1, len(targets.positions)):
            box = work.around(point, last, hard)
            low, high = box.interval(point, last)
            if row == 1 and velocity is None:
                # In motion from the first row on: any speed that can still be stopped.
                down, up = box.steps(point)
                low, high = -down, up
            elif row == 1:
                low = high = last
            stepper.task.select(row)
            done = np.zeros(nv)
            for turn in range(self.solves):
                done += stepper.step(low - done, high - done, last - done, again=turn > 0)
            point, last = point + done, done
            point[dofs] = stepper.data.qpos[stepper.places]
            track.points.append((point[dofs].copy(), *_base(stepper.data.qpos)))
            track.point, track.last = point, last
            yield track

    def _braked(self, track: _Track, hard: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Control points (T + 2, J), (T + 2, 3), (T + 2, 3, 3) of ``track`` and on to rest.

        The stepper stays where it is: the track may go on.
        """
        model, dofs = self._stepper.model, self._stepper.dofs
        points, point, last = list(track.points), track.point, track.last
        qpos = self._stepper.data.qpos.copy()
        # Brake what is left of the speed; the last three points are equal: exactly at rest.
        while last.any():
            low, high = hard.interval(point, last)
            last = np.clip(0.0, low, high)
            mujoco.mj_integratePos(model, qpos, last, 1.0)
            point = point + last
            points.append((point[dofs].copy(), *_base(qpos)))
        points += [points[-1]] * 2
        parts = [np.array(part) for part in zip(*points, strict=True)]
        parts[2] = quaternion_to_matrix(parts[2])
        # The point before the first one mirrors the second: no acceleration at the start.
        before = (2 * parts[0][0] - parts[0][1], 2 * parts[1][0] - parts[1][1])
        back = parts[2][0] @ transpose(parts[2][1]) @ parts[2][0]
        before = (*before, back)
        joints, base, turns = (
            np.concatenate([first[None], part]) for first, part in zip(before, parts, strict=True)
        )
        return joints, base, turns

    def _boxes(self, step: float) -> tuple[Box, Box]:
        """Boxes over all degrees of freedom: of the limits, and of the working range in them."""
        nv, dofs = self._stepper.model.nv, self._stepper.dofs
        joints = Box.of_joints(self.description.limits, step)
        root = self.description.root_limits
        lower, upper = np.full(nv, -np.inf), np.full(nv, np.inf)
        rate, change = np.empty(nv), np.empty(nv)
        rate[:3], rate[3:6] = root.linear_velocity * step, root.angular_velocity * step
        change[:3] = root.linear_acceleration * step**2
        change[3:6] = root.angular_acceleration * step**2
        lower[dofs], upper[dofs] = joints.lower, joints.upper
        rate[dofs], change[dofs] = joints.rate, joints.change
        hard = Box(lower.copy(), upper.copy(), rate, change)
        lower[dofs], upper[dofs] = self.description.working_range.T
        return hard, Box(lower, upper, rate, change)

    def _rows(
        self,
        joints: np.ndarray,
        base: np.ndarray,
        turns: np.ndarray,
        planted: np.ndarray,
        step: float,
        frame_id: str,
    ) -> RobotMotion:
        positions, velocities = waypoints(joints, step)
        root, linear = waypoints(base, step)
        angular = matrix_to_axis_angle(turns[2:] @ transpose(turns[:-2])) / (2.0 * step)
        # Rounding must not put a point a hair outside a limit that it sits on.
        limits = self.description.limits
        positions = np.clip(positions, limits.lower, limits.upper)
        planted = planted.astype(np.float64)
        tail = np.repeat(planted[-1:], len(positions) - len(planted), axis=0)
        return RobotMotion(
            joint_names=self.description.joint_names,
            step_dt=step,
            positions=positions,
            velocities=velocities,
            root_position=root,
            root_quaternion=to_quaternions(smooth(turns)),
            root_twist=np.concatenate([linear, angular], axis=1),
            contacts=np.concatenate([planted, tail]),
            frame_id=frame_id,
        )


def check_human(human: HumanMotion) -> None:
    """Raise ValueError where ``human`` is not a motion: shapes, finite numbers, rotations."""
    frames = len(human.root_position)
    for name, shape in (
        ('root_position', (frames, 3)),
        ('rotations', (frames, JOINTS, 3, 3)),
        ('contacts', (frames, 4)),
    ):
        value = getattr(human, name)
        if np.shape(value) != shape:
            raise ValueError(f'{name}: expected {shape}, got {np.shape(value)}')
        if not np.isfinite(value).all():
            raise ValueError(f'{name}: has numbers that are not finite')
    if frames < 2:
        raise ValueError(f'human motion: expected at least 2 frames, got {frames}')
    if not (np.isfinite(human.fps) and human.fps > 0):
        raise ValueError(f'fps: expected a number > 0, got {human.fps}')
    if not 0.05 < human.scale < 5.0:
        raise ValueError(f'scale: expected 0.05 to 5, got {human.scale}')
    product = human.rotations @ np.swapaxes(human.rotations, -1, -2)
    off = np.abs(product - np.eye(3)).max()
    if off > 1e-3 or (np.linalg.det(human.rotations) < 0).any():
        raise ValueError(f'rotations: not rotation matrices, off by {off:.2g}')


def _base(qpos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) and quaternion (4,) xyzw of the base in a configuration of MuJoCo."""
    return qpos[:3].copy(), qpos[[4, 5, 6, 3]]


def _wxyz(rotation: np.ndarray) -> np.ndarray:
    """Quaternions (..., 4) in MuJoCo's order."""
    return np.asarray(matrix_to_quaternion(rotation))[..., [3, 0, 1, 2]]
