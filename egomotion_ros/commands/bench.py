# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion bench``: milliseconds of every part of a bundle, beside eager torch if wished."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = 'time the parts of a bundle'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument('bundle', type=Path, nargs='?', default=None, metavar='BUNDLE',
                        help='folder of the bundle (default: the one that ships)')
    parser.add_argument('--backend', default='onnxruntime', choices=('onnxruntime', 'tensorrt'))
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default 2)')
    parser.add_argument('--runs', type=int, default=50, help='runs of each part (default 50)')
    parser.add_argument('--torch', action='store_true',
                        help='also time the same modules in eager torch, run by run in turn')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there')


def run(args: argparse.Namespace) -> int:
    """Measure and print; 1 with the reason when the backend cannot run."""
    from egomotion_ros.bundle import Bundle
    from egomotion_ros.runtimes.base import open_runtime
    from egomotion_ros.runtimes.timing import interleave, plan_actions
    bundle = Bundle.open(args.bundle)
    try:
        runtime = open_runtime(args.backend, bundle, args.threads)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    sides = {args.backend: plan_actions(runtime, bundle)}
    if args.torch:
        sides['torch'] = plan_actions(_torch_runtime(bundle, args.threads), bundle)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    columns = '  '.join(f'{side:>12} p50    p95    p99' for side in sides)
    print(f'{"milliseconds":14}{columns}' + ('   torch / ' + args.backend if args.torch else ''))
    for part in next(iter(sides.values())):
        timings = interleave({side: actions[part] for side, actions in sides.items()}, args.runs,
                             part)
        figures[part] = {side: timing.as_dict() for side, timing in timings.items()}
        row = '  '.join(f'{item.p50:16.2f} {item.p95:6.2f} {item.p99:6.2f}'
                        for item in timings.values())
        ratio = f'   {timings["torch"].p50 / timings[args.backend].p50:.2f} x' if args.torch \
            else ''
        print(f'{part:14}{row}{ratio}')
    runtime.close()
    if args.json:
        args.json.write_text(json.dumps(
            {'bundle': bundle.hash, 'threads': args.threads, 'milliseconds': figures}, indent=1))
    return 0


def _torch_runtime(bundle, threads: int):
    """Eager torch with modules of the bundle's sizes; random weights take the same time."""
    try:
        import torch

        from egomotion_ros.runtimes.torch_runtime import TorchRuntime, modules_of
    except ImportError as error:
        raise ValueError(f'--torch needs the training packages: {error}') from error
    torch.set_num_threads(threads)
    return TorchRuntime(modules_of(bundle))
