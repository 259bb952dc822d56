# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Goal score of a bundle on held-out simulated scenes: one picture, one instruction, one plan.

Test scenes show colour-shape combinations, and instructions use sentences, that training never
saw.  The same scenes are scored with the picture blanked and with the instructions shuffled among
scenes; a bundle that looks and listens falls to chance in both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from egomotion_ros.data.instructions import object_command
from egomotion_ros.data.render import SceneRenderer
from egomotion_ros.data.scenes import OBJECT_COLUMNS, sample_scene, scene_seed
from egomotion_ros.evaluation.goals import (
    GoalScore,
    best_constant,
    object_goal,
    other_object,
    score_motion,
    summarise,
)
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.types import CameraPose, HumanMotion, Observation

MODES = ('told', 'image blanked', 'instruction shuffled')


@dataclass(frozen=True)
class Question:
    """One scene's picture, camera pose, instruction, goal and object table, in human metres."""

    image: np.ndarray
    camera: CameraPose
    instruction: str
    action: str
    goal: np.ndarray
    objects: np.ndarray
    target: int


def held_out_questions(count: int, action: str = 'walk_to', first: int = 0,
                       split: str = 'test') -> list[Question]:
    """Draw ``count`` questions, one a scene, from the scenes of ``split`` from ``first`` on."""
    if count < 1:
        raise ValueError(f'count must be at least 1, got {count}')
    visible, clear = (OBJECT_COLUMNS.index(name) for name in ('visible', 'clear'))
    questions: list[Question] = []
    number = first
    with SceneRenderer() as renderer:
        while len(questions) < count:
            scene = sample_scene(scene_seed(split, number))
            number += 1
            table = scene.table()
            usable = np.flatnonzero((table[:, visible] > 0) & (table[:, clear] > 0))
            if not len(usable):
                continue
            rng = np.random.default_rng([scene.seed, 7])
            target = int(rng.choice(usable))
            item = scene.objects[target]
            command = object_command(action, target, item.colour, item.shape, rng, split)
            questions.append(Question(renderer.render(scene), scene.camera, command.text, action,
                                      object_goal(action, table[target]), table, target))
    return questions


def in_human_metres(motion: HumanMotion) -> HumanMotion:
    """A motion at a robot's scale, brought back to the size of the skeleton (scale 1)."""
    return replace(motion, root_position=motion.root_position / motion.scale, scale=1.0)


def answer(pipeline: EgoMotionPipeline, question: Question, seed: int) -> HumanMotion:
    """Motion for a question, in human metres in the start frame."""
    camera = replace(question.camera, height=question.camera.height * pipeline.scale)
    observation = Observation(question.image, question.instruction, 0, camera)
    primitives = pipeline.reason(observation, f'evaluation-{seed}', seed)
    return in_human_metres(pipeline.generate(primitives))


def evaluate_scenes(pipeline: EgoMotionPipeline, questions: list[Question]
                    ) -> tuple[dict[str, object], list[HumanMotion]]:
    """
    Score all questions in all modes.

    Returns figures (rates with bootstrap 95 % intervals, chance baselines) and the motions of the
    mode ``told``.
    """
    rng = np.random.default_rng(0)
    # A cyclic shift along a random order: nobody keeps the own instruction.
    order = rng.permutation(len(questions))
    other = np.empty(len(questions), int)
    other[order] = np.roll(order, 1)
    motions: list[HumanMotion] = []
    figures: dict[str, object] = {}
    wrong: list[GoalScore] = []
    for mode in MODES:
        scores = []
        for n, question in enumerate(tqdm(questions, desc=mode, unit='scene', mininterval=5)):
            asked = question
            if mode == 'image blanked':
                asked = replace(question, image=np.full_like(question.image, 127))
            elif mode == 'instruction shuffled':
                asked = replace(question, instruction=questions[other[n]].instruction)
            motion = answer(pipeline, asked, seed=n)
            scores.append(score_motion(motion, question.action, question.goal))
            if mode == MODES[0]:
                motions.append(motion)
                try:
                    elsewhere = other_object(question.objects, question.target, rng)
                except ValueError:
                    continue  # the scene shows one object only
                wrong.append(score_motion(motion, question.action, object_goal(
                    question.action, question.objects[elsewhere])))
        figures[mode] = summarise(scores)
    figures['scored against another object'] = summarise(wrong)
    goals = np.stack([question.goal for question in questions])
    figures['best constant motion'] = best_constant(goals, questions[0].action)[1]
    return figures, motions
