# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Where the robot's bodies should be: a human motion in the measures of a robot, with planted feet.

Orientations carry over from the common T pose; positions come from the human skeleton scaled to
the robot's legs.  A foot in contact gets one pose for the whole contact: flat, on the floor,
where the human foot was on average; the swing between two contacts is bent so that it starts and
ends at these poses.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from egomotion_ros.body.contacts import LEAVE_SPEED, joint_speeds
from egomotion_ros.body.kinematics import global_pose
from egomotion_ros.body.rotations import interpolate, transpose, yaw_matrix
from egomotion_ros.body.skeleton import (
    BODY_TO_WORLD,
    FOOT_HEIGHTS,
    FOOT_JOINTS,
    JOINT_INDEX,
    REST_PELVIS_HEIGHT,
)
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.types import HumanMotion

#: Half the distance of the ankles of a person who stands at ease (m, human skeleton).
STANCE = 0.10
#: A foot that turns faster than this about the vertical (rad/s) is not planted.
SPINNING = 1.0
#: Clearance of the sole in a swing (m), at least, once the foot is faster than this (m/s).
LEAST_CLEARANCE, SHUFFLING = 0.03, 0.4
#: Frames in which a foot turns from flat to its free orientation after lift-off, and back.
ROLL_FRAMES = 5
#: Frames in which it rises to its free height, and back.
LIFT_FRAMES = 3
#: Share of a straight leg's length that targets may ask for; less keeps the knee off its stop.
REACH = 0.98
#: Furthest the pelvis is lowered to reach the floor (m), and frames before and after it.
MOST_DROP, SPREAD_FRAMES = 0.15, 7
#: A measured foot this far (m) from where the human foot stands is left standing there.
NEAR = 0.25


@dataclass(frozen=True)
class Targets:
    """
    Poses of the L linked bodies in T rows.

    ``positions`` (T, L, 3) m, ``rotations`` (T, L, 3, 3), both in the motion's frame;
    ``planted`` (T, 2) bool, left and right foot.
    """

    positions: np.ndarray
    rotations: np.ndarray
    planted: np.ndarray


@dataclass(frozen=True)
class BodyPoses:
    """Poses now of bodies: ``positions`` (..., 3) m, ``rotations`` (..., 3, 3)."""

    positions: np.ndarray
    rotations: np.ndarray


