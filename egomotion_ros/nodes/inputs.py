# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What the node listens to, only while there is something to do, and cheaply.

Inputs are taken serialized: a 720p image that is replaced by the next one 33 ms later costs a
copy and nothing else, and only the message a plan starts from is ever deserialized.  Of a
header's stamp eight bytes are read.

They are taken by a thread of their own (:mod:`taker`), beside the executor, which would take a
fifth of a core for a camera at 30 Hz and joint states at 60 Hz.  It ends with the subscriptions.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
import struct
import threading
import time

from rclpy.clock import Clock
from rclpy.event_handler import QoSSubscriptionEventType, UnsupportedEventTypeError
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.serialization import deserialize_message

from egomotion_ros.nodes.taker import Apart, Taker

#: Serialized messages above this size are dropped unread (4096 x 4096 RGB16 has 101 MB).
MOST_BYTES = 128 * 1024 * 1024
#: What is counted of a topic's messages, see :meth:`Channel.counts`.
COUNTS = (
    'received',
    'used',
    'passed over',
    'refused for its stamp',
    'refused for its content',
    'missed',
    'lost by the transport',
)
#: Seconds of silence that are believed only after another look.
DOUBTED = 0.1
#: Seconds after which a wait looks whether it is still wanted.
SLICE = 0.02


