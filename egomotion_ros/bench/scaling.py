# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Cost against the number of primitives, steps, pictures, frames of motion and threads.

Within one figure all sizes are timed in the same rounds.  Other lengths of motion and more
pictures need graphs of another shape: the bundle's own sizes with random weights, exported for
the occasion (torch).  A plan takes one picture; what more would cost is shown, not what they
would be good for.
"""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from egomotion_ros.bench.cpu import CPU_BACKENDS, open_graphs
from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.base import Runtime
from egomotion_ros.runtimes.loops import TimeMemory, sample_latents
from egomotion_ros.runtimes.timing import Timing, made_up_inputs, plan_actions, rounds

_STEPS = (1, 2, 4, 8, 16, 32)
#: Windows of 8 frames: 2.7, 5 and 10 seconds at 30 Hz.
_WINDOWS = (10, 19, 38)
_IMAGES = (1, 2, 4)

Curve = dict[str, dict[str, float]]


def measure(runtime: Runtime, bundle: Bundle, threads: int, runs: int) -> dict[str, object]:
    """Milliseconds by size for every dimension; ``notes`` says what cannot be varied and why."""
    curves: dict[str, object] = {}
    notes = {}
    if 'decode' in bundle.graphs:
        curves['primitives'] = _curve(primitive_actions(runtime, bundle), runs, 'primitives')
        if bundle.decoder == 'parallel':
            notes['primitives'] = 'one by one; the bundle decodes them at once'
    else:
        notes['primitives'] = 'the bundle decodes all primitives at once; nothing grows with them'
    curves['steps'] = _curve(step_actions(runtime, bundle), runs, 'steps')
    if runtime.name not in CPU_BACKENDS:
        notes['images, frames, threads'] = (
            f'varied on the CPU only, in {" and ".join(CPU_BACKENDS)}')
        return {**curves, 'notes': notes}
    try:
        curves['images'] = _images(runtime, bundle, threads, runs)
        curves['frames'] = _frames(runtime.name, bundle, threads, runs)
    except ImportError as error:
        notes['images, frames'] = f'needs torch ({error}); pip install -r requirements/train.txt'
    curves['threads'] = _threads(runtime.name, bundle, runs)
    return {**curves, 'notes': notes}


def primitive_actions(runtime: Runtime, bundle: Bundle) -> dict[str, Callable[[], object]]:
    """Reading the prompt and decoding the first n primitives one by one."""
    inputs = made_up_inputs(runtime)

    def decode(count: int) -> None:
        for name in ('vision', 'prefill'):
            runtime.run(name, **inputs[name])
        for _ in range(count):
            runtime.run('decode', **inputs['decode'])

    counts = sorted({0, 1, bundle.windows // 4, bundle.windows // 2, bundle.windows})
    return {str(n): lambda n=n: decode(n) for n in counts}


def step_actions(runtime: Runtime, bundle: Bundle) -> dict[str, Callable[[], object]]:
    """Sampling with n steps, condition and motion decoder included."""
    inputs = made_up_inputs(runtime)['condition']
    known = np.zeros((0, bundle.channels), np.float32)
    times = {n: TimeMemory() for n in _STEPS}

    def generate(steps: int) -> None:
        latents = sample_latents(runtime, bundle, inputs['states'][0], inputs['mask'][0], known,
                                 0, steps, bundle.guidance, times[steps])
        runtime.run('decode_motion', latents=latents[None])

    return {str(n): lambda n=n: generate(n) for n in _STEPS}


def _curve(actions: dict[str, Callable[[], object]], runs: int, label: str) -> Curve:
    return {name: Timing.of(seconds).as_dict()
            for name, seconds in rounds(actions, runs, label).items()}


def _threads(backend: str, bundle: Bundle, runs: int) -> Curve:
    """All graphs of a plan with 1, 2, 4, .. threads up to the cores of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    counts = [n for n in (1, 2, 4, 8, 16) if n <= max(cores or 1, 2)]
    runtimes = {n: open_graphs(backend, bundle.graphs, n) for n in counts}
    try:
        return _curve({str(n): plan_actions(runtime, bundle)['plan']
                       for n, runtime in runtimes.items()}, runs, 'threads')
    finally:
        for runtime in runtimes.values():
            runtime.close()


def _images(runtime: Runtime, bundle: Bundle, threads: int, runs: int) -> Curve:
    """Seeing n pictures one after the other and reading them in one prompt."""
    from egomotion_ros.bench.lengths import export_images
    seen = made_up_inputs(runtime)['vision']
    with TemporaryDirectory() as folder:
        actions, opened = {}, []
        try:
            for images in _IMAGES:
                specs = export_images(bundle, images, Path(folder) / str(images))
                wider = open_graphs(runtime.name, specs, threads)
                opened.append(wider)
                inputs = made_up_inputs(wider)['prefill']

                def read(images: int = images, wider: Runtime = wider,
                         inputs: dict[str, np.ndarray] = inputs) -> None:
                    for _ in range(images):
                        runtime.run('vision', **seen)
                    wider.run('prefill', **inputs)

                actions[str(images)] = read
            return _curve(actions, runs, 'images')
        finally:
            for wider in opened:
                wider.close()


def _frames(backend: str, bundle: Bundle, threads: int, runs: int) -> Curve:
    """Generator and motion decoder at the bundle's steps, for other lengths of motion."""
    from egomotion_ros.bench.lengths import export_length
    with TemporaryDirectory() as folder:
        actions, opened = {}, []
        for windows in _WINDOWS:
            specs = export_length(bundle, windows, Path(folder) / str(windows))
            runtime = open_graphs(backend, specs, threads)
            opened.append(runtime)
            inputs = made_up_inputs(runtime)

            def generate(runtime: Runtime = runtime,
                         inputs: dict[str, dict[str, np.ndarray]] = inputs) -> None:
                for _ in range(bundle.steps):
                    runtime.run('step', **inputs['step'])
                runtime.run('decode_motion', **inputs['decode_motion'])

            actions[str(windows * bundle.window)] = generate
        curve = _curve(actions, runs, 'frames')
        for runtime in opened:
            runtime.close()
    return curve
