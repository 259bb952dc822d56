# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion evaluate``: every figure of a bundle, with its goal and whether it is met."""

from __future__ import annotations

import argparse
from dataclasses import replace
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egomotion_ros.commands.outputs import drawing, output_file

if TYPE_CHECKING:
    from egomotion_ros.evaluation.baselines import Baselines
    from egomotion_ros.evaluation.questions import Question
    from egomotion_ros.evaluation.table import Row
    from egomotion_ros.pipeline import EgoMotionPipeline
    from egomotion_ros.types import HumanMotion

    Answered = tuple[list[Question], list[HumanMotion]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument('--bundle', type=Path, help='default: the one that ships')
    parser.add_argument('--robot', default='unitree_g1')
    parser.add_argument('--backend', default='onnxruntime')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default 2)')
    parser.add_argument('--candidates', type=int,
                        help="motions drawn for a plan (default: the bundle's)")
    parser.add_argument('--scenes', type=int,
                        help='held-out scenes (default 300, with --protocol 500)')
    parser.add_argument('--action', choices=('walk_to', 'turn_to', 'stop_at', 'reach'),
                        default='walk_to')
    parser.add_argument('--kind', choices=('simple', 'furnished'), default='simple',
                        help='of the scenes: objects on the floor of an empty room (default), or '
                             'on and between furniture, some within reach')
    parser.add_argument('--protocol', action='store_true',
                        help='walks, turns and, in furnished scenes, reaches: one look and '
                             'two, known sentences, chance')
    parser.add_argument('--baselines', type=Path, metavar='EPISODES',
                        help='with --checkpoints: compare with simpler methods that learned from '
                             'these training episodes')
    parser.add_argument('--baseline-config', type=Path, metavar='YAML',
                        help="with --baselines: the generator's configuration; the one without a "
                             'reasoner is trained to its end first')
    parser.add_argument('--retargeted', type=int, default=40,
                        help='of the generated motions, how many the robot figures are made of')
    parser.add_argument('--checkpoints', type=Path,
                        help='folder the bundle was exported from; needed by --library and '
                             '--baselines')
    parser.add_argument('--library', type=Path,
                        help='motion library with held-out performances: reconstruction error of '
                             'autoencoder and tokenizer')
    parser.add_argument('--split', choices=('val', 'test'), default='test',
                        help='performances of --library that are reconstructed (default test); '
                             'scenes are always held-out test scenes')
    parser.add_argument('--camera-path', type=float, metavar='MINUTES',
                        help='run the node on a camera for so long: rate, CPU, latency, memory')
    parser.add_argument('--json', action='store_true', help='print JSON alone')
    parser.add_argument('--picture', type=Path, help='write a sheet of scenes and paths (PNG)')
    parser.add_argument('--video', type=Path,
                        help='write a film of goals reached and missed, drawn by seed (MP4)')
    parser.add_argument('--seed', type=int, default=0,
                        help='of the scenes that --picture and --video show (default 0)')


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    from egomotion_ros.evaluation import figures, speed
    from egomotion_ros.evaluation.motions import evaluate_reconstruction, evaluate_robot
    from egomotion_ros.evaluation.table import format_rows
    from egomotion_ros.pipeline import EgoMotionPipeline
    from egomotion_ros.retarget.retargeter import Retargeter
    _check(args)
    details: dict[str, Any] = {}
    # What can be wrong with folders shows here, before the long part.
    if args.library is not None:
        details['reconstruction'] = evaluate_reconstruction(args.checkpoints, args.library,
                                                            args.split)
    try:
        pipeline = EgoMotionPipeline.load(args.bundle, args.robot, args.backend, args.threads)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    if args.candidates is not None:
        pipeline.bundle = replace(pipeline.bundle, candidates=args.candidates)
    try:
        baselines = None if args.baselines is None else _baselines(args, pipeline)
        rows, (questions, motions) = _scenes(args, pipeline, baselines, details)
        details['robot'] = evaluate_robot(Retargeter(pipeline.robot), motions[:args.retargeted],
                                          pipeline.scale)
    finally:
        pipeline.close()
    rows += figures.reconstruction_rows(details.get('reconstruction'),
                                        'needs --checkpoints and --library', args.protocol)
    rows += figures.robot_rows(details['robot'])
    rows.append(figures.size_row(pipeline.bundle.directory))
    details['speed'] = speed.measure(pipeline.bundle, args.backend, args.threads)
    rows += figures.speed_rows(details['speed'])
    rows += _camera_path(args, details)
    report = {'bundle': pipeline.bundle.hash, 'rows': [row.as_dict() for row in rows],
              'details': details}
    print(json.dumps(report, indent=2) if args.json else
          f'bundle {pipeline.bundle.hash[:12]}\n\n{format_rows(rows)}', flush=True)
    if args.picture is not None:
        from egomotion_ros.evaluation.sheet import draw_sheet
        draw_sheet(questions, motions, args.picture, seed=args.seed)
    if args.video is not None:
        from egomotion_ros.evaluation.film import write_film
        write_film(args.video, questions, motions, Retargeter(pipeline.robot), seed=args.seed)
    return 0


