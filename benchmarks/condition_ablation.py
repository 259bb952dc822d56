# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What the generator needs of the reasoner: which rows of its states, and of which layer.

Trains one small generator for each choice, all with the same data, steps and seed, and writes
``ablation.json`` and ``ablation.md`` to --out: the share of held-out walks that end at their goal
with the reasoner's own codes, with the right ones, with those of another motion, and with the
states of another question.  A choice that was trained before is only looked up; under
``torchrun`` all processes work on one choice at a time.
"""

import argparse
import json
from pathlib import Path

#: Columns of the table and what they are called.
COLUMNS = {'told_within': 'own codes', 'oracle_within': 'right codes',
           'codes_swapped_within': "another motion's codes",
           'swapped_within': "another question's states"}


def choices(layers: int) -> dict[str, tuple[int | None, str]]:
    """Layer (None: the stated one) and rows of every choice, by name; at least three layers."""
    rows = {f'layer {layers}, {name}': (None, name) for name in ('both', 'prompt', 'primitives')}
    return rows | {f'layer {n}, both': (n, 'both') for n in range(layers - 1, max(layers - 4, 0),
                                                                  -1)}


def run(args: argparse.Namespace) -> list[dict]:
    """Train what is missing; one record of figures a choice."""
    import torch

    from egomotion_ros.data.episodes import EpisodeSet
    from egomotion_ros.models.checkpoints import load_model
    from egomotion_ros.training.generator import Shown, train_generator
    from egomotion_ros.training.loop import validations
    if args.threads:
        torch.set_num_threads(args.threads)
    layers = load_model(args.run / 'reasoner', 'reasoner').config.layer
    count = len(EpisodeSet.open(args.episodes).images)
    part = slice(int(count * args.stage1_scenes), None)
    records = []
    for name, (layer, rows) in choices(layers).items():
        folder = args.out / name.replace(', ', '-').replace(' ', '')
        train_generator(args.config, args.episodes, args.run / 'tokenizer',
                        args.run / 'autoencoder', args.run / 'reasoner', folder, args.val,
                        part, shown=Shown(layer, rows),
                        store=args.out / f'states-{layer or layers}')
        records.append({'choice': name, **validations(folder)[-1]})
    return records


def table(records: list[dict]) -> str:
    """Markdown table of the records."""
    lines = ['| states shown | ' + ' | '.join(COLUMNS.values()) + ' |',
             '|---' * (len(COLUMNS) + 1) + '|']
    lines += [f'| {r["choice"]} | ' + ' | '.join(f'{100 * r[key]:.1f} %' for key in COLUMNS)
              + ' |' for r in records]
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Parse the arguments, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--config', type=Path, required=True, help="a generator's YAML")
    parser.add_argument('--run', type=Path, required=True,
                        help='folder with tokenizer/, autoencoder/ and reasoner/')
    parser.add_argument('--episodes', type=Path, required=True)
    parser.add_argument('--val', type=Path, required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--stage1-scenes', type=float, default=0.65,
                        help='as of `egomotion train`')
    parser.add_argument('--threads', type=int, default=0, help='CPU threads, 0: all')
    args = parser.parse_args()
    records = run(args)
    from egomotion_ros.training.loop import processes
    if not processes().is_main_process:
        return
    (args.out / 'ablation.json').write_text(json.dumps(records, indent=2) + '\n')
    (args.out / 'ablation.md').write_text(table(records))
    print(table(records))


if __name__ == '__main__':
    main()
