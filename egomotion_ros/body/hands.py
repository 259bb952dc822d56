# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Where the hands are: the 22-joint skeleton ends at the wrists, a stated hand goes on from there.

The *hand point* is the middle of the palm, :data:`HAND_LENGTH` beyond the wrist along the
forearm.  Reaching is synthesised for it and scored by it.
"""

from __future__ import annotations

import numpy as np

#: Wrist to the middle of the palm of a body of scale 1 (m).
HAND_LENGTH = 0.10
#: Shoulder, elbow and wrist joints, (left, right).
SHOULDERS, ELBOWS, WRISTS = (16, 17), (18, 19), (20, 21)
#: What an instruction can ask to reach with, and the hands (0 left, 1 right) that do.
HANDS = {'left': (0,), 'right': (1,), 'both': (0, 1)}


def hand_points(joints: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """
    Hand points (..., 2, 3), left and right, of joint positions (..., 22, 3), metres.

    ``scale`` of the skeleton the joints belong to.
    """
    wrists = joints[..., list(WRISTS), :]
    along = wrists - joints[..., list(ELBOWS), :]
    length = np.linalg.norm(along, axis=-1, keepdims=True)
    return wrists + HAND_LENGTH * scale * along / np.maximum(length, 1e-9)
