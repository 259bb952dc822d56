# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What asks a reasoner for all base codes at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Queries(nn.Module):
    """
    Embeddings (B, windows, width) that stand at the rows of the codes.

    A learned row for each window, plus what a small network makes of the state of the row before
    the first code: in it the model has put its answer to picture and instruction together, so
    that the queries need not read all of the prompt anew.
    """

    def __init__(self, windows: int, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(windows, width) * 0.02)
        self.guess = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(),
                                   nn.Linear(hidden, windows * width))
        nn.init.zeros_(self.guess[2].weight)
        nn.init.zeros_(self.guess[2].bias)

    def forward(self, begin: Tensor) -> Tensor:
        """Queries for states ``begin`` (B, width) of the row before the first code."""
        windows, width = self.rows.shape
        return self.rows + self.guess(begin).reshape(-1, windows, width)
