# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is asked for in a scene, and the motions of a bank that answer it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from egomotion_ros.aim import SWEEP
from egomotion_ros.body.hands import HANDS
from egomotion_ros.body.rotations import wrap_angle
from egomotion_ros.data.clips import CLIP_ACTIONS
from egomotion_ros.data.instructions import (
    OBJECT_ACTIONS,
    Command,
    free_command,
    free_parameters,
    object_command,
)
from egomotion_ros.data.looks import Look
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.data.scenes import OBJECT_COLUMNS, Scene, draw_kinds
from egomotion_ros.data.scenes_furnished import approach
from egomotion_ros.data.scenes_view import AWAY, clear_of_boxes
from egomotion_ros.data.synthesis_reach import standing_place

_NO_HANDS = np.full((2, 3), np.nan)
#: Share of the furnished scenes in which something is asked for that is nowhere.
_ABSENT = 0.35
#: Codes of the hands as motions store them.
SIDES = {'left': 0.0, 'right': 1.0, 'both': 2.0}


@dataclass(frozen=True)
class Episode:
    """
    One command in one scene.

    ``motion`` index into the bank (-1: none); ``goal`` (x, y, yaw) of the pelvis and ``hands``
    (2, 3) targets of the left and the right hand (NaN: idle), in the start frame.
    """

    command: Command
    motion: int
    goal: np.ndarray
    hands: np.ndarray = field(default_factory=lambda: _NO_HANDS)


def scene_episodes(scene: Scene, table: np.ndarray, bank: MotionBank | None) -> list[Episode]:
    """Commands for a scene with the motions of ``bank`` that answer them, and their goals."""
    make = _furnished if scene.kind == 'furnished' else _simple
    return make(scene, table, bank)


def _simple(scene: Scene, table: np.ndarray, bank: MotionBank | None) -> list[Episode]:
    """
    Commands for a simple scene.

    Every visible object is asked for.  Without a bank each gets two object actions; with one,
    actions whose straight way is blocked become turns, and one or two commands name no object.
    """
    rng = np.random.default_rng([scene.seed, 1])
    result = []
    for i, item in enumerate(scene.objects):
        row = dict(zip(OBJECT_COLUMNS, table[i], strict=True))
        if not row['visible']:
            continue
        if bank is None:
            actions = rng.choice(OBJECT_ACTIONS, 2, replace=False, p=(0.5, 0.25, 0.25))
        else:
            actions = [rng.choice(OBJECT_ACTIONS, p=(0.65, 0.15, 0.2))]
            if not row['clear']:
                actions = ['turn_to']
        for action in map(str, actions):
            command = object_command(action, i, item.colour, item.shape, rng, scene.split)
            goal = item.stop_pose()
            if action == 'turn_to':
                goal = np.array([0.0, 0.0, item.bearing])
            motion = -1
            if bank is not None:
                motion = int(bank.of('walk_to')[item.stop])
                if action == 'turn_to':
                    turns = bank.of('turn_to')
                    near = np.argsort(np.abs(bank.goal[turns, 2] - item.bearing))[:3]
                    motion = int(turns[rng.choice(near)])
            result.append(Episode(command, motion, goal))
    if bank is not None:
        for _ in range(1 + int(rng.random() < 0.5)):
            action = str(rng.choice(('walk_forward', 'turn', 'stand_still', 'wave'),
                                    p=(0.3, 0.4, 0.15, 0.15)))
            command = free_command(action, rng, scene.split)
            wanted = parameter_of(command.params)
            fitting = bank.of(action)
            fitting = fitting[np.abs(bank.parameter[fitting] - wanted) < 1e-3]
            motion = int(rng.choice(fitting))
            result.append(Episode(command, motion, bank.oracle[motion]))
    return result


