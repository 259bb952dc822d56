# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Two-bone leg kinematics: ankles onto given paths, feet keeping their direction."""

from __future__ import annotations

import numpy as np

from egomotion_ros.body.kinematics import global_pose
from egomotion_ros.body.skeleton import JOINT_INDEX, SHANK, THIGH

#: Share of the full leg length the ankle may be away from the hip; a fully stretched knee would
#: leave its own plane undefined.
REACH = 0.9995


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def _turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shortest rotations (T, 3, 3) that turn unit vectors ``a`` (T, 3) into ``b``."""
    v, c = np.cross(a, b), np.sum(a * b, axis=-1)
    k = np.zeros((len(a), 3, 3))
    k[:, 0, 1], k[:, 0, 2], k[:, 1, 2] = -v[:, 2], v[:, 1], -v[:, 0]
    k[:, 1, 0], k[:, 2, 0], k[:, 2, 1] = v[:, 2], -v[:, 1], v[:, 0]
    return np.eye(3) + k + k @ k / np.maximum(1.0 + c, 1e-3)[:, None, None]


def reach_ankles(root: np.ndarray, local: np.ndarray, ankles: np.ndarray) -> np.ndarray:
    """
    Turn hips and knees so that the ankles are at ``ankles``; give new local rotations.

    ``root`` (T, 3), ``local`` (T, 22, 3, 3), ``ankles`` (T, 2, 3) left and right in the frame of
    the root.  The knee stays in the plane it was in, the foot keeps its global rotation; an ankle
    out of reach ends on the line to it.
    """
    positions, turned = global_pose(root, local)
    turned, out = turned.copy(), local.copy()
    for i, side in enumerate(('left', 'right')):
        hip, knee, ankle = (JOINT_INDEX[f'{side}_{n}'] for n in ('hip', 'knee', 'ankle'))
        start = positions[:, hip]
        aim = ankles[:, i] - start
        far = np.linalg.norm(aim, axis=-1)
        far = np.clip(far, abs(THIGH - SHANK) + 1e-3, REACH * (THIGH + SHANK))
        aim = _unit(aim)
        thigh = _unit(positions[:, knee] - start)
        # The forward axis of the thigh says where the knee points when the leg is straight.
        pole = thigh + 0.2 * turned[:, hip, :, 2]
        pole = _unit(pole - np.sum(pole * aim, -1, keepdims=True) * aim)
        along = (THIGH**2 + far**2 - SHANK**2) / (2 * far)
        aside = np.sqrt(np.maximum(THIGH**2 - along**2, 0.0))
        bend = along[:, None] * aim + aside[:, None] * pole
        turned[:, hip] = _turn(thigh, _unit(bend)) @ turned[:, hip]
        shank = -turned[:, knee, :, 1]
        turned[:, knee] = _turn(shank, _unit(far[:, None] * aim - bend)) @ turned[:, knee]
        parent = turned[:, 0]
        for joint in (hip, knee, ankle):
            out[:, joint] = np.swapaxes(parent, -1, -2) @ turned[:, joint]
            parent = turned[:, joint]
    return out
