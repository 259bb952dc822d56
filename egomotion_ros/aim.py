# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Where a motion is meant to end, as the reasoner's states tell, and how far one ends from there.

Flow matching samples: the same condition gives motions that end some centimetres apart, while the
states know the place better than any one sample hits it.  Of several candidates the one that ends
nearest is taken: best of n, judged by the model itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egomotion_ros.body.features import heading
from egomotion_ros.body.hands import hand_points
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import wrap_angle
from egomotion_ros.types import HumanMotion

#: Numbers that tell an aim: x, y, sine and cosine of the yaw, left and right hand, and for each
#: hand whether it reaches (a logit).
AIM = 12
#: What a radian that the body faces away counts, in metres.
LEVER = 0.5


@dataclass(frozen=True)
class Aim:
    """
    Last pose of a motion in the start frame, in human metres.

    ``pelvis`` (x, y, yaw); ``hands`` (2, 3) points of the left and the right hand, NaN for a hand
    that does not reach.
    """

    pelvis: np.ndarray
    hands: np.ndarray

    @staticmethod
    def read(told: np.ndarray) -> Aim:
        """Read an aim from its AIM numbers; ValueError unless they are that many and finite."""
        told = np.asarray(told, float)
        if told.shape != (AIM,) or not np.isfinite(told).all():
            raise ValueError(f'an aim is {AIM} finite numbers, got {told}')
        hands = np.where(told[10:, None] > 0, told[4:10].reshape(2, 3), np.nan)
        return Aim(np.array([told[0], told[1], np.arctan2(told[2], told[3])]), hands)

    def miss(self, motion: HumanMotion) -> float:
        """
        How far (m) a motion in the start frame, at scale 1, ends from the aim.

        Of hands that reach the farther one counts and nothing else; else the pelvis, and LEVER a
        radian of its heading.
        """
        root, rotations = motion.root_position[-1:], motion.rotations[-1:]
        reaching = np.isfinite(self.hands).all(axis=1)
        if reaching.any():
            points = hand_points(forward_kinematics(root, rotations))[0]
            return float(np.linalg.norm((points - self.hands)[reaching], axis=1).max())
        away = float(np.hypot(*(root[0, :2] - self.pelvis[:2])))
        turn = float(wrap_angle(np.asarray(heading(rotations[0, 0]) - self.pelvis[2])))
        return away + LEVER * abs(turn)
