# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cost models of other generators have the sizes that are published, and are compared fairly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from egomotion_ros.bench import versus
from egomotion_ros.bench.cpu import CPU_BACKENDS, open_graphs
from egomotion_ros.bench.peers import (
    FRAMES,
    PEERS,
    Peer,
    PeerDecoder,
    PeerStep,
    Stack,
    Transformer,
    parameters,
)
from egomotion_ros.bundle import Bundle

BY_NAME = {peer.name: peer for peer in PEERS}


def linear(*sizes: tuple[int, int]) -> int:
    """Weights and biases of linear layers."""
    return sum(a * b + b for a, b in sizes)


def encoder(layers: int, width: int, heads: int, hidden: int) -> int:
    return layers * parameters(nn.TransformerEncoderLayer(width, heads, hidden))


def decoder(layers: int, width: int, heads: int, hidden: int) -> int:
    return layers * parameters(nn.TransformerDecoderLayer(width, heads, hidden))


@pytest.mark.parametrize(('name', 'expected'), [
    # Layers, features in and out, time, text: what the public MDM builds beside CLIP.
    ('MDM', encoder(8, 512, 4, 1024) + linear((263, 512), (512, 263), (512, 512), (512, 512),
                                              (512, 512))),
    # Layers, four long skips, time, text.
    ('MLD', encoder(9, 256, 4, 1024) + 4 * linear((512, 256))
     + linear((768, 256), (256, 256), (768, 256))),
    # As MLD, and the way into and out of the narrow latent.
    ('MotionLCM-V2', encoder(9, 256, 4, 1024) + 4 * linear((512, 256))
     + linear((768, 256), (256, 256), (768, 256), (32, 256), (256, 32))),
    # Layers, features in and out, time, image features.
    ('UniEgoMotion', decoder(12, 768, 12, 1536) + linear(
        (243, 768), (768, 243), (768, 768), (768, 768), (1024, 768))),
])
def test_denoisers_are_as_large_as_their_configurations(name: str, expected: int) -> None:
    assert parameters(PeerStep(BY_NAME[name])) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize('name', ['MLD', 'MotionLCM-V2'])
def test_decoders_give_every_frame(name: str) -> None:
    peer = PeerDecoder(BY_NAME[name]).eval()
    with torch.inference_mode():
        assert peer(*peer.example()).shape == (1, FRAMES, 263)
    assert parameters(peer) == pytest.approx(
        decoder(9, 256, 4, 1024) + 4 * linear((512, 256)) + linear((256, 263)), rel=0.01)


def test_the_rows_of_a_transformer_see_each_other_and_the_context() -> None:
    torch.manual_seed(0)
    model = Transformer(Stack(3, 16, 2, 32, cross=True, skips=True)).eval()
    x, context = torch.randn(1, 4, 16), torch.randn(1, 2, 16)
    with torch.inference_mode():
        y = model(x, context)
        changed = x.clone()
        changed[0, 3] += 1
        assert (model(changed, context)[0, 0] != y[0, 0]).any()
        assert (model(x, context + 1)[0, 0] != y[0, 0]).any()


@pytest.mark.parametrize('backend', CPU_BACKENDS)
def test_a_motion_costs_its_steps_and_its_decoder(tiny_bundle: Path, backend: str) -> None:
    pytest.importorskip(backend)
    bundle = Bundle.open(tiny_bundle)
    runtime = open_graphs(backend, bundle.graphs, threads=1)
    peer = Peer('small', Stack(1, 16, 2, 32), tokens=3, channels=8, condition=4, steps=(5, 10),
                extra=2, frames=6, features=7, decoder=Stack(1, 16, 2, 32, cross=True))
    found = versus.measure(runtime, bundle, 1, 4, (peer,))
    runtime.close()
    assert [item.steps for item in found.peers] == [5, 10]
    five, ten = found.peers
    # Five more steps cost five times a step, whatever the decoder costs.
    step = 2 * (5 * 16 * (4 * 16 + 2 * 32) + 2 * 2 * 25 * 8)
    assert 1e9 * (ten.gflops - five.gflops) / 5 == pytest.approx(
        step + 2 * (3 * 8 * 16 * 2 + 4 * 16 + 16 * 4 + 16 * 16))
    assert ten.milliseconds > five.milliseconds
    assert ten.slower.value > five.slower.value > 0
    assert ten.slower_at_equal_steps == five.slower_at_equal_steps
    assert found.own_steps == bundle.steps
