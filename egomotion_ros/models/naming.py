# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a sentence names a thing to look at, read from the reasoner's state."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class NamingConfig:
    """``width`` of a state, ``reasoner`` the SHA-256 of the weights whose states are read."""

    width: int
    reasoner: str = ''


class NamingHead(nn.Module):
    """Linear reading of the state before the first primitive."""

    def __init__(self, config: NamingConfig) -> None:
        super().__init__()
        self.config = config
        self.read = nn.Linear(config.width, 2)

    def forward(self, begin: Tensor) -> Tensor:
        """States (B, D) -> logits (B, 2) of no thing and of a thing being named."""
        return self.read(begin)
