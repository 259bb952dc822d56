# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A thread that takes the messages of a few subscriptions, beside the executor.

rclpy's executor builds its wait set, of all the services and timers of the node, anew for every
callback: a clock of 1,000 messages per second costs it a whole core.  The thread here waits for
its few subscriptions only, and looks at most 200 times per second however fast messages come.
"""

from __future__ import annotations

from collections.abc import Callable
import threading
import time
import traceback

from rclpy.callback_groups import CallbackGroup
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.subscription import Subscription

#: Shortest time between two looks (s).
PAUSE = 0.005


class Apart(CallbackGroup):
    """Keeps subscriptions away from the executor: a :class:`Taker` serves them."""

    def can_execute(self, entity) -> bool:
        return False

    def beginning_execution(self, entity) -> bool:
        return False

    def ending_execution(self, entity) -> None:
        pass


class Taker:
    """
    Calls ``takes[i]`` in a thread of its own when ``subscriptions[i]`` has something.

    Begins at once; what a call raises is logged.  The subscriptions must stay until :meth:`end`
    has returned.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        subscriptions: list[Subscription],
        takes: list[Callable[[], None]],
    ) -> None:
        self._node = node
        self._waited = [(one.handle, one.topic_name, take)
                        for one, take in zip(subscriptions, takes, strict=True)]
        self._ending = threading.Event()
        self._wake = GuardCondition(None, None, context=node.context)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End; nothing is taken any more when this returns."""
        self._ending.set()
        self._wake.trigger()
        self._thread.join()
        self._wake.destroy()

    def _run(self) -> None:
        context = self._node.context
        with context.handle:
            wait_set = _rclpy.WaitSet(len(self._waited), 1, 0, 0, 0, 0, context.handle)
        while not self._ending.is_set() and context.ok():
            wait_set.clear_entities()
            for handle, _, _ in self._waited:
                wait_set.add_subscription(handle)
            wait_set.add_guard_condition(self._wake.handle)
            wait_set.wait(1_000_000_000)
            ready = wait_set.get_ready_entities('subscription')
            for handle, topic, take in self._waited:
                if handle.pointer in ready:
                    self._take(topic, take)
            time.sleep(PAUSE)

    def _take(self, topic: str, take: Callable[[], None]) -> None:
        try:
            take()
        except Exception:
            self._node.get_logger().error(
                f'{topic} cannot be taken:\n{traceback.format_exc()}', throttle_duration_sec=5.0
            )
