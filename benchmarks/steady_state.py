# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Does a process that plans for hours stay as it is: memory, file handles, threads.

Makes whole plans in one process, each re-planning the one before, fits a line to what the process
holds over the second half, and prints the growth per 1,000 plans.  Exits 1 where file handles or
threads grow at all, or memory by more than ``--most`` MB per 1,000 plans.
"""

import argparse
import json
from pathlib import Path
import sys

import numpy as np
import psutil
from tqdm import tqdm

from egomotion_ros.body.edits import slice_frames
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.runtimes.parity import reference_cases
from egomotion_ros.text import TextEncoder
from egomotion_ros.types import CameraPose, Observation, Plan

_INSTRUCTIONS = ('walk to the red ball', 'turn left', 'walk forward', 'stand still')
_PREFIX = 15
#: Name -> unit; what is read of the process after every plan.
QUANTITIES = {'memory': 'MB', 'file handles': '', 'threads': ''}


def held(process: psutil.Process) -> list[float]:
    """Return resident memory (MB), open file handles and threads of a process."""
    return [process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()]


def growth(rows: np.ndarray) -> np.ndarray:
    """
    Growth per 1,000 plans of what ``rows`` (plans, quantities) holds.

    A least-squares line over the second half: caches fill and the allocator settles in the first.
    Raises ValueError for fewer than four plans.
    """
    if len(rows) < 4:
        raise ValueError(f'a slope needs at least 4 plans, got {len(rows)}')
    late = rows[len(rows) // 2:]
    return 1000 * np.polyfit(np.arange(len(late)), late, 1)[0]


def main() -> int:
    """Plan, read, print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('bundle', nargs='?', default=None, help='default: the one that ships')
    parser.add_argument('--plans', type=int, default=1000)
    parser.add_argument('--robot', default='unitree_g1')
    parser.add_argument('--backend', default='onnxruntime')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--most', type=float, default=2.0, metavar='MB',
                        help='memory that may be gained per 1,000 plans (default 2)')
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    if args.plans < 4:
        parser.error(f'--plans must be at least 4, got {args.plans}')
    pipeline = EgoMotionPipeline.load(args.bundle, args.robot, args.backend, args.threads)
    bundle = pipeline.bundle
    text = TextEncoder.open(bundle.text_path, bundle.text_length)
    images = [case.image for case in reference_cases(bundle, text, 8)]
    process, rows = psutil.Process(), np.zeros((args.plans, len(QUANTITIES)))
    last: Plan | None = None
    for n in tqdm(range(args.plans)):
        observation = Observation(images[n % len(images)], _INSTRUCTIONS[n % len(_INSTRUCTIONS)],
                                  n, CameraPose(1.2, 0.5))
        last = pipeline.plan(
            observation, None if last is None else last.robot.positions[_PREFIX],
            None if last is None else slice_frames(last.human, 0, _PREFIX), seed=n)
        rows[n] = held(process)
    grown = growth(rows)
    print(f'{args.plans} plans{"":8} {"first":>9} {"half way":>9} {"last":>9} {"per 1,000":>10}')
    for name, column, slope in zip(QUANTITIES, rows.T, grown, strict=True):
        print(f'{name:14} {QUANTITIES[name]:3} {column[0]:9.1f} {column[args.plans // 2]:9.1f} '
              f'{column[-1]:9.1f} {slope:+10.2f}')
    if args.json:
        args.json.write_text(json.dumps({
            'bundle': bundle.hash, 'plans': args.plans, 'growth_per_1000_plans': dict(
                zip(QUANTITIES, map(float, grown), strict=True)),
            'series': dict(zip(QUANTITIES, rows.T.tolist(), strict=True))}) + '\n')
    memory, handles, threads = grown
    return int(memory > args.most or handles > 0.5 or threads > 0.5)


if __name__ == '__main__':
    sys.exit(main())
