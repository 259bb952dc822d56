# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Images from ROS messages: raw and compressed to RGB arrays.

cv_bridge converts where ROS provides one that works with the NumPy at hand; otherwise
rosbags-image does.  Sizes are checked here before either sees a byte, rows with padding are
unpadded, and a JPEG or PNG that ends early is refused instead of being shown half grey.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
import struct
import sys
from types import SimpleNamespace

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

#: Most pixels of an image: 4096 x 4096.
MOST_PIXELS = 4096 * 4096
#: How the formats of compressed pictures begin that hold distances.
DEPTHS = ('16UC1', '32FC1')
#: Bytes per pixel of the encodings that are understood (with colour or grey value).
ENCODINGS: dict[str, int] = {
    'rgb8': 3,
    'bgr8': 3,
    'rgba8': 4,
    'bgra8': 4,
    'mono8': 1,
    '8UC1': 1,
    'rgb16': 6,
    'bgr16': 6,
    'rgba16': 8,
    'bgra16': 8,
    'mono16': 2,
    'bayer_rggb8': 1,
    'bayer_bggr8': 1,
    'bayer_gbrg8': 1,
    'bayer_grbg8': 1,
    'bayer_rggb16': 2,
    'bayer_bggr16': 2,
    'bayer_gbrg16': 2,
    'bayer_grbg16': 2,
    'yuv422': 2,
    'uyvy': 2,
    'yuv422_yuy2': 2,
    'yuyv': 2,
    'nv12': 1,
    'nv21': 1,
}
#: Byte order of this machine, as sensor_msgs/Image has it.
_BIG_ENDIAN = int(sys.byteorder == 'big')
#: Other names for the same thing, as both libraries know them.
_SAME = {'8UC1': 'mono8'}


def decode(message: Image) -> np.ndarray:
    """
    Pixels (H, W, 3) uint8 RGB of a ``sensor_msgs/Image``.

    Raises ValueError for an encoding without colour or grey value (depth, ``8UC3``), a size of
    zero or above :data:`MOST_PIXELS`, or fewer bytes than the size needs.
    """
    if message.encoding not in ENCODINGS:
        raise ValueError(
            f'image encoding {message.encoding!r} is not one of {", ".join(sorted(ENCODINGS))}'
        )
    _check_size(message.width, message.height)
    # Chroma of nv12 and nv21 lies below the picture, half as high.
    planar = message.encoding in ('nv12', 'nv21')
    paired = planar or message.encoding in ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv')
    if (paired and message.width % 2) or (planar and message.height % 2):
        raise ValueError(
            f'image: {message.encoding} needs an even size, got {message.width}x{message.height}'
        )
    rows = message.height * 3 // 2 if planar else message.height
    used = message.width * ENCODINGS[message.encoding]
    step = message.step or used
    if step < used or len(message.data) < step * (rows - 1) + used:
        raise ValueError(
            f'image: {message.width}x{message.height} {message.encoding} needs {rows} rows of '
            f'{used} bytes, got step {message.step} and {len(message.data)} bytes'
        )
    data = np.frombuffer(message.data, np.uint8)
    if step != used:
        padded = np.lib.stride_tricks.as_strided(data, (rows, used), (step, 1), writeable=False)
        data = np.ascontiguousarray(padded).ravel()
    data = data[: rows * used]
    if message.encoding.endswith('16'):
        data = data.view('>u2' if message.is_bigendian else '<u2').astype('=u2').view(np.uint8)
    encoding = _SAME.get(message.encoding, message.encoding)
    pixels = _converter()(data, encoding, message.width, rows)
    if pixels.shape != (message.height, message.width, 3):
        raise ValueError(f'image: {message.encoding} gave pixels of shape {pixels.shape}')
    return np.ascontiguousarray(pixels)


