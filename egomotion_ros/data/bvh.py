# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Reader for BVH (Biovision hierarchy) files, any skeleton.

The file is checked against its own header before anything is allocated: channels that are
missing, a frame count that does not fit the data, numbers that are no numbers or not finite are
refused with a message that says where.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from egomotion_ros.data.mapping import SourceMotion

#: Larger files are refused (bytes): no recording of a body is that long.
MAX_BYTES = 512 * 2**20
#: More joints than any body has.
MAX_JOINTS = 1000
_POSITION = ('Xposition', 'Yposition', 'Zposition')
_ROTATION = ('Xrotation', 'Yrotation', 'Zrotation')


class _Words:
    """The words of the hierarchy, one after the other."""

    def __init__(self, text: str, name: str) -> None:
        self.words, self.at, self.name = text.split(), 0, name

    def next(self) -> str:
        if self.at >= len(self.words):
            raise ValueError(f'{self.name}: the hierarchy ends too early')
        self.at += 1
        return self.words[self.at - 1]

    def expect(self, *wanted: str) -> str:
        word = self.next()
        if word not in wanted:
            raise ValueError(f'{self.name}: expected {" or ".join(wanted)}, got {word[:40]!r}')
        return word

    def number(self) -> float:
        word = self.next()
        try:
            value = float(word)
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise ValueError(f'{self.name}: expected a number, got {word[:40]!r}')
        return value


def _hierarchy(words: _Words) -> tuple[list[str], list[int], list[list[float]], list[list[str]]]:
    """Names, parents, offsets, channels of joints and end sites, parents first."""
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[list[str] | None] = []
    words.expect('HIERARCHY')
    words.expect('ROOT')
    open_: list[int] = []
    kind = 'ROOT'
    while True:
        if kind == '}':
            open_.pop()
            if not open_:
                break
        else:
            name = words.next() if kind != 'End' else (words.expect('Site'), '')[1]
            if kind == 'End':
                name = f'{names[open_[-1]]}_end'
            if name in names and kind != 'End':
                raise ValueError(f'{words.name}: two joints are named {name!r}')
            if len(names) >= MAX_JOINTS:
                raise ValueError(f'{words.name}: more than {MAX_JOINTS} joints')
            words.expect('{')
            words.expect('OFFSET')
            names.append(name)
            parents.append(open_[-1] if open_ else -1)
            offsets.append([words.number() for _ in range(3)])
            channels.append([] if kind == 'End' else None)
            open_.append(len(names) - 1)
        kind = words.expect('JOINT', 'End', '}', 'CHANNELS')
        if kind == 'CHANNELS':
            if channels[open_[-1]] is not None:
                raise ValueError(f'{words.name}: {names[open_[-1]]!r} has CHANNELS twice')
            channels[open_[-1]] = _channels(words, names[open_[-1]])
            kind = words.expect('JOINT', 'End', '}')
    _check_channels(words.name, names, channels)
    return names, parents, offsets, channels


def _channels(words: _Words, joint: str) -> list[str]:
    count = words.next()
    if count not in {'0', '1', '2', '3', '4', '5', '6'}:
        raise ValueError(f'{words.name}: CHANNELS of 0 to 6, got {count[:40]!r}')
    chosen = [words.expect(*_POSITION, *_ROTATION) for _ in range(int(count))]
    if len(set(chosen)) != len(chosen):
        raise ValueError(f'{words.name}: {joint!r} repeats a channel')
    return chosen


def _check_channels(name: str, joints: list[str], channels: list[list[str] | None]) -> None:
    for joint, chosen in zip(joints, channels):
        if chosen is None:
            raise ValueError(f'{name}: joint {joint!r} has no CHANNELS')
        turns = [c for c in chosen if c in _ROTATION]
        if chosen and len(turns) != 3:
            raise ValueError(f'{name}: joint {joint!r} has {len(turns)} rotation channels of 3')
    if not set(_POSITION) <= set(channels[0]):
        raise ValueError(f'{name}: the root has no position channels: {channels[0]}')


