# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Samples drawn ahead of time by other processes; test_training.py runs these checks."""

from __future__ import annotations

import gc
import multiprocessing
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from egomotion_ros.training import loop
from egomotion_ros.training.loop import Samples, TrainingConfig, ahead


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let samples be drawn as if a GPU waited for them; there is none to wait."""
    monkeypatch.setattr(loop, 'processes', lambda: SimpleNamespace(
        device=torch.device('cuda'), num_processes=1, process_index=0))
    monkeypatch.setattr(loop.os, 'sched_getaffinity', lambda process: set(range(4)))


@pytest.mark.filterwarnings('ignore:.*pin_memory|.*worker processes')
def test_what_is_drawn_ahead_is_what_is_drawn_in_place(request: pytest.FixtureRequest) -> None:
    def draw(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        return {'where': torch.from_numpy(rng.random((3, 2))),
                'process': torch.tensor(os.getpid())}

    config = TrainingConfig(steps=9)
    here = Samples(draw, config)
    first = [here(step) for step in range(9)]
    assert {int(sample['process']) for sample in first} == {os.getpid()}
    request.getfixturevalue('waiting')
    there = Samples(draw, config)
    before = torch.get_rng_state()
    # A run that goes on at step 5, steps in order, and one asked for again.
    for step in (5, 6, 7, 8, 0, 1, 1):
        sample = there(step)
        assert torch.equal(sample['where'], first[step]['where'])
        assert int(sample['process']) != os.getpid()
    assert not torch.equal(first[0]['where'], first[1]['where'])
    # Losses draw from the same numbers whether or not a run has just begun.
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings('ignore:.*pin_memory|.*worker processes')
@pytest.mark.parametrize('steps', [4, 100])
def test_who_draws_ahead_ends_with_the_run(waiting: None, steps: int) -> None:
    samples = Samples(lambda rng: torch.from_numpy(rng.random(2)), TrainingConfig(steps=steps))
    for step in range(3):
        samples(step)
    assert multiprocessing.active_children()
    gc.disable()
    try:
        if steps == 4:
            samples(3)  # the last one
        else:
            del samples  # a run that failed
        assert not multiprocessing.active_children()
    finally:
        gc.enable()


@pytest.mark.filterwarnings('ignore:.*pin_memory|.*worker processes')
def test_a_sample_that_cannot_be_drawn_stops_the_run(waiting: None) -> None:
    def draw(item: int) -> torch.Tensor:
        if item == 2:
            raise ValueError('a broken shard')
        return torch.tensor(item)

    coming = ahead(draw, [0, 1, 2, 3])
    assert [int(next(coming)), int(next(coming))] == [0, 1]
    with pytest.raises(ValueError, match='a broken shard'):
        next(coming)
