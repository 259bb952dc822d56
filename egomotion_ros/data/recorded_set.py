# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes on disk: appended to an episode set, whose other shards they leave alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import os
from pathlib import Path
import re
import shutil

import numpy as np

from egomotion_ros.data.episodes import (
    DEPTH_STEP,
    RECORDED,
    SHARD,
    check_same,
    describe,
    write_shard,
)
from egomotion_ros.data.library import split_of
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.data.recorded import MAX_TEXT, Recorded, Sample, Tally, samples
from egomotion_ros.data.scenes import CAMERA, MAX_OBJECTS, OBJECT_COLUMNS

#: The kind of scenes that recordings count as: whatever can be done may be asked for.
KIND = 'furnished'
_NAME = 'shard-recorded-{:05d}'
_DEPTH = CAMERA.height // DEPTH_STEP


def write_recorded(folder: str | Path, recordings: Iterable[Recorded | ValueError],
                   split: str = 'train', warn: Callable[[str], None] = print,
                   show: Callable[[Sample], None] | None = None) -> list[Tally]:
    """
    Append the recordings of ``split`` to the set in ``folder``, which is made where there is none.

    A recording belongs to a split by a hash of its name, as takes of a library do.  What cannot be
    read is told to ``warn``; ``show`` is given every episode.  Returns what became of every
    recording that was used.  Raises ValueError where the set holds other scenes or another split,
    or already a recording of the same name: the set is then as it was, as it is after whatever
    interrupts this.
    """
    folder = Path(folder)
    check_same(folder, KIND, split)
    writer = _Writer(folder)
    tallies: list[Tally] = []
    try:
        for one in recordings:
            if isinstance(one, ValueError):
                warn(f'left out: {one}')
                continue
            if split_of(one.name) != split:
                warn(f'{one.name}: of split {split_of(one.name)}, not {split}')
                continue
            if one.name in writer.names or any(tally.name == one.name for tally in tallies):
                raise ValueError(f'{folder}: a recording {one.name!r} is there already')
            tallies.append(Tally(one.name))
            for sample in samples(one, tallies[-1], warn):
                writer.add(sample, one.name)
                if show is not None:
                    show(sample)
        writer.finish(split)
    except BaseException:
        writer.drop()
        raise
    return tallies


class _Writer:
    """
    Writes samples as they come, a shard at a time; the last step makes them part of the set.

    Until then nothing marks the shards as whole, so that readers pass them over.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: Recordings the set holds, in the order they came.
        self.names = _names(folder)
        bank = folder / 'motion_action.npy'
        self._first = len(np.load(bank, allow_pickle=False)) if bank.exists() else 0
        taken = [int(match[1]) for path in folder.glob('shard-recorded-*/done')
                 if (match := re.fullmatch(r'shard-recorded-(\d+)', path.parent.name))]
        self._number = max(taken, default=-1) + 1
        self._waiting: list[Sample] = []
        self._shards: list[Path] = []
        self._features: list[np.ndarray] = []
        self._goals: list[np.ndarray] = []
        self._owners: list[str] = []

    def add(self, sample: Sample, owner: str) -> None:
        """Take a sample of the recording ``owner``."""
        self._waiting.append(sample)
        self._owners.append(owner)
        if len(self._waiting) == SHARD:
            self._flush()

    def _flush(self) -> None:
        path = self._folder / _NAME.format(self._number)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        self._shards.append(path)
        write_shard(path, _arrays(self._waiting, self._first + len(self._features)), MAX_TEXT,
                    done=False)
        self._features += [sample.features.astype(np.float16) for sample in self._waiting]
        self._goals += [sample.goal for sample in self._waiting]
        self._waiting = []
        self._number += 1

    def finish(self, split: str) -> None:
        """Append the motions to the bank, and then mark the shards as whole."""
        if self._waiting:
            self._flush()
        if not self._features:
            return
        before = (MotionBank.load(self._folder) if (self._folder / 'motions.npy').exists()
                  else None)
        bank = joined(before, np.array(self._features), np.array(self._goals), self._owners)
        # Into files of their own first: the old bank is being read from those that are replaced.
        fresh = self._folder / 'bank.part'
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        bank.save(fresh)
        del before, bank
        for path in fresh.iterdir():
            os.replace(path, self._folder / path.name)
        fresh.rmdir()
        if not (self._folder / 'episodes.json').exists():
            describe(self._folder, KIND, split, 0)
        names = (*self.names, *dict.fromkeys(self._owners))
        (self._folder / 'recordings.txt').write_text(''.join(f'{name}\n' for name in names),
                                                     encoding='utf-8')
        for path in self._shards:
            (path / 'done').touch()

    def drop(self) -> None:
        """Take away shards that did not become part of the set."""
        for path in self._shards:
            if not (path / 'done').exists():
                shutil.rmtree(path, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    try:
        return (folder / 'recordings.txt').read_text(encoding='utf-8').splitlines()
    except FileNotFoundError:
        return []


def joined(bank: MotionBank | None, features: np.ndarray, goals: np.ndarray,
           owners: list[str]) -> MotionBank:
    """
    Return a bank with recorded motions behind its own.

    ``features`` (N, 152, 140), ``goals`` (N, 3) their last poses, ``owners`` (N) the recordings
    they are of, which are performances.
    """
    count, order = len(owners), {name: n for n, name in enumerate(dict.fromkeys(owners))}
    known = 0 if bank is None else int(bank.performance.max(initial=-1)) + 1
    parts = {
        'features': features.astype(np.float16), 'action': np.full(count, RECORDED, np.int32),
        'goal': goals, 'parameter': np.zeros(count),
        'performance': np.array([known + order[name] for name in owners], np.int32),
        'oracle': goals, 'hands': np.full((count, 2, 3), np.nan),
        'cut': np.full((count, 2), -1)}
    if bank is not None:
        parts = {name: np.concatenate([getattr(bank, name), value])
                 for name, value in parts.items()}
    return MotionBank(**parts)


def _arrays(found: list[Sample], first: int) -> dict[str, list]:
    """Arrays of a shard: a scene a sample, without objects, depths or targets."""
    count = len(found)
    full = (CAMERA.hfov, CAMERA.hfov)
    return {
        'images': [sample.image for sample in found],
        'depth': [np.full((_DEPTH, _DEPTH), np.nan)] * count,
        'camera': [(s.camera.height, s.camera.pitch, s.camera.yaw) for s in found],
        'objects': [np.zeros((MAX_OBJECTS, len(OBJECT_COLUMNS)))] * count,
        # No seed of any scene: those are not negative.
        'scene_seed': [-1 - first - n for n in range(count)],
        'height': [np.full(MAX_OBJECTS, np.nan)] * count, 'view': [full] * count,
        'scene': list(range(count)), 'action': [RECORDED] * count, 'target': [-1] * count,
        'motion': [first + n for n in range(count)], 'goal': [s.goal for s in found],
        'hands': [np.full((2, 3), np.nan)] * count,
        'instruction': [s.text.encode('utf-8') for s in found]}
