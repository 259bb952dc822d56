# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion verify``: build, check parity and time a backend on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
import hashlib
from importlib.metadata import PackageNotFoundError, version
import json
from pathlib import Path
import platform
import time
from typing import TYPE_CHECKING, Any

from egomotion_ros.commands.outputs import output_file

if TYPE_CHECKING:
    from egomotion_ros.bundle import Bundle
    from egomotion_ros.runtimes.base import Runtime
    from egomotion_ros.runtimes.engine_cache import EngineCache
    from egomotion_ros.runtimes.gpu import Gpu
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
    """
    Verify; 0 when parity holds, 1 with the reason when it does not or nothing can run.

    The report is written and printed in both cases once the backend was compared.
    """
    from egomotion_ros.bundle import Bundle
    from egomotion_ros.runtimes.base import is_proven
    from egomotion_ros.runtimes.proof import objection
    from egomotion_ros.runtimes.timing import interleave, plan_actions
    if args.cases < 1:
        raise ValueError(f'--cases must be at least 1, got {args.cases}')
    output_file(args.json, '--json')
    bundle = Bundle.open(args.bundle)
    try:
        runtime, report, found = (_proven if is_proven(args.backend) else _plain)(bundle, args)
        try:
            reason = objection(report)
            # How fast wrong answers come is of no use.
            timings = {} if reason else {
                part: interleave({'': action}, args.runs, part)[''].as_dict()
                for part, action in plan_actions(runtime, bundle).items()}
        finally:
            runtime.close()
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    result = {'bundle': bundle.hash, 'backend': args.backend, **found, 'libraries': _versions(),
              'parity': report.as_dict(), 'passed': not reason, 'refused': reason or None,
              'milliseconds': timings}
    text = json.dumps(result, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + '\n')
    report.require()
    return 0


def _plain(bundle: Bundle, args: argparse.Namespace) \
        -> tuple[Runtime, ParityReport, dict[str, Any]]:
    """
    Compare with the graphs run node by node as written, without optimised kernels.

    Returns the runtime, the report and what else there is to say.
    """
    from egomotion_ros.runtimes.base import open_runtime
    from egomotion_ros.runtimes.ort import OrtRuntime, session_options
    from egomotion_ros.runtimes.proof import compare
    runtime = open_runtime(args.backend, bundle, args.threads)
    try:
        with closing(OrtRuntime(bundle.graphs,
                                options=session_options(1, optimise=False))) as plain:
            report = compare(bundle, plain, runtime, args.cases)
    except BaseException:
        runtime.close()
        raise
    return runtime, report, {'device': {'machine': platform.machine(), 'threads': args.threads},
                             'engines': {}}


def _proven(bundle: Bundle, args: argparse.Namespace) \
        -> tuple[Runtime, ParityReport, dict[str, Any]]:
    """
    Compare with ONNX Runtime; TensorRT in half precision first, graph by graph back.

    The verdict is remembered for this device; engines that do not pass leave the cache, and the
    runtime that is returned is closed.
    """
    from egomotion_ros.runtimes import proof
    from egomotion_ros.runtimes.engine_build import MODULES
    from egomotion_ros.runtimes.engine_cache import EngineCache
    from egomotion_ros.runtimes.ort import OrtRuntime
    from egomotion_ros.runtimes.tensorrt import half_graphs
    device, cache = proof.probe_device(args.backend), EngineCache()
    library = proof.backend_version(args.backend)
    builds = args.backend in MODULES
    built: dict[tuple[str, str], dict[str, Any]] = {}

    def make(half: Mapping[str, str]) -> Runtime:
        if builds:
            _build(bundle, args.backend, device, half, cache, built)
        return proof.open_unproven(args.backend, bundle, half, args.threads)

    with closing(OrtRuntime(bundle.graphs, args.threads)) as reference:
        runtime, report, half = proof.settle(bundle, reference, make,
                                             half_graphs(bundle) if builds else (), args.cases)
    try:
        proof.remember(cache, bundle, args.backend, library, device, half, report,
                       runtime.engine_hashes)
        if not proof.passed(report):
            proof.refuse(cache, bundle, runtime, args.backend, library, device)
    except BaseException:
        runtime.close()
        raise
    engines = {name: built[name, half.get(name, 'fp32')] for name in bundle.graphs} \
        if builds else {}
    return runtime, report, {
        'device': asdict(device) | {'library': library, 'half': half,
                                    'threads': args.threads}, 'engines': engines}


def _build(bundle: Bundle, backend: str, gpu: Gpu, half: Mapping[str, str], cache: EngineCache,
           built: dict[tuple[str, str], dict[str, Any]]) -> None:
    """
    Put all engines of a bundle into the cache, where the runtime finds them.

    ``built`` gets, by graph and precision, ``precision``, ``bytes``, ``sha256`` and ``seconds``
    the build took (None: it was in the cache).
    """
    from egomotion_ros.runtimes.tensorrt import cached_engine
    for graph in bundle.graphs:
        key = graph, half.get(graph, 'fp32')
        if key in built:
            continue
        start = time.perf_counter()
        engine, fresh = cached_engine(bundle, graph, backend, gpu, key[1], cache)
        seconds = round(time.perf_counter() - start, 3) if fresh else None
        built[key] = {'precision': key[1], 'bytes': len(engine),
                      'sha256': hashlib.sha256(engine).hexdigest(), 'seconds': seconds}


def _versions() -> dict[str, str]:
    found = {'python': platform.python_version()}
    for name in ('onnxruntime', 'onnxruntime-gpu', 'openvino', 'tensorrt', 'tensorrt-rtx-cu13',
                 'torch', 'numpy'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
