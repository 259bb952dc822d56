# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Motion features for training tokenizer and autoencoder, and the loss the two share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as F

from egomotion_ros.body.edits import mirror
from egomotion_ros.body.features import (
    CONTACTS,
    FEATURE_DIM,
    VELOCITY,
    YAW_RATE,
    feature_positions,
    integrate_root,
    motion_to_features,
)
from egomotion_ros.body.hands import WRISTS
from egomotion_ros.body.skeleton import FOOT_JOINTS
from egomotion_ros.data.library import MotionLibrary
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.types import FPS, WINDOW

#: Frames of a training crop of recorded motion (3.2 s: most takes are at least that long).
CROP = 96
#: Weight of the wrists' error (m) beside that of all joints (10): what reaches has to be there.
HANDS_WEIGHT = 4.0
#: Frames over which jerk is compared as a mean, and jerk (m/s^3) that is as good as none.
LIVELY, CALM = 15, 2.0


class MotionCorpus:
    """
    Recorded takes (and their mirror images) and, beside them, a bank of synthesised motions.

    ``bank_share`` of every batch comes from the bank.
    """

    def __init__(self, library: MotionLibrary, split: str, bank: MotionBank | None = None,
                 bank_share: float = 0.5) -> None:
        self.takes: list[np.ndarray] = []
        for take in library.takes(split=split):
            if take.motion.frames < CROP:
                continue
            for motion in (take.motion, mirror(take.motion)):
                self.takes.append(motion_to_features(motion).astype(np.float32))
        if not self.takes:
            raise ValueError(f'no take of split {split!r} has {CROP} frames or more')
        weights = np.array([len(take) - CROP + 1 for take in self.takes], np.float64)
        self.weights = weights / weights.sum()
        self.bank = None if bank is None else bank.features
        self.bank_share = bank_share if bank is not None else 0.0

    def statistics(self, floor: float = 0.02) -> tuple[Tensor, Tensor]:
        """Mean and deviation (140,) over takes and bank; deviations are at least ``floor``."""
        parts = list(self.takes)
        if self.bank is not None:
            parts += [np.asarray(self.bank[::10], np.float32).reshape(-1, FEATURE_DIM)]
        rows = np.concatenate(parts)
        return (torch.from_numpy(rows.mean(0)),
                torch.from_numpy(np.maximum(rows.std(0), floor).astype(np.float32)))

    def sample(self, rng: np.random.Generator, count: int) -> list[Tensor]:
        """Draw ``count`` motions: crops of takes (., 96, 140) and whole motions of the bank."""
        from_bank = int(round(count * self.bank_share))
        crops = []
        for n in rng.choice(len(self.takes), count - from_bank, p=self.weights):
            start = rng.integers(len(self.takes[n]) - CROP + 1)
            crops.append(self.takes[n][start:start + CROP])
        batches = [torch.from_numpy(np.stack(crops))] if crops else []
        if from_bank:
            rows = np.sort(rng.choice(len(self.bank), from_bank))
            batches.append(torch.from_numpy(np.asarray(self.bank[rows], np.float32)))
        return batches


