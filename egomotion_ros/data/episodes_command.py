# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion data episodes``: write a set of simulated egocentric episodes."""

from __future__ import annotations

import argparse
from pathlib import Path

#: What the sub-verb does, in a line.
HELP = 'render simulated scenes with instructions and the motions that answer them'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the sub-verb."""
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='set to write')
    parser.add_argument('--library', type=Path, metavar='DIR',
                        help='motion library to compose motions of; without it the set has '
                             'pictures, object tables and instructions, but no motions')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train',
                        help='scenes, sentences and performances to use (default: train)')
    parser.add_argument('--scenes', type=int, default=3000, metavar='N',
                        help='count of scenes (default: 3000); more can be added later')
    parser.add_argument('--motions', type=int, default=7000, metavar='N',
                        help='size of the motion bank the scenes are built around '
                             '(default: 7000)')
    parser.add_argument('--moving-starts', type=int, default=0, metavar='N',
                        help='append N walks that are already under way to the bank; scenes '
                             'written from then on use them as well (default: 0)')
    parser.add_argument('--kind', choices=('furnished', 'simple'), default='furnished',
                        help='furnished rooms with all actions, or bare rooms with the seven '
                             'actions of the first release (default: furnished)')
    parser.add_argument('--seed', type=int, default=0, metavar='S',
                        help='range of scenes, 0 to 9 (default: 0)')
    parser.add_argument('--workers', type=int, default=1, metavar='N',
                        help='processes that render (default: 1)')


def run(args: argparse.Namespace) -> int:
    """Write the set and print what it holds; finished shards of an earlier run are kept."""
    from egomotion_ros.data.episodes import (
        EpisodeSet,
        check_counts,
        check_same,
        write_episodes,
    )
    from egomotion_ros.data.episodes_bank import load_or_make_bank, with_moving_starts
    from egomotion_ros.data.episodes_table import rows
    from egomotion_ros.data.gait import GaitLibrary
    from egomotion_ros.data.library import MotionLibrary, is_library
    from egomotion_ros.data.motion_bank import bank_folder

    check_counts(args.scenes, args.workers, args.seed)
    if args.moving_starts < 0 or args.motions < 100:
        raise ValueError('--motions must be at least 100 and --moving-starts at least 0, got '
                         f'{args.motions} and {args.moving_starts}')
    if is_library(args.out):
        raise ValueError(f'{args.out} is a motion library; the set needs a folder of its own')
    gait = None
    if args.library is not None:
        gait = GaitLibrary.cut(MotionLibrary.open(args.library))
        check_same(args.out, args.kind, args.split)
        if bank_folder(args.out) is not None:
            print(f'the motions in {args.out} are used as they are; --motions and --seed are for '
                  'new ones')
        bank = load_or_make_bank(args.out, gait, args.split, args.motions, args.seed,
                                 args.workers, args.kind)
        if args.moving_starts and not (bank.cut[:, 0] >= 0).any():
            with_moving_starts(bank, args.moving_starts, args.seed).save(bank_folder(args.out))
    write_episodes(args.out, args.split, args.scenes, args.seed, args.workers,
                   kind=args.kind)
    written = EpisodeSet.open(args.out)
    print(f'{len(written.images)} {args.kind} scenes, {len(written)} episodes -> {args.out}')
    print('\n'.join(rows(written, gait, args.split)))
    return 0
