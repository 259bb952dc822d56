# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Images as drivers send them, and the way to the canonical camera."""

from __future__ import annotations

import struct
import sys
from types import SimpleNamespace
import zlib

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

from egomotion_ros.nodes import images
from egomotion_ros.nodes.images import (
    ENCODINGS,
    compressed_size,
    converter_name,
    decode,
    decode_compressed,
)
from egomotion_ros.nodes.rectify import Lens, Rectifier, canonical_rays
from egomotion_ros.types import CameraIntrinsics

RED, GREEN, GREY = (200, 10, 20), (10, 180, 30), (90, 90, 90)
CANONICAL = CameraIntrinsics(96, 96, 1.2)


def message(encoding: str, rows: np.ndarray, width: int, height: int, padding: int = 0, big=0):
    used = rows.reshape(rows.shape[0], -1)
    padded = np.pad(used, ((0, 0), (0, padding)), constant_values=77)
    image = Image(width=width, height=height, encoding=encoding, is_bigendian=big)
    image.step = padded.shape[1]
    image.data = padded.tobytes()
    return image


def halves(channels: tuple[int, ...]) -> np.ndarray:
    """Left half red, right half green, with the channels in the order given."""
    picture = np.zeros((8, 12, 4), np.uint8)
    picture[..., 3] = 255
    picture[:, :6, :3], picture[:, 6:, :3] = RED, GREEN
    return picture[..., list(channels)]


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(
    ('encoding', 'channels'),
    [('rgb8', (0, 1, 2)), ('bgr8', (2, 1, 0)), ('rgba8', (0, 1, 2, 3)), ('bgra8', (2, 1, 0, 3))],
)
def test_colour_encodings_with_and_without_padded_rows(encoding, channels, padding):
    pixels = decode(message(encoding, halves(channels), 12, 8, padding))
    assert np.array_equal(pixels, halves((0, 1, 2)))


@pytest.mark.parametrize('big', [0, 1])
@pytest.mark.parametrize('encoding', ['rgb16', 'bgr16'])
def test_sixteen_bits_in_either_byte_order(encoding, big):
    order = (0, 1, 2) if encoding == 'rgb16' else (2, 1, 0)
    values = np.ascontiguousarray(halves(order)).astype(np.uint16) * 257
    rows = values.astype('>u2' if big else '<u2')
    pixels = decode(message(encoding, rows.view(np.uint8), 12, 8, big=big))
    assert np.abs(pixels.astype(int) - halves((0, 1, 2))).max() <= 1


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_becomes_three_equal_channels(encoding):
    rows = np.arange(96, dtype=np.uint8).reshape(8, 12)
    pixels = decode(message(encoding, rows, 12, 8))
    assert np.array_equal(pixels, np.repeat(rows[..., None], 3, axis=-1))


@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'yuv422', 'yuv422_yuy2'])
def test_video_encodings_keep_the_colours(encoding):
    # Video range, as cameras send it (BT.601).
    r, g, b = RED
    y = round(16 + 0.257 * r + 0.504 * g + 0.098 * b)
    u = round(128 - 0.148 * r - 0.291 * g + 0.439 * b)
    v = round(128 + 0.439 * r - 0.368 * g - 0.071 * b)
    if encoding.startswith('nv'):
        pair = (u, v) if encoding == 'nv12' else (v, u)
        rows = np.concatenate([np.full((8, 12), y), np.tile(pair, (4, 6))]).astype(np.uint8)
    else:
        four = (u, y, v, y) if encoding == 'yuv422' else (y, u, y, v)
        rows = np.tile(four, (8, 6)).astype(np.uint8)
    pixels = decode(message(encoding, rows, 12, 8))
    assert np.abs(pixels.astype(int) - RED).max() <= 8


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_patterns_give_the_right_colour(pattern):
    cell = np.array([{'r': RED[0], 'g': RED[1], 'b': RED[2]}[c] for c in pattern], np.uint8)
    rows = np.tile(cell.reshape(2, 2), (8, 8))
    pixels = decode(message(f'bayer_{pattern}8', rows, 16, 16))
    assert np.abs(pixels[4:-4, 4:-4].astype(int) - RED).max() <= 2


def test_every_listed_encoding_is_converted_and_unlisted_ones_are_named():
    for encoding, size in ENCODINGS.items():
        rows = np.zeros((12 if encoding.startswith('nv') else 8, 12 * size), np.uint8)
        assert decode(message(encoding, rows, 12, 8)).shape == (8, 12, 3)
    with pytest.raises(ValueError, match='8UC3'):
        decode(message('8UC3', halves((0, 1, 2)), 12, 8))
    with pytest.raises(ValueError, match='even'):
        decode(message('nv12', np.zeros((8, 11), np.uint8), 11, 8))


