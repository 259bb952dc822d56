# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded cameras as files: what is read, in which order and time, and what is refused."""

from __future__ import annotations

from fractions import Fraction
import math
from pathlib import Path

import av
import numpy as np
from PIL import Image
import pytest
import yaml

from egomotion_ros.nodes.sources import (
    Calibration,
    load_calibration,
    open_source,
    read_picture,
    shrink,
)
from egomotion_ros.nodes.sources_vrs import quarter_turns, rectifying_map


def grey(level: int, width: int = 32, height: int = 24) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def pictures(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.fromarray(grey(40 * (i + 1))).save(folder / f'{i:03}.jpg', quality=95)
    return folder


def video(path: Path, times: tuple[int, ...] = (0, 1, 2, 5), width: int = 64) -> Path:
    """Frames at the given multiples of 0.1 s, brighter each."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=10)
        stream.width, stream.height, stream.pix_fmt = width, 48, 'yuv420p'
        stream.codec_context.time_base = Fraction(1, 10)
        for i, time in enumerate(times):
            image = grey(min(40 * (i + 1), 250), width, 48)
            frame = av.VideoFrame.from_ndarray(image, format='rgb24')
            frame.pts, frame.time_base = time, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shorten(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[:int(share * len(data))])
    return path


def no_warning(text: str) -> None:
    raise AssertionError(text)


def test_pictures_come_in_the_order_of_their_names_at_the_given_rate(tmp_path):
    source = open_source(pictures(tmp_path / 'p'), picture_rate=20.0)
    frames = list(source.frames(no_warning))
    assert [frame.time for frame in frames] == [0, 50_000_000, 100_000_000]
    levels = [int(frame.read().mean()) for frame in frames]
    assert np.allclose(levels, [40, 80, 120], atol=2)


def test_a_truncated_jpeg_is_refused_and_not_shown_half_grey(tmp_path):
    path = tmp_path / 'a.jpg'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)).save(path)
    shorten(path, 0.6)
    with pytest.raises(ValueError, match=r'a\.jpg: not a readable picture'):
        read_picture(path)


def test_a_picture_is_turned_as_its_exif_says(tmp_path):
    image = Image.fromarray(grey(90, 32, 24))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / 'a.jpg', exif=exif)
    assert read_picture(tmp_path / 'a.jpg').shape == (32, 24, 3)


def test_a_video_keeps_the_times_of_its_container(tmp_path):
    source = open_source(video(tmp_path / 'v.mp4'))
    frames = [(frame.time, frame.read()) for frame in source.frames(no_warning)]
    assert np.allclose([time * 1e-9 for time, _ in frames], [0.0, 0.1, 0.2, 0.5], atol=1e-6)
    assert frames[0][1].shape == (48, 64, 3)
    assert np.allclose([image.mean() for _, image in frames], [40, 80, 120, 160], atol=6)
    assert source.period == pytest.approx(1e8, rel=0.9)


def test_a_video_can_be_played_twice(tmp_path):
    source = open_source(video(tmp_path / 'v.mp4'))
    assert len(list(source.frames(no_warning))) == len(list(source.frames(no_warning))) == 4


def test_a_video_that_breaks_off_gives_what_it_has_and_says_so(tmp_path):
    path = video(tmp_path / 'v.mkv', tuple(range(40)))
    source = open_source(shorten(path, 0.7))
    said: list[str] = []
    frames = list(source.frames(said.append))
    assert 0 < len(frames) < 40


@pytest.mark.parametrize(('name', 'content', 'reason'), [
    ('v.mp4', b'no video at all' * 100, 'not a readable video'),
    ('v.mp4', b'', 'not a readable video'),
    ('r.vrs', b'\x00' * 4000, 'not a readable VRS file'),
    ('notes.txt', b'hello', 'not a recording this node reads'),
])
def test_a_file_that_is_no_recording_is_refused(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        open_source(tmp_path / name)


def test_a_video_without_its_index_is_refused(tmp_path):
    path = shorten(video(tmp_path / 'v.mp4', tuple(range(30))), 0.5)
    with pytest.raises(ValueError, match='not a readable video'):
        open_source(path)


def test_missing_and_empty_places_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='no camera recording'):
        open_source(tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='no pictures in this folder'):
        open_source(tmp_path / 'empty')
    with pytest.raises(ValueError, match='picture_rate'):
        open_source(pictures(tmp_path / 'p'), picture_rate=float('nan'))


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded(tmp_path):
    Image.new('1', (9000, 10)).save(tmp_path / 'wide.png')
    with pytest.raises(ValueError, match='9000 x 10 px, expected sides of 1 to 8192'):
        read_picture(tmp_path / 'wide.png')


def camera_yaml(path: Path, **changes) -> Path:
    content = {
        'image_width': 640, 'image_height': 480, 'camera_name': 'head',
        'camera_matrix': {'rows': 3, 'cols': 3, 'data': [500., 0, 320, 0, 510, 240, 0, 0, 1]},
        'distortion_model': 'plumb_bob',
        'distortion_coefficients': {'rows': 1, 'cols': 5, 'data': [0.1, 0, 0, 0, 0]}, **changes}
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_calibration_is_read_as_camera_calibration_writes_it(tmp_path):
    found = load_calibration(camera_yaml(tmp_path / 'c.yaml'))
    assert (found.width, found.height, found.model) == (640, 480, 'plumb_bob')
    assert found.matrix[1].tolist() == [0, 510, 240]
    assert found.coefficients[0] == pytest.approx(0.1)


@pytest.mark.parametrize(('changes', 'reason'), [
    ({'distortion_model': 'fancy'}, 'distortion_model'),
    ({'camera_matrix': {'data': [1.0] * 8}}, '9 numbers in camera_matrix'),
    ({'camera_matrix': {'data': [float('nan')] * 9}}, 'not finite'),
    ({'image_width': 0}, 'must be positive'),
    ({'distortion_coefficients': None}, 'field'),
])
def test_a_bad_calibration_is_refused(tmp_path, changes, reason):
    with pytest.raises(ValueError, match=reason):
        load_calibration(camera_yaml(tmp_path / 'c.yaml', **changes))


def test_intrinsics_follow_the_size_of_the_picture():
    """A point keeps its place in the scene when the picture shrinks."""
    full = Calibration.pinhole(640, 480, 1.2)
    half = full.resized(320, 240)
    ray = np.array([0.3, -0.2, 1.0])
    u, v, _ = full.matrix @ ray
    # Pixel centres lie at whole numbers: the middle of a 2 x 2 block is half a pixel further.
    assert np.allclose((half.matrix @ ray)[:2], [(u + 0.5) / 2 - 0.5, (v + 0.5) / 2 - 0.5])
    assert shrink(grey(9, 640, 480), 320).shape == (240, 320, 3)
    assert shrink(grey(9, 64, 48), 320).shape == (48, 64, 3)
    with pytest.raises(ValueError, match='hfov'):
        Calibration.pinhole(640, 480, 4.0)


@pytest.mark.parametrize('turns', [0, 1, 2, 3])
def test_a_sideways_camera_is_set_upright(turns):
    """The up direction of the wearer ends at the top of the picture."""
    angle = turns * 0.5 * math.pi
    # Columns of the upright camera in the wearer's frame (X left, Y up, Z forward).
    upright = np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
    roll = np.array([[math.cos(angle), -math.sin(angle), 0],
                     [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    rotation = upright @ roll
    found = quarter_turns(rotation)
    # A picture with a bright edge where up is, as this camera sees it.
    up = rotation.T @ [0.0, 1.0, 0.0]
    picture = np.zeros((9, 9))
    picture[round(4 + 4 * up[1]), round(4 + 4 * up[0])] = 1.0
    assert np.rot90(picture, found)[0, 4] == 1.0


def test_the_rectifying_map_follows_the_lens():
    """An equidistant fisheye: radius in the picture grows with the angle to the axis."""
    def project(ray: np.ndarray) -> np.ndarray:
        angle = math.atan2(math.hypot(ray[0], ray[1]), ray[2])
        around = math.atan2(ray[1], ray[0])
        return 700.0 + 600.0 * angle * np.array([math.cos(around), math.sin(around)])

    pinhole = Calibration.pinhole(200, 200, math.radians(90))
    x, y = rectifying_map(project, pinhole, 0)
    focal = pinhole.matrix[0, 0]
    for u, v in ((0, 0), (17, 160), (199, 100)):
        wanted = project(np.array([(u - 99.5) / focal, (v - 99.5) / focal, 1.0]))
        assert np.allclose([x[v, u], y[v, u]], wanted, atol=0.05)
    turned, _ = rectifying_map(project, pinhole, 3)
    assert np.array_equal(turned, np.rot90(x, 3))
