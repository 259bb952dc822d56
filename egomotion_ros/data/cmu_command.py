# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion data cmu``: fetch the CMU motion capture database from its own site."""

from __future__ import annotations

import argparse
from pathlib import Path
import sys

#: What the sub-verb does, in a line.
HELP = 'fetch the CMU motion capture database (ASF/AMC) from mocap.cs.cmu.edu'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the sub-verb."""
    from egomotion_ros.data.cmu import SITE

    parser.add_argument('--out', type=Path, required=True, metavar='DIR',
                        help='folder to write; an interrupted download goes on')
    parser.add_argument('--subjects', metavar='LIST',
                        help='subjects to unpack, such as 1-19,35 (default: all)')
    parser.add_argument('--site', default=SITE, metavar='URL',
                        help=f'another address of the same layout (default: {SITE})')


def run(args: argparse.Namespace) -> int:
    """Fetch, unpack, label; exit code 1 where a subject that was named is not there."""
    from egomotion_ros.data import cmu

    subjects = None if args.subjects is None else cmu.parse_subjects(args.subjects)
    files, missing = cmu.fetch_cmu(args.out, subjects, args.site)
    labels = args.out / 'labels.tsv'
    if not labels.exists():
        try:
            cmu.write_labels(labels, cmu.fetch_labels(args.site))
        except (OSError, ValueError) as error:
            print(f'no descriptions: {error}; run again to try again', file=sys.stderr)
    cmu.write_source(args.out / 'source.json', files, args.site)
    takes = sum(path.suffix == '.amc' for path in files)
    print(f'{takes} takes of {len(files) - takes} subjects -> {args.out}')
    print(f'{args.out / cmu.ARCHIVE} is not needed any more and may be deleted')
    print(cmu.ACKNOWLEDGEMENT)
    told = f' --labels {labels}' if labels.exists() else ''
    print(f'next: egomotion data import {args.out} --out LIBRARY{told}')
    if missing:
        print(f'not in the archive: subjects {missing}', file=sys.stderr)
    return int(bool(missing))
