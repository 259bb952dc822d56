# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: on the CPU the default runtime of the node, on CUDA the second choice of a GPU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime

from egomotion_ros.bundle import FILES, GraphSpec
from egomotion_ros.runtimes.base import AbsentError, Runtime

#: Execution providers by their names in ONNX Runtime.
CPU, CUDA = 'CPUExecutionProvider', 'CUDAExecutionProvider'
#: Weights of more bytes than this are read from their file by all graphs together; of less, every
#: graph has them in memory in the order it reads them, which is faster.
IN_MEMORY = 4 * 2**30


class OrtRuntime(Runtime):
    """
    One session per graph with ``threads`` threads inside an operator.

    All shapes are static, so ONNX Runtime plans one fixed block per session (memory pattern) and
    memory does not grow with use.
    """

    def __init__(self, specs: Mapping[str, GraphSpec], threads: int = 2,
                 options: onnxruntime.SessionOptions | None = None, provider: str = CPU) -> None:
        """
        Load the graphs; ``options`` replaces the package's own :func:`session_options`.

        Raises ValueError for a thread count < 1 or a graph that does not load, RuntimeError when
        this ONNX Runtime has no such ``provider``.
        """
        super().__init__(specs)
        if provider not in onnxruntime.get_available_providers():
            raise RuntimeError(f'ONNX Runtime {onnxruntime.__version__} here has no {provider}; '
                               'pip install onnxruntime-gpu')
        self.name = 'onnxruntime' if provider == CPU else 'onnxruntime-cuda'
        options = session_options(threads) if options is None else options
        if provider == CPU and weights_bytes(self.specs) > IN_MEMORY:
            options.add_session_config_entry('session.disable_prepacking', '1')
        self._sessions = {}
        for name, spec in self.specs.items():
            try:
                session = onnxruntime.InferenceSession(str(spec.path), options,
                                                       providers=list(dict.fromkeys(
                                                           (provider, CPU))))
            except Exception as error:  # the bindings raise their own unrelated classes
                raise ValueError(f'{spec.path}: ONNX Runtime {onnxruntime.__version__} cannot '
                                 f'load it ({error})') from None
            if provider not in session.get_providers():
                # ONNX Runtime itself falls back to the CPU in silence.
                raise RuntimeError(f'ONNX Runtime could not start {provider}')
            self._sessions[name] = session
        self._outputs = {name: [item.name for item in spec.outputs]
                         for name, spec in self.specs.items()}

    def _run(self, graph: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        session = self._sessions.get(graph)
        if session is None:
            raise RuntimeError('the ONNX Runtime sessions are closed')
        names = self._outputs[graph]
        return dict(zip(names, session.run(names, arrays), strict=True))

    def close(self) -> None:
        """Free the sessions."""
        self._sessions.clear()


def weights_bytes(specs: Mapping[str, GraphSpec]) -> int:
    """Bytes of the weights files beside some graphs."""
    files = {spec.path.parent / FILES['weights'] for spec in specs.values()}
    return sum(file.stat().st_size for file in files if file.is_file())


def ort_version() -> str:
    """Version of ONNX Runtime; AbsentError when this build has no CUDA."""
    if CUDA not in onnxruntime.get_available_providers():
        raise AbsentError(f'ONNX Runtime {onnxruntime.__version__} here has no {CUDA}; '
                          'pip install onnxruntime-gpu')
    return str(onnxruntime.__version__)


def session_options(threads: int, optimise: bool = True) -> onnxruntime.SessionOptions:
    """
    Options measured best on 2 cores (benchmarks/graphs.py).

    Without ``optimise`` graphs run node by node as written: slow, for checks.  Raises ValueError
    for fewer than one thread.
    """
    if threads < 1:
        raise ValueError(f'threads must be at least 1, got {threads}')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    if not optimise:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    # Camera, middleware and retargeting share the cores: waiting threads that spin cost up to
    # four times the CPU and, on a busy machine, half the speed. Small blocks let the thread that
    # is scheduled take over from the one that is not.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.add_session_config_entry('session.dynamic_block_base', '4')
    options.add_session_config_entry('session.set_denormal_as_zero', '1')
    return options
