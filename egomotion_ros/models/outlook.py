# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a sentence names a thing and whether that is in view, read from the reasoner's state."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class OutlookConfig:
    """
    Sizes of the reading, and what it belongs to.

    ``width`` of a state, ``search`` the sentence that is answered where a thing is out of view,
    ``reasoner`` the SHA-256 of the weights whose states it reads.
    """

    width: int
    search: str = 'turn left'
    reasoner: str = ''


class OutlookHead(nn.Module):
    """Linear reading of the state before the first primitive."""

    def __init__(self, config: OutlookConfig) -> None:
        super().__init__()
        self.config = config
        self.read = nn.Linear(config.width, 2)

    def forward(self, begin: Tensor) -> Tensor:
        """States (B, D) -> logits (B, 2): a thing is named; it is in view."""
        return self.read(begin)
