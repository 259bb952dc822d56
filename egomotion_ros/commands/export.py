# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion export``: checkpoints -> bundle of ONNX graphs."""

from __future__ import annotations

import argparse
from pathlib import Path

from egomotion_ros.bundle import MAX_CANDIDATES, MAX_GUIDANCE, MAX_STEPS, check_replaceable

HELP = 'turn checkpoints into a bundle of ONNX graphs'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument('checkpoints', type=Path, metavar='CHECKPOINT_DIR',
                        help='folder with reasoner/, generator/ and autoencoder/')
    parser.add_argument('--out', type=Path, required=True, metavar='BUNDLE',
                        help='folder to write; an earlier bundle there is replaced')
    parser.add_argument('--steps', type=int, default=8, help='default sampling steps')
    parser.add_argument('--guidance', type=float, default=1.0, help='default guidance')
    parser.add_argument('--candidates', type=int, default=1,
                        help='motions that are drawn for a plan, of which the one that ends '
                             'nearest to where the reasoner points is taken (default 1)')
    parser.add_argument('--temperature', type=float, default=0.0,
                        help='of the primitives; 0 takes the likeliest')
    parser.add_argument('--decoder', choices=('autoregressive', 'parallel'),
                        help='of the primitives (default: what the reasoner was trained for)')
    parser.add_argument('--refinements', type=int, default=0,
                        help='further passes of the parallel decoder')
    parser.add_argument('--references', type=int, default=16,
                        help='prompts the parity check compares')


def run(args: argparse.Namespace) -> int:
    """Export; 1 with the reason when parity or a check fails."""
    for name, least, most in (('steps', 1, MAX_STEPS), ('guidance', 0.0, MAX_GUIDANCE),
                              ('candidates', 1, MAX_CANDIDATES), ('temperature', 0.0, 10.0),
                              ('refinements', 0, 100), ('references', 1, 10_000)):
        value = getattr(args, name)
        if not least <= value <= most:
            raise ValueError(f'--{name} {value}: expected {least:g} to {most:g}')
    try:
        from egomotion_ros.data.scenes import CAMERA
        from egomotion_ros.runtimes.export import Models, export_bundle
    except ImportError as error:
        raise ValueError(f'export needs the training packages: {error}') from error
    check_replaceable(args.out)
    report = export_bundle(Models.load(args.checkpoints), args.out, CAMERA, steps=args.steps,
                           guidance=args.guidance, candidates=args.candidates,
                           temperature=args.temperature, decoder=args.decoder,
                           refinements=args.refinements, references=args.references)
    size = sum(path.stat().st_size for path in args.out.iterdir())
    print(f'{args.out}: {size / 1e6:.1f} MB, {report.cases} cases, '
          f'{report.tokens_equal:.2%} of tokens equal, joints within '
          f'{1000 * report.joints_m:.3f} mm')
    for name, item in report.graphs.items():
        print(f'  {name:14} max abs {item.max_abs:.2e}  cosine {item.cosine:.8f}')
    return 0
