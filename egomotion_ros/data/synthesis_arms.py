# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Lead hands along given paths: two-bone arm geometry with a chosen elbow."""

from __future__ import annotations

import numpy as np

from egomotion_ros.body.hands import ELBOWS, HAND_LENGTH, SHOULDERS, WRISTS
from egomotion_ros.body.kinematics import global_pose
from egomotion_ros.body.rotations import axis_angle_to_matrix, interpolate
from egomotion_ros.body.skeleton import OFFSETS
from egomotion_ros.data.synthesis_legs import shortest

_UPPER, _FORE = float(OFFSETS[18, 0]), float(OFFSETS[20, 0]) + HAND_LENGTH
#: Shoulder to hand point with a straight elbow (m), and the most of it a hand path may use.
ARM_LENGTH = _UPPER + _FORE
_LONGEST = 0.985 * ARM_LENGTH
#: Where an elbow points, seen from the line shoulder-hand: down, outwards and a little back.
_ELBOW = np.array([-0.25, 0.45, -0.9])


def lead_hand(root: np.ndarray, rotations: np.ndarray, side: int, hand: np.ndarray,
              weight: np.ndarray, heading: np.ndarray) -> None:
    """
    Turn one arm, in place, so that its hand point follows ``hand`` (T, 3).

    ``rotations`` (T, 22, 3, 3) over the pelvis path ``root`` (T, 3); ``side`` 0 left, 1 right;
    ``weight`` (T,) 0..1 how far the elbow has gone from where the pose has it to hanging below
    the arm; ``heading`` (T,) of the body (rad).  At weight 0 with the pose's own hand nothing
    changes.  The elbow bends about the pose's own hinge, never backwards.
    """
    joints, turns = global_pose(root, rotations)
    shoulder, elbow, wrist = (joints[:, j[side]] for j in (SHOULDERS, ELBOWS, WRISTS))
    upper = elbow - shoulder
    along = wrist - elbow
    fore = along * (_FORE / np.linalg.norm(along, axis=1, keepdims=True))
    # A nearly straight elbow has no plane of its own: lean on the hinge of a hanging arm.
    hinge = np.stack([np.sin(heading), -np.cos(heading), np.zeros_like(heading)], axis=1)
    axis = np.cross(upper, fore) / (_UPPER * _FORE) + 0.15 * hinge
    axis -= (axis * upper).sum(1, keepdims=True) * upper / _UPPER ** 2
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    have = np.arctan2((np.cross(upper, fore) * axis).sum(1), (upper * fore).sum(1))
    way = hand - shoulder
    distance = np.clip(np.linalg.norm(way, axis=1), 0.18, _LONGEST)
    want = np.arccos(np.clip((distance ** 2 - _UPPER ** 2 - _FORE ** 2) / (2 * _UPPER * _FORE),
                             -1, 1))
    bend = axis_angle_to_matrix(axis * (want - have)[:, None])
    reached = upper + (bend @ fore[..., None])[..., 0]
    aim = shortest(reached, way)
    line = way / np.linalg.norm(way, axis=1, keepdims=True)
    point = (aim @ upper[..., None])[..., 0]
    outward = np.stack([-np.sin(heading), np.cos(heading), np.zeros_like(heading)], axis=1)
    forward = np.stack([np.cos(heading), np.sin(heading), np.zeros_like(heading)], axis=1)
    wished = (_ELBOW[0] * forward + _ELBOW[1] * (1 - 2 * side) * outward
              + _ELBOW[2] * np.array([0.0, 0.0, 1.0]))
    swivel = np.unwrap(_angle_about(line, point, wished)) * weight
    turn = axis_angle_to_matrix(line * swivel[:, None]) @ aim
    upper_turn = turn @ turns[:, SHOULDERS[side]]
    fore_turn = turn @ bend @ turns[:, ELBOWS[side]]
    collar = turns[:, SHOULDERS[side] - 3]
    rotations[:, SHOULDERS[side]] = np.swapaxes(collar, -1, -2) @ upper_turn
    rotations[:, ELBOWS[side]] = np.swapaxes(upper_turn, -1, -2) @ fore_turn
    straight = np.broadcast_to(np.eye(3), (len(root), 3, 3))
    rotations[:, WRISTS[side]] = interpolate(rotations[:, WRISTS[side]], straight,
                                             weight)


def _angle_about(axis: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Signed angles (T,) about unit ``axis`` (T, 3) from ``a`` to ``b``, both (T, 3)."""
    a = a - (a * axis).sum(1, keepdims=True) * axis
    b = b - (b * axis).sum(1, keepdims=True) * axis
    return np.arctan2((np.cross(a, b) * axis).sum(1), (a * b).sum(1))
