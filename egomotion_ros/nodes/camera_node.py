# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Plays a recorded head camera (video, folder of pictures, Aria VRS file) or follows a live one.

Publishes ``image`` (rgb8) and ``camera_info``.  Stamps are honest: the time of the first picture
is where playing began on the ROS clock, and every other stamp keeps the recording's own distance
to it (divided by ``rate``).  An image is published when its stamp is due, never before; one that
is already late by more than a period is passed over and counted.  Where that does not help for
half a second, because pictures come slower than they were recorded, the rest is played later.

Of a live camera, a URL, the newest picture is published as soon as it is there, with the time at
which it came, less what it was delayed on the way (:mod:`egomotion_ros.nodes.sources_live`) and
less ``latency``.
"""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from egomotion_ros.nodes.process import destroyed_on_failure, run_node
from egomotion_ros.nodes.qos import profile
from egomotion_ros.nodes.sensor_messages import camera_info_to_msg, described, image_to_msg
from egomotion_ros.nodes.sources import Calibration, load_calibration, open_source, shrink
from egomotion_ros.nodes.sources_live import LiveStream, is_live

#: Longest sleep (ns): so often a clock that was set back is noticed; on simulated time, which
#: does not wake a sleeper, the precision of the stamps' due times.
NAP, SIM_NAP = 200_000_000, 10_000_000
#: Longest time (ns) without a picture, and longest lag of one, before playing goes on later.
PATIENCE = 500_000_000
#: A stamp (ns) that lies further back than this tells of a clock that was set back.
SET_BACK = 1_000_000_000


class CameraNode(Node):
    """See the module; raises OSError or ValueError where the recording cannot be played."""

    def __init__(self, **options) -> None:
        super().__init__('camera_node', **options)
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        with destroyed_on_failure(self):
            self._declare()
            self._open()
        get = self._value
        if self._fixed is None and not get('horizontal_fov'):
            self.get_logger().warning(
                f'{self._source.name} holds no calibration and neither calibration nor '
                'horizontal_fov is set: no camera_info is published, and egomotion_node will '
                'refuse the images unless it is told the field of view')
        self._images = self.create_publisher(Image, 'image', profile('sensor_reliable'))
        self._infos = self.create_publisher(CameraInfo, 'camera_info', profile('sensor_reliable'))
        self._problem: Exception | None = None
        self._done = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._play, name='playback', daemon=True)
        self._thread.start()

    def _declare(self) -> None:
        declare = self.declare_parameter
        declare('path', '', described(
            'video file, folder of pictures, Aria .vrs file, or URL of a live camera '
            '(rtsp, http, udp, ...)'))
        declare('rate', 1.0, described(
            'speed of playing a recording, 1 is as recorded', 0.01, 100.0))
        declare('loop', False, described('begin a recording again at its end; stamps go on'))
        declare('latency', 0.0, described(
            'time [s] from capture to arrival of a live picture, by which its stamp is set back',
            0.0, 5.0))
        declare('picture_rate', 10.0, described(
            'rate at which a folder of pictures was taken [Hz]', 0.01, 1000.0))
        declare('longest_side', 640, described(
            'larger pictures are scaled down to this many pixels', 16, 8192))
        declare('calibration', '', described(
            "YAML of ROS's camera_calibration; replaces the recording's own"))
        declare('horizontal_fov', 0.0, described(
            'horizontal field of view [rad] of an undistorted camera without calibration; '
            '0: not known', 0.0, 3.0))
        declare('camera_frame', 'head_camera_optical_frame', described(
            'frame_id of image and camera_info (x right, y down, z forward)'))

    def _value(self, name: str):
        return self.get_parameter(name).value

    def _open(self) -> None:
        """Open the recording; raises ValueError or OSError where it cannot be played."""
        path = self._value('path')
        if not path:
            raise ValueError('parameter path: expected a video, a folder of pictures, a .vrs '
                             'file or a URL, got nothing')
        if is_live(path):
            if self._value('rate') != 1.0:
                raise ValueError('parameter rate: a live camera has its own speed, leave it 1')
            self._source = LiveStream(path)
        else:
            self._source = open_source(path, self._value('picture_rate'))
        self._fixed = self._calibration()

    def _calibration(self) -> Calibration | None:
        """Return the calibration at the recording's own size, None where only hfov may be set."""
        path = self._value('calibration')
        return load_calibration(path) if path else self._source.calibration

    @property
    def finished(self) -> bool:
        """Whether the recording has been played to its end, or could not be."""
        return self._done

    @property
    def problem(self) -> Exception | None:
        """What ended playing before the end of the recording."""
        return self._problem

    def destroy_node(self) -> None:
        """Stop playing, then free the node."""
        self._ending.set()
        if isinstance(getattr(self, '_source', None), LiveStream):
            self._source.end()
        if self._thread is not None:
            self._thread.join()
        super().destroy_node()

    # The playback thread ----------------------------------------------------------------------
    def _play(self) -> None:
        try:
            start = self._wait_for_time()
            if isinstance(self._source, LiveStream):
                self._follow()
                return
            while not self._ending.is_set():
                start = self._play_once(start)
                if not self._value('loop'):
                    break
        except Exception as problem:
            self._problem = problem
        finally:
            self._done = True

    def _follow(self) -> None:
        """Publish the newest picture of a live camera until the node ends."""
        log, last, size = self.get_logger(), 0, None
        for frame in self._source.frames(log.warning, log.info):
            image = frame.read()
            size = size or image.shape
            if image.shape != size:
                log.warning(f'left out: a picture of {image.shape[1]} x {image.shape[0]} px after '
                            f'ones of {size[1]} x {size[0]}, whose field of view it may not have',
                            throttle_duration_sec=5.0)
                continue
            stamp = self._now() - (time.monotonic_ns() - frame.time)
            stamp -= round(1e9 * self._value('latency'))
            if 0 < stamp and not 0 <= last - stamp < SET_BACK:
                self._publish(image, stamp)
                last = stamp

    def _play_once(self, start: int) -> int:
        """Play from ``start`` (ns, ROS clock) at the earliest; return when the next is due."""
        rate = self._value('rate')
        period = round(self._source.period / rate)
        end, shown, damaged, self.dropped = start, 0, 0, 0
        last: int | None = None  # when a picture was shown, at first when the recording was open
        for frame in self._source.frames(self.get_logger().warning):
            now = self._now()
            if last is None:
                start, last = max(start, now), now
            stamp = start + round(frame.time / rate)
            if now > stamp + period:
                if now - last <= PATIENCE:
                    self.dropped += 1
                    end = stamp + period
                    continue
                start, stamp = start + now - stamp, now
            end = stamp + period
            try:
                image = frame.read()
            except ValueError as error:
                damaged += 1
                self.get_logger().warning(f'left out: {error}')
                continue
            lag = self._now() - stamp
            if lag > (PATIENCE if shown else 0):
                start, stamp, end = start + lag, stamp + lag, end + lag
            moved = self._sleep_until(stamp)
            if self._ending.is_set():
                return start
            if moved:  # the clock was set back: play on from its present time
                start, stamp, end = start + moved, stamp + moved, end + moved
            self._publish(image, stamp)
            shown, last = shown + 1, self._now()
        if not shown and damaged:
            raise ValueError(f'{self._source.name}: none of its {damaged} pictures is readable')
        if not self._value('loop'):
            self.get_logger().info(f'{self._source.name}: {shown} pictures played, '
                                   f'{self.dropped} dropped because they were late, {damaged} '
                                   'damaged')
        return max(end, self._now())

    def _publish(self, image: np.ndarray, stamp: int) -> None:
        full_height, full_width = image.shape[:2]
        image = shrink(image, self._value('longest_side'))
        height, width = image.shape[:2]
        frame = self._value('camera_frame')
        fixed, hfov = self._fixed, self._value('horizontal_fov')
        if fixed is not None:
            if (fixed.width, fixed.height) != (full_width, full_height):
                raise ValueError(f'{self._source.name}: pictures of {full_width} x {full_height} '
                                 f'px, but a calibration for {fixed.width} x {fixed.height}')
            self._infos.publish(camera_info_to_msg(fixed.resized(width, height), stamp, frame))
        elif hfov:
            self._infos.publish(camera_info_to_msg(Calibration.pinhole(width, height, hfov),
                                                   stamp, frame))
        self._images.publish(image_to_msg(image, stamp, frame))

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _wait_for_time(self) -> int:
        """Return the present ROS time, once a simulated clock has begun."""
        while self._now() == 0 and not self._ending.wait(0.05):
            pass
        return self._now()

    def _sleep_until(self, stamp: int) -> int:
        """Sleep until ``stamp`` (ns, ROS clock); return by how much the clock was set back."""
        moved = 0
        before = self._now()
        while not self._ending.is_set():
            now = self._now()
            if now < before - NAP:
                moved += now - before
            before = now
            if now >= stamp + moved:
                break
            nap = NAP if not self.get_clock().ros_time_is_active else SIM_NAP
            self._ending.wait(min(stamp + moved - now, nap) * 1e-9)
        return moved


def main(args: list[str] | None = None) -> int:
    """Play the recording, then exit; 1 where it cannot be played."""

    def ended(node: CameraNode) -> bool:
        if node.finished and node.problem is not None:
            raise node.problem
        return node.finished

    return run_node(CameraNode, 'camera_node', args, ended)


if __name__ == '__main__':
    sys.exit(main())
