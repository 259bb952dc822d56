# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Graphs that no bundle names (parts, peers, other sizes) on the runtimes of a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto

from egomotion_ros.bundle import GraphSpec, TensorSpec
from egomotion_ros.runtimes.base import Runtime
from egomotion_ros.runtimes.timing import made_up_inputs

#: Backends whose kernels, threads and memory the figures of a CPU are about.
CPU_BACKENDS = ('openvino', 'onnxruntime')


def open_graphs(backend: str, specs: Mapping[str, GraphSpec], threads: int) -> Runtime:
    """Open any graphs on one of :data:`CPU_BACKENDS`, with the package's own settings."""
    if backend == 'openvino':
        from egomotion_ros.runtimes.openvino import OpenVinoRuntime
        return OpenVinoRuntime(specs, threads)
    from egomotion_ros.runtimes.ort import OrtRuntime
    return OrtRuntime(specs, threads)


def part_action(model: ModelProto, threads: int, backend: str) -> Callable[[], object]:
    """Return a call that runs ``model`` on made-up inputs."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / 'part.onnx'
        onnx.save(model, path)
        spec = GraphSpec('part', path, '', model.opset_import[0].version,
                         _tensors(model.graph.input), _tensors(model.graph.output))
        runtime = open_graphs(backend, {'part': spec}, threads)
    inputs = made_up_inputs(runtime)['part']
    return lambda: runtime.run('part', **inputs)


def _tensors(values: list[ValueInfoProto]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(
        item.name, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(
            item.type.tensor_type.elem_type)).name,
        tuple(size.dim_value for size in item.type.tensor_type.shape.dim)) for item in values)
