# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Edits of whole motions: place, mirror, resample, cut.  Every edit gives a new motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from egomotion_ros.body.features import check_motion, heading
from egomotion_ros.body.rotations import interpolate, yaw_matrix
from egomotion_ros.body.skeleton import MIRROR
from egomotion_ros.types import HumanMotion, PlanarPose

__all__ = [
    'canonicalize',
    'ground_pose',
    'heading',
    'mirror',
    'place',
    'resample',
    'slice_frames',
]

_BODY_MIRROR = np.diag([-1.0, 1.0, 1.0])
_WORLD_MIRROR = np.diag([1.0, -1.0, 1.0])


def ground_pose(motion: HumanMotion, frame: int = 0) -> PlanarPose:
    """Ground pose of the pelvis (m, rad) in ``motion.frame_id`` at a frame."""
    x, y = motion.root_position[frame, :2]
    return PlanarPose(float(x), float(y), float(heading(motion.rotations[frame, 0])))


def canonicalize(motion: HumanMotion) -> tuple[HumanMotion, PlanarPose]:
    """
    Express a motion in its start frame; give it and the pose it stood at.

    The first frame then stands over the origin and faces +X; heights do not change.
    ``place(*canonicalize(motion))`` is the motion again.
    """
    check_motion(motion)
    start = ground_pose(motion)
    inverse = yaw_matrix(np.asarray(-start.yaw))
    root = (motion.root_position - np.array([start.x, start.y, 0.0])) @ inverse.T
    rotations = motion.rotations.copy()
    rotations[:, 0] = inverse @ rotations[:, 0]
    return replace(motion, root_position=root, rotations=rotations), start


def place(motion: HumanMotion, pose: PlanarPose, frame_id: str | None = None) -> HumanMotion:
    """
    Move a motion rigidly: its frame's origin and X axis go to ``pose``.

    ``frame_id`` names the frame ``pose`` is given in; without it the name is kept.
    """
    check_motion(motion)
    turn = yaw_matrix(np.asarray(pose.yaw, dtype=np.float64))
    rotations = motion.rotations.copy()
    rotations[:, 0] = turn @ rotations[:, 0]
    return replace(
        motion,
        root_position=motion.root_position @ turn.T + np.array([pose.x, pose.y, 0.0]),
        rotations=rotations,
        frame_id=motion.frame_id if frame_id is None else frame_id,
    )


def mirror(motion: HumanMotion) -> HumanMotion:
    """Swap left and right: reflect at the X-Z plane of the motion's frame."""
    check_motion(motion)
    rotations = _BODY_MIRROR @ motion.rotations[:, list(MIRROR)] @ _BODY_MIRROR
    rotations[:, 0] = _WORLD_MIRROR @ motion.rotations[:, 0] @ _BODY_MIRROR
    return replace(
        motion,
        root_position=motion.root_position @ _WORLD_MIRROR,
        rotations=rotations,
        contacts=motion.contacts[:, [1, 0, 3, 2]],
    )


def slice_frames(motion: HumanMotion, first: int, last: int) -> HumanMotion:
    """Cut frames ``first`` to ``last`` - 1.  Raises ValueError where they do not exist."""
    if not 0 <= first < last <= motion.frames:
        raise ValueError(f'frames {first}:{last} are not in a motion of {motion.frames} frames')
    return replace(
        motion,
        root_position=motion.root_position[first:last],
        rotations=motion.rotations[first:last],
        contacts=motion.contacts[first:last],
    )


def resample(motion: HumanMotion, fps: float) -> HumanMotion:
    """
    Give the motion at another frame rate, from its first frame to its last that is reached.

    Positions and contacts are interpolated linearly, rotations on the shortest arc.
    Raises ValueError for a frame rate that is not positive.
    """
    check_motion(motion)
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f'fps: expected a number > 0, got {fps}')
    # The slack keeps the last frame where the ratio of the rates is an integer but for rounding.
    count = int(np.floor((motion.frames - 1) / motion.fps * fps + 1e-6)) + 1
    at = np.minimum(np.arange(count) * (motion.fps / fps), motion.frames - 1.0)
    left = np.minimum(np.floor(at + 1e-6).astype(int), motion.frames - 1)
    right = np.minimum(left + 1, motion.frames - 1)
    share = np.clip(at - left, 0.0, 1.0)

    def mix(values: np.ndarray) -> np.ndarray:
        return values[left] + share[:, None] * (values[right] - values[left])

    rotations = motion.rotations[left]
    between = np.flatnonzero(share > 1e-9)
    if len(between):
        rotations[between] = interpolate(
            motion.rotations[left[between]],
            motion.rotations[right[between]],
            share[between][:, None],
        )
    return replace(
        motion,
        root_position=mix(motion.root_position),
        rotations=rotations,
        contacts=mix(motion.contacts),
        fps=float(fps),
    )
