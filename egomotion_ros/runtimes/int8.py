# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The int8 flavour of a bundle for ONNX Runtime on a CPU, derived without torch.

Weights of matrix products become int8 with one scale a block of 32 (ONNX Runtime's MatMulNBits);
activations are rounded alike as they come, so that no calibration data is needed.  One scale a
column, the other way ONNX Runtime has, was two to three times less precise on the shipped bundle.
A graph that does not follow its float32 original closely enough stays float32.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
import shutil
import tempfile
from typing import TYPE_CHECKING

import onnx

from egomotion_ros.bundle import (
    FILES,
    Bundle,
    describe_file,
    staged_directory,
    write_manifest,
)
from egomotion_ros.runtimes.ort import OrtRuntime
from egomotion_ros.runtimes.proof import settle
from egomotion_ros.runtimes.tensorrt import half_graphs
from egomotion_ros.runtimes.timing import interleave, plan_actions

if TYPE_CHECKING:
    from egomotion_ros.runtimes.parity import ParityReport


_BLOCK = 32
#: MatMulNBits multiplies int8 by int8.
_INT8_PRODUCTS = 4


@dataclasses.dataclass(frozen=True)
class Int8Result:
    """``report`` of the parity, the ``graphs`` in int8, plans a second against float32's."""

    report: ParityReport
    graphs: tuple[str, ...]
    speedup: float


def quantise(source: Path, target: Path) -> None:
    """Write the int8 flavour of a graph file, weights inside."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    quantiser = MatMulNBitsQuantizer(onnx.load(source), block_size=_BLOCK, is_symmetric=True,
                                     accuracy_level=_INT8_PRODUCTS, bits=8)
    quantiser.process()
    onnx.save(quantiser.model.model, target)


def build_int8(bundle: Bundle, out: Path, cases: int = 16, threads: int = 2,
               runs: int = 20) -> Int8Result:
    """
    Write the int8 flavour of ``bundle`` to ``out``, compared over ``cases`` prompts.

    The large graphs are tried in int8; the one that follows worst goes back to float32 until the
    gate of :mod:`egomotion_ros.runtimes.parity` is passed.  Speed is measured over ``runs`` plans
    of both, in turn.  Raises ValueError, and writes nothing, when none of them passes or the
    bundle is an int8 flavour itself.
    """
    if bundle.manifest.get('int8'):
        raise ValueError(f'{bundle.directory} is an int8 flavour already')
    reference = OrtRuntime(bundle.graphs, threads)
    with tempfile.TemporaryDirectory() as folder:
        small, large = {}, half_graphs(bundle)
        for name in large:
            path = Path(folder) / f'{name}.onnx'
            quantise(bundle.graphs[name].path, path)
            small[name] = dataclasses.replace(bundle.graphs[name], path=path)
        runtime, report, graphs = settle(
            bundle, reference,
            lambda names: OrtRuntime({**bundle.graphs, **{name: small[name] for name in names}},
                                     threads), large, cases, ('int8',))
        try:
            if not graphs:
                raise ValueError('no graph follows float32 closely enough in int8; '
                                 'nothing was written')
            timings = interleave({'fp32': plan_actions(reference, bundle)['plan'],
                                  'int8': plan_actions(runtime, bundle)['plan']}, runs, 'speed')
        finally:
            runtime.close()
            reference.close()
        with staged_directory(out) as target:
            for role in FILES:
                source = bundle.text_path if role == 'text' else bundle.weights_path
                shutil.copyfile(source, target / source.name)
            entries = {}
            for name, spec in bundle.graphs.items():
                path = small[name].path if name in graphs else spec.path
                shutil.copyfile(path, target / spec.path.name)
                entries[name] = {**bundle.manifest['graphs'][name],
                                 **describe_file(target / spec.path.name)}
            write_manifest(target, {**bundle.manifest, 'graphs': entries, 'int8': {
                'graphs': list(graphs), 'of': bundle.hash, 'parity': report.as_dict()}})
            Bundle.open(target)
    return Int8Result(report, tuple(graphs), timings['fp32'].p50 / timings['int8'].p50)
