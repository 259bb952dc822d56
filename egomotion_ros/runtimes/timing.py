# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Time graphs and whole plans: percentiles, and several variants side by side in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
import time

import numpy as np
from tqdm import tqdm

from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.base import Runtime
from egomotion_ros.runtimes.loops import (
    PromptMemory,
    TimeMemory,
    decode_primitives,
    sample_candidates,
)

_WARM = 3


@dataclass(frozen=True)
class Timing:
    """Milliseconds: median, 95th and 99th percentile of ``runs`` runs."""

    p50: float
    p95: float
    p99: float
    runs: int

    @staticmethod
    def of(seconds: list[float] | np.ndarray) -> Timing:
        """Summarise measured seconds."""
        p50, p95, p99 = (float(1000 * q) for q in np.percentile(seconds, [50, 95, 99]))
        return Timing(p50, p95, p99, len(seconds))

    def as_dict(self) -> dict[str, float]:
        """Return the figures for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Ratio:
    """How many times as long one variant takes as another, with its 95 % interval."""

    value: float
    low: float
    high: float

    @staticmethod
    def of(slower: np.ndarray, faster: np.ndarray, draws: int = 1000) -> Ratio:
        """
        Ratio of medians of two variants measured in the same rounds, seconds (rounds,).

        The interval is the percentile bootstrap (Efron 1979) over rounds: both variants of a
        round are drawn together, because they saw the same load.  Raises ValueError for lengths
        that differ or are zero.
        """
        slower, faster = np.asarray(slower), np.asarray(faster)
        if slower.shape != faster.shape or slower.ndim != 1 or len(slower) == 0:
            raise ValueError('a ratio needs as many rounds of both variants, got '
                             f'{slower.shape} and {faster.shape}')
        drawn = np.random.default_rng(0).integers(0, len(slower), (draws, len(slower)))
        ratios = np.median(slower[drawn], axis=1) / np.median(faster[drawn], axis=1)
        low, high = np.percentile(ratios, [2.5, 97.5])
        return Ratio(float(np.median(slower) / np.median(faster)), float(low), float(high))

    def as_dict(self) -> dict[str, float]:
        """Return the figures for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the ratio with its interval."""
        return f'{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]'


def rounds(actions: Mapping[str, Callable[[], object]], runs: int, label: str = '',
           warm: int = _WARM) -> dict[str, np.ndarray]:
    """
    Time ``actions`` ``runs`` times, each round in another random order; seconds (runs,) of each.

    What else the machine does hits all alike, and none always runs after the same other one.
    Every action runs ``warm`` times before.  ``label`` names a progress bar.  Raises ValueError
    for fewer than one run.
    """
    if runs < 1:
        raise ValueError(f'runs must be at least 1, got {runs}')
    for action in actions.values():
        for _ in range(warm):
            action()
    names = list(actions)
    random = np.random.default_rng(0)
    spent = {name: np.zeros(runs) for name in names}
    for n in tqdm(range(runs), desc=label, disable=not label, leave=False):
        for name in random.permutation(names):
            start = time.perf_counter()
            actions[name]()
            spent[name][n] = time.perf_counter() - start
    return spent


def interleave(actions: Mapping[str, Callable[[], object]], runs: int,
               label: str = '') -> dict[str, Timing]:
    """Percentiles of :func:`rounds`."""
    return {name: Timing.of(seconds) for name, seconds in rounds(actions, runs, label).items()}


def made_up_inputs(runtime: Runtime, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Arrays for every graph: the time of a graph with static shapes does not depend on them."""
    random = np.random.default_rng(seed)
    return {name: {item.name: _array(random, item.shape, item.dtype) for item in spec.inputs}
            for name, spec in runtime.specs.items()}


def plan_actions(runtime: Runtime, bundle: Bundle) -> dict[str, Callable[[], object]]:
    """
    Return what a plan runs: each graph by name, and the loops over them.

    ``reason`` reads a prompt and decodes primitives, ``primitives`` decodes them alone (the prompt
    stands), ``generate`` samples and decodes a motion with three known windows, ``plan`` is reason
    and generate.
    """
    inputs = made_up_inputs(runtime)
    actions: dict[str, Callable[[], object]] = {
        name: lambda name=name: runtime.run(name, **inputs[name]) for name in runtime.specs}
    image, start, condition = inputs['vision']['image'], inputs['prefill'], inputs['condition']
    times, standing = TimeMemory(), PromptMemory()

    def reason(memory: PromptMemory | None = None) -> object:
        return decode_primitives(runtime, bundle, image[0], start['text'][0],
                                 start['text_mask'][0], start['camera'][0], 0, memory)

    def generate() -> object:
        known = runtime.run('encode', **inputs['encode'])['latents'][0, :3]
        drawn, _ = sample_candidates(runtime, bundle, condition['states'][0],
                                     condition['mask'][0], known, 0, bundle.steps,
                                     bundle.guidance, bundle.candidates, times)
        return [runtime.run('decode_motion', latents=latents[None]) for latents in drawn]

    return actions | {'reason': reason, 'primitives': lambda: reason(standing),
                      'generate': generate, 'plan': lambda: (reason(), generate())}


def _array(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype == 'float32':
        return random.standard_normal(shape).astype(np.float32)
    return np.ones(shape, dtype)
