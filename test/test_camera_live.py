# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Live cameras over real sockets: what is shown, with which stamps, and what is not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

from live_support import (
    RATE,
    Relay,
    RtspServer,
    WebCamera,
    free_port,
    is_whole,
    picture,
    sending,
)
import numpy as np
import pytest
from test_camera_node import playing

from egomotion_ros.nodes.conversions import time_from_msg
from egomotion_ros.nodes.sources_live import LiveStream, Undelayed, is_live


@pytest.fixture
def rtsp():
    server = RtspServer()
    yield server
    server.close()


def follow(url: str, enough, seconds: float = 30.0):
    """What ``url`` shows until ``enough(stream, pictures)``, and what was said."""
    stream, said, pictures = LiveStream(url), [], []
    watchdog = threading.Timer(seconds, stream.end)
    watchdog.start()
    for frame in stream.frames(said.append, said.append):
        pictures.append((frame.time, frame.read()))
        if enough(stream, pictures):
            stream.end()
    watchdog.cancel()
    return stream, pictures, said


def images(player) -> list[np.ndarray]:
    return [np.frombuffer(m.data, np.uint8).reshape(m.height, m.width, 3) for m in player.images]


def test_a_camera_of_rtsp_is_published_with_the_senders_distances(rtsp):
    with playing(path=f'rtsp://127.0.0.1:{rtsp.port}/live', horizontal_fov=1.2) as player:
        player.until(lambda: len(player.images) >= 40 and player.infos)
        shown = images(player)
    stamps = np.array([time_from_msg(m.header.stamp) for m in player.images])
    assert all(is_whole(image) for image in shown)
    assert len({image[0, 0, 0] for image in shown}) > 10  # it goes on
    # Whole periods of the sender, however unevenly pictures came; never in the future.
    periods = np.diff(stamps) * 1e-9 * RATE
    assert (periods > 0.5).all() and np.abs(periods - np.round(periods)).max() < 0.1
    assert min(player.delays) >= 0
    assert np.median(player.delays) < 0.5e9
    assert (player.infos[-1].width, player.infos[-1].height) == (320, 240)


def test_latency_sets_stamps_back(rtsp):
    with playing(path=f'rtsp://127.0.0.1:{rtsp.port}/live', latency=3.0) as player:
        player.until(lambda: len(player.images) >= 3)
    assert min(player.delays) >= 3e9


def test_a_phones_web_camera_and_what_is_in_its_address():
    camera = WebCamera()
    url = f'http://me:hidden@127.0.0.1:{camera.port}/video?token=secret'
    _, pictures, said = follow(url, lambda stream, pictures: len(pictures) >= 10)
    camera.close()
    assert len(pictures) >= 10 and all(is_whole(image) for _, image in pictures)
    assert (np.diff([when for when, _ in pictures]) > 0).all()
    assert said == [f'320 x 240 px from http://127.0.0.1:{camera.port}/video']


def test_a_password_is_used_and_not_told():
    server = RtspServer('me:hidden')
    address = f'127.0.0.1:{server.port}/live'
    _, pictures, said = follow(f'rtsp://me:hidden@{address}', lambda stream, p: len(p) >= 3)
    assert len(pictures) >= 3 and 'PLAY' in server.methods
    _, nothing, refused = follow(f'rtsp://{address}', lambda *_: True, seconds=1.5)
    server.close()
    assert 'hidden' not in str(said)
    assert not nothing and '401' in refused[0]


def test_lost_packets_leave_pictures_out_and_never_mix_two():
    port = free_port(socket.SOCK_DGRAM)
    relay = Relay(port, lambda count: count < 400 or count % 37)
    with sending(f'udp://127.0.0.1:{relay.port}?pkt_size=188'):
        stream, pictures, _ = follow(
            f'udp://127.0.0.1:{port}',
            lambda stream, pictures: stream.damaged >= 40 and len(pictures) >= 60)
    relay.close()
    assert relay.kept_back > 3 and stream.damaged >= 40 and len(pictures) >= 60
    assert all(is_whole(image) for _, image in pictures)