def read_bvh(path: str | Path, root_offset: bool = False) -> SourceMotion:
    """
    Read one BVH file.

    ``root_offset`` adds the root's OFFSET to its position channels (some exporters store the
    position relative to it).  Raises ValueError for every kind of broken file.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f'{path.name}: {size} bytes, more than {MAX_BYTES}')
    try:
        text = path.read_text(encoding='utf-8')
    except UnicodeDecodeError:
        raise ValueError(f'{path.name}: not a text file') from None
    head, found, body = text.partition('MOTION')
    if not found:
        raise ValueError(f'{path.name}: no MOTION part')
    words = _Words(head, path.name)
    names, parents, offsets, channels = _hierarchy(words)
    if words.at != len(words.words):
        raise ValueError(f'{path.name}: {words.words[words.at][:40]!r} after the hierarchy')
    frames, dt, body = _motion_header(body, path.name)
    width = sum(len(c) for c in channels)
    # Every number takes a digit and a blank: what cannot fit into the text is not allocated.
    if frames * width * 2 > len(body) + 1:
        raise ValueError(f'{path.name}: {frames} frames of {width} numbers do not fit the file')
    try:
        values = np.array(body.split(), dtype=np.float64)
    except ValueError as error:
        raise ValueError(f'{path.name}: {error}') from None
    if values.size != frames * width:
        raise ValueError(
            f'{path.name}: expected {frames} frames x {width} numbers, got {values.size}'
        )
    if not np.isfinite(values).all():
        raise ValueError(f'{path.name}: a number is not finite')
    return _assemble(
        path.name,
        names,
        parents,
        np.array(offsets),
        channels,
        values.reshape(frames, width),
        1.0 / dt,
        root_offset,
    )


def _motion_header(body: str, name: str) -> tuple[int, float, str]:
    lines = body.lstrip().split('\n', 2)
    try:
        key, count = lines[0].split(':')
        key2, dt = lines[1].split(':')
        frames, seconds = int(count), float(dt)
    except (IndexError, ValueError):
        raise ValueError(f'{name}: expected "Frames: N" and "Frame Time: S"') from None
    if key.strip() != 'Frames' or key2.strip() != 'Frame Time':
        raise ValueError(f'{name}: expected "Frames: N" and "Frame Time: S"')
    if frames < 1:
        raise ValueError(f'{name}: expected at least one frame, got {frames}')
    if not 1e-4 <= seconds <= 1.0:
        raise ValueError(f'{name}: frame time {seconds} s is not within 0.0001 to 1')
    return frames, seconds, lines[2] if len(lines) > 2 else ''


def _assemble(
    name: str,
    names: list[str],
    parents: list[int],
    offsets: np.ndarray,
    channels: list[list[str]],
    values: np.ndarray,
    fps: float,
    root_offset: bool,
) -> SourceMotion:
    frames = len(values)
    rotations = np.empty((frames, len(names), 3, 3))
    root = np.zeros((frames, 3))
    at = 0
    for j, chosen in enumerate(channels):
        block = values[:, at : at + len(chosen)]
        at += len(chosen)
        move = [i for i, c in enumerate(chosen) if c in _POSITION]
        turn = [i for i, c in enumerate(chosen) if c in _ROTATION]
        if j == 0:
            for i in move:
                root[:, _POSITION.index(chosen[i])] = block[:, i]
        elif move:
            offsets[j] = _fixed_offset(
                name, names[j], [chosen[i] for i in move], block[:, move], offsets[j]
            )
        local = np.eye(3)
        if turn:
            order = ''.join(chosen[i][0] for i in turn)
            local = Rotation.from_euler(order, block[:, turn], degrees=True).as_matrix()
        parent = np.eye(3) if parents[j] < 0 else rotations[:, parents[j]]
        rotations[:, j] = parent @ local
    if root_offset:
        root = root + offsets[0]
    return SourceMotion(tuple(names), tuple(parents), offsets, rotations, root, fps)


def _fixed_offset(
    name: str, joint: str, moves: list[str], block: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """Offset of a joint that has position channels; bones that change length are refused."""
    out = offset.copy()
    for i, move in enumerate(moves):
        out[_POSITION.index(move)] = np.median(block[:, i])
    bone = max(np.linalg.norm(out), 1e-6)
    if np.abs(block - np.median(block, axis=0)).max() > 0.05 * bone:
        raise ValueError(f'{name}: the bone of {joint!r} changes its length')
    return out
