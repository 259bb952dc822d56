# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The small vision-language model that ships: a convolutional stem in front of a Llama decoder.

It is registered with Hugging Face's auto classes, so that
``AutoModelForImageTextToText.from_config`` makes it like PaliGemma2 or any other family.  A
convolutional stem grounds objects where a plain vision transformer of this size does not.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
import torch.nn.functional as F
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    LlamaConfig,
    LlamaModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast


class EgoVlmConfig(PreTrainedConfig):
    """
    Sizes of the model.

    ``image_size`` in pixels and ``hfov`` (rad) of the square pictures, ``stem`` channel widths of
    its stages and ``stem_blocks`` residual blocks of each (default: none in the first, which sees
    most pixels and needs least depth, then one), ``text_config`` for Llama.
    """

    model_type = 'egomotion_vlm'
    sub_configs = {'text_config': LlamaConfig}

    def __init__(self, image_size: int = 128, hfov: float = math.radians(80.0),
                 stem: tuple[int, ...] = (32, 64, 96, 160),
                 stem_blocks: tuple[int, ...] | None = None,
                 text_config: dict[str, Any] | LlamaConfig | None = None, **kwargs: Any) -> None:
        self.image_size, self.hfov = image_size, hfov
        self.stem = list(stem)
        self.stem_blocks = [0] + [1] * (len(self.stem) - 1) if stem_blocks is None else list(
            stem_blocks)
        if len(self.stem_blocks) != len(self.stem):
            raise ValueError(f'stem_blocks {self.stem_blocks}: the stem has {len(self.stem)} '
                             'stages')
        if not isinstance(text_config, LlamaConfig):
            text_config = LlamaConfig(**(text_config or {}))
        self.text_config = text_config
        kwargs.setdefault('tie_word_embeddings', True)
        super().__init__(**kwargs)

    @property
    def image_tokens(self) -> int:
        """Image tokens: a square grid, one per ``2 ** len(stem)`` pixels."""
        return (self.image_size >> len(self.stem)) ** 2


class ConvResidual(nn.Module):
    """``x + f(x)`` with two 3x3 convolutions; group norm keeps single images well behaved."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(8, width)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to (B, C, H, W)."""
        return x + self.second(F.silu(self.norm(self.first(F.silu(x)))))


class Rays(nn.Module):
    """
    Where the cells of a picture look, and where those looks meet the floor.

    Six planes from the camera's pose: a cell's ray in the start frame (forward, left, up), how
    high the camera is, the inverse of the depth (1/m) at which the ray meets the floor (0: never)
    and the logarithm of that depth, taken as 10 m at the most.
    """

    planes = 6

    def __init__(self, cells: int, hfov: float) -> None:
        super().__init__()
        line = (torch.arange(cells) + 0.5) / cells * 2 - 1
        down, right = torch.meshgrid(line, line, indexing='ij')
        grid = math.tan(0.5 * hfov) * torch.stack([right, down])
        self.register_buffer('grid', grid, persistent=False)
        self.register_buffer('scale', (grid.square().sum(0) + 1).rsqrt(), persistent=False)

    def forward(self, camera: Tensor) -> Tensor:
        """Planes (B, 6, cells, cells) of cameras (B, 3): height m, pitch rad (down), yaw rad."""
        height, pitch, yaw = (part[..., None] for part in camera.split(1, dim=-1))
        right, down = self.grid[0], self.grid[1]
        ahead = pitch.cos() - pitch.sin() * down
        up = -pitch.sin() - pitch.cos() * down
        forward = yaw.cos() * ahead + yaw.sin() * right
        left = yaw.sin() * ahead - yaw.cos() * right
        inverse = (-up / height.clamp(min=0.1)).clamp(min=0.0)
        far = -inverse.clamp(min=0.1).log()
        return torch.stack([forward * self.scale, left * self.scale, up * self.scale,
                            (2.0 * (height - 1.5)).expand_as(up), inverse, far], dim=1)


