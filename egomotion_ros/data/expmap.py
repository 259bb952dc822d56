# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Reader for motion capture stored as exponential maps (117 columns, 120 frames a second).

The layout is that of the CMU clips used in motion prediction: root position, then a rotation
vector v for each of 38 nodes (31 bones and 7 ends); the rotation of a node relative to its parent
is exp(-v).  Row 0 is a reference pose, not motion.  Two things must be put right: the root's
angles were composed in the wrong order when these files were made, and the files carry no bones,
so the mean proportions of the ASF skeletons of that database are used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from egomotion_ros.data.mapping import SourceMotion

#: Larger files are refused (bytes).
MAX_BYTES = 256 * 2**20
COLUMNS = 117
FPS = 120.0

# Node, parent, vector of the bone in the zero pose (ASF units; mean of three skeletons, made
# symmetric).
_LEG = (
    ('hipjoint', 'root', (1.54, -1.78, 0.72)),
    ('femur', 'hipjoint', (2.48, -6.87, 0.0)),
    ('tibia', 'femur', (2.56, -7.03, 0.0)),
    ('foot', 'tibia', (0.185, -0.51, 2.12)),
    ('toes', 'foot', (0.0, 0.0, 1.1)),
    ('toes_end', 'toes', None),
)
_SPINE = (
    ('lowerback', 'root', (0.0, 2.1, -0.15)),
    ('upperback', 'lowerback', (0.0, 2.1, -0.03)),
    ('thorax', 'upperback', (0.0, 2.11, 0.04)),
    ('lowerneck', 'thorax', (0.0, 1.69, 0.15)),
    ('upperneck', 'lowerneck', (0.0, 1.67, -0.23)),
    ('head', 'upperneck', (0.0, 1.73, -0.1)),
    ('head_end', 'head', None),
)
_ARM = (
    ('clavicle', 'thorax', (3.35, 1.06, -0.3)),
    ('humerus', 'clavicle', (5.17, 0.0, 0.0)),
    ('radius', 'humerus', (3.37, 0.0, 0.0)),
    ('wrist', 'radius', (1.69, 0.0, 0.0)),
    ('hand', 'wrist', (0.67, 0.0, 0.0)),
    ('fingers', 'hand', (0.54, 0.0, 0.0)),
    ('fingers_end', 'fingers', None),
    ('thumb', 'wrist', (0.55, 0.0, 0.55)),
    ('thumb_end', 'thumb', None),
)


def _nodes() -> tuple[tuple[str, ...], tuple[int, ...], np.ndarray]:
    """Names, parents and offsets of the 38 nodes, in the order of the columns."""
    names, parents, vectors = ['root'], [-1], [np.zeros(3)]
    middle = ('root', 'thorax')
    for part, side in ((_LEG, 'l'), (_LEG, 'r'), (_SPINE, ''), (_ARM, 'l'), (_ARM, 'r')):
        for name, parent, vector in part:
            names.append(side + name)
            parents.append(names.index(parent if parent in middle else side + parent))
            mirror = (-1.0, 1.0, 1.0) if side == 'r' else (1.0, 1.0, 1.0)
            vectors.append(np.zeros(3) if vector is None else np.array(vector) * mirror)
    offsets = np.array([np.zeros(3) if p < 0 else vectors[p] for p in parents])
    return tuple(names), tuple(parents), offsets


NAMES, PARENTS, OFFSETS = _nodes()


def _mend_root(rotations: np.ndarray) -> np.ndarray:
    """
    Undo the wrong order of the root's angles, (T, 3, 3) -> (T, 3, 3).

    The matrices were built as turns about fixed y, x, z from angles meant for x, y, z.  Every
    matrix has two such triples of angles.  A take starts with the one whose |y| is at most 90
    degrees and changes to the other where going on would turn the body by more than 30 degrees
    within a frame: where a heading passes 90 degrees, some takes change triples, some do not.
    """
    y, x, z = Rotation.from_matrix(rotations).as_euler('yxz', degrees=True).T
    one = np.stack([x, y, z], axis=-1)
    two = np.stack([180.0 - x, y - np.where(y > 0, 180.0, -180.0), z + 180.0], axis=-1)
    frames = len(rotations)
    angles = np.stack([one, two], axis=1).reshape(-1, 3)
    both = Rotation.from_euler('xyz', angles, degrees=True).as_matrix().reshape(frames, 2, 3, 3)
    # Trace of the step from either triple to either triple: the larger, the smaller the turn.
    near = np.einsum('taij,tbij->tab', both[:-1], both[1:])
    choice = np.empty(frames, dtype=int)
    choice[0] = int(abs(y[0]) > 90.0)
    # The two triples meet where the body stands upright: the nearer one alone would be a gamble.
    far = 1.0 + 2.0 * np.cos(np.deg2rad(30.0))
    for t in range(1, frames):
        stay, other = choice[t - 1], 1 - choice[t - 1]
        step = near[t - 1, stay]
        choice[t] = other if step[stay] < far and step[other] > step[stay] else stay
    return both[np.arange(frames), choice]


def read_expmap(path: str | Path) -> SourceMotion:
    """Read one file.  Raises ValueError for a broken one."""
    path = Path(path)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f'{path.name}: more than {MAX_BYTES} bytes')
    try:
        lines = path.read_text(encoding='ascii').splitlines()
    except UnicodeDecodeError:
        raise ValueError(f'{path.name}: not a text file') from None
    rows = [line.split(',') for line in lines if line.strip()]
    if len(rows) < 3 or any(len(row) != COLUMNS for row in rows):
        wrong = next((i + 1 for i, row in enumerate(rows) if len(row) != COLUMNS), len(rows))
        raise ValueError(
            f'{path.name}: expected 3 or more rows of {COLUMNS} numbers with commas, row {wrong}'
        )
    try:
        values = np.array(rows, dtype=np.float64)[1:]
    except ValueError as error:
        raise ValueError(f'{path.name}: {error}') from None
    if not np.isfinite(values).all():
        raise ValueError(f'{path.name}: a number is not finite')
    vectors = values[:, 3:].reshape(len(values), len(NAMES), 3)
    local = Rotation.from_rotvec(-vectors.reshape(-1, 3)).as_matrix()
    local = local.reshape(len(values), len(NAMES), 3, 3)
    rotations = np.empty_like(local)
    rotations[:, 0] = _mend_root(local[:, 0])
    for j in range(1, len(NAMES)):
        rotations[:, j] = rotations[:, PARENTS[j]] @ local[:, j]
    return SourceMotion(NAMES, PARENTS, OFFSETS, rotations, values[:, :3], FPS)