def _scenes(args: argparse.Namespace, pipeline: EgoMotionPipeline, baselines: Baselines | None,
            details: dict[str, Any]) -> tuple[list[Row], Answered]:
    """Rows of all actions asked for, their figures in ``details``; the first action's answers."""
    from egomotion_ros.evaluation import figures, protocol
    from egomotion_ros.evaluation.comparison import COMPARED, compare, comparison_rows
    from egomotion_ros.evaluation.questions import held_out_questions
    from egomotion_ros.evaluation.scenes import evaluate_scenes
    actions = protocol.ACTIONS[args.kind] if args.protocol else (args.action,)
    scenes = args.scenes or (protocol.SCENES if args.protocol else 300)
    rows: list[Row] = []
    answered: list[Answered] = []
    for action in actions:
        questions = held_out_questions(scenes, action, kind=args.kind)
        found, motions = evaluate_scenes(pipeline, questions)
        rows += figures.goal_rows(found, action)
        if args.protocol:
            found |= protocol.evaluate_protocol(pipeline, questions, motions)
            rows += protocol.protocol_rows(found, action)
        details[action] = found
        if baselines is not None and action in COMPARED:
            methods = compare(questions, motions, baselines.answerers(action))
            details[f'{action} baselines'] = methods
            rows += comparison_rows(methods, action)
        answered.append((questions, motions))
    if args.protocol:
        free = protocol.evaluate_free(pipeline, min(scenes, protocol.FREE_SCENES), args.kind)
        details['without an object'] = free
        rows += protocol.free_rows(free)
    return rows, answered[0]


def _camera_path(args: argparse.Namespace, details: dict[str, Any]) -> list[Row]:
    """Rows of the running node; a node that fails is said, and costs no other row."""
    from egomotion_ros.evaluation import figures
    if args.camera_path is None:
        return figures.camera_rows(None, 'needs --camera-path MINUTES')
    from egomotion_ros.evaluation import camera_path
    try:
        details['camera path'] = camera_path.measure(args.bundle or '', args.camera_path,
                                                     robot=args.robot)
    except RuntimeError as error:
        return figures.camera_rows(None, f'failed: {str(error).splitlines()[0]}')
    return figures.camera_rows(details['camera path'])


def _baselines(args: argparse.Namespace, pipeline: EgoMotionPipeline) -> Baselines:
    """Open the baselines, with the flow's steps and guidance of the bundle."""
    try:
        from egomotion_ros.evaluation.baselines import FOLDER, Baselines
        from egomotion_ros.training.baseline_generator import train_baseline_generator
    except ImportError as error:
        raise ValueError(f'--baselines needs the training packages: {error}') from error
    runs = args.checkpoints
    if args.baseline_config is not None:
        # A run that is finished ends at once, one that was interrupted goes on.
        train_baseline_generator(args.baseline_config, args.baselines, runs / 'autoencoder',
                                 runs / 'reasoner', runs / FOLDER)
    return Baselines(args.checkpoints, args.baselines, pipeline.bundle.steps,
                     pipeline.bundle.guidance)


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError before hours are spent, not after."""
    from egomotion_ros.evaluation.comparison import COMPARED
    if args.action == 'reach' and args.kind != 'furnished':
        raise ValueError('--action reach needs --kind furnished')
    if (args.checkpoints is None) != (args.library is None and args.baselines is None):
        raise ValueError('--checkpoints goes together with --library or --baselines')
    if args.baseline_config is not None and args.baselines is None:
        raise ValueError('--baseline-config needs --baselines')
    if args.baselines is not None and args.action not in COMPARED:
        raise ValueError(f'--baselines compares {" and ".join(COMPARED)}, not {args.action}')
    for name in ('scenes', 'retargeted', 'candidates'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f'--{name} must be at least 1, got {value}')
    output_file(args.picture, '--picture')
    drawing(args.picture or args.video, '--picture and --video')
    output_file(args.video, '--video')
    if args.seed < 0:
        raise ValueError(f'--seed must be at least 0, got {args.seed}')
    if args.camera_path is None:
        return
    if not 0 < args.camera_path <= 600:
        raise ValueError(f'--camera-path {args.camera_path}: expected 0 to 600 minutes')
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise ValueError(f'--camera-path needs ROS 2: {error}') from error
