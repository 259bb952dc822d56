# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Resident memory that every graph of a bundle adds, loaded one after another in a fresh process.

``python -m egomotion_ros.bench.memory BUNDLE THREADS BACKEND`` prints it as JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
import subprocess
import sys

import psutil

from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.timing import made_up_inputs

_MB = 1e6
_RUNS = 5
_MOST_SECONDS = 600


def measure(bundle: Path, threads: int, backend: str) -> dict[str, float]:
    """
    Megabytes by graph, and ``process``: all of it with interpreter and libraries.

    One of ``CPU_BACKENDS``, in a child process.  Raises ValueError with what the child said when
    it fails, or when it takes too long.
    """
    try:
        done = subprocess.run([sys.executable, '-m', __name__, str(bundle), str(threads),
                               backend], capture_output=True, text=True, timeout=_MOST_SECONDS)
    except subprocess.TimeoutExpired:
        raise ValueError(f'measuring memory took more than {_MOST_SECONDS} s') from None
    if done.returncode != 0:
        raise ValueError(f'measuring memory failed: {done.stderr.strip()[-500:]}')
    return json.loads(done.stdout)


def resident() -> float:
    """Megabytes of this process that lie in memory."""
    return psutil.Process().memory_info().rss / _MB


def _measure_here(directory: Path, threads: int, backend: str) -> dict[str, float]:
    from egomotion_ros.bench.cpu import open_graphs
    bundle = Bundle.open(directory)
    found, kept = {}, []
    for name, spec in bundle.graphs.items():
        before = resident()
        runtime = open_graphs(backend, {name: spec}, threads)
        inputs = made_up_inputs(runtime)[name]
        for _ in range(_RUNS):
            runtime.run(name, **inputs)
        kept.append(runtime)
        found[name] = max(resident() - before, 0.0)
    return found | {'process': resident()}


if __name__ == '__main__':
    print(json.dumps(_measure_here(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
