# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The small movements of people who stand: recorded, and laid over what is composed.

A composed body that stands on planted feet is too quiet: breathing, balance and what the hands
do are missing.  They are cut from quiet standing in recordings as the quick part of every
joint's turning and of the pelvis's path, and chained by cross-fades of equal power.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from egomotion_ros.body.edits import mirror
from egomotion_ros.body.features import heading
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import matrix_to_axis_angle, yaw_matrix
from egomotion_ros.body.skeleton import REST_PELVIS_HEIGHT
from egomotion_ros.types import HumanMotion

#: Fastest joint (m/s) of a quiet body, frames of a cut, and cuts of one take.
_QUIET, _FRAMES, _MOST = 0.25, (24, 90), 6
#: Slower than this (standard deviation of the smoothing, frames) is pose, not unrest.
_SLOW = 10.0
#: Frames in which one cut fades into the next.
_FADE = 8


@dataclass(frozen=True)
class Unrest:
    """
    Small movements of a quiet body, zero on average.

    ``turns`` (T, 22, 3) axis-angles of the joints (rad), joint 0 in the heading frame, ``sway``
    (T, 3) of the pelvis forward, left and up (m), and their source.
    """

    turns: np.ndarray
    sway: np.ndarray
    performance: str
    split: str


def extract_unrest(motion: HumanMotion, performance: str, split: str) -> list[Unrest]:
    """Cut quiet upright standing out of a take; its mirror images come with it."""
    found = []
    for source in (motion, mirror(motion)):
        joints = forward_kinematics(source.root_position, source.rotations,
                                    source.scale) / source.scale
        if len(joints) < _FRAMES[0] + 2:
            return []
        speed = np.linalg.norm(np.gradient(joints, 1 / source.fps, axis=0), axis=-1).max(1)
        upright = joints[:, 0, 2] - joints[..., 2].min(1) > 0.9 * REST_PELVIS_HEIGHT
        edges = np.flatnonzero(np.diff(np.concatenate([[0], (speed < _QUIET) & upright, [0]])))
        cuts = [(a, min(b, a + _FRAMES[1])) for first, last in edges.reshape(-1, 2)
                for a, b in [(a, last) for a in range(first, last, _FRAMES[1])]
                if min(b, a + _FRAMES[1]) - a >= _FRAMES[0]]
        found += [_cut(source, slice(*cut), performance, split)
                  for cut in cuts[:: max(1, -(-len(cuts) // _MOST))]]
    return found


def _cut(motion: HumanMotion, rows: slice, performance: str, split: str) -> Unrest:
    rotations = motion.rotations[rows].copy()
    yaw = float(heading(rotations[:1, 0])[0])
    facing = yaw_matrix(np.asarray(-yaw))
    rotations[:, 0] = facing @ rotations[:, 0]
    middle = rotations[len(rotations) // 2]
    turns = matrix_to_axis_angle(np.swapaxes(middle, -1, -2)[None] @ rotations)
    sway = motion.root_position[rows] / motion.scale @ facing.T
    return Unrest(_quick(turns), _quick(sway), performance, split)


def _quick(values: np.ndarray) -> np.ndarray:
    return values - gaussian_filter1d(values, _SLOW, axis=0, mode='nearest')


def chain(blocks: tuple[Unrest, ...], frames: int, rng: np.random.Generator
          ) -> tuple[np.ndarray, np.ndarray]:
    """
    Turns (frames, 22, 3) and sway (frames, 3), of cuts drawn one after the other.

    All zero without any block.
    """
    columns = np.zeros((frames + _FRAMES[1] + _FADE, 69))
    at = 0
    while blocks and at < frames + _FADE:
        cut = blocks[int(rng.integers(len(blocks)))]
        part = np.concatenate([cut.turns.reshape(len(cut.turns), -1), cut.sway], axis=1)
        angle = np.minimum((np.arange(len(part)) + 0.5) / _FADE, 1.0) * np.pi / 2
        # Unlike each other, neighbours keep their power when the squares of the weights add to 1.
        columns[at:at + len(part)] += part * (np.sin(angle) * np.sin(angle[::-1]))[:, None]
        at += len(part) - _FADE
    columns = columns[_FADE:_FADE + frames]
    return columns[:, :66].reshape(frames, 22, 3), columns[:, 66:]
