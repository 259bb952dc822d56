# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Auxiliary heads that make the reasoner say where things are.

Language and motion alone ground a small model badly; dense supervision on every object of a
picture, and the target's patch for every question, ground it in minutes.  The heads are trained
with stage 1 and left out of the exported graphs; what they teach stays in the states.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Grounding:
    """
    Answers of the heads.

    ``objectness`` (S, N), ``colour`` (S, N, colours), ``shape`` (S, N, shapes), ``offset``
    (S, N, 2) of the object's centre in its patch (0..1), ``log_distance`` (S, N) for each image
    token of each picture; ``patch`` (B, N) logits of the target's patch, ``goal`` (B, 4) x, y (m)
    and sin, cos of the final heading in the start frame, ``bearing`` (B, 2) sin, cos of the
    target, ``target_log_distance`` (B,) for each question.
    """

    objectness: Tensor
    colour: Tensor
    shape: Tensor
    offset: Tensor
    log_distance: Tensor
    patch: Tensor
    goal: Tensor
    bearing: Tensor
    target_log_distance: Tensor


class GroundingHeads(nn.Module):
    """Linear readings of image tokens, of prompt rows and of the ``begin`` row."""

    def __init__(self, width: int, colours: int, shapes: int) -> None:
        super().__init__()
        self.sizes = (1, colours, shapes, 2, 1)
        self.objects = nn.Linear(width, sum(self.sizes))
        self.patch = nn.Linear(width, 1)
        self.target = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 7))

    def forward(self, features: Tensor, states: Tensor, prompt: int) -> Grounding:
        """
        Read image ``features`` (S, N, D) and ``states`` (B, P + W, D).

        ``prompt`` is P, the rows of the prompt; its last row is ``begin``.
        """
        objectness, colour, shape, offset, distance = self.objects(features).float().split(
            self.sizes, dim=-1)
        target = self.target(states[:, prompt - 1]).float()
        return Grounding(
            objectness[..., 0], colour, shape, offset, distance[..., 0],
            self.patch(states[:, :features.shape[1]]).float()[..., 0],
            target[:, :4], target[:, 4:6], target[:, 6])