class ConvStage(nn.Module):
    """Half the cells: a convolution, the rays of what is left, residual blocks."""

    def __init__(self, inward: int, width: int, blocks: int, cells: int, hfov: float) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inward, width, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(8, width)
        self.rays = Rays(cells, hfov)
        self.geometry = nn.Conv2d(Rays.planes, width, 1)
        self.blocks = nn.ModuleList(ConvResidual(width) for _ in range(blocks))

    def forward(self, x: Tensor, camera: Tensor) -> Tensor:
        """Apply the stage to (B, C, H, W) of cameras (B, 3)."""
        x = self.norm(self.reduce(x)) + self.geometry(self.rays(camera).to(x.dtype))
        for block in self.blocks:
            x = block(x)
        return x if self.blocks else F.silu(x)


class ConvStem(nn.Module):
    """
    Pixels (B, 3, S, S) in [-1, 1] -> image tokens (B, N, width), row by row.

    How far away something is follows from where it stands on the floor, and that from how the
    camera is held: every stage is shown the rays of its cells.  With the camera's pose among the
    words alone, distances had to be worked out by the few layers that also read the sentence.
    """

    def __init__(self, config: EgoVlmConfig) -> None:
        super().__init__()
        inward, stages = 5, []
        for n, (width, blocks) in enumerate(zip(config.stem, config.stem_blocks, strict=True)):
            stages.append(ConvStage(inward, width, blocks, config.image_size >> (n + 1),
                                    config.hfov))
            inward = width
        self.stages = nn.ModuleList(stages)
        self.out = nn.Linear(inward, config.text_config.hidden_size)
        # Where a pixel is decides what it means for a motion: two coordinate planes come along.
        line = torch.linspace(-1, 1, config.image_size)
        grid = torch.stack(torch.meshgrid(line, line, indexing='ij'))
        self.register_buffer('grid', grid[None], persistent=False)

    def forward(self, pixels: Tensor, camera: Tensor) -> Tensor:
        """Encode pixels seen by cameras (B, 3): height m, pitch rad, yaw rad."""
        x = torch.cat([pixels, self.grid.expand(pixels.shape[0], -1, -1, -1)], dim=1)
        for stage in self.stages:
            x = stage(x, camera)
        return self.out(x.flatten(2).transpose(1, 2))


class EgoVlmModel(nn.Module):
    """Stem and language model under the names that Hugging Face's families use."""

    def __init__(self, config: EgoVlmConfig) -> None:
        super().__init__()
        self.vision_tower = ConvStem(config)
        self.language_model = LlamaModel(config.text_config)


class EgoVlmForConditionalGeneration(PreTrainedModel):
    """Image + text -> next token, with attention inside the prompt in both directions."""

    config_class = EgoVlmConfig
    base_model_prefix = 'model'
    _supports_sdpa = True
    _no_split_modules = ['LlamaDecoderLayer']
    _tied_weights_keys: dict[str, str] = {}

    def __init__(self, config: EgoVlmConfig) -> None:
        super().__init__(config)
        self.model = EgoVlmModel(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.text_config.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.text_config.initializer_range)

    def get_input_embeddings(self) -> nn.Module:
        """Token embedding, shared with the output."""
        return self.model.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.model.language_model.set_input_embeddings(value)

    def get_image_features(self, pixel_values: Tensor, camera: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [-1, 1] of cameras (B, 3) -> image tokens (B, N, width)."""
        return self.model.vision_tower(pixel_values, camera)

    def forward(self, input_ids: Tensor, pixel_values: Tensor, camera: Tensor,
                attention_mask: Tensor | None = None, **kwargs: Any) -> CausalLMOutputWithPast:
        """
        Logits over the text vocabulary for ``[image tokens, input_ids]``.

        ``camera`` (B, 3): height m, pitch rad (down), yaw rad.
        """
        embeds = torch.cat([self.get_image_features(pixel_values, camera),
                            self.get_input_embeddings()(input_ids)], dim=1)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        images = attention_mask.new_ones(len(input_ids), embeds.shape[1] - input_ids.shape[1])
        out = self.model.language_model(
            inputs_embeds=embeds, attention_mask=torch.cat([images, attention_mask], 1), **kwargs)
        logits = out.last_hidden_state @ self.get_input_embeddings().weight.T
        return CausalLMOutputWithPast(logits=logits, hidden_states=out.hidden_states,
                                      past_key_values=out.past_key_values)


AutoConfig.register('egomotion_vlm', EgoVlmConfig)
AutoModelForImageTextToText.register(EgoVlmConfig, EgoVlmForConditionalGeneration)
