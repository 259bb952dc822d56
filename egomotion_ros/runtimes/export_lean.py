# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The transformers' graphs, written so that few operators are left between the products.

Same weights, same answers (the parity gate compares with the plain modules): projections of the
same rows are one product, scales that meet in a product are one scale, rows stay two-dimensional,
heads are laid out once, and what does not depend on the condition is not computed twice.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
import torch.nn.functional as F
from transformers import LlamaModel

from egomotion_ros.models.generator import Block, MotionGenerator
from egomotion_ros.models.reasoner import Reasoner
from egomotion_ros.runtimes.export_graphs import Graph, Reading, Step


def lean_graphs(graphs: Mapping[str, Graph]) -> dict[str, Graph]:
    """
    Return ``graphs`` with the lean form of those that have one; the rest are the same modules.

    ``graphs`` themselves stay as they are, to be compared with.
    """
    layers: LeanLayers | None = None
    lean: dict[str, Graph] = {}
    for name, graph in graphs.items():
        if isinstance(graph, Step):
            graph = LeanStep(graph.generator, graph.rows, graph.candidates)
        elif isinstance(graph, Reading) and LeanLayers.fits(graph.reasoner):
            # One for all graphs: fused weights are stored once.
            layers = layers or LeanLayers(graph.reasoner)
            graph = graph.with_layers(layers)
        lean[name] = graph.eval()
    return lean


def _norm(x: Tensor, scale: Tensor, epsilon: float | None = None) -> Tensor:
    """RMS norm over the last axis; always with a scale, which ONNX Runtime's operator asks for."""
    y = F.rms_norm(x.float(), (x.shape[-1],), None,
                   torch.finfo(torch.float32).eps if epsilon is None else epsilon)
    return y.to(x.dtype) * scale


def _turned(*weights: Tensor) -> nn.Buffer:
    """Weights (out, in) of linear layers of the same rows as one product (in, sum of outs)."""
    return nn.Buffer(torch.cat([weight.detach() for weight in weights]).T.contiguous(),
                     persistent=False)


class Turn:
    """Rotary embedding of heads (H, M, depth), whose rows stand at ``cos``, ``sin`` (M, depth)."""

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        half = cos.shape[-1] // 2
        self.half, self.single = half, len(cos) == 1
        # The half that is turned in comes first with the other sign.
        sin = torch.cat([-sin[:, :half], sin[:, half:]], dim=-1)
        if self.single:
            # All heads of one row turn alike: one product instead of six operators a layer.
            eye = torch.eye(2 * half, dtype=cos.dtype)
            self.matrix = eye * cos + eye.roll(half, 0) * sin
        else:
            self.cos, self.sin = cos, sin

    def __call__(self, x: Tensor) -> Tensor:
        """Turn queries and keys together."""
        if self.single:
            return x @ self.matrix
        swapped = torch.cat([x[..., self.half:], x[..., :self.half]], dim=-1)
        return x * self.cos + swapped * self.sin


