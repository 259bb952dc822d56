# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The HumanML3D protocol on embeddings of text and motion: definitions, and nothing else.

Guo et al., Generating Diverse and Natural 3D Human Motions from Text, CVPR 2022, section 5;
the skating ratio is that of GMD (Karunratanakul et al., ICCV 2023).  Embeddings are rows of
arrays; who makes them is of no concern here (:mod:`egomotion_ros.models.evaluator` does).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Motions a text is ranked against, and ranks that are reported.
GROUP, TOP = 32, 3
#: Pairs of Diversity; texts, samples a text and pairs a text of MultiModality; replications.
DIVERSITY_PAIRS, TEXTS, SAMPLES, SAMPLE_PAIRS, REPLICATIONS = 300, 100, 30, 10, 20
#: Height (m) below which a foot is down, and horizontal speed (m/s) above which it skates.
SKATE_HEIGHT, SKATE_SPEED = 0.05, 0.5
_TOES = (10, 11)


def embeddings(values: np.ndarray, name: str) -> np.ndarray:
    """Rows (N > 0, D) as float64; ValueError for another shape or numbers not finite."""
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f'{name}: expected embeddings (N > 0, D), got {values.shape}')
    if not np.isfinite(values).all():
        raise ValueError(f'{name}: a number is not finite')
    return values


def _pairs(text: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    text, motion = embeddings(text, 'text'), embeddings(motion, 'motion')
    if text.shape != motion.shape:
        raise ValueError(f'text and motion must pair up, got {text.shape} and {motion.shape}')
    return text, motion


def r_precision(text: np.ndarray, motion: np.ndarray, group: int = GROUP, top: int = TOP
                ) -> np.ndarray:
    """
    Share (top,) of texts whose own motion is among the 1, 2, .. nearest of its group.

    Row i of ``text`` belongs to row i of ``motion``.  Groups are consecutive rows (shuffle
    before); the last, incomplete one is dropped; nearness is Euclidean.  Equal distances count
    against the model.  ValueError when not one group is whole.
    """
    text, motion = _pairs(text, motion)
    if not 1 <= top <= group:
        raise ValueError(f'top must be within 1..{group}, got {top}')
    hits, groups = np.zeros(top), len(text) // group
    if not groups:
        raise ValueError(f'R-precision needs at least {group} pairs, got {len(text)}')
    for k in range(groups):
        rows = slice(k * group, (k + 1) * group)
        distance = np.linalg.norm(text[rows, None] - motion[None, rows], axis=-1)
        own = np.diag(distance)
        rank = (distance <= own[:, None]).sum(axis=1)
        hits += [(rank <= n + 1).sum() for n in range(top)]
    return hits / (groups * group)


def matching_distance(text: np.ndarray, motion: np.ndarray) -> float:
    """MM-Dist: mean Euclidean distance of matched rows."""
    text, motion = _pairs(text, motion)
    return float(np.linalg.norm(text - motion, axis=1).mean())


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """
    Frechet distance of the Gaussians fitted to rows of ``a`` (N, D) and ``b`` (M, D).

    |mean a - mean b|^2 + tr(A + B - 2 (A B)^(1/2)); raw rows are compared as they come, whoever
    wants them normalised does so first.  tr (A B)^(1/2) is the sum of the singular values of
    A^(1/2) B^(1/2), computed from the centred rows, which also holds where there are fewer rows
    than dimensions.  ValueError for less than two rows or different widths.
    """
    a, b = embeddings(a, 'a'), embeddings(b, 'b')
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f'expected two rows or more of one width, got {a.shape}, {b.shape}')
    x = (a - a.mean(axis=0)) / np.sqrt(len(a) - 1)
    y = (b - b.mean(axis=0)) / np.sqrt(len(b) - 1)
    # tr (X'X Y'Y)^(1/2) is the nuclear norm of X Y'.
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum() if len(x) * len(y) <= x.shape[1] ** 2 \
        else np.linalg.svd(_root(x) @ _root(y), compute_uv=False).sum()
    distance = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(max(0.0, distance + np.square(x).sum() + np.square(y).sum() - 2 * cross))


def _root(rows: np.ndarray) -> np.ndarray:
    """Symmetric square root (D, D) of rows' rows."""
    values, vectors = np.linalg.eigh(rows.T @ rows)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def diversity(motion: np.ndarray, rng: np.random.Generator, pairs: int = DIVERSITY_PAIRS) -> float:
    """
    Mean distance of two random subsets of ``pairs`` rows, row by row.

    Each subset is drawn without replacement; with fewer rows than ``pairs`` all are used.
    """
    motion = embeddings(motion, 'motion')
    pairs = min(pairs, len(motion))
    first, second = (rng.choice(len(motion), pairs, replace=False) for _ in range(2))
    return float(np.linalg.norm(motion[first] - motion[second], axis=1).mean())


def multimodality(motion: np.ndarray, rng: np.random.Generator, pairs: int = SAMPLE_PAIRS
                  ) -> float:
    """
    Mean distance of samples of one text: ``motion`` (texts, samples, D), ``pairs`` a text.

    The two sides of the pairs are drawn without replacement each, so samples >= pairs.
    """
    motion = np.asarray(motion, np.float64)
    if motion.ndim != 3 or not motion.size or not np.isfinite(motion).all():
        raise ValueError(f'expected finite samples (texts, samples, D), got {motion.shape}')
    if motion.shape[1] < pairs:
        raise ValueError(f'{pairs} pairs need {pairs} samples a text, got {motion.shape[1]}')
    first, second = (np.stack([rng.choice(motion.shape[1], pairs, replace=False)
                               for _ in range(len(motion))]) for _ in range(2))
    rows = np.arange(len(motion))[:, None]
    return float(np.linalg.norm(motion[rows, first] - motion[rows, second], axis=-1).mean())


def replicate(measure: Callable[[np.random.Generator], dict[str, float]],
              replications: int = REPLICATIONS, seed: int = 0) -> dict[str, dict[str, float]]:
    """
    Repeat a measurement: mean of every figure and 1.96 sigma / sqrt(n).

    ``measure(rng)`` draws groups, pairs and samples from its generator.
    """
    if replications < 2:
        raise ValueError(f'expected at least 2 replications, got {replications}')
    rounds = [measure(np.random.default_rng([seed, n])) for n in range(replications)]
    out = {}
    for name in rounds[0]:
        values = np.array([figures[name] for figures in rounds])
        out[name] = {'mean': float(values.mean()),
                     'interval': float(1.96 * values.std() / np.sqrt(replications))}
    return out


def skating_ratio(positions: np.ndarray, fps: float) -> float:
    """
    Share of steps in which a foot skates: joint positions (T > 1, 22, 3), Z up, metres.

    A step from a frame to the next skates when a toe joint is under 5 cm in both and moves
    horizontally faster than 0.5 m/s.
    """
    toes = np.asarray(positions)[:, list(_TOES)]
    if len(toes) < 2:
        raise ValueError(f'expected at least two frames, got {len(toes)}')
    speed = np.linalg.norm(np.diff(toes[..., :2], axis=0), axis=-1) * fps
    down = toes[..., 2] < SKATE_HEIGHT
    return float((down[1:] & down[:-1] & (speed > SKATE_SPEED)).any(axis=1).mean())
