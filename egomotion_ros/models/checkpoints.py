# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints: ``config.json`` (kind and sizes) beside ``model.safetensors``; nothing unpickles.

Files are written to a temporary name and renamed, so that an interrupted save leaves the last
good checkpoint in place.
"""

from __future__ import annotations

from dataclasses import asdict
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
import torch
from torch import nn

from egomotion_ros.models.autoencoder import AutoencoderConfig, MotionAutoencoder
from egomotion_ros.models.evaluator import EvaluatorConfig, MotionEvaluator
from egomotion_ros.models.generator import GeneratorConfig, MotionGenerator
from egomotion_ros.models.naming import NamingConfig, NamingHead
from egomotion_ros.models.reasoner import Reasoner, ReasonerConfig
from egomotion_ros.models.tokenizer import MotionTokenizer, TokenizerConfig

#: Stage name -> (configuration class, module class).
KINDS: dict[str, tuple[type, type[nn.Module]]] = {
    'tokenizer': (TokenizerConfig, MotionTokenizer),
    'autoencoder': (AutoencoderConfig, MotionAutoencoder),
    'reasoner': (ReasonerConfig, Reasoner),
    'generator': (GeneratorConfig, MotionGenerator),
    'evaluator': (EvaluatorConfig, MotionEvaluator),
    'naming': (NamingConfig, NamingHead),
}


#: Weights of a file of more bytes than this are not read into memory but mapped from it, so that
#: billions are not held twice: the file must then stay as it is while the model is used.
MAPPED = 2**30


def build(kind: str, settings: dict[str, Any]) -> nn.Module:
    """Make a model of ``kind`` with the given sizes; ValueError names an unknown key or kind."""
    if kind not in KINDS:
        raise ValueError(f'model kind {kind!r}: expected one of {", ".join(KINDS)}')
    config_class, model_class = KINDS[kind]
    try:
        return model_class(config_class(**settings))
    except TypeError as error:
        raise ValueError(f'{kind} configuration: {error}') from error


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write tensors to ``path`` as safetensors, atomically."""
    temporary = path.with_name(path.name + '.part')
    written: dict[str, torch.Tensor] = {}
    memory: set[int] = set()
    for name, value in tensors.items():
        value = value.detach().cpu().contiguous()
        # The format knows no shared memory; copies of what is not shared would double billions.
        if value.untyped_storage().data_ptr() in memory:
            value = value.clone()
        memory.add(value.untyped_storage().data_ptr())
        written[name] = value
    try:
        save_file(written, str(temporary))
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f'cannot write {path}: {error}') from error


def save_json(value: Any, path: Path) -> None:
    """Write JSON to ``path``, atomically."""
    temporary = path.with_name(path.name + '.part')
    try:
        temporary.write_text(json.dumps(value, indent=2) + '\n', encoding='utf-8')
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f'cannot write {path}: {error}') from error


def save_model(model: nn.Module, kind: str, folder: Path,
               weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write ``model`` (or ``weights`` under its configuration) to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_json({'kind': kind, 'model': asdict(model.config)}, folder / 'config.json')
    save_tensors(model.state_dict() if weights is None else weights, folder / 'model.safetensors')


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read safetensors; ValueError says when the file is truncated or corrupt."""
    if not path.is_file():
        raise ValueError(f'{path}: no such checkpoint file')
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f'{path}: truncated or corrupt checkpoint ({error})') from error


def load_model(folder: Path, kind: str | None = None) -> nn.Module:
    """
    Read a checkpoint folder into a model in evaluation mode.

    Grounding heads that an earlier reasoner lacks are as good as new: nothing but training reads
    them.  ValueError when a file is missing, corrupt, of another ``kind`` or of other sizes.
    """
    folder = Path(folder)
    try:
        described = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
        found, settings = described['kind'], described['model']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{folder}: no readable config.json ({error})') from error
    if kind is not None and found != kind:
        raise ValueError(f'{folder}: holds a {found}, expected a {kind}')
    model = build(found, settings)
    own = model.state_dict()
    fresh = {name: value for name, value in own.items()
             if found == 'reasoner' and name.startswith('grounding.')}
    saved = {name: value.to(own[name].dtype) if name in own else value
             for name, value in load_tensors(folder / 'model.safetensors').items()}
    mapped = (folder / 'model.safetensors').stat().st_size > MAPPED
    try:
        model.load_state_dict({**fresh, **saved}, assign=mapped)
    except RuntimeError as error:
        raise ValueError(f'{folder}: weights do not fit config.json: {error}') from error
    if mapped and isinstance(model, Reasoner):
        model.vlm.tie_weights()  # tables that are one were read as two
    return model.eval()


def start_from(model: nn.Module, folder: Path, kind: str) -> None:
    """
    Give ``model`` the weights of a checkpoint folder; what that one lacks stays as it is.

    Raises ValueError when the checkpoint is unreadable, of another ``kind`` or of other sizes.
    """
    saved = load_model(folder, kind).state_dict()
    own = model.state_dict()
    try:
        model.load_state_dict({**own, **{k: v for k, v in saved.items() if k in own}})
    except RuntimeError as error:
        raise ValueError(f'{folder}: weights of other sizes than asked for: {error}') from error
