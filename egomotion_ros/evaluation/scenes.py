# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Goal score of a bundle on held-out simulated scenes: one picture, one instruction, one plan.

The same questions (:mod:`egomotion_ros.evaluation.questions`) are scored with the picture blanked
and with the instructions shuffled among scenes; a bundle that looks and listens falls to chance
(:mod:`egomotion_ros.evaluation.chance`) in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from egomotion_ros.evaluation.chance import chance
from egomotion_ros.evaluation.goals import GoalScore, summarise
from egomotion_ros.evaluation.questions import Question, held_out_questions
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.types import HumanMotion, Observation

__all__ = ['MODES', 'Answerer', 'Question', 'altered', 'answer', 'answer_all', 'evaluate_scenes',
           'held_out_questions', 'in_human_metres', 'observe', 'scored']

MODES = ('told', 'image blanked', 'instruction shuffled')
#: Makes a motion, in human metres in the start frame, for a question and a seed.
Answerer = Callable[[Question, int], HumanMotion]


def in_human_metres(motion: HumanMotion) -> HumanMotion:
    """A motion at a robot's scale, brought back to the size of the skeleton (scale 1)."""
    return replace(motion, root_position=motion.root_position / motion.scale, scale=1.0)


def observe(pipeline: EgoMotionPipeline, question: Question) -> Observation:
    """What the robot of the pipeline sees and is told, in its own metres."""
    camera = replace(question.camera, height=question.camera.height * pipeline.scale)
    return Observation(question.image, question.instruction, 0, camera)


def answer(pipeline: EgoMotionPipeline, question: Question, seed: int) -> HumanMotion:
    """Motion for a question, in human metres in the start frame."""
    primitives = pipeline.reason(observe(pipeline, question), f'evaluation-{seed}', seed)
    return in_human_metres(pipeline.generate(primitives))


def answer_all(answerer: Answerer, questions: list[Question], label: str) -> list[HumanMotion]:
    """Motions for all questions, question ``n`` with seed ``n``."""
    return [answerer(question, n) for n, question in enumerate(
        tqdm(questions, desc=label, unit='scene', mininterval=5))]


def scored(questions: list[Question], motions: list[HumanMotion]) -> list[GoalScore]:
    """Score of each motion against the goal of its question."""
    return [question.score(motion)
            for question, motion in zip(questions, motions, strict=True)]


def altered(questions: list[Question], mode: str) -> list[Question]:
    """The questions in a mode of :data:`MODES`."""
    if mode not in MODES:
        raise ValueError(f'mode must be one of {MODES}, got {mode!r}')
    if mode == 'image blanked':
        return [replace(q, image=np.full_like(q.image, 127)) for q in questions]
    if mode == 'instruction shuffled':
        # A cyclic shift along a random order: nobody keeps the own instruction.
        order = np.random.default_rng(0).permutation(len(questions))
        other = np.empty(len(questions), int)
        other[order] = np.roll(order, 1)
        return [replace(q, instruction=questions[n].instruction)
                for q, n in zip(questions, other, strict=True)]
    return questions


def evaluate_scenes(pipeline: EgoMotionPipeline, questions: list[Question]
                    ) -> tuple[dict[str, object], list[HumanMotion]]:
    """
    Score all questions, of one action, in all modes.

    Returns figures (rates with bootstrap 95 % intervals, chance baselines) and the motions of the
    mode ``told``.
    """
    figures: dict[str, object] = {}
    told: list[HumanMotion] = []
    for mode in MODES:
        asked = altered(questions, mode)
        motions = answer_all(lambda q, seed: answer(pipeline, q, seed), asked, mode)
        figures[mode] = summarise(scored(questions, motions))
        told = told or motions
    return figures | chance(questions, told), told
