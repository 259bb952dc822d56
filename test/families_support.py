# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The four reasoner families as tiny random models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

_TEXT = {'hidden_size': 32, 'intermediate_size': 48, 'num_hidden_layers': 3,
         'num_attention_heads': 2, 'num_key_value_heads': 1, 'vocab_size': 64}
#: Name -> Hugging Face configuration; three layers, of which a reasoner keeps two.
FAMILIES: dict[str, dict[str, Any]] = {
    'default': {'model_type': 'egomotion_vlm', 'image_size': 32, 'stem': [16, 16, 16],
                'text_config': _TEXT},
    'paligemma2': {
        'model_type': 'paligemma', 'projection_dim': 32, 'image_token_id': 63,
        'vision_config': {'model_type': 'siglip_vision_model', 'hidden_size': 16,
                          'intermediate_size': 32, 'num_hidden_layers': 1,
                          'num_attention_heads': 2, 'image_size': 32, 'patch_size': 8,
                          'projection_dim': 32},
        'text_config': {'model_type': 'gemma2', 'head_dim': 16, **_TEXT}},
    'qwen3_vl': {
        'model_type': 'qwen3_vl', 'image_token_id': 60, 'video_token_id': 61,
        'vision_start_token_id': 62, 'vision_end_token_id': 63,
        'vision_config': {'model_type': 'qwen3_vl_vision', 'hidden_size': 16, 'depth': 2,
                          'intermediate_size': 32, 'num_heads': 2, 'patch_size': 4,
                          'spatial_merge_size': 2, 'temporal_patch_size': 2,
                          'out_hidden_size': 32, 'num_position_embeddings': 16,
                          'deepstack_visual_indexes': [0]},
        'text_config': {'model_type': 'qwen3_vl_text', 'head_dim': 16, **_TEXT,
                        'rope_parameters': {'rope_type': 'default', 'rope_theta': 10000.0,
                                            'mrope_section': [4, 2, 2],
                                            'mrope_interleaved': True}}},
    'smolvlm2': {
        'model_type': 'smolvlm', 'image_token_id': 63, 'scale_factor': 2,
        'vision_config': {'model_type': 'smolvlm_vision', 'hidden_size': 16,
                          'intermediate_size': 32, 'num_hidden_layers': 1,
                          'num_attention_heads': 2, 'image_size': 32, 'patch_size': 4},
        'text_config': {'model_type': 'llama', 'pad_token_id': 0, **_TEXT}},
}
IMAGE = 32


def tiny_reasoner(family: str, layer: int = 2, **settings: Any):
    """Random weights, large enough that every part is heard in the answer."""
    from egomotion_ros.models.reasoner import Reasoner, ReasonerConfig
    torch.manual_seed(0)
    size = {'image_size': IMAGE} if family == 'qwen3_vl' else {}
    reasoner = Reasoner(ReasonerConfig(
        vlm=FAMILIES[family], layer=layer, codes=16, levels=3, text_tokens=6,
        text_vocabulary=60, **size, **settings)).eval()
    with torch.no_grad():
        for name, weight in reasoner.named_parameters():
            if weight.ndim > 1 and 'lora' not in name:
                weight.mul_(3.0)
    return reasoner


def tiny_prompt(batch: int = 2) -> tuple[torch.Tensor, ...]:
    """Pixels, text, mask and camera for the tiny reasoners."""
    random = torch.Generator().manual_seed(1)
    return (torch.rand(batch, 3, IMAGE, IMAGE, generator=random) * 2 - 1,
            torch.randint(0, 59, (batch, 6), generator=random),
            torch.tensor([[True] * 4 + [False] * 2] * batch),
            torch.tensor([[1.5, 0.3, 0.0]] * batch))


def pretrained_folder(settings: dict[str, Any], folder: Path) -> Any:
    """A whole tiny model in the hub's layout, with a tokenizer made here; returns the model."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import (
        AutoConfig,
        AutoModelForImageTextToText,
        PreTrainedTokenizerFast,
    )
    settings = dict(settings)
    torch.manual_seed(0)
    whole = AutoModelForImageTextToText.from_config(
        AutoConfig.for_model(settings.pop('model_type'), **settings)).eval()
    whole.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(
        {'[unk]': 0, 'walk': 1, 'to': 2, 'the': 3, 'ball': 4, '[fill]': 5}, unk_token='[unk]'))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token='[fill]').save_pretrained(folder)
    (folder / 'preprocessor_config.json').write_text(json.dumps(
        {'image_mean': [0.4, 0.5, 0.6], 'image_std': [0.2, 0.3, 0.1]}))
    return whole
