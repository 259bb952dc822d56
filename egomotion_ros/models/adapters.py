# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) of a reasoner's decoder, with peft.

Everything pretrained is frozen; the adapters, the primitives and all heads of the reasoner learn.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

#: Linear layers of a decoder block, by the names that all families use.
TARGETS = ('q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj')


def add_lora(vlm: nn.Module, language: nn.Module, settings: Mapping[str, float]) -> None:
    """
    Freeze ``vlm`` and put adapters of ``rank`` and ``alpha`` into its decoder ``language``.

    A fresh adapter answers zero, so that nothing changes at first.  Raises ValueError for other
    settings, or when peft is missing.
    """
    if set(settings) - {'rank', 'alpha'} or int(settings.get('rank', 0)) < 1:
        raise ValueError(f'lora takes rank (at least 1) and alpha, got {dict(settings)}')
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("lora needs peft: pip install '.[train]' in the checkout") from error
    rank = int(settings['rank'])
    for parameter in vlm.parameters():
        parameter.requires_grad_(False)
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=settings.get('alpha', 2 * rank), lora_dropout=0.0,
                   target_modules=list(TARGETS)), language)


def merge_lora(language: nn.Module) -> None:
    """Add every adapter to the weights below it and take it out."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    for name, module in list(language.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition('.')
            setattr(language.get_submodule(parent), child, module.get_base_layer())
