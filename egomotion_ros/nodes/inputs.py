# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What the node listens to, and only while there is something to do.

A :class:`Channel` subscribes on ``open`` and unsubscribes on ``close``.  It takes serialized
messages: a 720p image that is replaced by the next one 33 ms later costs a copy and nothing
else, and only the message a plan starts from is ever deserialized.  Of a header's stamp eight
bytes are read.
"""

from __future__ import annotations

from collections import deque
import struct
import threading
from typing import NamedTuple

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message

#: Serialized messages above this size are dropped unread (4096 x 4096 RGB16 has 101 MB).
MOST_BYTES = 128 * 1024 * 1024


class Sample(NamedTuple):
    """A serialized message, its header stamp, and when it came: ROS clock, steady clock (ns)."""

    data: bytes
    stamp: int
    arrived: int
    steady: int


def header_stamp(data: bytes) -> int:
    """
    Stamp (ns) of a serialized message that begins with a ``std_msgs/Header``.

    CDR: four bytes of encapsulation, the second of which tells the byte order, then seconds and
    nanoseconds.
    """
    order = '<' if data[1] & 1 else '>'
    seconds, nanoseconds = struct.unpack_from(f'{order}iI', data, 4)
    return seconds * 1_000_000_000 + nanoseconds


class Channel:
    """The newest messages of one topic; ``keep`` of them."""

    def __init__(
        self,
        node: Node,
        message_type: type,
        topic: str,
        qos: QoSProfile,
        group: CallbackGroup,
        keep: int = 1,
    ) -> None:
        self.message_type, self.topic = message_type, topic
        self._node, self._qos, self._group = node, qos, group
        self._samples: deque[Sample] = deque(maxlen=keep)
        self._news = threading.Condition()
        self._subscription = None
        self._clock = node.get_clock()
        self._steady = node.steady_clock
        #: Messages that came since the node was configured, and those dropped for their size.
        self.received = self.dropped = 0
        self.opened = 0

    @property
    def is_open(self) -> bool:
        """True while subscribed."""
        return self._subscription is not None

    def open(self) -> None:
        """Subscribe; what came in an earlier life is forgotten."""
        if self._subscription is None:
            self.clear()
            self.opened = self._clock.now().nanoseconds
            self._subscription = self._node.create_subscription(
                self.message_type,
                self.topic,
                self._take,
                self._qos,
                callback_group=self._group,
                raw=True,
            )

    def close(self) -> None:
        """Unsubscribe and forget."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        self.clear()

    def clear(self) -> None:
        """Forget what came (after a jump of the clock)."""
        with self._news:
            self._samples.clear()
            self.opened = self._clock.now().nanoseconds

    def newest(self) -> Sample | None:
        """Return the newest sample, if any."""
        with self._news:
            return self._samples[-1] if self._samples else None

    def all(self) -> list[Sample]:
        """Return the samples kept, oldest first."""
        with self._news:
            return list(self._samples)

    def wait(self, timeout: float) -> Sample | None:
        """Return the newest sample, waiting ``timeout`` seconds for a first one."""
        with self._news:
            self._news.wait_for(lambda: bool(self._samples), timeout)
            return self._samples[-1] if self._samples else None

    def silence(self) -> float:
        """Seconds on the ROS clock since a message came or, if none did, since :meth:`open`."""
        with self._news:
            last = self._samples[-1].arrived if self._samples else self.opened
        return 1e-9 * (self._clock.now().nanoseconds - last)

    def read(self, sample: Sample):
        """Deserialize ``sample``; raises ValueError where its bytes are no such message."""
        try:
            return deserialize_message(sample.data, self.message_type)
        except Exception as error:
            raise ValueError(f'{self.topic}: not a {self.message_type.__name__}') from error

    def _take(self, data: bytes) -> None:
        self.received += 1
        if not 12 <= len(data) <= MOST_BYTES:
            self.dropped += 1
            return
        sample = Sample(
            data,
            header_stamp(data),
            self._clock.now().nanoseconds,
            self._steady.now().nanoseconds,
        )
        with self._news:
            self._samples.append(sample)
            self._news.notify_all()
