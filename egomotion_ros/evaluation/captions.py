# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What the motion of an episode does, in words that need no picture.

The evaluator reads text alone, and "walk to the red ball" says nothing of where the ball is.  The
text of an episode is therefore its instruction followed by where its goal lies (:func:`caption`);
so R-precision asks whether a motion went where the picture says, not only whether it was a walk.
"""

from __future__ import annotations

import numpy as np

from egomotion_ros.data.episodes import RECORDED, EpisodeSet
from egomotion_ros.data.instructions import ACTIONS, OBJECT_ACTIONS
from egomotion_ros.types import PLAN_FRAMES, WINDOW

#: Frames of a plan the evaluator sees: whole windows.
EVALUATED = PLAN_FRAMES // WINDOW * WINDOW
#: Goals are told in steps of this many metres and degrees.
METRES, DEGREES = 0.25, 10


def _told(goal: np.ndarray, bearing: bool) -> tuple[float, int]:
    """Distance (m) and angle (degrees, left positive) of a goal (x, y, yaw), in steps."""
    angle = float(np.arctan2(goal[1], goal[0]) if bearing else goal[2])
    return (METRES * round(float(np.hypot(goal[0], goal[1])) / METRES),
            DEGREES * round(float(np.degrees(angle)) / DEGREES))


def caption(instruction: str, action: str, goal: np.ndarray) -> str:
    """
    What an episode's motion does, in words: the instruction and, for an object, where it is.

    ``goal`` (3,) is the asked end pose x, y (m), yaw (rad) in the start frame.
    """
    if action not in ACTIONS:
        raise ValueError(f'action must be one of {ACTIONS}, got {action!r}')
    if action not in OBJECT_ACTIONS:
        return instruction
    metres, degrees = _told(goal, bearing=action != 'turn_to')
    way = f'{abs(degrees)} degrees to the {"left" if degrees > 0 else "right"}' if degrees else \
        'straight ahead'
    return f'{instruction}, {way}' if action == 'turn_to' else \
        f'{instruction}, {metres:g} metres, {way}'


def meaning(action: str, goal: np.ndarray, parameter: float = 0.0) -> tuple[str | float, ...]:
    """
    Key that two episodes share when one motion answers both; ``parameter`` as in the bank.

    Walking to and stopping at are one; so is turning to an object or by as many degrees.
    """
    if action in ('walk_to', 'stop_at', 'walk_forward'):
        return ('walk', *_told(goal, bearing=True))
    if action in ('turn_to', 'turn'):
        return ('turn', _told(goal, bearing=False)[1])
    if action in OBJECT_ACTIONS:
        return (action, *_told(goal, bearing=True), parameter)
    return (action, parameter)


class EpisodeTexts:
    """Captions, meanings and motions of an episode set's episodes that have a motion."""

    def __init__(self, episodes: EpisodeSet) -> None:
        self.set = episodes
        # Words about a recording name neither an action nor a place: nothing to rank them by.
        self.index = np.flatnonzero((episodes.motion >= 0) & (episodes.action != RECORDED))
        if episodes.bank is None or not len(self.index):
            raise ValueError(f'{episodes.folder}: no simulated episode has a motion')

    def __len__(self) -> int:
        return len(self.index)

    def _action(self, n: int) -> str:
        return ACTIONS[int(self.set.action[self.index[n]])]

    def text(self, n: int) -> str:
        """Caption of the n-th of these episodes."""
        episode = int(self.index[n])
        return caption(self.set.instruction(episode), self._action(n), self.set.goal[episode])

    def meaning(self, n: int) -> tuple[str | float, ...]:
        """Key of what it means."""
        episode = int(self.index[n])
        parameter = float(self.set.bank.parameter[int(self.set.motion[episode])])
        return meaning(self._action(n), self.set.goal[episode], parameter)

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Motion features (N, 144, 140) float32."""
        motions = self.set.motion[self.index[rows]]
        return np.stack([np.asarray(self.set.bank.features[int(m), :EVALUATED], np.float32)
                         for m in motions])
