# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Building blocks cut from real motion capture: strides, standing poses and unrest, gestures.

:class:`GaitLibrary` holds what :mod:`egomotion_ros.data.synthesis` composes new motions of.
Strides are found by the fore-aft distance of the two ankles, which peaks at every heel strike;
a stride is kept when it is straight, steady and closes on itself.  Each block remembers the
performance it was cut from, so that blocks of different splits never mix, apart from the few clips
that :data:`BORROWS` allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from egomotion_ros.body.edits import mirror
from egomotion_ros.body.features import heading
from egomotion_ros.body.kinematics import forward_kinematics, global_pose
from egomotion_ros.body.rotations import (
    axis_angle_to_matrix,
    interpolate,
    matrix_to_axis_angle,
    wrap_angle,
    yaw_matrix,
)
from egomotion_ros.body.skeleton import MIRROR, REST_PELVIS_HEIGHT
from egomotion_ros.data.clips import Clip, extract_clips
from egomotion_ros.data.library import MotionLibrary
from egomotion_ros.data.unrest import Unrest, extract_unrest
from egomotion_ros.types import HumanMotion

#: Samples of one stride, left heel strike to left heel strike.
SAMPLES = 48
#: Ankle and toe joints, (left, right).
ANKLES, TOES = (7, 8), (10, 11)
_ARMS = (13, 14, 16, 17, 18, 19, 20, 21)
#: Splits whose clips a split may take for an action that it has none of.  Between training and
#: test nothing is taken in either direction.
BORROWS = {'train': ('val',), 'val': ('train', 'test'), 'test': ()}


@dataclass(frozen=True)
class Stride:
    """
    One closed walking cycle of N = SAMPLES frames; sample 0 is the left heel strike.

    ``rotations`` (N, 22, 3, 3), joint 0 in the path frame (X along the path); ``sway`` (N, 3)
    pelvis relative to its mean path (forward, left) and its height relative to rest (m);
    ``length`` (m) and ``duration`` (s) of the source; ``pitch`` (N, 2) heel-up angle of left and
    right foot (rad, 0 when flat); ``swing`` (2, 2) phases at which (left, right) foot lifts off
    and lands, lift-off < landing <= lift-off + 1; ``progress`` and ``lift`` (2, 16) the ankle's
    way from lift-off (0) to landing (1) and its height above that line (m); ``footing`` (2,) where
    the flat foot stands between the pelvis at its landing (0) and at its next lift-off (1).
    """

    rotations: np.ndarray
    sway: np.ndarray
    length: float
    duration: float
    pitch: np.ndarray
    swing: np.ndarray
    progress: np.ndarray
    lift: np.ndarray
    footing: np.ndarray
    performance: str
    split: str

    @property
    def speed(self) -> float:
        """Walking speed of the source (m/s)."""
        return self.length / self.duration


@dataclass(frozen=True)
class Posture:
    """A quiet standing pose: ``rotations`` (22, 3, 3), heading taken out, and its source."""

    rotations: np.ndarray
    performance: str
    split: str


@dataclass(frozen=True)
class Gesture:
    """Upper-body clip (T, 22, 3, 3) in which the right hand waves; lower-body rows unused."""

    rotations: np.ndarray
    performance: str
    split: str