@dataclass
class Sample:
    """
    A serialized message, its header stamp, and when it came: ROS clock, steady clock (ns).

    ``used`` True once anybody looked into it, ``refused`` once that was for nothing; ``passed``
    True while it counts as passed over.
    """

    data: bytes
    stamp: int
    arrived: int
    steady: int
    used: bool = False
    refused: bool = False
    passed: bool = False


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
        keep: int = 1,
        spacing: float = 0.0,
        about: tuple[str, ...] = (),
    ) -> None:
        """
        Make a channel that is not open yet.

        Of messages whose stamps are less than ``spacing`` seconds apart only the newest is kept.
        Messages that do not hold all the strings ``about`` are of something else and passed over:
        several drivers may share a topic.
        """
        self.message_type, self.topic = message_type, topic
        self._spacing = round(1e9 * spacing)
        self._about = tuple(text.encode() + b'\0' for text in about)
        #: Newest message of something else, None where there was none since :meth:`clear`.
        self.foreign: Sample | None = None
        self._node, self._qos = node, qos
        self._samples: deque[Sample] = deque(maxlen=keep)
        self._news, self._taking = threading.Condition(), threading.Lock()
        self._group = Apart()
        self.subscription = None
        self._clock: Clock = node.get_clock()
        self._steady: Clock = node.steady_clock
        self._event: _rclpy.EventHandle | None = None
        self._counts: Counter[str] = Counter()
        self._sequence = self._renewed = self._since = 0
        self._is_new = False
        #: Called with each sample as it comes, by the thread that takes it.
        self.on_news: Callable[[Sample], None] = lambda sample: None

    @property
    def is_open(self) -> bool:
        """True while subscribed."""
        return self.subscription is not None

    def open(self) -> None:
        """Subscribe; what came in an earlier life is forgotten."""
        self.clear()
        self.subscription = self._node.create_subscription(
            self.message_type,
            self.topic,
            lambda _: None,
            self._qos,
            callback_group=self._group,
            raw=True,
        )
        try:
            lost = QoSSubscriptionEventType.RCL_SUBSCRIPTION_MESSAGE_LOST
            with self.subscription.handle:
                self._event = _rclpy.EventHandle(self.subscription.handle, lost)
        except UnsupportedEventTypeError:
            self._event = None
        self._sequence = 0

    def close(self) -> None:
        """Unsubscribe and forget; whoever takes in another thread is waited for."""
        with self._taking:
            self._ask_for_losses()
            if self._event is not None:
                self._event.destroy_when_not_in_use()
                self._event = None
            self._node.destroy_subscription(self.subscription)
            self.subscription = None
            self.clear()

    def clear(self) -> None:
        """Forget what came (after a jump of the clock)."""
        with self._news:
            for sample in self._samples:
                self._pass_over(sample)
            self._samples.clear()
            self.foreign = None
            self._renewed = self._since = self._clock.now().nanoseconds
            self._is_new = False

    def excuse(self) -> None:
        """
        Forget what came before a jump ahead of the clock, which is not the sender's silence.

        Who sent nothing new since the last time gets no second excuse: on a clock of coarse
        steps every step is a jump.
        """
        if self._is_new:
            self.clear()

    def newest(self) -> Sample | None:
        """Return the newest sample, if any."""
        with self._news:
            return self._samples[-1] if self._samples else None

    def all(self) -> list[Sample]:
        """Return the samples kept, oldest first."""
        with self._news:
            return list(self._samples)

    def wait(self, timeout: float, unless: threading.Event | None = None) -> Sample | None:
        """Return the newest sample; waits ``timeout`` seconds for a first, ``unless`` is set."""
        end = time.monotonic() + timeout
        with self._news:
            while not self._samples and not (unless is not None and unless.is_set()):
                left = end - time.monotonic()
                if left <= 0.0:
                    break
                self._news.wait(left if unless is None else min(left, SLICE))
            return self._samples[-1] if self._samples else None

    def silence(self) -> float:
        """
        Seconds on the ROS clock since something new came or, if nothing did, since :meth:`open`.

        A message with the stamp of the one before is nothing new: a driver that repeats itself
        is silent.
        """
        silence = self._silence()
        if silence > DOUBTED and self.is_open:
            # Perhaps it is this process that is slow, and the middleware has a message.
            self.take()
            silence = self._silence()
        return silence

    def age(self) -> float:
        """
        Seconds on the ROS clock for which nothing new is known: silence, or the age of the stamp.

        A stream that goes on arriving but tells of long ago is as stale as none; what was under
        way while the clock jumped counts from the jump.
        """
        silence, newest = self.silence(), self.newest()
        if newest is None:
            return silence
        told = max(newest.stamp, self._since)
        return max(silence, 1e-9 * (self._clock.now().nanoseconds - told))

    def read(self, sample: Sample):
        """Deserialize ``sample``; raises ValueError where its bytes are no such message."""
        self._use(sample)
        try:
            return deserialize_message(sample.data, self.message_type)
        except Exception as error:
            raise ValueError(f'{self.topic}: not a {self.message_type.__name__}') from error

    def take(self) -> None:
        """Take what the middleware has; never waits for it.  Nothing once closed."""
        with self._taking:
            if self.subscription is not None:
                self._take(self.subscription.handle)

    def _take(self, handle: _rclpy.Subscription) -> None:
        with handle:
            while (taken := handle.take_message(self.message_type, True)) is not None:
                self._count_gap(taken[1]['publication_sequence_number'])
                self._keep(taken[0])

    def _silence(self) -> float:
        with self._news:
            return 1e-9 * (self._clock.now().nanoseconds - self._renewed)

    def refuse(self, sample: Sample, why: str) -> None:
        """Count ``sample`` among those refused for ``why``: 'stamp' or 'content'."""
        self._use(sample)
        with self._news:
            self._counts[f'refused for its {why}'] += not sample.refused
            sample.refused = True

    def counts(self) -> dict[str, int]:
        """
        Count messages since the node was configured.

        ``received`` are those that came to the node: every one of them is ``used`` (somebody
        looked into it; what was ``refused for its stamp`` or ``refused for its content`` is among
        these), ``passed over`` (a newer one came first, or listening ended) or still waiting.
        The others never came: ``missed`` as the gaps in a single sender's numbering tell, of
        which ``lost by the transport`` are those that the middleware reports; the rest was
        replaced by newer ones in its queue.  Middleware that cannot tell leaves these at 0.
        """
        with self._taking:
            self._ask_for_losses()
        with self._news:
            return {name: self._counts[name] for name in COUNTS}

    def unheard(self) -> int:
        """Count those who publish the topic where the quality of service lets none be heard."""
        if self.subscription is None:
            return 0
        senders = self._node.get_publishers_info_by_topic(self.subscription.topic_name)
        heard = any(
            qos_check_compatible(one.qos_profile, self._qos)[0] != QoSCompatibility.ERROR
            for one in senders
        )
        return 0 if heard else len(senders)

    def _ask_for_losses(self) -> None:
        event = self._event
        if event is None:
            return
        with event:
            news = event.take_event()
        if news is not None:
            with self._news:
                self._counts['lost by the transport'] += news.total_count_change

    def _count_gap(self, number: int | None) -> None:
        """Compare the sender's numbering of messages with the one before."""
        if number is None:
            return
        before, self._sequence = self._sequence, number
        # Several senders count each on their own.
        if 0 < before < number - 1 and self._node.count_publishers(self.topic) == 1:
            with self._news:
                self._counts['missed'] += number - before - 1

    def _use(self, sample: Sample) -> None:
        with self._news:
            self._counts['used'] += not sample.used
            # A newer one may have come between the choice of this one and its use.
            self._counts['passed over'] -= sample.passed
            sample.used, sample.passed = True, False

    def _pass_over(self, sample: Sample) -> None:
        sample.passed = not sample.used
        self._counts['passed over'] += sample.passed

    def _keep(self, data: bytes) -> None:
        if not 12 <= len(data) <= MOST_BYTES:
            with self._news:
                self._counts.update(('received', 'used', 'refused for its content'))
            return
        now, steady = self._clock.now().nanoseconds, self._steady.now().nanoseconds
        sample = Sample(data, header_stamp(data), now, steady)
        if not all(text in data for text in self._about):
            with self._news:
                self._counts.update(('received', 'passed over'))
                self.foreign = sample
            return
        with self._news:
            self._counts['received'] += 1
            if not self._samples or self._samples[-1].stamp != sample.stamp:
                self._renewed, self._is_new = now, True
            if len(self._samples) > 1 and sample.stamp - self._samples[-2].stamp < self._spacing:
                self._pass_over(self._samples.pop())
            elif len(self._samples) == self._samples.maxlen:
                self._pass_over(self._samples[0])
            self._samples.append(sample)
            self._news.notify_all()
        self.on_news(sample)


class Inputs:
    """Opens and closes channels together and takes their messages in a thread of its own."""

    def __init__(self, node: Node, channels: list[Channel]) -> None:
        self.channels = channels
        self._node = node
        self._lock = threading.Lock()
        self._taker: Taker | None = None

    @property
    def is_open(self) -> bool:
        """True while subscribed."""
        return self._taker is not None

    def open(self) -> None:
        """Subscribe and begin to take; nothing happens where that is so already."""
        with self._lock:
            if self._taker is None:
                for channel in self.channels:
                    channel.open()
                self._taker = Taker(
                    self._node,
                    'inputs',
                    [channel.subscription for channel in self.channels],
                    [channel.take for channel in self.channels],
                )

    def close(self) -> None:
        """Unsubscribe; nothing is taken any more when this returns."""
        with self._lock:
            if self._taker is not None:
                self._taker.end()
                self._taker = None
                for channel in self.channels:
                    channel.close()
