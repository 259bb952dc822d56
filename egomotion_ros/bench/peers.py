# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Cost models of other motion generators: their shapes in plain transformers of our own.

Random weights, no text or image encoders: one denoising step and what turns latents into frames,
as the papers and the public configurations state them.  Sources, read in November 2026:

- MLD (Chen et al., CVPR 2023, arXiv 2212.04048; ChenFengYe/motion-latent-diffusion,
  configs/modules/denoiser.yaml, configs/config_mld_humanml3d.yaml): one 256-d latent, 9 layers
  with long skips, 4 heads, 1024 hidden, guidance 7.5, 50 DDIM steps; VAE decoder of the same size.
- MDM (Tevet et al., ICLR 2023, arXiv 2209.14916; GuyTevet/motion-diffusion-model, model/mdm.py):
  8 encoder layers over frames, 512-d, 4 heads, 1024 hidden, 263 features, guidance 2.5;
  1000 steps, later 50.
- MotionLCM-V2 (Dai et al., ECCV 2024 and its sequel; Dai-Wenxun/MotionLCM,
  configs/motionlcm_t2m.yaml, configs/modules): 16 x 32 latent, 256-d inside, 9 layers with long
  skips, guidance distilled into the model, 4 steps; decoder as MLD's.
- UniEgoMotion (Patel et al., ICCV 2025, arXiv 2508.01126; chaitanya100100/UniEgoMotion,
  model/uniegomotion.py, config/uem.yaml): 12 decoder layers, 768-d, 12 heads, 1536 hidden, 243
  features, 80 frames with one DINOv2 feature each, 1000 DDPM steps without guidance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from egomotion_ros.runtimes.export_graphs import Graph

#: Frames of a plan, and of UniEgoMotion's window.
FRAMES = 150
_UNIEGOMOTION_FRAMES = 80


@dataclass(frozen=True)
class Stack:
    """
    A stack of transformer layers.

    ``cross`` attends to a context too; ``skips`` feeds the first half's outputs into the second
    half, as in a U-Net; ``first_norm`` normalises before each part instead of after it.
    """

    layers: int
    width: int
    heads: int
    hidden: int
    cross: bool = False
    skips: bool = False
    first_norm: bool = False


class Attention(nn.Module):
    """Multi-head attention with biases; the scores are written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.pair = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Attend from ``x`` (B, M, width) to ``source`` (B, N, width)."""
        batch, rows, width = x.shape
        query = self.query(x).reshape(batch, rows, self.heads, -1).transpose(1, 2)
        key, value = (part.reshape(batch, source.shape[1], self.heads, -1).transpose(1, 2)
                      for part in self.pair(source).chunk(2, dim=-1))
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, rows, width))


