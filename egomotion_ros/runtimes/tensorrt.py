# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
TensorRT and TensorRT-RTX behind the runtime interface, for NVIDIA GPUs.

Built, never run: engines are built in the tests with TensorRT-RTX, which needs no GPU for it, and
the logic here runs in them on a stand-in for the device; no engine has been run on a GPU by the
authors.  ``egomotion verify --backend tensorrt`` is the check to run first on such a machine.

All memory is taken once.  A call writes its inputs into pinned memory and launches one CUDA graph
(upload, engine, download) on one stream; what a later graph reads, or the next step of the flow,
stays on the device, and what all steps read is sent once a plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
import hashlib
import logging
from pathlib import Path
import tempfile
from types import MappingProxyType
from typing import Any

import numpy as np

from egomotion_ros.bundle import BATCH_GRAPH, PARALLEL_GRAPHS, Bundle, GraphSpec
from egomotion_ros.runtimes.base import Held, Runtime
from egomotion_ros.runtimes.buffers import (
    ALIASES,
    ALIGNMENT,
    FEEDBACK,
    BufferPlan,
    plan_buffers,
    tensor_bytes,
)
from egomotion_ros.runtimes.cuda import Cuda
from egomotion_ros.runtimes.engine_build import build_engine, import_tensorrt
from egomotion_ros.runtimes.engine_cache import EngineCache, EngineKey
from egomotion_ros.runtimes.gpu import Gpu, probe_gpu

__all__ = ['HALF_GRAPHS', 'PRECISIONS', 'EngineRunner', 'TensorRtRuntime', 'cached_engine',
           'half_graphs', 'probe_gpu']

_log = logging.getLogger(__name__)
#: What an engine counts in -> the flavour of its graph.
PRECISIONS = {'fp32': None, 'fp16': 'float16', 'bf16': 'bfloat16'}
#: Graphs that gain from half precision; the autoencoder is small, and its velocities add up to
#: positions.
HALF_GRAPHS = ('vision', 'prefill', 'decode', *PARALLEL_GRAPHS, 'condition', 'step', BATCH_GRAPH)


def half_graphs(bundle: Bundle) -> tuple[str, ...]:
    """Those of :data:`HALF_GRAPHS` that a bundle has."""
    return tuple(name for name in HALF_GRAPHS if name in bundle.graphs)


def check_free(gpu: Gpu, backend: str, needed: int) -> None:
    """
    Raise RuntimeError where ``needed`` bytes of engines and buffers do not fit the GPU.

    What engines need beyond that for themselves is not counted.
    """
    if 0 < gpu.free < needed:
        raise RuntimeError(f'{backend}: the engines take {needed / 1e9:.2f} GB of GPU memory, of '
                           f'{gpu.name} {gpu.free / 1e9:.2f} GB are free')


