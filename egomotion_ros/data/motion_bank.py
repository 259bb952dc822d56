# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The motions an episode set is built around, on disk beside its scenes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import re

import numpy as np

from egomotion_ros.data.instructions import ACTIONS
from egomotion_ros.data.scenes_furnished import Ends

#: Speed over the ground (m/s) above which a motion is under way; from rest it is below 0.05.
MOVING = 0.08
_COLUMNS = ('action', 'goal', 'parameter', 'performance', 'oracle')


@dataclass(frozen=True)
class MotionBank:
    """
    Motions to build scenes around.

    ``features`` (M, 152, 140) float16; ``action`` (M,) index of ACTIONS; ``goal`` (M, 3) true end
    pose (x, y, yaw) in the start frame; ``parameter`` (M,) what was asked: metres of
    ``walk_forward``, radians of ``turn``, 0, 1, 2 for left, right, both hands; ``performance``
    (M,) index of the source performance, ``oracle`` (M, 3) the goal that was asked for; ``hands``
    (M, 2, 3) where the left and the right hand are at the end of a ``reach``, NaN elsewhere;
    ``cut`` (M, 2) the motion and the frame of it that a motion under way goes on from, -1 for
    those that start at rest.
    """

    features: np.ndarray
    action: np.ndarray
    goal: np.ndarray
    parameter: np.ndarray
    performance: np.ndarray
    oracle: np.ndarray
    hands: np.ndarray
    cut: np.ndarray

    def of(self, action: str) -> np.ndarray:
        """Indices of the motions of an action (``stop_at`` shares those of ``walk_to``)."""
        action = 'walk_to' if action == 'stop_at' else action
        return np.flatnonzero(self.action == ACTIONS.index(action))

    def ends(self) -> Ends:
        """
        Where the walks and the reaches of the bank end.

        Those cut from others come last in a bank and are left out: scenes seen on the way are
        built around the whole motion.
        """
        walks, reaches = (rows[self.cut[rows, 0] < 0]
                          for rows in (self.of('walk_to'), self.of('reach')))
        return Ends(self.goal[walks, :2], self.hands[reaches])

    def under_way(self) -> np.ndarray:
        """
        (M,) True for motions that do not start at rest: only a prefix makes them definite.

        They are cut from others, or their pelvis moves at more than :data:`MOVING` over the
        ground, in whatever direction, on the mean of the first 8 frames.
        """
        along = np.asarray(self.features[:, :8, 1:3], np.float32)
        return (self.cut[:, 0] >= 0) | (np.linalg.norm(along, axis=-1).mean(axis=1) > MOVING)

    def save(self, folder: Path) -> None:
        """Write ``motions.npy`` and ``motion_*.npy`` into an existing folder."""
        np.save(folder / 'motions.npy', self.features.astype(np.float16))
        self.save_columns(folder)

    def save_columns(self, folder: Path) -> None:
        """Write all but the features, ``motion_*.npy``, into an existing folder."""
        for name in (*_COLUMNS, 'hands', 'cut'):
            np.save(folder / f'motion_{name}.npy', getattr(self, name))

    @classmethod
    def find(cls, folder: Path) -> MotionBank | None:
        """The bank of a set's folder; None for a set without motions."""
        return None if bank_folder(folder) is None else cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> MotionBank:
        """Memory-map the bank of a set's folder (:func:`bank_folder`)."""
        folder = bank_folder(folder) or folder
        rest = {name: np.load(folder / f'motion_{name}.npy', allow_pickle=False)
                for name in _COLUMNS}
        hands = folder / 'motion_hands.npy'
        # Sets of the first format have no hands: nothing reached for anything.
        rest['hands'] = (np.load(hands, allow_pickle=False) if hands.exists()
                         else np.full((len(rest['action']), 2, 3), np.nan))
        cut = folder / 'motion_cut.npy'
        rest['cut'] = (np.load(cut, allow_pickle=False) if cut.exists()
                       else np.full((len(rest['action']), 2), -1))
        features = np.load(folder / 'motions.npy', mmap_mode='r', allow_pickle=False)
        if features.ndim != 3 or any(len(v) != len(features) for v in rest.values()):
            raise ValueError(f'{folder}: motion arrays disagree in length')
        return cls(features, **rest)


def bank_folder(folder: Path) -> Path | None:
    """
    Where the bank of an episode set lies; None for a set without motions.

    In the set's folder itself, or in the last of its ``bank-*``: one that took its place was put
    there by one renaming.
    """
    later = [path for path in folder.glob('bank-*') if re.fullmatch(r'bank-\d{5}', path.name)]
    if later:
        return max(later)
    return folder if (folder / 'motions.npy').exists() else None
