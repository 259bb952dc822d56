# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Motion tokenizer: RVQ-VAE over windows of 8 frames (the paper's discrete primitives)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
import torch.nn.functional as F

from egomotion_ros.body.features import FEATURE_DIM
from egomotion_ros.models.temporal import FeatureScale, WindowDecoder, WindowEncoder


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of the tokenizer."""

    features: int = FEATURE_DIM
    width: int = 256
    blocks: int = 3
    frame_width: int = 96
    frame_blocks: int = 2
    code_width: int = 64
    codes: int = 256
    levels: int = 4


class ResidualQuantizer(nn.Module):
    """
    Residual vector quantisation with exponential moving average codebooks.

    van den Oord et al. 2017 (VQ-VAE, EMA update of appendix A.1); Zeghidour et al. 2021
    (SoundStream, residual levels and replacement of dead codes); Guo et al. 2024 (MoMask,
    dropout of the upper levels in training).
    """

    codebooks: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(self, levels: int, codes: int, width: int, decay: float = 0.98) -> None:
        super().__init__()
        self.decay = decay
        codebooks = torch.randn(levels, codes, width) * 0.5
        self.register_buffer('codebooks', codebooks)
        self.register_buffer('usage', torch.ones(levels, codes))
        self.register_buffer('sums', codebooks.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Quantise ``x`` (B, W, C).

        Returns the quantised vectors with straight-through gradient, the codes (B, W, levels) and
        the commitment loss (scalar).
        """
        residual, total = x, torch.zeros_like(x)
        codes, loss = [], x.new_zeros(())
        levels = len(self.codebooks)
        used = levels
        if self.training and torch.rand(()) < 0.2:
            used = int(torch.randint(1, levels + 1, ()))
        for level in range(levels):
            index = self._nearest(residual.detach(), level)
            codes.append(index)
            if level >= used:
                continue
            chosen = F.embedding(index, self.codebooks[level])
            if self.training:
                self._update(residual.detach(), index, level)
            loss = loss + F.mse_loss(residual, chosen.detach())
            total = total + chosen
            residual = residual - chosen.detach()
        return x + (total - x).detach(), torch.stack(codes, dim=-1), loss / used

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes (B, W, levels) -> sum of their vectors (B, W, C)."""
        parts = [F.embedding(codes[..., n], self.codebooks[n]) for n in range(codes.shape[-1])]
        return torch.stack(parts).sum(0)

    def _nearest(self, x: Tensor, level: int) -> Tensor:
        book = self.codebooks[level]
        distance = book.square().sum(-1) - 2 * x @ book.T
        return distance.argmin(-1)

    @torch.no_grad()
    def _update(self, x: Tensor, index: Tensor, level: int) -> None:
        flat, hits = x.reshape(-1, x.shape[-1]), index.reshape(-1)
        count = torch.zeros_like(self.usage[level]).index_add_(
            0, hits, torch.ones_like(hits, dtype=x.dtype))
        total = torch.zeros_like(self.sums[level]).index_add_(0, hits, flat)
        self.usage[level].mul_(self.decay).add_(count, alpha=1 - self.decay)
        self.sums[level].mul_(self.decay).add_(total, alpha=1 - self.decay)
        self.codebooks[level] = self.sums[level] / self.usage[level].clamp_min(1e-5)[:, None]
        dead = (self.usage[level] < 0.02).nonzero()[:, 0]
        if len(dead):
            fresh = flat[torch.randint(len(flat), (len(dead),))]
            self.codebooks[level, dead] = fresh
            self.sums[level, dead] = fresh
            self.usage[level, dead] = 1.0


class MotionTokenizer(nn.Module):
    """Features (B, T, 140) <-> codes (B, T / 8, levels); T a multiple of 8."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = FeatureScale(config.features)
        self.encoder = WindowEncoder(config.features, config.width, config.blocks,
                                     config.code_width)
        self.quantizer = ResidualQuantizer(config.levels, config.codes, config.code_width)
        self.decoder = WindowDecoder(config.code_width, config.width, config.blocks,
                                     config.frame_width, config.frame_blocks, config.features)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct ``features``; returns (reconstruction, codes, commitment loss)."""
        encoded = self.encoder(self.scale.normalise(features))
        quantised, codes, loss = self.quantizer(encoded)
        return self.scale.restore(self.decoder(quantised)), codes, loss

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """Features (B, T, F) -> codes (B, T / 8, levels)."""
        was = self.training
        self.eval()
        codes = self.quantizer(self.encoder(self.scale.normalise(features)))[1]
        self.train(was)
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, W, levels) -> features (B, 8 W, F)."""
        return self.scale.restore(self.decoder(self.quantizer.lookup(codes)))
