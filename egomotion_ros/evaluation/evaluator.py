# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The trained text-and-motion evaluator as a tool: texts and motions in, embeddings out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from egomotion_ros.body.features import FEATURE_DIM, motion_to_features
from egomotion_ros.evaluation.captions import EVALUATED
from egomotion_ros.models.checkpoints import load_model
from egomotion_ros.text import TextEncoder
from egomotion_ros.types import WINDOW, HumanMotion

#: Texts or motions that are embedded at a time.
_BATCH = 128


class Evaluator:
    """A trained evaluator: :meth:`open` a folder of ``egomotion train evaluator``."""

    def __init__(self, model: torch.nn.Module, text: TextEncoder) -> None:
        if text.length > model.config.text_tokens or text.size > model.config.text_vocabulary:
            raise ValueError('text tokenizer and evaluator do not fit together')
        self.model, self.text = model.eval(), text

    @staticmethod
    def open(folder: str | Path) -> Evaluator:
        """Read a checkpoint folder; ValueError where it holds no evaluator."""
        folder = Path(folder)
        model = load_model(folder, 'evaluator')
        return Evaluator(model, TextEncoder.open(folder / 'text.json', model.config.text_tokens))

    @torch.no_grad()
    def texts(self, texts: list[str]) -> np.ndarray:
        """Embed texts: (N, 512) float64."""
        rows, device = [], next(self.model.parameters()).device
        for first in range(0, len(texts), _BATCH):
            ids, mask = zip(*map(self.text.encode, texts[first:first + _BATCH]), strict=True)
            rows.append(self.model.embed_text(torch.from_numpy(np.stack(ids)).to(device),
                                              torch.from_numpy(np.stack(mask)).to(device)))
        return torch.cat(rows).double().cpu().numpy()

    @torch.no_grad()
    def features(self, features: np.ndarray) -> np.ndarray:
        """Embed motion features (N, T >= 8, 140), all of one length: (N, 512) float64."""
        if features.ndim != 3 or features.shape[2] != FEATURE_DIM or features.shape[1] < WINDOW:
            raise ValueError(f'expected features (N, T >= {WINDOW}, {FEATURE_DIM}), '
                             f'got {features.shape}')
        frames = min(features.shape[1] // WINDOW * WINDOW, EVALUATED)
        device = next(self.model.parameters()).device
        rows = [self.model.embed_motion(torch.from_numpy(np.asarray(
            features[first:first + _BATCH, :frames], np.float32)).to(device))
            for first in range(0, len(features), _BATCH)]
        return torch.cat(rows).double().cpu().numpy()

    def motions(self, motions: list[HumanMotion]) -> np.ndarray:
        """Embed motions of one length: (N, 512) float64."""
        return self.features(np.stack([motion_to_features(motion) for motion in motions]))
