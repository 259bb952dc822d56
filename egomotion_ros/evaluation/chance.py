# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is reached without knowing which object was named, and without knowing anything."""

from __future__ import annotations

from functools import cache

import numpy as np

from egomotion_ros.body.hands import HANDS
from egomotion_ros.data.scenes import Scene, SceneObject, scene_seed
from egomotion_ros.data.scenes_furnished import draw_scene
from egomotion_ros.evaluation.goals import (
    best_constant,
    object_goal,
    other_object,
    reached_by,
    share,
    summarise,
)
from egomotion_ros.evaluation.questions import Question, asked_for
from egomotion_ros.evaluation.reach import touching
from egomotion_ros.types import HumanMotion

#: Training scenes the best constant motion is chosen on.
SCENES = 500


def chance(questions: list[Question], motions: list[HumanMotion]) -> dict[str, object]:
    """
    Score ``motions`` against another visible object of their scenes, and one motion for all.

    The constant motion is chosen on training scenes, for reaching one per hand.
    """
    rng = np.random.default_rng(0)
    wrong = []
    for question, motion in zip(questions, motions, strict=True):
        try:
            elsewhere = other_object(question.objects, question.target, rng)
        except ValueError:
            continue  # the scene shows one object only
        wrong.append(question.score(motion, elsewhere))
    action, kind = questions[0].action, questions[0].scene.kind
    if action == 'reach':
        hits = np.array([touches(constant_hands(question.side, kind), question.side,
                                 question.scene.objects[question.target])
                         for question in questions])
    else:
        goals = np.stack([question.goal for question in questions])
        hits = reached_by(constant_pose(action, kind), goals, action)
    # A constant motion can always be one that ends standing.
    return {'scored against another object': summarise(wrong),
            'best constant motion': share(hits) | share(hits, 'settled')}


@cache
def _training_scenes(kind: str, count: int) -> tuple[Scene, ...]:
    return tuple(draw_scene(scene_seed('train', n), kind) for n in range(count))


@cache
def constant_pose(action: str, kind: str = 'simple', scenes: int = SCENES) -> np.ndarray:
    """End pose (x, y, yaw) of the one motion that answers most questions of training scenes."""
    goals = []
    for scene in _training_scenes(kind, scenes):
        table = scene.table()
        target = asked_for(scene, table, action)
        if target is not None:
            goals.append(object_goal(action, table[target]))
    return best_constant(np.stack(goals), action)[0]


@cache
def constant_hands(side: str, kind: str = 'furnished', scenes: int = SCENES) -> np.ndarray:
    """Palms (2, 3) of the one motion that touches most of what ``side`` is asked to reach."""
    items = [item for scene in _training_scenes(kind, scenes) for item in scene.objects
             if item.side == side]
    tried = [item.hand_targets(side) for item in items]
    hits = [sum(touches(hands, side, item) for item in items) for hands in tried]
    return tried[int(np.argmax(hits))]


def touches(hands: np.ndarray, side: str, item: SceneObject) -> bool:
    """Whether palms (2, 3) of the hands ``side`` are all at the surface of an object."""
    return bool(touching(hands[list(HANDS[side])], item))
