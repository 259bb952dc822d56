# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Reader for the HumanML3D layout: ``new_joints``, ``new_joint_vecs`` and ``texts``.

Read off the project's own scripts and its reference clip (EricGuo5513/HumanML3D, README,
motion_representation.ipynb, clip 012314): 20 frames a second, metres, Y up, the first frame over
the origin and facing +Z, 22 joints in SMPL order; a vector of 263 numbers holds the root's yaw
speed (half angles a frame), velocity and height, 21 joint positions relative to the root, 21
rotations in 6D, 22 velocities and 4 contacts.

The 6D rotations are left alone: they come from inverse kinematics that gives the root its yaw
only and limbs their swing only, on an axis-aligned skeleton.  Rotations are fitted to the joint
positions instead, which ``new_joint_vecs`` hold as well.
"""

from __future__ import annotations

from pathlib import Path
import re

import numpy as np

from egomotion_ros.body.npz import DAMAGE
from egomotion_ros.body.skeleton import BODY_TO_WORLD
from egomotion_ros.data.joints_fit import fit_joints
from egomotion_ros.types import HumanMotion

FPS = 20.0
#: Numbers of a frame with 22 joints, and those of KIT-ML with its 21.
WIDTH, KIT_WIDTH, KIT_JOINTS = 263, 251, 21
JOINTS = 22
#: Longer clips are refused (frames); the data set has 10 s.
MAX_FRAMES = 200_000


def is_clip(path: Path) -> bool:
    """Whether an ``.npy`` file has the shape of a clip (Mean.npy and Std.npy have not)."""
    try:
        shape = _open(path).shape
    except ValueError:
        return True  # broken files are read, refused and reported
    return (len(shape) == 3 and shape[2] == 3) or (
        len(shape) == 2 and shape[1] in (WIDTH, KIT_WIDTH))


def left_out(path: Path) -> str | None:
    """Why a clip is not read: it stands in another file as well; None where it is."""
    if re.fullmatch(r'M\d{6}', path.stem) and path.with_name(f'{path.stem[1:]}.npy').is_file():
        return f'mirror image of {path.stem[1:]}.npy; training mirrors by itself'
    if path.parent.name == 'new_joint_vecs':
        if (path.parent.parent / 'new_joints' / path.name).is_file():
            return f'same clip as new_joints/{path.name}'
    return None


def read_humanml3d(path: str | Path) -> HumanMotion:
    """Read a clip onto our skeleton.  Raises ValueError for a broken or foreign file."""
    path = Path(path)
    data = _open(path)
    if data.ndim > 1 and (KIT_WIDTH, KIT_JOINTS)[data.ndim - 2] == data.shape[1]:
        raise ValueError(f'{path.name}: KIT-ML clips (21 joints, other proportions) are not read')
    if not 2 <= len(data) <= MAX_FRAMES or data.dtype.kind != 'f':
        raise ValueError(f'{path.name}: expected 2 to {MAX_FRAMES} frames of numbers, got '
                         f'{data.shape} {data.dtype}')
    values = np.asarray(data, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f'{path.name}: a number is not finite')
    joints = values if values.ndim == 3 else joints_of_vectors(values)
    # Their axes are those of our body frame: Y up, X left, Z forward.
    return fit_joints(joints @ BODY_TO_WORLD.T, FPS, path.name)


def joints_of_vectors(vectors: np.ndarray) -> np.ndarray:
    """
    Joint positions (T, 22, 3), Y up, from vectors (T, 263); the part "ric" of the format.

    Row t holds the step from t to t + 1, and the yaw as half the angle.  Raises ValueError for
    another width.
    """
    if vectors.ndim != 2 or vectors.shape[1] != WIDTH:
        raise ValueError(f'expected vectors (T, {WIDTH}), got {vectors.shape}')
    zero = np.zeros(1)
    yaw = 2.0 * np.cumsum(np.concatenate([zero, vectors[:-1, 0]]))
    steps = np.concatenate([np.zeros((1, 2)), vectors[:-1, 1:3]])
    path = np.cumsum(_turn(steps, yaw), axis=0)
    local = vectors[:, 4:4 + 3 * (JOINTS - 1)].reshape(len(vectors), JOINTS - 1, 3)
    joints = np.empty((len(vectors), JOINTS, 3))
    joints[:, 0, [0, 2]], joints[:, 0, 1] = path, vectors[:, 3]
    joints[:, 1:, [0, 2]] = _turn(local[..., [0, 2]], yaw[:, None]) + path[:, None]
    joints[:, 1:, 1] = local[..., 1]
    return joints


def _turn(flat: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Vectors (..., 2) of x and z turned back by ``yaw`` (...) about the Y axis."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.stack([c * flat[..., 0] - s * flat[..., 1], s * flat[..., 0] + c * flat[..., 1]], -1)


def describe_clip(path: str | Path) -> str | None:
    """Give the first description of the whole clip from ``texts/<clip>.txt``; None without."""
    text = Path(path).parent.parent / 'texts' / f'{Path(path).stem}.txt'
    try:
        if text.stat().st_size > 2**20:
            return None
        lines = text.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        cells = line.split('#')
        # A description of a part of the clip has times other than zero behind it.
        whole = len(cells) < 4 or all(cell.strip() in ('0.0', '0', 'nan') for cell in cells[2:4])
        if whole and cells[0].strip():
            return ' '.join(cells[0].split())[:200]
    return None


def _open(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode='r', allow_pickle=False)
    except DAMAGE as error:
        raise ValueError(f'{path.name}: not an npy file: {error}') from None
