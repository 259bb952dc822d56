# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Time of the model graphs of a plan, side by side with the same modules in eager torch."""

from __future__ import annotations

from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.base import open_runtime
from egomotion_ros.runtimes.timing import interleave, plan_actions


def measure(bundle: Bundle, backend: str, threads: int = 2, runs: int = 20) -> dict[str, object]:
    """
    Time all graphs of a plan, and of eager torch in turn where torch is installed.

    Returns ``graphs_p50_ms`` and ``torch_p50_ms`` (None, and ``why``, where torch is missing).
    The modules have the bundle's sizes and random weights: their time is the same.  Raises
    RuntimeError when the backend cannot run, ValueError for fewer than one run.
    """
    report: dict[str, object] = {'backend': backend, 'threads': threads, 'runs': runs,
                                 'torch_p50_ms': None}
    runtime = open_runtime(backend, bundle, threads)
    try:
        sides = {backend: plan_actions(runtime, bundle)['plan']}
        try:
            import torch

            from egomotion_ros.runtimes.torch_runtime import TorchRuntime, modules_of
        except ImportError as error:
            report['why'] = f'needs the training packages: {error}'
        else:
            torch.set_num_threads(threads)
            sides['torch'] = plan_actions(TorchRuntime(modules_of(bundle)), bundle)['plan']
        timings = interleave(sides, runs, 'graphs')
    finally:
        runtime.close()
    report['graphs_p50_ms'] = timings[backend].p50
    if 'torch' in timings:
        report['torch_p50_ms'] = timings['torch'].p50
    return report
