# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Where a motion is meant to end, as the reasoner's states tell, and how far one ends from there.

Flow matching samples: the same condition gives motions that end some centimetres apart, while the
states know the place better than any one sample hits it.  Of several candidates the one that ends
nearest is taken: best of n, judged by the model itself.

Where they disagree about what to do, not by centimetres, the model is of two minds: told to go
to something that it does not see, it goes to what looks alike in some samples and turns to look
for it in others.  Where it sees it, no sample looks for it.  One that does is therefore taken.
"""

from __future__ import annotations

from collections.abc import Sequence
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
#: A search turns left by this angle (rad) where it stands, looks and stops.
SWEEP = float(np.radians(90.0))
#: What ends within this way (m) of its start and this angle (rad) of SWEEP is a search; an aim
#: may lie a little further off and be one still.
IN_PLACE, ABOUT, ABOUT_AIM = 0.4, float(np.radians(25.0)), float(np.radians(35.0))


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

    def searches(self, about: float = ABOUT) -> bool:
        """Whether the pelvis ends where a search ends, turned within ``about`` (rad) of it."""
        x, y, yaw = self.pelvis
        off = abs(float(wrap_angle(np.asarray(yaw - SWEEP))))
        return bool(np.hypot(x, y) < IN_PLACE and off < about)

    def choose(self, ends: Sequence[HumanMotion]) -> int:
        """
        Which of several motions to take, known by their last frames as :meth:`miss` is.

        One that searches, where the aim is elsewhere; of these, or else of all, the one that ends
        nearest.  ValueError where there is none.
        """
        if not ends:
            raise ValueError('no motion to choose')
        misses = np.array([self.miss(end) for end in ends])
        searching = np.array([ended(end).searches() for end in ends])
        # Reaching is left aside: there the states tell better than samples what is in view.
        goes = not np.isfinite(self.hands).any() and not self.searches(ABOUT_AIM)
        if goes and searching.any():
            misses[~searching] = np.inf
        return int(np.argmin(misses))

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


def ended(motion: HumanMotion) -> Aim:
    """Where a motion in the start frame, at scale 1, ends, as an aim without hands."""
    x, y = motion.root_position[-1, :2]
    yaw = float(heading(motion.rotations[-1, 0]))
    return Aim(np.array([x, y, yaw]), np.full((2, 3), np.nan))
