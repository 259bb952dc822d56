# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the node says of its health: latency, ages, drops, memory, backend."""

from __future__ import annotations

from collections import deque
import os
from pathlib import Path
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np

from egomotion_ros.nodes.errors import ErrorCode
from egomotion_ros.nodes.images import converter_name

if TYPE_CHECKING:
    from egomotion_ros.nodes.observer import Observer

#: Count of plans whose latency is kept for the percentiles.
KEPT = 200


class Health:
    """Counts and times since the node was configured."""

    def __init__(self, name: str, backend: str, bundle_hash: str) -> None:
        self._name, self._backend, self._bundle = name, backend, bundle_hash
        self.firsts: deque[float] = deque(maxlen=KEPT)
        self.latencies: deque[float] = deque(maxlen=KEPT)
        self.stages: dict[str, float] = {}
        self.plans = self.unfollowed = self.failures = self.ignored = 0
        self.last_code, self.last_message = ErrorCode.NONE, ''

    def planned(self, first_ms: float, latency_ms: float, stages: dict[str, float]) -> None:
        """Count a plan whose first points, and then all of it, were published."""
        self.plans += 1
        self.firsts.append(first_ms)
        self.latencies.append(latency_ms)
        self.stages = dict(stages)
        self.last_code, self.last_message = ErrorCode.NONE, ''

    def failed(self, code: ErrorCode, message: str) -> None:
        """Count a plan that was refused or failed, or a stop."""
        self.failures += 1
        self.last_code, self.last_message = code, message

    def report(self, stamp, state: str, observer: Observer, output_enabled: bool):
        """Make a ``diagnostic_msgs/DiagnosticArray``."""
        values = {
            'state': state,
            'backend': self._backend,
            'bundle': self._bundle[:12],
            'image converter': converter_name(),
            'output enabled': output_enabled,
            'plans': self.plans,
            'plans not followed': self.unfollowed,
            'refused, failed or stopped': self.failures,
            'instructions ignored': self.ignored,
            'memory [MB]': f'{memory_megabytes():.0f}',
        }
        for name, kept in (('first points', self.firsts), ('latency', self.latencies)):
            if kept:
                p50, p95 = np.percentile(kept, [50, 95])
                values[f'{name} p50 [ms]'] = f'{p50:.0f}'
                values[f'{name} p95 [ms]'] = f'{p95:.0f}'
                values[f'{name} last [ms]'] = f'{kept[-1]:.0f}'
        for stage, spent in self.stages.items():
            values[f'{stage} last [ms]'] = f'{spent:.0f}'
        for channel in observer.channels:
            values[f'{channel.topic} subscribed'] = channel.is_open
            for what, count in channel.counts().items():
                values[f'{channel.topic} {what}'] = count
            if channel.is_open:
                values[f'{channel.topic} age [s]'] = f'{channel.age():.3f}'
        fine = self.last_code == ErrorCode.NONE
        status = DiagnosticStatus(
            level=DiagnosticStatus.OK if fine else DiagnosticStatus.WARN,
            name=f'{self._name}: motion',
            message=state if fine else f'{self.last_code.name}: {self.last_message}',
            hardware_id='egomotion',
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = stamp
        return array


def memory_megabytes() -> float:
    """Resident memory of this process (MB)."""
    pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6