def test_empty_and_8k_images_are_refused():
    for width, height in ((0, 0), (0, 4), (4, 0), (7680, 4320)):
        rows = np.zeros((height, width), np.uint8)
        image = Image(width=width, height=height, encoding='mono8', step=width)
        image.data = rows.tobytes()
        with pytest.raises(ValueError, match=f'{width}x{height}'):
            decode(image)


def test_a_converter_that_works_with_this_numpy_was_chosen():
    assert converter_name() in ('cv_bridge', 'rosbags-image')


@pytest.mark.parametrize(
    'encoding', ['rgb8', 'bgr8', 'bgra8', 'mono8', 'rgb16', 'bayer_rggb8', 'yuv422']
)
def test_cv_bridge_converts_as_its_replacement_does(encoding, monkeypatch):
    """Runs where ROS's cv_bridge is (apt has it, PyPI has none)."""
    pytest.importorskip('cv_bridge')
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, 16 * 16 * ENCODINGS[encoding], dtype=np.uint8)
    expected = images._by_rosbags(data, encoding, 16, 16)
    monkeypatch.setattr(images, '_by_rosbags', None)  # no falling back
    pixels = images._by_cv_bridge(data, encoding, 16, 16)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_cv_bridge_reads_compressed_images_as_we_do():
    cv_bridge = pytest.importorskip('cv_bridge')
    picture = CompressedImage(format='jpeg', data=encoded('.jpg'))
    theirs = cv_bridge.CvBridge().compressed_imgmsg_to_cv2(picture, 'rgb8')
    assert np.array_equal(decode_compressed(picture), theirs)


def test_a_cv_bridge_that_fails_is_replaced_and_one_for_another_numpy_is_not_chosen(
    monkeypatch,
):
    class Broken:
        def imgmsg_to_cv2(self, message, encoding):
            raise AttributeError('newbyteorder')

    monkeypatch.setitem(sys.modules, 'cv_bridge', SimpleNamespace(CvBridge=Broken))
    pixels = images._by_cv_bridge(np.arange(6, dtype=np.uint8), 'bgr8', 2, 1)
    assert pixels.tolist() == [[[2, 1, 0], [5, 4, 3]]]
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)  # as where it is not installed
    images._converter.cache_clear()
    try:
        assert converter_name() == 'rosbags-image'
    finally:
        images._converter.cache_clear()


def encoded(extension: str) -> bytes:
    picture = np.full((20, 30, 3), RED[::-1], np.uint8)
    return cv2.imencode(extension, picture)[1].tobytes()


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
def test_compressed_images(extension):
    data = encoded(extension)
    assert compressed_size(data) == (30, 20)
    pixels = decode_compressed(CompressedImage(format=extension[1:], data=data))
    assert np.abs(pixels.astype(int) - RED).max() <= 3
    # Some drivers pad what they send.
    assert decode_compressed(CompressedImage(data=data + bytes(8))).shape == (20, 30, 3)


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
def test_compressed_images_cut_anywhere_are_refused(extension):
    data = encoded(extension)
    for end in range(0, len(data) - 2, 7):
        with pytest.raises(ValueError, match='image'):
            decode_compressed(CompressedImage(data=data[:end]))


def test_small_files_that_claim_huge_images_are_refused_unread():
    header = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b'IHDR' + header
    bomb = (
        b'\x89PNG\r\n\x1a\n'
        + struct.pack('>I', 13)
        + chunk
        + struct.pack('>I', zlib.crc32(chunk))
        + b'\0\0\0\0IEND\xaeB`\x82'
    )
    with pytest.raises(ValueError, match='60000x60000'):
        decode_compressed(CompressedImage(data=bomb))


def test_compressed_depth_is_no_colour_image():
    with pytest.raises(ValueError, match='depth'):
        decode_compressed(
            CompressedImage(format='16UC1; compressedDepth png', data=encoded('.png'))
        )


# The canonical camera ---------------------------------------------------------------------------


def dots(lens: Lens, rays: np.ndarray) -> np.ndarray:
    """Picture of bright dots in the directions ``rays``."""
    picture = np.zeros((lens.height, lens.width, 3), np.uint8)
    for x, y in lens.project(rays):
        cv2.circle(picture, (round(x), round(y)), 9, (255, 255, 255), -1)
    return picture


def centres(picture: np.ndarray) -> np.ndarray:
    """Centres (N, 2) of the bright dots, in reading order."""
    _, _, stats, found = cv2.connectedComponentsWithStats((picture[..., 0] > 64).astype(np.uint8))
    found = found[1:][stats[1:, cv2.CC_STAT_AREA] >= 2]
    return found[np.lexsort((found[:, 0].round(), (found[:, 1] / 8).round()))]


