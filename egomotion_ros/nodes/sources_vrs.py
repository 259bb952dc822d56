# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Project Aria recordings (VRS): the RGB camera, rectified and upright.

The glasses' fisheye is resampled to a pinhole camera with the recording's own calibration
(projectaria-tools), and turned by the multiple of 90 degrees that puts the wearer's up direction
on top: Gen1 cameras are mounted sideways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import math
import os
from pathlib import Path
import sys

import numpy as np

from egomotion_ros.nodes.sources import Calibration, Frame, check_size

CAMERA = 'camera-rgb'
#: Side (px) and field of view (rad) of the rectified picture; wider than the canonical camera of
#: the bundles, inside the 110 degrees that the lens sees.
SIDE = 640
FIELD_OF_VIEW = math.radians(90.0)


class AriaRecording:
    """The RGB stream of one VRS file; raises ValueError where file or calibration is unusable."""

    def __init__(self, path: Path) -> None:
        try:
            from projectaria_tools.core import calibration, data_provider
        except ImportError as error:
            raise ValueError('reading a VRS file needs projectaria-tools '
                             '(pip install projectaria-tools)') from error
        with _quiet():  # the reader logs a page of stream names
            try:
                self._provider = data_provider.create_vrs_data_provider(str(path))
            except RuntimeError as error:
                raise ValueError(f'{path}: not a readable VRS file ({error})') from error
        if self._provider is None:
            raise ValueError(f'{path}: not a readable VRS file')
        self.name = path.name
        self._stream = self._provider.get_stream_id_from_label(CAMERA)
        count = 0 if self._stream is None else self._provider.get_num_data(self._stream)
        device = self._provider.get_device_calibration()
        fisheye = None if device is None else device.get_camera_calib(CAMERA)
        if count < 1 or fisheye is None:
            raise ValueError(f'{path}: holds no pictures of {CAMERA} or no calibration of it')
        check_size(*(int(side) for side in fisheye.get_image_size()), path)
        self._fisheye = fisheye
        self._times = [self._provider.get_image_data_by_index(self._stream, i)[1]
                       .capture_timestamp_ns for i in range(count)]
        gaps = np.diff(self._times)
        self.period = int(np.median(gaps)) if count > 1 else 50_000_000
        self.calibration = Calibration.pinhole(SIDE, SIDE, FIELD_OF_VIEW)
        self._pinhole = calibration.get_linear_camera_calibration(
            SIDE, SIDE, self.calibration.matrix[0, 0], 'rectified',
            fisheye.get_transform_device_camera())
        self._rectify = calibration.distort_by_calibration
        self._turns = quarter_turns(device.get_transform_cpf_sensor(CAMERA).to_matrix()[:3, :3])

    def frames(self, warn: Callable[[str], None]) -> Iterator[Frame]:
        """Yield the pictures at their capture times."""
        previous = -1
        for index, stamp in enumerate(self._times):
            data = self._provider.get_image_data_by_index(self._stream, index)[0]
            time = stamp - self._times[0]
            if not data.is_valid() or time <= previous:
                warn(f'{self.name}: picture {index} is damaged or out of order, left out')
                continue
            previous = time
            image = data.to_numpy_array()
            if image.ndim == 2:
                image = np.repeat(image[:, :, None], 3, axis=2)
            flat = self._rectify(np.ascontiguousarray(image), self._pinhole, self._fisheye)
            yield Frame(np.rot90(np.asarray(flat), self._turns), time)
        if previous < 0:
            raise ValueError(f'{self.name}: no picture of {CAMERA} can be decoded')


def quarter_turns(rotation: np.ndarray) -> int:
    """
    Return the counter-clockwise quarter turns that set a picture upright.

    ``rotation`` (3, 3) takes camera directions (x right, y down, z forward in the picture) to
    Aria's central pupil frame, whose Y points up.
    """
    up = rotation[1]  # the wearer's up, in camera coordinates
    return round(math.atan2(up[0], -up[1]) / (0.5 * math.pi)) % 4


@contextmanager
def _quiet() -> Iterator[None]:
    """Send the process's stderr to the null device while native code chats."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, 'wb') as sink:
        os.dup2(sink.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
