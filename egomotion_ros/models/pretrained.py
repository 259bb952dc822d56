# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A reasoner around pretrained weights: a Hugging Face hub id, or a folder in the hub's layout.

The tokenizer comes along as the JSON of the ``tokenizers`` library, so that no runtime needs
transformers; what the processor does to pixels goes into the reasoner's configuration, and from
there into the exported graph.
"""

from __future__ import annotations

from dataclasses import replace
import json
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
from transformers.image_processing_utils import BaseImageProcessor

from egomotion_ros.models.checkpoints import build
from egomotion_ros.models.families import make_family
from egomotion_ros.models.reasoner import Reasoner, ReasonerConfig, stated_layers
from egomotion_ros.text import TextEncoder


def from_pretrained(source: str, settings: dict[str, Any]) -> tuple[Reasoner, TextEncoder]:
    """
    Return a reasoner around the weights of ``source``, and its text encoder.

    ``settings`` are those of :class:`ReasonerConfig`; ``vlm``, ``text_vocabulary``,
    ``image_mean`` and ``image_std`` come from the source.  Layers above the stated one are not
    read.  Raises ValueError when the source is not found, or of no known family.
    """
    try:
        hf_config = AutoConfig.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
        processor, _ = BaseImageProcessor.get_image_processor_dict(source)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(f'{source}: no model with tokenizer and processor ({error})') from None
    make_family(hf_config, int(settings.get('image_size', 0)))
    text = text_encoder(tokenizer, int(settings.get('text_tokens', ReasonerConfig.text_tokens)))
    vlm = json.loads(hf_config.to_json_string(use_diff=False))
    config = ReasonerConfig(**settings, vlm=vlm)
    config = replace(config, text_vocabulary=text.size, image_mean=processor.get('image_mean'),
                     image_std=processor.get('image_std'))
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            source, config=stated_layers(config), dtype='float32')
    except (OSError, RuntimeError) as error:
        raise ValueError(f'{source}: weights that do not fit ({error})') from None
    return Reasoner(config, model), text


def start_reasoner(settings: dict[str, Any], decoder: str = 'autoregressive'
                   ) -> tuple[Reasoner, TextEncoder | None]:
    """
    Make the reasoner that a training run starts from, and its text encoder where it brings one.

    ``settings`` is the section ``model`` of the run's YAML: sizes for random weights, or
    ``pretrained`` (see :func:`from_pretrained`) beside the other settings.  Raises ValueError for
    settings that do not fit.
    """
    settings = {'decoder': decoder, **settings}
    source = settings.pop('pretrained', None)
    if source is None:
        return build('reasoner', settings), None
    try:
        return from_pretrained(str(source), settings)
    except TypeError as error:
        raise ValueError(f'reasoner configuration: {error}') from error


def text_encoder(tokenizer: Any, length: int) -> TextEncoder:
    """
    Turn a Hugging Face tokenizer into the encoder that training and runtimes share.

    Raises ValueError for a tokenizer without a ``tokenizers`` backend.
    """
    backend = getattr(tokenizer, 'backend_tokenizer', None)
    if backend is None:
        raise ValueError(f'{type(tokenizer).__name__} has no tokenizers backend')
    own = Tokenizer.from_str(backend.to_str())
    pad = tokenizer.pad_token_id
    # Padding is masked: any token serves where a family has none for it.
    pad = 0 if pad is None else int(pad)
    own.enable_padding(pad_id=pad, pad_token=own.id_to_token(pad))
    return TextEncoder(own, length)
