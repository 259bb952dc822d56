# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The small vision-language model that ships: a convolutional stem in front of a Llama decoder.

It is registered with Hugging Face's auto classes, so that
``AutoModelForImageTextToText.from_config`` makes it like PaliGemma2 or any other family.  A
convolutional stem grounds objects where a plain vision transformer of this size does not.
"""

from __future__ import annotations

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
    """Sizes: ``image_size`` in pixels, ``stem`` channel widths, ``text_config`` for Llama."""

    model_type = 'egomotion_vlm'
    sub_configs = {'text_config': LlamaConfig}

    def __init__(self, image_size: int = 128, stem: tuple[int, ...] = (32, 64, 96, 160),
                 text_config: dict[str, Any] | LlamaConfig | None = None, **kwargs: Any) -> None:
        self.image_size = image_size
        self.stem = list(stem)
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


class ConvStem(nn.Module):
    """Pixels (B, 3, S, S) in [-1, 1] -> image tokens (B, N, width), row by row."""

    def __init__(self, widths: list[int], image_size: int, out: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        inward = 5
        for n, width in enumerate(widths):
            stages += [nn.Conv2d(inward, width, 3, stride=2, padding=1), nn.GroupNorm(8, width)]
            # The first stages see most pixels and need least depth.
            stages += [nn.SiLU()] if n == 0 else [ConvResidual(width)]
            inward = width
        self.stages = nn.Sequential(*stages)
        self.out = nn.Linear(inward, out)
        # Where a pixel is decides what it means for a motion: two coordinate planes come along.
        line = torch.linspace(-1, 1, image_size)
        grid = torch.stack(torch.meshgrid(line, line, indexing='ij'))
        self.register_buffer('grid', grid[None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pixels."""
        x = torch.cat([pixels, self.grid.expand(pixels.shape[0], -1, -1, -1)], dim=1)
        return self.out(self.stages(x).flatten(2).transpose(1, 2))


class EgoVlmModel(nn.Module):
    """Stem and language model under the names that Hugging Face's families use."""

    def __init__(self, config: EgoVlmConfig) -> None:
        super().__init__()
        self.vision_tower = ConvStem(config.stem, config.image_size,
                                     config.text_config.hidden_size)
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

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [-1, 1] -> image tokens (B, N, width)."""
        return self.model.vision_tower(pixel_values)

    def forward(self, input_ids: Tensor, pixel_values: Tensor,
                attention_mask: Tensor | None = None, **kwargs: Any) -> CausalLMOutputWithPast:
        """Logits over the text vocabulary for ``[image tokens, input_ids]``."""
        embeds = torch.cat([self.get_image_features(pixel_values),
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
