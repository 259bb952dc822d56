# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
TensorRT behind the runtime interface, for NVIDIA GPUs.

Built against the API of TensorRT 10, 11 and TensorRT-RTX; building is tested with TensorRT-RTX,
which needs no GPU for it.  Running has not been done on a GPU by the authors: ``egomotion verify
--backend tensorrt`` is the check to run first on such a machine.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
import fcntl
import hashlib
from importlib import import_module
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
from types import ModuleType
from typing import Any

import numpy as np

from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.base import Runtime

#: Graphs that gain from float16; the autoencoder is small and its velocities add up to positions.
HALF_GRAPHS = ('prefill', 'decode', 'condition', 'step')

_PROBE = """
import ctypes, json
cuda = ctypes.CDLL('libcuda.so.1')
def call(name, *args):
    code = getattr(cuda, name)(*args)
    if code:
        raise SystemExit(f'{name} answered {code}')
def number(name, *args):
    value = ctypes.c_int()
    call(name, ctypes.byref(value), *args)
    return value.value
call('cuInit', 0)
if not number('cuDeviceGetCount'):
    raise SystemExit('no device')
device = number('cuDeviceGet', 0)
name = ctypes.create_string_buffer(256)
call('cuDeviceGetName', name, 256, device)
print(json.dumps({'name': name.value.decode(), 'driver': number('cuDriverGetVersion'),
                  'major': number('cuDeviceGetAttribute', 75, device),
                  'minor': number('cuDeviceGetAttribute', 76, device)}))
"""


@dataclass(frozen=True)
class Gpu:
    """``name``, compute capability ``sm`` (89 = 8.9) and CUDA version of the ``driver``."""

    name: str
    sm: int
    driver: int


def probe_gpu() -> Gpu:
    """
    Ask the driver for the first GPU, in a process of its own: a broken driver can crash.

    Raises RuntimeError with the reason when there is none.
    """
    try:
        done = subprocess.run([sys.executable, '-c', _PROBE], capture_output=True, text=True,
                              timeout=60)
    except subprocess.TimeoutExpired:
        raise RuntimeError('the NVIDIA driver does not answer') from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f'exit status {done.returncode}']
        raise RuntimeError(f'no usable NVIDIA GPU: {lines[-1]}')
    found = json.loads(done.stdout)
    return Gpu(found['name'], 10 * found['major'] + found['minor'], found['driver'])


def import_tensorrt() -> ModuleType:
    """Return ``tensorrt``, or ``tensorrt_rtx`` where only that is installed; else RuntimeError."""
    for name in ('tensorrt', 'tensorrt_rtx'):
        with contextlib.suppress(ImportError, OSError):
            return import_module(name)
    raise RuntimeError('TensorRT is not installed; use the one of your JetPack or CUDA, or '
                       'pip install tensorrt')


def build_engine(trt: ModuleType, graph: str | Path | bytes, progress: str = '') -> bytes:
    """
    Parse an ONNX file (or serialised graph) and build its engine; types come from the graph.

    ``progress`` labels a progress bar.  Raises RuntimeError with the parser's words.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    # TensorRT 10 must be told to take types from the graph; 11 always does.
    strong = getattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED', None)
    network = builder.create_network(0 if strong is None else 1 << int(strong))
    parser = trt.OnnxParser(network, logger)
    done = parser.parse(graph) if isinstance(graph, bytes) else parser.parse_from_file(str(graph))
    if not done:
        words = '; '.join(parser.get_error(n).desc() for n in range(parser.num_errors))
        raise RuntimeError(f'TensorRT {trt.__version__} cannot read the graph: {words}')
    config = builder.create_builder_config()
    if progress:
        config.progress_monitor = _monitor(trt, progress)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError(f'TensorRT {trt.__version__} cannot build the graph')
    return bytes(engine)


def _monitor(trt: ModuleType, label: str) -> Any:
    from tqdm import tqdm

    class Monitor(trt.IProgressMonitor):
        """One bar per phase of the build."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.bars: dict[str, tqdm] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.bars[phase_name] = tqdm(total=num_steps, desc=f'{label}: {phase_name}',
                                         leave=False)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.bars[phase_name].update()
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.bars.pop(phase_name).close()

    return Monitor()


