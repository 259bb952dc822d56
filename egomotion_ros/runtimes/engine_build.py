# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
ONNX graph -> TensorRT engine: TensorRT 10, 11 and TensorRT-RTX behind one function.

What differs between them is found by asking the module: TensorRT 10 must be told to take types
from the graph, 11 and RTX always do; RTX compiles kernels on the device and has nothing to keep
in a timing cache.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
import threading
from types import ModuleType
from typing import Any

from tqdm import tqdm

from egomotion_ros.runtimes.base import AbsentError

#: Backend -> Python module.
MODULES = {'tensorrt': 'tensorrt', 'tensorrt-rtx': 'tensorrt_rtx'}
_PACKAGES = {'tensorrt': 'use the one of your JetPack or CUDA, or pip install tensorrt',
             'tensorrt-rtx': 'pip install tensorrt-rtx-cu13'}


@dataclass(frozen=True)
class BuiltEngine:
    """The serialised ``engine`` and the ``timing`` cache to start the next build from."""

    engine: bytes
    timing: bytes


def import_tensorrt(backend: str) -> ModuleType:
    """
    Return the module of ``'tensorrt'`` or ``'tensorrt-rtx'``.

    Raises ValueError for another name, AbsentError when it is not installed.
    """
    if backend not in MODULES:
        raise ValueError(f'backend {backend!r}, expected {" or ".join(MODULES)}')
    try:
        return import_module(MODULES[backend])
    except (ImportError, OSError) as error:
        raise AbsentError(f'{backend} is not installed ({error}); '
                          f'{_PACKAGES[backend]}') from None


def build_engine(trt: ModuleType, graph: Path | bytes, *, label: str = '', timing: bytes = b'',
                 cancel: threading.Event | None = None) -> BuiltEngine:
    """
    Parse an ONNX file (or serialised graph) and build its engine; types come from the graph.

    ``label`` shows a progress bar; ``timing`` is the cache of an earlier build.  Setting
    ``cancel`` or Ctrl-C ends the build at its next step.  Raises RuntimeError with the parser's
    words, or when cancelled.
    """
    cancel = cancel or threading.Event()
    # The builder works in a thread of its own: Python delivers Ctrl-C only to the main thread,
    # and there only between two byte codes.
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(_build, trt, graph, label, timing, cancel)
        try:
            return work.result()
        except KeyboardInterrupt:
            cancel.set()
            raise


def _build(trt: ModuleType, graph: Path | bytes, label: str, timing: bytes,
           cancel: threading.Event) -> BuiltEngine:
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    strong = getattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED', None)
    network = builder.create_network(0 if strong is None else 1 << int(strong))
    parser = trt.OnnxParser(network, logger)
    done = parser.parse(graph) if isinstance(graph, bytes) else parser.parse_from_file(str(graph))
    if not done:
        words = '; '.join(parser.get_error(n).desc() for n in range(parser.num_errors))
        raise RuntimeError(f'TensorRT {trt.__version__} cannot read the graph: {words}')
    config = builder.create_builder_config()
    monitor = _monitor(trt, label, cancel)
    config.progress_monitor = monitor
    timed = trt.__name__ == MODULES['tensorrt']
    if timed:
        config.set_timing_cache(config.create_timing_cache(timing), False)
    try:
        engine = builder.build_serialized_network(network, config)
    finally:
        monitor.close()
    if cancel.is_set():
        raise RuntimeError('the build was cancelled')
    if engine is None:
        raise RuntimeError(f'TensorRT {trt.__version__} cannot build the graph')
    return BuiltEngine(bytes(engine),
                       bytes(config.get_timing_cache().serialize()) if timed else b'')


def _monitor(trt: ModuleType, label: str, cancel: threading.Event) -> Any:

    class Monitor(trt.IProgressMonitor):
        """One bar per phase of the build; answers no to the next step once cancelled."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.bars: dict[str, tqdm] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.bars[phase_name] = tqdm(total=num_steps, desc=f'{label}: {phase_name}',
                                         leave=False, disable=not label)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.bars:
                self.bars[phase_name].update()
            return not cancel.is_set()

        def phase_finish(self, phase_name: str) -> None:
            bar = self.bars.pop(phase_name, None)
            if bar is not None:
                bar.close()

        def close(self) -> None:
            """Close the bars of phases that a failed build never finished."""
            while self.bars:
                self.bars.popitem()[1].close()

    return Monitor()