class Layer(nn.Module):
    """Self-attention, cross-attention where asked for, feed-forward with GELU."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        width = stack.width
        self.first_norm = stack.first_norm
        self.self_attention = Attention(width, stack.heads)
        self.cross_attention = Attention(width, stack.heads) if stack.cross else None
        self.feed = nn.Sequential(nn.Linear(width, stack.hidden), nn.GELU(),
                                  nn.Linear(stack.hidden, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 + stack.cross))

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """``x`` (B, M, width), ``context`` (B, N, width)."""
        parts = [lambda y: self.self_attention(y, y)]
        if self.cross_attention is not None:
            parts.append(lambda y: self.cross_attention(y, context))
        for norm, part in zip(self.norms, [*parts, self.feed], strict=True):
            x = x + part(norm(x)) if self.first_norm else norm(x + part(x))
        return x


class Transformer(nn.Module):
    """The layers of a :class:`Stack`."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(stack) for _ in range(stack.layers))
        self.merges = nn.ModuleList(nn.Linear(2 * stack.width, stack.width)
                                    for _ in range(stack.layers // 2 if stack.skips else 0))
        self.norm = nn.LayerNorm(stack.width) if stack.skips else nn.Identity()

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``x`` (B, M, width) -> the same shape."""
        half, kept = len(self.merges), []
        for n, layer in enumerate(self.layers):
            if half and n > half:
                x = self.merges[n - half - 1](torch.cat([x, kept.pop()], dim=-1))
            x = layer(x, context)
            if n < half:
                kept.append(x)
        return self.norm(x)


@dataclass(frozen=True)
class Peer:
    """
    One other design.

    ``stack`` of the denoiser over ``tokens`` tokens of ``channels`` values and ``extra`` tokens of
    condition and time; ``passes`` 2 with guidance; ``context`` rows it attends to; ``condition``
    width of what text or image encoders give; ``steps`` it is run at.  ``decoder`` turns
    ``tokens`` latents into ``frames`` frames of ``features`` values, None where the denoiser works
    on frames.
    """

    name: str
    stack: Stack
    tokens: int
    channels: int
    condition: int
    steps: tuple[int, ...]
    frames: int = FRAMES
    features: int = 263
    extra: int = 1
    passes: int = 1
    context: int = 0
    decoder: Stack | None = None


_LATENT = Stack(layers=9, width=256, heads=4, hidden=1024, skips=True)
_DECODER = Stack(layers=9, width=256, heads=4, hidden=1024, skips=True, cross=True)
PEERS = (
    Peer('MLD', _LATENT, tokens=1, channels=256, condition=768, steps=(50,), extra=2, passes=2,
         decoder=_DECODER),
    Peer('MDM', Stack(8, 512, 4, 1024), tokens=FRAMES, channels=263, condition=512,
         steps=(50, 1000), passes=2),
    Peer('MotionLCM-V2', _LATENT, tokens=16, channels=32, condition=768, steps=(4,), extra=2,
         decoder=_DECODER),
    Peer('UniEgoMotion', Stack(12, 768, 12, 1536, cross=True, first_norm=True),
         tokens=_UNIEGOMOTION_FRAMES, channels=243, condition=1024, steps=(1000,),
         frames=_UNIEGOMOTION_FRAMES, features=243, context=_UNIEGOMOTION_FRAMES + 1))


class PeerStep(Graph):
    """One evaluation of a peer's denoiser, both passes of guidance at once."""

    inputs = ('x', 'time', 'condition')
    outputs = ('y',)

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self.peer, width = peer, peer.stack.width
        # A latent as wide as the transformer goes in and comes out as it is (MLD).
        plain = peer.decoder is not None and peer.channels == width
        self.inward = nn.Identity() if plain else nn.Linear(peer.channels, width)
        self.outward = nn.Identity() if plain else nn.Linear(width, peer.channels)
        wide = peer.condition if peer.decoder is not None else width
        self.time = nn.Sequential(nn.Linear(wide, width), nn.SiLU(), nn.Linear(width, width))
        self.embed = nn.Linear(peer.condition, width)
        self.position = nn.Parameter(torch.randn(peer.tokens + peer.extra, width) * 0.02)
        self.transformer = Transformer(peer.stack)

    def example(self) -> tuple[Tensor, ...]:
        """Random inputs; the time comes as its sinusoids."""
        peer = self.peer
        rows = max(peer.context - 1, 1)
        return (torch.randn(peer.passes, peer.tokens, peer.channels),
                torch.randn(peer.passes, self.time[0].in_features),
                torch.randn(peer.passes, rows, peer.condition))

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """``x`` (passes, tokens, channels) -> the same shape."""
        peer = self.peer
        step, known = self.time(time)[:, None], self.embed(condition)
        if peer.context:
            rows, context = torch.cat([step, self.inward(x)], 1), torch.cat([step, known], 1)
        elif peer.extra == 1:
            rows, context = torch.cat([step + known, self.inward(x)], 1), None
        else:
            rows, context = torch.cat([step, known, self.inward(x)], 1), None
        y = self.transformer(rows + self.position, context)
        return self.outward(y[:, peer.extra:])


class PeerDecoder(Graph):
    """Latents -> frames, by queries that attend to the latents."""

    inputs = ('latents',)
    outputs = ('features',)

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        if peer.decoder is None:
            raise ValueError(f'{peer.name} has no decoder')
        self.peer, width = peer, peer.decoder.width
        self.inward = nn.Identity() if peer.channels == width else nn.Linear(peer.channels, width)
        self.queries = nn.Parameter(torch.randn(1, peer.frames, width) * 0.02)
        self.transformer = Transformer(peer.decoder)
        self.outward = nn.Linear(width, peer.features)

    def example(self) -> tuple[Tensor, ...]:
        """Random latents."""
        return (torch.randn(1, self.peer.tokens, self.peer.channels),)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (1, tokens, channels) -> features (1, frames, features)."""
        return self.outward(self.transformer(self.queries, self.inward(latents)))


def parameters(module: nn.Module) -> int:
    """Count of weights."""
    return sum(weight.numel() for weight in module.parameters())
