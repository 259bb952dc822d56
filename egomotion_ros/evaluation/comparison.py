# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Methods side by side: goals reached and foot slide on the same questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from egomotion_ros.evaluation.goals import bootstrap_interval, summarise
from egomotion_ros.evaluation.protocol import JUDGED_BY
from egomotion_ros.evaluation.scenes import Answerer, Question, answer_all, scored
from egomotion_ros.evaluation.table import Goal, Row, rate
from egomotion_ros.retarget.quality import human_feet
from egomotion_ros.types import HumanMotion

#: Actions all methods can be asked for.
COMPARED = ('walk_to', 'turn_to', 'reach')
#: Name of the method that is compared with the others.
FULL = 'full method'


def judge(questions: list[Question], motions: list[HumanMotion]) -> dict[str, Any]:
    """Summary of the goals, and UniEgoMotion's foot slide (mm a frame) with its interval."""
    slides = np.array([human_feet(motion).slide for motion in motions])
    return summarise(scored(questions, motions)) | {
        'slide': float(slides.mean()), 'slide_interval': bootstrap_interval(slides)}


def compare(questions: list[Question], motions: list[HumanMotion],
            others: Iterable[tuple[str, Answerer | None]]) -> dict[str, dict[str, Any] | None]:
    """Judge the full method, whose ``motions`` they are, and the ``others`` (None: missing)."""
    methods: dict[str, dict[str, Any] | None] = {FULL: judge(questions, motions)}
    for name, answerer in others:
        methods[name] = None if answerer is None else judge(
            questions, answer_all(answerer, questions, name))
    return methods


def comparison_rows(methods: Mapping[str, Mapping[str, Any] | None], action: str) -> list[Row]:
    """
    Rows of every method (``judge``; None: its checkpoint is missing), the full one first.

    The full method is best where the end of its interval stands apart from every other's.
    """
    section = f'Against simpler methods: {action.replace("_", " ")}'
    key = JUDGED_BY[action]
    rows: list[Row] = []
    for name, figures in methods.items():
        if figures is None:
            rows.append(Row(section, f'{name}, goal reached', None, '%',
                            note='needs egomotion train baseline'))
            continue
        rows.append(rate(section, f'{name}, goal reached', figures, key=key))
        rows.append(Row(section, f'{name}, foot slide', figures['slide'], 'mm',
                        interval=tuple(figures['slide_interval'])))
    others = {name: f for name, f in methods.items() if name != FULL and f is not None}
    if not others:
        raise ValueError('there is no method to compare with')
    full, apart = methods[FULL], Goal('at least', 0.0)
    best = max(others, key=lambda name: others[name][f'{key}_interval'][1])
    least = min(others, key=lambda name: others[name]['slide_interval'][0])
    return [
        *rows,
        Row(section, 'goals: gap between the intervals of full and best other',
            full[f'{key}_interval'][0] - others[best][f'{key}_interval'][1], '%', apart,
            note=best),
        Row(section, 'slide: gap between the intervals of least other and full',
            others[least]['slide_interval'][0] - full['slide_interval'][1], 'mm', apart,
            note=least),
    ]
