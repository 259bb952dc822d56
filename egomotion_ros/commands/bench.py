# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion bench``: where the time of a plan goes, and how it compares."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from egomotion_ros.commands.outputs import output_file

HELP = 'time the parts of a bundle'
_BACKENDS = ('openvino', 'onnxruntime', 'tensorrt', 'tensorrt-rtx', 'onnxruntime-cuda', 'torch')
_SECTIONS = {'path': 'whole plans, image message to motion messages, part by part',
             'graphs': 'every graph: time, arithmetic, share of the matrix product, memory',
             'backends': 'backends, bundles and eager torch side by side',
             'scaling': 'cost against primitives, steps, images, frames, threads',
             'peers': 'cost models of other generators'}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument('bundles', type=Path, nargs='*', metavar='BUNDLE',
                        help='folder of the bundle (default: the one that ships); more are '
                        'compared with the first')
    parser.add_argument('--backend', nargs='+', dest='backends', choices=_BACKENDS,
                        default=['onnxruntime'], help='the first runs everything, the others are '
                        'compared with it (default onnxruntime)')
    parser.add_argument('--only', nargs='+', choices=list(_SECTIONS), default=list(_SECTIONS),
                        help='; '.join(f'{name}: {text}' for name, text in _SECTIONS.items()))
    parser.add_argument('--robot', default='unitree_g1', help='whose retargeting is timed')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default 2)')
    parser.add_argument('--runs', type=int, default=40, help='plans and rounds (default 40)')
    parser.add_argument('--json', type=Path, metavar='FILE', default=Path('out/bench/bench.json'),
                        help='the figures; the chart lies beside them (default %(default)s)')


def run(args: argparse.Namespace) -> int:
    """Measure, print, write; 1 with the reason when a backend cannot run."""
    from egomotion_ros.bench.report import SECTIONS, Settings, lines, make
    from egomotion_ros.bundle import Bundle
    if args.json.suffix == '.png':
        raise ValueError(f'--json {args.json}: the chart is called that, the figures need another')
    output_file(args.json, '--json')
    bundles = tuple(Bundle.open(folder) for folder in args.bundles or [None])
    report = make(Settings(
        bundles, tuple(dict.fromkeys(args.backends)), args.threads, args.runs, args.robot,
        tuple(name for name in SECTIONS if name in args.only)))
    print('\n'.join(lines(report)))
    args.json.write_text(json.dumps(report, indent=1) + '\n')
    print(f'figures {args.json}')
    chart = args.json.with_suffix('.png')
    try:
        from egomotion_ros.bench.chart import draw
    except ImportError as error:
        print(f'no chart ({error}); pip install matplotlib')
    else:
        draw(report, chart)
        print(f'chart {chart}')
    return 0
