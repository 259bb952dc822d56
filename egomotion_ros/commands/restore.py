# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion restore``: bundle -> the checkpoints to train on from."""

from __future__ import annotations

import argparse
from pathlib import Path

from egomotion_ros.bundle import Bundle

HELP = 'turn a bundle back into checkpoints, to train on from them'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument('--bundle', type=Path, help='default: the one that ships')
    parser.add_argument('--out', type=Path, required=True, metavar='RUN',
                        help='folder to write reasoner/, generator/ and autoencoder/ to')


def run(args: argparse.Namespace) -> int:
    """Restore; the tokenizer and the grounding heads are in no bundle."""
    try:
        from egomotion_ros.models.checkpoints import save_model
        from egomotion_ros.runtimes.restore import restore_models
    except ImportError as error:
        raise ValueError(f'restore needs the training packages: {error}') from error
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f'--out {args.out} is a file, it takes a folder')
    for part in ('reasoner', 'generator', 'autoencoder'):
        if (args.out / part / 'model.safetensors').exists():
            raise ValueError(f'{args.out / part} holds a checkpoint already')
    models = restore_models(Bundle.open(args.bundle))
    for part in ('reasoner', 'generator', 'autoencoder'):
        save_model(getattr(models, part), part, args.out / part)
    models.text.save(args.out / 'reasoner' / 'text.json')
    print(f'{args.out}: reasoner, generator, autoencoder; `egomotion train --init {args.out}` '
          'starts from them')
    return 0
