# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The grounding protocol: the same scenes answered in every way that can tell seeing from guessing.

To the modes of :mod:`egomotion_ros.evaluation.scenes` it adds sentences of training (are unseen
ones within five points?), one more look in the middle of the way, looks again and again as in
continuous mode, also with the back to what is asked for, what chance is, and sentences that ask
for what is nowhere in a furnished scene.  A walk must also end standing (slower than
0.2 m/s in the last frame).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from egomotion_ros.data.instructions import free_parameters
from egomotion_ros.data.instructions_furnished import has_held_out_verb
from egomotion_ros.data.render import SceneRenderer
from egomotion_ros.evaluation.closed_loop import answer_twice, keep_looking, turned_away
from egomotion_ros.evaluation.goals import best_constant, share, summarise
from egomotion_ros.evaluation.questions import FREE, asked_for_nothing, free_questions
from egomotion_ros.evaluation.scenes import (
    Answerer,
    Question,
    answer,
    answer_all,
    scored,
)
from egomotion_ros.evaluation.table import Goal, Row, rate
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.pursuit import Pursuit
from egomotion_ros.types import HumanMotion

#: Actions of the protocol, and the share of :class:`GoalScore` each is judged by.
JUDGED_BY = {'walk_to': 'settled', 'turn_to': 'reached', 'reach': 'reached'}
#: Actions by the kind of scenes they can be asked for in.
ACTIONS = {'simple': ('walk_to', 'turn_to'), 'furnished': ('walk_to', 'turn_to', 'reach')}
#: Least share of reached goals from one look, and with one more on the way.
ONE_LOOK = {'walk_to': 0.75, 'turn_to': 0.85, 'reach': 0.6}
TWO_LOOKS = {'walk_to': 0.85, 'reach': 0.7}
#: Looks in continuous mode at what is in view at first, and at what is not.
LOOKS, SEARCHES = 5, 10
#: Figures of continuous mode, and their names in the table.
CONTINUOUS = {
    'continuous': f'continuous mode, {LOOKS} looks',
    'all followed': f'continuous mode, {LOOKS} looks, every plan followed (goal_memory: false)',
    'out of view': f'continuous mode, {SEARCHES} looks, out of view at first',
}
#: How far unseen sentences may fall behind, and a blind or deaf model may stand above chance.
POINTS = 0.05
#: Paired differences, and their names in the table.
GAPS = {'known less unseen': 'sentences of training less unseen ones',
        'known less unseen verbs': 'the same where the verb is unseen'}
#: Scenes the protocol asks for; fewer for what names no object.
SCENES, FREE_SCENES = 500, 100


def evaluate_protocol(pipeline: EgoMotionPipeline, questions: list[Question],
                      told: list[HumanMotion]) -> dict[str, Any]:
    """
    Figures beside those of ``evaluate_scenes``, whose motions ``told`` are.

    ``known sentences`` and, for walks and reaches, ``one more look`` as summaries; ``known less
    unseen`` the paired difference with its interval, ``known less unseen verbs`` that of the
    sentences whose verb no training sentence has, where there are any; ``nowhere`` of searches
    for what is not in a furnished scene; those of :data:`CONTINUOUS`.
    """
    key = JUDGED_BY[questions[0].action]
    known = [replace(question, instruction=question.known) for question in questions]
    scores = scored(questions, answer_all(lambda q, seed: answer(pipeline, q, seed), known,
                                          'known sentences'))
    unseen = scored(questions, told)
    gap = np.array([float(getattr(a, key)) - float(getattr(b, key))
                    for a, b in zip(scores, unseen, strict=True)])
    figures: dict[str, Any] = {'known sentences': summarise(scores),
                               'known less unseen': share(gap, 'gap')}
    verbs = [has_held_out_verb(question.instruction) for question in questions]
    if any(verbs):
        figures['known less unseen verbs'] = share(gap[verbs], 'gap')
    if questions[0].scene.kind == 'furnished':
        nowhere = [asked_for_nothing(question) for question in questions]
        figures['nowhere'] = summarise(scored(nowhere, answer_all(
            lambda q, seed: answer(pipeline, q, seed), nowhere, 'what is nowhere')))
    with SceneRenderer(pipeline.camera) as renderer:
        if questions[0].action in TWO_LOOKS:
            twice = answer_all(lambda q, seed: answer_twice(pipeline, q, seed, renderer),
                               questions, 'one more look')
            figures['one more look'] = summarise(scored(questions, twice))
        figures |= _continuous(pipeline, questions, renderer)
    return figures


