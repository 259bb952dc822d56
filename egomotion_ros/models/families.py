# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What differs between the vision-language families a reasoner can be made of.

Hugging Face's own forward passes depend on the data (which tokens are pictures, which pictures
are padding, how large each is), so that they cannot be exported with static shapes.  Here every
family turns one square picture into image tokens on one fixed grid, with the family's own
modules and weights.  A family holds constants only; the weights stay in the Hugging Face model.

Sources: PaliGemma 2 (arXiv 2412.03555), Qwen3-VL (arXiv 2511.21631), DeepStack (arXiv
2406.04334), SmolVLM (arXiv 2504.05299).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
import torch.nn.functional as F


class Family(nn.Module):
    """
    Behaviour of the small default, and what a family may replace.

    ``size`` is the side of the picture in pixels, ``grid`` image tokens on a side, ``deep`` how
    many further features (DeepStack) every image token carries; ``bidirectional`` whether the
    rows of a prompt see each other in both directions; ``own_rows`` whether the primitives have
    rows in the text embedding (the default) rather than a table of their own; ``sees_camera``
    whether the image tokens depend on the camera's pose (the default) or its token alone tells it.
    """

    bidirectional = True
    own_rows = True
    sees_camera = True
    deep = 0

    def __init__(self, config: Any, image_size: int) -> None:
        """Take a Hugging Face configuration; ValueError when the picture's side does not fit."""
        super().__init__()
        own = self.own_size(config)
        self.size = image_size or own
        if self.size != own:
            raise ValueError(f'{config.model_type} reads pictures of {own} x {own}, '
                             f'image_size is {image_size}')
        self.grid = self.grid_of(config)

    @staticmethod
    def own_size(config: Any) -> int:
        """Side of the picture that the model was made for."""
        return int(config.image_size)

    def grid_of(self, config: Any) -> int:
        """Image tokens on a side."""
        return int(round(config.image_tokens ** 0.5))

    @staticmethod
    def language(vlm: nn.Module) -> nn.Module:
        """The decoder: ``layers``, ``norm``, ``rotary_emb``."""
        return vlm.model.language_model

    def features(self, vlm: nn.Module, pixels: Tensor, camera: Tensor | None) -> Tensor:
        """
        Pixels (B, 3, size, size) -> image tokens (B, grid ** 2, (1 + deep) * D).

        ``camera`` (B, 3) height m, pitch rad, yaw rad: for families that look at it.
        """
        features = vlm.get_image_features(pixels, *((camera,) if self.sees_camera else ()))
        return features if isinstance(features, Tensor) else features.pooler_output

    def positions(self, rows: int) -> Tensor:
        """Rotary positions, as the decoder takes them, of a sequence led by the image."""
        return torch.arange(rows)[None]


class PaliGemma(Family):
    """SigLIP and Gemma or Gemma 2; the prompt is read in both directions, as it was trained."""

    own_rows = False
    sees_camera = False

    @staticmethod
    def own_size(config: Any) -> int:
        """Side of the vision tower's picture."""
        return int(config.vision_config.image_size)

    def grid_of(self, config: Any) -> int:
        """One token a patch."""
        return self.size // int(config.vision_config.patch_size)


class SmolVlm(Family):
    """
    SigLIP, pixel shuffle and Llama, causal (SmolVLM2, Idefics3 architecture).

    The picture is read once, whole: image splitting, which shows the model further crops, is off.
    """

    bidirectional = False
    own_rows = False
    sees_camera = False

    @staticmethod
    def own_size(config: Any) -> int:
        """Side of the vision tower's picture."""
        return int(config.vision_config.image_size)

    def grid_of(self, config: Any) -> int:
        """One token for ``scale_factor ** 2`` patches."""
        patches = self.size // int(config.vision_config.patch_size)
        if patches % int(config.scale_factor):
            raise ValueError(f'{patches} patches on a side do not divide by scale_factor '
                             f'{config.scale_factor}')
        return patches // int(config.scale_factor)

    @staticmethod
    def language(vlm: nn.Module) -> nn.Module:
        """The Llama decoder."""
        return vlm.model.text_model

    def features(self, vlm: nn.Module, pixels: Tensor, camera: Tensor | None) -> Tensor:
        """Encode one whole picture: every position of the tower's own grid is used, in order."""
        vision = vlm.model.vision_model
        table = vision.embeddings.position_embedding.weight
        hidden = vision.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2) + table
        for layer in vision.encoder.layers:
            hidden = layer(hidden, attention_mask=None)
        return vlm.model.connector(vision.post_layernorm(hidden))