def smoothstep(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, with flat ends between."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def settle(motion: HumanMotion, step: float, slow: float) -> HumanMotion:
    """
    Resample to rows ``step`` seconds apart, coming to rest over the last ``slow`` seconds.

    The last ``slow / 2`` seconds of the motion are played at a speed that falls from 1 to 0, so
    the motion gets ``slow / 2`` seconds longer, and every pose of it is still reached.
    """
    length = (motion.frames - 1) / motion.fps
    slow = min(slow, 2.0 * length)
    steady = length - 0.5 * slow
    rows = int(np.ceil((length + 0.5 * slow) / step - 1e-9)) + 1
    late = np.clip(step * np.arange(rows) - steady, 0.0, slow)
    time = np.minimum(step * np.arange(rows), steady) + late - 0.5 * late**2 / max(slow, 1e-9)
    place = np.clip(time * motion.fps, 0.0, motion.frames - 1)
    nearest = np.rint(place)
    place = np.where(np.abs(place - nearest) < 1e-6, nearest, place)
    row = np.minimum(place.astype(int), motion.frames - 2)
    share = place - row
    rotations = np.where((share < 0.5)[:, None, None, None], motion.rotations[row], 0.0)
    rotations[share == 1.0] = motion.rotations[row[share == 1.0] + 1]
    between = (share > 0.0) & (share < 1.0)
    if between.any():
        rotations[between] = interpolate(
            motion.rotations[row[between]],
            motion.rotations[row[between] + 1],
            np.repeat(share[between, None], motion.rotations.shape[1], axis=1),
        )
    mix = share[:, None]
    root = (1 - mix) * motion.root_position[row] + mix * motion.root_position[row + 1]
    contacts = (1 - mix) * motion.contacts[row] + mix * motion.contacts[row + 1]
    return HumanMotion(root, rotations, contacts, 1.0 / step, motion.frame_id, motion.scale)


class TargetMaker:
    """Turns human motions into :class:`Targets` of one robot."""

    def __init__(self, description: RobotDescription) -> None:
        """Measure ``description`` in its T pose and in its standing posture."""
        self.description = description
        self._joints = np.array([JOINT_INDEX[link.joint] for link in description.links])
        names = [link.joint for link in description.links]
        self._pelvis = names.index('pelvis')
        self._feet = (names.index('left_ankle'), names.index('right_ankle'))
        model = description.kinematics
        self._ids = np.array([model.body(link.body).id for link in description.links])
        t_pose = self._pose(description.t_pose)
        self._from_human = BODY_TO_WORLD.T @ t_pose.rotations
        self._standing = self._pose(description.standing)
        pelvis = self._standing.positions[self._pelvis]
        left, right = (self._standing.positions[i] for i in self._feet)
        middle = 0.5 * (left + right)
        self._root_height = pelvis[2]
        self._root_forward = pelvis[:2] - middle[:2]
        self._half_width = 0.5 * (left[1] - right[1])
        self._hands = [
            (i, link.joint.startswith('left'), abs((self._standing.positions[i] - pelvis)[1]))
            for i, link in enumerate(description.links)
            if link.joint.endswith('wrist') and link.position > 0
        ]
        hip = self._pose(description.t_pose, description.leg.hip).positions[0]
        t_pelvis = self._pose(description.t_pose).positions[self._pelvis]
        ankle = self._pose(description.standing, description.leg.ankle).positions[0]
        self._hip = hip - t_pelvis
        self._ankle = ankle[2] - self._standing.positions[self._feet[0]][2]
        self._flat = [self._standing.rotations[i] for i in self._feet]
        self._soles = [self._standing.positions[i][2] for i in self._feet]

    def _pose(self, joints: np.ndarray, body: str | None = None) -> BodyPoses:
        """Linked bodies, or ``body`` alone, at ``joints`` with the base upright at home."""
        description = self.description
        model = description.kinematics
        data = mujoco.MjData(model)
        qpos = np.zeros(model.nq)
        qpos[2], qpos[3] = description.home_height, 1.0
        qpos[description.qpos_indices(model)] = joints
        data.qpos = qpos
        mujoco.mj_kinematics(model, data)
        ids = self._ids if body is None else [model.body(body).id]
        return BodyPoses(data.xpos[ids].copy(), data.xmat[ids].reshape(-1, 3, 3).copy())

    def make(self, motion: HumanMotion, start: BodyPoses | None, blend: float) -> Targets:
        """
        Targets for every row of ``motion``.

        With ``start``, the poses of the linked bodies now, the targets begin there and are the
        human's after ``blend`` seconds; a foot that stands stays where it stands.
        """
        scale = motion.scale
        points, turns = global_pose(motion.root_position, motion.rotations, scale)
        forward = turns[:, 0, :, 2]
        heading = yaw_matrix(np.arctan2(forward[:, 1], forward[:, 0]))
        rotations = turns[:, self._joints] @ self._from_human
        positions = points[:, self._joints].copy()
        lift = self._root_height - scale * REST_PELVIS_HEIGHT
        positions += (heading @ np.array([*self._root_forward, lift]))[:, None]
        # Robots stand wider than people in proportion to their legs, and their ankles lower.
        aside = max(self._half_width - scale * STANCE, 0.0)
        planted = motion.contacts.reshape(-1, 2, 2).max(axis=1) >= 0.5
        # A foot that spins on its ankle or toe has contact, but is about to stand elsewhere.
        ways = turns[:, list(FOOT_JOINTS[:2])][..., 2]
        yaw = np.unwrap(np.arctan2(ways[..., 1], ways[..., 0]), axis=0)
        spin = np.abs(np.gradient(yaw, axis=0)) * motion.fps
        planted &= spin < SPINNING
        # Nor is one that moves along, heel and toe: two stances that low contact joins are two.
        travel = joint_speeds(points[:, list(FOOT_JOINTS), :2] / scale, motion.fps)
        planted &= travel.reshape(-1, 2, 2).min(axis=1) < LEAVE_SPEED
        firm = planted & (motion.contacts[:, :2] >= 0.5)
        for side, (i, sign) in enumerate(zip(self._feet, (1.0, -1.0), strict=True)):
            drop = np.array([0.0, self._soles[side] - scale * FOOT_HEIGHTS[side], 0.0])
            joint = self._joints[i]
            positions[:, i] = points[:, joint] + turns[:, joint] @ drop
            positions[:, i] += heading @ np.array([0.0, sign * aside, 0.0])
        self._clear_hips(positions, heading, scale)
        if start is not None:
            self._lead_in(positions, rotations, start, blend, motion.fps)
        feet = points[:, list(FOOT_JOINTS), 2] - scale * np.array(FOOT_HEIGHTS)
        clear = np.maximum(feet.reshape(-1, 2, 2).min(axis=1), 0.0)
        # A robot cannot shuffle as people do: what moves over the floor is lifted off it.
        moving = np.maximum(travel[:, :2] / SHUFFLING, spin / SPINNING)
        clear = np.maximum(clear, scale * LEAST_CLEARANCE * smoothstep(moving - 0.5))
        for side, i in enumerate(self._feet):
            now = None if start is None else BodyPoses(start.positions[i], start.rotations[i])
            self._plant(
                positions[:, i],
                rotations[:, i],
                planted[:, side],
                firm[:, side],
                clear[:, side],
                side,
                now,
            )
        self._within_reach(positions, rotations)
        return Targets(positions, rotations, planted)

    def _within_reach(self, positions: np.ndarray, rotations: np.ndarray) -> None:
        """
        Lower, in place, the pelvis where a leg would have to be longer than it is.

        People rise on their toes at the end of a stance; a robot with flat feet bends its other
        knee instead.  The drop is spread over a quarter of a second on either side.
        """
        pelvis, reach = positions[:, self._pelvis], REACH * self.description.leg.length
        drop = np.zeros(len(positions))
        turn = rotations[:, self._pelvis] @ self._standing.rotations[self._pelvis].T
        for i, sign in zip(self._feet, (1.0, -1.0), strict=True):
            gap = pelvis + turn @ (self._hip * [1.0, sign, 1.0]) - positions[:, i]
            gap[:, 2] -= self._ankle
            most = np.sqrt(np.maximum(reach**2 - (gap[:, :2] ** 2).sum(axis=1), 0.0))
            drop = np.maximum(drop, gap[:, 2] - most)
        half = SPREAD_FRAMES
        padded = np.pad(np.clip(drop, 0.0, MOST_DROP), 2 * half, mode='edge')
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
        # Highest, then mean, over the same window: never less than what was needed.
        windows = np.lib.stride_tricks.sliding_window_view(windows.max(axis=1), 2 * half + 1)
        pelvis[:, 2] -= windows @ np.hanning(2 * half + 3)[1:-1] / (half + 1.0)

    def _clear_hips(self, positions: np.ndarray, heading: np.ndarray, scale: float) -> None:
        """
        Keep, in place, low hands as far from the hips as in the standing posture.

        Robots are wider at the hips than people in proportion to their arms.
        """
        pelvis = positions[:, self._pelvis]
        for i, left, apart in self._hands:
            local = np.einsum('tji,tj->ti', heading, positions[:, i] - pelvis)
            beside = 1.0 - smoothstep((np.abs(local[:, 0]) / scale - 0.2) / 0.2)
            low = 1.0 - smoothstep((local[:, 2] / scale - 0.15) / 0.2)
            sign = 1.0 if left else -1.0
            push = np.maximum(apart - sign * local[:, 1], 0.0) * beside * low
            positions[:, i] += heading[:, :, 1] * (sign * push)[:, None]

    def _lead_in(
        self,
        positions: np.ndarray,
        rotations: np.ndarray,
        start: BodyPoses,
        blend: float,
        fps: float,
    ) -> None:
        """Add, in place, the difference to ``start``, fading over ``blend`` seconds."""
        rows = min(int(np.ceil(blend * fps)) + 1, len(positions))
        fade = 1.0 - smoothstep(np.arange(rows) / (blend * fps))
        positions[:rows] += fade[:, None, None] * (start.positions - positions[0])
        turn = start.rotations @ transpose(rotations[0])
        part = interpolate(
            np.broadcast_to(np.eye(3), (rows, *turn.shape)),
            np.broadcast_to(turn, (rows, *turn.shape)),
            np.repeat(fade[:, None], len(turn), axis=1),
        )
        rotations[:rows] = part @ rotations[:rows]

    def _plant(
        self,
        position: np.ndarray,
        rotation: np.ndarray,
        planted: np.ndarray,
        firm: np.ndarray,
        clear: np.ndarray,
        side: int,
        now: BodyPoses | None,
    ) -> None:
        """
        Hold, in place, the foot still and flat in every contact, and bend the swings to it.

        ``firm`` (T,) where the whole sole is down, ``clear`` (T,) height of the human sole above
        the floor in a swing (m), ``now`` the measured foot.
        """
        sole, flat = self._soles[side], self._flat[side]
        rows = np.arange(len(position))
        raw = position.copy()
        forward = (rotation @ flat.T)[:, :, 0]
        edges = np.flatnonzero(np.diff(planted.astype(int), prepend=0, append=0))
        ends = []
        upright = rotation.copy()
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            use = np.arange(first, last)
            if firm[first:last].any():
                use = use[firm[first:last]]
            place = raw[use, :2].mean(axis=0)
            way = forward[use, :2].mean(axis=0)
            yaw = np.arctan2(way[1], way[0])
            if first == 0 and now is not None and np.hypot(*(now.positions[:2] - place)) < NEAR:
                turn = now.rotations @ flat.T
                place, yaw = now.positions[:2], np.arctan2(turn[1, 0], turn[0, 0])
            position[first:last, :2] = place
            upright[first:last] = yaw_matrix(np.float64(yaw)) @ flat
            ends.append((first, last - 1, place))
        if ends:
            # Swings: the corrections at lift-off and touch-down, faded into each other.
            for (_, off, a), (on, _, b) in zip(ends[:-1], ends[1:], strict=True):
                swing = rows[off + 1 : on]
                share = smoothstep((swing - off) / (on - off))[:, None]
                fix = (1 - share) * (a - raw[off, :2]) + share * (b - raw[on, :2])
                position[swing, :2] += fix
            (first, _, a), (_, last, b) = ends[0], ends[-1]
            position[:first, :2] += a - raw[first, :2]
            position[last + 1 :, :2] += b - raw[last, :2]
            # Orientation and height: flat and on the floor in contact, free in mid-swing.
            gap = np.abs(rows[:, None] - np.flatnonzero(planted)[None])
            nearest = np.flatnonzero(planted)[gap.argmin(axis=1)]
            gap = gap.min(axis=1)
            rotation[:] = interpolate(
                upright[nearest], rotation, np.asarray(smoothstep(gap / ROLL_FRAMES))
            )
        else:
            gap = np.full(len(position), LIFT_FRAMES)
        # The robot's foot is another one: give its lowest corner the clearance of the human's.
        foot = self.description.feet[side]
        lowest = -(rotation[:, 2] @ foot.points.T).min(axis=1)
        free = np.maximum(raw[:, 2], lowest + clear)
        height = sole + smoothstep(gap / LIFT_FRAMES) * (free - sole)
        position[:, 2] = np.maximum(height, lowest)