@dataclass(frozen=True)
class GaitLibrary:
    """All blocks; :meth:`of` gives those of one split."""

    strides: tuple[Stride, ...]
    postures: tuple[Posture, ...]
    gestures: tuple[Gesture, ...]
    clips: tuple[Clip, ...] = ()
    unrest: tuple[Unrest, ...] = ()

    def of(self, split: str) -> GaitLibrary:
        """
        Blocks of the performances of one split; ValueError when a kind is missing.

        Clips of an action that the split has none of come from the splits of :data:`BORROWS`.
        """
        own = {c.action for c in self.clips if c.split == split}
        lenders = BORROWS.get(split, ())
        part = GaitLibrary(*(tuple(b for b in blocks if b.split == split)
                             for blocks in (self.strides, self.postures, self.gestures)),
                           tuple(c for c in self.clips if c.split == split
                                 or (c.action not in own and c.split in lenders)),
                           tuple(b for b in self.unrest if b.split == split))
        if not part.strides or not part.postures:
            raise ValueError(f'split {split!r} of the motion library has {len(part.strides)} '
                             f'walking strides and {len(part.postures)} standing poses; both '
                             'are needed')
        return part

    @classmethod
    def cut(cls, library: MotionLibrary) -> GaitLibrary:
        """Cut all blocks of a motion library; strides of walks only, gestures of signals only."""
        strides, postures, gestures, clips, unrest = [], [], [], [], []
        for take in library.takes():
            origin = (take.motion, take.performance, take.split)
            if take.action == 'walk':
                strides += extract_strides(*origin)
            if take.action not in ('climb', 'dance'):
                postures += extract_postures(*origin)
                unrest += extract_unrest(*origin)
            if any(word in take.label for word in ('signal', 'traffic', 'wave')):
                gestures += extract_gestures(*origin)
            clips += extract_clips(take)
        return cls(tuple(strides), tuple(postures), tuple(gestures), tuple(clips),
                   tuple(unrest))

    def save(self, path: str | Path) -> None:
        """Write all blocks into one ``.npz`` of plain arrays."""
        arrays: dict[str, np.ndarray] = {}
        for kind in _KINDS:
            blocks = getattr(self, kind)
            arrays[f'{kind}.count'] = np.array(len(blocks))
            for i, block in enumerate(blocks):
                for name, value in vars(block).items():
                    arrays[f'{kind}.{i}.{name}'] = np.asarray(value)
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> GaitLibrary:
        """Read what :meth:`save` wrote."""
        out = []
        with np.load(path, allow_pickle=False) as arrays:
            for kind, make in _KINDS.items():
                blocks = []
                for i in range(int(arrays[f'{kind}.count'])):
                    values = {f: arrays[f'{kind}.{i}.{f}'] for f in make.__dataclass_fields__}
                    blocks.append(make(**{f: v.item() if v.ndim == 0 else v
                                          for f, v in values.items()}))
                out.append(tuple(blocks))
        return cls(*out)


#: Kinds of blocks by the name of the field that holds them.
_KINDS = {'strides': Stride, 'postures': Posture, 'gestures': Gesture, 'clips': Clip,
          'unrest': Unrest}


