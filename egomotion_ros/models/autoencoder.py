# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Motion autoencoder: a VAE with one latent vector per window of 8 frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from egomotion_ros.body.features import FEATURE_DIM
from egomotion_ros.models.temporal import FeatureScale, WindowDecoder, WindowEncoder


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the autoencoder."""

    features: int = FEATURE_DIM
    width: int = 256
    blocks: int = 3
    frame_width: int = 96
    frame_blocks: int = 2
    channels: int = 48


class MotionAutoencoder(nn.Module):
    """
    Features (B, T, 140) <-> temporal latents (B, T / 8, channels); T a multiple of 8.

    The encoder is causal over windows, the decoder has a bounded receptive field
    (:mod:`egomotion_ros.models.temporal`).  Latents handed out are standardised per channel by
    statistics of the training set, so that the generator works at unit variance.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = FeatureScale(config.features)
        self.encoder = WindowEncoder(config.features, config.width, config.blocks,
                                     2 * config.channels)
        self.decoder = WindowDecoder(config.channels, config.width, config.blocks,
                                     config.frame_width, config.frame_blocks, config.features)
        self.register_buffer('latent_mean', torch.zeros(config.channels))
        self.register_buffer('latent_std', torch.ones(config.channels))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct through a sampled latent; returns (reconstruction, KL divergence)."""
        mean, logvar = self.encoder(self.scale.normalise(features)).chunk(2, dim=-1)
        logvar = logvar.clamp(-12, 4)
        latent = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return self.scale.restore(self.decoder(latent)), kl

    def encode(self, features: Tensor) -> Tensor:
        """Features (B, T, F) -> standardised mean latents (B, T / 8, channels)."""
        mean = self.encoder(self.scale.normalise(features)).chunk(2, dim=-1)[0]
        return (mean - self.latent_mean) / self.latent_std

    def decode(self, latents: Tensor) -> Tensor:
        """Standardised latents (B, W, channels) -> features (B, 8 W, F)."""
        return self.scale.restore(self.decoder(latents * self.latent_std + self.latent_mean))
