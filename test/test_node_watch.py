# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What egomotion_node holds for a clock that was set."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rclpy.time import Time

from egomotion_ros.nodes.watch import Watch

MS = 1_000_000


class World:
    """A machine whose two clocks are read by a thread that may have to wait between the reads."""

    def __init__(self) -> None:
        self.elapsed, self.set_by, self.waits = 10_000_000 * MS, 0, []
        system = SimpleNamespace(ros_time_is_active=False, now=lambda: self._read(self.set_by))
        node = SimpleNamespace(get_clock=lambda: system,
                               steady_clock=SimpleNamespace(now=lambda: self._read(0)))
        self.watch = Watch(node, None, None)

    def _read(self, offset: int) -> Time:
        now = self.elapsed + offset
        self.elapsed += self.waits.pop(0) if self.waits else 0
        return Time(nanoseconds=now)

    def look(self, *waits: int) -> int:
        """Look 20 ms later; ``waits`` (ns) is what the thread waits after each read."""
        self.elapsed += 20 * MS
        self.waits = list(waits)
        return self.watch.slip()


@pytest.mark.parametrize('waits', [(300 * MS, 0), (0, 300 * MS), (300 * MS, 300 * MS)])
def test_a_thread_that_waits_between_two_clocks_does_not_see_one_being_set(waits):
    world = World()
    assert [world.look(), world.look(*waits), world.look(), world.look()] == [0] * 4


@pytest.mark.parametrize('by', [-3600_000 * MS, -200 * MS, 200 * MS, 3600_000 * MS])
def test_a_clock_that_was_set_is_seen_once_also_after_a_wait(by):
    world = World()
    assert world.look() == 0
    world.set_by = by
    assert world.look(300 * MS) == 0
    assert abs(world.look(4 * MS, 4 * MS) - by) <= 10 * MS
    assert world.look() == 0
