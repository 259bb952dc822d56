# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The curves of a training run in one picture: loss of every stage, and its figures on held-out data.

``scripts/env python benchmarks/training_curves.py RUNS --out curves.png`` reads what ``egomotion
train`` wrote below each stage's folder in TensorBoard's format.
"""

from __future__ import annotations

import argparse
from pathlib import Path

Curve = list[tuple[int, float]]
#: Stage -> held-out figures that are drawn: tag, label, factor.
FIGURES = {
    'tokenizer': [('val/mpjpe_mm', 'MPJPE, mm', 1.0)],
    'autoencoder': [('val/mpjpe_mm', 'MPJPE, mm', 1.0)],
    'reasoner': [('val/goal_within', 'goal read out, %', 100.0),
                 ('val/hands_within', 'hands within 0.12 m, %', 100.0),
                 ('val/blank', 'goal, blank picture, %', 100.0)],
    'generator': [('val/told_within', 'walks arrive, %', 100.0),
                  ('val/swapped_within', "with another question's states, %", 100.0)],
    'queries': [('val/same_1', 'codes as one by one, %', 100.0)],
}


def read(folder: Path) -> dict[str, Curve]:
    """Tag -> (step, value) of a stage's events; ValueError where its loss is not among them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(folder / 'tensorboard'), size_guidance={'scalars': 0})
    events.Reload()
    curves = {tag: [(item.step, item.value) for item in events.Scalars(tag)]
              for tag in events.Tags()['scalars']}
    if 'train/loss' not in curves:
        raise ValueError(f'{folder}: no loss was noted yet (every 20 steps)')
    return curves


def draw(runs: Path, out: Path) -> list[str]:
    """Draw the stages that are in ``runs``, and return their names."""
    from matplotlib.figure import Figure
    stages = [stage for stage in FIGURES if (runs / stage / 'tensorboard').is_dir()]
    if not stages:
        raise ValueError(f'{runs}: no stage with curves')
    figure = Figure(figsize=(3.2 * len(stages), 2.9), dpi=100, layout='constrained')
    for number, stage in enumerate(stages):
        curves = read(runs / stage)
        axis = figure.add_subplot(1, len(stages), number + 1)
        axis.plot(*zip(*curves['train/loss'], strict=True), color='0.65', linewidth=1)
        axis.set_yscale('log')
        axis.set_title(stage, fontsize=9)
        axis.set_xlabel('step', fontsize=8)
        axis.set_ylabel('training loss (grey)', fontsize=8)
        axis.tick_params(which='both', labelsize=7)
        beside = axis.twinx()
        beside.tick_params(labelsize=7)
        for tag, label, factor in FIGURES[stage]:
            if tag in curves:
                steps, values = zip(*curves[tag], strict=True)
                beside.plot(steps, [factor * value for value in values], 'o-', markersize=3,
                            label=label)
        beside.set_ylim(bottom=0)
        if beside.lines:
            beside.legend(fontsize=6, loc='lower left')
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return stages


def main() -> None:
    """Draw, and say what was drawn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('runs', type=Path, help='folder of checkpoints, one a stage')
    parser.add_argument('--out', type=Path, default=Path('out/training.png'))
    args = parser.parse_args()
    print(f'{", ".join(draw(args.runs, args.out))}: {args.out}')


if __name__ == '__main__':
    main()
