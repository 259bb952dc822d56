# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What continuous mode does about things that are out of view, seen from above.

``scripts/env python benchmarks/continuous_mode.py --out looking.png`` asks for what lies to the
side or behind in held-out furnished scenes, lets the body look every two seconds, and draws twelve
scenes by seed: the first picture, the path, the goal.  ``--forgetful`` follows every plan.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from egomotion_ros.data.render import SceneRenderer
from egomotion_ros.evaluation.closed_loop import keep_looking, turned_away
from egomotion_ros.evaluation.protocol import ACTIONS, SEARCHES
from egomotion_ros.evaluation.questions import held_out_questions
from egomotion_ros.evaluation.scenes import answer_all, scored
from egomotion_ros.evaluation.sheet import draw_sheet
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.pursuit import Pursuit


def main() -> None:
    """Ask, look, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--bundle', type=Path, help='default: the one that ships')
    parser.add_argument('--backend', default='openvino')
    parser.add_argument('--action', choices=ACTIONS['furnished'], default='walk_to')
    parser.add_argument('--scenes', type=int, default=24)
    parser.add_argument('--seed', type=int, default=0, help='of the scenes that are drawn')
    parser.add_argument('--forgetful', action='store_true', help='goal_memory: false')
    parser.add_argument('--out', type=Path, required=True, help='PNG')
    args = parser.parse_args()
    pipeline = EgoMotionPipeline.load(args.bundle, backend=args.backend)
    with SceneRenderer(pipeline.camera) as renderer:
        questions = [turned_away(question, renderer) for question in
                     held_out_questions(args.scenes, args.action, kind='furnished')]
        motions = answer_all(lambda question, seed: keep_looking(
            pipeline, question, seed, renderer, SEARCHES,
            pursuit=None if args.forgetful else Pursuit(pipeline.scale)),
            questions, 'out of view')
    pipeline.close()
    draw_sheet(questions, motions, args.out, seed=args.seed)
    reached = sum(score.reached for score in scored(questions, motions))
    print(f'{args.out}: {reached} of {len(questions)} reached')


if __name__ == '__main__':
    main()