def _furnished(scene: Scene, table: np.ndarray, bank: MotionBank | None) -> list[Episode]:
    """
    Commands for a furnished scene.

    Things within reach are reached for, others walked or turned to; what is out of view is
    searched for, and sometimes something is that is nowhere.  Some commands name no object.
    """
    rng = np.random.default_rng([scene.seed, 9])
    columns = {name: k for k, name in enumerate(OBJECT_COLUMNS)}
    result = []
    for i, item in enumerate(scene.objects):
        seen, clear = table[i, columns['visible']], table[i, columns['clear']]
        kind = item.colour, item.shape
        if not seen:
            if abs(item.bearing - scene.camera.yaw) > AWAY:
                result.append(_search(i, kind, rng, scene, bank))
            continue
        near = item.side and clear_of_boxes(approach(item), scene.boxes, 0.2)
        if near:
            result.append(_reach(i, scene, rng, bank))
        if item.side or not clear:
            if not near or rng.random() < 0.3:
                result.append(_turn_to(i, scene, rng, bank))
            continue
        action = str(rng.choice(OBJECT_ACTIONS, p=(0.6, 0.2, 0.2)))
        if action == 'turn_to':
            result.append(_turn_to(i, scene, rng, bank))
            continue
        command = object_command(action, i, *kind, rng, scene.split, scene.kind)
        motion = -1 if bank is None else int(bank.of('walk_to')[item.stop])
        result.append(Episode(command, motion, item.stop_pose()))
    if rng.random() < _ABSENT:
        there = {(o.colour, o.shape) for o in scene.objects}
        kind = draw_kinds(rng, scene.split)[0]
        while kind in there:
            kind = draw_kinds(rng, scene.split)[0]
        result.append(_search(-1, kind, rng, scene, bank))
    if bank is not None:
        for _ in range(1 + int(rng.random() < 0.6)):
            actions = [a for a in free_parameters('furnished') if len(bank.of(a))]
            weights = np.array([_FREE.get(a, 1.0) for a in actions])
            action = str(rng.choice(actions, p=weights / weights.sum()))
            command = free_command(action, rng, scene.split, scene.kind)
            motion = _nearest(bank, action, parameter_of(command.params), rng)
            # Kicks, jumps and bends end where their recording does.
            ends = action in CLIP_ACTIONS and action != 'run_forward'
            result.append(Episode(command, motion, (bank.goal if ends else bank.oracle)[motion]))
    return result


def way_episodes(look: Look, table: np.ndarray, bank: MotionBank) -> list[Episode]:
    """
    Commands for a scene seen on the way.

    The target is asked for again, in view or not, and its motion goes on.  What else is in view
    is asked for without a motion: nothing recorded changes its mind in the middle of a walk.
    """
    scene = look.scene
    rng = np.random.default_rng([scene.seed, 11])
    columns = {name: k for k, name in enumerate(OBJECT_COLUMNS)}
    result = []
    for i, item in enumerate(scene.objects):
        on_the_way = i == look.target
        if not (on_the_way or table[i, columns['visible']]):
            continue
        kind = item.colour, item.shape
        if on_the_way:
            actions = ('reach',) if item.side else ('walk_to', 'stop_at')
            command = object_command(str(rng.choice(actions)), i, *kind, rng, scene.split,
                                     scene.kind, item.side or 'right')
            result.append(Episode(command, look.motion, bank.goal[look.motion],
                                  bank.hands[look.motion]))
        else:
            action = 'turn_to' if item.side else str(rng.choice(OBJECT_ACTIONS,
                                                                p=(0.6, 0.2, 0.2)))
            command = object_command(action, i, *kind, rng, scene.split, scene.kind)
            goal = np.array([0.0, 0.0, item.bearing]) if action == 'turn_to' else item.stop_pose()
            result.append(Episode(command, -1, goal))
    return result


#: How often actions without an object are asked for, against 1 of the others.
_FREE = {'turn': 2.5, 'walk_forward': 2.0, 'run_forward': 1.5}


def _nearest(bank: MotionBank, action: str, parameter: float, rng: np.random.Generator) -> int:
    """One of the bank's motions of an action whose parameter is the asked one."""
    motions = bank.of(action)
    gap = np.abs(bank.parameter[motions] - parameter)
    return int(rng.choice(motions[gap <= gap.min() + 1e-3]))


def _search(target: int, kind: tuple[int, int], rng: np.random.Generator, scene: Scene,
            bank: MotionBank | None) -> Episode:
    side = str(rng.choice(tuple(HANDS)))
    command = object_command('search', target, *kind, rng, scene.split, scene.kind, side)
    motion = -1 if bank is None else int(rng.choice(bank.of('search')))
    return Episode(command, motion, np.array([0.0, 0.0, SWEEP]))


def _turn_to(target: int, scene: Scene, rng: np.random.Generator,
             bank: MotionBank | None) -> Episode:
    item = scene.objects[target]
    command = object_command('turn_to', target, item.colour, item.shape, rng, scene.split,
                             scene.kind)
    motion = -1
    if bank is not None:
        turns = bank.of('turn_to')
        gap = np.abs(wrap_angle(bank.goal[turns, 2] - item.bearing))
        motion = int(turns[rng.choice(np.argsort(gap)[:3])])
    return Episode(command, motion, np.array([0.0, 0.0, item.bearing]))


def _reach(target: int, scene: Scene, rng: np.random.Generator,
           bank: MotionBank | None) -> Episode:
    item = scene.objects[target]
    command = object_command('reach', target, item.colour, item.shape, rng, scene.split,
                             scene.kind, item.side)
    hands = item.hand_targets(item.side)
    if bank is None:
        return Episode(command, -1, standing_place(hands, item.side), hands)
    motion = int(bank.of('reach')[item.reach])
    return Episode(command, motion, bank.goal[motion], hands)


def parameter_of(params: dict[str, float | str]) -> float:
    """The one number of a command's parameters, as :class:`MotionBank` stores it."""
    if 'side' in params:
        return SIDES[str(params['side'])]
    return float(params.get('distance', params.get('angle', 0.0)))
