# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Which rooms the demo visits and what it asks there: test scenes and test sentences only.

A scene is drawn with a head camera of its own.  Here a robot looks, and what is asked about is
what its camera shows where it starts (:func:`eye_of`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
import math
from pathlib import Path
import re

import numpy as np

from egomotion_ros.data.instructions import SHAPE_WORDS, Command, free_command, object_command
from egomotion_ros.data.scenes import (
    COLOUR_NAMES,
    OBJECT_COLUMNS,
    SHAPE_NAMES,
    STAND_OFF,
    Scene,
    SceneObject,
    scene_seed,
)
from egomotion_ros.data.scenes_furnished import approach, draw_scene
from egomotion_ros.data.scenes_view import AWAY, CAMERA, clear_of_boxes
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.simulation.world import World
from egomotion_ros.types import CameraPose

#: Seconds of motion after which the demo changes its mind, or stops the robot.
INTERRUPT_AFTER = 2.0
#: What the robot is asked to turn to lies at least this far aside (rad): standing is no answer.
TURN = math.radians(25.0)
#: Scenes that one run may look through.
SCENES_PER_RUN = 1000
#: Kind of the rooms.
KIND = 'furnished'


@dataclass(frozen=True)
class Ask:
    """
    One instruction of the script.

    ``then`` says what happens after INTERRUPT_AFTER seconds of motion: '' nothing, 'change' the
    next instruction is sent, 'stop' the robot is stopped.  'look' is for what is out of view: the
    robot may look more than once.
    """

    command: Command
    then: str = ''


@dataclass(frozen=True)
class Stop:
    """A room (``seed`` of a test scene, -1 an empty floor) and what is asked there."""

    seed: int
    asks: tuple[Ask, ...] = field(default_factory=tuple)


def eye_of(robot: RobotDescription) -> CameraPose:
    """Where the head camera of a robot that stands is and where it looks, in human metres."""
    world = World(robot, None, CAMERA)
    place, axes = world.head(world.home())
    ahead = axes[:, 2]
    return CameraPose(float(place[2]) / robot.scale, math.asin(np.clip(-ahead[2], -1.0, 1.0)),
                      math.atan2(ahead[1], ahead[0]))


def default_script(seed: int, eye: CameraPose) -> list[Stop]:
    """
    Return eight instructions in seven unseen rooms, one changed on the way and one stopped.

    One is of something out of view, which has to be looked for.  ``eye`` is where the head camera
    is when a room is entered, in human metres.
    """
    scenes = _scenes(seed, eye)
    rng = np.random.default_rng([seed, 7])
    stops = []
    for plan, then in ((('walk_to',), ('',)), (('walk_to', 'walk_to'), ('change', '')),
                       (('stop_at',), ('stop',)), (('turn_to',), ('',))):
        aside = TURN if plan == ('turn_to',) else 0.0
        scene = next(s for s in scenes if len(_targets(s, aside)) >= len(plan))
        commands = [_object_command(scene, target, action, rng)
                    for target, action in zip(_targets(scene, aside), plan)]
        stops.append(Stop(scene.seed, tuple(map(Ask, commands, then))))
    scene = next(s for s in scenes if _hidden(s))
    command = _object_command(scene, _hidden(scene)[0], 'walk_to', rng)
    stops.append(Stop(scene.seed, (Ask(command, 'look'),)))
    scene = next(s for s in scenes if _within_reach(s))
    stops.append(Stop(scene.seed, (Ask(_object_command(scene, _within_reach(scene)[0], 'reach',
                                                       rng)),)))
    stops.append(Stop(next(scenes).seed, (Ask(free_command('wave', rng, 'test')),)))
    return stops


def camera_script() -> list[Stop]:
    """Return what is asked of a real camera, where no object is known; nothing is judged."""
    texts = (('walk forward', ''), ('turn left', ''), ('wave', ''), ('walk forward', 'change'),
             ('turn right', ''), ('walk straight ahead', 'stop'))
    asks = [Ask(Command('', text), then) for text, then in texts]
    return [Stop(-1, tuple(asks[:3])), Stop(-1, tuple(asks[3:5])), Stop(-1, tuple(asks[5:]))]


def read_script(path: Path, seed: int, eye: CameraPose | None) -> list[Stop]:
    """
    Read instructions, one a line; empty lines and those that begin with ``#`` are left out.

    A line that names a colour and a shape gets the next test scene that shows such an object to
    ``eye`` (as :func:`default_script`); other lines the next scene.  Without ``eye`` the camera
    is a real one and nothing is judged.  Raises ValueError where nothing is asked or it is not
    text.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}: not a text file ({error})') from error
    texts = [line.strip() for line in lines if line.strip() and not line.startswith('#')]
    if not texts:
        raise ValueError(f'{path}: holds no instruction')
    if eye is None:
        return [Stop(-1, (Ask(Command('', text)),)) for text in texts]
    scenes, stops = _scenes(seed, eye), []
    for text in texts:
        kind, action = _named(text), _asked(text)
        fitting = _within_reach if action == 'reach' else _targets
        for scene in scenes:
            kinds = {(item.colour, item.shape): i for i, item in enumerate(scene.objects)}
            if kind is None or kinds.get(kind) in fitting(scene):
                break
        else:
            raise ValueError(f'{text!r}: none of {SCENES_PER_RUN} scenes shows that object')
        command = Command('', text)
        if kind is not None:
            side = _side(text, scene.objects[kinds[kind]]) if action == 'reach' else ''
            command = Command(action, text, kinds[kind], {'side': side} if side else {})
        stops.append(Stop(scene.seed, (Ask(command),)))
    return stops


def room(seed: int) -> Scene | None:
    """Room of a seed, None for the empty floor."""
    return None if seed < 0 else draw_scene(seed, KIND)


def goal_of(command: Command, scene: Scene | None, start: np.ndarray,
            scale: float) -> np.ndarray | None:
    """
    Where a command should end: ``(x, y, yaw)`` in ``odom``, None where nothing can be judged.

    ``start`` (3,) is x, y, yaw of the robot when it was asked; ``scale`` the robot's size, by
    which the room and all distances are multiplied.  What is reached for is judged by hands.
    """
    x, y, yaw = start
    if command.action == 'reach':
        return None
    if command.target >= 0 and scene is not None:
        item = scene.objects[command.target]
        away = scale * np.array(item.position[:2]) - (x, y)
        direction = math.atan2(away[1], away[0])
        if command.action == 'turn_to':
            return np.array([x, y, direction])
        reach = max(float(np.hypot(*away)) - scale * (item.radius + STAND_OFF), 0.0)
        return np.array([x + reach * math.cos(direction), y + reach * math.sin(direction),
                         direction])
    if command.action in ('walk_forward', 'run_forward'):
        reach = scale * command.params['distance']
        return np.array([x + reach * math.cos(yaw), y + reach * math.sin(yaw), yaw])
    if command.action == 'turn':
        return np.array([x, y, yaw + command.params['angle']])
    if command.action in ('wave', 'stand_still'):
        return np.array([x, y, yaw])
    return None


def _scenes(seed: int, eye: CameraPose) -> Iterator[Scene]:
    """Test scenes of one run as ``eye`` sees them, drawn when asked for; seeds share none."""
    if not 0 <= seed < 5000:
        raise ValueError(f'seed must be in 0..4999, got {seed}')
    return (replace(draw_scene(scene_seed('test', index), KIND), camera=eye, view=None)
            for index in range(seed * SCENES_PER_RUN, (seed + 1) * SCENES_PER_RUN))


def _targets(scene: Scene, aside: float = 0.0) -> list[int]:
    """Objects that can be seen and walked to, ``aside`` rad or more; the main one first."""
    table, column = scene.table(), OBJECT_COLUMNS.index
    return [i for i, item in enumerate(scene.objects)
            if table[i, column('visible')] and table[i, column('clear')]
            and not item.side and abs(item.bearing) >= aside]


def _hidden(scene: Scene) -> list[int]:
    """Objects out of view that can be walked to, none of which looks like one that is seen."""
    table, column = scene.table(), OBJECT_COLUMNS.index
    seen = {(item.colour, item.shape) for i, item in enumerate(scene.objects)
            if table[i, column('visible')]}
    return [i for i, item in enumerate(scene.objects)
            if abs(math.remainder(item.bearing - scene.camera.yaw, 2.0 * math.pi)) > AWAY
            and table[i, column('clear')] and not item.side
            and (item.colour, item.shape) not in seen]


def _within_reach(scene: Scene) -> list[int]:
    """Objects that can be seen and touched where one can stand before them."""
    table, column = scene.table(), OBJECT_COLUMNS.index
    return [i for i, item in enumerate(scene.objects)
            if table[i, column('visible')] and item.side
            and clear_of_boxes(approach(item), scene.boxes, 0.2)]


def _object_command(scene: Scene, target: int, action: str, rng: np.random.Generator) -> Command:
    item = scene.objects[target]
    # Unseen sentences, but of words that occur in training: those of simple scenes.
    kind = KIND if action == 'reach' else 'simple'
    return object_command(action, target, item.colour, item.shape, rng, 'test', kind,
                          item.side or 'right')


def _asked(text: str) -> str:
    """What a sentence about an object asks for."""
    if re.match(r'(turn|face|look|rotate)\b', text):
        return 'turn_to'
    return 'reach' if re.search(r'\b(reach|touch|grab|grasp|hold|hands?)\b', text) else 'walk_to'


def _side(text: str, item: SceneObject) -> str:
    """Hands that a sentence names; those the object was placed for where it names none."""
    named = re.search(r'\b(left|right|both|two)\b', text)
    return {None: item.side, 'two': 'both'}.get(word := named and named[1], word)


def _named(text: str) -> tuple[int, int] | None:
    """Colour and shape that a sentence names."""
    words = re.findall('[a-z]+', text.lower())
    colours = [COLOUR_NAMES.index(word) for word in words if word in COLOUR_NAMES]
    shapes = [SHAPE_NAMES.index(shape) for word in words for shape in SHAPE_NAMES
              if word in SHAPE_WORDS[shape]]
    return (colours[0], shapes[0]) if colours and shapes else None
