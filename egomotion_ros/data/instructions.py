# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What people say to ask for a motion: a small grammar of plain English.

Every action has paraphrases for training and others that test data alone use
(:func:`templates`).  Held-out sentences of simple scenes are new as wholes, nearly all of their
words occur in training sentences.  Furnished scenes bring more of both, and test sentences with
verbs that no training sentence has (:data:`HELD_OUT_VERBS`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from egomotion_ros.data.instructions_furnished import PARAMETERS, TEST, TRAIN, UNMEASURED
from egomotion_ros.data.scenes import COLOUR_NAMES, KINDS, SHAPE_NAMES

#: Actions by id; ids are stored in data sets and never change.
ACTIONS = ('walk_to', 'turn_to', 'stop_at', 'walk_forward', 'turn', 'stand_still', 'wave',
           'reach', 'run_forward', 'kick', 'jump', 'bend', 'search')
#: Actions that end where an object of the scene says.
OBJECT_ACTIONS = ('walk_to', 'turn_to', 'stop_at')
#: All actions whose sentence names an object; searches name one that is out of view.
NAMING_ACTIONS = (*OBJECT_ACTIONS, 'reach', 'search')

#: Words for each shape; the first is the plain one.
SHAPE_WORDS = {
    'ball': ('ball', 'sphere'), 'box': ('box', 'cube', 'block'),
    'cylinder': ('cylinder', 'drum'), 'cone': ('cone',), 'pillar': ('pillar', 'column', 'post'),
}

_TRAIN = {
    'walk_to': ('walk to {o}', 'go to {o}', 'walk over to {o}', 'move to {o}', 'head to {o}',
                'please walk to {o}', 'go over to {o}', 'approach {o}', 'walk towards {o}',
                'walk up to {o}', 'can you go to {o}', 'head over to {o}'),
    'turn_to': ('turn to {o}', 'turn towards {o}', 'face {o}', 'look at {o}',
                'turn to face {o}', 'please turn to {o}', 'turn and look at {o}',
                'rotate towards {o}'),
    'stop_at': ('stop in front of {o}', 'walk to {o} and stop', 'go to {o} and stop there',
                'walk up to {o} and stop in front of it', 'go and stand in front of {o}',
                'stop at {o}', 'walk over to {o} and wait', 'stand by {o}'),
    'walk_forward': ('walk forward{d}', 'go forward{d}', 'walk straight ahead{d}',
                     'move forward{d}', 'please walk forward{d}', 'go straight ahead{d}',
                     'walk ahead{d}', 'keep going straight{d}'),
    'turn': ('turn {s}', 'rotate {s}', 'please turn {s}', 'turn yourself {s}', 'now turn {s}',
             'turn on the spot {s}'),
    'stand_still': ('stand still', 'stay where you are', "don't move", 'wait', 'wait here',
                    'hold still', 'stay there', 'please stand still', 'stand and wait',
                    'do not move'),
    'wave': ('wave{h}', 'wave hello{h}', 'please wave{h}', 'wave at me{h}',
             'raise your hand and wave{h}', 'say hello{h}', 'greet me{h}'),
}
_TEST = {
    'walk_to': ('please go over to {o}', 'can you walk over to {o}', 'go towards {o}',
                'please head over to {o}', 'now walk up to {o}'),
    'turn_to': ('rotate to face {o}', 'please look at {o}', 'can you turn towards {o}',
                'now face {o}'),
    'stop_at': ('go over to {o} and stop', 'please stop at {o}',
                'walk towards {o} and stop in front of it', 'go and stand by {o}'),
    'walk_forward': ('can you walk forward{d}', 'head straight ahead{d}', 'please go forward{d}'),
    'turn': ('can you turn {s}', 'please rotate {s}', 'now rotate {s}'),
    'stand_still': ('please wait here', 'stand there and wait', 'please do not move'),
    'wave': ('can you wave{h}', 'please say hello{h}', 'now wave at me{h}'),
}

_DISTANCES = {
    0.5: ('half a metre', '0.5 metres', 'a little'), 1.0: ('one metre', 'a metre', '1 metre'),
    1.5: ('one and a half metres', '1.5 metres', 'a few steps'),
    2.0: ('two metres', '2 metres', ''), 2.5: ('two and a half metres', '2.5 metres'),
    3.0: ('three metres', '3 metres'),
}
_ANGLES = {
    90: ('left', 'to the left', '90 degrees to the left', 'left by 90 degrees'),
    -90: ('right', 'to the right', '90 degrees to the right', 'right by 90 degrees'),
    45: ('45 degrees to the left', 'left by 45 degrees', 'half left'),
    -45: ('45 degrees to the right', 'right by 45 degrees', 'half right'),
    30: ('30 degrees to the left', 'slightly left', 'a little to the left'),
    -30: ('30 degrees to the right', 'slightly right', 'a little to the right'),
    60: ('60 degrees to the left', 'left by 60 degrees'),
    -60: ('60 degrees to the right', 'right by 60 degrees'),
    180: ('around', 'all the way around', 'by 180 degrees'),
}
_HANDS = {'right': ('', ' with your right hand', ' with one hand'),
          'left': (' with your left hand',)}
_REACHING = {'left': ('with your left hand', 'with the left hand'),
             'right': ('with your right hand', 'with the right hand'),
             'both': ('with both hands', 'with both your hands', 'with your two hands')}


@dataclass(frozen=True)
class Command:
    """
    What is asked: an action and its parameters.

    ``params`` holds ``distance`` (m) for ``walk_forward`` and ``run_forward``, ``angle`` (rad,
    positive left) for
    ``turn``, ``side`` ('left' or 'right') for ``wave`` and ``kick``, 'both' as
    well for ``reach``; actions on
    an object name it by ``target``, its index in the scene (-1: none).
    """

    action: str
    text: str
    target: int = -1
    params: dict[str, float | str] = field(default_factory=dict)

    @property
    def action_id(self) -> int:
        """Index of the action in :data:`ACTIONS`."""
        return ACTIONS.index(self.action)


def templates(action: str, split: str, kind: str = 'simple') -> tuple[str, ...]:
    """
    Sentence patterns of an action: the held-out ones for ``test``, else the training ones.

    ``kind`` of the scenes they are used in; those of simple scenes never change.
    """
    if action not in ACTIONS:
        raise ValueError(f'action must be one of {ACTIONS}, got {action!r}')
    if kind not in KINDS:
        raise ValueError(f'kind must be one of {KINDS}, got {kind!r}')
    patterns = (_TEST if split == 'test' else _TRAIN).get(action, ())
    if kind == 'furnished':
        if action in PARAMETERS:
            patterns = tuple(p.replace('{d}', ' {p}').replace('{s}', '{p}') for p in patterns)
        patterns += (TEST if split == 'test' else TRAIN).get(action, ())
    if not patterns:
        raise ValueError(f'{action} is not asked for in {kind} scenes')
    return patterns


def object_phrase(colour: int, shape: int, rng: np.random.Generator | None = None) -> str:
    """``the red ball``, and with ``rng`` sometimes a synonym or another word order."""
    colour_word, words = COLOUR_NAMES[colour], SHAPE_WORDS[SHAPE_NAMES[shape]]
    word = words[0]
    if rng is not None and rng.random() < 0.4:
        word = words[rng.integers(len(words))]
    if rng is not None and rng.random() < 0.06:
        return f'the {word} that is {colour_word}'
    return f'the {colour_word} {word}'


def object_command(action: str, target: int, colour: int, shape: int,
                   rng: np.random.Generator, split: str, kind: str = 'simple',
                   side: str = 'right') -> Command:
    """
    A sentence that asks for an action on the object ``target`` of a scene.

    ``reach`` is asked for with the hand or hands ``side``, and so is, in some sentences, what is
    out of view.
    """
    if action not in (OBJECT_ACTIONS if kind == 'simple' else NAMING_ACTIONS):
        raise ValueError(f'action must be one of {OBJECT_ACTIONS}, and in furnished scenes '
                         f'{NAMING_ACTIONS}, got {action!r} in {kind} scenes')
    pattern = _pick(rng, templates(action, split, kind))
    words = {'o': object_phrase(colour, shape, rng)}
    if '{h}' in pattern:
        words['h'] = _pick(rng, _REACHING[side])
    return Command(action, pattern.format(**words), target,
                   {'side': side} if action == 'reach' else {})


def free_command(action: str, rng: np.random.Generator, split: str,
                 kind: str = 'simple') -> Command:
    """A sentence that asks for an action without an object, with parameters drawn at random."""
    if action not in free_parameters(kind):
        raise ValueError(f'action must be one of {tuple(free_parameters(kind))} in {kind} '
                         f'scenes, got {action!r}; objects take object_command()')
    pattern = _pick(rng, templates(action, split, kind))
    if kind == 'furnished':
        if action in PARAMETERS:
            name, options = PARAMETERS[action]
            value = _pick(rng, tuple(options))
            words = _pick(rng, options[value])
            value = UNMEASURED.get(pattern, value)
            return Command(action, pattern.format(p=words).strip(), params={
                name: float(np.radians(value)) if name == 'angle' else value})
    if action == 'walk_forward':
        metres = _pick(rng, tuple(_DISTANCES))
        words = _pick(rng, _DISTANCES[metres])
        return Command(action, pattern.format(d=f' {words}' if words else ''),
                       params={'distance': metres})
    if action == 'turn':
        degrees = _pick(rng, tuple(_ANGLES))
        return Command(action, pattern.format(s=_pick(rng, _ANGLES[degrees])),
                       params={'angle': float(np.radians(degrees))})
    if action == 'wave':
        side = 'left' if rng.random() < 0.3 else 'right'
        return Command(action, pattern.format(h=_pick(rng, _HANDS[side])), params={'side': side})
    return Command(action, pattern)


def free_parameters(kind: str = 'simple') -> dict[str, tuple[dict[str, float | str], ...]]:
    """Every parameter set :func:`free_command` can draw, by action."""
    sets: dict[str, tuple[dict[str, float | str], ...]] = {
        'walk_forward': tuple({'distance': d} for d in _DISTANCES),
        'turn': tuple({'angle': float(np.radians(a))} for a in _ANGLES),
        'stand_still': ({},),
        'wave': tuple({'side': s} for s in _HANDS),
    }
    if kind == 'furnished':
        sets |= {'jump': ({},), 'bend': ({},)}
        for action, (name, options) in PARAMETERS.items():
            sets[action] = tuple({name: float(np.radians(v)) if name == 'angle' else v}
                                 for v in options)
    return sets


def _pick(rng: np.random.Generator, options: tuple) -> object:
    """One of ``options``, evenly."""
    return options[int(rng.integers(len(options)))]
