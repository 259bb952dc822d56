# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Nymeria sequences as recordings: XSens body, Aria video of the head, narrated actions.

Read off the project's own code (facebookresearch/nymeria_dataset: ``definitions.py`` for the
layout, ``body_motion_provider.py`` and ``data_provider.py`` for the clocks): ``timestamps_us`` of
``body/xdata.npz`` are time codes, which ``recording_head/data/data.vrs`` turns into the time of
the glasses; the trajectory of SLAM and ``narration/atomic_action.csv`` are on the glasses' clock
(the latter as other projects read it; tested on synthetic sequences only).
"""

from __future__ import annotations

from collections.abc import Callable
import csv
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from egomotion_ros.body.npz import read_arrays
from egomotion_ros.data.mapping import Mapping
from egomotion_ros.data.nymeria import MAX_BYTES
from egomotion_ros.data.recorded import (
    Mount,
    Recorded,
    mount_from_pitches,
    read_motion,
    read_sentences,
)
from egomotion_ros.nodes.sources import Source

BODY = Path('body/xdata.npz')
VIDEO = Path('recording_head/data/data.vrs')
WORDS = Path('narration/atomic_action.csv')
TRAJECTORY = Path('recording_head/mps/slam/closed_loop_trajectory.csv')
#: Of the poses of SLAM, a thousand a second, one of so many is read.
STRIDE = 500


class HeadVideo(Source, Protocol):
    """A video that knows the glasses' clock, as ``nodes.sources_vrs.AriaRecording`` does."""

    start: int
    axis: np.ndarray

    def device_time(self, time_code: int) -> int:
        """Time on the glasses' clock (ns) at a time code (ns)."""
        ...


def is_sequence(folder: Path) -> bool:
    """Whether a folder is laid out as a Nymeria sequence with body and video."""
    return (folder / BODY).is_file() and (folder / VIDEO).is_file()


def open_sequence(folder: Path, mappings: list[Mapping],
                  open_video: Callable[[Path], HeadVideo] | None = None) -> Recorded:
    """
    Open a sequence.

    How the glasses are tilted on the head comes from the trajectory of SLAM, whose world is level;
    without one they are taken to look where the head does.  Raises ValueError for a missing or
    broken part.
    """
    if open_video is None:
        from egomotion_ros.nodes.sources_vrs import AriaRecording
        open_video = AriaRecording
    if not (folder / WORDS).is_file():
        raise ValueError(f'{folder.name}: no {WORDS}: nothing says what is done')
    video = open_video(folder / VIDEO)
    stamps = read_arrays(folder / BODY, ('timestamps_us',), MAX_BYTES).get('timestamps_us')
    if stamps is None or not stamps.size or stamps.dtype.kind not in 'iuf' \
            or not np.isfinite(stamps.ravel()[0]):
        raise ValueError(f'{folder.name}: {BODY} holds no timestamps_us')
    begins = video.device_time(round(float(stamps.ravel()[0]) * 1000))
    starts = (begins - video.start) / 1e9
    motion = read_motion(folder / BODY, mappings)
    mount = Mount()
    if (folder / TRAJECTORY).is_file():
        times, pitches = camera_pitches(folder / TRAJECTORY, video.axis)
        mount = mount_from_pitches(motion, starts, times - video.start / 1e9, pitches)
    assert video.calibration is not None
    return Recorded(folder.name, motion, starts, video, video.calibration,
                    read_sentences(folder / WORDS, -video.start / 1e9), mount)


def camera_pitches(path: Path, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Times (N,) s on the glasses' clock and pitches (N,) rad, downwards, of a SLAM trajectory.

    ``axis`` (3,) is the optical axis in the frame of the device; the world's Z points up.
    ValueError for a file without the columns of ``closed_loop_trajectory.csv``.
    """
    try:
        with path.open(newline='', encoding='utf-8') as file:
            rows = [(row['tracking_timestamp_us'], row['qx_world_device'], row['qy_world_device'],
                     row['qz_world_device'], row['qw_world_device'])
                    for row in islice(csv.DictReader(file), 0, None, STRIDE)]
        table = np.array(rows, float).reshape(-1, 5)
        if not np.isfinite(table).all() or (np.linalg.norm(table[:, 1:], axis=1) < 0.5).any():
            raise ValueError('a pose is not finite')
    except (KeyError, TypeError, ValueError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f'{path.name}: not a trajectory of SLAM ({error})') from None
    forward = Rotation.from_quat(table[:, 1:]).apply(axis)
    return table[:, 0] / 1e6, -np.arcsin(np.clip(forward[:, 2], -1.0, 1.0))
