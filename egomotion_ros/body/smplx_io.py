# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
SMPL, SMPL-X and AMASS ``.npz`` files in and out.

Two layouts are known: that of AMASS (``poses`` (T, 72 or more), ``trans``, ``mocap_framerate``)
and that of SMPL-X sequences (``root_orient``, ``pose_body``, ``trans``, ``mocap_frame_rate``).
Rotation vectors are in radians, the world of both is Z up, metres.  In these models the pelvis
joint is not at ``trans`` but at ``trans`` + J0, the rest position of the pelvis, which depends on
the betas; with the model's own files (``smplx`` package) it is computed, without them the mean
of the neutral shape is used.  The files' Z axis up means that a root without rotation lies with
its Y axis horizontal: the first rotation vector stands the body up, nothing has to be converted.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
import tempfile
from typing import Any
import zipfile

import numpy as np

from egomotion_ros.body.edits import resample
from egomotion_ros.body.features import check_motion
from egomotion_ros.body.npz import read_arrays
from egomotion_ros.body.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from egomotion_ros.body.skeleton import JOINTS, LEG_LENGTH
from egomotion_ros.types import HumanMotion

#: Longest sequence that is read (frames) and largest array (bytes).
MAX_FRAMES = 1_000_000
MAX_BYTES = 2 * 2**30
#: Rest position of the pelvis in the neutral shape (m, body frame) and its leg length, rounded.
NEUTRAL_PELVIS = np.array([0.0, -0.35, 0.01])
NEUTRAL_LEG = 0.81
_RATES = ('mocap_framerate', 'mocap_frame_rate', 'fps')
_KEYS = ('poses', 'trans', 'betas', 'root_orient', 'pose_body', *_RATES)


def read_npz(path: str | Path, model_folder: str | Path | None = None) -> HumanMotion:
    """
    Read a SMPL-X or AMASS sequence onto our skeleton, at the file's frame rate.

    ``model_folder`` holds the SMPL-X model files; with it the pelvis and the leg length of the
    file's own betas are used.  Heights are as the file has them, scaled by the leg length;
    contacts are left at zero.  Raises ValueError for a broken file.
    """
    path = Path(path)
    data = read_arrays(path, _KEYS, MAX_BYTES)
    for key, value in data.items():
        if value.dtype.kind not in 'fiu':
            raise ValueError(f'{path.name}: {key}: expected numbers, got {value.dtype}')
    if 'trans' not in data:
        raise ValueError(f'{path.name}: no array "trans"')
    if 'poses' in data:
        pose = data['poses']
    elif 'root_orient' in data and 'pose_body' in data:
        if (
            data['root_orient'].ndim != 2
            or data['pose_body'].ndim != 2
            or (len(data['root_orient']) != len(data['pose_body']))
        ):
            raise ValueError(f'{path.name}: root_orient and pose_body do not fit together')
        pose = np.concatenate([data['root_orient'], data['pose_body']], axis=1)
    else:
        raise ValueError(f'{path.name}: neither "poses" nor "root_orient" and "pose_body"')
    trans = data['trans']
    frames = len(trans) if trans.ndim else 0
    if pose.ndim != 2 or pose.shape[0] != frames or pose.shape[1] < 3 * JOINTS:
        raise ValueError(
            f'{path.name}: expected poses (T, {3 * JOINTS} or more) and trans (T, 3), '
            f'got {pose.shape} and {trans.shape}'
        )
    if trans.shape != (frames, 3) or not 0 < frames <= MAX_FRAMES:
        raise ValueError(f'{path.name}: expected trans (T, 3), got {trans.shape}')
    pose = pose[:, : 3 * JOINTS].astype(np.float64)
    trans = trans.astype(np.float64)
    if not (np.isfinite(pose).all() and np.isfinite(trans).all()):
        raise ValueError(f'{path.name}: a number is not finite')
    pelvis, leg = NEUTRAL_PELVIS, NEUTRAL_LEG
    if model_folder is not None:
        pelvis, leg = model_shape(model_folder, data.get('betas'))
    ratio = LEG_LENGTH / leg
    motion = HumanMotion(
        root_position=(trans + pelvis) * ratio,
        rotations=axis_angle_to_matrix(pose.reshape(frames, JOINTS, 3)),
        contacts=np.zeros((frames, 4)),
        fps=_rate(data, path.name),
    )
    check_motion(motion)
    return motion


