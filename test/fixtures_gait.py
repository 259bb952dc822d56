# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A small walker made by formula, so that tests need no recordings."""

from __future__ import annotations

import numpy as np
import pytest

from egomotion_ros.body.contacts import detect_contacts
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import axis_angle_to_matrix
from egomotion_ros.body.skeleton import BODY_TO_WORLD
from egomotion_ros.data.episodes_bank import make_bank
from egomotion_ros.data.gait import (
    GaitLibrary,
    Gesture,
    Posture,
    _without_heading,
    extract_strides,
)
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.data.synthesis_legs import pin_legs
from egomotion_ros.data.synthesis_steps import FeetPlan, planted
from egomotion_ros.types import HumanMotion


def walking_motion(speed: float = 1.2, seconds: float = 5.0, period: float = 1.1) -> HumanMotion:
    """A straight walk at constant speed: feet planted 60 % of the stride, arms swinging."""
    frames = int(seconds * 30)
    time = np.arange(frames) / 30
    root = np.stack([speed * time, np.zeros(frames), 0.9 + 0.015 * np.cos(4 * np.pi * time
                                                                          / period)], axis=1)
    rotations = np.broadcast_to(np.eye(3), (frames, 22, 3, 3)).copy()
    rotations[:, 0] = BODY_TO_WORLD
    for side, (shoulder, down) in enumerate(((16, -1.2), (17, 1.2))):
        swing = 0.3 * np.sin(2 * np.pi * (time / period + 0.5 * side)) * (speed > 0)
        rotations[:, shoulder] = axis_angle_to_matrix(
            np.stack([swing, np.zeros(frames), np.full(frames, down)], axis=1))
    ankle, pitch = np.zeros((frames, 2, 3)), np.zeros((frames, 2))
    for side in range(2):
        phase = time / period + 0.5 * side
        count, share = np.floor(phase), phase % 1
        move = np.clip((share - 0.6) / 0.4, 0, 1)
        way = move ** 2 * (3 - 2 * move)
        length = speed * period
        # Heel off in late stance, toes up at landing.
        pitch[:, side] = np.interp(share, [0, 0.08, 0.4, 0.6, 0.8, 1],
                                   [-0.25, 0, 0, 0.8, 0.5, -0.25]) * (speed > 0)
        for i in range(frames):
            place = np.array([(count[i] - 0.5 * side + way[i]) * length + 0.24 * length,
                              0.09 * (1 - 2 * side)])
            ankle[i, side] = planted(place, 0.0, pitch[i, side:side + 1])[0]
        ankle[:, side, 2] += 0.05 * np.sin(np.pi * move) * (speed > 0)
    rotations = pin_legs(root, rotations, FeetPlan(ankle, np.zeros((frames, 2)), pitch))
    contacts = detect_contacts(forward_kinematics(root, rotations), 30)
    return HumanMotion(root, rotations, contacts)


@pytest.fixture(scope='session')
def gait_library() -> GaitLibrary:
    """Strides, a posture and a waving hand for train and val; none for test."""
    strides, postures, gestures = [], [], []
    for split, speed in (('train', 1.2), ('val', 1.0)):
        walk = walking_motion(speed)
        strides += extract_strides(walk, f'{split} walker', split)
        standing = walking_motion(0.0)
        postures.append(Posture(_without_heading(standing.rotations[0]), f'{split} walker', split))
        clip = standing.rotations[:40].copy()
        angle = np.linspace(-0.4, 0.4, 40)
        zero = np.zeros(40)
        clip[:, 17] = axis_angle_to_matrix(np.stack([zero, zero, -0.4 + zero], axis=1))
        clip[:, 19] = axis_angle_to_matrix(np.stack([zero, zero, -0.9 + angle], axis=1))
        gestures.append(Gesture(clip, f'{split} waver', split))
    return GaitLibrary(tuple(strides), tuple(postures), tuple(gestures))


@pytest.fixture(scope='session')
def gait_bank(gait_library: GaitLibrary) -> MotionBank:
    """A small bank of training motions."""
    return make_bank(gait_library, 'train', 100)
