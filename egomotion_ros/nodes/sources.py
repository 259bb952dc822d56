# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Recorded cameras as one kind of thing: upright RGB pictures with their time and calibration.

A source is a video file (PyAV), a folder of pictures (Pillow) or an Aria VRS file
(:mod:`egomotion_ros.nodes.sources_vrs`).  Nothing here knows ROS; :mod:`camera_node` publishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
import math
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

#: Longest side of a picture that is read at all (px).
LARGEST_SIDE = 8192
PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
VIDEOS = ('.mp4', '.mov', '.mkv', '.webm', '.avi', '.m4v')
#: Length of the coefficients of each distortion model of sensor_msgs/CameraInfo.
DISTORTION = {'plumb_bob': (5,), 'rational_polynomial': (8,), 'equidistant': (4,)}


@dataclass(frozen=True)
class Calibration:
    """
    Intrinsics as ``sensor_msgs/CameraInfo`` states them.

    ``width``, ``height`` px; ``matrix`` (3, 3) K in px; ``model`` one of ``plumb_bob``,
    ``rational_polynomial``, ``equidistant``; ``coefficients`` its distortion (5, 8 or 4 numbers).
    """

    width: int
    height: int
    matrix: np.ndarray
    model: str = 'plumb_bob'
    coefficients: tuple[float, ...] = (0.0,) * 5

    @classmethod
    def pinhole(cls, width: int, height: int, hfov: float) -> Calibration:
        """Return the distortion-free camera of horizontal field of view ``hfov`` (rad)."""
        if not 0.0 < hfov < math.pi:
            raise ValueError(f'hfov must lie between 0 and pi radians, got {hfov}')
        focal = 0.5 * width / math.tan(0.5 * hfov)
        return cls(width, height, np.array([[focal, 0.0, 0.5 * (width - 1)],
                                            [0.0, focal, 0.5 * (height - 1)], [0.0, 0.0, 1.0]]))

    def resized(self, width: int, height: int) -> Calibration:
        """Return the calibration of the same picture at another size (px)."""
        x, y = width / self.width, height / self.height
        matrix = self.matrix.copy()
        matrix[0, :2] *= x
        matrix[1, :2] *= y
        matrix[0, 2] = (self.matrix[0, 2] + 0.5) * x - 0.5
        matrix[1, 2] = (self.matrix[1, 2] + 0.5) * y - 0.5
        return replace(self, width=width, height=height, matrix=matrix)


@dataclass(frozen=True)
class Frame:
    """
    One picture: ``time`` ns since the first one; ``read`` decodes it.

    ``read()`` gives the upright picture, (H, W, 3) uint8 RGB, or raises ValueError where it is
    damaged.  Who is late passes over a picture without paying for it.
    """

    time: int
    read: Callable[[], np.ndarray]


class Source(Protocol):
    """
    A recording that can be played any number of times.

    ``period`` is the usual time between pictures (ns), used between the last picture and the
    first one of the next round; ``calibration`` is None where the recording holds none.
    """

    name: str
    period: int
    calibration: Calibration | None

    def frames(self, warn: Callable[[str], None]) -> Iterator[Frame]:
        """Yield the pictures in order; what cannot be played is told to ``warn``."""
        ...