def _rate(data: dict[str, np.ndarray], name: str) -> float:
    for key in _RATES:
        if key in data:
            value = np.asarray(data[key])
            rate = float(value) if value.ndim == 0 and value.dtype.kind in 'fiu' else np.nan
            if not 1.0 <= rate <= 1000.0:
                raise ValueError(f'{name}: {key} must be within 1 to 1000, got {value!r:.40}')
            return rate
    raise ValueError(f'{name}: no frame rate (one of {", ".join(_RATES)})')


def write_npz(path: str | Path, motion: HumanMotion, fps: float | None = None) -> None:
    """
    Write a motion in the AMASS layout (SMPL-X, neutral shape, hands open), read by most tools.

    ``fps`` resamples first.  Root positions are divided by the motion's scale.
    """
    check_motion(motion)
    if fps is not None:
        motion = resample(motion, fps)
    pose = np.zeros((motion.frames, 165))
    vectors = matrix_to_axis_angle(np.asarray(motion.rotations, dtype=np.float64))
    pose[:, : 3 * JOINTS] = vectors.reshape(motion.frames, -1)
    root = np.asarray(motion.root_position, dtype=np.float64) / motion.scale
    trans = root * (NEUTRAL_LEG / LEG_LENGTH) - NEUTRAL_PELVIS
    np.savez_compressed(
        path,
        poses=pose,
        trans=trans,
        betas=np.zeros(16),
        gender=np.array('neutral'),
        surface_model_type=np.array('smplx'),
        mocap_framerate=np.float64(motion.fps),
        mocap_frame_rate=np.float64(motion.fps),
        root_orient=pose[:, :3],
        pose_body=pose[:, 3:66],
    )


def model_shape(
    model_folder: str | Path, betas: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """
    Rest pelvis (3,) and leg length (m) of a body shape, by the SMPL-X model files.

    Raises ValueError in one line where the package ``smplx`` or the files are absent.
    """
    model = _model(Path(model_folder))
    count = model.num_betas
    shape = np.zeros(count) if betas is None else np.asarray(betas, dtype=np.float64).ravel()
    shape = np.concatenate([shape[:count], np.zeros(max(0, count - len(shape)))])
    import torch

    with torch.no_grad():
        joints = model(betas=torch.tensor(shape[None], dtype=torch.float32)).joints[0].numpy()
    leg = np.linalg.norm(joints[4] - joints[1]) + np.linalg.norm(joints[7] - joints[4])
    return joints[0].astype(np.float64), float(leg)


@lru_cache(maxsize=1)
def _model(folder: Path) -> Any:
    files = sorted(folder.rglob('SMPLX_NEUTRAL.npz'))
    if not files:
        raise ValueError(
            f'{folder}: no SMPLX_NEUTRAL.npz in or below it (https://smpl-x.is.tue.mpg.de)'
        )
    try:
        import smplx
    except ImportError as error:
        raise ValueError(f'SMPL-X shapes need "pip install smplx": {error}') from None
    with tempfile.TemporaryDirectory() as place:
        # The package unpickles what it reads, and a pickle can run code: it gets the plain arrays.
        plain = Path(place, 'SMPLX_NEUTRAL.npz')
        try:
            np.savez(plain, **_plain_arrays(files[0]))
            return smplx.create(str(plain), gender='neutral', use_pca=False, ext='npz')
        except (
            OSError, EOFError, ValueError, LookupError, AttributeError, zipfile.BadZipFile
        ) as error:
            raise ValueError(f'{files[0]}: not a readable SMPL-X model ({error})') from error


def _plain_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` that are no pickles."""
    arrays = {}
    with np.load(path, allow_pickle=False) as data:
        for name in data.files:
            try:
                arrays[name] = data[name]
            except ValueError:  # an array of objects
                continue
    return arrays


__all__ = ['NEUTRAL_LEG', 'NEUTRAL_PELVIS', 'model_shape', 'read_npz', 'write_npz']
