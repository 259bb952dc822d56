# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints of a bundle: what a bundle was exported from, to train on from there.

The models of the manifest are made with weights that are all different numbers and traced as
export does.  Whatever number then turns up in a graph says which weight stands at that place of
the bundle.  What export computes from weights is undone (:func:`_computed`).  The grounding heads
of stage 1 are in no graph: they start afresh, but for what a generator's aim holds of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
import torch
from torch import Tensor, nn
from tqdm import tqdm

from egomotion_ros.bundle import Bundle
from egomotion_ros.models.checkpoints import build
from egomotion_ros.models.generator import MotionGenerator
from egomotion_ros.runtimes.export import Models, trace
from egomotion_ros.runtimes.export_graphs import graph_modules
from egomotion_ros.runtimes.export_lean import lean_graphs
from egomotion_ros.text import TextEncoder

#: Bit pattern of the first number: 0.5; there are 2 ** 24 further ones below 2.
_FIRST, _COUNT = 0x3F000000, 1 << 24
_KINDS = ('reasoner', 'generator', 'autoencoder')
#: Weights that no graph holds.
_LEFT_OUT = 'grounding.'


def restore_models(bundle: Bundle, progress: bool = True) -> Models:
    """
    Give the models a bundle was exported from, up to the rounding of what export computes.

    Raises ValueError where a weight is not to be found: the bundle is of another version of the
    package or its libraries, of another precision, or of models too large for this.
    """
    models = {}
    for kind in _KINDS:
        try:
            models[kind] = build(kind, dict(bundle.manifest['models'][kind])).eval()
        except KeyError:
            raise ValueError(f'the manifest does not describe the {kind}') from None
    heads = {name: value.clone() for name, value in models['reasoner'].state_dict().items()
             if name.startswith(_LEFT_OUT)}
    tensors = [value for model in models.values() for value in model.state_dict().values()
               if value.is_floating_point()]
    number = _number(tensors)
    graphs = lean_graphs(graph_modules(*models.values(), bundle.camera.width))
    marked, found = {}, {}
    for name, graph in tqdm(graphs.items(), desc='restore', disable=not progress):
        here = _initializers_of(trace(graph))
        there = _initializers_in(bundle.graphs[name].path)
        for key, value in here.items():
            # Constants of one number come and go with folding; no weight is one.
            if value.size > 1 and key in there and there[key].shape == value.shape:
                marked[name, key], found[name, key] = value, there[key]
    computed = [(_same(tensor, marked), tensor.shape, undo)
                for tensor, undo in _computed(models['generator'])]
    answer = np.full(number, np.nan, np.float32)
    for place in marked.keys() - {place for place, _, _ in computed}:
        index = marked[place].ravel().view(np.int32).astype(np.int64) - _FIRST
        # Weights and nothing else: a constant may by chance look like one of them.
        if index.min() >= 0 and index.max() < number and len(np.unique(index)) == len(index):
            answer[index] = found[place].ravel()
    for place, shape, undo in computed:
        undo(found[place].reshape(shape), answer)
    _fill(models, answer, heads)
    if models['generator'].aim is not None:
        # What the generator read with the reasoner's heads it still has.
        models['generator'].aim.give(models['reasoner'].grounding)
    text = TextEncoder.open(bundle.text_path, models['reasoner'].config.text_tokens)
    return Models(*models.values(), text, dict(bundle.manifest['provenance']))


def _number(tensors: list[Tensor]) -> int:
    """Make every number of ``tensors`` another one, in order; their count."""
    total = sum(value.numel() for value in tensors)
    if total > _COUNT:
        raise ValueError(f'{total} weights are more than can be told apart ({_COUNT})')
    numbers = torch.from_numpy(np.arange(_FIRST, _FIRST + total, dtype=np.int32).view(np.float32))
    done = 0
    for value in tensors:
        if value.dtype != torch.float32:
            raise ValueError('only fp32 models can be restored')
        value.copy_(numbers[done:done + value.numel()].reshape(value.shape))
        done += value.numel()
    return total


def _places(tensor: Tensor) -> np.ndarray:
    """Which numbers a numbered tensor holds."""
    return tensor.detach().numpy().ravel().view(np.int32).astype(np.int64) - _FIRST


