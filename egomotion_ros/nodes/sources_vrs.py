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
from functools import partial
import math
import os
from pathlib import Path
import sys

import cv2
import numpy as np
from scipy.interpolate import RectBivariateSpline

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
            from projectaria_tools.core import data_provider
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
        self._times = [self._provider.get_image_data_by_index(self._stream, i)[1]
                       .capture_timestamp_ns for i in range(count)]
        #: Capture of the first picture on the glasses' own clock (ns).
        self.start = int(self._times[0])
        #: Optical axis (3,) in the frame of the device, whose poses SLAM tells.
        self.axis = np.asarray(device.get_transform_device_sensor(CAMERA).to_matrix()[:3, 2])
        gaps = np.diff(self._times)
        self.period = int(np.median(gaps)) if count > 1 else 50_000_000
        self.calibration = Calibration.pinhole(SIDE, SIDE, FIELD_OF_VIEW)
        turns = quarter_turns(device.get_transform_cpf_sensor(CAMERA).to_matrix()[:3, :3])
        self._map = rectifying_map(fisheye.project_no_checks, self.calibration, turns)

    def device_time(self, time_code: int) -> int:
        """Time on the glasses' own clock (ns) at a time code (ns); ValueError without codes."""
        with _quiet():
            time = int(self._provider.convert_from_timecode_to_device_time_ns(int(time_code)))
        if time < 0:
            raise ValueError(f'{self.name}: holds no time codes')
        return time

    def frames(self, warn: Callable[[str], None]) -> Iterator[Frame]:
        """Yield the pictures at their capture times."""
        previous = -1
        for index, stamp in enumerate(self._times):
            time = stamp - self._times[0]
            if time <= previous:
                warn(f'{self.name}: picture {index} is out of order in time, left out')
                continue
            previous = time
            yield Frame(time, partial(self._read, index))

    def _read(self, index: int) -> np.ndarray:
        data = self._provider.get_image_data_by_index(self._stream, index)[0]
        if not data.is_valid():
            raise ValueError(f'{self.name}: picture {index} cannot be decoded')
        image = data.to_numpy_array()
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        return cv2.remap(np.ascontiguousarray(image), *self._map, cv2.INTER_LINEAR)


def rectifying_map(project: Callable[[np.ndarray], np.ndarray], pinhole: Calibration,
                   turns: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Maps x and y of ``cv2.remap`` from a lens to an upright, square ``pinhole`` picture.

    ``project`` takes a ray (3,) to a pixel (2,) of the lens, one at a time; it is asked on a
    coarse grid and continued by a cubic spline (0.01 px).  ``turns`` counter-clockwise quarter
    turns set the picture upright.
    """
    side = pinhole.width
    coarse = np.linspace(0.0, side - 1.0, 65)
    (focal, _, cx), (_, _, cy), _ = pinhole.matrix
    pixels = np.array([[project(np.array([(u - cx) / focal, (v - cy) / focal, 1.0]))
                        for u in coarse] for v in coarse])
    fine = np.arange(side)
    x, y = (RectBivariateSpline(coarse, coarse, pixels[..., i])(fine, fine) for i in (0, 1))
    return tuple(np.ascontiguousarray(np.rot90(axis, turns), dtype=np.float32) for axis in (x, y))


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