def info(model: str, d: list[float], **extra) -> CameraInfo:
    message = CameraInfo(width=640, height=480, distortion_model=model, d=d, **extra)
    message.k = [330.0, 0.0, 325.0, 0.0, 332.0, 236.0, 0.0, 0.0, 1.0]
    return message


LENSES = {
    'plumb_bob': Lens.from_camera_info(info('plumb_bob', [-0.2, 0.05, 0.001, -0.002, 0.0])),
    'rational': Lens.from_camera_info(
        info('rational_polynomial', [0.3, -0.1, 0.0005, 0.001, 0.01, 0.6, -0.05, 0.01])
    ),
    'equidistant': Lens.from_camera_info(info('equidistant', [0.03, -0.01, 0.004, -0.001])),
    'pinhole': Lens.from_field_of_view(640, 480, 1.5),
}


@pytest.mark.parametrize('name', LENSES)
def test_directions_land_where_the_canonical_camera_sees_them(name):
    grid = np.linspace(-0.45, 0.45, 3)
    rays = np.array([[x, y, 1.0] for y in grid for x in grid])
    picture = Rectifier(LENSES[name], CANONICAL)(dots(LENSES[name], rays))
    expected = 0.5 * CANONICAL.width - 0.5 + CANONICAL.focal * rays[:, :2]
    found = centres(picture)
    assert found.shape == (9, 2)
    assert np.abs(found - expected).max() < 1.0


def test_the_canonical_camera_itself_changes_no_pixel():
    picture = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    lens = Lens.from_field_of_view(96, 96, CANONICAL.hfov)
    assert np.array_equal(Rectifier(lens, CANONICAL)(picture), picture)


@pytest.mark.parametrize('degrees', [0, 90, 180, 270])
def test_rotated_cameras_are_turned_upright(degrees):
    upright = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    as_it_came = np.rot90(upright, degrees // 90)  # counter-clockwise
    lens = Lens.from_field_of_view(96, 96, CANONICAL.hfov)
    assert np.array_equal(Rectifier(lens, CANONICAL, degrees)(as_it_came.copy()), upright)


def test_large_pictures_are_shrunk_by_area_not_by_skipping():
    stripes = np.zeros((960, 960, 3), np.uint8)
    stripes[:, ::2] = 200
    picture = Rectifier(Lens.from_field_of_view(960, 960, CANONICAL.hfov), CANONICAL)(stripes)
    assert np.abs(picture[4:-4, 4:-4].astype(int) - 100).max() <= 2


def test_what_the_camera_does_not_see_is_black():
    narrow = Lens.from_field_of_view(640, 480, 0.6)
    rectifier = Rectifier(narrow, CANONICAL)
    assert 0.1 < rectifier.coverage < 0.3
    picture = rectifier(np.full((480, 640, 3), 255, np.uint8))
    assert picture[48, 48].min() == 255 and picture[0].max() == 0


def test_region_and_binning_describe_the_picture_that_comes():
    region = RegionOfInterest(x_offset=100, y_offset=40, width=400, height=400)
    lens = Lens.from_camera_info(info('plumb_bob', [], roi=region, binning_x=2, binning_y=2))
    assert (lens.width, lens.height) == (200, 200)
    assert np.allclose(lens.matrix[0], [165.0, 0.0, 112.5])


def test_a_rectified_picture_uses_the_projection_matrix():
    message = info('plumb_bob', [-0.3, 0.1, 0.0, 0.0, 0.0])
    message.p = [300.0, 0.0, 320.0, 0.0, 0.0, 300.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    lens = Lens.from_camera_info(message, rectified=True)
    assert lens.matrix[0, 0] == 300.0 and lens.model == ''


@pytest.mark.parametrize(
    'message',
    [
        CameraInfo(width=640, height=480, distortion_model='plumb_bob'),
        info('kannala', [0.1] * 4),
        info('plumb_bob', [0.1] * 3),
        info('equidistant', [0.1] * 5),
        info('plumb_bob', [float('inf')] * 5),
    ],
)
def test_calibrations_that_are_none_are_refused(message):
    with pytest.raises(ValueError, match='CameraInfo'):
        Lens.from_camera_info(message)


def test_a_picture_of_another_size_and_a_bad_turn_are_refused():
    rectifier = Rectifier(LENSES['pinhole'], CANONICAL)
    with pytest.raises(ValueError, match='640x480'):
        rectifier(np.zeros((240, 320, 3), np.uint8))
    with pytest.raises(ValueError, match='45'):
        canonical_rays(CANONICAL, 45)
    with pytest.raises(ValueError, match='hfov'):
        Lens.from_field_of_view(640, 480, float('nan'))
