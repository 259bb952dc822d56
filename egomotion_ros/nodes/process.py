# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How nodes live in a process: start or say why not, spin, leave nothing behind at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import signal
import sys
import threading

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_default_context

#: Longest time (s) that the last callbacks of an executor are waited for.
PATIENCE = 30.0


def end(executor: Executor, thread: threading.Thread | None = None) -> None:
    """
    End ``executor`` and the ``thread`` that spins it, which must have been told to end.

    No callback runs any more when this returns.  Raises RuntimeError where one goes on.
    """
    if thread is not None:
        executor.create_task(lambda: None)  # ends the wait of spin_once
        thread.join(PATIENCE)
        if thread.is_alive():
            raise RuntimeError(f'a callback did not end within {PATIENCE} s')
    executor.shutdown(timeout_sec=1.0)
    # rclpy of Jazzy waits for no callback that its pool of threads still runs.
    pool = getattr(executor, '_executor', None)
    if pool is not None:
        pool.shutdown()


def leave(executor: Executor, *nodes: Node, thread: threading.Thread | None = None) -> None:
    """
    End ``executor``, see :func:`end`, then destroy ``nodes`` and the context of the executor.

    All of it happens here and now: what is left to the garbage collector leaves DDS at any time,
    also while another node is being made, and what a callback still uses must not go.
    """
    context = executor.context
    end(executor, thread)
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown(context=None if context is get_default_context() else context)
    context.destroy()


@contextmanager
def destroyed_on_failure(node: Node) -> Iterator[None]:
    """Destroy ``node``, whose making goes on in here, where that fails; see :func:`leave`."""
    try:
        yield
    except BaseException:
        node.destroy_node()
        raise


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
        leave(executor, *([] if node is None else [node]))
    return 0
