# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Sizes of the pretrained families as published, for measurements with random weights."""

from __future__ import annotations

from typing import Any

#: Sizes as published with the weights of the families.
MODELS: dict[str, dict[str, Any]] = {
    'qwen3_vl_2b': {
        'layer': 28, 'image_size': 256, 'text_vocabulary': 151_669, 'vlm': {
            'model_type': 'qwen3_vl', 'tie_word_embeddings': True,
            'vision_config': {
                'model_type': 'qwen3_vl_vision', 'depth': 24, 'hidden_size': 1024,
                'intermediate_size': 4096, 'num_heads': 16, 'out_hidden_size': 2048,
                'deepstack_visual_indexes': [5, 11, 17]},
            'text_config': {
                'model_type': 'qwen3_vl_text', 'vocab_size': 151_936, 'hidden_size': 2048,
                'intermediate_size': 6144, 'num_hidden_layers': 28, 'num_attention_heads': 16,
                'num_key_value_heads': 8, 'head_dim': 128, 'rope_parameters': {
                    'rope_type': 'default', 'rope_theta': 5e6, 'mrope_interleaved': True,
                    'mrope_section': [24, 20, 20]}}}},
    'paligemma2_3b': {
        'layer': 26, 'text_vocabulary': 257_152, 'vlm': {
            'model_type': 'paligemma', 'projection_dim': 2304, 'image_token_id': 257_152,
            'vision_config': {
                'model_type': 'siglip_vision_model', 'hidden_size': 1152,
                'intermediate_size': 4304, 'num_hidden_layers': 27, 'num_attention_heads': 16,
                'image_size': 224, 'patch_size': 14, 'vision_use_head': False},
            'text_config': {
                'model_type': 'gemma2', 'vocab_size': 257_216, 'hidden_size': 2304,
                'intermediate_size': 9216, 'num_hidden_layers': 26, 'num_attention_heads': 8,
                'num_key_value_heads': 4, 'head_dim': 256, 'query_pre_attn_scalar': 256}}},
}
