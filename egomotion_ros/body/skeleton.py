# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The rest skeleton: 22 SMPL-X joints with the package's own bone lengths, free of any licence.

The body frame has X to the left, Y up and Z forward; the rest pose is a T pose, 1.7 m tall,
left-right symmetric, with straight legs and the feet on the floor.  Only the joint *order* is
that of SMPL-X (so that SMPL, SMPL-X and AMASS rotations can be used as they are); no number
here comes from a body model.
"""

from __future__ import annotations

import numpy as np

#: The 22 body joints, in SMPL-X order.
JOINT_NAMES: tuple[str, ...] = (
    'pelvis',
    'left_hip',
    'right_hip',
    'spine1',
    'left_knee',
    'right_knee',
    'spine2',
    'left_ankle',
    'right_ankle',
    'spine3',
    'left_foot',
    'right_foot',
    'neck',
    'left_collar',
    'right_collar',
    'head',
    'left_shoulder',
    'right_shoulder',
    'left_elbow',
    'right_elbow',
    'left_wrist',
    'right_wrist',
)

#: Count of joints.
JOINTS = len(JOINT_NAMES)

#: Index of every joint by name.
JOINT_INDEX: dict[str, int] = {name: i for i, name in enumerate(JOINT_NAMES)}

#: Parent of every joint, -1 for the pelvis; a parent stands before its children.
PARENTS: tuple[int, ...] = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19,
)  # fmt: skip

#: Joints of equal depth stand side by side in this order: (first, last + 1) of every level.
LEVELS: tuple[tuple[int, int], ...] = (
    (0, 1), (1, 4), (4, 7), (7, 10), (10, 15), (15, 18), (18, 20), (20, 22),
)  # fmt: skip

#: The joint that is this one on the other side of the body.
MIRROR: tuple[int, ...] = tuple(
    JOINT_INDEX[
        name.replace('left_', 'right_')
        if name.startswith('left_')
        else name.replace('right_', 'left_')
    ]
    for name in JOINT_NAMES
)

#: Joints that may touch the floor: left ankle, right ankle, left foot, right foot.
FOOT_JOINTS: tuple[int, ...] = (7, 8, 10, 11)

THIGH = 0.41
SHANK = 0.44
#: Hip to ankle with a straight knee (m); the measure by which foreign skeletons are scaled.
LEG_LENGTH = THIGH + SHANK
_HIP_DROP = 0.03
_ANKLE_TO_TOE_DROP = 0.065

#: Height of the joints of FOOT_JOINTS above the sole when the foot is flat (m).
FOOT_HEIGHTS: tuple[float, ...] = (0.085, 0.085, 0.02, 0.02)

#: Height of the pelvis joint when the rest pose stands on the floor (m).
REST_PELVIS_HEIGHT = _HIP_DROP + LEG_LENGTH + FOOT_HEIGHTS[0]

#: Top of the head above the head joint in the rest pose (m).
CROWN_HEIGHT = 0.1


def _offsets() -> np.ndarray:
    left = {
        'left_hip': (0.055, -_HIP_DROP, 0.0),
        'left_knee': (0.0, -THIGH, 0.0),
        'left_ankle': (0.0, -SHANK, 0.0),
        'left_foot': (0.02, -_ANKLE_TO_TOE_DROP, 0.134),
        'left_collar': (0.048, 0.087, 0.0),
        'left_shoulder': (0.118, 0.0, 0.0),
        'left_elbow': (0.28, 0.0, 0.0),
        'left_wrist': (0.275, 0.0, 0.0),
    }
    middle = {
        'pelvis': (0.0, 0.0, 0.0),
        'spine1': (0.0, 0.113, 0.0),
        'spine2': (0.0, 0.146, 0.0),
        'spine3': (0.0, 0.056, 0.0),
        'neck': (0.0, 0.171, 0.0),
        'head': (0.0, 0.175, 0.0),
    }
    right = {name.replace('left_', 'right_'): (-x, y, z) for name, (x, y, z) in left.items()}
    every = {**left, **middle, **right}
    out = np.array([every[name] for name in JOINT_NAMES])
    out.setflags(write=False)
    return out


#: Joint relative to its parent in the rest pose, (22, 3), metres, body frame.
OFFSETS: np.ndarray = _offsets()

#: Rotation of a standing body that faces world +X: body Z -> X, body X -> Y, body Y -> Z.
BODY_TO_WORLD: np.ndarray = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
BODY_TO_WORLD.setflags(write=False)
