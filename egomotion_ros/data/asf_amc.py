# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Reader for Acclaim ASF (skeleton) and AMC (motion) files.

In the ASF zero pose every bone lies along its ``direction``; a bone turns about its own ``axis``
frame C, so its rotation relative to the zero pose is C R(dof) C^-1 times that of its parent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from egomotion_ros.data.mapping import SourceMotion

#: Larger files are refused (bytes).
MAX_BYTES = 512 * 2**20
MAX_BONES = 1000
_TURNS = ('rx', 'ry', 'rz')
_ROOT_ORDER = ('tx', 'ty', 'tz', 'rx', 'ry', 'rz')


@dataclass(frozen=True)
class Bone:
    """One bone: its vector in the zero pose, its axis frame (3, 3), its degrees of freedom."""

    vector: np.ndarray
    axis: np.ndarray
    dof: tuple[str, ...]


@dataclass(frozen=True)
class AsfSkeleton:
    """Bones by name, parents by name ('root' at the top), order of the root's channels."""

    bones: dict[str, Bone]
    parents: dict[str, str]
    root_order: tuple[str, ...]
    root_axis: np.ndarray
    degrees: bool


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f'{path.name}: more than {MAX_BYTES} bytes')
    try:
        return path.read_text(encoding='utf-8')
    except UnicodeDecodeError:
        raise ValueError(f'{path.name}: not a text file') from None


def _numbers(words: list[str], count: int, where: str) -> np.ndarray:
    try:
        values = np.array([float(w) for w in words], dtype=np.float64)
    except ValueError:
        got = ' '.join(words)[:60]
        raise ValueError(f'{where}: expected {count} numbers, got {got!r}') from None
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f'{where}: expected {count} finite numbers, got {len(values)}')
    return values


def _axis(words: list[str], degrees: bool, where: str) -> np.ndarray:
    """Axis frame from 'a b c XYZ': turns about fixed axes, first named first."""
    if len(words) != 4 or sorted(words[3].lower()) != ['x', 'y', 'z']:
        raise ValueError(f'{where}: expected three angles and an order, got {words}')
    angles = _numbers(words[:3], 3, where)
    return Rotation.from_euler(words[3].lower(), angles, degrees=degrees).as_matrix()


def read_asf(path: str | Path) -> AsfSkeleton:
    """Read a skeleton.  Raises ValueError for a broken file."""
    path = Path(path)
    section = ''
    lines: dict[str, list[tuple[str, list[str]]]] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split('#')[0].split()
        if words and words[0].startswith(':'):
            section = words[0][1:].lower()
        elif words:
            lines.setdefault(section, []).append((f'{path.name}:{number}', words))
    degrees = all(
        words[1:] == ['deg'] for _, words in lines.get('units', []) if words[0] == 'angle'
    )
    order, axis = _root(lines.get('root', []), degrees)
    bones = _bones(lines.get('bonedata', []), degrees)
    parents = _parents(lines.get('hierarchy', []), bones)
    if not order or not bones or set(parents) != set(bones):
        raise ValueError(f'{path.name}: root order, bonedata or hierarchy is incomplete')
    return AsfSkeleton(bones, parents, order, axis, degrees)


def _root(lines: list[tuple[str, list[str]]], degrees: bool) -> tuple[tuple[str, ...], np.ndarray]:
    """Order of the root's channels and its axis frame (3, 3)."""
    order: tuple[str, ...] = ()
    axis, orientation = 'xyz', np.zeros(3)
    for where, words in lines:
        if words[0] == 'order':
            order = tuple(w.lower() for w in words[1:])
            if sorted(order) != sorted(_ROOT_ORDER):
                raise ValueError(f'{where}: the root needs TX TY TZ RX RY RZ, got {words[1:]}')
        elif words[0] == 'axis':
            axis = words[1].lower() if len(words) == 2 else ''
            if sorted(axis) != ['x', 'y', 'z']:
                raise ValueError(f'{where}: bad root axis')
        elif words[0] == 'orientation':
            orientation = _numbers(words[1:], 3, where)
    return order, Rotation.from_euler(axis, orientation, degrees=degrees).as_matrix()


def _bones(lines: list[tuple[str, list[str]]], degrees: bool) -> dict[str, Bone]:
    bones: dict[str, Bone] = {}
    entry: dict[str, list[str]] = {}
    for where, words in lines:
        if words[0] == 'begin':
            entry = {}
        elif words[0] == 'end':
            name, bone = _bone(entry, degrees, where)
            if name in bones or len(bones) >= MAX_BONES:
                raise ValueError(f'{where}: bone {name!r} twice, or too many bones')
            bones[name] = bone
        else:
            entry[words[0]] = words[1:]
    return bones


def _parents(lines: list[tuple[str, list[str]]], bones: dict[str, Bone]) -> dict[str, str]:
    """Parent of every bone, parents first."""
    parents: dict[str, str] = {}
    for where, words in lines:
        if words[0] in ('begin', 'end'):
            continue
        if words[0] != 'root' and words[0] not in parents:
            raise ValueError(f'{where}: {words[0]!r} stands before its own parent')
        for child in words[1:]:
            if child not in bones or child in parents:
                raise ValueError(f'{where}: {child!r} is no bone, or has two parents')
            parents[child] = words[0]
    return parents