def _computed(generator: MotionGenerator
              ) -> Iterator[tuple[Tensor, Callable[[np.ndarray, np.ndarray], None]]]:
    """
    What export computes from the generator's numbered weights, and how to undo it.

    Each time a tensor as it stands in a graph, and a function of its counterpart in the bundle
    and of all weights found so far, which it completes.
    """
    with torch.no_grad():
        null = generator.state_norm(generator.null_condition(
            torch.zeros(1, 1, generator.config.state_width)))
        tables = torch.stack([block.table for block in generator.blocks])
        tables[:, [0, 3]] += 1.0
        offset = generator.inward.bias + generator.position

    def untable(value: np.ndarray, answer: np.ndarray) -> None:
        value = value.copy()
        value[:, [0, 3]] -= 1.0
        for block, rows in zip(generator.blocks, value, strict=True):
            answer[_places(block.table)] = rows.ravel()

    def shift(value: np.ndarray, answer: np.ndarray) -> None:
        answer[_places(generator.inward.bias)] = 0.0
        answer[_places(generator.position)] = value.ravel()

    yield tables, untable
    yield offset, shift
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    for block in generator.blocks:
        inner, outer = block.self_attention, block.cross_attention
        depth = len(inner.query_norm.weight)

        def plain(value: np.ndarray, answer: np.ndarray, inner: Any = inner,
                  depth: int = depth) -> None:
            # Query and key share one scale: it is given to the query.
            answer[_places(inner.query_norm.weight)] = value.ravel() * depth ** 0.5
            answer[_places(inner.key_norm.weight)] = 1.0

        def cross(value: np.ndarray, answer: np.ndarray, outer: Any = outer,
                  depth: int = depth) -> None:
            answer[_places(outer.query_norm.weight)] = value.ravel() * depth ** 0.5

        def unseen(value: np.ndarray, answer: np.ndarray, outer: Any = outer) -> None:
            # out(value(row)) of the null row: linear in the row, which all blocks share.
            pair, out = (answer[_places(layer.weight)].reshape(layer.weight.shape)
                         for layer in (outer.pair, outer.out))
            seen.append((out @ pair[len(pair) // 2:], value.ravel()))
            if len(seen) == len(generator.blocks):
                matrix, right = (np.concatenate(parts).astype(float)
                                 for parts in zip(*seen, strict=True))
                if not (np.isfinite(matrix).all() and np.isfinite(right).all()):
                    return  # said by name below
                row = np.linalg.lstsq(matrix, right, rcond=None)[0]
                scale = answer[_places(generator.state_norm.weight)]
                answer[_places(generator.null_state)] = row / scale

        with torch.no_grad():
            _, value = outer.keys_values(null)
            yield inner.query_norm.weight * inner.key_norm.weight * depth ** -0.5, plain
            yield outer.query_norm.weight * depth ** -0.5, cross
            yield outer.out(value.reshape(1, -1)), unseen


def _same(computed: Tensor, marked: Mapping[tuple[str, str], np.ndarray]) -> tuple[str, str]:
    """Place where ``computed`` stands in the traced graphs."""
    wanted = computed.numpy()
    for place, value in marked.items():
        if value.size == wanted.size and np.allclose(value.ravel(), wanted.ravel(), rtol=1e-5,
                                                     atol=1e-6):
            return place
    raise ValueError('a weight that export computes is not where this version puts it')


def _fill(models: Mapping[str, nn.Module], answer: np.ndarray, heads: dict[str, Tensor]) -> None:
    """Put the found numbers into the models; ValueError names what was not found."""
    done = 0
    for kind, model in models.items():
        for name, value in model.state_dict().items():
            if not value.is_floating_point():
                continue
            part = answer[done:done + value.numel()]
            done += value.numel()
            if kind == 'reasoner' and name in heads:
                value.copy_(heads[name])
            elif np.isnan(part).any():
                raise ValueError(f'the graphs do not hold {name} of the {kind} where this version '
                                 'of the package or its libraries puts it')
            else:
                value.copy_(torch.from_numpy(part.reshape(value.shape)))


def _initializers_of(model: Any) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(value.const_value.numpy())
            for name, value in model.graph.initializers.items()
            if value.const_value is not None and value.const_value.numpy().dtype == np.float32}


def _initializers_in(path: Path) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item)
            for item in onnx.load(path).graph.initializer}
