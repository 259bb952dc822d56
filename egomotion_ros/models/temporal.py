# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Temporal convolution stacks shared by the motion tokenizer and the motion autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
import torch.nn.functional as F

from egomotion_ros.types import WINDOW


class ResidualConv(nn.Module):
    """
    ``x + f(x)`` with two convolutions over time, shape (B, C, T) -> (B, C, T).

    ``causal`` pads on the left only, so that row t never sees a row after t.
    """

    def __init__(self, width: int, kernel: int = 3, causal: bool = False) -> None:
        super().__init__()
        self.pad = (kernel - 1, 0) if causal else (kernel // 2, kernel // 2)
        self.first = nn.Conv1d(width, width, kernel)
        self.second = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = F.pad(F.silu(x), self.pad)
        return x + self.second(F.silu(self.first(y)))


class WindowEncoder(nn.Module):
    """
    Features (B, T, F) -> one vector per window of 8 frames, (B, T / 8, out).

    Causal over windows: vector k depends on frames up to 8 k + 7 only, so the encoding of an
    executed prefix does not change with what follows it.
    """

    def __init__(self, features: int, width: int, blocks: int, out: int) -> None:
        super().__init__()
        self.inward = nn.Linear(features * WINDOW, width)
        self.blocks = nn.Sequential(*[ResidualConv(width, 3, causal=True) for _ in range(blocks)])
        self.outward = nn.Conv1d(width, out, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Encode; T must be a multiple of 8."""
        batch, frames, width = features.shape
        x = features.reshape(batch, frames // WINDOW, WINDOW * width)
        x = self.blocks(self.inward(x).transpose(1, 2))
        return self.outward(x).transpose(1, 2)


class WindowDecoder(nn.Module):
    """
    One vector per window (B, W, in) -> features (B, 8 W, F).

    A stack at window rate, then a stack at frame rate that smooths over window borders.  The
    receptive field is bounded: ``blocks`` windows and ``2 * frame_blocks`` frames to either side.
    """

    def __init__(self, inward: int, width: int, blocks: int, frame_width: int,
                 frame_blocks: int, features: int) -> None:
        super().__init__()
        self.frame_width = frame_width
        self.inward = nn.Conv1d(inward, width, 1)
        self.blocks = nn.Sequential(*[ResidualConv(width, 3) for _ in range(blocks)])
        self.widen = nn.Linear(width, frame_width * WINDOW)
        self.frame_blocks = nn.Sequential(
            *[ResidualConv(frame_width, 5) for _ in range(frame_blocks)])
        self.outward = nn.Conv1d(frame_width, features, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode."""
        batch, windows, _ = latents.shape
        x = self.blocks(self.inward(latents.transpose(1, 2)))
        x = self.widen(x.transpose(1, 2)).reshape(batch, windows * WINDOW, self.frame_width)
        x = self.outward(self.frame_blocks(x.transpose(1, 2)))
        return x.transpose(1, 2)


class FeatureScale(nn.Module):
    """Normalisation of motion features, kept in buffers so that it travels with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer('mean', torch.zeros(features))
        self.register_buffer('std', torch.ones(features))

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Take ``mean`` and ``std`` (F,) of the training features."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def normalise(self, features: Tensor) -> Tensor:
        """Features in their units -> zero mean, unit variance."""
        return (features - self.mean) / self.std

    def restore(self, normalised: Tensor) -> Tensor:
        """Undo :meth:`normalise`."""
        return normalised * self.std + self.mean
