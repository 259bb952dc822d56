# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The motion library: recorded takes on our skeleton, ready for training.

A folder with one ``.npz`` a take (plain arrays, never pickled) and an ``index.json``.  Motions
are at 30 fps, canonical (first frame over the origin, facing +X), the floor at z = 0.  The split
belongs to the *performance*, so that copies of one recording never stand on both sides.
Mirroring is done where motions are used, not stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
import hashlib
import json
from pathlib import Path
import re

import numpy as np

from egomotion_ros.body.features import check_motion
from egomotion_ros.body.npz import DAMAGE
from egomotion_ros.types import FPS, HumanMotion

VERSION = 1
SPLITS = ('train', 'val', 'test')
#: Longest take (frames): an hour at 30 fps.
MAX_FRAMES = 108_000
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,120}')


#: Chosen once so that the CMU recordings spread walking, dance and gestures over all splits;
#: to change it is to change every split.
_SALT = '784:'


def split_of(performance: str) -> str:
    """Give the split of a performance: about 80 / 10 / 10 %, by a hash of its name alone."""
    digest = hashlib.sha256((_SALT + performance).encode()).digest()
    bucket = int.from_bytes(digest[:4], 'big') % 10
    return {0: 'test', 1: 'val'}.get(bucket, 'train')


@dataclass(frozen=True)
class TakeInfo:
    """
    What the index says of a take.

    ``performance`` is shared by all copies of one recording; ``label`` says in words what is
    done, ``action`` in one word; ``source`` is the file it came from; ``speed`` the mean speed
    over the floor (m/s), ``turn`` the sum of heading changes (rad, left positive);
    ``starts_at_rest``, ``ends_at_rest``: the body stands still in the first / last 0.3 s.
    """

    name: str
    performance: str
    label: str
    action: str
    split: str
    source: str
    frames: int
    speed: float
    turn: float
    starts_at_rest: bool
    ends_at_rest: bool


@dataclass(frozen=True)
class Take(TakeInfo):
    """A take with its motion (float32, 30 fps, canonical)."""

    motion: HumanMotion


def is_library(folder: str | Path) -> bool:
    """Whether a motion library stands in ``folder``, sound or not."""
    return (Path(folder) / 'index.json').exists()


class MotionLibrary:
    """Read access to a library folder; motions are loaded as they are asked for."""

    def __init__(self, folder: Path, infos: list[TakeInfo]) -> None:
        self.folder, self.infos = folder, infos

    @classmethod
    def open(cls, folder: str | Path) -> MotionLibrary:
        """Open a folder.  Raises ValueError where it is no library or its index is broken."""
        folder = Path(folder)
        try:
            index = json.loads((folder / 'index.json').read_text(encoding='utf-8'))
            rows = index['takes']
            if index['version'] != VERSION or index['fps'] != FPS:
                raise ValueError(f'{folder}: a library of another version or frame rate')
            infos = [TakeInfo(**row) for row in rows]
        except FileNotFoundError:
            raise ValueError(
                f'{folder}: no motion library there (make one with "egomotion data import")'
            ) from None
        except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(f'{folder}: broken index.json: {error}') from None
        for info in infos:
            _check_info(info)
        if len({info.name for info in infos}) != len(infos):
            raise ValueError(f'{folder}: a take stands twice in index.json')
        return cls(folder, infos)

    def __len__(self) -> int:
        return len(self.infos)

    def __iter__(self) -> Iterator[Take]:
        return self.takes()

    def takes(self, split: str | None = None, action: str | None = None) -> Iterator[Take]:
        """Give the takes of a split and an action (all without them), in the index's order."""
        if split is not None and split not in SPLITS:
            raise ValueError(f'split: expected one of {SPLITS}, got {split!r}')
        for info in self.infos:
            if split in (None, info.split) and action in (None, info.action):
                yield self.load(info.name)

    def load(self, name: str) -> Take:
        """Give one take by name.  Raises ValueError for an unknown name or a broken file."""
        info = next((i for i in self.infos if i.name == name), None)
        if info is None:
            raise ValueError(f'no take {name!r} in {self.folder}')
        path = self.folder / f'{info.name}.npz'
        try:
            with np.load(path, allow_pickle=False) as data:
                motion = HumanMotion(
                    data['root_position'], data['rotations'], data['contacts'], float(data['fps'])
                )
            check_motion(motion)
        except DAMAGE as error:
            raise ValueError(f'{path.name}: broken take: {error}') from None
        if motion.frames != info.frames or motion.fps != FPS:
            raise ValueError(f'{path.name}: does not fit the index')
        return Take(**asdict(info), motion=motion)


def _check_info(info: TakeInfo) -> None:
    types = {'str': str, 'int': int, 'bool': bool, 'float': (int, float)}
    for f in fields(TakeInfo):
        if not isinstance(getattr(info, f.name), types[f.type]):
            raise ValueError(f'index.json: {f.name} of {info.name!r} has the wrong type')
    if not _NAME.fullmatch(info.name):
        raise ValueError(f'index.json: {info.name!r} is no take name')
    if info.split not in SPLITS:
        raise ValueError(f'index.json: {info.name}: split {info.split!r}')
    if not 0 < info.frames <= MAX_FRAMES:
        raise ValueError(f'index.json: {info.name}: {info.frames} frames')


def save_library(folder: str | Path, takes: list[Take]) -> None:
    """
    Write a library; what an older one left in the folder is replaced.

    The index is written last, so that a library which is there is whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / 'index.json'
    if index.exists():
        for info in MotionLibrary.open(folder).infos:
            (folder / f'{info.name}.npz').unlink(missing_ok=True)
        index.unlink()
    rows = []
    for take in takes:
        info = TakeInfo(**{f.name: getattr(take, f.name) for f in fields(TakeInfo)})
        _check_info(info)
        np.savez_compressed(
            folder / f'{take.name}.npz',
            root_position=take.motion.root_position.astype(np.float32),
            rotations=take.motion.rotations.astype(np.float32),
            contacts=take.motion.contacts.astype(np.float32),
            fps=np.float64(take.motion.fps),
        )
        rows.append(asdict(info))
    text = json.dumps({'version': VERSION, 'fps': FPS, 'takes': rows}, indent=1)
    partial = folder / 'index.json.partial'
    partial.write_text(text + '\n', encoding='utf-8')
    partial.rename(index)