class LeanLayer(nn.Module):
    """One layer of a plain Llama; ``forward`` works on rows (M, width)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.depth, self.groups = attention.head_dim, attention.num_key_value_groups
        self.heads = attention.k_proj.out_features // self.depth
        self.scale = attention.scaling
        self.qkv = _turned(attention.q_proj.weight, attention.k_proj.weight,
                           attention.v_proj.weight)
        self.out = _turned(attention.o_proj.weight)
        self.gate, self.up, self.down = (
            _turned(part.weight) for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        self.norms = layer.input_layernorm, layer.post_attention_layernorm

    def forward(self, x: Tensor, bias: Tensor, turn: Turn,
                past: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """
        ``bias`` (1, M, N) or (1, 1, N); ``past`` K and V, each (heads, rows, depth).

        Returns the rows and their own K and V (heads, M, depth).
        """
        rows, turned = len(x), self.heads * (self.groups + 1)
        y = _norm(x, self.norms[0].weight, self.norms[0].variance_epsilon) @ self.qkv
        # One row is laid out by head as it is.
        y = y.reshape(rows, -1, self.depth).transpose(0, 1) if rows > 1 else y.reshape(
            -1, 1, self.depth)
        y, value = y.split([turned, self.heads])
        query, key = turn(y).split([turned - self.heads, self.heads])
        keys, values = key, value
        if past:
            keys, values = torch.cat([past[0], key], dim=1), torch.cat([past[1], value], dim=1)
        # Query heads of a group share a key: they stand below each other as rows.
        if self.groups > 1:
            query = query.reshape(self.heads, self.groups * rows, self.depth)
        scores = (query @ keys.transpose(-1, -2)) * self.scale
        if self.groups > 1 and rows > 1:
            scores = scores.reshape(self.heads, self.groups, rows, -1)
        share = (scores + bias).float().softmax(-1).to(x.dtype)
        if self.groups > 1 and rows > 1:
            share = share.reshape(self.heads, self.groups * rows, -1)
        y = share @ values
        if rows > 1:
            y = y.reshape(-1, rows, self.depth).transpose(0, 1)
        x = x + y.reshape(rows, -1) @ self.out
        y = _norm(x, self.norms[1].weight, self.norms[1].variance_epsilon)
        return x + (F.silu(y @ self.gate) * (y @ self.up)) @ self.down, key, value


class LeanLayers(nn.Module):
    """The layers of a plain Llama (the default, SmolVLM2), as :class:`ModelLayers` runs them."""

    @staticmethod
    def fits(reasoner: Reasoner) -> bool:
        """Whether the decoder is a plain Llama: no biases, gated by SiLU, one row of features."""
        language = reasoner.family.language(reasoner.vlm)
        config = getattr(language, 'config', None)
        return (type(language) is LlamaModel and config.hidden_act == 'silu'
                and not config.attention_bias and not config.mlp_bias
                and not reasoner.family.deep)

    def __init__(self, reasoner: Reasoner) -> None:
        super().__init__()
        self.reasoner = reasoner
        self.language = reasoner.family.language(reasoner.vlm)
        self.layers = nn.ModuleList(LeanLayer(layer) for layer in self.language.layers)

    def forward(self, tokens: Tensor, bias: Tensor, rows: Tensor,
                cache: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`ModelLayers.forward`."""
        turn = Turn(*(F.embedding(rows[0], table).to(tokens.dtype)
                      for table in (self.reasoner.cos, self.reasoner.sin)))
        heads = self.layers[0].heads
        # One cut for all layers: cuts copy.
        past = () if cache is None else cache.reshape(-1, *cache.shape[3:]).split(heads)
        x, pairs = tokens[0], []
        for n, layer in enumerate(self.layers):
            x, *pair = layer(x, bias[0], turn, past[2 * n:2 * n + 2])
            pairs += pair
        states = self.reasoner.norm(self.language.norm(x))[None]
        shape = len(self.layers), 2, heads, len(x), pairs[0].shape[-1]
        return states, torch.cat(pairs).reshape(shape)


