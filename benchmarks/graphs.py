# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Which ONNX Runtime settings suit the graphs of a bundle on this machine.

All settings are timed in turn within one run, so that other load hits all alike.  Prints the
milliseconds of one plan (all graphs, as the loops run them), the CPU milliseconds it costs, and
the resident memory each setting adds.  ``egomotion bench --torch`` gives the figures by graph.
"""

import argparse
from pathlib import Path
import time

import numpy as np
import onnxruntime
from tqdm import tqdm

from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.ort import OrtRuntime, session_options
from egomotion_ros.runtimes.timing import plan_actions


def settings(threads: int) -> dict[str, onnxruntime.SessionOptions]:
    """Name -> options; the first is what the package uses."""
    plain = onnxruntime.GraphOptimizationLevel
    found = {'as shipped': session_options(threads)}

    def variant(name: str, entry: tuple[str, str] | None = None, **values: object) -> None:
        options = session_options(threads)
        for key, value in values.items():
            setattr(options, key, value)
        if entry:
            options.add_session_config_entry(*entry)
        found[name] = options

    variant('spin', ('session.intra_op.allow_spinning', '1'))
    variant('large blocks', ('session.dynamic_block_base', '0'))
    variant('no arena', enable_cpu_mem_arena=False)
    variant('no memory pattern', enable_mem_pattern=False)
    variant('basic optimisation', graph_optimization_level=plain.ORT_ENABLE_BASIC)
    variant('no prepacking', ('session.disable_prepacking', '1'))
    variant('one thread', intra_op_num_threads=1)
    return found


def resident() -> float:
    """Resident memory of this process, MB."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('bundle', nargs='?', default=None, help='default: the one that ships')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--runs', type=int, default=40)
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    actions, memory = {}, {}
    for name, options in settings(args.threads).items():
        before = resident()
        actions[name] = plan_actions(OrtRuntime(bundle.graphs, options=options), bundle)['plan']
        for _ in range(3):
            actions[name]()
        memory[name] = resident() - before
    wall: dict[str, list[float]] = {name: [] for name in actions}
    cpu: dict[str, list[float]] = {name: [] for name in actions}
    for _ in tqdm(range(args.runs), leave=False):
        for name, action in actions.items():
            start, used = time.perf_counter(), time.process_time()
            action()
            wall[name].append(time.perf_counter() - start)
            # A pause shows what idle threads go on burning.
            time.sleep(0.01)
            cpu[name].append(time.process_time() - used)
    print(f'{"one plan":20}   p50 ms  p95 ms  CPU ms  memory MB')
    for name in actions:
        p50, p95 = 1000 * np.percentile(wall[name], [50, 95])
        print(f'{name:20} {p50:8.1f} {p95:7.1f} {1000 * np.median(cpu[name]):7.1f} '
              f'{memory[name]:10.1f}')


if __name__ == '__main__':
    main()
