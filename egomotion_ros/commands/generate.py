# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion generate TEXT``: one instruction to a running node."""

from __future__ import annotations

import argparse
import json

HELP = 'send one instruction to a running node and wait for the motion'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument('instruction', help='what the robot shall do, in quotes')
    parser.add_argument('--seed', type=int, default=0, help='0: the node draws one')
    parser.add_argument('--preview', action='store_true', help='make the plan, move nothing')
    parser.add_argument('--guidance', type=float, default=0.0, help="0: the bundle's default")
    parser.add_argument('--steps', type=int, default=0, help="0: the bundle's default")
    parser.add_argument('--looks', type=int, default=1,
                        help='at most so many plans, until what is asked for is reached')
    parser.add_argument('--timeout', type=float, default=60.0, help='seconds')
    parser.add_argument('--namespace', default='', help='of the node')
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def run(args: argparse.Namespace) -> int:
    """Send the goal; 0 when it succeeded, 1 when the node refused or failed."""
    if not 0 <= args.seed < 2**64:
        raise ValueError(f'--seed: expected 0..2^64 - 1, got {args.seed}')
    if not 1 <= args.looks < 2**16:
        raise ValueError(f'--looks: expected 1..65535, got {args.looks}')
    if not args.timeout > 0.0:
        raise ValueError(f'--timeout: expected seconds above 0, got {args.timeout}')
    try:
        from egomotion_ros.nodes.client import EgoMotionClient
        from egomotion_ros.nodes.errors import NodeError
        from egomotion_ros.nodes.instructions import check_numbers
    except ImportError as error:
        raise ValueError(f'no ROS 2 here ({error}); see `egomotion doctor`') from None
    try:
        check_numbers(args.guidance, args.steps)  # before a node is waited for
        with EgoMotionClient(args.namespace, min(args.timeout, 10.0)) as client:
            made = client.generate(
                args.instruction,
                seed=args.seed,
                execute=not args.preview,
                guidance=args.guidance,
                steps=args.steps,
                looks=args.looks,
                timeout=args.timeout,
            )
    except NodeError as error:
        if args.json:
            print(json.dumps({'error': error.code.name, 'message': error.message}))
            return 1
        raise ValueError(str(error)) from None
    base = made.motion.root_position
    report = {
        'plan_id': made.plan_id,
        'seed': made.seed,
        'tokens': list(made.tokens),
        'seconds': round(made.motion.duration, 3),
        'steps': made.motion.steps,
        'moved': [round(float(x), 3) for x in base[-1, :2] - base[0, :2]],
        'milliseconds': {name: round(spent, 1) for name, spent in made.milliseconds.items()},
    }
    if args.json:
        print(json.dumps(report))
        return 0
    for name, value in report.items():
        print(f'{name:>13}: {value}')
    return 0