def reconstruction_loss(answer: Tensor, truth: Tensor, std: Tensor, liveliness: float = 0.0
                        ) -> tuple[Tensor, dict[str, float]]:
    """
    Compare features (B, T, 140) as numbers, as bodies, as paths and at the planted feet.

    Numbers: smooth L1 of normalised features.  Bodies: joint positions with the path taken out,
    the wrists once more.
    Paths: integrated root position and heading.  Feet: speed of joints in contact, and jitter of
    all joints.  With ``liveliness``, its weight, :func:`stillness` too.
    """
    error = (answer - truth) / std
    numbers = F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.5)
    places, goal = feature_positions(answer), feature_positions(truth)
    heading = integrate_root(truth)[2]
    gaps = (_local(places, integrate_root(answer)[2]) - _local(goal, heading)).abs()
    bodies, hands = gaps.mean(), gaps[..., list(WRISTS), :].mean()
    path = torch.stack([a - b for a, b in zip(integrate_root(answer), integrate_root(truth),
                                              strict=True)], -1)
    paths = F.smooth_l1_loss(path, torch.zeros_like(path), beta=0.05)
    feet = places[:, :, list(FOOT_JOINTS)]
    planted = truth[:, 1:, CONTACTS.start:CONTACTS.stop] * truth[:, :-1, CONTACTS]
    speed = (feet[:, 1:] - feet[:, :-1]).norm(dim=-1) * FPS
    true_feet = goal[:, :, list(FOOT_JOINTS)]
    true_speed = (true_feet[:, 1:] - true_feet[:, :-1]).norm(dim=-1) * FPS
    slide = (F.relu(speed - true_speed) * planted).mean()
    jitter = (_second(places) - _second(goal)).abs().mean() * FPS
    rates = F.l1_loss(error[..., YAW_RATE.start:VELOCITY.stop],
                      torch.zeros_like(error[..., YAW_RATE.start:VELOCITY.stop]))
    loss = (numbers + 10.0 * bodies + HANDS_WEIGHT * hands + 2.0 * paths + 0.5 * slide + jitter
            + 0.2 * rates)
    figures = {'numbers': numbers.item(), 'bodies_mm': 1000 * bodies.item(),
               'hands_mm': 1000 * hands.item(),
               'paths': paths.item(), 'slide': slide.item(), 'jitter': jitter.item()}
    if liveliness > 0:
        still = stillness(places, goal)
        loss, figures['stillness'] = loss + liveliness * still, still.item()
    return loss, figures


def stillness(places: Tensor, true: Tensor, weight: Tensor | None = None,
              gain: float = 1.0) -> Tensor:
    """
    How unlike the jerk of joints (B, T, 22, 3) is that of the true ones, whatever its direction.

    ``gain`` times theirs is asked for.

    Logarithms of mean magnitudes over half a second (LIVELY frames), a mean over joints and over
    motions, each of which counts ``weight`` (B,).  What comparing positions cannot foresee it
    leaves out, and a decoder then smooths; of this much jerk is asked for all the same, as
    spectral losses do of a waveform.
    """
    powers = []
    for joints, times in ((places, 1.0), (true, gain)):
        third = joints[:, 3:] - 3 * joints[:, 2:-1] + 3 * joints[:, 1:-2] - joints[:, :-3]
        jerk = times * third.norm(dim=-1) * FPS ** 3
        whole = jerk.shape[1] // LIVELY * LIVELY
        powers.append((jerk[:, :whole].unflatten(1, (-1, LIVELY)).mean(2) + CALM).log())
    gap = (powers[0] - powers[1]).abs().mean(dim=(1, 2))
    return (gap if weight is None else gap * weight).mean()


def aligned_error(answer: Tensor, truth: Tensor) -> Tensor:
    """
    MPJPE (B, T) in metres after taking pelvis position and heading out of both.

    Features (B, T, 140) in, the measure of the figures table out.
    """
    a = _local(feature_positions(answer), integrate_root(answer)[2])
    b = _local(feature_positions(truth), integrate_root(truth)[2])
    a, b = a - a[:, :, :1], b - b[:, :, :1]
    return (a - b).norm(dim=-1).mean(-1)


def held_out_windows(library: MotionLibrary, split: str, frames: int = 152) -> list[Tensor]:
    """Non-overlapping windows (1, T, 140) of a split; short takes as a whole, T % 8 == 0."""
    windows = []
    for take in library.takes(split=split):
        features = torch.from_numpy(motion_to_features(take.motion).astype(np.float32))
        for start in range(0, len(features), frames):
            part = features[start:start + frames]
            part = part[:len(part) // WINDOW * WINDOW]
            if len(part) >= 5 * WINDOW:
                windows.append(part[None])
    return windows


def open_bank(episodes: Path | None) -> MotionBank | None:
    """Return the bank of an episode folder, or None without one."""
    return None if episodes is None else MotionBank.find(Path(episodes))


def _local(places: Tensor, yaw: Tensor) -> Tensor:
    # Positions in the heading frame, path removed, height kept.
    c, s = torch.cos(yaw)[..., None], torch.sin(yaw)[..., None]
    x = places[..., 0] - places[..., :1, 0]
    y = places[..., 1] - places[..., :1, 1]
    return torch.stack([c * x + s * y, -s * x + c * y, places[..., 2]], dim=-1)


def _second(places: Tensor) -> Tensor:
    return places[:, 2:] - 2 * places[:, 1:-1] + places[:, :-2]
