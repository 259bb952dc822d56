# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
One interface for everything that runs the graphs of a bundle.

A runtime turns named arrays into named arrays, graph by graph; the loops that string graphs
together (decoding, the flow) are in :mod:`egomotion_ros.runtimes.loops` and are the same for all
of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from egomotion_ros.bundle import Bundle, GraphSpec


class Runtime(ABC):
    """
    Runs graphs.  ``name`` says which runtime it is, ``specs`` what each graph takes and gives.

    A runtime is not thread safe; one pipeline owns it.
    """

    name: str

    def __init__(self, specs: Mapping[str, GraphSpec]) -> None:
        self.specs = dict(specs)

    def run(self, graph: str, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """
        Run ``graph`` on ``arrays`` and return its outputs by name.

        Raises ValueError for an unknown graph, a missing or surplus array, or a wrong shape or
        type; RuntimeError when the backend fails.
        """
        spec = self.specs.get(graph)
        if spec is None:
            raise ValueError(f'no graph {graph!r}; there are {", ".join(self.specs)}')
        if len(arrays) != len(spec.inputs):
            raise ValueError(f'{graph} takes {[item.name for item in spec.inputs]}, '
                             f'got {list(arrays)}')
        for item in spec.inputs:
            array = arrays.get(item.name)
            if array is None or array.shape != item.shape or array.dtype != item.dtype:
                found = 'nothing' if array is None else f'{array.dtype} {array.shape}'
                raise ValueError(f'{graph}: {item.name} must be {item.dtype} {item.shape}, '
                                 f'got {found}')
        return self._run(graph, arrays)

    @abstractmethod
    def _run(self, graph: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a graph on checked arrays."""

    @abstractmethod
    def close(self) -> None:
        """Free all memory; afterwards :meth:`run` raises."""


def open_runtime(backend: str, bundle: Bundle, threads: int = 2) -> Runtime:
    """
    Open ``'onnxruntime'`` (CPU, ``threads`` threads) or ``'tensorrt'`` (NVIDIA GPU) on a bundle.

    Raises ValueError for another name, RuntimeError when the backend cannot run here.
    """
    if backend == 'onnxruntime':
        from egomotion_ros.runtimes.ort import OrtRuntime
        return OrtRuntime(bundle.graphs, threads)
    if backend == 'tensorrt':
        from egomotion_ros.runtimes.tensorrt import TensorRtRuntime
        return TensorRtRuntime(bundle)
    raise ValueError(f"backend {backend!r}, expected 'onnxruntime' or 'tensorrt'")
