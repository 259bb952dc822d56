# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes on disk: appended to an episode set, whose other shards they leave alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import fcntl
from pathlib import Path
import shutil

import numpy as np
from tqdm import tqdm

from egomotion_ros.data.episodes import (
    DEPTH_STEP,
    RECORDED,
    SHARD,
    check_same,
    describe,
    write_shard,
)
from egomotion_ros.data.library import split_of
from egomotion_ros.data.motion_bank import MotionBank, bank_folder
from egomotion_ros.data.recorded import MAX_TEXT, Listed, Sample, Tally, samples
from egomotion_ros.data.scenes import CAMERA, MAX_OBJECTS, OBJECT_COLUMNS

#: The kind of scenes that recordings count as: whatever can be done may be asked for.
KIND = 'furnished'
_NAME = 'shard-recorded-{:05d}'
#: Beside a shard's arrays: the recordings it has samples of.  In a bank: shards that came with it.
_NAMES, _SHARDS = 'recordings.txt', 'shards.txt'
_DEPTH = CAMERA.height // DEPTH_STEP


def write_recorded(folder: str | Path, recordings: Iterable[Listed], split: str = 'train',
                   warn: Callable[[str], None] = tqdm.write,
                   show: Callable[[Sample], None] | None = None) -> list[Tally]:
    """
    Append the recordings of ``split`` to the set in ``folder``, which is made where there is none.

    A recording belongs to a split by a hash of its name, as takes of a library do.  What cannot be
    read, and what the set has already, is told to ``warn`` and left out; ``show`` is given every
    episode.  Returns what became of every recording that was used.  Whatever interrupts this, the
    set is as it was before or has all that came.  Raises ValueError where the set holds other
    scenes or another split, or another process writes to it.
    """
    folder = Path(folder)
    check_same(folder, KIND, split)
    tallies: list[Tally] = []
    with _Writer(folder) as writer:
        for one in recordings:
            if one.name in writer.names:
                warn(f'left out: {one.name!r} is there already; name another one otherwise')
                continue
            if split_of(one.name) != split:
                warn(f'{one.name}: of split {split_of(one.name)}, not {split}')
                continue
            writer.names.add(one.name)
            tally = Tally(one.name)
            try:
                opened = one.open()
                with tqdm(total=len(opened.sentences), desc=one.name, unit='sentence') as bar:
                    for sample in samples(opened, tally, warn):
                        writer.add(sample, one.name)
                        bar.update(tally.used + sum(tally.left_out.values()) - bar.n)
                        if show is not None:
                            show(sample)
            except (ValueError, OSError) as error:
                # A camera that is not the one of the calibration, a video without a picture.
                warn(f'{one.name}: {error}')
            if tally.used or tally.left_out:
                tallies.append(tally)
        writer.finish(split)
    return tallies


class _Writer:
    """
    Writes samples as they come, a shard at a time; the last step makes them part of the set.

    That is one renaming: of a folder that holds the longer bank and says which shards belong to
    it.  Marking those as whole may be interrupted, and is then made up for by the next writer.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[Sample] = []
        self._shards: list[Path] = []
        self._features: list[np.ndarray] = []
        self._goals: list[np.ndarray] = []
        self._owners: list[str] = []

    def __enter__(self) -> _Writer:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self._folder / 'recorded.lock').open('w')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ValueError(f'{self._folder}: another process appends to it') from None
        bank = bank_folder(self._folder)
        if bank is not None:
            _mark(self._folder, bank)
        self._first = 0 if bank is None else len(np.load(bank / 'motion_action.npy',
                                                         allow_pickle=False))
        whole = [path.parent for path in self._folder.glob('shard-recorded-*/done')]
        #: Recordings the set holds.
        self.names = {name for path in whole for name in
                      (path / _NAMES).read_text(encoding='utf-8').splitlines()}
        self._number = 1 + max((int(path.name[-5:]) for path in whole), default=-1)
        return self

    def __exit__(self, *_: object) -> None:
        """Take away shards that did not become part of the set."""
        bank = bank_folder(self._folder)
        kept = _shards_of(bank) if bank is not None else []
        for path in self._shards:
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
        self._lock.close()

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
        first = len(self._features)
        write_shard(path, _arrays(self._waiting, self._first + first), MAX_TEXT, done=False)
        names = dict.fromkeys(self._owners[first:first + len(self._waiting)])
        (path / _NAMES).write_text(''.join(f'{name}\n' for name in names), encoding='utf-8')
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
        old = bank_folder(self._folder)
        before = MotionBank.find(self._folder)
        version = 0 if old in (None, self._folder) else int(old.name[-5:]) + 1
        fresh = self._folder / f'bank-{version:05d}'
        part = fresh.with_suffix('.part')
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _save_joined(part, before, self._features, np.array(self._goals), self._owners)
        (part / _SHARDS).write_text(''.join(f'{path.name}\n' for path in self._shards),
                                    encoding='utf-8')
        if not (self._folder / 'episodes.json').exists():
            describe(self._folder, KIND, split, 0)
        part.rename(fresh)
        _mark(self._folder, fresh)
        del before
        if old == self._folder:
            for path in (old / 'motions.npy', *old.glob('motion_*.npy')):
                path.unlink()
        elif old is not None:
            shutil.rmtree(old)


def _shards_of(bank: Path) -> list[str]:
    """Shards that came with a bank."""
    try:
        return (bank / _SHARDS).read_text(encoding='utf-8').splitlines()
    except FileNotFoundError:
        return []


def _mark(folder: Path, bank: Path) -> None:
    for name in _shards_of(bank):
        if (folder / name).is_dir():
            (folder / name / 'done').touch()


def _save_joined(folder: Path, bank: MotionBank | None, features: list[np.ndarray],
                 goals: np.ndarray, owners: list[str]) -> None:
    """
    Save a bank with recorded motions behind its own; the features go to disk part by part.

    ``features`` (152, 140) of each, ``goals`` (N, 3) their last poses, ``owners`` (N) the
    recordings they are of, which are performances.
    """
    count, order = len(owners), {name: n for n, name in enumerate(dict.fromkeys(owners))}
    known = 0 if bank is None else len(bank.features)
    table = np.lib.format.open_memmap(folder / 'motions.npy', 'w+', np.float16,
                                      (known + count, *features[0].shape))
    for start in range(0, known, SHARD):
        end = min(start + SHARD, known)
        table[start:end] = bank.features[start:end]
    for n, one in enumerate(features):
        table[known + n] = one
    table.flush()
    first = 0 if bank is None else int(bank.performance.max(initial=-1)) + 1
    columns = {
        'action': np.full(count, RECORDED, np.int32), 'goal': goals, 'parameter': np.zeros(count),
        'performance': np.array([first + order[name] for name in owners], np.int32),
        'oracle': goals, 'hands': np.full((count, 2, 3), np.nan),
        'cut': np.full((count, 2), -1)}
    if bank is not None:
        columns = {name: np.concatenate([getattr(bank, name), value])
                   for name, value in columns.items()}
    MotionBank(table, **columns).save_columns(folder)


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
