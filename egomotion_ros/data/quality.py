# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Is a synthesised motion as clean as recorded ones?  Slide, jerk and joint limits with bounds.

The bounds are those of recorded walks (foot slide, jerk) and of human joints; motions beyond them
do not enter a motion bank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egomotion_ros.body.features import heading
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import matrix_to_axis_angle
from egomotion_ros.body.skeleton import JOINT_NAMES
from egomotion_ros.retarget.quality import human_feet
from egomotion_ros.types import HumanMotion

#: Farthest a joint turns from the rest pose (degrees), by the last word of its name.
JOINT_LIMITS = {'hip': 145, 'knee': 160, 'ankle': 75, 'spine1': 90, 'spine2': 60, 'spine3': 60,
                'foot': 75, 'neck': 70, 'collar': 60, 'head': 70, 'shoulder': 170, 'elbow': 160,
                'wrist': 105}
#: Bounds of :class:`MotionQuality`: those of recorded walks for slide, stance speed and jerk.
MAX_SLIDE, MAX_STANCE_SPEED, MAX_JERK = 12.0, 0.09, 180.0
#: Deepest sinking (m), fastest joint (rad/s), farthest a knee may bend backwards (m).
MAX_SINKING, MAX_JOINT_SPEED, MAX_KNEE_BACK = 0.01, 35.0, 0.02


@dataclass(frozen=True)
class MotionQuality:
    """
    Figures of one motion.

    ``slide`` UniEgoMotion's foot slide (mm a frame), ``stance_speed`` of feet in contact (m/s),
    ``sinking`` below the floor (m), ``jerk`` mean over joints and frames (m/s3), ``joint_speed``
    fastest joint (rad/s), ``beyond`` names of joints beyond their limit, ``knee_back`` how far a
    knee stands behind the line from hip to ankle (m).
    """

    slide: float
    stance_speed: float
    sinking: float
    jerk: float
    joint_speed: float
    beyond: tuple[str, ...]
    knee_back: float

    @property
    def faults(self) -> tuple[str, ...]:
        """What is out of bounds, in words; empty for a clean motion."""
        checks = (('foot slide', self.slide, MAX_SLIDE),
                  ('speed of planted feet', self.stance_speed, MAX_STANCE_SPEED),
                  ('sinking', self.sinking, MAX_SINKING), ('jerk', self.jerk, MAX_JERK),
                  ('joint speed', self.joint_speed, MAX_JOINT_SPEED),
                  ('knee bent backwards', self.knee_back, MAX_KNEE_BACK))
        return tuple(f'{name} {value:.3g} > {most:g}' for name, value, most in checks
                     if value > most) + tuple(f'{name} beyond its limit' for name in self.beyond)


def motion_quality(motion: HumanMotion) -> MotionQuality:
    """Measure a motion of at least four frames."""
    if motion.frames < 4:
        raise ValueError(f'a motion of at least 4 frames is needed, got {motion.frames}')
    joints = forward_kinematics(motion.root_position, motion.rotations,
                                motion.scale) / motion.scale
    feet = human_feet(motion)
    jerk = np.linalg.norm(np.diff(joints, 3, axis=0), axis=-1) * motion.fps ** 3
    step = matrix_to_axis_angle(np.swapaxes(motion.rotations[:-1], -1, -2) @ motion.rotations[1:])
    speed = np.linalg.norm(step, axis=-1) * motion.fps
    angles = np.degrees(np.linalg.norm(matrix_to_axis_angle(motion.rotations), axis=-1))
    beyond = tuple(name for k, name in enumerate(JOINT_NAMES) if k and
                   angles[:, k].max() > JOINT_LIMITS[name.split('_')[-1]])
    return MotionQuality(feet.slide, feet.stance_speed, feet.sinking, float(jerk.mean()),
                         float(speed.max()), beyond, _knee_back(motion, joints))


def _knee_back(motion: HumanMotion, joints: np.ndarray) -> float:
    """How far the knees come behind the hips' plane through hip and ankle (m)."""
    yaw = heading(motion.rotations[:, 0])
    worst = 0.0
    for hip, knee, ankle in ((1, 4, 7), (2, 5, 8)):
        line = joints[:, ankle] - joints[:, hip]
        line = line / np.linalg.norm(line, axis=1, keepdims=True)
        out = joints[:, knee] - joints[:, hip]
        out = out - (out * line).sum(1, keepdims=True) * line
        # Ahead of the leg, at a right angle to it: heading turned with the thigh's line.
        left = np.stack([-np.sin(yaw), np.cos(yaw), np.zeros_like(yaw)], axis=1)
        ahead = np.cross(left, -line)
        length = np.linalg.norm(ahead, axis=1, keepdims=True)
        behind = -(out * ahead / np.maximum(length, 1e-6)).sum(1)
        worst = max(worst, float(behind.max()))
    return worst
