# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Did the named hand get there?  Reaching, scored at the surface of the object.

A reach counts when the middle of the palm of every named hand is within 0.12 m of the object's
surface, all of them together, for 0.3 s without a break.  A palm may touch and press, up to 0.02 m
inside; what a palm went deeper into, no hand can get at, so nothing counts from then on: neither
the inside of an object nor, by way of it, what is behind.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from egomotion_ros.body.features import heading
from egomotion_ros.body.hands import HANDS, hand_points
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import wrap_angle
from egomotion_ros.data.scenes import SHAPE_NAMES, SceneObject
from egomotion_ros.evaluation.goals import GoalScore
from egomotion_ros.types import HumanMotion

#: Farthest a hand may be from the surface, outside and inside (m), and how long it must stay (s).
TOUCH, PRESS, HOLD = 0.12, 0.02, 0.3


def surface_distance(points: np.ndarray, item: SceneObject) -> np.ndarray:
    """Metres (...,) from an object's surface to points (..., 3) of the start frame, < 0 inside."""
    local = np.asarray(points, float) - np.array(item.position)
    shape, half = SHAPE_NAMES[item.shape], 0.5 * np.array([item.width, item.height])
    if shape == 'ball':
        return np.linalg.norm(local, axis=-1) - half[0]
    if shape == 'box':
        c, s = np.cos(item.yaw), np.sin(item.yaw)
        turned = np.stack([c * local[..., 0] + s * local[..., 1],
                           c * local[..., 1] - s * local[..., 0], local[..., 2]], axis=-1)
        beyond = np.abs(turned) - half[[0, 0, 1]]
        return (np.linalg.norm(np.maximum(beyond, 0.0), axis=-1)
                + np.minimum(beyond.max(axis=-1), 0.0))
    # What turns around its upright axis is a polygon of (radius, height).
    profile = np.stack([np.hypot(local[..., 0], local[..., 1]), local[..., 2]], axis=-1)
    top = 0.0 if shape == 'cone' else half[0]
    corners = np.array([[0.0, -half[1]], [half[0], -half[1]], [top, half[1]], [0.0, half[1]]])
    away = np.min([_segment_distance(profile, a, b)
                   for a, b in zip(corners[:-1], corners[1:], strict=True)], axis=0)
    # The side is a straight line from the rim of the bottom to that of the top.
    rim = np.interp(profile[..., 1], [-half[1], half[1]], [half[0], top])
    inside = (np.abs(profile[..., 1]) <= half[1]) & (profile[..., 0] <= rim)
    return np.where(inside, -away, away)


def touching(palms: np.ndarray, item: SceneObject) -> np.ndarray:
    """Whether all palms (..., H, 3) are at the surface of an object: (...,)."""
    away = surface_distance(palms, item)
    return ((away <= TOUCH) & (away >= -PRESS)).all(axis=-1)


def _segment_distance(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance (...,) of points (..., 2) from the segment a, b (2,)."""
    along = b - a
    share = np.clip((points - a) @ along / max(float(along @ along), 1e-12), 0.0, 1.0)
    return np.linalg.norm(points - a - share[..., None] * along, axis=-1)


def score_reach(motion: HumanMotion, side: str, item: SceneObject) -> GoalScore:
    """
    Score a reach with the hand or hands ``side`` ('left', 'right', 'both') for an object.

    ``motion`` in the start frame at scale 1.  ``distance`` is the least of the farther hand from
    the surface, inside or outside, that is kept for 0.3 s, ``angle`` how far the body faces away
    from the object at the end.  ValueError for another side or a motion shorter than the hold.
    """
    if side not in HANDS:
        raise ValueError(f'side must be one of {tuple(HANDS)}, got {side!r}')
    if motion.scale != 1.0:
        raise ValueError(f'the motion must be at scale 1, got {motion.scale}')
    rows = math.ceil(HOLD * motion.fps - 1e-6)
    if motion.frames < max(rows, 2):
        raise ValueError(f'motion of {motion.frames} frames is shorter than {HOLD} s')
    hands = hand_points(forward_kinematics(motion.root_position, motion.rotations))
    away = surface_distance(hands[:, list(HANDS[side])], item)
    held = sliding_window_view(np.abs(away).max(axis=1), rows).max(axis=1)
    # From the first frame in which a palm is too deep inside, nothing is held.
    deep = np.flatnonzero((away < -PRESS).any(axis=1))
    sound = held[:max(deep[0] - rows + 1, 0)] if len(deep) else held
    end = motion.root_position[-1]
    bearing = np.arctan2(item.position[1] - end[1], item.position[0] - end[0])
    angle = abs(wrap_angle(np.asarray(heading(motion.rotations[-1, 0]) - bearing)))
    speed = np.linalg.norm(end - motion.root_position[-2]) * motion.fps
    return GoalScore(bool((sound <= TOUCH).any()), float(held.min()), float(angle), float(speed))
