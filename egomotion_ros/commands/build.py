# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion build``: TensorRT engines of a bundle for this machine, or its int8 flavour."""

from __future__ import annotations

import argparse
from pathlib import Path
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egomotion_ros.bundle import Bundle

HELP = 'build TensorRT engines, or the int8 flavour, of a bundle'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument('bundle', type=Path, nargs='?', default=None, metavar='BUNDLE',
                        help='folder of the bundle (default: the one that ships)')
    parser.add_argument('--backend', default='tensorrt',
                        choices=('tensorrt', 'tensorrt-rtx', 'onnxruntime'))
    parser.add_argument('--precision', default=None, choices=('fp32', 'fp16', 'bf16', 'int8'),
                        help='tensorrt: fp32 (default), fp16 or bf16; onnxruntime: int8')
    parser.add_argument('--rebuild', action='store_true',
                        help='build engines that are in the cache, too; the old ones are kept '
                             'until the new ones are whole')
    parser.add_argument('--out', type=Path, metavar='FOLDER',
                        help='where the int8 bundle goes (onnxruntime only)')
    parser.add_argument('--cases', type=int, default=16,
                        help='prompts the int8 flavour is compared over (default 16)')


def run(args: argparse.Namespace) -> int:
    """Build; 1 with the reason when it cannot be done, 130 after Ctrl-C, which leaves nothing."""
    from egomotion_ros.bundle import Bundle
    bundle = Bundle.open(args.bundle)
    try:
        if args.backend == 'onnxruntime':
            return _int8(bundle, args)
        return _engines(bundle, args)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def _engines(bundle: Bundle, args: argparse.Namespace) -> int:
    from egomotion_ros.runtimes.engine_cache import EngineCache
    from egomotion_ros.runtimes.gpu import NO_GPU, probe_gpu
    from egomotion_ros.runtimes.tensorrt import cached_engine, half_graphs
    if args.precision == 'int8' or args.out is not None:
        raise ValueError('int8 and --out belong to --backend onnxruntime; '
                         f'{args.backend} builds fp32, fp16 or bf16 into its cache')
    try:
        gpu = probe_gpu()
    except RuntimeError as error:
        # TensorRT times kernels on the device; RTX compiles them there when it loads.
        if args.backend == 'tensorrt':
            raise
        gpu = NO_GPU
        print(f'{error}: this shows that the graphs build; a machine with a GPU builds its own')
    cache = EngineCache()
    for graph in bundle.graphs:
        precision = args.precision if graph in half_graphs(bundle) else None
        precision = precision or 'fp32'
        start = time.perf_counter()
        engine, built = cached_engine(bundle, graph, args.backend, gpu, precision, cache,
                                      args.rebuild)
        spent = f'built in {time.perf_counter() - start:.1f} s' if built else 'in the cache'
        print(f'{graph:14} {precision} {len(engine) / 1e6:8.1f} MB  {spent}')
    print(f'engines for {gpu.name} in {cache.folder}')
    return 0


def _int8(bundle: Bundle, args: argparse.Namespace) -> int:
    from egomotion_ros.bundle import check_replaceable
    from egomotion_ros.runtimes.int8 import build_int8
    if args.precision not in (None, 'int8') or args.rebuild:
        raise ValueError('onnxruntime runs the fp32 graphs of a bundle as they are; '
                         'only --precision int8 is built')
    if args.out is None:
        raise ValueError('--out says where the int8 bundle goes')
    if args.cases < 1:
        raise ValueError(f'--cases must be at least 1, got {args.cases}')
    check_replaceable(args.out)
    result = build_int8(bundle, args.out, args.cases)
    report = result.report
    kept = [name for name in bundle.graphs if name not in result.graphs]
    print(f'int8: {", ".join(result.graphs)}; fp32: {", ".join(kept)}')
    print(f'{report.tokens_equal:.2%} of tokens equal, joints up to '
          f'{1000 * report.joints_m:.2f} mm apart over {report.cases} prompts; '
          f'{result.speedup:.2f} x as many plans a second as fp32')
    print(f'written to {args.out}')
    return 0
