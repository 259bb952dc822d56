# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Simulated time that costs little: Gazebo sends 1,000 clock messages a second."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.time_source import CLOCK_TOPIC

from egomotion_ros.nodes.taker import Apart, Taker


class ClockApart(Node):
    """
    A node whose ``/clock``, where ``use_sim_time`` has it listen, a thread of its own takes.

    Time moves on whether the executor is busy or not, in steps of 5 ms of wall time at least.
    Jump callbacks run in that thread.
    """

    def __init__(self, *args, **options) -> None:
        self._clock_takers: dict[Subscription, Taker] = {}
        super().__init__(*args, **options)

    def create_subscription(
        self, msg_type: type, topic: str, callback: Callable, *args, **options
    ) -> Subscription:
        """See rclpy; ``/clock`` is kept from the executor, whoever subscribes to it."""
        if topic != CLOCK_TOPIC:
            return super().create_subscription(msg_type, topic, callback, *args, **options)
        options['callback_group'] = Apart()
        made = super().create_subscription(msg_type, topic, callback, *args, **options)

        def take() -> None:
            with made.handle:
                taken = made.handle.take_message(msg_type, False)
            if taken is not None:
                callback(taken[0])

        self._clock_takers[made] = Taker(self, 'clock', [made], [take])
        return made

    def destroy_subscription(self, subscription: Subscription) -> bool:
        """See rclpy; nothing is taken from ``subscription`` any more when this returns."""
        taker = self._clock_takers.pop(subscription, None)
        if taker is not None:
            taker.end()
        return super().destroy_subscription(subscription)
