# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Simulated time of a node over real DDS: it moves on beside the executor."""

from __future__ import annotations

import os
import threading
import time

import pytest
import rclpy
from rclpy.clock import JumpThreshold
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock

from egomotion_ros.nodes.lifecycle import ManagedNode


@pytest.fixture
def sender():
    """A function that publishes a time (s) on ``/clock`` of this test's namespace."""
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node('clock_sender', context=context, namespace=_namespace())
    publisher = node.create_publisher(Clock, 'clock', 10)

    def send(seconds: float) -> None:
        message = Clock()
        message.clock.sec = int(seconds)
        message.clock.nanosec = round(1e9 * (seconds % 1.0))
        publisher.publish(message)

    send.heard = publisher.get_subscription_count
    yield send
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture
def node():
    """A node on simulated time that nobody spins."""
    context = Context()
    rclpy.init(context=context)
    node = ManagedNode(
        'follower',
        context=context,
        cli_args=['--ros-args', '-r', f'/clock:={_namespace()}/clock'],
        parameter_overrides=[Parameter('use_sim_time', value=True)],
    )
    yield node
    if context.ok():
        node.destroy_node()
        rclpy.shutdown(context=context)


def _namespace() -> str:
    return f'/node_clock_{os.getpid()}'


def _until(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def _clock_threads() -> int:
    return sum(thread.name == 'clock' for thread in threading.enumerate())


def _follows(node: ManagedNode, send, seconds: float) -> bool:
    def there() -> bool:
        send(seconds)
        return node.get_clock().now().nanoseconds == round(1e9 * seconds)

    return _until(there)


def test_time_moves_on_although_nobody_spins(node, sender):
    assert _follows(node, sender, 12.25)
    assert _follows(node, sender, 12.5)
    assert _follows(node, sender, 3.0)  # also back


def test_a_spinning_executor_leaves_the_clock_to_its_thread(node, sender):
    threads = set()
    keep = node.get_clock().create_jump_callback(
        JumpThreshold(min_forward=Duration(nanoseconds=1), min_backward=None,
                      on_clock_change=False),
        post_callback=lambda jump: threads.add(threading.current_thread().name),
    )
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    for step in range(20):
        sender(1.0 + step)
        executor.spin_once(timeout_sec=0.05)
    assert _until(lambda: bool(threads))
    assert threads == {'clock'}
    keep.unregister()
    executor.shutdown()


def test_the_newest_of_many_messages_counts(node, sender):
    assert _follows(node, sender, 1.0)
    for step in range(1, 501):
        sender(1.0 + 0.001 * step)
    assert _until(lambda: node.get_clock().now().nanoseconds == 1_500_000_000)


def test_switched_off_and_on_again_while_it_runs(node, sender):
    assert _follows(node, sender, 5.0)
    node.set_parameters([Parameter('use_sim_time', value=False)])
    assert _clock_threads() == 0
    assert _until(lambda: sender.heard() == 0)
    assert abs(1e-9 * node.get_clock().now().nanoseconds - time.time()) < 10.0
    node.set_parameters([Parameter('use_sim_time', value=True)])
    assert _follows(node, sender, 6.0)


def test_a_destroyed_node_leaves_no_thread(node, sender):
    assert _follows(node, sender, 5.0)
    assert _clock_threads() == 1
    node.destroy_node()
    assert _clock_threads() == 0
    assert _until(lambda: sender.heard() == 0)
    rclpy.shutdown(context=node.context)


def test_a_jump_callback_that_fails_is_logged_and_time_goes_on(node, sender):
    def fail(jump) -> None:
        raise KeyError('on purpose')

    keep = node.get_clock().create_jump_callback(
        JumpThreshold(min_forward=Duration(seconds=1.0), min_backward=None,
                      on_clock_change=False),
        post_callback=fail,
    )
    assert _follows(node, sender, 1.0)
    assert _follows(node, sender, 9.0)
    assert _follows(node, sender, 9.5)
    keep.unregister()
