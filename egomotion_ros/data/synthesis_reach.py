# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Reaching: step up to something, lean as far as needed, bring the hands to it and hold them there.

The approach is that of :mod:`egomotion_ros.data.synthesis`, recorded strides and standing poses.
The hand path is of minimum jerk (Flash and Hogan, 1985), slightly bowed upwards; the arm follows
by two-bone geometry (:mod:`egomotion_ros.data.synthesis_arms`).  How far the trunk leans and the
knees bend is the least that brings the shoulders near enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from egomotion_ros.body.contacts import detect_contacts
from egomotion_ros.body.edits import canonicalize, ground_pose
from egomotion_ros.body.hands import HANDS, SHOULDERS, hand_points
from egomotion_ros.body.kinematics import forward_kinematics, global_pose
from egomotion_ros.body.rotations import axis_angle_to_matrix, yaw_matrix
from egomotion_ros.data.gait import GaitLibrary
from egomotion_ros.data.synthesis_arms import ARM_LENGTH, lead_hand
from egomotion_ros.data.synthesis_body import choose_posture, pose_body, standing_plan
from egomotion_ros.data.synthesis_legs import lower_to_reach, pin_legs
from egomotion_ros.data.synthesis_steps import (
    FRAMES,
    RootPlan,
    minimum_jerk,
    plan_feet,
    plan_root,
)
from egomotion_ros.types import FPS, HumanMotion

#: Ground distances from the pelvis (m) and heights over the floor (m) hands are sent to.
REACH_DISTANCES, REACH_HEIGHTS = (0.4, 1.3), (0.5, 1.5)
#: Shortest approach worth a step (m), and largest bearing reached without turning (rad).
_STEP, _AHEAD = 0.10, np.radians(12)
#: Most lean of the trunk (rad), and pelvis drop by bent knees at the lowest target (m).
_LEAN, _SQUAT = np.radians(80), 0.24
#: Share of the arm's length a leaning person is content with, and shares of the lean taken by
#: the hips (pelvis tilt) and the three joints of the spine.
_CONTENT = 0.88
#: Nearest to the shoulder a hand passes by (m).
_FOLDED = 0.36
_LEAN_JOINTS = {0: 0.46, 3: 0.2, 6: 0.18, 9: 0.16}


@dataclass(frozen=True)
class ReachPlan:
    """Standing place and timing: pelvis ``goal`` (x, y, yaw), hand ``targets`` (2, 3) or NaN."""

    goal: np.ndarray
    targets: np.ndarray


def check_targets(targets: np.ndarray) -> np.ndarray:
    """Hand targets (2, 3) of left and right, NaN rows for idle hands; ValueError when unfit."""
    targets = np.asarray(targets, float)
    used = ~np.isnan(targets).any(-1) if targets.shape == (2, 3) else np.zeros(2, bool)
    if not used.any() or not np.isfinite(targets[used]).all():
        raise ValueError('reach: targets must be (2, 3) with a finite row for at least one hand, '
                         f'got {targets}')
    away, height = np.hypot(*targets[used, :2].T), targets[used, 2]
    if away.min() < 0.3 or away.max() > 1.45 or height.min() < 0.4 or height.max() > 1.6:
        raise ValueError(f'reach: target {targets[used]} is not 0.3 to 1.45 m away and 0.4 to '
                         '1.6 m high')
    return targets


def side_of(targets: np.ndarray) -> str:
    """``left``, ``right`` or ``both``: the hands that hand targets (2, 3) use."""
    used = tuple(np.flatnonzero(~np.isnan(targets).any(-1)).tolist())
    return next(side for side, hands in HANDS.items() if hands == used)


def standing_place(targets: np.ndarray, side: str, closeness: float = 0.5) -> np.ndarray:
    """
    Where the pelvis stands to reach ``targets`` (2, 3), as ``(x, y, yaw)`` in the start frame.

    On the line from the start to the middle of the targets, ``closeness`` (0..1) between the far
    and the near end of what people choose; without a step where it is near enough already.
    """
    middle = np.nanmean(targets, axis=0)
    away, bearing = float(np.hypot(*middle[:2])), float(np.arctan2(middle[1], middle[0]))
    low = np.clip((0.95 - middle[2]) / 0.45, 0, 1)
    keep = 0.56 - 0.06 * low - 0.12 * closeness
    way = max(away - keep, 0.0)
    if way < _STEP:
        way = 0.0
        if abs(bearing) < _AHEAD:
            return np.zeros(3)
    # The shoulder of the reaching arm comes forward a little.
    yaw = bearing + {'left': -1, 'right': 1, 'both': 0}[side] * np.radians(5)
    return np.array([way * np.cos(bearing), way * np.sin(bearing), yaw])


