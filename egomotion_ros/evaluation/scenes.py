# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Goal score of a bundle on held-out simulated scenes: one picture, one instruction, one plan.

Test scenes show colour-shape combinations, and instructions use sentences, that training never
saw.  A scene has 3 to 6 objects at least 0.9 m apart; the one that is asked for stands 1.2 to
4.5 m away, is visible and can be walked to; another has its colour and another its shape.  The
same scenes are scored with the picture blanked and with the instructions shuffled among scenes; a
bundle that looks and listens falls to chance in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from egomotion_ros.data.instructions import object_phrase, templates
from egomotion_ros.data.render import SceneRenderer
from egomotion_ros.data.scenes import OBJECT_COLUMNS, Scene, sample_scene, scene_seed
from egomotion_ros.evaluation.goals import (
    GoalScore,
    best_constant,
    object_goal,
    other_object,
    reached_by,
    score_motion,
    share,
    summarise,
)
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.types import CameraPose, HumanMotion, Observation

MODES = ('told', 'image blanked', 'instruction shuffled')
#: Training scenes the best constant motion is chosen on.
CONSTANT_SCENES = 500
#: Index of the object that is asked for: scenes are drawn around their first.
TARGET = 0


@dataclass(frozen=True)
class Question:
    """
    One scene's picture, camera pose, instruction, goal and object table, in human metres.

    ``instruction`` is a held-out sentence, ``known`` one of training that names the object in the
    same words; ``goal`` (x, y, yaw) and ``objects`` in the start frame.
    """

    image: np.ndarray
    camera: CameraPose
    instruction: str
    action: str
    goal: np.ndarray
    objects: np.ndarray
    target: int
    scene: Scene
    known: str


#: Makes a motion, in human metres in the start frame, for a question and a seed.
Answerer = Callable[[Question, int], HumanMotion]


def held_out_questions(count: int, action: str = 'walk_to', first: int = 0,
                       split: str = 'test') -> list[Question]:
    """Draw ``count`` questions, one a scene, from the scenes of ``split`` from ``first`` on."""
    if count < 1:
        raise ValueError(f'count must be at least 1, got {count}')
    questions: list[Question] = []
    number = first
    with SceneRenderer() as renderer:
        while len(questions) < count:
            scene = sample_scene(scene_seed(split, number))
            number += 1
            table = scene.table()
            if not _usable(table):
                continue
            rng = np.random.default_rng([scene.seed, 7])
            item = scene.objects[TARGET]
            phrase = object_phrase(item.colour, item.shape, rng)
            texts = [str(rng.choice(templates(action, part))).format(o=phrase)
                     for part in (split, 'train')]
            questions.append(Question(
                renderer.render(scene), scene.camera, texts[0], action,
                object_goal(action, table[TARGET]), table, TARGET, scene, texts[1]))
    return questions


def _usable(table: np.ndarray) -> bool:
    """Whether the first object can be seen and walked to, and has both its distractors."""
    column = {name: k for k, name in enumerate(OBJECT_COLUMNS)}
    target, others = table[TARGET], table[table[:, column['valid']] > 0][TARGET + 1:]
    alike = [(others[:, column[name]] == target[column[name]]).any()
             for name in ('colour', 'shape')]
    return bool(all(alike) and target[column['visible']] > 0 and target[column['clear']] > 0)


def constant_pose(action: str, scenes: int = CONSTANT_SCENES) -> np.ndarray:
    """End pose (x, y, yaw) of the one motion that answers most questions of training scenes."""
    tables = (sample_scene(scene_seed('train', n)).table() for n in range(scenes))
    goals = [object_goal(action, table[TARGET]) for table in tables if _usable(table)]
    return best_constant(np.stack(goals), action)[0]


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
    return [score_motion(motion, question.action, question.goal)
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


def chance(questions: list[Question], motions: list[HumanMotion]) -> dict[str, object]:
    """What is reached without knowing which object was named, and without knowing anything."""
    rng = np.random.default_rng(0)
    action = questions[0].action
    wrong = []
    for question, motion in zip(questions, motions, strict=True):
        try:
            elsewhere = other_object(question.objects, question.target, rng)
        except ValueError:
            continue  # the scene shows one object only
        wrong.append(score_motion(motion, action,
                                  object_goal(action, question.objects[elsewhere])))
    goals = np.stack([question.goal for question in questions])
    constant = reached_by(constant_pose(action), goals, action)
    # A constant motion can always be one that ends standing.
    return {'scored against another object': summarise(wrong),
            'best constant motion': share(constant) | share(constant, 'settled')}