def _continuous(pipeline: EgoMotionPipeline, questions: list[Question],
                renderer: SceneRenderer) -> dict[str, Any]:
    """Figures of :data:`CONTINUOUS`."""
    def remembering(looks: int) -> Answerer:
        return lambda q, seed: keep_looking(pipeline, q, seed, renderer, looks,
                                            pursuit=Pursuit(pipeline.scale))

    away = [turned_away(question, renderer) for question in questions]
    answered = {'continuous': (questions, remembering(LOOKS)),
                'all followed': (questions, lambda q, seed: keep_looking(
                    pipeline, q, seed, renderer, LOOKS)),
                'out of view': (away, remembering(SEARCHES))}
    return {name: summarise(scored(asked, answer_all(answerer, asked, name)))
            for name, (asked, answerer) in answered.items()}


def evaluate_free(pipeline: EgoMotionPipeline, scenes: int, kind: str) -> dict[str, Any]:
    """
    Summary of every action that names no object, over ``scenes`` scenes of ``kind`` each.

    ``constant`` is the share that the best single end pose reaches, where goals differ.
    """
    figures: dict[str, Any] = {}
    for action in (name for name in FREE if name in free_parameters(kind)):
        questions = free_questions(scenes, action, kind=kind)
        motions = answer_all(lambda q, seed: answer(pipeline, q, seed), questions,
                             action.replace('_', ' '))
        goals = np.array([question.goal for question in questions])
        figures[action] = summarise(scored(questions, motions))
        if np.ptp(goals, axis=0).any():
            figures[action]['constant'] = best_constant(goals, action)[1]
    return figures


def free_rows(figures: Mapping[str, Any]) -> list[Row]:
    """Rows of :func:`evaluate_free`."""
    rows = []
    for action, found in figures.items():
        row = rate('Told without an object', action.replace('_', ' '), found)
        if 'constant' in found:
            row = replace(row, note=f'{row.note}; best constant end '
                                    f'{100 * found["constant"]:.0f} %')
        rows.append(row)
    return rows


def protocol_rows(figures: Mapping[str, Any], action: str) -> list[Row]:
    """Rows of ``evaluate_scenes`` and :func:`evaluate_protocol` together."""
    key = JUDGED_BY[action]
    section = f'Grounding: {action.replace("_", " ")}'
    if key == 'settled':
        section += ', at rest in the end'
    told = figures['told']
    wrong, constant = figures['scored against another object'], figures['best constant motion']
    chance = max(wrong[key], constant[key])
    limit = Goal('at most', chance + POINTS)
    rows = [Row(section, 'scenes', told['count'], goal=Goal('at least', SCENES)),
            rate(section, 'goal reached, one look', told, Goal('at least', ONE_LOOK[action]), key)]
    if 'one more look' in figures:
        rows.append(rate(section, 'goal reached, one more look on the way',
                         figures['one more look'], Goal('at least', TWO_LOOKS[action]), key))
    return [
        *rows,
        *[rate(section, label, figures[name], key=key) for name, label in CONTINUOUS.items()
          if name in figures],
        rate(section, 'the same scenes in sentences of training', figures['known sentences'],
             key=key),
        *[Row(section, name, figures[gap]['gap'], '%', Goal('at most', POINTS),
              figures[gap]['gap_interval'], f'{figures[gap]["count"]} scenes')
          for gap, name in GAPS.items() if gap in figures],
        rate(section, 'chance: scored against another object', wrong, key=key),
        rate(section, 'chance: best constant motion', constant, key=key),
        rate(section, 'image blanked', figures['image blanked'], limit, key),
        rate(section, 'instruction shuffled', figures['instruction shuffled'], limit, key),
        *([rate(section, 'asked for what is nowhere: turns to look for it', figures['nowhere'],
                key=key)]
          if 'nowhere' in figures else []),
    ]
