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
from dataclasses import dataclass
import logging
from types import MappingProxyType

import numpy as np

from egomotion_ros.bundle import Bundle, GraphSpec

_log = logging.getLogger(__name__)

#: Backends that run on an NVIDIA GPU, fastest first, then those that run anywhere.
GPU_BACKENDS = ('tensorrt', 'tensorrt-rtx', 'onnxruntime-cuda')
BACKENDS = (*GPU_BACKENDS, 'openvino', 'onnxruntime', 'torch')
#: Those that are used on a device only once they answered there as ONNX Runtime does; torch is
#: one more where it runs on a GPU (:func:`is_proven`).
PROVEN_BACKENDS = (*GPU_BACKENDS, 'openvino')


class AbsentError(RuntimeError):
    """What a backend needs, a device or an optional package, is not here; nothing is broken."""


@dataclass(frozen=True)
class Held:
    """A tensor that stays on the device of its runtime, at ``place``, between two graphs."""

    shape: tuple[int, ...]
    dtype: str
    place: int


class Runtime(ABC):
    """
    Runs graphs.  ``name`` says which runtime it is, ``specs`` what each graph takes and gives.

    ``fallback_reason`` says why it is not a faster one (empty: it is the one that was asked for);
    ``overwritten`` counts by graph how often something was written over the answer it holds;
    ``engine_hashes`` has the SHA-256 of every engine by graph, where it runs engines.  A runtime
    is not thread safe; one pipeline owns it.
    """

    name: str
    fallback_reason: str = ''
    overwritten: Mapping[str, int] = MappingProxyType({})
    engine_hashes: Mapping[str, str] = MappingProxyType({})

    def __init__(self, specs: Mapping[str, GraphSpec]) -> None:
        self.specs = dict(specs)

    def run(self, graph: str, /, keep: frozenset[str] = frozenset(),
            **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """
        Run ``graph`` on ``arrays`` and return its outputs by name.

        Outputs in ``keep`` are only handed to a later graph: a runtime with memory of its own
        gives a :class:`Held` for them.  Raises ValueError for an unknown graph, a missing or
        surplus array, or a wrong shape or type; RuntimeError when the backend fails.
        """
        spec = self.specs.get(graph)
        if spec is not None and arrays.keys() != {item.name for item in spec.inputs}:
            raise ValueError(f'{graph} takes {[item.name for item in spec.inputs]}, '
                             f'got {list(arrays)}')
        self._check(graph, arrays)
        return self._run_keeping(graph, arrays, keep) if keep else self._run(graph, arrays)

    def _check(self, graph: str, arrays: Mapping[str, np.ndarray | Held]) -> None:
        """Raise ValueError unless ``arrays`` are inputs of ``graph``, of its shapes and types."""
        spec = self.specs.get(graph)
        if spec is None:
            raise ValueError(f'no graph {graph!r}; there are {", ".join(self.specs)}')
        wanted = {item.name: item for item in spec.inputs}
        for name, array in arrays.items():
            item = wanted.get(name)
            if item is None:
                raise ValueError(f'{graph} has no input {name!r}, but {list(wanted)}')
            if array.shape != item.shape or array.dtype != item.dtype:
                raise ValueError(f'{graph}: {name} must be {item.dtype} {item.shape}, '
                                 f'got {array.dtype} {array.shape}')

    @abstractmethod
    def _run(self, graph: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a graph on checked arrays."""

    def _run_keeping(self, graph: str, arrays: dict[str, np.ndarray],
                     keep: frozenset[str]) -> dict[str, np.ndarray]:
        """Run a graph; where host and device share memory there is nothing to keep."""
        return self._run(graph, arrays)

    def hold(self, graph: str, **arrays: np.ndarray) -> dict[str, np.ndarray | Held]:
        """
        Put inputs of ``graph`` where it reads them, for all runs until they are given anew.

        Returns what stands for them in :meth:`run`: the arrays themselves where host and device
        share memory.  Raises ValueError for an unknown graph or input, a wrong shape or type.
        """
        self._check(graph, arrays)
        return dict(arrays)

    def write_row(self, cache: np.ndarray, rows: np.ndarray, slot: int) -> None:
        """Write ``rows`` (L, 2, H, D) into slot ``slot`` of a ``cache`` (L, 2, H, slots, D)."""
        cache[:, :, :, slot] = rows

    @abstractmethod
    def close(self) -> None:
        """Free all memory; afterwards :meth:`run` raises."""


def is_proven(backend: str) -> bool:
    """Whether a backend is used here only once it answered as ONNX Runtime does."""
    if backend != 'torch':
        return backend in PROVEN_BACKENDS
    try:
        import torch
    except (ImportError, OSError):
        return False
    # Compiled there, by a compiler and for a device that no test has seen.
    return bool(torch.cuda.is_available())


def open_runtime(backend: str, bundle: Bundle, threads: int = 2) -> Runtime:
    """
    Open one of :data:`BACKENDS` on a bundle, or with ``'auto'`` the first that runs here.

    What :func:`is_proven` names is compared with ONNX Runtime at its first load on a device and
    refused when it answers otherwise.  With ``'auto'`` the reasons against the backends before
    the one that runs are logged, as a warning unless all that is missing is a device or an
    optional package, and stand in ``fallback_reason``.

    Raises ValueError for another name, fewer than one thread or a bundle that cannot be read
    (with ``'auto'``: by any of them), RuntimeError when the backend cannot run here, OSError when
    its engines cannot be kept.
    """
    if backend == 'auto':
        return _open_first(bundle, threads)
    if backend == 'onnxruntime':
        try:
            from egomotion_ros.runtimes.ort import OrtRuntime
        except ImportError as error:
            raise RuntimeError(f'ONNX Runtime cannot be loaded: {error}') from None
        return OrtRuntime(bundle.graphs, threads)
    if is_proven(backend):
        try:
            from egomotion_ros.runtimes.proof import open_proven
        except ImportError as error:
            raise RuntimeError('nothing to compare it with, ONNX Runtime cannot be loaded: '
                               f'{error}') from None
        return open_proven(backend, bundle, threads)
    if backend == 'torch':
        return open_torch(bundle, threads)
    raise ValueError(f"backend {backend!r}, expected 'auto' or one of {', '.join(BACKENDS)}")


def open_torch(bundle: Bundle, threads: int) -> Runtime:
    """Open torch, proven or not; RuntimeError when its packages are missing."""
    try:
        from egomotion_ros.runtimes.torch_graphs import BundleTorchRuntime
    except ImportError as error:
        raise RuntimeError(f'backend torch needs the training packages: {error}') from None
    return BundleTorchRuntime(bundle.graphs, threads)


def _open_first(bundle: Bundle, threads: int) -> Runtime:
    from egomotion_ros.runtimes.gpu import probe_gpu
    reasons: list[str] = []
    level = logging.INFO
    kind: type[Exception] = RuntimeError
    waiting = list(BACKENDS)
    try:
        probe_gpu()
    except RuntimeError as error:
        waiting = [name for name in BACKENDS if name not in GPU_BACKENDS]
        reasons.append(f'{", ".join(GPU_BACKENDS)}: {error}')
        level = _gravity(error, level)
    for name in waiting:
        try:
            runtime = open_runtime(name, bundle, threads)
        except (RuntimeError, OSError, ValueError) as error:
            # A session that does not open, a cache that cannot be written: the next may run.
            reasons.append(f'{name}: {error}')
            level = _gravity(error, level)
            kind = ValueError if isinstance(error, ValueError) else kind
            continue
        runtime.fallback_reason = '; '.join(reasons)
        if reasons:
            _log.log(level, 'the models run on %s because of %s', name, runtime.fallback_reason)
        return runtime
    raise kind('no backend runs here: ' + '; '.join(reasons))


def _gravity(error: Exception, level: int) -> int:
    """Level of the log once ``error`` is among the reasons."""
    return level if isinstance(error, AbsentError) else logging.WARNING
