# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Eager torch behind the runtime interface: the reference of parity checks and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from egomotion_ros.bundle import Bundle, GraphSpec, TensorSpec
from egomotion_ros.models.checkpoints import build
from egomotion_ros.runtimes.base import Runtime
from egomotion_ros.runtimes.export_graphs import Graph, graph_modules


class TorchRuntime(Runtime):
    """Runs the graph modules themselves, on the CPU."""

    name = 'torch'

    def __init__(self, graphs: Mapping[str, Graph]) -> None:
        super().__init__({name: graph_spec(name, graph) for name, graph in graphs.items()})
        self._graphs = dict(graphs)

    def _run(self, graph: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        module = self._graphs[graph]
        with torch.inference_mode():
            outputs = module(*(torch.from_numpy(np.ascontiguousarray(arrays[name]))
                               for name in module.inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {name: value.numpy() for name, value in zip(module.outputs, outputs, strict=True)}

    def close(self) -> None:
        """Let go of the modules."""
        self._graphs.clear()


def graph_spec(name: str, graph: Graph, path: Path = Path(), sha256: str = '',
               opset: int = 0) -> GraphSpec:
    """Return the tensors a graph takes and gives, found by running its example."""
    example = graph.example()
    with torch.inference_mode():
        outputs = graph(*example)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)

    def describe(names: tuple[str, ...], values: tuple[torch.Tensor, ...]) \
            -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(label, str(value.dtype).removeprefix('torch.'),
                                tuple(value.shape)) for label, value
                     in zip(names, values, strict=True))

    return GraphSpec(name, path, sha256, opset, describe(graph.inputs, example),
                     describe(graph.outputs, outputs))


def modules_of(bundle: Bundle, batched: bool = True) -> dict[str, Graph]:
    """
    Return graph modules of the sizes a bundle states, with random weights, to compare speed.

    They draw as many candidates at once as the bundle's graphs do, or one after the other.
    Raises ValueError when its manifest does not tell the sizes.
    """
    try:
        parts = [build(kind, bundle.manifest['models'][kind]).eval()
                 for kind in ('reasoner', 'generator', 'autoencoder')]
    except (KeyError, TypeError) as error:
        raise ValueError(f'{bundle.directory}: the manifest does not tell the sizes of the '
                         f'models ({error})') from None
    return graph_modules(*parts, bundle.camera.width, bundle.batch if batched else 1)
