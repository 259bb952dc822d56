# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Time of the model graphs of a plan, side by side with the same modules in eager torch.

Graphs that draw several candidates at once are compared with modules that draw one after the
other; ``egomotion bench`` compares with both.
"""

from __future__ import annotations

from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.base import open_runtime
from egomotion_ros.runtimes.timing import Ratio, Timing, plan_actions, rounds


def measure(bundle: Bundle, backend: str, threads: int = 2, runs: int = 20) -> dict[str, object]:
    """
    Time all graphs of a plan, and eager torch in the same rounds where torch is installed.

    Returns ``graphs_p50_ms``, ``torch_p50_ms`` and ``ratio`` (value, low, high of the 95 %
    interval); the latter two are None, and ``why`` says why, where torch is missing.  The modules
    have the bundle's sizes and random weights: their time is the same.  Raises RuntimeError when
    the backend cannot run, ValueError for fewer than one run.
    """
    report: dict[str, object] = {'backend': backend, 'threads': threads, 'runs': runs,
                                 'torch_p50_ms': None, 'ratio': None}
    runtime = open_runtime(backend, bundle, threads)
    try:
        sides = {'graphs': plan_actions(runtime, bundle)['plan']}
        try:
            import torch

            from egomotion_ros.runtimes.torch_runtime import TorchRuntime, modules_of
        except ImportError as error:
            report['why'] = f'needs the training packages: {error}'
        else:
            torch.set_num_threads(threads)
            # As the models are defined: one motion at a time.
            sides['torch'] = plan_actions(TorchRuntime(modules_of(bundle, batched=False)),
                                          bundle)['plan']
        spent = rounds(sides, runs, 'graphs')
    finally:
        runtime.close()
    for name, seconds in spent.items():
        report[f'{name}_p50_ms'] = Timing.of(seconds).p50
    if 'torch' in spent:
        report['ratio'] = Ratio.of(spent['torch'], spent['graphs']).as_dict()
    return report
