# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Torch as a backend of a bundle: for GPUs without TensorRT, and the last resort elsewhere.

It runs the bundle's own ONNX graphs and weights, operator by operator, so that no checkpoint is
needed.  On a GPU, or where asked for, each graph is compiled as a whole (``torch.compile``, CUDA
graphs on a GPU).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper
import torch
from torch import Tensor, nn

from egomotion_ros.bundle import GraphSpec
from egomotion_ros.runtimes.base import Runtime
from egomotion_ros.runtimes.torch_ops import operator


class OnnxModule(nn.Module):
    """An ONNX graph with static shapes as a torch module; weights are buffers."""

    def __init__(self, path: Path) -> None:
        """Read a graph file; ValueError when it is none or has an operator unknown here."""
        super().__init__()
        try:
            graph = onnx.load(path).graph
        except Exception as error:  # protobuf, onnx and the file system raise unrelated classes
            raise ValueError(f'{path}: no readable ONNX graph ({error})') from None
        constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        for number, array in enumerate(constants.values()):
            self.register_buffer(f'constant_{number}', _tensor(array))
        self._constants = list(constants)
        self.inputs = [item.name for item in graph.input]
        self.outputs = [item.name for item in graph.output]
        self._steps = []
        for node in graph.node:
            try:
                work = operator(node, constants)
            except ValueError as error:
                raise ValueError(f'{path}: {error}') from None
            self._steps.append((work, list(node.input), list(node.output)))

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """Run the graph: inputs and outputs in the order of the file."""
        values: dict[str, Tensor | None] = {'': None}
        for number, name in enumerate(self._constants):
            values[name] = getattr(self, f'constant_{number}')
        values.update(zip(self.inputs, arrays, strict=True))
        for work, inputs, outputs in self._steps:
            found = work(*(values[name] for name in inputs))
            if isinstance(found, Tensor):
                values[outputs[0]] = found
            else:
                values.update(zip(outputs, found, strict=True))
        return tuple(values[name] for name in self.outputs)


def _tensor(array: np.ndarray) -> Tensor:
    """Copy an array (over a file's bytes it is read-only), bfloat16 included, into a tensor."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def _with_code_of_its_own(module: OnnxModule, name: str) -> Callable[..., tuple[Tensor, ...]]:
    """
    Give a function that runs ``module`` and shares its code with no other graph's.

    The compiler keeps what it made by code object, eight of them at most: graphs that share one
    are taken for ever new inputs of a single function.
    """
    def run(*arrays: Tensor) -> tuple[Tensor, ...]:
        return module(*arrays)
    label = f'run_{name}'
    return FunctionType(run.__code__.replace(co_name=label), run.__globals__, label, None,
                        run.__closure__)


class BundleTorchRuntime(Runtime):
    """
    Runs the graphs of a bundle in torch, on the first GPU where torch has one.

    ``device`` says where.
    """

    name = 'torch'

    def __init__(self, specs: Mapping[str, GraphSpec], threads: int = 2,
                 compiled: bool | None = None) -> None:
        """
        Load the graphs; ``compiled`` defaults to true on a GPU, false on a CPU.

        Compilation happens at the first run of a graph: ``warm_up`` of the pipeline, or a
        RuntimeError there when this machine has no compiler.  Raises ValueError for fewer than
        one thread or a graph that does not load.
        """
        super().__init__(specs)
        if threads < 1:
            raise ValueError(f'threads must be at least 1, got {threads}')
        torch.set_num_threads(threads)
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self._order = {}
        self._graphs = {}
        for name, spec in self.specs.items():
            module = OnnxModule(spec.path).eval().to(self.device)
            self._order[name] = module.inputs, module.outputs
            if self.device == 'cuda' if compiled is None else compiled:
                # CUDA graphs on a GPU: a launch a graph instead of one an operator.
                module = torch.compile(
                    _with_code_of_its_own(module, name), fullgraph=True, dynamic=False,
                    mode='reduce-overhead' if self.device == 'cuda' else 'default')
            self._graphs[name] = module

    def _run(self, graph: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        module = self._graphs.get(graph)
        if module is None:
            raise RuntimeError('the torch graphs are closed')
        inputs, outputs = self._order[graph]
        try:
            with torch.inference_mode():
                found = module(*(torch.from_numpy(np.array(arrays[name])).to(self.device)
                                 for name in inputs))
                # Copies: a CUDA graph writes into the same outputs again.
                return {name: value.cpu().numpy().copy()
                        for name, value in zip(outputs, found, strict=True)}
        except Exception as error:  # what the compiler raises has no root but this one
            raise RuntimeError(f'torch failed to run {graph} on {self.device}: {error}') from error

    def close(self) -> None:
        """Let go of the graphs and their memory."""
        self._graphs.clear()
        if self.device == 'cuda':
            torch.cuda.empty_cache()
