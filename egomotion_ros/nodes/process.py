# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How the plain nodes live as a process: start or say why not, spin, end cleanly on a signal."""

from __future__ import annotations

from collections.abc import Callable
import signal
import sys
import threading

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions


def run_node(make: Callable[[], Node], name: str, args: list[str] | None,
             ended: Callable[[Node], bool] = lambda node: False) -> int:
    """
    Run the node that ``make`` gives until SIGINT, SIGTERM or ``ended(node)``.

    Returns the exit code: 1, with one line on stderr, where ValueError, OSError or RuntimeError
    comes out of ``make`` or ``ended``.  The node is destroyed before ROS is shut down, so that
    nothing publishes into a closed context.
    """
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *unused: told.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node, executor = None, SingleThreadedExecutor()
    try:
        node = make()
        executor.add_node(node)
        while not told.is_set() and not ended(node):
            executor.spin_once(timeout_sec=0.1)
    except (ValueError, OSError, RuntimeError) as error:
        print(f'{name}: {error}', file=sys.stderr)
        return 1
    finally:
        executor.shutdown(timeout_sec=1.0)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