def decode_compressed(message: CompressedImage) -> np.ndarray:
    """
    Pixels (H, W, 3) uint8 RGB of a JPEG or PNG in a ``sensor_msgs/CompressedImage``.

    Raises ValueError for other formats (depth among them), truncated data and bad sizes.
    """
    if 'compressedDepth' in message.format or message.format.startswith(DEPTHS):
        raise ValueError('image: a compressed depth image has no colours')
    data = bytes(message.data)
    width, height = compressed_size(data)
    _check_size(width, height)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f'image: cannot be decoded ({error})') from error
    if pixels is None:
        raise ValueError('image: cannot be decoded')
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def compressed_size(data: bytes) -> tuple[int, int]:
    """Width and height a JPEG or PNG claims; raises ValueError where it ends early."""
    if data.startswith(b'\x89PNG\r\n\x1a\n') and len(data) >= 33:
        if b'IEND' not in data.rstrip(b'\0')[-64:]:
            raise ValueError(f'image: PNG of {len(data)} bytes is truncated')
        return struct.unpack('>II', data[16:24])
    if not data.startswith(b'\xff\xd8'):
        raise ValueError(f'image: neither JPEG nor PNG, starts with {data[:4].hex() or "nothing"}')
    # Drivers hand on buffers that are longer than what the camera wrote.
    if not data.rstrip(b'\0').endswith(b'\xff\xd9'):
        raise ValueError(f'image: JPEG of {len(data)} bytes is truncated')
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        # Start-of-frame markers, without DHT, JPG and DAC, which lie between them.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack('>HH', data[place + 5 : place + 9])
            return width, height
        place += 2 + struct.unpack('>H', data[place + 2 : place + 4])[0]
    raise ValueError('image: JPEG without a frame header')


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f'image: size {width}x{height} is empty')
    if width * height > MOST_PIXELS:
        raise ValueError(
            f'image: {width}x{height} is more than {MOST_PIXELS} pixels; let the driver scale it'
        )


@lru_cache(maxsize=1)
def _converter() -> Callable[[np.ndarray, str, int, int], np.ndarray]:
    """cv_bridge if it is there and gives the right colours, otherwise rosbags-image."""
    probe = np.array([[1, 2, 3, 4, 5, 6]], np.uint8)
    try:
        pixels = _by_cv_bridge(probe.ravel(), 'bgr8', 2, 1)
        if np.array_equal(pixels, [[[3, 2, 1], [6, 5, 4]]]):
            return _by_cv_bridge
    except Exception:  # whatever a cv_bridge built for another NumPy raises
        pass
    return _by_rosbags


def converter_name() -> str:
    """Name of the library that converts raw images here."""
    return 'cv_bridge' if _converter() is _by_cv_bridge else 'rosbags-image'


def _by_cv_bridge(data: np.ndarray, encoding: str, width: int, rows: int) -> np.ndarray:
    """Convert bytes, values of more than one in this machine's order; (rows, width, 3) RGB."""
    from cv_bridge import CvBridge

    # Said to be of the other order, NumPy 2 would make it raise.
    message = Image(height=rows, width=width, encoding=encoding, is_bigendian=_BIG_ENDIAN)
    message.step = len(data) // rows
    message.data = data.tobytes()
    try:
        if encoding not in ('nv12', 'nv21'):  # these it takes for grey
            return CvBridge().imgmsg_to_cv2(message, 'rgb8')
    except Exception:  # not every version knows every encoding, and each says so in another way
        pass
    return _by_rosbags(data, encoding, width, rows)


def _by_rosbags(data: np.ndarray, encoding: str, width: int, rows: int) -> np.ndarray:
    """Do the same with the library that replaces cv_bridge."""
    try:
        from rosbags.image import ImageError, image_to_cvimage
    except ImportError as error:
        raise ValueError(f'image: {encoding} needs the Python package rosbags-image') from error

    message = SimpleNamespace(
        height=rows, width=width, encoding=encoding, is_bigendian=bool(_BIG_ENDIAN), data=data
    )
    try:
        return image_to_cvimage(message, 'rgb8')
    except (ImageError, cv2.error) as error:
        raise ValueError(f'image: {encoding} cannot be converted ({error})') from error
