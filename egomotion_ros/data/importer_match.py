# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The same performance in several files, found by its motion.

Archives hold copies of one recording under other names, frame rates, skeletons and cuts.  Joint
flexions and the height of the pelvis survive all that; a short probe of one take is slid over
another, and where the two agree better than two performances ever do, they are one.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dct
from scipy.spatial import KDTree
from tqdm import tqdm

from egomotion_ros.body.rotations import geodesic_angle
from egomotion_ros.body.skeleton import JOINT_INDEX
from egomotion_ros.types import HumanMotion

_JOINTS = tuple(
    JOINT_INDEX[f'{side}_{joint}'] for side in ('left', 'right') for joint in ('knee', 'elbow')
)
#: Longest probe (frames at 30 fps).
PROBE = 120
#: Root mean square difference below which two takes are one performance (rad; 0.2 m of height
#: count as 1 rad).  Copies of CMU takes on other skeletons differ by 0.006 to 0.029, the most
#: alike walks of one person by 0.038 and more.
SAME = 0.033
#: Window lengths of the search (frames), longest first, and cosines of a window and channel.
_WINDOWS = (PROBE, 60, 30)
_COSINES = 3


def signature(motion: HumanMotion) -> np.ndarray:
    """Flexion of knees and elbows (rad) and pelvis height (in 0.2 m) over time, (T, 5)."""
    eye = np.eye(3)
    angles = [geodesic_angle(eye, motion.rotations[:, j].astype(np.float64)) for j in _JOINTS]
    return np.stack([*angles, motion.root_position[:, 2].astype(np.float64) / 0.2], axis=1)


def slide(probe: np.ndarray, over: np.ndarray) -> np.ndarray:
    """
    Root mean square difference (S,) of a probe (n, C) at every place of (m >= n, C).

    Each channel's mean over the window is left out: skeletons differ in their zero.
    """
    n, m = len(probe), len(over)
    total = np.zeros(m - n + 1)
    size = 1 << (m + n - 1).bit_length()
    for a, b in zip(probe.T, over.T):
        a = a - a.mean()
        # Cross-correlation by FFT; sums of the window by cumulative sums.
        cross = np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size)
        s1 = np.cumsum(np.concatenate([[0.0], b]))
        s2 = np.cumsum(np.concatenate([[0.0], b * b]))
        mean = (s1[n:] - s1[:-n]) / n
        var = (s2[n:] - s2[:-n]) - n * mean**2
        total += var + a @ a - 2 * cross[: m - n + 1]
    return np.sqrt(np.maximum(total, 0.0) / (n * probe.shape[1]))


def same_performance(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """
    Compare two signatures: smallest difference, and frame of ``b`` at which ``a`` begins.

    The probe is the middle of ``a``.  Infinite where ``b`` is too short to hold it.
    """
    n = min(len(a), PROBE)
    first = (len(a) - n) // 2
    if len(b) < n:
        return float('inf'), 0
    difference = slide(a[first : first + n], b)
    best = int(np.argmin(difference))
    return float(difference[best]), best - first


def find_copies(
    signatures: list[np.ndarray], progress: bool = False
) -> list[tuple[int, int, int, float]]:
    """Pairs (a, b, frame of b at which a begins, difference) of one performance, a the shorter."""
    pairs = []
    order = sorted(range(len(signatures)), key=lambda i: len(signatures[i]))
    rank = {i: n for n, i in enumerate(order)}
    near = _near(signatures)
    for i in tqdm(order, desc='comparing takes', unit='take', disable=not progress):
        for j in sorted((j for j in near[i] if rank[j] > rank[i]), key=rank.__getitem__):
            difference, start = same_performance(signatures[i], signatures[j])
            if difference < SAME:
                pairs.append((i, j, start, difference))
    return pairs


def _near(signatures: list[np.ndarray]) -> list[set[int]]:
    """Takes that may hold the probe of each take: all that do, and a few more."""
    everything = set(range(len(signatures)))
    near = [everything] * len(signatures)
    for window, above in zip(_WINDOWS, (PROBE + 1, *_WINDOWS), strict=False):
        # A part of a probe differs by no more than the whole; the longest window that fits.
        asking = [i for i, s in enumerate(signatures) if window <= min(len(s), PROBE) < above]
        if not asking:
            continue
        held = [i for i in everything if len(signatures[i]) >= window]
        rows = {i: _project(signatures[i], window) for i in held}
        owner = np.repeat(held, [len(rows[i]) for i in held])
        tree = KDTree(np.concatenate([rows[i] for i in held]))
        for i in asking:
            n = min(len(signatures[i]), PROBE)
            first = (len(signatures[i]) - n) // 2
            radius = SAME * np.sqrt(n * signatures[i].shape[1]) + 1e-6
            near[i] = set(owner[tree.query_ball_point(rows[i][first], radius)].tolist())
    return near


def _project(signature: np.ndarray, window: int) -> np.ndarray:
    """Slowest cosines (S, channels * 3) of every window; the mean is at right angles to them."""
    basis = dct(np.eye(window), norm='ortho', axis=0)[1 : 1 + _COSINES].T
    windows = np.lib.stride_tricks.sliding_window_view(signature, window, axis=0)
    return (windows @ basis).reshape(len(windows), -1)


def join(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """Number of the group of every one of ``count`` things, where pairs belong together."""
    parent = list(range(count))

    def top(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs:
        parent[max(top(a), top(b))] = min(top(a), top(b))
    return [top(i) for i in range(count)]
