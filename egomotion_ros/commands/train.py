# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
``egomotion train``: one stage, or all stages of the default in order.

``all`` ends with what is learned of the trained reasoner, where the folder of configurations has
theirs: the queries, with which it decodes in parallel, and the naming, which tells whether a
sentence names a thing.  Two stages are never part of it: the evaluator measures
motion and makes none, the baseline is the generator without a reasoner and takes the generator's
configuration.
"""

from __future__ import annotations

import argparse
from pathlib import Path

STAGES = ('tokenizer', 'autoencoder', 'reasoner', 'generator')
#: Stages that take the reasoner as it is.
AFTER = ('queries', 'naming')


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument('stage', choices=(*STAGES, 'all', *AFTER, 'evaluator', 'baseline'),
                        help='all: the four stages of the default and, where the folder has '
                             'them, queries.yaml and naming.yaml; evaluator and baseline by '
                             'name only')
    parser.add_argument('--config', type=Path, required=True,
                        help="the stage's YAML; for 'all' the folder that holds one per stage")
    parser.add_argument('--library', type=Path, help='motion library (egomotion data import)')
    parser.add_argument('--episodes', type=Path,
                        help='episodes to learn from (egomotion data episodes)')
    parser.add_argument('--val', type=Path, help='held-out episodes for the curves')
    parser.add_argument('--out', type=Path, required=True,
                        help='folder of checkpoints, one a stage; an unfinished run goes on')
    parser.add_argument('--init', type=Path, metavar='RUN',
                        help='run to start from: every stage begins with its checkpoint there')
    parser.add_argument('--stage1-scenes', type=float, default=0.65, metavar='SHARE',
                        help='share of the scenes stage 1 sees; stage 2 and the naming get '
                             'states of the others')
    parser.add_argument('--threads', type=int, default=0, help='CPU threads, 0: all')


def run(args: argparse.Namespace) -> int:
    """Train the stage or stages asked for."""
    stages: tuple[str, ...] = (args.stage,)
    if args.stage == 'all':
        stages = (*STAGES, *(stage for stage in AFTER
                             if (args.config / f'{stage}.yaml').is_file()))
    needs = {'tokenizer': ['library'], 'autoencoder': ['library'], 'reasoner': ['episodes'],
             'generator': ['episodes'], 'queries': ['episodes'],
             'naming': ['episodes'], 'baseline': ['episodes'],
             'evaluator': ['library', 'episodes']}
    for name in sorted({name for stage in stages for name in needs[stage]}):
        if getattr(args, name) is None:
            raise ValueError(f'--{name} is needed to train the {args.stage}')
    if not 0.0 < args.stage1_scenes < 1.0:
        raise ValueError(f'--stage1-scenes {args.stage1_scenes}: expected a share within (0, 1)')
    if args.threads < 0:
        raise ValueError(f'--threads {args.threads}: expected 0 (all) or more')
    from egomotion_ros.data.episodes import EpisodeSet
    for folder in (args.episodes, args.val):
        if folder is not None:
            EpisodeSet.open(folder)  # not after hours of the stages before it
    try:
        import torch
    except ImportError as error:
        raise ValueError("training needs torch: pip install '.[train]' in the checkout") from error
    if args.threads:
        torch.set_num_threads(args.threads)
    for stage in stages:
        config = args.config / f'{stage}.yaml' if args.config.is_dir() else args.config
        _train(stage, config, args)
    return 0


def _train(stage: str, config: Path, args: argparse.Namespace) -> None:
    out = args.out / stage
    init = args.init / stage if args.init is not None else None
    if stage in ('tokenizer', 'autoencoder'):
        from egomotion_ros.training import autoencoder
        make = getattr(autoencoder, f'train_{stage}')
        make(config, args.library, out, args.episodes, init)
        return
    if stage == 'queries':
        from egomotion_ros.training.queries import train_queries
        train_queries(config, args.episodes, args.out / 'reasoner', out, args.val)
        return
    if stage == 'evaluator':
        from egomotion_ros.training.evaluator import train_evaluator
        train_evaluator(config, args.library, args.episodes, out, args.val)
        return
    if stage == 'baseline':
        from egomotion_ros.training.baseline_generator import train_baseline_generator
        train_baseline_generator(config, args.episodes, args.out / 'autoencoder',
                                 args.out / 'reasoner', out, args.val,
                                 None if args.init is None else args.init / 'generator')
        return
    from egomotion_ros.data.episodes import EpisodeSet
    first, rest = EpisodeSet.open(args.episodes).shared_out(args.stage1_scenes)
    if stage == 'naming':
        from egomotion_ros.training.naming import NoNamingError, train_naming
        try:
            train_naming(config, args.episodes, args.out / 'reasoner', out, rest)
        except NoNamingError as error:
            if args.stage != 'all':
                raise
            # Somebody's own sentences may all name a thing.
            print(f'left out: {error}')
        return
    if stage == 'reasoner':
        from egomotion_ros.training.reasoner import train_reasoner
        tokenizer = args.out / 'tokenizer'
        train_reasoner(config, args.episodes, out, tokenizer if tokenizer.exists() else None,
                       args.val, init, first)
    else:
        from egomotion_ros.training.generator import train_generator
        train_generator(config, args.episodes, args.out / 'tokenizer', args.out / 'autoencoder',
                        args.out / 'reasoner', out, args.val, rest, init)