def cache_directory() -> Path:
    """Where engines are kept: ``$XDG_CACHE_HOME/egomotion_ros/tensorrt``."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'egomotion_ros' / 'tensorrt'


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second process from building the same engines at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'lock', 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_atomically(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)


def verified_half(bundle: Bundle, gpu: Gpu, version: str) -> tuple[str, ...]:
    """Graphs that ``egomotion verify`` found good in float16 on this machine; () if never run."""
    try:
        found = json.loads(_verdict(bundle, gpu, version).read_text())
    except (OSError, ValueError):
        return ()
    return tuple(name for name in found if name in bundle.graphs) \
        if isinstance(found, list) else ()


def remember_half(bundle: Bundle, gpu: Gpu, version: str, graphs: tuple[str, ...]) -> None:
    """Keep the verdict of ``egomotion verify`` beside the engines."""
    path = _verdict(bundle, gpu, version)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_atomically(path, json.dumps(list(graphs)).encode())


def _verdict(bundle: Bundle, gpu: Gpu, version: str) -> Path:
    return cache_directory() / f'{_key(bundle, gpu, version, "verdict", False)}.json'


def _key(bundle: Bundle, gpu: Gpu, version: str, graph: str, half: bool) -> str:
    parts = (bundle.hash, graph, version, str(gpu.sm), str(gpu.driver), gpu.name, str(half))
    return f'{graph}-{hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]}'


def cached_engine(trt: ModuleType, bundle: Bundle, gpu: Gpu, graph: str, half: bool) -> bytes:
    """
    Return the engine of a graph, built on first use and kept for this bundle, GPU and driver.

    Raises RuntimeError when it cannot be built or the disk has no room for it.
    """
    folder = cache_directory()
    path = folder / f'{_key(bundle, gpu, trt.__version__, graph, half)}.engine'
    with _locked(folder):
        if path.is_file():
            return path.read_bytes()
        need = 4 * bundle.weights_path.stat().st_size
        if shutil.disk_usage(folder).free < need:
            raise RuntimeError(f'{folder}: building needs {need >> 20} MiB of free disk')
        source: str | Path | bytes = bundle.graphs[graph].path
        if half:
            try:
                from egomotion_ros.runtimes.flavours import half_precision
            except ImportError as error:
                raise RuntimeError(f'float16 engines need the onnx package: {error}') from None
            source = half_precision(bundle.graphs[graph].path).SerializeToString()
        engine = build_engine(trt, source, progress=graph)
        _write_atomically(path, engine)
        return engine


class TensorRtRuntime(Runtime):
    """
    One engine per graph on the first GPU, with fixed device buffers and one stream.

    Float16 is used for the graphs ``half`` names; by default for those that ``egomotion verify``
    found good on this machine, so a fresh machine runs float32.
    """

    name = 'tensorrt'

    def __init__(self, bundle: Bundle, half: tuple[str, ...] | None = None) -> None:
        """Build or fetch the engines; RuntimeError says why it cannot run here."""
        super().__init__(bundle.graphs)
        self.gpu = probe_gpu()
        trt = import_tensorrt()
        self._cuda = _Cuda()
        self.version = str(trt.__version__)
        self.half = verified_half(bundle, self.gpu, self.version) if half is None else half
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._contexts: dict[str, Any] = {}
        self._engines: dict[str, Any] = {}
        self._buffers: dict[str, dict[str, int]] = {}
        try:
            for name in self.specs:
                self._open(name, cached_engine(trt, bundle, self.gpu, name, name in self.half))
        except BaseException:
            self.close()
            raise

    def _open(self, name: str, data: bytes) -> None:
        engine = self._runtime.deserialize_cuda_engine(data)
        context = None if engine is None else engine.create_execution_context()
        if context is None:
            raise RuntimeError(f'TensorRT {self.version} cannot load the engine of {name}')
        self._engines[name], self._contexts[name] = engine, context
        self._buffers[name] = {}
        for item in (*self.specs[name].inputs, *self.specs[name].outputs):
            size = int(np.prod(item.shape)) * np.dtype(item.dtype).itemsize
            pointer = self._cuda.allocate(max(size, 1))
            self._buffers[name][item.name] = pointer
            context.set_tensor_address(item.name, pointer)

    def _run(self, graph: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        context = self._contexts.get(graph)
        if context is None:
            raise RuntimeError('the TensorRT engines are closed')
        buffers, cuda = self._buffers[graph], self._cuda
        # Held until the stream is done with them.
        sources = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        for name, array in sources.items():
            cuda.upload(buffers[name], array)
        if not context.execute_async_v3(cuda.stream):
            raise RuntimeError(f'TensorRT failed to run {graph}')
        outputs = {item.name: np.empty(item.shape, item.dtype)
                   for item in self.specs[graph].outputs}
        for name, array in outputs.items():
            cuda.download(array, buffers[name])
        cuda.wait()
        return outputs

    def close(self) -> None:
        """Free contexts before engines before memory: the order TensorRT asks for."""
        self._contexts.clear()
        self._engines.clear()
        for buffers in self._buffers.values():
            for pointer in buffers.values():
                self._cuda.free(pointer)
        self._buffers.clear()
        self._cuda.close()
        self._runtime = None


class _Cuda:
    """The six calls of the CUDA runtime that are needed, through the cuda-python package."""

    def __init__(self) -> None:
        try:
            self._api = import_module('cuda.bindings.runtime')
        except ImportError:
            raise RuntimeError('the TensorRT backend needs cuda-python; pip install '
                               'cuda-python') from None
        self.stream = int(self._check(self._api.cudaStreamCreate()))

    def _check(self, answer: tuple[Any, ...]) -> Any:
        if int(answer[0]) != 0:
            raise RuntimeError(f'CUDA: {answer[0]!r}')
        return answer[1] if len(answer) > 1 else None

    def allocate(self, size: int) -> int:
        return int(self._check(self._api.cudaMalloc(size)))

    def free(self, pointer: int) -> None:
        self._check(self._api.cudaFree(pointer))

    def upload(self, pointer: int, array: np.ndarray) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._check(self._api.cudaMemcpyAsync(pointer, array.ctypes.data, array.nbytes, kind,
                                              self.stream))

    def download(self, array: np.ndarray, pointer: int) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._check(self._api.cudaMemcpyAsync(array.ctypes.data, pointer, array.nbytes, kind,
                                              self.stream))

    def wait(self) -> None:
        self._check(self._api.cudaStreamSynchronize(self.stream))

    def close(self) -> None:
        if self.stream:
            self._check(self._api.cudaStreamDestroy(self.stream))
            self.stream = 0
