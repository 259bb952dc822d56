# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion data``: fetch and import recordings, write simulated and recorded episodes."""

from __future__ import annotations

import argparse
from collections import defaultdict
from difflib import get_close_matches
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

from egomotion_ros.commands.outputs import drawing

HELP = 'fetch and import motion capture, write simulated and recorded episodes'

#: Sub-verbs with a module of their own.
_MODULES = {'cmu': 'cmu_command', 'episodes': 'episodes_command',
            'recorded': 'recorded_command'}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    verbs = parser.add_subparsers(dest='data_verb', required=True, metavar='WHAT')
    for name, module in _MODULES.items():
        command = import_module(f'egomotion_ros.data.{module}')
        command.configure(verbs.add_parser(name, help=command.HELP, description=command.HELP))
    text = 'read recordings below a folder: ASF/AMC, BVH, AMASS, Nymeria, HumanML3D, EE4D-Motion'
    one = verbs.add_parser('import', help=text, description=text)
    one.add_argument('folder', type=Path, metavar='DIR', help='folder with recordings')
    one.add_argument('--out', type=Path, required=True, metavar='DIR', help='library to write')
    one.add_argument('--labels', type=Path, metavar='TSV', help='take<TAB>description per line')
    one.add_argument(
        '--mapping',
        type=Path,
        action='append',
        default=[],
        metavar='YAML',
        help='skeleton mapping, tried before those that ship; repeatable',
    )
    one.add_argument(
        '--fps',
        action='append',
        default=[],
        metavar='GLOB=RATE',
        type=_rate,
        help='frame rate of files whose header is wrong, by path below DIR; repeatable',
    )
    one.add_argument(
        '--smplx',
        type=Path,
        metavar='DIR',
        help='SMPL-X model files, for the body shapes of .npz files (optional)',
    )
    one.add_argument(
        '--picture',
        action='append',
        default=[],
        metavar='TAKE',
        help='write a contact sheet of a take next to the library; repeatable',
    )
    one.add_argument(
        '--video',
        action='append',
        default=[],
        metavar='TAKE',
        help='write an mp4 of a take next to the library; repeatable',
    )


def _rate(text: str) -> tuple[str, float]:
    glob, _, rate = text.rpartition('=')
    try:
        value = float(rate)
    except ValueError:
        value = 0.0
    if not glob or not 1.0 <= value <= 1000.0:
        raise argparse.ArgumentTypeError(f'expected GLOB=RATE with 1 to 1000 Hz, got {text!r}')
    return glob, value


def run(args: argparse.Namespace) -> int:
    """Run a sub-verb; exit code 1 where no file could be read."""
    if args.data_verb in _MODULES:
        return import_module(f'egomotion_ros.data.{_MODULES[args.data_verb]}').run(args)
    from egomotion_ros.data.importer import import_folder
    from egomotion_ros.data.importer_labels import read_labels
    from egomotion_ros.data.library import MotionLibrary, save_library
    from egomotion_ros.data.mapping import load_mapping, shipped_mappings
    from egomotion_ros.data.preview import save_picture, save_video

    drawing(args.picture or args.video, '--picture and --video')
    if not args.folder.is_dir():
        raise ValueError(f'{args.folder}: no folder with recordings')
    labels = read_labels(args.labels) if args.labels else {}
    mappings = [load_mapping(path) for path in args.mapping] + shipped_mappings()
    takes, report = import_folder(args.folder, mappings, labels, dict(args.fps), args.smplx)
    _print_files(report.outcomes)
    _print_unused(labels, dict(args.fps), [o.source for o in report.outcomes])
    if not takes:
        print('no file could be read')
        return 1
    args.out.mkdir(parents=True, exist_ok=True)
    save_library(args.out, takes)
    _print_actions(takes)
    print(
        f'{len(takes)} takes read, {report.count("copy")} copies left out, '
        f'{report.count("refused")} refused -> {args.out}'
    )
    library = MotionLibrary.open(args.out)
    looks = [(n, 'png', save_picture) for n in args.picture]
    looks += [(n, 'mp4', save_video) for n in args.video]
    for name, suffix, save in looks:
        try:
            take = library.load(name)
        except ValueError as error:
            near = get_close_matches(name, [take.name for take in takes], 5, 0.0)
            raise ValueError(f'{error}; names like it: {", ".join(near)}') from None
        path = args.out / f'{name}.{suffix}'
        save(path, take.motion, f'{name}: {take.label}')
        print(f'wrote {path}')
    return 0


def _print_files(outcomes: list) -> None:
    width = max(len(o.source) for o in outcomes)
    print(f'{"file":<{width}}  {"":<7}  {"seconds":>7}  notes')
    for o in outcomes:
        print(f'{o.source:<{width}}  {o.status:<7}  {o.seconds:>7.1f}  {o.notes}')


def _print_unused(labels: dict[str, str], rates: dict[str, float], files: list[str]) -> None:
    """Say which labels and rates meant none of the files (paths below the folder)."""
    from egomotion_ros.data.importer_labels import cmu_take

    stems = {Path(file).stem for file in files}
    stems |= {take for stem in stems if (take := cmu_take(stem))}
    unused = [take for take in labels if take not in stems]
    if unused:
        print(f'{len(unused)} of {len(labels)} rows of --labels name no file, such as {unused[0]}')
    for glob in rates:
        if not any(fnmatch(file, glob) for file in files):
            print(f'--fps {glob}: no such file')


def _print_actions(takes: list) -> None:
    from egomotion_ros.data.importer_checks import stance_speed
    from egomotion_ros.data.library import SPLITS
    from egomotion_ros.types import FPS

    rows = defaultdict(list)
    for take in takes:
        rows[take.action].append(take)
    rows['all'] = takes
    head = f'{"action":<9} {"takes":>5} {"minutes":>7}' + ''.join(f' {s:>6}' for s in SPLITS)
    print(f'\n{head}  speed m/s  stance foot m/s  at rest')
    for action, group in sorted(rows.items(), key=lambda kv: -sum(t.frames for t in kv[1])):
        minutes = [sum(t.frames for t in group if t.split == s) / FPS / 60 for s in SPLITS]
        frames = sum(t.frames for t in group)
        speed = sum(t.speed * t.frames for t in group) / frames
        standing = [t for t in group if t.motion.contacts.any()]
        slide = sum(stance_speed(t.motion) * t.frames for t in standing) / frames
        starts, ends = sum(t.starts_at_rest for t in group), sum(t.ends_at_rest for t in group)
        print(
            f'{action:<9} {len(group):>5} {sum(minutes):>7.2f}'
            + ''.join(f' {m:>6.2f}' for m in minutes)
            + f'  {speed:>9.2f}  {slide:>15.3f}  {starts} start, {ends} end'
        )
    print()