def extract_strides(motion: HumanMotion, performance: str, split: str,
                    most: int = 6) -> list[Stride]:
    """
    Straight, steady strides of a take, and their mirror images; at most ``most`` are cut.

    Empty when the take does not walk (speeds outside 0.5-1.7 m/s, strides outside 0.8-1.6 s).
    """
    strides = []
    for source in (motion, mirror(motion)):
        found = [s for a, b in _strike_pairs(source)
                 if (s := _cut(source, a, b, performance, split)) is not None]
        strides += found[:: max(1, -(-len(found) // most))][:most]
    return strides


def _positions(motion: HumanMotion) -> np.ndarray:
    return forward_kinematics(motion.root_position, motion.rotations, motion.scale)


def _strike_pairs(motion: HumanMotion) -> list[tuple[int, int]]:
    """Frames of successive left heel strikes."""
    if motion.frames < 20:
        return []
    joints = _positions(motion)
    yaw = np.unwrap(heading(motion.rotations[:, 0]))
    yaw = gaussian_filter1d(yaw, 0.3 * motion.fps)
    ahead = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
    apart = ((joints[:, ANKLES[0], :2] - joints[:, ANKLES[1], :2]) * ahead).sum(1)
    apart = gaussian_filter1d(apart, 0.04 * motion.fps)
    peaks, _ = find_peaks(apart, height=0.15, distance=int(0.7 * motion.fps))
    return list(zip(peaks[:-1], peaks[1:], strict=True))


def _cut(motion: HumanMotion, first: int, last: int, performance: str,
         split: str) -> Stride | None:
    """Cut, straighten, close and resample one stride; None when it is not fit."""
    duration = (last - first) / motion.fps
    root = motion.root_position[first:last + 1] / motion.scale
    rotations = motion.rotations[first:last + 1]
    travel = root[-1, :2] - root[0, :2]
    length = float(np.hypot(*travel))
    direction = np.arctan2(travel[1], travel[0])
    yaw = wrap_angle(heading(rotations[:, 0]) - direction)
    if (not 0.8 <= duration <= 1.6 or not 0.5 <= length / duration <= 1.7
            or abs(yaw.mean()) > 0.25 or abs(yaw[-1] - yaw[0]) > 0.15):
        return None
    turn = yaw_matrix(np.asarray(-direction))
    rotations = rotations.copy()
    rotations[:, 0] = turn @ rotations[:, 0]
    local = (root - [*root[0, :2], 0.0]) @ turn.T
    if np.abs(local[:, 1]).max() > 0.12 or abs(local[-1, 2] - local[0, 2]) > 0.045:
        return None
    gap = matrix_to_axis_angle(np.swapaxes(rotations[-1], -1, -2) @ rotations[0])
    # Arms may swing a little differently from stride to stride; legs and trunk may not.
    gaps = np.linalg.norm(gap, axis=-1)
    if gaps.max() > np.radians(30) or np.delete(gaps, _ARMS).max() > np.radians(20):
        return None
    share = np.linspace(0, 1, len(rotations))
    rotations = rotations @ axis_angle_to_matrix(share[:, None, None] * gap)
    local = local - share[:, None] * (local[-1] - local[0])
    local[:, :2] -= local[:, :2].mean(0)
    at = np.arange(SAMPLES) / SAMPLES * (len(rotations) - 1)
    left = at.astype(int)
    rotations = interpolate(rotations[left], rotations[left + 1], (at - left)[:, None])
    sway = np.stack([np.interp(at, np.arange(len(local)), local[:, k]) for k in range(3)], axis=1)
    stride = _with_feet(rotations, sway, length, duration)
    if stride is None:
        return None
    sway[:, 2] -= REST_PELVIS_HEIGHT
    return replace(stride, performance=performance, split=split)


def _with_feet(rotations: np.ndarray, sway: np.ndarray, length: float,
               duration: float) -> Stride | None:
    """Find the swing of each foot; None when the feet do not alternate as in walking."""
    root = sway.copy()
    root[:, 0] += np.arange(SAMPLES) / SAMPLES * length
    two = np.concatenate([root, root + [length, 0, 0]])
    joints, turns = global_pose(two, np.concatenate([rotations, rotations]))
    pitch, swing = np.zeros((SAMPLES, 2)), np.zeros((2, 2))
    progress, lift, footing = np.zeros((2, 16)), np.zeros((2, 16)), np.zeros(2)
    speed = length / duration
    step = duration / SAMPLES
    for side in range(2):
        ankle, toe = joints[:, ANKLES[side]], joints[:, TOES[side]]
        fast_toe = _loop_speed(toe[:, 0], length, step) > 0.35 * speed
        fast_ankle = _loop_speed(ankle[:, 0], length, step) > 0.6 * speed
        start, stop = _longest_run(fast_toe), _longest_run(fast_ankle)
        if start is None or stop is None:
            return None
        off, land = start[0], stop[1]
        land += SAMPLES * int(land <= off)
        if not 0.28 * SAMPLES <= land - off <= 0.52 * SAMPLES or land - off > SAMPLES:
            return None
        swing[side] = off / SAMPLES, land / SAMPLES
        at = np.linspace(off, min(land, 2 * SAMPLES - 1), 16)
        way = np.interp(at, np.arange(2 * SAMPLES), ankle[:, 0])
        high = np.interp(at, np.arange(2 * SAMPLES), ankle[:, 2])
        progress[side] = (way - way[0]) / max(way[-1] - way[0], 1e-6)
        lift[side] = np.maximum(high - np.linspace(high[0], high[-1], 16), 0.0)
        # Pitch of the sole: how far the foot's own forward axis points below the horizon.
        forward = turns[:SAMPLES, ANKLES[side], :, 2]
        angle = np.arctan2(-forward[:, 2], np.hypot(forward[:, 0], forward[:, 1]))
        stance = (np.arange(SAMPLES) - land) % SAMPLES < SAMPLES - (land - off)
        middle = (np.arange(SAMPLES) - land) % SAMPLES
        flat = stance & (middle > 0.12 * SAMPLES) & (middle < 0.38 * SAMPLES)
        pitch[:, side] = angle - np.median(angle[flat])
        # Both on the loop that begins at the landing: where the foot is, where the pelvis goes.
        after = (np.arange(SAMPLES) - land) % SAMPLES / SAMPLES * length
        ahead = np.median((ankle[:SAMPLES, 0] - root[:, 0] + sway[:, 0] + after)[flat])
        footing[side] = ahead / ((1 - (land - off) / SAMPLES) * length)
    # Left lands at phase 0 (within a tenth), right half a stride later.
    if abs(wrap_angle(2 * np.pi * swing[0, 1])) > 0.8 or abs(
            wrap_angle(2 * np.pi * (swing[1, 1] - 0.5))) > 0.8:
        return None
    return Stride(rotations, sway, length, duration, pitch, swing, progress, lift, footing, '',
                  '')


def _loop_speed(values: np.ndarray, length: float, step: float) -> np.ndarray:
    """Speed over one loop (m/s) of a coordinate given over two loops."""
    ring = values[:SAMPLES]
    return (np.append(ring[1:], ring[0] + length) - np.insert(ring[:-1], 0, ring[-1] - length)) / (
        2 * step)


def _longest_run(mask: np.ndarray) -> tuple[int, int] | None:
    """First and last + 1 sample (modulo the length) of the longest True run of a loop."""
    if mask.all() or not mask.any():
        return None
    start = int(np.flatnonzero(~mask)[0])
    rolled = np.roll(mask, -start)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], rolled.astype(int), [0]])))
    runs = edges.reshape(-1, 2)
    first, last = runs[np.argmax(runs[:, 1] - runs[:, 0])]
    return (first + start) % len(mask), (last + start) % len(mask)


