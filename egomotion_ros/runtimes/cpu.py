# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What CPU is there?  Kernels are chosen by its instruction sets, and so are their answers."""

from __future__ import annotations

from dataclasses import dataclass
import hashlib
from pathlib import Path
import platform


@dataclass(frozen=True)
class Cpu:
    """``name`` as the system tells it, ``features`` a digest of its instruction sets."""

    name: str
    features: str

    @property
    def key(self) -> str:
        """All that a verdict depends on; virtual machines give many CPUs one name."""
        return f'{self.name} {self.features}'


def probe_cpu() -> Cpu:
    """Name the CPU this process runs on; what the system does not tell stays general."""
    name, features = platform.processor() or platform.machine(), ''
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            key, _, value = (part.strip() for part in line.partition(':'))
            if key == 'model name':
                name = value
            elif key in ('flags', 'Features'):
                features = hashlib.sha256(value.encode()).hexdigest()[:16]
                break
    except OSError:
        pass
    return Cpu(name, features)
