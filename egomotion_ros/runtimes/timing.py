# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Time graphs and whole plans: percentiles, and two runtimes side by side in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
import time

import numpy as np
from tqdm import tqdm

from egomotion_ros.bundle import GRAPHS, Bundle
from egomotion_ros.runtimes.base import Runtime
from egomotion_ros.runtimes.loops import decode_primitives, sample_latents

_WARM = 3


@dataclass(frozen=True)
class Timing:
    """Milliseconds: median, 95th and 99th percentile of ``runs`` runs."""

    p50: float
    p95: float
    p99: float
    runs: int

    @staticmethod
    def of(seconds: list[float]) -> Timing:
        """Summarise measured seconds."""
        p50, p95, p99 = (float(1000 * q) for q in np.percentile(seconds, [50, 95, 99]))
        return Timing(p50, p95, p99, len(seconds))

    def as_dict(self) -> dict[str, float]:
        """Return the figures for JSON."""
        return asdict(self)


def interleave(actions: Mapping[str, Callable[[], object]], runs: int,
               label: str = '') -> dict[str, Timing]:
    """
    Time ``actions`` in turn, ``runs`` times: what else the machine does hits all alike.

    ``label`` names a progress bar.  Raises ValueError for fewer than one run.
    """
    if runs < 1:
        raise ValueError(f'runs must be at least 1, got {runs}')
    for action in actions.values():
        for _ in range(_WARM):
            action()
    spent: dict[str, list[float]] = {name: [] for name in actions}
    for _ in tqdm(range(runs), desc=label, disable=not label, leave=False):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            spent[name].append(time.perf_counter() - start)
    return {name: Timing.of(seconds) for name, seconds in spent.items()}


def plan_actions(runtime: Runtime, bundle: Bundle) -> dict[str, Callable[[], object]]:
    """
    What a plan runs: each graph by name, ``reason`` and ``generate`` as the loops run them.

    Inputs are made up: the time of a graph with static shapes does not depend on them.
    """
    random = np.random.default_rng(0)
    inputs = {name: {item.name: _array(random, item.shape, item.dtype) for item in spec.inputs}
              for name, spec in runtime.specs.items()}
    actions: dict[str, Callable[[], object]] = {
        name: lambda name=name: runtime.run(name, **inputs[name]) for name in GRAPHS}
    start, condition = inputs['prefill'], inputs['condition']

    def reason() -> object:
        return decode_primitives(runtime, bundle, start['image'][0], start['text'][0],
                                 start['text_mask'][0], start['camera'][0], 0)

    def generate() -> object:
        known = runtime.run('encode', **inputs['encode'])['latents'][0, :3]
        latents = sample_latents(runtime, bundle, condition['states'][0], condition['mask'][0],
                                 known, 0, bundle.steps, bundle.guidance)
        return runtime.run('decode_motion', latents=latents[None])

    return actions | {'reason': reason, 'generate': generate,
                      'plan': lambda: (reason(), generate())}


def _array(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype == 'float32':
        return random.standard_normal(shape).astype(np.float32)
    return np.ones(shape, dtype)
