# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Milliseconds of whole plans in one process: image -> primitives -> motion -> robot motion.

Every plan re-plans the one before: it gets its first 15 frames as the executed prefix and starts
from its first joint positions, as the node does.  What ROS adds is measured with the node.
"""

import argparse
import json
from pathlib import Path
import time

from tqdm import tqdm

from egomotion_ros.body.edits import slice_frames
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.runtimes.parity import reference_cases
from egomotion_ros.runtimes.timing import Timing
from egomotion_ros.text import TextEncoder
from egomotion_ros.types import CameraPose, Observation, Plan

_INSTRUCTIONS = ('walk to the red ball', 'turn left', 'walk forward', 'stand still')


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('bundle', nargs='?', default=None, help='default: the one that ships')
    parser.add_argument('--robot', default='unitree_g1')
    parser.add_argument('--backend', default='onnxruntime')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--runs', type=int, default=50)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    started = time.perf_counter()
    pipeline = EgoMotionPipeline.load(args.bundle, args.robot, args.backend, args.threads)
    loaded = time.perf_counter()
    pipeline.warm_up()
    print(f'load {loaded - started:.2f} s, warm-up {time.perf_counter() - loaded:.2f} s')
    bundle = pipeline.bundle
    text = TextEncoder.open(bundle.text_path, bundle.text_length)
    images = [case.image for case in reference_cases(bundle, text, 8)]
    spent: dict[str, list[float]] = {'reason': [], 'generate': [], 'retarget': [], 'all': []}
    last: Plan | None = None
    for n in tqdm(range(args.runs), leave=False):
        observation = Observation(images[n % len(images)], _INSTRUCTIONS[n % len(_INSTRUCTIONS)],
                                  n, CameraPose(1.2, 0.5))
        last = pipeline.plan(
            observation, None if last is None else last.robot.positions[15],
            None if last is None else slice_frames(last.human, 0, 15), seed=n)
        for stage, value in last.milliseconds.items():
            spent[stage].append(value / 1000)
        spent['all'].append(sum(last.milliseconds.values()) / 1000)
    figures = {stage: Timing.of(seconds) for stage, seconds in spent.items()}
    print(f'{"milliseconds":12} {"p50":>7} {"p95":>7} {"p99":>7}')
    for stage, item in figures.items():
        print(f'{stage:12} {item.p50:7.1f} {item.p95:7.1f} {item.p99:7.1f}')
    if args.json:
        args.json.write_text(json.dumps({'bundle': bundle.hash, **{
            stage: item.as_dict() for stage, item in figures.items()}}, indent=1))


if __name__ == '__main__':
    main()
