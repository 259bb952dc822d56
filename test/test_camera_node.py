# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""camera_node over real DDS: stamps, calibration, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import itertools
import os
from pathlib import Path
import subprocess
import sys
import time

import numpy as np
from PIL import Image
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMsg

from egomotion_ros.nodes import camera_node
from egomotion_ros.nodes.camera_node import CameraNode
from egomotion_ros.nodes.conversions import time_from_msg
from egomotion_ros.nodes.process import leave
from egomotion_ros.nodes.sources import Frame

_COUNT = itertools.count()


def folder(path: Path, count: int, size: tuple[int, int] = (40, 30)) -> Path:
    path.mkdir()
    for i in range(count):
        Image.new('RGB', size, (10 * i, 0, 0)).save(path / f'{i:03}.png')
    return path


class Player:
    """A camera_node and a listener that was there before it."""

    def __init__(self, **parameters) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        namespace = f'/c{os.getpid()}_{next(_COUNT)}'
        self.listener = rclpy.create_node('listener', namespace=namespace, context=self.context)
        self.images: list[ImageMsg] = []
        self.infos: list[CameraInfo] = []
        self.delays: list[int] = []
        self.listener.create_subscription(ImageMsg, 'image', self._on_image, 20)
        self.listener.create_subscription(CameraInfo, 'camera_info', self.infos.append, 20)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.listener)
        self.node = None
        try:
            self.node = CameraNode(
                context=self.context, namespace=namespace,
                parameter_overrides=[Parameter(name, value=value)
                                     for name, value in parameters.items()])
        except Exception:
            self.close()
            raise
        self.executor.add_node(self.node)

    def _on_image(self, message: ImageMsg) -> None:
        self.delays.append(self.listener.get_clock().now().nanoseconds
                           - time_from_msg(message.header.stamp))
        self.images.append(message)

    def until(self, done, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, 'nothing more came'
            self.executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        nodes = (self.listener, self.node)
        leave(self.executor, *(node for node in nodes if node is not None))


@contextmanager
def playing(**parameters) -> Iterator[Player]:
    player = Player(**parameters)
    try:
        yield player
    finally:
        player.close()


def test_stamps_keep_the_distances_of_the_recording_and_are_never_early(tmp_path):
    # Slow enough that a busy machine keeps up, played at twice that speed, over and over.
    with playing(path=str(folder(tmp_path / 'p', 4)), picture_rate=4.0, rate=2.0, loop=True,
                 horizontal_fov=1.4) as player:
        player.until(lambda: len(player.images) >= 6 and player.infos)
    stamps = np.array([time_from_msg(m.header.stamp) for m in player.images])
    gaps = np.diff(stamps)
    within = [gap for gap, message in zip(gaps, player.images[1:]) if message.data[0] != 0]
    # Each gap inside a round is a whole number of periods: one, or more where one was late.
    assert within and all(abs(gap / 125e6 - round(gap / 125e6)) < 1e-6 for gap in within)
    assert (gaps > 0).all()
    assert min(player.delays) >= 0


def test_image_and_calibration_share_stamp_size_and_frame(tmp_path):
    with playing(path=str(folder(tmp_path / 'p', 2, (200, 100))), picture_rate=5.0, loop=True,
                 horizontal_fov=1.4, longest_side=50, camera_frame='eye') as player:
        player.until(lambda: len(player.images) >= 2 and len(player.infos) >= 2)
    by_stamp = {time_from_msg(info.header.stamp): info for info in player.infos}
    pairs = [(message, by_stamp[time_from_msg(message.header.stamp)])
             for message in player.images if time_from_msg(message.header.stamp) in by_stamp]
    assert pairs
    for message, info in pairs:
        assert (message.width, message.height, message.encoding) == (50, 25, 'rgb8')
        assert (info.width, info.height, info.header.frame_id) == (50, 25, 'eye')
        assert info.k[0] == pytest.approx(25 / np.tan(0.7))


def test_without_calibration_or_field_of_view_no_camera_info_is_made_up(tmp_path):
    with playing(path=str(folder(tmp_path / 'p', 3)), picture_rate=5.0, loop=True) as player:
        player.until(lambda: len(player.images) >= 4)
    assert not player.infos


def test_a_damaged_picture_is_left_out_and_the_rest_is_played(tmp_path):
    path = folder(tmp_path / 'p', 3)
    (path / '001.png').write_bytes((path / '001.png').read_bytes()[:40])
    with playing(path=str(path), picture_rate=5.0, loop=True) as player:
        player.until(lambda: len({message.data[0] for message in player.images}) >= 2)
        assert {message.data[0] for message in player.images} == {0, 20}
        assert player.node.problem is None


class SlowSource:
    """Thirty pictures a round; ``opening``, ``decoding`` and ``reading`` take these seconds."""

    name, period, calibration = 'slow', 20_000_000, None

    def __init__(self, opening: float, decoding: float, reading: float) -> None:
        self.opening, self.decoding, self.reading = opening, decoding, reading

    def frames(self, warn) -> Iterator[Frame]:
        time.sleep(self.opening)
        for i in range(30):
            time.sleep(self.decoding)
            yield Frame(i * self.period, self.read)

    def read(self) -> np.ndarray:
        time.sleep(self.reading)
        return np.zeros((30, 40, 3), np.uint8)


@pytest.mark.parametrize('slow', [(0.8, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 0.8)])
def test_a_recording_that_is_slow_to_come_is_played_as_fast_as_it_comes(monkeypatch, slow):
    source = SlowSource(*slow)
    monkeypatch.setattr(camera_node, 'open_source', lambda path, rate: source)
    with playing(path='slow', loop=True) as player:
        player.until(lambda: len(player.images) >= 5)
    assert (np.diff([time_from_msg(m.header.stamp) for m in player.images]) > 0).all()
    # The stamp is the time of publishing or shortly before, not that of a plan long missed.
    assert min(player.delays) >= 0
    assert np.median(player.delays) < 0.5e9


def test_a_folder_of_nothing_but_damage_ends_with_an_error(tmp_path):
    path = tmp_path / 'p'
    path.mkdir()
    (path / 'a.jpg').write_bytes(b'\xff\xd8\xff no picture')
    with playing(path=str(path)) as player:
        player.until(lambda: player.node.finished)
        assert 'none of its 1 pictures is readable' in str(player.node.problem)


def test_a_calibration_of_another_size_is_refused(tmp_path):
    from test_camera_sources import camera_yaml
    calibration = camera_yaml(tmp_path / 'c.yaml')
    with playing(path=str(folder(tmp_path / 'p', 2)), calibration=str(calibration)) as player:
        player.until(lambda: player.node.finished)
        assert 'a calibration for 640 x 480' in str(player.node.problem)


@pytest.mark.parametrize(('name', 'said'), [
    ('missing.mp4', 'no camera recording at'), ('broken.mp4', 'not a readable video')])
def test_the_process_says_in_one_line_why_it_cannot_play(tmp_path, name, said):
    (tmp_path / 'broken.mp4').write_bytes(b'nothing')
    done = subprocess.run(
        [sys.executable, '-m', 'egomotion_ros.nodes.camera_node', '--ros-args', '-p',
         f'path:={tmp_path / name}'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert said in done.stderr
    assert 'Traceback' not in done.stderr
