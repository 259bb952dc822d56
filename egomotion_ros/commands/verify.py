# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion verify``: build, check parity and time a backend on this machine."""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version
import json
from pathlib import Path
import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from egomotion_ros.bundle import Bundle
    from egomotion_ros.runtimes.base import Runtime
    from egomotion_ros.runtimes.parity import ParityReport

HELP = 'build, check parity and time a backend on this machine'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument('bundle', type=Path, nargs='?', default=None, metavar='BUNDLE',
                        help='folder of the bundle (default: the one that ships)')
    parser.add_argument('--backend', default='onnxruntime', choices=('onnxruntime', 'tensorrt'))
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default 2)')
    parser.add_argument('--cases', type=int, default=16, help='prompts compared (default 16)')
    parser.add_argument('--runs', type=int, default=50, help='runs timed (default 50)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the report there')


def run(args: argparse.Namespace) -> int:
    """Verify; 0 when parity holds, 1 with the reason when it does not or nothing can run."""
    from egomotion_ros.bundle import Bundle
    from egomotion_ros.runtimes.timing import interleave, plan_actions
    if args.cases < 1:
        raise ValueError(f'--cases must be at least 1, got {args.cases}')
    bundle = Bundle.open(args.bundle)
    try:
        runtime, report, device = (_tensorrt if args.backend == 'tensorrt' else _onnxruntime)(
            bundle, args)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    timings = {part: interleave({'': action}, args.runs, part)[''].as_dict()
               for part, action in plan_actions(runtime, bundle).items()}
    runtime.close()
    result = {'bundle': bundle.hash, 'backend': args.backend, 'device': device,
              'libraries': _versions(), 'parity': report.as_dict(), 'passed': _passed(report),
              'milliseconds': timings}
    text = json.dumps(result, indent=1)
    if args.json:
        args.json.write_text(text + '\n')
    print(text)
    report.require()
    return 0


def _onnxruntime(bundle: Bundle, args: argparse.Namespace) \
        -> tuple[Runtime, ParityReport, dict[str, Any]]:
    """Compare the optimised kernels of this CPU with the graphs run node by node as written."""
    from egomotion_ros.runtimes.ort import OrtRuntime, session_options
    runtime = OrtRuntime(bundle.graphs, args.threads)
    plain = OrtRuntime(bundle.graphs, options=session_options(1, optimise=False))
    report = _compare(bundle, plain, runtime, args.cases)
    return runtime, report, {'machine': platform.machine(), 'threads': args.threads}


def _tensorrt(bundle: Bundle, args: argparse.Namespace) \
        -> tuple[Runtime, ParityReport, dict[str, Any]]:
    """
    Compare with ONNX Runtime; float16 first, graph by graph back to float32 until it holds.

    The graphs that may run in float16 are remembered for this machine.
    """
    from egomotion_ros.runtimes.ort import OrtRuntime
    from egomotion_ros.runtimes.tensorrt import (
        HALF_GRAPHS,
        TensorRtRuntime,
        probe_gpu,
        remember_half,
    )
    probe_gpu()
    reference = OrtRuntime(bundle.graphs, args.threads)
    half = HALF_GRAPHS
    while True:
        runtime = TensorRtRuntime(bundle, half)
        report = _compare(bundle, reference, runtime, args.cases)
        if _passed(report) or not half:
            break
        worst = min(half, key=lambda name: report.graphs[name].cosine)
        print(f'{worst} does not hold in float16, back to float32')
        runtime.close()
        half = tuple(name for name in half if name != worst)
    if _passed(report):
        remember_half(bundle, runtime.gpu, runtime.version, half)
    return runtime, report, {'gpu': runtime.gpu.name, 'sm': runtime.gpu.sm,
                             'cuda_driver': runtime.gpu.driver, 'tensorrt': runtime.version,
                             'float16': list(half)}


def _compare(bundle: Bundle, reference: Runtime, candidate: Runtime, cases: int) -> ParityReport:
    from egomotion_ros.runtimes.parity import check_parity
    from egomotion_ros.text import TextEncoder
    text = TextEncoder.open(bundle.text_path, bundle.text_length)
    return check_parity(bundle, text, reference, candidate, cases)


def _passed(report: ParityReport) -> bool:
    try:
        report.require()
    except ValueError:
        return False
    return True


def _versions() -> dict[str, str]:
    found = {'python': platform.python_version()}
    for name in ('onnxruntime', 'tensorrt', 'numpy'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