class Qwen3Vl(Family):
    """
    Qwen3-VL: any grid of patches, three rotary axes (time, row, column), DeepStack.

    ``image_size`` sets the grid; 0 takes the one its position table was learned on.
    """

    bidirectional = False
    own_rows = False
    sees_camera = False

    def __init__(self, config: Any, image_size: int) -> None:
        """Compute the constants of the fixed grid."""
        vision = config.vision_config
        self._unit = int(vision.patch_size) * int(vision.spatial_merge_size)
        nn.Module.__init__(self)
        self.size = image_size or self.own_size(config)
        if self.size % self._unit or self.size <= 0:
            raise ValueError(f'image_size {image_size}: {config.model_type} reads multiples of '
                             f'{self._unit} pixels')
        self.grid = self.grid_of(config)
        self.deep = len(vision.deepstack_visual_indexes)
        self.patch, self.merge = int(vision.patch_size), int(vision.spatial_merge_size)
        self.frames, self.heads = int(vision.temporal_patch_size), int(vision.num_heads)
        side = self.size // self.patch
        row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing='ij')
        # Patches come in the order of the tokens they are merged to.
        order = [self._blocks(axis) for axis in (row, column)]
        learned = int(vision.num_position_embeddings ** 0.5)
        low, high, share = zip(*(self._between(axis, side, learned) for axis in order),
                               strict=True)
        indices = torch.stack([a * learned + b for a in (low[0], high[0])
                               for b in (low[1], high[1])], dim=-1)
        weights = torch.stack([a * b for a in (1 - share[0], share[0])
                               for b in (1 - share[1], share[1])], dim=-1)
        # Rotary angles of a patch: half of the head's width from its row, half from its column.
        width = int(vision.hidden_size) // self.heads // 2
        theta = float(vision.rope_parameters['rope_theta'])
        frequency = theta ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
        angle = torch.cat([axis[:, None].float() * frequency for axis in order], dim=-1)
        for name, value in (('indices', indices), ('weights', weights),
                            ('cos', torch.cat([angle, angle], -1).cos()),
                            ('sin', torch.cat([angle, angle], -1).sin())):
            self.register_buffer(name, value, persistent=False)

    @staticmethod
    def own_size(config: Any) -> int:
        """Side of the grid on which the positions were learned."""
        vision = config.vision_config
        return int(round(vision.num_position_embeddings ** 0.5)) * int(vision.patch_size)

    def grid_of(self, config: Any) -> int:
        """One token for ``spatial_merge_size ** 2`` patches."""
        return self.size // self._unit

    def _blocks(self, grid: Tensor) -> Tensor:
        """Flatten (side, side) block by block of ``merge`` x ``merge``."""
        side, m = grid.shape[0], self.merge
        return grid.reshape(side // m, m, side // m, m).transpose(1, 2).flatten()

    @staticmethod
    def _between(index: Tensor, side: int, learned: int) -> tuple[Tensor, Tensor, Tensor]:
        """Neighbours in the learned grid and how far towards the second one ``index`` lies."""
        at = index.float() * (learned - 1) / max(side - 1, 1)
        low = at.floor().long().clamp(max=learned - 1)
        return low, (low + 1).clamp(max=learned - 1), at - low

    def features(self, vlm: nn.Module, pixels: Tensor, camera: Tensor | None) -> Tensor:
        """Encode one picture; token rows carry their DeepStack features behind their own."""
        visual = vlm.model.visual
        batch, colours, m, p = len(pixels), pixels.shape[1], self.merge, self.patch
        blocks = self.size // p // m
        patches = pixels.reshape(batch, colours, blocks, m, p, blocks, m, p)
        patches = patches.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(batch, -1, colours * p * p)
        # A still picture is a film of equal frames: the kernel's sum over time sees them all.
        kernel = visual.patch_embed.proj
        hidden = F.linear(patches, kernel.weight.sum(2).flatten(1), kernel.bias)
        table = visual.pos_embed.weight[self.indices] * self.weights[..., None]
        hidden = hidden + table.sum(1).to(hidden.dtype)
        deep = []
        for n, block in enumerate(visual.blocks):
            hidden = hidden + self._attend(block.attn, block.norm1(hidden))
            hidden = hidden + block.mlp(block.norm2(hidden))
            if n in visual.deepstack_visual_indexes:
                merger = visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(n)]
                deep.append(merger(hidden).reshape(batch, blocks * blocks, -1))
        return torch.cat([visual.merger(hidden).reshape(batch, blocks * blocks, -1), *deep], -1)

    def _attend(self, attention: nn.Module, x: Tensor) -> Tensor:
        batch, rows, width = x.shape
        query, key, value = attention.qkv(x).reshape(
            batch, rows, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        query, key = (part * cos + torch.cat([-part.chunk(2, -1)[1], part.chunk(2, -1)[0]], -1)
                      * sin for part in (query, key))
        y = F.scaled_dot_product_attention(query, key, value)
        return attention.proj(y.transpose(1, 2).reshape(batch, rows, width))

    def positions(self, rows: int) -> Tensor:
        """Image tokens stand at time 0 on their grid; what follows counts on all three axes."""
        tokens = self.grid ** 2
        index = torch.arange(tokens)
        image = torch.stack([torch.zeros_like(index), index // self.grid, index % self.grid])
        rest = torch.arange(rows - tokens) + self.grid
        return torch.cat([image, rest.expand(3, -1)], dim=1)[:, None]


_FAMILIES = {'egomotion_vlm': Family, 'paligemma': PaliGemma, 'qwen3_vl': Qwen3Vl,
             'smolvlm': SmolVlm}


def make_family(config: Any, image_size: int) -> Family:
    """Return the family of a Hugging Face configuration; ValueError names the known ones."""
    kind = _FAMILIES.get(config.model_type)
    if kind is None:
        raise ValueError(f'model_type {config.model_type!r}: expected one of '
                         f'{", ".join(_FAMILIES)}')
    return kind(config, image_size)
