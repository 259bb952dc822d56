# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
OpenVINO: the fastest runtime of a CPU, in float32.

Settings and figures: docs/how-to/deploy.md.  bfloat16, which OpenVINO takes by itself where a CPU
has it, is off: no graph of the shipped bundle passes the gate in it.
"""

from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Any

import numpy as np

from egomotion_ros.bundle import GraphSpec
from egomotion_ros.runtimes.base import AbsentError, Runtime

_INSTALL = 'pip install --no-deps openvino'
#: Operations below which a second thread costs more than it saves: measured on the graph of one
#: token (3 million), which takes as long with one as with two, and a quarter on a busy machine.
_SMALL = 10_000_000


def import_openvino() -> Any:
    """Return the library; AbsentError when it is not installed, RuntimeError when it is broken."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        if error.name == 'openvino':
            raise AbsentError(f'OpenVINO is not installed; {_INSTALL}') from None
        raise RuntimeError(f'OpenVINO cannot be loaded ({error}); {_INSTALL}') from None
    except (ImportError, OSError) as error:
        raise RuntimeError(f'OpenVINO cannot be loaded ({error}); {_INSTALL}') from None
    return openvino


def openvino_version() -> str:
    """Version of OpenVINO; raises as :func:`import_openvino`."""
    return str(import_openvino().__version__)


class OpenVinoRuntime(Runtime):
    """
    One compiled graph and one infer request each, with ``threads`` threads inside an operator.

    A graph of little arithmetic takes one thread.

    Inputs are read where the caller has them.  Outputs are copies: the request writes over its
    own at the next run.  It takes no weights from behind a link that leaves the graph's folder.
    """

    name = 'openvino'

    def __init__(self, specs: Mapping[str, GraphSpec], threads: int = 2) -> None:
        """
        Compile the graphs.

        Raises ValueError for fewer than one thread, RuntimeError when OpenVINO is missing or
        does not take a graph.
        """
        super().__init__(specs)
        if threads < 1:
            raise ValueError(f'threads must be at least 1, got {threads}')
        library = import_openvino()
        self._tensor = library.Tensor
        core = library.Core()
        self._requests: dict[str, Any] = {}
        self._inputs: dict[str, dict[str, int]] = {}
        self._outputs: dict[str, list[tuple[str, int]]] = {}
        #: What every input of a graph reads from: graph -> input -> array.
        self._bound: dict[str, dict[str, np.ndarray]] = {}
        for name, spec in self.specs.items():
            try:
                model = core.read_model(str(spec.path))
                compiled = core.compile_model(model, 'CPU', compile_settings(
                    threads if operations(model) >= _SMALL else 1))
                self._inputs[name] = _places(compiled.inputs, spec.inputs)
                self._outputs[name] = list(_places(compiled.outputs, spec.outputs).items())
                self._requests[name] = compiled.create_infer_request()
            except Exception as error:  # the bindings raise RuntimeError, and others unrelated
                words = ' '.join(str(error).split())[-300:]
                raise RuntimeError(f'{spec.path}: OpenVINO {library.__version__} does not take '
                                   f'it ({words})') from None
            self._bound[name] = {}

    def _run(self, graph: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        request = self._requests.get(graph)
        if request is None:
            raise RuntimeError('the OpenVINO graphs are closed')
        bound, places = self._bound[graph], self._inputs[graph]
        for name, array in arrays.items():
            # Binding costs more than most inputs are large, and the loops give the same arrays.
            if bound.get(name) is not array:
                if not (array.flags.c_contiguous and array.flags.writeable):
                    array = np.array(array, order='C')
                request.set_input_tensor(places[name], self._tensor(array, shared_memory=True))
                bound[name] = array
        try:
            request.infer()
        except RuntimeError as error:
            raise RuntimeError(f'OpenVINO failed to run {graph}: {error}') from None
        return {name: request.get_output_tensor(place).data.copy()
                for name, place in self._outputs[graph]}

    def close(self) -> None:
        """Free graphs, weights and the arrays that were given last."""
        self._requests.clear()
        self._bound.clear()


def compile_settings(threads: int) -> dict[str, object]:
    """Options measured best on 2 cores, idle and busy (docs/how-to/deploy.md)."""
    return {
        'INFERENCE_NUM_THREADS': threads,
        'NUM_STREAMS': 1,
        'PERFORMANCE_HINT': 'LATENCY',
        # Otherwise bfloat16 or float16 wherever the CPU has it.
        'INFERENCE_PRECISION_HINT': 'f32',
        # Camera, middleware and retargeting share the cores: a thread must be free to move.
        'ENABLE_CPU_PINNING': False,
    }


def operations(model: Any) -> int:
    """Operations of matrix products and convolutions; a multiply and an add are two."""
    total = 0
    for node in model.get_ops():
        kind = node.get_type_name()
        if kind == 'MatMul':
            place = -2 if node.get_attributes()['transpose_a'] else -1
            inner = list(node.get_input_shape(0))[place]
            total += 2 * math.prod(node.get_output_shape(0)) * inner
        elif kind in ('Convolution', 'GroupConvolution'):
            # Weights (out, in, ...), of a grouped one (groups, out, in, ...).
            inner = math.prod(list(node.get_input_shape(1))[1 if kind == 'Convolution' else 2:])
            total += 2 * math.prod(node.get_output_shape(0)) * inner
    return total


def _places(ports: list[Any], specs: tuple[Any, ...]) -> dict[str, int]:
    """Tensor name -> index of its port; ValueError when a tensor of the manifest has none."""
    found = {name: index for index, port in enumerate(ports) for name in port.get_names()}
    missing = [item.name for item in specs if item.name not in found]
    if missing:
        raise ValueError(f'no tensor {", ".join(missing)}')
    return {item.name: found[item.name] for item in specs}
