# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The trained text-and-motion evaluator as a tool: texts and motions in, embeddings out.

It reads text alone and sees no picture, and "walk to the red ball" says nothing of where the ball
is.  The text of an episode is therefore its instruction followed by where its goal lies
(:func:`caption`); so R-precision asks whether a motion went where the picture says, not only
whether it was a walk.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from egomotion_ros.body.features import FEATURE_DIM, motion_to_features
from egomotion_ros.data.instructions import ACTIONS, OBJECT_ACTIONS
from egomotion_ros.models.checkpoints import load_model
from egomotion_ros.text import TextEncoder
from egomotion_ros.types import PLAN_FRAMES, WINDOW, HumanMotion

#: Frames of a plan the evaluator sees: whole windows.
EVALUATED = PLAN_FRAMES // WINDOW * WINDOW
#: Goals are told in steps of this many metres and degrees.
METRES, DEGREES = 0.25, 10
_BATCH = 128


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


class Evaluator:
    """A trained evaluator: :meth:`open` a folder of ``egomotion train evaluator``."""

    def __init__(self, model: torch.nn.Module, text: TextEncoder) -> None:
        if text.length > model.config.text_tokens or text.size > model.config.text_vocabulary:
            raise ValueError('text tokenizer and evaluator do not fit together')
        self.model, self.text = model.eval(), text

    @staticmethod
    def open(folder: str | Path) -> Evaluator:
        """Read a checkpoint folder; ValueError where it holds no evaluator."""
        folder = Path(folder)
        model = load_model(folder, 'evaluator')
        return Evaluator(model, TextEncoder.open(folder / 'text.json', model.config.text_tokens))

    @torch.no_grad()
    def texts(self, texts: list[str]) -> np.ndarray:
        """Embed texts: (N, 512) float64."""
        rows = []
        for first in range(0, len(texts), _BATCH):
            ids, mask = zip(*map(self.text.encode, texts[first:first + _BATCH]), strict=True)
            rows.append(self.model.embed_text(torch.from_numpy(np.stack(ids)),
                                              torch.from_numpy(np.stack(mask))))
        return torch.cat(rows).double().numpy()

    @torch.no_grad()
    def features(self, features: np.ndarray) -> np.ndarray:
        """Embed motion features (N, T >= 8, 140), all of one length: (N, 512) float64."""
        if features.ndim != 3 or features.shape[2] != FEATURE_DIM or features.shape[1] < WINDOW:
            raise ValueError(f'expected features (N, T >= {WINDOW}, {FEATURE_DIM}), '
                             f'got {features.shape}')
        frames = min(features.shape[1] // WINDOW * WINDOW, EVALUATED)
        rows = [self.model.embed_motion(torch.from_numpy(np.asarray(
            features[first:first + _BATCH, :frames], np.float32)))
            for first in range(0, len(features), _BATCH)]
        return torch.cat(rows).double().numpy()

    def motions(self, motions: list[HumanMotion]) -> np.ndarray:
        """Embed motions of one length: (N, 512) float64."""
        return self.features(np.stack([motion_to_features(motion) for motion in motions]))
