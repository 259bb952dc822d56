# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Motions of a bank that begin with the end of another: a body that comes to rest, then goes on.

A known prefix is the beginning of the answer, so a generator learns to go on as a prefix begins:
a body known to turn is let turn on, one known to stand is let stand, whatever is asked for now
(a causal confusion; de Haan et al. 2019).  In use the prefix is the end of what was asked for
before.  Here it is: the last frames of a turn, a walk or a stance, then any motion from rest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from egomotion_ros.body.features import (
    CONTACTS,
    FEATURE_DIM,
    HEIGHT,
    VELOCITY,
    YAW_RATE,
    integrate_root,
)
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.types import FPS

#: Frames of the motion before, in whole windows: as many as pass while a plan is made.
BEFORE = 16
#: What may be left to turn (rad) and to go (m) where the motion before is entered.
LEFT_TO_TURN, LEFT_TO_GO = float(np.radians(12.0)), 0.08
#: Frames after the body could be entered first within which it is.
LATEST = 30
#: Frames over which one posture becomes the other, and over which what was turned is turned back.
BLENDED, TURNED_BACK = 12, 36
#: Speed (m/s) and yaw rate (rad/s) below which a motion is over.
OVER = (0.05, 0.1)
#: Motions of a bank that are made to begin with the end of another.
SETTLED = 10_000
#: Actions that end as a body stands.
_ENDING = ('turn_to', 'turn', 'search', 'walk_to', 'walk_forward', 'stand_still')


class Settled:
    """The :func:`settled_starts` of a bank, put in place of a ``share`` of what is drawn."""

    def __init__(self, bank: MotionBank, encode: Callable[[np.ndarray], Tensor],
                 share: float) -> None:
        if not 0.0 <= share < 1.0:
            raise ValueError(f'settled must be a share within [0, 1), got {share}')
        self._share = share
        if share > 0:
            self._features, of = settled_starts(bank, SETTLED)
            self._latents = encode(self._features)
            self._row = np.full(len(bank.action), -1)
            self._row[of] = np.arange(len(of))

    def put(self, rng: np.random.Generator, index: np.ndarray, latents: Tensor, truth: Tensor
            ) -> Tensor:
        """
        Change latents (B, 19, C) and features (B, 152, 140) of the motions ``index`` in place.

        Returns (B,) True for those that were: they begin with what was before, and are known to.
        """
        begun = np.zeros(len(index), bool)
        if self._share > 0:
            rows = self._row[index]
            begun = (rows >= 0) & (rng.random(len(index)) < self._share)
            latents[begun] = self._latents[rows[begun]]
            truth[begun] = torch.from_numpy(self._features[rows[begun]]).to(truth.dtype)
        return torch.from_numpy(begun)


def settled_starts(bank: MotionBank, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """
    Features (N, T, 140) float16 of up to ``count`` motions, and which of the bank (N,) each is.

    The first BEFORE frames are the last of another motion, blended into its beginning.  It ends
    BEFORE frames later than in the bank, within some centimetres of where it ended there: what
    the other turned meanwhile is turned back on the way.  Motions under way and those that are
    not over BEFORE frames before their end are left aside.  Raises ValueError where the bank has
    no motion to begin with or to go on with.
    """
    rng = np.random.default_rng([seed, 6])
    steps = np.asarray(bank.features[:, :, :VELOCITY.stop], np.float32)
    calm = _is_calm(steps[:, -BEFORE:])
    onward = np.flatnonzero(calm & ~bank.under_way())
    ending = np.concatenate([bank.of(action) for action in _ENDING])
    ending = ending[calm[ending] & (bank.cut[ending, 0] < 0)]
    if not len(onward) or not len(ending):
        raise ValueError('the bank has no motions from rest to rest to make settled starts of')
    onward = rng.permutation(onward)[:count]
    before = rng.choice(ending, len(onward))
    out = np.empty((len(onward), bank.features.shape[1], FEATURE_DIM), np.float16)
    for k, (n, m) in enumerate(zip(onward, before, strict=True)):
        first = _enter(steps[m], rng)
        out[k] = joined(np.asarray(bank.features[m, first:first + BEFORE], np.float32),
                        np.asarray(bank.features[n], np.float32))
    return out, onward


def joined(end: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Features (T, 140) of ``motion`` (T, 140) after the frames ``end`` (BEFORE, 140)."""
    motion = motion[:-len(end)].copy()
    share = (np.arange(1, BLENDED + 1) / (BLENDED + 1))[:, None]
    weight = share * share * (3.0 - 2.0 * share)
    posture = slice(HEIGHT.start, CONTACTS.start)
    motion[:BLENDED, posture] = ((1.0 - weight) * end[-1, posture]
                                 + weight * motion[:BLENDED, posture])
    turned = integrate_root(end[None])[2][0, -1]
    motion[:TURNED_BACK, YAW_RATE] -= turned * FPS / TURNED_BACK
    return np.concatenate([end, motion])


def _enter(steps: np.ndarray, rng: np.random.Generator) -> int:
    """Frame from which on next to nothing is left of a motion with ``steps`` (T, 3)."""
    x, y, yaw = (part[0] for part in integrate_root(steps[None]))
    done = ((np.abs(yaw - yaw[-1]) <= LEFT_TO_TURN)
            & (np.hypot(x - x[-1], y - y[-1]) <= LEFT_TO_GO))
    # The first frame after which it stays so.
    first = int(len(done) - np.argmin(done[::-1])) if not done.all() else 0
    last = len(steps) - BEFORE
    # Early ones more often: there most happens still.
    return min(first + int((LATEST + 1) * rng.random() ** 2), last)


def _is_calm(steps: np.ndarray) -> np.ndarray:
    """(M,) True where steps (M, T, 3) are those of a body at rest."""
    speed, rate = OVER
    return ((np.linalg.norm(steps[..., VELOCITY], axis=-1).mean(-1) < speed)
            & (np.abs(steps[..., YAW_RATE.start]).mean(-1) < rate))
