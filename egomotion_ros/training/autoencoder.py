# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train the motion autoencoder (VAE) and the motion tokenizer (RVQ-VAE)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from egomotion_ros.body.features import integrate_root
from egomotion_ros.data.library import MotionLibrary
from egomotion_ros.models.autoencoder import MotionAutoencoder
from egomotion_ros.models.checkpoints import build, save_model, start_from
from egomotion_ros.models.tokenizer import MotionTokenizer
from egomotion_ros.training.loop import Samples, processes, read_config, train
from egomotion_ros.training.motions import (
    MotionCorpus,
    aligned_error,
    held_out_windows,
    open_bank,
    reconstruction_loss,
)


def train_autoencoder(config_path: Path, library_dir: Path, out: Path,
                      episodes_dir: Path | None = None, init: Path | None = None
                      ) -> MotionAutoencoder:
    """
    Train the VAE on the library's train split and the episodes' motion bank.

    ``init`` is a checkpoint to start from; ValueError when its sizes are others, or when it is
    missing where the configuration's ``encoder_held`` asks for its encoder: then the decoder
    learns alone, latents stay what they were, and a generator of them stays good.
    """
    model, corpus = _train('autoencoder', config_path, library_dir, out, episodes_dir, init)
    if any(parameter.requires_grad for parameter in model.encoder.parameters()):
        standardise(model, corpus)
    if processes().is_main_process:
        save_model(model, 'autoencoder', Path(out))
    return model


def train_tokenizer(config_path: Path, library_dir: Path, out: Path,
                    episodes_dir: Path | None = None, init: Path | None = None
                    ) -> MotionTokenizer:
    """
    Train the RVQ-VAE on the library's train split and the episodes' motion bank.

    ``init`` is a checkpoint to start from; ValueError when its sizes are others.
    """
    return _train('tokenizer', config_path, library_dir, out, episodes_dir, init)[0]


@torch.no_grad()
def standardise(model: MotionAutoencoder, corpus: MotionCorpus, samples: int = 2048) -> None:
    """Measure mean and deviation of the latents, so that the generator sees unit variance."""
    rng = np.random.default_rng(0)
    model.latent_mean.zero_()
    model.latent_std.fill_(1.0)
    rows = [model.encode(part).flatten(0, 1)
            for _ in range(samples // 64) for part in corpus.sample(rng, 64)]
    latents = torch.cat(rows)
    model.latent_mean.copy_(latents.mean(0))
    model.latent_std.copy_(latents.std(0).clamp_min(1e-3))


@torch.no_grad()
def held_out_error(model: nn.Module, windows: list[Tensor]) -> dict[str, float]:
    """Pelvis- and heading-aligned MPJPE over frames (mm), and drift of the path (m)."""
    errors, drift = [], []
    device = next(model.parameters()).device
    for window in (window.to(device) for window in windows):
        answer = reconstruct(model, window)
        errors.append(aligned_error(answer, window).flatten())
        a, b = integrate_root(answer), integrate_root(window)
        drift.append(((a[0] - b[0])[..., -1].square() + (a[1] - b[1])[..., -1].square()).sqrt())
    return {'mpjpe_mm': 1000 * torch.cat(errors).mean().item(),
            'drift_m': torch.cat(drift).mean().item()}


def reconstruct(model: nn.Module, features: Tensor) -> Tensor:
    """Features through tokenizer (codes) or autoencoder (mean latents) and back."""
    return model.decode(model.encode(features))


def _train(kind: str, config_path: Path, library_dir: Path, out: Path,
           episodes_dir: Path | None, init: Path | None) -> tuple[nn.Module, MotionCorpus]:
    settings, config, data = read_config(
        config_path, kind, ('bank_share', 'regulariser', 'encoder_held', 'liveliness'))
    torch.manual_seed(config.seed)
    model = build(kind, settings)
    library = MotionLibrary.open(library_dir)
    corpus = MotionCorpus(library, 'train', open_bank(episodes_dir),
                          float(data.get('bank_share', 0.5)))
    if init is None:
        model.scale.set(*corpus.statistics())
    else:
        # The scale of the features belongs to the weights.
        start_from(model, init, kind)
    weight = float(data.get('regulariser', 1e-3))
    if data.get('encoder_held', False):
        if kind == 'tokenizer':
            raise ValueError(f'{config_path}: encoder_held is for the autoencoder; codes move '
                             'with their encoder')
        if init is None:
            raise ValueError(f'{config_path}: encoder_held needs a checkpoint to start from')
        model.encoder.requires_grad_(False)
    liveliness = float(data.get('liveliness', 0.0))
    held_out = held_out_windows(library, 'val')
    samples = Samples(lambda rng: corpus.sample(rng, config.batch), config)

    def loss(network: nn.Module, rng: np.random.Generator, step: int
             ) -> tuple[Tensor, dict[str, float]]:
        total, figures = torch.zeros((), device=processes().device), {}
        for truth in (part.to(processes().device) for part in samples(step)):
            answer, *_, penalty = network(truth)
            value, figures = reconstruction_loss(answer, truth, model.scale.std,
                                                 liveliness)
            total = total + (value + weight * penalty) * len(truth) / config.batch
            figures['penalty'] = penalty.item()
        return total, figures

    def validate(network: nn.Module) -> dict[str, float]:
        return held_out_error(network, held_out)

    return train(model, kind, config, loss, Path(out), validate), corpus
