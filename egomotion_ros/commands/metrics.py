# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion metrics``: a bundle under the published protocols, and against real recordings."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from egomotion_ros.commands.outputs import drawing, output_file


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument('bundle', nargs='?', type=Path, help='default: the one that ships')
    parser.add_argument('--library', type=Path, required=True,
                        help='motion library with held-out performances')
    parser.add_argument('--episodes', type=Path, required=True,
                        help='held-out episodes with motions (egomotion data episodes)')
    parser.add_argument('--train-episodes', type=Path,
                        help='the episodes of training, for the audit of leaked instructions')
    parser.add_argument('--evaluator', type=Path,
                        help='checkpoint of "egomotion train evaluator"; without it the figures '
                             'that need embeddings are left out')
    parser.add_argument('--robot', default='unitree_g1')
    parser.add_argument('--backend', default='onnxruntime')
    parser.add_argument('--plans', type=int, default=256, help='episodes that are answered')
    parser.add_argument('--texts', type=int, default=100,
                        help='of them, how many are answered many times')
    parser.add_argument('--samples', type=int, default=30, help='how many times')
    parser.add_argument('--replications', type=int, default=20)
    parser.add_argument('--retargeted', type=int, default=40,
                        help='answers the robot figures are made of')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--json', action='store_true', help='print JSON alone')
    parser.add_argument('--plot', type=Path, help='draw the ratios to recordings (PNG)')


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    for name in ('plans', 'texts', 'samples', 'replications', 'retargeted'):
        if getattr(args, name) < 2:
            raise ValueError(f'--{name} must be at least 2, got {getattr(args, name)}')
    output_file(args.plot, '--plot')
    drawing(args.plot, '--plot')
    from egomotion_ros.bundle import Bundle
    from egomotion_ros.data.episodes import EpisodeSet
    from egomotion_ros.data.library import MotionLibrary
    from egomotion_ros.evaluation.report import Counts, draw_ratios, measure
    from egomotion_ros.pipeline import EgoMotionPipeline
    from egomotion_ros.retarget.description import RobotDescription
    from egomotion_ros.retarget.retargeter import Retargeter
    from egomotion_ros.runtimes.base import open_runtime
    library, episodes = MotionLibrary.open(args.library), EpisodeSet.open(args.episodes)
    evaluator = None
    if args.evaluator is not None:
        try:
            from egomotion_ros.evaluation.evaluator import Evaluator
        except ImportError as error:
            raise ValueError("the evaluator needs torch: pip install 'egomotion_ros[train]'") \
                from error
        evaluator = Evaluator.open(args.evaluator)
    train_texts = None
    if args.train_episodes is not None:
        train_texts = EpisodeSet.open(args.train_episodes).instructions
    bundle = Bundle.open(args.bundle)
    try:
        runtime = open_runtime(args.backend, bundle, args.threads)
    except RuntimeError as error:
        raise ValueError(f'--backend {args.backend}: {error}') from error
    pipeline = EgoMotionPipeline(bundle, runtime, Retargeter(RobotDescription.load(args.robot)))
    try:
        report = measure(pipeline, runtime, library, episodes, train_texts, evaluator, Counts(
            args.plans, args.texts, args.samples, args.replications, args.retargeted))
    finally:
        pipeline.close()
    if args.plot is not None:
        draw_ratios(report, args.plot)
    print(json.dumps(report, indent=2) if args.json else table(report))
    return 0


def table(report: dict[str, Any]) -> str:
    """Lay a report of :func:`egomotion_ros.evaluation.report.measure` out as text."""
    lines = [f'bundle {report["bundle"][:12]}, {report["episodes"]} held-out episodes']
    layouts = {'leaks': _leaks, 'against held-out recordings': _ratios}
    for title, section in report.items():
        if isinstance(section, dict):
            lines += ['', title, *layouts.get(title, _rows)(section)]
    return '\n'.join(lines)


def _leaks(section: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in section.items():
        if isinstance(value, dict) and 'share' in value:
            lines.append(f'  {name}: {value["share"]:.0%} of {value["held-out texts"]} held-out '
                         f'texts stand verbatim in training ({value["unique"]:.0%} of the '
                         f'different ones), such as {_shown(value["examples"])}')
        else:
            lines.append(f'  {name}: {_shown(value)}')
    return lines


def _rows(section: dict[str, Any]) -> list[str]:
    """Plain figures one a line; dictionaries side by side, one a column."""
    tables = {name: value for name, value in section.items() if isinstance(value, dict)}
    lines = [f'  {name:44} {_shown(value)}' for name, value in section.items()
             if name not in tables]
    columns = list(dict.fromkeys(column for row in tables.values() for column in row))
    wide = max(map(len, columns), default=0)
    if tables:
        lines.append(' ' * (wide + 4) + '  '.join(f'{name:>24}' for name in tables))
    for column in columns:
        cells = [_shown(row[column]) if column in row else '' for row in tables.values()]
        lines.append(f'  {column:{wide}}  ' + '  '.join(f'{cell:>24}' for cell in cells))
    return lines


def _ratios(section: dict[str, Any]) -> list[str]:
    lines = ['  made / recorded, matched by action and speed band; goal 0.67 to 1.5',
             '  slides in mm a frame, jerk in m/s^3 at 30 fps']
    for name, row in section.items():
        lines.append(f'  {name}: {row["matched"]:.0%} of the windows matched'
                     + (f', not {", ".join(row["not matched"])}' if row['not matched'] else ''))
        for group, figures in row['groups'].items():
            cells = []
            for figure, value in figures.items():
                # The heights of joints are a side line: told once.
                if isinstance(value, dict) and (group == 'all' or 'heights' not in figure):
                    low, high = value['interval']
                    cells.append(f'{figure} {value["ratio"]:.2f} [{low:.2f}, {high:.2f}] '
                                 f'({value["made"]:.3g} / {value["recorded"]:.3g})')
            lines.append(f'    {group:14} ' + '  '.join(cells)
                         + f'  {figures["windows"]} / {figures["recorded windows"]} windows')
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {'mean', 'interval'}:
        return f'{value["mean"]:.4g} +- {value["interval"]:.2g}'
    if isinstance(value, dict):
        return ', '.join(f'{k} {_shown(v)}' for k, v in value.items())
    if isinstance(value, list):
        return ', '.join(map(str, value)) or 'none'
    return f'{value:.4g}' if isinstance(value, float) else str(value)
