# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Whole recorded actions cut from real motion capture: kicks, jumps, bends, runs.

A clip begins and ends where the performer is nearest to standing: one foot planted and the
pelvis over it.  :mod:`egomotion_ros.data.synthesis_clips` leads from rest into it and out again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.data.library import Take
from egomotion_ros.types import HumanMotion

#: Actions that clips can carry.
CLIP_ACTIONS = ('kick', 'jump', 'bend', 'run_forward')
_ANKLES, _FEET, _HEAD = [7, 8], [7, 8, 10, 11], 15
#: Slowest foot of a kick, lowest flight of a jump over standing feet, lowest bend of the head.
_KICK_SPEED, _JUMP_RISE, _BENT = 7.0, 0.18, 1.15
#: Jerk of a recording beyond which a marker must have jumped (m/s3).
_JOLT = 9000.0


@dataclass(frozen=True)
class Clip:
    """
    One recorded action at 30 fps.

    ``root`` (T, 3), ``rotations`` (T, 22, 3, 3) and ``contacts`` (T, 4) as in a HumanMotion;
    ``side`` the kicking foot (0 left, 1 right), -1 for other actions.
    """

    action: str
    root: np.ndarray
    rotations: np.ndarray
    contacts: np.ndarray
    side: int
    performance: str
    split: str


def extract_clips(take: Take) -> list[Clip]:
    """Cut the actions a take is recorded for; by its action, and by its label for kicks."""
    motion = take.motion
    if motion.frames < 30:
        return []
    joints = forward_kinematics(motion.root_position, motion.rotations, motion.scale)
    # A marker that flickered would be a jolt in every copy of the clip.
    jerk = np.linalg.norm(np.diff(joints, 3, axis=0), axis=-1).max(1) * motion.fps ** 3

    def smooth(first: int, last: int) -> bool:
        return bool(jerk[first:last - 2].max(initial=0.0) < _JOLT)

    if 'soccer' in take.label or 'kick' in take.label:
        windows = _kicks(motion, joints)
        return [_cut('kick', take, a, b, side) for a, b, side in windows if smooth(a, b)]
    finders = {'jump': ('jump', _jumps), 'bend': ('bend', _bends), 'run': ('run_forward', _runs)}
    if take.action not in finders:
        return []
    action, find = finders[take.action]
    return [_cut(action, take, a, b, -1) for a, b in find(motion, joints) if smooth(a, b)]


def _cut(action: str, take: Take, first: int, last: int, side: int) -> Clip:
    part = slice(first, last + 1)
    motion = take.motion
    return Clip(action, np.asarray(motion.root_position[part] / motion.scale, np.float64),
                np.asarray(motion.rotations[part], np.float64),
                np.asarray(motion.contacts[part], np.float64), side, take.performance, take.split)


def _over_foot(motion: HumanMotion, joints: np.ndarray) -> np.ndarray:
    """How far each frame (T,) is from standing: pelvis from a planted foot, and its speed."""
    planted = motion.contacts.reshape(-1, 2, 2).max(1) > 0.5
    away = np.linalg.norm(joints[:, _ANKLES, :2] - joints[:, :1, :2], axis=-1)
    away = np.where(planted, away, 9.0).min(1)
    speed = np.linalg.norm(np.gradient(joints[:, 0], 1 / motion.fps, axis=0), axis=-1)
    return away + 0.12 * speed


def _best(cost: np.ndarray, first: int, last: int) -> int | None:
    """Frame of least cost in first..last (clipped); None when no frame there has a foot down."""
    first, last = max(first, 0), min(last, len(cost) - 1)
    if last < first:
        return None
    frame = first + int(np.argmin(cost[first:last + 1]))
    return frame if cost[frame] < 2.0 else None


def _kicks(motion: HumanMotion, joints: np.ndarray) -> list[tuple[int, int, int]]:
    speed = np.linalg.norm(np.gradient(joints[:, _ANKLES], 1 / motion.fps, axis=0), axis=-1)
    cost = _over_foot(motion, joints)
    found = []
    peaks, _ = find_peaks(speed.max(1), height=_KICK_SPEED, distance=40)
    for peak in peaks.tolist():
        side = int(speed[peak].argmax())
        first, last = _best(cost, peak - 50, peak - 22), _best(cost, peak + 18, peak + 48)
        if first is not None and last is not None:
            found.append((first, last, side))
    return found


def _jumps(motion: HumanMotion, joints: np.ndarray) -> list[tuple[int, int]]:
    low = joints[:, _FEET, 2].min(1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (low > 0.08).astype(int), [0]])))
    flights = [(a, b) for a, b in edges.reshape(-1, 2).tolist() if low[a:b].max() > _JUMP_RISE]
    cost = _over_foot(motion, joints)
    found = []
    for n, (a, b) in enumerate(flights):
        planted = motion.contacts[max(a - 8, 0):a].reshape(-1, 2, 2).max(2) > 0.5
        if not planted.any(0).all():
            continue  # from one foot: a hop
        before = flights[n - 1][1] if n else 0
        after = flights[n + 1][0] if n + 1 < len(flights) else motion.frames
        if a - before < 20 or after - b < 20:
            continue  # one of a row of hops: nobody comes to rest
        first = _best(cost, max(a - 36, before + 6), a - 14)
        last = _best(cost, b + 14, min(b + 36, after - 6))
        if first is not None and last is not None:
            found.append((first, last))
    return found


def _bends(motion: HumanMotion, joints: np.ndarray) -> list[tuple[int, int]]:
    head = gaussian_filter1d(joints[:, _HEAD, 2], 2)
    found = []
    valleys, _ = find_peaks(-head, height=-_BENT, distance=25)
    for valley in valleys.tolist():
        upright = np.flatnonzero(head > head.max() - 0.12)
        before, after = upright[upright < valley], upright[upright > valley]
        if len(before) and len(after) and after[0] - before[-1] < 120:
            found.append((max(int(before[-1]) - 2, 0), min(int(after[0]) + 2, motion.frames - 1)))
    return found


def _runs(motion: HumanMotion, joints: np.ndarray) -> list[tuple[int, int]]:
    """From midstance to midstance, over two steps and more."""
    cost = _over_foot(motion, joints)
    stances, _ = find_peaks(-np.minimum(cost, 2.0), height=-1.2, distance=6)
    found = []
    for n, first in enumerate(stances.tolist()):
        found += [(first, last) for last in stances[n + 1:].tolist()
                  if 1.6 < np.hypot(*(joints[last, 0, :2] - joints[first, 0, :2])) < 4.0]
    return found