def synthesise_reach(targets: np.ndarray, rng: np.random.Generator, library: GaitLibrary,
                     split: str, stride_index: int | None = None) -> HumanMotion:
    """
    Motion of FRAMES frames in the start frame that brings the hand points to ``targets`` (2, 3).

    Rows are the left and the right hand, NaN where a hand stays idle.  The hands rest at their
    targets for the last 0.5 s and more.  ValueError for targets out of range.
    """
    targets = check_targets(targets)
    blocks = library.of(split)
    if stride_index is None:
        stride_index = int(rng.integers(len(blocks.strides)))
    stride = blocks.strides[stride_index]
    posture = choose_posture(stride, blocks, rng)
    side = side_of(targets)
    goal = standing_place(targets, side, rng.random())
    if goal.any():
        root = plan_root(goal + rng.normal(0, 1, 3) * [0.01, 0.01, np.radians(1)], stride, rng,
                         straight=bool(np.hypot(*goal[:2]) < 0.3))
    else:
        root = standing_plan(stride, rng)
    feet = plan_feet(root, stride, rng)
    path, rotations = pose_body(root, feet, stride, posture, blocks, rng)
    # Targets are meant in the frame the motion will start in, sway and all.
    start = ground_pose(HumanMotion(path, rotations, np.zeros((FRAMES, 4))))
    targets = targets @ yaw_matrix(np.asarray(start.yaw)).T + [start.x, start.y, 0.0]
    begin, duration = _timing(root, rng)
    time = np.arange(FRAMES) / FPS
    lean = minimum_jerk((time - begin + 0.1) / (duration + 0.05))
    path, rotations = _lean(path, rotations, root.yaw, targets, lean, begin, side)
    path = lower_to_reach(path, rotations, feet)
    _reach(path, rotations, root.yaw, targets, time, begin, duration, rng)
    rotations = pin_legs(path, rotations, feet)
    contacts = detect_contacts(forward_kinematics(path, rotations), FPS)
    return canonicalize(HumanMotion(path, rotations, contacts, frame_id='start'))[0]


def _timing(root: RootPlan, rng: np.random.Generator) -> tuple[float, float]:
    """When the hand sets off and how long it takes (s): begins while the last step lands."""
    moving = np.flatnonzero(np.abs(np.diff(root.clock)) > 1e-6)
    arrival = (moving[-1] + 1) / FPS if len(moving) else 0.0
    begin = max(arrival - rng.uniform(0.15, 0.4), rng.uniform(0.25, 0.7))
    return begin, min(rng.uniform(1.0, 1.4), FRAMES / FPS - 0.8 - begin)


def _lean(path: np.ndarray, rotations: np.ndarray, yaw: np.ndarray, targets: np.ndarray,
          weight: np.ndarray, begin: float, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Pelvis path and pose with the least lean that brings the shoulders near the targets."""
    used = list(HANDS[side])
    low = np.clip((0.95 - np.nanmin(targets[:, 2])) / 0.45, 0, 1)
    twist = {'left': -1, 'right': 1, 'both': 0}[side] * np.radians(9)

    def leaned(angle: float, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        share = weight[rows]
        out = rotations[rows].copy()
        for joint, part in _LEAN_JOINTS.items():
            turn = np.stack([part * angle * share, (joint > 0) * twist / 3 * share,
                             0 * share], axis=1)
            out[:, joint] = out[:, joint] @ axis_angle_to_matrix(turn)
        # The eyes stay on what is reached for.
        back = np.stack([-0.22 * angle * share, 0 * share, 0 * share], axis=1)
        for joint in (12, 15):
            out[:, joint] = out[:, joint] @ axis_angle_to_matrix(back)
        # Hips go back and down as the trunk goes forward, or the body would fall.
        moved = path[rows].copy()
        ahead = np.stack([np.cos(yaw[rows]), np.sin(yaw[rows])], axis=1)
        moved[:, :2] -= (0.16 * np.sin(angle) * share)[:, None] * ahead
        moved[:, 2] -= (low * _SQUAT * min(angle / np.radians(35), 1.0)) * share
        return moved, out

    def gap(angle: float) -> float:
        joints = forward_kinematics(*leaned(angle, slice(-1, None)))[0]
        away = targets[used] - joints[[SHOULDERS[k] for k in used]]
        return float(np.linalg.norm(away, axis=1).max())

    angles = np.radians(np.arange(0, np.degrees(_LEAN) + 1, 2.0))
    near = [gap(a) for a in angles]
    fitting = [a for a, g in zip(angles, near, strict=True) if g <= _CONTENT * ARM_LENGTH]
    angle = fitting[0] if fitting else float(angles[int(np.argmin(near))])
    before = global_pose(path, rotations)[1]
    path, rotations = leaned(angle, slice(None))
    # Arms hang by their weight, whatever the trunk does.
    after = global_pose(path, rotations)[1]
    for shoulder in SHOULDERS:
        collar = shoulder - 3
        hanging = np.swapaxes(after[:, collar], -1, -2) @ before[:, shoulder]
        rotations[:, shoulder] = hanging
    return path, rotations


def _reach(path: np.ndarray, rotations: np.ndarray, yaw: np.ndarray, targets: np.ndarray,
           time: np.ndarray, begin: float, duration: float, rng: np.random.Generator) -> None:
    """Lead the used hands, in place, from where the pose has them to their targets."""
    joints = forward_kinematics(path, rotations)
    start = hand_points(joints)
    ahead = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
    for side in np.flatnonzero(~np.isnan(targets).any(-1)):
        wait = rng.uniform(0.0, 0.06) * (not np.isnan(targets).any())
        share = (time - begin - wait) / (duration - wait)
        weight = minimum_jerk(share)
        from_here = start[:, side]
        up = targets[side, 2] > np.median(from_here[:, 2])
        # Up before forward, forward before down: round the edge of what things stand on.
        early, late = minimum_jerk(share / 0.85), minimum_jerk((share - 0.15) / 0.85)
        rows = np.stack([late if up else early] * 2 + [early if up else late], axis=1)
        hand = from_here + rows * (targets[side] - from_here)
        bow = 16 * weight ** 2 * (1 - weight) ** 2
        hand[:, 2] += rng.uniform(0.04, 0.08) * bow
        # What is high and near is reached in a curve around the folded arm.
        near = np.linalg.norm(hand - joints[:, SHOULDERS[side]], axis=1).min()
        hand[:, :2] += (np.clip(_FOLDED - near, 0, 0.35) * bow)[:, None] * ahead
        lead_hand(path, rotations, int(side), gaussian_filter1d(hand, 0.7, axis=0,
                                                                mode='nearest'), weight, yaw)