def _bone(entry: dict[str, list[str]], degrees: bool, where: str) -> tuple[str, Bone]:
    for key in ('name', 'direction', 'length', 'axis'):
        if key not in entry:
            raise ValueError(f'{where}: a bone without {key}')
    direction = _numbers(entry['direction'], 3, where)
    length = _numbers(entry['length'], 1, where)[0]
    dof = tuple(w.lower() for w in entry.get('dof', ()))
    if set(dof) - set(_TURNS) or len(set(dof)) != len(dof):
        raise ValueError(f'{where}: degrees of freedom of rx, ry, rz only, got {dof}')
    axis = _axis(entry['axis'], degrees, where)
    return ' '.join(entry['name']), Bone(direction * length, axis, dof)


def find_asf(amc: str | Path) -> Path:
    """
    Give the skeleton of an AMC file: same stem, the stem up to the last '_', or the only one.

    Raises ValueError where none or several could be meant.
    """
    amc = Path(amc)
    for stem in (amc.stem, amc.stem.rpartition('_')[0]):
        if stem and (amc.parent / f'{stem}.asf').is_file():
            return amc.parent / f'{stem}.asf'
    every = sorted(amc.parent.glob('*.asf'))
    if len(every) != 1:
        raise ValueError(f'{amc.name}: {len(every)} .asf files beside it, none with its name')
    return every[0]


def read_amc(path: str | Path, skeleton: AsfSkeleton, fps: float) -> SourceMotion:
    """
    Read a motion on its skeleton; AMC files carry no frame rate, so it must be given.

    Every frame must hold every bone that has degrees of freedom.  The joints of the result are
    named after the bone that turns there; ``<bone>_end`` is the end of a bone without children.
    Raises ValueError for a broken file.
    """
    path = Path(path)
    widths = {'root': 6, **{n: len(b.dof) for n, b in skeleton.bones.items() if b.dof}}
    rows: dict[str, list[list[str]]] = {name: [] for name in widths}
    frame = 0
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith(('#', ':')):
            if words and words[0].upper() == ':RADIANS':
                raise ValueError(f'{path.name}:{number}: radians are not supported')
            continue
        if len(words) == 1 and words[0].isdigit():
            _frame_complete(rows, frame, path.name)
            frame += 1
            continue
        name = words[0]
        if name not in widths:
            raise ValueError(f'{path.name}:{number}: no moving bone {name[:40]!r} in the skeleton')
        if len(words) - 1 != widths[name] or len(rows[name]) != frame - 1:
            raise ValueError(
                f'{path.name}:{number}: expected {widths[name]} numbers once a frame for {name!r}'
            )
        rows[name].append(words[1:])
    if not frame:
        raise ValueError(f'{path.name}: no frames')
    _frame_complete(rows, frame, path.name)
    try:
        values = {n: np.array(r, dtype=np.float64) for n, r in rows.items()}
    except ValueError as error:
        raise ValueError(f'{path.name}: {error}') from None
    if not all(np.isfinite(v).all() for v in values.values()):
        raise ValueError(f'{path.name}: a number is not finite')
    return _assemble(skeleton, values, frame, fps)


def _frame_complete(rows: dict[str, list], frame: int, name: str) -> None:
    lacking = [bone for bone, row in rows.items() if len(row) != frame]
    if lacking:
        raise ValueError(f'{name}: frame {frame} lacks {lacking[:3]}')


def _assemble(
    skeleton: AsfSkeleton, values: dict[str, np.ndarray], frames: int, fps: float
) -> SourceMotion:
    def turn(names: tuple[str, ...], angles: np.ndarray) -> np.ndarray:
        axes = ''.join(n[1] for n in names)
        return Rotation.from_euler(axes, angles, degrees=skeleton.degrees).as_matrix()

    order = skeleton.root_order
    root = values['root'][:, [order.index(t) for t in ('tx', 'ty', 'tz')]]
    turns = [i for i, name in enumerate(order) if name[0] == 'r']
    top = turn(tuple(order[i] for i in turns), values['root'][:, turns])
    names, parents, offsets = ['root'], [-1], [np.zeros(3)]
    rotations = [skeleton.root_axis @ top @ skeleton.root_axis.T]
    for name, parent in skeleton.parents.items():
        bone = skeleton.bones[name]
        above = names.index(parent)
        local = np.broadcast_to(np.eye(3), (frames, 3, 3))
        if bone.dof:
            local = bone.axis @ turn(bone.dof, values[name]) @ bone.axis.T
        names.append(name)
        parents.append(above)
        offsets.append(np.zeros(3) if parent == 'root' else skeleton.bones[parent].vector)
        rotations.append(rotations[above] @ local)
    for name in set(skeleton.bones) - set(skeleton.parents.values()):
        names.append(f'{name}_end')
        parents.append(names.index(name))
        offsets.append(skeleton.bones[name].vector)
        rotations.append(rotations[names.index(name)])
    return SourceMotion(
        tuple(names), tuple(parents), np.array(offsets), np.stack(rotations, axis=1), root, fps
    )
