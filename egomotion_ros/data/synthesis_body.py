# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The body over a planned path: recorded strides where it walks, poses where it stands."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import axis_angle_to_matrix, interpolate, yaw_matrix
from egomotion_ros.body.skeleton import FOOT_HEIGHTS, LEG_LENGTH, REST_PELVIS_HEIGHT
from egomotion_ros.data.gait import SAMPLES, GaitLibrary, Posture, Stride, mean_posture
from egomotion_ros.data.synthesis_steps import FRAMES, FeetPlan, RootPlan
from egomotion_ros.data.unrest import Unrest, chain


def choose_posture(stride: Stride, blocks: GaitLibrary, rng: np.random.Generator) -> Posture:
    """A recorded standing pose, the performer's own where there is one, or the walk's mean."""
    if rng.random() < 0.5:
        return mean_posture(stride)
    own = [p for p in blocks.postures if p.performance == stride.performance]
    pool = own or blocks.postures
    return pool[int(rng.integers(len(pool)))]


def standing_plan(stride: Stride, rng: np.random.Generator) -> RootPlan:
    """No steps: the pelvis sways by some millimetres."""
    sway = smooth_noise(rng, 2, 12.0) * 0.006
    sway -= sway[0]
    still = np.full(FRAMES, stride.swing[0, 0])
    return RootPlan(sway, np.zeros(FRAMES), np.zeros(FRAMES), still,
                    np.zeros((0, 3)))


def smooth_noise(rng: np.random.Generator, columns: int, smooth: float) -> np.ndarray:
    """Smooth noise (FRAMES, columns) of unit standard deviation; ``smooth`` in frames."""
    pad = int(4 * smooth)
    raw = gaussian_filter1d(rng.normal(size=(FRAMES + 2 * pad, columns)), smooth, axis=0)
    return raw[pad:pad + FRAMES] * np.sqrt(2 * np.sqrt(np.pi) * smooth)


def unrest(rotations: np.ndarray, rng: np.random.Generator,
           recorded: tuple[Unrest, ...]) -> np.ndarray:
    """
    Breathing and balance, in place, on (FRAMES, 22, 3, 3): a quiet body is never frozen.

    Slow noise of the trunk and the arms, and what is ``recorded``; returns the sway (FRAMES, 3)
    of the pelvis that belongs to it, forward, left and up, 0 in the first frame (m).
    """
    noise = smooth_noise(rng, 3 * 9, 14.0).reshape(FRAMES, 9, 3) * np.radians(0.6)
    upper = [3, 6, 9, 12, 15, 16, 17, 18, 19]
    rotations[:, upper] = rotations[:, upper] @ axis_angle_to_matrix(noise)
    # A generator of its own: what else is drawn does not depend on what was recorded.
    turns, sway = chain(recorded, FRAMES, rng.spawn(1)[0])
    turns[:, 0] -= turns[:1, 0]
    rotations[:] = rotations @ axis_angle_to_matrix(turns)
    return sway - sway[:1]


def pose_body(root: RootPlan, feet: FeetPlan, stride: Stride, posture: Posture,
              blocks: GaitLibrary, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pelvis path (T, 3) and rotations (T, 22, 3, 3) before the feet are pinned."""
    phase = (root.clock % 1.0) * SAMPLES
    left = phase.astype(int) % SAMPLES
    right = (left + 1) % SAMPLES
    mix = (phase - phase.astype(int))[:, None]
    walking = interpolate(stride.rotations[left], stride.rotations[right], mix)
    rotations = interpolate(posture.rotations[None], walking, root.amplitude[:, None])
    wavering = unrest(rotations, rng, blocks.unrest)
    turn = yaw_matrix(root.yaw)
    rotations[:, 0] = turn @ rotations[:, 0]
    sway = stride.sway[left] * (1 - mix) + stride.sway[right] * mix
    hips = forward_kinematics(np.zeros((1, 3)), posture.rotations[None])[0, 1:3, 2]
    standing = FOOT_HEIGHTS[0] + rng.uniform(0.965, 0.978) * LEG_LENGTH - hips.min()
    path = np.empty((FRAMES, 3))
    path[:, :2] = root.position + root.amplitude[:, None] * (turn[:, :2, :2] @ sway[:, :2, None]
                                                             )[..., 0]
    moving = REST_PELVIS_HEIGHT + sway[:, 2]
    path[:, 2] = standing + root.amplitude * (moving - standing)
    path += (turn @ wavering[..., None])[..., 0]
    return path, rotations
