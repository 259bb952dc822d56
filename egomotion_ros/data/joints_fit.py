# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Rotations from joint positions alone: 22 SMPL-ordered positions onto our skeleton.

Pelvis and chest have three points each (hips and first spine joint; collars and neck) and get
their full rotation from them; every other bone is swung from its parent's frame onto its
direction, so that the limbs' directions are exact and twist about a bone is the parent's.
Positions cannot say more.
"""

from __future__ import annotations

import numpy as np

from egomotion_ros.body.skeleton import JOINT_INDEX, JOINT_NAMES, OFFSETS, PARENTS
from egomotion_ros.data.mapping import place
from egomotion_ros.types import HumanMotion

#: The joint below, where one bone gives the direction.
_BELOW = {
    name: next((k for k, parent in enumerate(PARENTS) if parent == j), None)
    for j, name in enumerate(JOINT_NAMES)
}


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def _frame(left: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Rotations (T, 3, 3) of bodies whose left axis is ``left`` and whose up leans to ``up``."""
    x = _unit(left)
    y = _unit(up - np.sum(up * x, axis=-1, keepdims=True) * x)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def _swing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shortest rotations (T, 3, 3) that turn unit vectors ``a`` (T, 3) into ``b``."""
    v, c = np.cross(a, b), np.sum(a * b, axis=-1)
    k = np.zeros((len(a), 3, 3))
    k[:, 0, 1], k[:, 0, 2], k[:, 1, 2] = -v[:, 2], v[:, 1], -v[:, 0]
    k[:, 1, 0], k[:, 2, 0], k[:, 2, 1] = v[:, 2], -v[:, 1], v[:, 0]
    return np.eye(3) + k + k @ k / np.maximum(1.0 + c, 1e-3)[:, None, None]


def fit_joints(joints: np.ndarray, fps: float, name: str = 'joints') -> HumanMotion:
    """
    Fit our skeleton to positions (T, 22, 3) in metres, Z up, SMPL order, at ``fps``.

    Limb directions are kept, paths scaled by the leg length, ankles brought onto their paths;
    contacts are left at zero.  Raises ValueError where shape or numbers are wrong, or a body has
    no legs.
    """
    joints = np.asarray(joints, dtype=np.float64)
    if joints.ndim != 3 or joints.shape[1:] != (len(JOINT_NAMES), 3) or not len(joints):
        raise ValueError(f'{name}: expected joints (T, {len(JOINT_NAMES)}, 3), got {joints.shape}')
    if not np.isfinite(joints).all():
        raise ValueError(f'{name}: a number is not finite')
    at = {joint: joints[:, i] for joint, i in JOINT_INDEX.items()}
    turned = np.empty((*joints.shape[:2], 3, 3))
    hips = 0.5 * (at['left_hip'] + at['right_hip'])
    turned[:, 0] = _frame(at['left_hip'] - at['right_hip'], at['spine1'] - hips)
    for j, joint in enumerate(JOINT_NAMES[1:], 1):
        above, below = turned[:, PARENTS[j]], _BELOW[joint]
        if joint == 'spine3':
            turned[:, j] = _frame(
                at['left_collar'] - at['right_collar'], at['neck'] - at['spine3']
            )
        elif below is None:
            turned[:, j] = above
        else:
            now = _unit(joints[:, below] - joints[:, j])
            turned[:, j] = _swing(above @ _unit(OFFSETS[below]), now) @ above
    return place(turned, joints, fps, name)
