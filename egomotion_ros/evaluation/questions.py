# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Questions of an evaluation: held-out scenes, what is asked for in them, and when it is reached.

Test scenes show colour-shape combinations, and instructions use sentences, that training never
saw.  A simple scene has 3 to 6 objects at least 0.9 m apart; the one that is asked for stands 1.2
to 4.5 m away, is visible and can be walked to; another has its colour and another its shape.  In
furnished scenes it is asked for alike, and what stands within reach is reached for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from egomotion_ros.aim import SWEEP
from egomotion_ros.data.instructions import (
    free_command,
    free_parameters,
    object_phrase,
    templates,
)
from egomotion_ros.data.render import SceneRenderer
from egomotion_ros.data.scenes import OBJECT_COLUMNS, Scene, draw_kinds, scene_seed
from egomotion_ros.data.scenes_furnished import approach, draw_scene
from egomotion_ros.data.scenes_view import clear_of_boxes
from egomotion_ros.data.synthesis import action_goal
from egomotion_ros.evaluation.goals import GoalScore, object_goal, score_motion
from egomotion_ros.evaluation.reach import score_reach
from egomotion_ros.types import CameraPose, HumanMotion

_HANDS = {'left': 'with your left hand', 'right': 'with your right hand',
          'both': 'with both hands'}
#: Actions without an object whose sentence tells where to end; kicks, jumps, bends end anywhere.
FREE = ('walk_forward', 'run_forward', 'turn', 'stand_still', 'wave')
_COLUMN = {name: k for k, name in enumerate(OBJECT_COLUMNS)}


@dataclass(frozen=True)
class Question:
    """
    One scene's picture, camera pose, instruction, goal and object table, in human metres.

    ``instruction`` is a held-out sentence, ``known`` one of training that names the object in the
    same words; ``goal`` (x, y, yaw) and ``objects`` in the start frame; ``side`` the hands a
    ``reach`` is asked with.
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
    side: str = ''

    def score(self, motion: HumanMotion, target: int | None = None) -> GoalScore:
        """Score a motion, in human metres, for the goal asked for or for another object's."""
        index = self.target if target is None else target
        if self.action == 'reach':
            return score_reach(motion, self.side, self.scene.objects[index])
        goal = self.goal if target is None else object_goal(self.action, self.objects[index])
        return score_motion(motion, self.action, goal)


def held_out_questions(count: int, action: str = 'walk_to', first: int = 0, split: str = 'test',
                       kind: str = 'simple') -> list[Question]:
    """
    Draw ``count`` questions, one a scene, from the scenes of ``split`` from ``first`` on.

    ``kind`` of the scenes; 'furnished' is needed to ``reach``.  ValueError otherwise.
    """
    if count < 1:
        raise ValueError(f'count must be at least 1, got {count}')
    known, unseen = (templates(action, part, kind) for part in ('train', split))
    questions: list[Question] = []
    number = first
    with SceneRenderer() as renderer:
        while len(questions) < count:
            scene = draw_scene(scene_seed(split, number), kind)
            number += 1
            table = scene.table()
            target = asked_for(scene, table, action)
            if target is None:
                continue
            rng = np.random.default_rng([scene.seed, 7])
            item = scene.objects[target]
            words = {'o': object_phrase(item.colour, item.shape, rng)}
            if action == 'reach':
                words['h'] = _HANDS[item.side]
            goal = goal_of(action, scene, table, target)
            said, learned = (str(rng.choice(patterns)).format(**words)
                             for patterns in (unseen, known))
            questions.append(Question(renderer.render(scene), scene.camera, said, action, goal,
                                      table, target, scene, learned,
                                      item.side if action == 'reach' else ''))
    return questions


def free_questions(count: int, action: str, split: str = 'test', kind: str = 'furnished'
                   ) -> list[Question]:
    """
    Draw ``count`` questions that name no object, such as "walk two metres", one a scene.

    Raises ValueError for an action that is not of :data:`FREE`, or not asked for in scenes of
    that ``kind``.
    """
    if action not in FREE or action not in free_parameters(kind):
        raise ValueError(f'{action} is not asked for without an object in {kind} scenes')
    questions = []
    with SceneRenderer() as renderer:
        for number in range(count):
            scene = draw_scene(scene_seed(split, number), kind)
            command = free_command(action, np.random.default_rng([scene.seed, 17]), split, kind)
            questions.append(Question(
                renderer.render(scene), scene.camera, command.text, action,
                action_goal(action, command.params), scene.table(), -1, scene, ''))
    return questions


def goal_of(action: str, scene: Scene, table: np.ndarray, target: int) -> np.ndarray:
    """Goal (x, y, yaw) of an action about an object of a scene; of a reach, where to stand."""
    if action == 'reach':
        item = scene.objects[target]
        return np.array([*approach(item), item.bearing])
    return object_goal(action, table[target])


def asked_for_nothing(question: Question) -> Question:
    """
    The same scene, asked to do the same with something that is nowhere, in a held-out sentence.

    What is right then is a search: stay and turn left by ``SWEEP`` to look for it.
    """
    scene = question.scene
    rng = np.random.default_rng([scene.seed, 13])
    there = {(item.colour, item.shape) for item in scene.objects}
    kind = draw_kinds(rng, scene.split)[0]
    while kind in there:
        kind = draw_kinds(rng, scene.split)[0]
    words = {'o': object_phrase(*kind, rng),
             'h': _HANDS[question.side or str(rng.choice(tuple(_HANDS)))]}
    pattern = str(rng.choice(templates(question.action, scene.split, scene.kind)))
    return replace(question, instruction=pattern.format(**words), known='',
                   action='turn_to', goal=np.array([0.0, 0.0, SWEEP]), target=-1, side='')


def asked_for(scene: Scene, table: np.ndarray, action: str) -> int | None:
    """
    Return the first object the action can be asked for in a scene, None when there is none.

    It must be visible and its way free.  To be walked or turned to it needs another object of its
    colour and one of its shape, and in simple scenes it is the one the scene was drawn around; to
    be reached it must be within reach.
    """
    objects = scene.objects[:1] if scene.kind == 'simple' else scene.objects
    for n, item in enumerate(objects):
        if not table[n, _COLUMN['visible']]:
            continue
        if action == 'reach':
            if item.side and clear_of_boxes(approach(item), scene.boxes, 0.2):
                return n
            continue
        others = [other for other in scene.objects if other is not item]
        alike = (any(other.colour == item.colour for other in others)
                 and any(other.shape == item.shape for other in others))
        if alike and not item.side and table[n, _COLUMN['clear']]:
            return n
    return None
