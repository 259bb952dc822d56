# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Reader for the body motion of Nymeria sequences: ``<sequence>/body/xdata.npz`` (XSens).

Read off the project's own code (facebookresearch/nymeria_dataset, xsens_constants.py,
body_motion_provider.py, definitions.py): 23 segments, ``segment_tXYZ`` (T, 69) metres and
``segment_qWXYZ`` (T, 92) from the segment to the XSens world (Z up), the same of a T pose as
``tpose_segment_*``, ``frameRate`` (240), ``timestamps_us``.  Quaternions of length below 0.5 are
gaps there; the last good one stands in.  The T pose of the file itself says how the segments'
axes lie, so that no convention of the recorder is taken for granted.
"""

from __future__ import annotations

import json
from pathlib import Path
import re
import zipfile

import numpy as np
from scipy.spatial.transform import Rotation

from egomotion_ros.body.npz import DAMAGE, read_arrays
from egomotion_ros.data.mapping import SourceMotion

#: Segments in the order of the arrays, and their parents.
NAMES = (
    'Pelvis', 'L5', 'L3', 'T12', 'T8', 'Neck', 'Head',
    'R_Shoulder', 'R_UpperArm', 'R_Forearm', 'R_Hand',
    'L_Shoulder', 'L_UpperArm', 'L_Forearm', 'L_Hand',
    'R_UpperLeg', 'R_LowerLeg', 'R_Foot', 'R_Toe',
    'L_UpperLeg', 'L_LowerLeg', 'L_Foot', 'L_Toe',
)  # fmt: skip
PARENTS = (-1, 0, 1, 2, 3, 4, 5, 4, 7, 8, 9, 4, 11, 12, 13, 0, 15, 16, 17, 0, 19, 20, 21)
#: What the arrays are called.
KEYS = ('segment_tXYZ', 'segment_qWXYZ', 'tpose_segment_tXYZ', 'tpose_segment_qWXYZ', 'frameRate')
#: Frames that are read for one second; the files hold four times as many.
READ_FPS = 60.0
#: Larger arrays are refused (bytes), and files with more gaps than this share.
MAX_BYTES = 4 * 2**30
MAX_GAPS = 0.05


def is_nymeria(path: Path) -> bool:
    """Whether an ``.npz`` file holds XSens segments (its directory is read, no array)."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except DAMAGE:
        return False
    return {'segment_tXYZ.npy', 'segment_qWXYZ.npy'} <= names


def read_nymeria(path: str | Path) -> SourceMotion:
    """
    Read ``xdata.npz`` at about 60 frames a second, for the mapping ``nymeria_xsens``.

    World Z up; zero pose is the file's T pose facing +X.  Raises ValueError for a broken file.
    """
    path = Path(path)
    data = _arrays(path)
    rate = _scalar(data['frameRate'], path.name)
    stride = max(1, round(rate / READ_FPS))
    frames = data['segment_tXYZ'].size // (3 * len(NAMES))
    places = _shaped(data['segment_tXYZ'], (frames, len(NAMES), 3), 'segment_tXYZ', path)[::stride]
    turns = _shaped(data['segment_qWXYZ'], (frames, len(NAMES), 4), 'segment_qWXYZ', path)
    turns = _fill_gaps(turns, path.name)[::stride]
    rest = _shaped(data['tpose_segment_tXYZ'], (len(NAMES), 3), 'tpose_segment_tXYZ', path)
    rest_turns = _shaped(data['tpose_segment_qWXYZ'], (len(NAMES), 4), 'tpose_segment_qWXYZ', path)
    if not all(np.isfinite(a).all() for a in (places, turns, rest, rest_turns)):
        raise ValueError(f'{path.name}: a number is not finite')
    if np.linalg.norm(rest_turns, axis=-1).min() < 0.5:
        raise ValueError(f'{path.name}: the T pose has quaternions of length zero')
    left = rest[NAMES.index('L_UpperLeg')] - rest[NAMES.index('R_UpperLeg')]
    if np.linalg.norm(left[:2]) < 0.01:
        raise ValueError(f'{path.name}: the T pose has no width at the hips')
    # Where the T pose looks: left turned by -90 degrees about the vertical.
    facing = Rotation.from_euler('z', np.arctan2(-left[0], left[1])).as_matrix()
    at_rest = Rotation.from_quat(rest_turns, scalar_first=True).as_matrix()
    now = Rotation.from_quat(turns.reshape(-1, 4), scalar_first=True).as_matrix()
    now = now.reshape(*turns.shape[:2], 3, 3)
    parents = np.maximum(PARENTS, 0)
    offsets = (rest - rest[parents]) @ facing
    return SourceMotion(
        names=NAMES,
        parents=PARENTS,
        offsets=offsets,
        rotations=now @ np.swapaxes(at_rest, -1, -2) @ facing,
        root_position=places[:, 0],
        fps=rate / stride,
    )


def describe_sequence(path: str | Path) -> str | None:
    """Give the script of the sequence in words, from its ``metadata.json``; None without one."""
    metadata = Path(path).parent.parent / 'metadata.json'
    try:
        if metadata.stat().st_size > 2**22:
            return None
        script = json.loads(metadata.read_text(encoding='utf-8'))['script']
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # 'S14-By_my_desk' -> 'by my desk'
    words = re.sub(r'^S\d+-', '', str(script)).replace('_', ' ').strip().lower()
    return words[:200] or None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    data = read_arrays(path, KEYS, MAX_BYTES)
    missing = [key for key in KEYS if key not in data]
    if missing:
        raise ValueError(f'{path.name}: no array {missing[0]!r}')
    return data


def _scalar(value: np.ndarray, name: str) -> float:
    value = np.asarray(value)
    rate = float(value.ravel()[0]) if value.size == 1 and value.dtype.kind in 'fiu' else np.nan
    if not 1.0 <= rate <= 1000.0:
        raise ValueError(f'{name}: frameRate must be within 1 to 1000, got {value!r:.40}')
    return rate


def _shaped(value: np.ndarray, shape: tuple[int, ...], key: str, path: Path) -> np.ndarray:
    if value.dtype.kind != 'f' or value.size != np.prod(shape) or value.size == 0:
        raise ValueError(f'{path.name}: {key}: expected numbers of shape {shape}, got '
                         f'{value.shape} {value.dtype}')
    return value.reshape(shape).astype(np.float64)


def _fill_gaps(turns: np.ndarray, name: str) -> np.ndarray:
    """Quaternions (T, 23, 4) with the last good one where their length is below 0.5."""
    good = np.linalg.norm(turns, axis=-1) >= 0.5
    if good.all():
        return turns
    if (~good).mean() > MAX_GAPS or not good.any(axis=0).all():
        raise ValueError(f'{name}: {100 * (~good).mean():.0f} % of the rotations are gaps')
    row = np.where(good, np.arange(len(turns))[:, None], -1)
    row = np.maximum.accumulate(row, axis=0)
    # Gaps at the beginning take the first good one.
    row = np.where(row < 0, good.argmax(axis=0)[None], row)
    return np.take_along_axis(turns, row[..., None], axis=0)