def extract_postures(motion: HumanMotion, performance: str, split: str,
                     most: int = 2) -> list[Posture]:
    """Quiet upright standing with hanging arms, averaged over at least half a second."""
    window = int(0.5 * motion.fps)
    if motion.frames < window + 2:
        return []
    joints = _positions(motion) / motion.scale
    speed = np.linalg.norm(np.gradient(joints, 1 / motion.fps, axis=0), axis=-1).max(1)
    tilt = np.arccos(np.clip(motion.rotations[:, 0, 2, 1], -1, 1))
    ground = joints[:, [*ANKLES, *TOES], 2].min(1)
    wrists = joints[:, [20, 21]]
    down = (wrists[..., 2] < joints[:, :1, 2] + 0.02).all(1) & (
        np.linalg.norm(wrists[..., :2] - joints[:, :1, :2], axis=-1) < 0.45).all(1)
    feet = np.linalg.norm(joints[:, ANKLES[0], :2] - joints[:, ANKLES[1], :2], axis=-1)
    good = ((speed < 0.25) & (tilt < 0.25) & down & (feet < 0.4)
            & (joints[:, 0, 2] - ground > 0.9 * REST_PELVIS_HEIGHT))
    found = []
    start = 0
    while start + window <= len(good) and len(found) < most:
        if good[start:start + window].all():
            found.append(Posture(_without_heading(motion.rotations[start + window // 2]),
                                 performance, split))
            start += 4 * window
        else:
            start += 1
    return found + [_mirrored(p) for p in found]


def mean_posture(stride: Stride) -> Posture:
    """The pose a walk swings around: the mean of a stride, feet together."""
    base = stride.rotations[0]
    vectors = matrix_to_axis_angle(np.swapaxes(base, -1, -2)[None] @ stride.rotations)
    for _ in range(2):
        mean = base @ axis_angle_to_matrix(vectors.mean(0))
        base = mean
        vectors = matrix_to_axis_angle(np.swapaxes(base, -1, -2)[None] @ stride.rotations)
    return Posture(_without_heading(base), stride.performance, stride.split)


def _without_heading(rotations: np.ndarray) -> np.ndarray:
    """A pose (22, 3, 3) turned to face +X."""
    out = rotations.copy()
    out[0] = yaw_matrix(np.asarray(-heading(rotations[None, 0])[0])) @ rotations[0]
    return out


def _mirrored(posture: Posture) -> Posture:
    flip = np.diag([-1.0, 1.0, 1.0])
    rotations = flip @ posture.rotations[list(MIRROR)] @ flip
    rotations[0] = np.diag([1.0, -1.0, 1.0]) @ posture.rotations[0] @ flip
    return replace(posture, rotations=rotations)


def extract_gestures(motion: HumanMotion, performance: str, split: str,
                     seconds: float = 1.2) -> list[Gesture]:
    """
    Clips in which a raised hand moves to and fro while the body stands.

    Clips with a raised left hand are mirrored, so that the right hand waves in all.
    """
    count = int(seconds * motion.fps)
    found = []
    for source in (motion, mirror(motion)):
        joints = _positions(source) / source.scale
        hand = joints[:, 21]
        raised = hand[:, 2] > joints[:, 17, 2] - 0.1
        slow = np.linalg.norm(np.gradient(joints[:, 0], 1 / source.fps, axis=0), axis=-1) < 0.4
        good = raised & slow
        start = 0
        while start + count <= len(good):
            if good[start:start + count].all():
                clip = hand[start:start + count] - joints[start:start + count, 17]
                if np.ptp(clip, axis=0).max() > 0.12:
                    found.append(Gesture(source.rotations[start:start + count].copy(),
                                         performance, split))
                start += count
            else:
                start += 3
    return found
