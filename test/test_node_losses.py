# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What became of every message that was sent to egomotion_node, counted with real publishers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

from diagnostic_msgs.msg import DiagnosticArray
from node_harness import Harness
import pytest
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.context import Context
from sensor_msgs.msg import Image

from egomotion_ros.nodes.errors import ErrorCode
from egomotion_ros.nodes.inputs import COUNTS, Channel
from egomotion_ros.nodes.qos import profile
from egomotion_ros.pipeline import EgoMotionPipeline

#: Publishes argv[2] images of argv[3] bytes on argv[1], stamps 1, 2, 3 ... seconds.
SENDER = """
import array, sys, time
import rclpy
from sensor_msgs.msg import Image
from egomotion_ros.nodes.qos import profile
rclpy.init()
node = rclpy.create_node('sender')
publisher = node.create_publisher(Image, sys.argv[1], profile('sensor'))
image = Image(data=array.array('B', bytes(int(sys.argv[3]))))
while not publisher.get_subscription_count():
    time.sleep(0.02)
for count in range(int(sys.argv[2])):
    image.header.stamp.sec = count + 1
    publisher.publish(image)
    time.sleep(0.02)
small = Image()
small.header.stamp.sec = int(sys.argv[2]) + 1
sys.stdin.readline()
publisher.publish(small)
sys.stdin.readline()
"""


@pytest.fixture
def channel():
    """A channel for images, open, which takes when it is told to."""
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node('losses', context=context, namespace=f'/losses{os.getpid()}')
    node.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
    channel = Channel(node, Image, 'image', profile('sensor'))
    channel.node = node
    channel.open()
    yield channel
    if channel.is_open:
        channel.close()
    node.destroy_node()
    rclpy.shutdown(context=context)


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def sender(channel):
    publisher = channel.node.create_publisher(Image, 'image', profile('sensor'))
    until(publisher.get_subscription_count)
    until(lambda: channel.node.count_publishers('image'))
    return publisher


def send(publisher, *stamps):
    for stamp in stamps:
        image = Image()
        image.header.stamp.sec = stamp
        publisher.publish(image)


def taken(channel, stamp):
    """Take until the image of ``stamp`` is there."""

    def there():
        channel.take()
        return channel.newest() is not None and channel.newest().stamp == stamp * 1_000_000_000

    until(there)
    return channel.newest()


def expect(channel, **counts):
    names = {name.replace('_', ' '): count for name, count in counts.items()}
    assert channel.counts() == dict.fromkeys(COUNTS, 0) | names


def test_images_that_a_newer_one_replaces_are_passed_over_and_used_ones_are_not(channel):
    publisher = sender(channel)
    for stamp in (1, 2, 3):
        send(publisher, stamp)
        sample = taken(channel, stamp)
    expect(channel, received=3, passed_over=2)
    channel.read(sample)
    channel.read(sample)
    send(publisher, 4)
    taken(channel, 4)
    expect(channel, received=4, passed_over=2, used=1)
    channel.close()
    expect(channel, received=4, passed_over=3, used=1)


def test_images_replaced_in_the_queue_are_missed_but_not_lost_by_the_transport(channel):
    publisher = sender(channel)
    stamp = 1
    send(publisher, stamp)
    taken(channel, stamp)
    # On a busy machine a burst may come in pieces: what is not replaced is received.
    deadline = time.monotonic() + 30.0
    while not channel.counts()['missed']:
        assert time.monotonic() < deadline
        send(publisher, *range(stamp + 1, stamp + 11))
        stamp += 10
        taken(channel, stamp)
    counts = channel.counts()
    received = counts['received']
    expect(channel, received=received, passed_over=received - 1, missed=stamp - received)


def test_nothing_is_handed_on_once_the_channel_is_closed(channel):
    entered, free, handed = threading.Event(), threading.Event(), []

    def slowly(sample):
        entered.set()
        assert free.wait(30.0)
        handed.append(channel.is_open)

    channel.on_news = slowly
    send(sender(channel), 1)

    def take():
        while not entered.is_set():
            channel.take()

    taking = threading.Thread(target=take)
    taking.start()
    assert entered.wait(30.0)
    closing = threading.Thread(target=channel.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    free.set()
    closing.join(30.0)
    assert not closing.is_alive() and not channel.is_open
    channel.take()
    assert handed == [True]
    taking.join(30.0)


def test_two_senders_cannot_be_told_apart_and_are_not_counted_as_missing(channel):
    first, second = sender(channel), sender(channel)
    until(lambda: channel.node.count_publishers('image') == 2)
    send(first, 1)
    taken(channel, 1)
    send(first, 2, 3, 4, 5)
    send(second, 6)
    taken(channel, 6)
    assert channel.counts()['missed'] == 0


def test_images_too_large_for_the_transport_are_counted_as_lost(channel):
    """Fast DDS without the profile that ships: its shared memory holds no image of 5 MB."""
    count = 15
    environment = {k: v for k, v in os.environ.items() if k != 'FASTRTPS_DEFAULT_PROFILES_FILE'}
    topic = channel.subscription.topic_name
    child = subprocess.Popen(
        [sys.executable, '-c', SENDER, topic, str(count), '5000000'],
        stdin=subprocess.PIPE, text=True, env=environment,
    )
    try:
        until(lambda: channel.node.count_publishers('image'))
        until(lambda: channel.take() or channel.counts()['lost by the transport'] > 2)
        child.stdin.write('\n')
        child.stdin.flush()
        taken(channel, count + 1)
        counts = channel.counts()
        # All those sent before the first that came are unknown to the numbering.
        assert counts['received'] + counts['missed'] <= count + 1
        assert counts['received'] + counts['lost by the transport'] <= count + 1
        assert counts['received'] < count
    finally:
        child.kill()
        child.wait()


@pytest.fixture(scope='module')
def pipeline(tiny_bundle):
    pipeline = EgoMotionPipeline.load(tiny_bundle, threads=1)
    yield pipeline
    pipeline.close()


def test_diagnostics_tell_why_images_were_not_used(pipeline):
    with Harness(pipeline, **{'image.max_age': 1.0}) as harness:
        reports = []
        harness.world.create_subscription(
            DiagnosticArray, 'diagnostics', reports.append, profile('default')
        )

        def counts():
            count = len(reports)
            harness.wait(lambda: len(reports) > count + 1, what='diagnostics')
            values = {item.key: item.value for item in reports[-1].status[0].values}
            return {what: int(values[f'image {what}']) for what in COUNTS}

        assert harness.run('wave', execute=False)[1].error_code == ErrorCode.NONE
        before = counts()
        assert before['used'] == 1 and before['missed'] == before['lost by the transport'] == 0
        assert before['refused for its stamp'] == before['refused for its content'] == 0
        # The robot does not move and nobody listens: every image has found its end.
        assert before['received'] == before['used'] + before['passed over']
        harness.wait(lambda: not harness.node.observer.is_open, what='the end of listening')
        harness.image_shift = -5.0
        assert harness.run('wave', execute=False)[1].error_code == ErrorCode.STALE_IMAGE
        harness.wait(lambda: not harness.node.observer.is_open, what='the end of listening')
        harness.image_shift, harness.image.encoding = 0.0, 'hsv12'
        assert harness.run('wave', execute=False)[1].error_code == ErrorCode.BAD_IMAGE
        after = counts()
        assert after['refused for its stamp'] == after['refused for its content'] == 1
        assert after['used'] == 3 and after['received'] == 3 + after['passed over']