def open_source(path: str | Path, picture_rate: float = 10.0) -> Source:
    """
    Open a video, a folder of pictures or an Aria VRS file.

    ``picture_rate`` (Hz) is the rate at which a folder, which has no times, was taken.  Raises
    FileNotFoundError where nothing is there, ValueError where it cannot be read as a recording.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f'no camera recording at {path}')
    if path.is_dir():
        return PictureFolder(path, picture_rate)
    if path.suffix.lower() == '.vrs':
        from egomotion_ros.nodes.sources_vrs import AriaRecording
        return AriaRecording(path)
    if path.suffix.lower() in VIDEOS:
        return VideoFile(path)
    raise ValueError(f'{path}: not a recording this node reads; expected a folder of pictures '
                     f'({", ".join(PICTURES)}), a video ({", ".join(VIDEOS)}) or a .vrs file')


def load_calibration(path: str | Path) -> Calibration:
    """
    Read the YAML that ROS's ``camera_calibration`` writes.

    Raises ValueError where a field is missing, of the wrong length, not finite or unknown.
    """
    import yaml
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: not a camera calibration YAML: {error}') from error
    try:
        width, height = int(content['image_width']), int(content['image_height'])
        matrix = np.array(content['camera_matrix']['data'], dtype=np.float64)
        model = str(content['distortion_model'])
        coefficients = np.array(content['distortion_coefficients']['data'], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{path}: not a camera calibration YAML, field {error}') from error
    if model not in DISTORTION:
        raise ValueError(f'{path}: distortion_model {model!r}, expected one of {list(DISTORTION)}')
    if matrix.size != 9 or coefficients.size not in DISTORTION[model]:
        raise ValueError(f'{path}: expected 9 numbers in camera_matrix and {DISTORTION[model][0]} '
                         f'in distortion_coefficients, got {matrix.size}, {coefficients.size}')
    if not (np.isfinite(matrix).all() and np.isfinite(coefficients).all()):
        raise ValueError(f'{path}: camera_matrix or distortion_coefficients not finite')
    if min(width, height) < 1 or min(matrix[0], matrix[4]) <= 0:
        raise ValueError(f'{path}: width, height and focal lengths must be positive')
    return Calibration(width, height, matrix.reshape(3, 3), model, tuple(coefficients.tolist()))


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """Return (H, W, 3) uint8 scaled down (never up) to a longest side of ``longest`` px."""
    scale = longest / max(image.shape[:2])
    if scale >= 1.0:
        return np.ascontiguousarray(image)
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def check_size(width: int, height: int, what: object) -> None:
    """Raise ValueError unless 1 <= width, height <= LARGEST_SIDE."""
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        raise ValueError(f'{what}: picture of {width} x {height} px, expected sides of 1 to '
                         f'{LARGEST_SIDE}')


class PictureFolder:
    """Pictures of one folder in the order of their names, ``rate`` (Hz) apart."""

    calibration = None

    def __init__(self, path: Path, rate: float) -> None:
        if not (math.isfinite(rate) and rate > 0.0):
            raise ValueError(f'picture_rate must be positive, got {rate}')
        self.name = path.name
        self.period = round(1e9 / rate)
        self._files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
        if not self._files:
            raise ValueError(f'{path}: no pictures in this folder ({", ".join(PICTURES)})')

    def frames(self, warn: Callable[[str], None]) -> Iterator[Frame]:
        """Yield the pictures."""
        for index, file in enumerate(self._files):
            yield Frame(index * self.period, partial(read_picture, file))


def read_picture(path: Path) -> np.ndarray:
    """
    Return the picture upright as (H, W, 3) uint8 RGB.

    Raises ValueError where the file is truncated (a half decoded picture would show a scene that
    was never there), corrupt, or larger than LARGEST_SIDE.
    """
    from PIL import Image, ImageOps
    try:
        with Image.open(path) as picture:
            check_size(*picture.size, path)
            return np.asarray(ImageOps.exif_transpose(picture).convert('RGB'))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path}: not a readable picture ({error})') from error


class VideoFile:
    """A video file; times are those of its container, phone rotation is undone."""

    calibration = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name
        with self._open() as container:
            stream = container.streams.video[0]
            check_size(stream.codec_context.width, stream.codec_context.height, path)
            rate = float(stream.average_rate or 30)
        self.period = round(1e9 / rate)

    def _open(self):
        try:
            import av
        except ImportError as error:
            raise ValueError('reading a video needs the package "av" (pip install av)') from error
        try:
            container = av.open(str(self._path))
        except (av.error.FFmpegError, OSError) as error:
            raise ValueError(f'{self._path}: not a readable video ({error})') from error
        if not container.streams.video:
            container.close()
            raise ValueError(f'{self._path}: holds no video stream')
        return container

    def frames(self, warn: Callable[[str], None]) -> Iterator[Frame]:
        """Yield the frames; where the file breaks off, what came before has been yielded."""
        import av
        first, previous, count = None, -1, 0
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = 'AUTO'  # a large video is decoded on several cores
            decoder = container.decode(stream)
            while True:
                try:
                    frame = next(decoder)
                except StopIteration:
                    break
                except av.error.FFmpegError as error:
                    warn(f'{self.name} breaks off after {count} frames ({error})')
                    break
                time = count * self.period if frame.time is None else round(frame.time * 1e9)
                first = time if first is None else first
                if time - first <= previous:  # a damaged index; time only runs forward
                    continue
                previous, count = time - first, count + 1
                yield Frame(previous, partial(upright, frame))
        if not count:
            raise ValueError(f'{self._path}: no frame of this video can be decoded')


def upright(frame) -> np.ndarray:
    """RGB of a decoded video frame, turned as the container says."""
    return np.rot90(frame.to_ndarray(format='rgb24'), round(frame.rotation / 90) % 4)
