# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How nodes leave: at once and wholly, never whenever the garbage collector comes by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import gc
import os
import time

from node_harness import Harness
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from egomotion_ros.nodes.camera_node import CameraNode
from egomotion_ros.nodes.egomotion_node import EgoMotionNode
from egomotion_ros.nodes.process import leave
from egomotion_ros.nodes.simulation_node import SimulationNode


@pytest.fixture
def context() -> Iterator[Context]:
    """Give a context; the garbage collector sleeps."""
    context = Context()
    rclpy.init(context=context)
    gc.collect()
    gc.disable()
    yield context
    gc.enable()


@pytest.fixture
def nodes() -> Iterator[Callable[[], list[str]]]:
    """Names, with namespaces, of the nodes that another participant sees."""
    context = Context()
    rclpy.init(context=context)
    watch = rclpy.create_node(f'watch_{os.getpid()}', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(watch)
    yield lambda: [f'{space}/{name}' for name, space in watch.get_node_names_and_namespaces()]
    leave(executor, watch)


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'it did not happen'
        time.sleep(0.02)


def gone(nodes: Callable[[], list[str]], name: str) -> None:
    until(lambda: not any(name in node for node in nodes()))


@pytest.mark.parametrize(('kind', 'values', 'what'), [
    (EgoMotionNode, {'replan_period': -1.0}, 'replan_period'),
    (CameraNode, {}, 'path'),
    (CameraNode, {'path': '/no/recording'}, 'no camera recording'),
    (SimulationNode, {'robot': 'nobody'}, 'nobody'),
    (SimulationNode, {'image_width': 1}, 'image_width'),
])
def test_a_node_that_cannot_be_made_is_gone_at_once(context, nodes, kind, values, what):
    space = f'/gone_{os.getpid()}_{time.monotonic_ns()}'
    keep = rclpy.create_node('beside', context=context, namespace=space)
    until(lambda: f'{space}/beside' in nodes())
    with pytest.raises(Exception, match=what) as refusal:
        kind(context=context, namespace=space, parameter_overrides=[
            Parameter(name, value=value) for name, value in values.items()])
    # A node of the same participant that comes later is seen, the one that failed is not.
    late = rclpy.create_node('late', context=context, namespace=space)
    until(lambda: f'{space}/late' in nodes())
    until(lambda: sorted(n for n in nodes() if space in n)
          == [f'{space}/beside', f'{space}/late'])
    assert refusal.value is not None  # and with it the frames that hold the node
    for node in (keep, late):
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_node_that_was_ended_is_gone_at_once(nodes):
    gc.disable()
    try:
        harness = Harness(None)
        until(lambda: f'{harness.namespace}/egomotion_node' in nodes())
        harness.close()
        gone(nodes, harness.namespace)
    finally:
        gc.enable()
