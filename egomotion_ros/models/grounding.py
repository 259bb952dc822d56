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

#: Depths that an image token tells, on a side of its patch.
DEPTHS = 4


@dataclass
class Grounding:
    """
    Answers of the heads.

    ``objectness`` (S, N), ``colour`` (S, N, colours), ``shape`` (S, N, shapes), ``offset``
    (S, N, 2) of the object's centre in its patch (0..1), ``log_distance`` (S, N) for each image
    token of each picture; ``patch`` (B, N) logits of the target's patch, ``goal`` (B, 4) x, y (m)
    and sin, cos of the final heading in the start frame, ``bearing`` (B, 2) sin, cos of the
    target, ``target_log_distance`` (B,) for each question; ``depth`` (S, N, DEPTHS ** 2) logarithm
    of the depth (m) of the cells of each token's patch, row by row.  Of models with ``hands``:
    ``height`` (S, N) of the object's centre (m) and ``hands`` (B, 2, 3) targets of the left and
    the right hand in the start frame (m).
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
    depth: Tensor
    height: Tensor | None = None
    hands: Tensor | None = None


class GroundingHeads(nn.Module):
    """Linear readings of image tokens, of prompt rows and of the ``begin`` row."""

    def __init__(self, width: int, colours: int, shapes: int, hands: bool = False) -> None:
        super().__init__()
        self.sizes = (1, colours, shapes, 2, 1)
        self.objects = nn.Linear(width, sum(self.sizes))
        self.depth = nn.Linear(width, DEPTHS ** 2)
        self.patch = nn.Linear(width, 1)
        self.target = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 7))
        self.height = nn.Linear(width, 1) if hands else None
        self.hands = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 6)) if hands else None

    def forward(self, features: Tensor, states: Tensor, prompt: int) -> Grounding:
        """
        Read image ``features`` (S, N, D) and ``states`` (B, P + W, D).

        ``prompt`` is P, the rows of the prompt; its last row is ``begin``.
        """
        objectness, colour, shape, offset, distance = self.objects(features).float().split(
            self.sizes, dim=-1)
        target = self.target(states[:, prompt - 1]).float()
        height = hands = None
        if self.hands is not None:
            height = self.height(features).float()[..., 0]
            hands = self.hands(states[:, prompt - 1]).float().unflatten(-1, (2, 3))
        return Grounding(
            objectness[..., 0], colour, shape, offset, distance[..., 0],
            self.patch(states[:, :features.shape[1]]).float()[..., 0],
            target[:, :4], target[:, 4:6], target[:, 6], self.depth(features).float(),
            height, hands)
