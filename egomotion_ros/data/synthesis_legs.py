# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Put the ankles of a pose exactly where a foot plan wants them: two-bone leg geometry."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from egomotion_ros.body.kinematics import global_pose
from egomotion_ros.body.rotations import axis_angle_to_matrix, yaw_matrix
from egomotion_ros.body.skeleton import BODY_TO_WORLD, LEG_LENGTH, SHANK, THIGH
from egomotion_ros.data.synthesis_steps import FeetPlan

_HIPS, _KNEES, _ANKLES = (1, 2), (4, 5), (7, 8)
#: Longest hip-ankle distance the pelvis is lowered for (near a locked knee small moves need
#: fast turns), and the longest a leg may still take.
_COMFORT, _REACH = 0.985 * LEG_LENGTH, 0.998 * LEG_LENGTH


def lower_to_reach(root: np.ndarray, rotations: np.ndarray, feet: FeetPlan) -> np.ndarray:
    """
    Lower the pelvis path (T, 3), smoothly, where a leg would have to be longer than it is.

    Heights are changed, nothing else; ``rotations`` (T, 22, 3, 3) of the pose.
    """
    joints, _ = global_pose(root, rotations)
    hips = joints[:, list(_HIPS)]
    flat = np.hypot(*np.moveaxis(feet.ankle[..., :2] - hips[..., :2], -1, 0))
    highest = feet.ankle[..., 2] + np.sqrt(np.maximum(_COMFORT ** 2 - flat ** 2, 0.25))
    excess = np.maximum(hips[..., 2] - highest, 0.0).max(1)
    # The filter of maxima keeps the smoothed drop at least as large as what is needed.
    drop = gaussian_filter1d(maximum_filter1d(excess, 7), 2.0)
    return root - np.stack([np.zeros_like(drop), np.zeros_like(drop), drop], axis=1)


def pin_legs(root: np.ndarray, rotations: np.ndarray, feet: FeetPlan) -> np.ndarray:
    """
    Turn hips, knees and ankles so that the ankles stand at ``feet.ankle``; (T, 22, 3, 3).

    The knee keeps the plane the pose bends it in; the soles take the plan's yaw and pitch.  An
    ankle beyond the leg's length is approached as far as the leg goes.
    """
    out = rotations.copy()
    joints, turns = global_pose(root, rotations)
    for side in range(2):
        hip, knee, ankle = (joints[:, j[side]] for j in (_HIPS, _KNEES, _ANKLES))
        target = feet.ankle[:, side]
        thigh, shank = knee - hip, ankle - knee
        lateral = turns[:, _HIPS[side], :, 0]
        # Nearly straight legs have no plane of their own: lean on the thigh's lateral axis.
        axis = np.cross(thigh, shank) / (THIGH * SHANK) + 0.15 * lateral
        axis -= (axis * thigh).sum(1, keepdims=True) * thigh / THIGH ** 2
        axis /= np.linalg.norm(axis, axis=1, keepdims=True)
        have = np.arctan2((np.cross(thigh, shank) * axis).sum(1), (thigh * shank).sum(1))
        distance = np.clip(np.linalg.norm(target - hip, axis=1), 0.3, _REACH)
        want = np.arccos(np.clip((distance ** 2 - THIGH ** 2 - SHANK ** 2) / (2 * THIGH * SHANK),
                                 -1, 1))
        bend = axis_angle_to_matrix(axis * (want - have)[:, None])
        reached = thigh + (bend @ shank[..., None])[..., 0]
        aim = shortest(reached, target - hip)
        thigh_turn = aim @ turns[:, _HIPS[side]]
        shank_turn = aim @ bend @ turns[:, _KNEES[side]]
        pitch = feet.pitch[:, side]
        sole = yaw_matrix(feet.yaw[:, side]) @ _pitch_matrix(pitch) @ BODY_TO_WORLD
        pelvis = turns[:, 0]
        out[:, _HIPS[side]] = np.swapaxes(pelvis, -1, -2) @ thigh_turn
        out[:, _KNEES[side]] = np.swapaxes(thigh_turn, -1, -2) @ shank_turn
        out[:, _ANKLES[side]] = np.swapaxes(shank_turn, -1, -2) @ sole
    return out


def _pitch_matrix(pitch: np.ndarray) -> np.ndarray:
    """Rotations about world Y that turn a sole facing +X toes-down for a positive pitch."""
    zero = np.zeros_like(pitch)
    return axis_angle_to_matrix(np.stack([zero, pitch, zero], axis=-1))


def shortest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shortest rotations (T, 3, 3) that turn directions ``a`` (T, 3) into ``b``."""
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    cross = np.cross(a, b)
    sine = np.linalg.norm(cross, axis=1, keepdims=True)
    angle = np.arctan2(sine, (a * b).sum(1, keepdims=True))
    return axis_angle_to_matrix(cross / np.maximum(sine, 1e-9) * angle)
