# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The generator of a bundle against the cost models of :mod:`egomotion_ros.bench.peers`.

All run in the runtime of the bundle with the same threads and settings.  One step of everybody
is timed in every round; a motion is that times the steps, plus what comes before and after.  The
steps of a sampler do not depend on each other's time, so that nothing is lost by not running all
1000.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from tqdm import tqdm

from egomotion_ros.bench.cpu import part_action
from egomotion_ros.bench.flops import count_flops
from egomotion_ros.bench.peers import PEERS, Peer, PeerDecoder, PeerStep, parameters
from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.base import Runtime
from egomotion_ros.runtimes.export import to_onnx
from egomotion_ros.runtimes.timing import Ratio, Timing, made_up_inputs, rounds


@dataclass(frozen=True)
class Versus:
    """
    One peer at one number of steps.

    ``milliseconds`` of a motion; ``slower`` how many times the time of the bundle's generator at
    its own steps; ``slower_at_equal_steps`` the same with the peer run at the bundle's steps;
    ``gflops`` arithmetic of a motion (10^9 operations).
    """

    name: str
    steps: int
    frames: int
    parameters: int
    gflops: float
    milliseconds: float
    step_milliseconds: Timing
    slower: Ratio
    slower_at_equal_steps: Ratio


@dataclass(frozen=True)
class Comparison:
    """``own_milliseconds`` of the bundle's generator at ``own_steps``, and every peer."""

    own_milliseconds: Timing
    own_steps: int
    peers: tuple[Versus, ...]

    def as_dict(self) -> dict[str, object]:
        """Return the figures for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Built:
    step: Callable[[], object]
    decode: Callable[[], object] | None
    step_flops: int
    decode_flops: int
    parameters: int


def measure(runtime: Runtime, bundle: Bundle, threads: int, runs: int,
            peers: tuple[Peer, ...] = PEERS) -> Comparison:
    """Export the peers, time everybody in the same rounds, and compare."""
    inputs = made_up_inputs(runtime)
    actions: dict[str, Callable[[], object]] = {
        f'own {name}': lambda name=name: runtime.run(name, **inputs[name])
        for name in ('condition', 'step', 'decode_motion')}
    built = {peer.name: _build(peer, threads, runtime.name)
             for peer in tqdm(peers, 'peers', leave=False)}
    for name, peer in built.items():
        actions[f'{name} step'] = peer.step
        if peer.decode is not None:
            actions[f'{name} decode'] = peer.decode
    spent = rounds(actions, runs, 'peers')
    own = (spent['own condition'] + bundle.steps * spent['own step']
           + spent['own decode_motion'])
    rows = []
    for peer in peers:
        item, step = built[peer.name], spent[f'{peer.name} step']
        after = spent.get(f'{peer.name} decode', np.zeros(runs))
        for steps in peer.steps:
            rows.append(Versus(
                peer.name, steps, peer.frames, item.parameters,
                (steps * item.step_flops + item.decode_flops) / 1e9,
                float(1000 * np.median(steps * step + after)), Timing.of(step),
                Ratio.of(steps * step + after, own),
                Ratio.of(bundle.steps * step + after, own)))
    return Comparison(Timing.of(own), bundle.steps, tuple(rows))


def _build(peer: Peer, threads: int, backend: str) -> _Built:
    step = PeerStep(peer).eval()
    graph = to_onnx(step)
    decode, decode_flops, count = None, 0, parameters(step)
    if peer.decoder is not None:
        decoder = PeerDecoder(peer).eval()
        last = to_onnx(decoder)
        decode, decode_flops = part_action(last, threads, backend), count_flops(last)
        count += parameters(decoder)
    return _Built(part_action(graph, threads, backend), decode, count_flops(graph),
                  decode_flops, count)
