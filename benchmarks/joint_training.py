# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Joint against decoupled training of reasoner and generator: a table and a plot.

Runs every arm with every seed (one after the other; a finished run is not repeated), then writes
``joint.json``, ``joint.md`` (the table) and ``joint.png`` (goal score and gradient cosine over
the steps) to --out.  See :mod:`egomotion_ros.training.joint` for what the arms are; under
``torchrun`` all processes work on one run at a time.
"""

import argparse
import json
from pathlib import Path

import numpy as np

#: Figures of the table, and how they are named in it.
COLUMNS = {'within': 'walks at their goal', 'swapped_within': 'same, states swapped',
           'goal_within': "reasoner's goal read-out", 'base_right': 'base code right',
           'slide': 'foot slide, mm a frame', 'jerk': 'jerk, m/s^3'}


def run_all(args: argparse.Namespace) -> list[dict]:
    """Train what is not yet there; returns one record per arm and seed."""
    from egomotion_ros.models.checkpoints import save_json
    from egomotion_ros.training.joint import ARMS, train_pair
    from egomotion_ros.training.loop import processes
    records = []
    for seed in range(args.seeds):
        for arm in ARMS:
            folder = args.out / f'{arm}-{seed}'
            done = folder / 'curves.json'
            if not done.is_file():
                curves = train_pair(args.config, arm, seed, args.episodes,
                                    args.runs / 'tokenizer', args.runs / 'autoencoder',
                                    args.val, folder, args.init)
                if processes().is_main_process:
                    save_json(curves, done)
                processes().wait_for_everyone()
            records.append({'arm': arm, 'seed': seed, **json.loads(done.read_text())})
    return records


def table(records: list[dict]) -> str:
    """Mean and range over seeds of the last validation, by arm, as Markdown."""
    lines = ['| figure | ' + ' | '.join(sorted({r['arm'] for r in records})) + ' |',
             '|---|---|---|']
    for key, name in COLUMNS.items():
        cells = []
        for arm in sorted({r['arm'] for r in records}):
            values = [r['val'][-1][key] for r in records if r['arm'] == arm]
            cells.append(f'{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})')
        lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
    for key, name in (('cosine', 'gradient cosine'), ('norm_ratio', 'gradient norms, 2 to 1')):
        cells = []
        for arm in sorted({r['arm'] for r in records}):
            values = [row[key] for r in records if r['arm'] == arm for row in r['train']]
            cells.append(f'{np.mean(values):.3g} ({np.mean(np.array(values) < 0):.0%} below 0)'
                         if key == 'cosine' else f'{np.median(values):.3g}')
        lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


def plot(records: list[dict], path: Path) -> None:
    """Goal score, and the gradients' cosine, over the steps."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    colours = {'joint': 'tab:orange', 'decoupled': 'tab:blue'}
    for record in records:
        label = record['arm'] if record['seed'] == 0 else None
        left.plot([r['step'] for r in record['val']], [r['within'] for r in record['val']],
                  color=colours[record['arm']], marker='o', label=label)
        steps = [r['step'] for r in record['train']]
        cosine = np.array([r['cosine'] for r in record['train']])
        smooth = np.convolve(np.pad(cosine, 2, mode='edge'), np.ones(5) / 5, mode='valid')
        right.plot(steps, smooth, color=colours[record['arm']], lw=1, label=label)
    left.set(xlabel='step', ylabel='held-out walks at their goal', ylim=(0, 1))
    right.set(xlabel='step', ylabel='cosine of the gradients')
    right.axhline(0, color='0.6', lw=0.8)
    left.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    """Train, tabulate, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', type=Path, default=Path('config/train/joint.yaml'))
    parser.add_argument('--episodes', type=Path, required=True)
    parser.add_argument('--val', type=Path, required=True)
    parser.add_argument('--runs', type=Path, required=True,
                        help='folder with the tokenizer and autoencoder checkpoints')
    parser.add_argument('--init', type=Path, metavar='RUN',
                        help='run whose reasoner and generator both arms start from')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=0, help='CPU threads, 0: all')
    args = parser.parse_args()
    if args.threads:
        import torch
        torch.set_num_threads(args.threads)
    from egomotion_ros.training.loop import processes
    args.out.mkdir(parents=True, exist_ok=True)
    records = run_all(args)
    if not processes().is_main_process:
        return
    (args.out / 'joint.json').write_text(json.dumps(records, indent=1))
    (args.out / 'joint.md').write_text(table(records))
    plot(records, args.out / 'joint.png')
    print(table(records))


if __name__ == '__main__':
    main()