class LeanBlock(nn.Module):
    """One block of the generator on rows (branches * candidates * windows, width)."""

    def __init__(self, block: Block, null: Tensor) -> None:
        super().__init__()
        inner, outer = block.self_attention, block.cross_attention
        depth = len(inner.query_norm.weight)
        self.heads, self.depth = inner.heads, depth
        self.qkv = _turned(inner.query.weight, inner.pair.weight)
        self.query, self.down = _turned(outer.query.weight), _turned(block.down.weight)
        self.out, self.cross_out = _turned(inner.out.weight), _turned(outer.out.weight)
        self.gate, self.up = map(_turned, block.gate_up.weight.chunk(2))
        self.norm_cross = block.norm_cross

        def fixed(value: Tensor) -> nn.Buffer:
            return nn.Buffer(value.detach(), persistent=False)

        # What scales a query may scale its key as well; a cross key comes with its own scale.
        self.self_scale = fixed(
            inner.query_norm.weight * inner.key_norm.weight * depth ** -0.5)
        self.cross_scale = fixed(outer.query_norm.weight * depth ** -0.5)
        self.plain = fixed(torch.ones(len(self.qkv)))
        self.plain_head = fixed(torch.ones(depth))
        # Attention to the one row of the null condition answers its value, whatever asks.
        _, value = outer.keys_values(null)
        self.null = fixed(outer.out(value.reshape(1, -1)))

    def forward(self, x: Tensor, time: tuple[Tensor, ...], key: Tensor, value: Tensor,
                bias: Tensor, windows: int, rows: int) -> Tensor:
        """
        ``x`` holds the conditional branch and, from the second block on, the other one below it.

        A branch has ``rows``, ``windows`` of each candidate.

        Before any condition is seen both are the same.  ``time`` six rows (1, width), scales
        first increased by one; ``key``, ``value`` (1, heads, N, depth), ``bias`` (1, 1, 1, N).
        """
        a, b, c, d, e, f = time
        motions = len(x) // windows
        y = (_norm(x, self.plain) * a + b) @ self.qkv
        y = y.reshape(motions, windows, 3, self.heads, self.depth).permute(2, 0, 3, 1, 4)
        query, own, content = y.reshape(-1, windows, self.depth).split(motions * self.heads)
        scores = _norm(query, self.self_scale) @ _norm(own, self.plain_head).transpose(-1, -2)
        y = scores.softmax(-1) @ content
        y = y.reshape(motions, self.heads, windows, self.depth).transpose(1, 2)
        x = x + c * (y.reshape(len(x), -1) @ self.out)
        seeing, other = x[:rows], x[-rows:]
        # All candidates ask the same condition: their rows stand below each other.
        query = (_norm(seeing, self.norm_cross.weight) @ self.query).reshape(
            1, rows, self.heads, self.depth)
        query = _norm(query, self.cross_scale).transpose(1, 2)
        y = (query @ key.transpose(-1, -2) + bias).softmax(-1) @ value
        y = y.transpose(1, 2).reshape(rows, -1)
        x = torch.cat([seeing + y @ self.cross_out, other + self.null])
        y = _norm(x, self.plain) * d + e
        return x + f * ((F.silu(y @ self.gate) * (y @ self.up)) @ self.down)


class LeanStep(Step):
    """:class:`Step` in fewer operators."""

    def __init__(self, generator: MotionGenerator, rows: int, candidates: int = 1) -> None:
        super().__init__(generator, rows, candidates)
        with torch.no_grad():
            null = generator.state_norm(generator.null_condition(
                torch.zeros(1, 1, generator.config.state_width)))
            self.blocks = nn.ModuleList(LeanBlock(block, null) for block in generator.blocks)
            tables = torch.stack([block.table for block in generator.blocks])
            # 1 + scale, where the scale is, once and for all.
            tables[:, [0, 3]] += 1.0
        self.tables = nn.Buffer(tables, persistent=False)
        self.inward = _turned(generator.inward.weight)
        self.offset = nn.Buffer(generator.inward.bias.detach() + generator.position.detach(),
                                persistent=False)

    def forward(self, x: Tensor, modulation: Tensor, dt: Tensor, guidance: Tensor,
                context: Tensor, context_mask: Tensor, known: Tensor,
                known_mask: Tensor) -> Tensor:
        """As :meth:`Step.forward`."""
        count, windows, _ = x.shape
        rows = count * windows
        pairs = context.reshape(-1, *context.shape[3:]).split(1)
        times = (modulation + self.tables).reshape(-1, modulation.shape[-1]).split(1)
        given = known_mask[..., None]
        x_in = torch.where(given > 0.5, known, x)
        if count > 1:
            known, given = known.expand(count, -1, -1), given.expand(count, -1, -1)
        y = torch.cat([x_in, known, given], dim=-1)
        y = (y @ self.inward + self.offset).reshape(rows, -1) if count > 1 else (
            y[0] @ self.inward + self.offset)
        layers = len(self.blocks)
        for n, block in enumerate(self.blocks):
            y = block(y, times[6 * n:6 * n + 6], pairs[n], pairs[layers + n], context_mask,
                      windows, rows)
        y = self.generator.norm_out(y)
        with_condition, without = y[:rows], y[rows:]
        # The last layer is linear: guided before it, it runs once.
        y = without + guidance * (with_condition - without)
        return x + dt * self.generator.outward(y).reshape(x.shape)