def cached_engine(bundle: Bundle, graph: str, backend: str, gpu: Gpu, precision: str,
                  cache: EngineCache, rebuild: bool = False) -> tuple[bytes, bool]:
    """
    Return the engine of a graph in a precision of :data:`PRECISIONS`, and whether it is new.

    Raises ValueError for another precision, RuntimeError when it cannot be built or there is no
    room for it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f'precision {precision!r}, expected one of {", ".join(PRECISIONS)}')
    trt = import_tensorrt(backend)
    path = bundle.graphs[graph].path

    def build(timing: bytes) -> Any:
        label = f'{graph} {precision}'
        if PRECISIONS[precision] is None:
            return build_engine(trt, path, label=label, timing=timing)
        from egomotion_ros.runtimes.flavours import write_half_precision
        with tempfile.TemporaryDirectory(dir=cache.folder, prefix='.half-') as folder:
            half = write_half_precision(path, Path(folder), PRECISIONS[precision])
            return build_engine(trt, half, label=label, timing=timing)

    key = EngineKey.of(bundle, graph, backend, str(trt.__version__), gpu, precision)
    return cache.get(key, build, bundle.weights_path.stat().st_size, rebuild)


class EngineRunner(Runtime):
    """Runs execution contexts of engines on a device; what :class:`TensorRtRuntime` adds to."""

    def __init__(self, specs: Mapping[str, GraphSpec], contexts: Mapping[str, Any],
                 cuda: Any) -> None:
        """
        Take over ``contexts`` (``set_tensor_address``, ``execute_async_v3``) and the device.

        ``cuda`` has the methods of :class:`Cuda`.  Raises RuntimeError when the device has no
        room.
        """
        super().__init__(specs)
        self._contexts, self._cuda = dict(contexts), cuda
        self.overwritten: Counter[str] = Counter()
        self._plan: BufferPlan = plan_buffers(self.specs)
        self._captured: dict[tuple[str, frozenset[str], frozenset[str], frozenset[str]],
                             Any] = {}
        self._pinned: dict[tuple[str, str], tuple[int, np.ndarray]] = {}
        self._device = self._host = 0
        try:
            self._device = cuda.allocate(self._plan.size)
            self._share_pinned()
            for (name, tensor), offset in self._plan.offsets.items():
                self._contexts[name].set_tensor_address(tensor, self._device + offset)
        except BaseException:
            self.close()
            raise

    def _share_pinned(self) -> None:
        """One pinned block; every tensor has its own place in it, also aliased ones."""
        places, size = [], 0
        for name, spec in self.specs.items():
            for item in (*spec.inputs, *spec.outputs):
                places.append((name, item, size))
                size += -(-max(tensor_bytes(item), 1) // ALIGNMENT) * ALIGNMENT
        self._host, block = self._cuda.pinned(size)
        for name, item, start in places:
            view = block[start:start + tensor_bytes(item)].view(item.dtype).reshape(item.shape)
            self._pinned[name, item.name] = self._host + start, view

    def _run(self, graph: str, arrays: dict[str, np.ndarray | Held]) \
            -> dict[str, np.ndarray | Held]:
        return self._run_keeping(graph, arrays, frozenset())

    def _run_keeping(self, graph: str, arrays: dict[str, np.ndarray | Held],
                     keep: frozenset[str]) -> dict[str, np.ndarray | Held]:
        if graph not in self._contexts:
            raise RuntimeError('the engines are closed')
        sent, fed = set(), set()
        for name, array in arrays.items():
            if not isinstance(array, Held):
                self._take(graph, name, array)
                sent.add(name)
            elif array.place != self._plan.offsets[graph, name]:
                if array.place != self._plan.offsets.get(FEEDBACK.get((graph, name))):
                    raise ValueError(f'{graph}: {name} is held elsewhere on the device')
                fed.add(name)
        # What is answered here replaces what was held.
        self.overwritten[graph] += 1
        self._launch(graph, frozenset(sent), frozenset(fed), keep)
        self._cuda.wait()
        return {item.name: Held(item.shape, item.dtype, self._plan.offsets[graph, item.name])
                if item.name in keep else self._pinned[graph, item.name][1].copy()
                for item in self.specs[graph].outputs}

    def _take(self, graph: str, name: str, array: np.ndarray) -> None:
        """Write an input into its pinned place."""
        np.copyto(self._pinned[graph, name][1], array)
        if (graph, name) in ALIASES:
            self.overwritten[ALIASES[graph, name][0]] += 1

    def hold(self, graph: str, **arrays: np.ndarray) -> dict[str, np.ndarray | Held]:
        """Upload inputs once, for all runs until they are given anew."""
        self._check(graph, arrays)
        if graph not in self._contexts:
            raise RuntimeError('the engines are closed')
        held = {}
        for item in self.specs[graph].inputs:
            if item.name in arrays:
                self._take(graph, item.name, arrays[item.name])
                place = self._plan.offsets[graph, item.name]
                self._cuda.upload(self._device + place, self._pinned[graph, item.name][0],
                                  tensor_bytes(item))
                held[item.name] = Held(item.shape, item.dtype, place)
        # The pinned place may be written again as soon as this returns.
        self._cuda.wait()
        return held

    def _launch(self, graph: str, sent: frozenset[str], fed: frozenset[str],
                kept: frozenset[str]) -> None:
        """Queue upload, engine and download: as one captured graph from the second time on."""
        signature = graph, sent, fed, kept
        if signature not in self._captured:
            # Engines may set themselves up in their first run, which must not be captured.
            self._queue(*signature)
            self._cuda.wait()
            self._captured[signature] = self._cuda.capture(lambda: self._queue(*signature))
        else:
            self._cuda.launch(self._captured[signature])

    def _queue(self, graph: str, sent: frozenset[str], fed: frozenset[str],
               kept: frozenset[str]) -> None:
        spec, base = self.specs[graph], self._device
        for item in spec.inputs:
            target = base + self._plan.offsets[graph, item.name]
            if item.name in sent:
                self._cuda.upload(target, self._pinned[graph, item.name][0], tensor_bytes(item))
            elif item.name in fed:
                source = base + self._plan.offsets[FEEDBACK[graph, item.name]]
                self._cuda.copy_rows(target, tensor_bytes(item), source, tensor_bytes(item), 1)
        if not self._contexts[graph].execute_async_v3(self._cuda.stream):
            raise RuntimeError(f'TensorRT failed to run {graph}')
        for item in spec.outputs:
            if item.name not in kept:
                self._cuda.download(self._pinned[graph, item.name][0],
                                    base + self._plan.offsets[graph, item.name],
                                    tensor_bytes(item))

    def write_row(self, cache: np.ndarray | Held, rows: np.ndarray | Held, slot: int) -> None:
        """Write a decoded row into a cache; both held here means one copy on the device."""
        if not (isinstance(cache, Held) and isinstance(rows, Held)):
            super().write_row(cache, rows, slot)
            return
        width = cache.shape[-1] * np.dtype(cache.dtype).itemsize
        count = int(np.prod(rows.shape[:-1]))
        self._cuda.copy_rows(self._device + cache.place + slot * width, cache.shape[-2] * width,
                             self._device + rows.place, width, count)

    def close(self) -> None:
        """
        Free captured graphs, then contexts, then memory: the order CUDA asks for.

        Never raises: on a device that failed every call answers with that failure, which was
        raised where it happened; all that can be freed is.
        """
        if self._host:
            _try_to(self._cuda.wait)
        for captured in self._captured.values():
            _try_to(self._cuda.free_graph, captured)
        self._captured.clear()
        self._contexts.clear()
        self._pinned.clear()
        if self._device:
            _try_to(self._cuda.free, self._device)
        if self._host:
            _try_to(self._cuda.free_pinned, self._host)
        self._device = self._host = 0
        _try_to(self._cuda.close)


def _try_to(work: Callable[..., None], *values: Any) -> None:
    try:
        work(*values)
    except RuntimeError as error:
        _log.warning('the device did not let go of everything: %s', error)


class TensorRtRuntime(EngineRunner):
    """
    One engine per graph on the first GPU, built or fetched from the cache.

    ``gpu`` and ``version`` name device and library; ``half`` the graphs that run in half
    precision, and in which.
    """

    def __init__(self, bundle: Bundle, backend: str = 'tensorrt',
                 half: Mapping[str, str] = MappingProxyType({})) -> None:
        """Build or fetch the engines; RuntimeError says why it cannot run here."""
        # Before anything of CUDA or TensorRT is loaded: without a driver that can crash.
        self.gpu = probe_gpu()
        trt = import_tensorrt(backend)
        self.name, self.version, self.half = backend, str(trt.__version__), dict(half)
        engines = {name: cached_engine(bundle, name, backend, self.gpu,
                                       self.half.get(name, 'fp32'), EngineCache())[0]
                   for name in bundle.graphs}
        self.engine_hashes = {name: hashlib.sha256(data).hexdigest()
                              for name, data in engines.items()}
        check_free(self.gpu, backend, sum(map(len, engines.values()))
                   + plan_buffers(bundle.graphs).size)
        cuda = Cuda()
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engines: dict[str, Any] = {}
        contexts = {}
        try:
            for name, data in engines.items():
                engine = self._runtime.deserialize_cuda_engine(data)
                context = None if engine is None else engine.create_execution_context()
                if context is None:
                    raise RuntimeError(f'{backend} {self.version} cannot load the engine of '
                                       f'{name}')
                self._engines[name], contexts[name] = engine, context
            super().__init__(bundle.graphs, contexts, cuda)
        except BaseException:
            contexts.clear()
            self._engines.clear()
            _try_to(cuda.close)
            raise

    def refuse(self, bundle: Bundle) -> bool:
        """Drop the engines in use from the cache; whether earlier ones took their place."""
        cache = EngineCache()
        restored = [cache.refuse(EngineKey.of(bundle, name, self.name, self.version, self.gpu,
                                              self.half.get(name, 'fp32')))
                    for name in self.specs]
        return any(restored)

    def close(self) -> None:
        """Free graphs and contexts, then engines, then the library's runtime."""
        super().close()
        self._engines.clear()
        self._runtime = None
