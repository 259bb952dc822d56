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
    from egomotion_ros.runtimes.base import BACKENDS
    parser.add_argument('bundle', type=Path, nargs='?', default=None, metavar='BUNDLE',
                        help='folder of the bundle (default: the one that ships)')
    parser.add_argument('--backend', default='onnxruntime', choices=BACKENDS)
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default 2)')
    parser.add_argument('--cases', type=int, default=16, help='prompts compared (default 16)')
    parser.add_argument('--runs', type=int, default=50, help='runs timed (default 50)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the report there')


def run(args: argparse.Namespace) -> int:
    """Verify; 0 when parity holds, 1 with the reason when it does not or nothing can run."""
    from egomotion_ros.bundle import Bundle
    from egomotion_ros.runtimes.base import PROVEN_BACKENDS
    from egomotion_ros.runtimes.proof import passed
    from egomotion_ros.runtimes.timing import interleave, plan_actions
    if args.cases < 1:
        raise ValueError(f'--cases must be at least 1, got {args.cases}')
    bundle = Bundle.open(args.bundle)
    try:
        runtime, report, device = (_proven if args.backend in PROVEN_BACKENDS else _plain)(
            bundle, args)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    timings = {part: interleave({'': action}, args.runs, part)[''].as_dict()
               for part, action in plan_actions(runtime, bundle).items()}
    runtime.close()
    result = {'bundle': bundle.hash, 'backend': args.backend, 'device': device,
              'libraries': _versions(), 'parity': report.as_dict(), 'passed': passed(report),
              'milliseconds': timings}
    text = json.dumps(result, indent=1)
    if args.json:
        args.json.write_text(text + '\n')
    print(text)
    report.require()
    return 0


def _plain(bundle: Bundle, args: argparse.Namespace) \
        -> tuple[Runtime, ParityReport, dict[str, Any]]:
    """Compare with the graphs run node by node as written, without optimised kernels."""
    from egomotion_ros.runtimes.base import open_runtime
    from egomotion_ros.runtimes.ort import OrtRuntime, session_options
    from egomotion_ros.runtimes.proof import compare
    runtime = open_runtime(args.backend, bundle, args.threads)
    plain = OrtRuntime(bundle.graphs, options=session_options(1, optimise=False))
    report = compare(bundle, plain, runtime, args.cases)
    return runtime, report, {'machine': platform.machine(), 'threads': args.threads}


def _proven(bundle: Bundle, args: argparse.Namespace) \
        -> tuple[Runtime, ParityReport, dict[str, Any]]:
    """
    Compare with ONNX Runtime; on a GPU in float16 first, graph by graph back until it holds.

    The verdict is remembered for this device; engines that do not pass leave the cache.
    """
    from dataclasses import asdict

    from egomotion_ros.runtimes import proof
    from egomotion_ros.runtimes.engine_cache import EngineCache
    from egomotion_ros.runtimes.ort import OrtRuntime
    from egomotion_ros.runtimes.tensorrt import half_graphs
    device, cache = proof.probe_device(args.backend), EngineCache()
    library = proof.backend_version(args.backend)
    half = half_graphs(bundle) if args.backend in ('tensorrt', 'tensorrt-rtx') else ()
    runtime, report, half = proof.settle(
        bundle, OrtRuntime(bundle.graphs, args.threads),
        lambda graphs: proof.open_unproven(args.backend, bundle, graphs, args.threads), half,
        args.cases)
    proof.remember(cache, bundle, args.backend, library, device, half, report,
                   runtime.engine_hashes)
    if not proof.passed(report):
        proof.refuse(cache, bundle, runtime, args.backend, library, device)
        report.require()
    return runtime, report, asdict(device) | {'library': library, 'float16': list(half),
                                              'threads': args.threads}


def _versions() -> dict[str, str]:
    found = {'python': platform.python_version()}
    for name in ('onnxruntime', 'onnxruntime-gpu', 'openvino', 'tensorrt', 'tensorrt-rtx-cu13',
                 'torch', 'numpy'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
