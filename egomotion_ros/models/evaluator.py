# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Text and motion in one space of 512 numbers: the evaluator of the HumanML3D protocol.

It measures and never takes part in making motion.  Distances are Euclidean on raw embeddings, in
training as in the metrics (Guo et al., CVPR 2022, train theirs on Euclidean distances too).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from egomotion_ros.body.features import FEATURE_DIM
from egomotion_ros.models.temporal import FeatureScale, ResidualConv
from egomotion_ros.types import WINDOW


@dataclass(frozen=True)
class EvaluatorConfig:
    """Sizes of the evaluator; ``text_tokens`` is the longest text, in tokens."""

    features: int = FEATURE_DIM
    embedding: int = 512
    width: int = 192
    blocks: int = 3
    layers: int = 2
    heads: int = 4
    text_tokens: int = 64
    text_vocabulary: int = 512


class MotionEvaluator(nn.Module):
    """
    Two encoders: ``embed_text`` (B, L) -> (B, 512), ``embed_motion`` (B, T, 140) -> (B, 512).

    T is a multiple of 8 and at least 8.
    """

    def __init__(self, config: EvaluatorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.scale = FeatureScale(config.features)
        self.inward = nn.Linear(config.features * WINDOW, width)
        self.motion = nn.Sequential(*[ResidualConv(width) for _ in range(config.blocks)])
        self.motion_pool = _Pool(width, config.layers, config.heads, config.embedding, 64)
        self.words = nn.Embedding(config.text_vocabulary, width)
        self.text_pool = _Pool(width, config.layers, config.heads, config.embedding,
                               config.text_tokens)
        self.temperature = nn.Parameter(torch.zeros(()))

    def embed_motion(self, features: Tensor) -> Tensor:
        """Embed motion features in their units."""
        batch, frames, width = features.shape
        if frames % WINDOW or not frames:
            raise ValueError(f'the frames of a motion must be a multiple of {WINDOW}, '
                             f'got {frames}')
        rows = self.scale.normalise(features).reshape(batch, frames // WINDOW, WINDOW * width)
        rows = self.motion(self.inward(rows).transpose(1, 2)).transpose(1, 2)
        return self.motion_pool(rows, torch.ones(rows.shape[:2], dtype=torch.bool,
                                                 device=rows.device))

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed token ids (B, L) where ``mask`` (B, L) is True."""
        return self.text_pool(self.words(ids), mask)

    def forward(self, features: list[Tensor], ids: Tensor, mask: Tensor, meaning: Tensor
                ) -> tuple[Tensor, Tensor]:
        """
        Contrastive loss of a batch, and the squared distances (B, B) it is made of.

        ``features`` are parts of the batch, each of one length; rows whose ``meaning`` (B,) is
        equal are no negatives of each other.  Symmetric cross entropy over -distance^2 (InfoNCE,
        van den Oord et al. 2018), with a learned temperature.
        """
        motion = torch.cat([self.embed_motion(part) for part in features])
        text = self.embed_text(ids, mask)
        squared = (text.square().sum(dim=1)[:, None] + motion.square().sum(dim=1)
                   - 2.0 * text @ motion.T)
        logits = -squared * self.temperature.exp() / self.config.embedding**0.5
        same = meaning[:, None] == meaning[None]
        target = same.float() / same.sum(dim=1, keepdim=True)
        rows = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
        columns = -(target * logits.T.log_softmax(dim=1)).sum(dim=1).mean()
        return 0.5 * (rows + columns), squared


class _Pool(nn.Module):
    """Rows (B, L, width) -> one embedding (B, out): transformer, mean over the real rows."""

    def __init__(self, width: int, layers: int, heads: int, out: int, longest: int) -> None:
        super().__init__()
        self.place = nn.Parameter(0.02 * torch.randn(longest, width))
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.1, batch_first=True, norm_first=True)
            for _ in range(layers)])
        self.outward = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out))

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        length = rows.shape[1]
        if length > len(self.place):
            raise ValueError(f'{length} rows, at most {len(self.place)} fit')
        x = rows + self.place[:length]
        for block in self.blocks:
            x = block(x, src_key_padding_mask=~mask)
        share = mask[..., None].to(x.dtype)
        return self.outward((x * share).sum(dim=1) / share.sum(dim=1).clamp_min(1.0))
