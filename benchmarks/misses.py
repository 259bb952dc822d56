# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Tell why walks miss: the reasoner names another place, or the generator does not get there.

    scripts/env python benchmarks/misses.py [BUNDLE]

Walks of validation scenes; of each that misses its goal it is told whether the place that is read
out of the reasoner's states (the aim) was already wrong, and what that place is.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from tqdm import tqdm

from egomotion_ros.aim import Aim, ended
from egomotion_ros.body.rotations import wrap_angle
from egomotion_ros.data.scenes import OBJECT_COLUMNS
from egomotion_ros.evaluation.goals import object_goal
from egomotion_ros.evaluation.questions import Question, held_out_questions
from egomotion_ros.evaluation.scenes import in_human_metres, observe
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.types import HumanMotion

#: An aim farther (m) from the goal than this is wrong; nearer (m) to another goal, it is that one.
FAR, NEAR = 0.4, 0.5
#: Within this angle (rad) of the way to the goal only the distance is wrong.
ASIDE = 0.15
_COLUMN = {name: n for n, name in enumerate(OBJECT_COLUMNS)}


def reason(question: Question, aim: Aim, motion: HumanMotion) -> str:
    """Why a walk that missed did: a word for the aim, or 'generator' where that was right."""
    place = aim.pelvis[:2]
    if np.hypot(*(place - question.goal[:2])) <= FAR:
        return 'chose a search' if ended(motion).searches() else 'generator'
    if aim.searches():
        return 'aim: a search'
    target = question.objects[question.target]
    for n, item in enumerate(question.objects):
        if n == question.target or item[_COLUMN['valid']] < 0.5:
            continue
        if np.hypot(*(place - object_goal('walk_to', item)[:2])) < NEAR:
            same = next((name for name in ('colour', 'shape')
                         if item[_COLUMN[name]] == target[_COLUMN[name]]), 'nothing')
            return f'aim: another object, same {same}'
    aside = np.arctan2(place[1], place[0]) - np.arctan2(question.goal[1], question.goal[0])
    return 'aim: distance' if abs(wrap_angle(np.asarray(aside))) < ASIDE else 'aim: elsewhere'


def main() -> None:
    """Walk, and print how many miss and why."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('bundle', nargs='?', help='default: the one that ships')
    parser.add_argument('--scenes', type=int, default=200)
    parser.add_argument('--first', type=int, default=600, help='first validation scene')
    parser.add_argument('--backend', default='openvino')
    args = parser.parse_args()
    pipeline = EgoMotionPipeline.load(*([args.bundle] if args.bundle else []),
                                      backend=args.backend)
    told: list[np.ndarray] = []
    choose = pipeline._choose  # the one place that is given the aim and the candidates

    def noting(drawn: list[np.ndarray], aim: np.ndarray) -> np.ndarray:
        told.append(aim)
        return choose(drawn, aim)

    pipeline._choose = noting
    questions = held_out_questions(args.scenes, 'walk_to', args.first, 'val', 'furnished')
    missed: Counter[str] = Counter()
    for n, question in enumerate(tqdm(questions)):
        motion = in_human_metres(pipeline.generate(pipeline.reason(
            observe(pipeline, question), question.instruction, n)))
        if not question.score(motion).reached:
            missed[reason(question, Aim.read(told[-1]), motion)] += 1
    print(f'{missed.total()} of {len(questions)} walks missed')
    for why, count in missed.most_common():
        print(f'{count:4}  {why}')
    pipeline.close()


if __name__ == '__main__':
    main()
