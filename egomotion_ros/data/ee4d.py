# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Reader for EE4D-Motion as UniEgoMotion processes it: ``uniegomotion/ee_<split>.pt``.

Read off the project's own code (chaitanya100100/UniEgoMotion, DATASET.md,
run/process_for_uniegomotion.py, dataset/canonicalization.py): a dictionary from
``<take>___<first>___<last>`` to a segment at 10 frames a second, Z up, metres; ``smpl_params``
with ``global_orient`` and ``body_pose`` as 6D (two rows of the matrix) and ``transl``,
``body_root_offset`` from ``transl`` to the pelvis, ``kp3d`` (T, 76, 3) joints in SMPL-X order.

The raw annotations (``ee4d_motion/<take>/*.pkl``) are pickles, which may run any code when they
are opened, and are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import pickle

import numpy as np

from egomotion_ros.body.features import check_motion
from egomotion_ros.body.rotations import matrix_from_6d
from egomotion_ros.body.skeleton import JOINTS, LEG_LENGTH
from egomotion_ros.types import HumanMotion

FPS = 10.0
_LEGS = ((1, 4, 7), (2, 5, 8))


def read_ee4d(path: str | Path) -> Iterator[tuple[str, HumanMotion | ValueError]]:
    """
    Give every segment of a file by name, on our skeleton; a broken one as its ValueError.

    Only tensors and plain values are loaded.  Raises ValueError where the file is no such
    dictionary.
    """
    path = Path(path)
    data = _load(path)
    if not isinstance(data, dict) or not data or not all(
        isinstance(k, str) and isinstance(v, dict) and 'smpl_params' in v for k, v in data.items()
    ):
        raise ValueError(f'{path.name}: not a dictionary of EE4D-Motion segments')
    for name in sorted(data):
        try:
            yield name, _segment(data[name])
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            yield name, ValueError(f'{name}: broken segment: {error!r}')


def take_of(name: str) -> str:
    """Give the take a segment was cut from: segments of one take belong together."""
    return name.split('___')[0]


def _load(path: Path) -> object:
    try:
        import torch
    except ImportError as error:
        raise ValueError(f'{path.name}: EE4D-Motion files need torch: {error}') from None
    # The floor height is a NumPy number: its two constructors are the only ones let in.
    number = [np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32)),
              (np.float64(0.0).__reduce__()[0], 'numpy.core.multiarray.scalar'),
              np.float64(0.0).__reduce__()[0]]
    try:
        with torch.serialization.safe_globals(number):
            return torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise ValueError(f'{path.name}: cannot be loaded safely: {reason[:200]}') from None


def _segment(entry: dict) -> HumanMotion:
    body = entry['smpl_params']
    trans = _numbers(body['transl']).reshape(-1, 3)
    frames = len(trans)
    six = np.concatenate([
        _numbers(body['global_orient']).reshape(frames, 1, 6),
        _numbers(body['body_pose']).reshape(frames, JOINTS - 1, 6),
    ], axis=1)  # fmt: skip
    joints = _numbers(entry['kp3d']).reshape(frames, -1, 3)
    leg = np.mean([
        np.linalg.norm(np.diff(joints[0, list(side)], axis=0), axis=-1).sum() for side in _LEGS
    ])  # fmt: skip
    if not 0.3 < leg < 1.5:
        raise ValueError(f'the legs are {leg:.3g} m long')
    pelvis = trans + _numbers(entry['body_root_offset']).reshape(3)
    motion = HumanMotion(
        root_position=pelvis * (LEG_LENGTH / leg),
        # Theirs are rows where ours are columns.
        rotations=np.swapaxes(matrix_from_6d(six), -1, -2),
        contacts=np.zeros((frames, 4)),
        fps=FPS,
    )
    check_motion(motion)
    return motion


def _numbers(value: object) -> np.ndarray:
    return np.asarray(value, dtype=np.float64)
