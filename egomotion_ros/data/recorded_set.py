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
    or already a recording of the same name; nothing is written then.
    """
    folder = Path(folder)
    check_same(folder, KIND, split)
    names = _names(folder)
    found: list[Sample] = []
    owners: list[str] = []
    tallies: list[Tally] = []
    for one in recordings:
        if isinstance(one, ValueError):
            warn(f'left out: {one}')
            continue
        if split_of(one.name) != split:
            warn(f'{one.name}: of split {split_of(one.name)}, not {split}')
            continue
        if one.name in names or any(tally.name == one.name for tally in tallies):
            raise ValueError(f'{folder}: a recording {one.name!r} is there already')
        tallies.append(Tally(one.name))
        for sample in samples(one, tallies[-1], warn):
            found.append(sample)
            owners.append(one.name)
            if show is not None:
                show(sample)
    if found:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, found, owners, names, split)
    return tallies


def _names(folder: Path) -> list[str]:
    """Recordings a set holds, in the order they came."""
    try:
        return (folder / 'recordings.txt').read_text(encoding='utf-8').splitlines()
    except FileNotFoundError:
        return []


def _write(folder: Path, found: list[Sample], owners: list[str], names: list[str],
           split: str) -> None:
    before = MotionBank.load(folder) if (folder / 'motions.npy').exists() else None
    bank = joined(before, found, owners)
    first = 0 if before is None else len(before.features)
    # Into files of their own first: the old bank is being read from those that are replaced.
    fresh = folder / 'bank.part'
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    bank.save(fresh)
    del before
    for path in fresh.iterdir():
        os.replace(path, folder / path.name)
    fresh.rmdir()
    if not (folder / 'episodes.json').exists():
        describe(folder, KIND, split, 0)
    taken = [int(match[1]) for path in folder.glob('shard-recorded-*')
             if (match := re.fullmatch(r'shard-recorded-(\d+)', path.name))]
    number = max(taken, default=-1) + 1
    for start in range(0, len(found), SHARD):
        part = found[start:start + SHARD]
        write_shard(folder / _NAME.format(number), _arrays(part, first + start), MAX_TEXT)
        number += 1
    (folder / 'recordings.txt').write_text(
        ''.join(f'{name}\n' for name in (*names, *dict.fromkeys(owners))), encoding='utf-8')


def joined(bank: MotionBank | None, found: list[Sample], owners: list[str]) -> MotionBank:
    """Return a bank with the motions of samples behind its own; ``owners`` are performances."""
    count = len(found)
    order = list(dict.fromkeys(owners))
    known = 0 if bank is None else int(bank.performance.max(initial=-1)) + 1
    goals = np.array([sample.goal for sample in found])
    parts = {
        'features': np.array([sample.features for sample in found], np.float16),
        'action': np.full(count, RECORDED, np.int32),
        'goal': goals, 'parameter': np.zeros(count),
        'performance': np.array([known + order.index(name) for name in owners], np.int32),
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