def test_a_sender_that_ends_and_begins_again_is_followed_again():
    port = free_port()
    url = f'tcp://127.0.0.1:{port}'
    stream, said, shown = LiveStream(f'{url}?listen'), [], []
    again = threading.Event()

    def watch() -> None:
        for frame in stream.frames(said.append):
            shown.append(frame.read())
            again.set()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    for _ in range(2):
        again.clear()
        end = time.monotonic() + 30.0
        while not again.is_set() and time.monotonic() < end:
            with sending(url) as sender:
                # Refused until the other side listens.
                while sender.problem is None and not again.wait(0.1):
                    assert time.monotonic() < end
        assert again.is_set()
    stream.end()
    thread.join(5.0)
    assert not thread.is_alive()
    assert all(is_whole(image) for image in shown)
    assert any('trying again every 1 s' in line for line in said)


def test_why_nothing_comes_is_said_once_and_not_every_second():
    port = free_port()
    _, pictures, said = follow(f'tcp://127.0.0.1:{port}', lambda *_: True, seconds=3.5)
    assert not pictures
    assert len(said) == 1 and 'refused' in said[0]


def test_pictures_of_another_size_are_left_out():
    port = free_port(socket.SOCK_DGRAM)
    with playing(path=f'udp://127.0.0.1:{port}', horizontal_fov=1.2) as player:
        with sending(f'udp://127.0.0.1:{port}'):
            player.until(lambda: len(player.images) >= 5)
        # The phone is turned.
        with sending(f'udp://127.0.0.1:{port}', size=(240, 320)) as turned:
            seen = []
            player.node.get_logger().warning = lambda text, **_: seen.append(text)
            player.until(lambda: seen, seconds=30.0)
            assert turned.problem is None
        assert player.node.problem is None
    assert {(m.width, m.height) for m in player.images} == {(320, 240)}


@pytest.mark.parametrize('path', ['gopher://here/', 'file:///etc/passwd', 'concat://a|b',
                                  'rtsp://[half'])
def test_other_protocols_are_refused(path):
    assert is_live(path)
    with pytest.raises(ValueError, match='URL'):
        with playing(path=path):
            pass


def test_a_live_camera_has_its_own_speed():
    with pytest.raises(ValueError, match='rate'):
        with playing(path='rtsp://127.0.0.1/live', rate=2.0):
            pass


def test_the_process_ends_when_told_although_nobody_sends():
    process = subprocess.Popen(
        [sys.executable, '-m', 'egomotion_ros.nodes.camera_node', '--ros-args', '-p',
         f'path:=tcp://127.0.0.1:{free_port()}?listen', '-r', f'__ns:=/live{os.getpid()}'],
        stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20.0)
    assert process.returncode == 0, errors
    assert 'Traceback' not in errors


def test_delay_on_the_way_is_taken_off():
    clock = Undelayed()
    rng = np.random.default_rng(0)
    delays = 0.05 + rng.gamma(1.0, 0.03, 300)
    late = [clock.late(n / RATE + delay, 1000.0 + n / RATE) for n, delay in enumerate(delays)]
    told = np.array([np.nan if one is None else one for one in late])
    # After a while the least delay is known; only what exceeds it is taken off.
    error = told[60:] - (delays[60:] - 0.05)
    assert np.nanmax(np.abs(error)) < 0.01


def test_what_waited_on_the_way_is_not_taken_for_new():
    clock = Undelayed()
    # Two seconds of pictures that waited come at once, then the others as they are taken.
    waited = [clock.late(2.0 + 0.002 * n, n / RATE) for n in range(60)]
    after = [clock.late(2.12 + n / RATE, 2.0 + n / RATE) for n in range(30)]
    assert waited == [None] * 60
    assert after[-1] == pytest.approx(0.0, abs=0.02)


def test_clocks_may_run_apart():
    clock = Undelayed()
    for n in range(30 * 600):
        late = clock.late(n / RATE * (1.0 + 2e-4), n / RATE)
    assert late is not None and late < 0.01


def test_the_pictures_of_these_tests_tell_mixtures():
    assert is_whole(picture(3))
    mixed = picture(3)
    mixed[120:, 160:] = picture(4)[120:, 160:]
    assert not is_whole(mixed)
