# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Motion generator: a flow-matching transformer over motion latents.

Rectified flow (Liu et al. 2022; Lipman et al. 2022) with x_0 noise, x_1 motion,
x_t = (1 - t) x_0 + t x_1 and target v = x_1 - x_0; DiT blocks with adaptive norm for the time
(Peebles & Xie 2022), one shared modulation network and a table per block (PixArt-alpha, Chen et
al. 2023), RMS norm on queries and keys; cross-attention on the reasoner's frozen states
(EgoMotion, arXiv 2604.19105, stage 2); classifier-free guidance (Ho & Salimans 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import math

import torch
from torch import Tensor, nn
import torch.nn.functional as F

from egomotion_ros.aim import AIM
from egomotion_ros.models.grounding import GroundingHeads
from egomotion_ros.types import PLAN_WINDOWS


@dataclass(frozen=True)
class GeneratorConfig:
    """
    Sizes of the generator; ``state_width`` and ``channels`` follow reasoner and autoencoder.

    ``aims`` whether it reads from the states where a motion is to end.
    """

    channels: int = 48
    windows: int = PLAN_WINDOWS
    state_width: int = 160
    width: int = 192
    heads: int = 6
    layers: int = 6
    hidden: int = 576
    aims: bool = False


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys; K/V can be computed ahead."""

    def __init__(self, width: int, heads: int, source: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.pair = nn.Linear(source, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_norm = nn.RMSNorm(width // heads)
        self.key_norm = nn.RMSNorm(width // heads)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Source rows (B, N, source) -> K, V each (B, heads, N, width / heads)."""
        batch, rows, _ = source.shape
        key, value = self.pair(source).reshape(batch, rows, 2, self.heads, -1).permute(
            2, 0, 3, 1, 4).unbind()
        return self.key_norm(key), value

    def forward(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """Attend from ``x`` (B, M, width); ``bias`` is additive and broadcasts to (B, H, M, N)."""
        batch, rows, width = x.shape
        query = self.query_norm(self.query(x).reshape(batch, rows, self.heads, -1).transpose(1, 2))
        # Written out: rows are few, and the fused kernel's backward pass on a CPU is slower.
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        y = (scores if bias is None else scores + bias).softmax(-1) @ value
        return self.out(y.transpose(1, 2).reshape(batch, rows, width))


class Block(nn.Module):
    """Self-attention over time, cross-attention on the states, gated feed-forward."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_self = nn.RMSNorm(width, elementwise_affine=False)
        self.norm_cross = nn.RMSNorm(width)
        self.norm_mlp = nn.RMSNorm(width, elementwise_affine=False)
        self.self_attention = Attention(width, config.heads, width)
        self.cross_attention = Attention(width, config.heads, config.state_width)
        self.gate_up = nn.Linear(width, 2 * config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, width, bias=False)
        self.table = nn.Parameter(torch.randn(6, width) / width ** 0.5)

    def forward(self, x: Tensor, time: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """``x`` (B, W, width), ``time`` (B, 6, width), cross K/V of this block and its mask."""
        a, b, c, d, e, f = (time + self.table).unsqueeze(2).unbind(1)
        y = self.norm_self(x) * (1 + a) + b
        x = x + c * self.self_attention(y, *self.self_attention.keys_values(y), None)
        x = x + self.cross_attention(self.norm_cross(x), key, value, bias)
        y = self.norm_mlp(x) * (1 + d) + e
        gate, up = self.gate_up(y).chunk(2, dim=-1)
        return x + f * self.down(F.silu(gate) * up)


class AimHead(nn.Module):
    """
    Reading of the state before the first primitive: where the motion is to end.

    The poses are read as stage 1 read them (:meth:`adopt`) and are not trained on: what stage 2
    would add it would learn by heart.  ``asks`` tells whether a hand is to reach at all.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.windows = config.windows
        self.inward = nn.Linear(config.state_width, 2 * config.state_width)
        self.outward = nn.Linear(2 * config.state_width, AIM - 2)
        self.asks = nn.Linear(config.state_width, 2)

    def _shared(self, heads: GroundingHeads) -> Iterator[tuple[nn.Sequential, slice, slice]]:
        """Each head of the reasoner, its part of the hidden layer and its rows of the answer."""
        half = self.inward.out_features // 2
        parts = ((heads.target, slice(0, 4)), (heads.hands, slice(4, 10)))
        for n, (net, rows) in enumerate(parts):
            if net is not None:
                yield net, slice(n * half, (n + 1) * half), rows

    @torch.no_grad()
    def adopt(self, heads: GroundingHeads) -> None:
        """Take over the reasoner's own readings of that state; 0 where it has none of hands."""
        self.outward.weight.zero_()
        self.outward.bias.zero_()
        for net, part, rows in self._shared(heads):
            count = rows.stop - rows.start
            self.inward.weight[part], self.inward.bias[part] = net[0].weight, net[0].bias
            self.outward.weight[rows, part] = net[2].weight[:count]
            self.outward.bias[rows] = net[2].bias[:count]
        for layer in (self.inward, self.outward):
            layer.requires_grad_(False)

    @torch.no_grad()
    def give(self, heads: GroundingHeads) -> None:
        """Give a reasoner without its heads the readings back that :meth:`adopt` took over."""
        for net, part, rows in self._shared(heads):
            count = rows.stop - rows.start
            net[0].weight.copy_(self.inward.weight[part])
            net[0].bias.copy_(self.inward.bias[part])
            net[2].weight[:count] = self.outward.weight[rows, part]
            net[2].bias[:count] = self.outward.bias[rows]

    def forward(self, states: Tensor) -> Tensor:
        """States (B, N, state_width) -> (B, AIM) as in :mod:`egomotion_ros.aim`."""
        begin = states[:, -self.windows - 1]
        poses = self.outward(F.silu(self.inward(begin)))
        return torch.cat([poses, self.asks(begin)], dim=-1)


class MotionGenerator(nn.Module):
    """
    Velocity field of the flow over latents (B, 19, channels).

    The null condition of guidance is a learned row that replaces every state; the prefix (windows
    already being executed) stays known in both branches.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.inward = nn.Linear(2 * config.channels + 1, width)
        self.position = nn.Parameter(torch.randn(config.windows, width) * 0.02)
        self.state_norm = nn.RMSNorm(config.state_width)
        self.null_state = nn.Parameter(torch.randn(config.state_width) * 0.02)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width),
                                  nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm_out = nn.RMSNorm(width)
        self.outward = nn.Linear(width, config.channels)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)
        self.aim = AimHead(config) if config.aims else None

    def condition(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Cross-attention K and V of every block, once per plan.

        ``states`` (B, N, state_width), ``mask`` (B, N) True where real.  Returns K, V
        (layers, B, heads, N, width / heads) and the additive mask (B, 1, 1, N).
        """
        rows = self.state_norm(states)
        pairs = [block.cross_attention.keys_values(rows) for block in self.blocks]
        bias = torch.zeros_like(mask, dtype=states.dtype).masked_fill(~mask, -1e4)
        return (torch.stack([k for k, _ in pairs]), torch.stack([v for _, v in pairs]),
                bias[:, None, None, :])

    def null_condition(self, states: Tensor) -> Tensor:
        """The states of the unconditional branch, shaped like ``states``."""
        return self.null_state.expand_as(states)

    def modulation(self, t: Tensor) -> Tensor:
        """What the blocks are told of the times ``t`` (B,) in [0, 1]: (B, 6, width)."""
        frequency = torch.exp(torch.arange(128, device=t.device) * (-math.log(1e4) / 127))
        angle = t[:, None] * 1000.0 * frequency
        time = self.time(torch.cat([angle.cos(), angle.sin()], dim=-1))
        return time.reshape(len(t), 6, -1)

    def velocity(self, x: Tensor, time: Tensor, condition: tuple[Tensor, Tensor, Tensor],
                 prefix: Tensor, known: Tensor) -> Tensor:
        """Like :meth:`forward`, from the modulation ``time`` (B, 6, width) of the times."""
        keys, values, bias = condition
        x = torch.where(known[..., None] > 0.5, prefix, x)
        y = self.inward(torch.cat([x, prefix, known[..., None]], dim=-1)) + self.position
        # Taken apart at once: the gradient of one slice after another is a whole tensor each time.
        for block, key, value in zip(self.blocks, keys.unbind(), values.unbind(), strict=True):
            y = block(y, time, key, value, bias)
        return self.outward(self.norm_out(y))

    def forward(self, x: Tensor, t: Tensor, condition: tuple[Tensor, Tensor, Tensor],
                prefix: Tensor, known: Tensor) -> Tensor:
        """
        Velocity (B, 19, channels) at latents ``x`` and times ``t`` (B,) in [0, 1].

        ``prefix`` (B, 19, channels) holds the latents of known windows, ``known`` (B, 19) is 1
        where they are known; unknown rows of ``prefix`` must be zero.
        """
        return self.velocity(x, self.modulation(t), condition, prefix, known)

    def sample(self, noise: Tensor, states: Tensor, mask: Tensor, prefix: Tensor, known: Tensor,
               steps: int = 8, guidance: float = 1.0) -> Tensor:
        """
        Integrate the flow from ``noise`` (B, 19, channels) with ``steps`` Euler steps.

        ``guidance`` 1 is the plain conditional flow.  Returns latents with known rows in place.
        """
        batch = len(noise)
        both = torch.cat([states, self.null_condition(states)])
        condition = self.condition(both, torch.cat([mask, mask]))
        x = noise
        for n in range(steps):
            t = x.new_full((2 * batch,), n / steps)
            twice = [torch.cat([part, part]) for part in (x, prefix, known)]
            cond, null = self(twice[0], t, condition, twice[1], twice[2]).chunk(2)
            x = x + (null + guidance * (cond - null)) / steps
        return torch.where(known[..., None] > 0.5, prefix, x)
