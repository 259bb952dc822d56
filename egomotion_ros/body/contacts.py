# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Foot contacts from joint positions: low and slow, with hysteresis.

A foot joint comes into contact when it is both near its height in flat standing and nearly still;
it leaves when it is clearly higher or clearly faster.  Two thresholds instead of one keep a
contact from flickering with the noise of the recording.
"""

from __future__ import annotations

import numpy as np

from egomotion_ros.body.skeleton import FOOT_HEIGHTS, FOOT_JOINTS, JOINTS

#: Height above that of flat standing below which a contact may begin, above which it ends (m).
ENTER_HEIGHT, LEAVE_HEIGHT = 0.04, 0.07
#: Speed below which a contact may begin, above which it ends (m/s).
ENTER_SPEED, LEAVE_SPEED = 0.25, 0.5
#: Contacts and gaps shorter than this are noise (s).
SHORTEST = 0.07


def joint_speeds(positions: np.ndarray, fps: float) -> np.ndarray:
    """Speeds (T, N), m/s, of points (T, N, 3), by central differences."""
    if len(positions) < 2:
        return np.zeros(positions.shape[:-1])
    return np.linalg.norm(np.gradient(positions, 1.0 / fps, axis=0), axis=-1)


def detect_contacts(positions: np.ndarray, fps: float, scale: float = 1.0) -> np.ndarray:
    """
    Contacts (T, 4), 0 or 1: left ankle, right ankle, left toe, right toe.

    ``positions`` (T, 22, 3) joint positions, Z up, floor at z = 0; ``scale`` of the skeleton.
    Raises ValueError for a wrong shape or a frame rate that is not positive.
    """
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 3 or positions.shape[1:] != (JOINTS, 3):
        raise ValueError(f'positions: expected (T, {JOINTS}, 3), got {positions.shape}')
    if not fps > 0:
        raise ValueError(f'fps: expected a number > 0, got {fps}')
    feet = positions[:, list(FOOT_JOINTS)] / scale
    height = feet[..., 2] - np.array(FOOT_HEIGHTS)
    speed = joint_speeds(feet, fps)
    enter = (height < ENTER_HEIGHT) & (speed < ENTER_SPEED)
    leave = (height > LEAVE_HEIGHT) | (speed > LEAVE_SPEED)
    out = np.zeros(height.shape, dtype=bool)
    shortest = round(SHORTEST * fps)
    for j in range(out.shape[1]):
        out[:, j] = _latch(enter[:, j], leave[:, j])
        for kind in (False, True):
            _drop_short(out[:, j], kind, shortest)
    return out.astype(np.float64)


def _latch(enter: np.ndarray, leave: np.ndarray) -> np.ndarray:
    """Hold the last event: on at ``enter``, off at ``leave``, as before where neither is."""
    event = np.where(leave, 0, np.where(enter, 1, -1))
    last = np.maximum.accumulate(np.where(event >= 0, np.arange(len(event)), -1))
    return (last >= 0) & (event[np.maximum(last, 0)] == 1)


def _drop_short(state: np.ndarray, kind: bool, shortest: int) -> None:
    """Flip, in place, inner runs of ``kind`` that last fewer than ``shortest`` frames."""
    edges = np.flatnonzero(np.diff(state)) + 1
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        if state[first] == kind and last - first < shortest:
            state[first:last] = not kind
