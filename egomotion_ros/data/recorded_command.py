# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion data recorded``: episodes of real head-camera recordings with motion and words."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

from egomotion_ros.commands.outputs import drawing, output_file

if TYPE_CHECKING:
    from egomotion_ros.data.mapping import Mapping
    from egomotion_ros.data.recorded import Listed

#: What the sub-verb does, in a line.
HELP = 'make episodes of head-camera recordings with motion and sentences, beside simulated ones'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the sub-verb."""
    parser.add_argument('recordings', type=Path, nargs='+', metavar='TABLE_OR_SEQUENCE',
                        help='YAML table of recordings, or folder of a Nymeria sequence')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR',
                        help='episode set to write, or to append to')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train',
                        help='recordings to use; to which one belongs hangs on its name '
                             '(default: train)')
    parser.add_argument('--mapping', type=Path, action='append', default=[], metavar='YAML',
                        help='skeleton mapping, tried before those that ship; repeatable')
    parser.add_argument('--picture', type=Path, metavar='PNG',
                        help='draw some of the pictures with their sentences, the horizon and the '
                             'way that was walked: look at it before you train')


def run(args: argparse.Namespace) -> int:
    """Append the recordings; exit code 1 where none gave an episode."""
    from egomotion_ros.data.mapping import load_mapping, shipped_mappings
    from egomotion_ros.data.recorded_picture import Chosen, save_sheet
    from egomotion_ros.data.recorded_set import write_recorded

    mappings = [load_mapping(path) for path in args.mapping] + shipped_mappings()
    chosen = Chosen()
    output_file(args.picture, '--picture')
    drawing(args.picture, '--picture')
    tallies = write_recorded(args.out, _listed(args.recordings, mappings), args.split,
                             partial(tqdm.write, file=sys.stderr), chosen.add)
    for tally in tallies:
        print(tally.line())
    count = sum(tally.used for tally in tallies)
    print(f'{count} recorded episodes -> {args.out}')
    if args.picture is not None and chosen.samples:
        print(f'look at {save_sheet(args.picture, chosen.samples)}')
    return int(count == 0)


def _listed(paths: list[Path], mappings: list[Mapping]) -> list[Listed]:
    from egomotion_ros.data.recorded import Listed, read_table
    from egomotion_ros.data.recorded_nymeria import is_sequence, open_sequence
    found: list[Listed] = []
    for path in paths:
        if not path.is_dir():
            found += read_table(path, mappings)
        elif is_sequence(path):
            found.append(Listed(path.resolve().name, partial(open_sequence, path, mappings)))
        else:
            raise ValueError(f'{path}: no Nymeria sequence (body/xdata.npz, '
                             'recording_head/data/data.vrs); list other recordings in a table')
    return found
