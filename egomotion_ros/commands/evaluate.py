# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion evaluate``: goal score, reconstruction and robot figures of a bundle."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument('--bundle', type=Path, help='default: the one that ships')
    parser.add_argument('--robot', default='unitree_g1')
    parser.add_argument('--backend', default='onnxruntime')
    parser.add_argument('--scenes', type=int, default=300, help='held-out scenes')
    parser.add_argument('--action', choices=('walk_to', 'turn_to', 'stop_at'), default='walk_to')
    parser.add_argument('--retargeted', type=int, default=40,
                        help='of the generated motions, how many the robot figures are made of')
    parser.add_argument('--checkpoints', type=Path,
                        help='with --library: reconstruction error of autoencoder and tokenizer')
    parser.add_argument('--library', type=Path, help='motion library with held-out performances')
    parser.add_argument('--split', choices=('val', 'test'), default='test')
    parser.add_argument('--json', action='store_true', help='print JSON alone')
    parser.add_argument('--picture', type=Path, help='write a sheet of scenes and paths (PNG)')


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    from egomotion_ros.evaluation.motions import evaluate_reconstruction, evaluate_robot
    from egomotion_ros.evaluation.scenes import evaluate_scenes, held_out_questions
    from egomotion_ros.pipeline import EgoMotionPipeline
    from egomotion_ros.retarget.retargeter import Retargeter
    if (args.checkpoints is None) != (args.library is None):
        raise ValueError('--checkpoints and --library go together')
    pipeline = EgoMotionPipeline.load(args.bundle, args.robot, args.backend)
    report: dict[str, Any] = {'bundle': pipeline.bundle.hash, 'action': args.action}
    try:
        questions = held_out_questions(args.scenes, args.action)
        report['goals'], motions = evaluate_scenes(pipeline, questions)
        report['robot'] = evaluate_robot(Retargeter(pipeline.robot), motions[:args.retargeted],
                                         pipeline.scale)
    finally:
        pipeline.close()
    if args.checkpoints is not None:
        report['reconstruction'] = evaluate_reconstruction(args.checkpoints, args.library,
                                                           args.split)
    if args.picture is not None:
        from egomotion_ros.evaluation.sheet import draw_sheet
        draw_sheet(questions, motions, args.picture)
    print(json.dumps(report, indent=2) if args.json else _table(report))
    return 0


def _table(report: dict[str, Any]) -> str:
    lines = [f'bundle {report["bundle"][:12]}, {report["action"]}', '']
    for name, figures in report['goals'].items():
        if isinstance(figures, dict):
            low, high = figures['interval']
            lines.append(f'{name:32} {figures["reached"]:6.1%}  [{low:.1%}, {high:.1%}]  '
                         f'median {figures["median_distance_m"]:.2f} m '
                         f'{figures["median_angle_deg"]:.0f} deg  ({figures["count"]} scenes)')
        else:
            lines.append(f'{name:32} {figures:6.1%}')
    for section in ('robot', 'reconstruction'):
        if section in report:
            lines.append('')
            for name, value in report[section].items():
                shown = f'{value:.3g}' if isinstance(value, float) else value
                lines.append(f'{name:32} {shown}')
    return '\n'.join(lines)
