# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The six graphs of a bundle as torch modules: what is exported, and what eager torch runs.

Shapes are static and the batch is one.  Each module's ``forward`` takes the graph's inputs in
the order of ``inputs`` and returns its outputs in the order of ``outputs``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
import torch.nn.functional as F
from transformers import DynamicCache

from egomotion_ros.models.autoencoder import MotionAutoencoder
from egomotion_ros.models.generator import MotionGenerator
from egomotion_ros.models.reasoner import Reasoner, attention_bias
from egomotion_ros.types import WINDOW


class Graph(nn.Module):
    """A module with named inputs and outputs and an example to trace it with."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def example(self) -> tuple[Tensor, ...]:
        """Inputs of the right shape and type with plausible values."""
        raise TypeError(f'{type(self).__name__} gives no example')


class Prefill(Graph):
    """The whole prompt in one pass: image, instruction, camera -> states, cache, first logits."""

    inputs = ('image', 'text', 'text_mask', 'camera')
    outputs = ('states', 'mask', 'cache', 'logits')

    def __init__(self, reasoner: Reasoner, image_size: int) -> None:
        super().__init__()
        self.reasoner, self.image_size = reasoner, image_size

    def example(self) -> tuple[Tensor, ...]:
        """One grey image, half a prompt of text."""
        length = self.reasoner.config.text_tokens
        return (torch.full((1, self.image_size, self.image_size, 3), 128, dtype=torch.uint8),
                torch.arange(length)[None] % self.reasoner.config.text_vocabulary,
                torch.arange(length)[None] < max(length // 2, 1),
                torch.tensor([[1.5, 0.4, 0.0]]))

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor,
                camera: Tensor) -> tuple[Tensor, ...]:
        """Cache: (layers, K and V, heads, prompt + windows, width), zero behind the prompt."""
        # Cast first: TensorRT moves no uint8.
        pixels = image.to(torch.float32).permute(0, 3, 1, 2) / 127.5 - 1.0
        tokens, mask = self.reasoner.prompt(pixels, text, text_mask, camera)
        rows = tokens.shape[1]
        cache = DynamicCache()
        states = self.reasoner.run(tokens, attention_bias(mask, rows).to(tokens.dtype),
                                   torch.arange(rows)[None], cache)
        pairs = torch.stack([torch.stack([layer.keys[0], layer.values[0]])
                             for layer in cache.layers])
        pairs = F.pad(pairs, (0, 0, 0, self.reasoner.config.windows))
        return states, mask, pairs, self.reasoner.base_head(states[:, -1])


class Decode(Graph):
    """One base code -> logits of the next, the code's own state, residual logits, cache rows."""

    inputs = ('token', 'index', 'cache', 'mask')
    outputs = ('logits', 'state', 'residual', 'rows')

    def __init__(self, reasoner: Reasoner, cache: tuple[int, ...]) -> None:
        super().__init__()
        self.reasoner, self.cache = reasoner, cache

    def example(self) -> tuple[Tensor, ...]:
        """The first code after the prompt."""
        slots = self.cache[3]
        free = torch.arange(slots) >= slots - self.reasoner.config.windows
        return (torch.tensor([0]), torch.tensor([0]), torch.zeros(self.cache),
                torch.where(free, -1e4, 0.0)[None])

    def forward(self, token: Tensor, index: Tensor, cache: Tensor,
                mask: Tensor) -> tuple[Tensor, ...]:
        """
        Run one row against the cache.

        The row's own key and value are appended for this step and handed back as ``rows``
        (layers, K and V, heads, width); the caller writes them into the cache.
        """
        past = DynamicCache()
        for layer in range(cache.shape[0]):
            past.update(cache[layer, 0][None], cache[layer, 1][None], layer)
        prompt = cache.shape[3] - self.reasoner.config.windows
        bias = F.pad(mask, (0, 1))[:, None, None, :]
        state = self.reasoner.run(self.reasoner.embed_base(token[None]), bias,
                                  (index + prompt)[None], past)
        rows = torch.stack([torch.stack([layer.keys[0, :, -1], layer.values[0, :, -1]])
                            for layer in past.layers])
        return (self.reasoner.base_head(state[:, 0]), state[:, 0],
                self.reasoner.residual(state)[:, 0], rows)


class Condition(Graph):
    """Frozen states -> cross-attention K and V of every block, with and without the condition."""

    inputs = ('states', 'mask')
    outputs = ('context', 'context_mask')

    def __init__(self, generator: MotionGenerator, rows: int) -> None:
        super().__init__()
        self.generator, self.rows = generator, rows

    def example(self) -> tuple[Tensor, ...]:
        """Random states, the last one masked out."""
        states = torch.randn(1, self.rows, self.generator.config.state_width)
        return states, torch.arange(self.rows)[None] < self.rows - 1

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """
        Context: (K and V, layers, 1, heads, rows + 1, width), mask (2, 1, 1, rows + 1).

        The null condition is the same row everywhere, so that one row stands for all of it; it
        comes last, and the masks of the two branches say which rows each of them sees.
        """
        null = self.generator.null_condition(states[:, :1])
        both = torch.cat([torch.cat([mask, torch.zeros_like(mask[:, :1])], dim=1),
                          torch.cat([torch.zeros_like(mask), torch.ones_like(mask[:, :1])],
                                    dim=1)])
        keys, values, bias = self.generator.condition(torch.cat([states, null], dim=1), both)
        return torch.stack([keys, values]), bias


class Step(Graph):
    """One guided Euler step of the flow."""

    inputs = ('x', 't', 'dt', 'guidance', 'context', 'context_mask', 'known', 'known_mask')
    outputs = ('x_next',)

    def __init__(self, generator: MotionGenerator, rows: int) -> None:
        super().__init__()
        self.generator, self.rows = generator, rows

    def example(self) -> tuple[Tensor, ...]:
        """Half way, with two known windows."""
        config = self.generator.config
        known = (torch.arange(config.windows)[None] < 2).float()
        context = torch.randn(2, config.layers, 1, config.heads, self.rows + 1,
                              config.width // config.heads)
        return (torch.randn(1, config.windows, config.channels), torch.tensor([0.5]),
                torch.tensor([0.125]), torch.tensor([1.5]), context,
                torch.zeros(2, 1, 1, self.rows + 1),
                torch.randn(1, config.windows, config.channels) * known[..., None], known)

    def forward(self, x: Tensor, t: Tensor, dt: Tensor, guidance: Tensor, context: Tensor,
                context_mask: Tensor, known: Tensor, known_mask: Tensor) -> Tensor:
        """Advance ``x`` by ``dt``; guidance 1 is the plain conditional flow."""
        velocity = self.generator(
            torch.cat([x, x]), torch.cat([t, t]), (context[0], context[1], context_mask),
            torch.cat([known, known]), torch.cat([known_mask, known_mask]))
        with_condition, without = velocity[:1], velocity[1:]
        return x + dt * (without + guidance * (with_condition - without))


class Encode(Graph):
    """Motion features -> latents, to in-paint what is already being executed."""

    inputs = ('features',)
    outputs = ('latents',)

    def __init__(self, autoencoder: MotionAutoencoder, windows: int) -> None:
        super().__init__()
        self.autoencoder, self.windows = autoencoder, windows

    def example(self) -> tuple[Tensor, ...]:
        """Random features."""
        return (torch.randn(1, self.windows * WINDOW, self.autoencoder.config.features),)

    def forward(self, features: Tensor) -> Tensor:
        """Encode."""
        return self.autoencoder.encode(features)


class DecodeMotion(Graph):
    """Latents -> motion features."""

    inputs = ('latents',)
    outputs = ('features',)

    def __init__(self, autoencoder: MotionAutoencoder, windows: int) -> None:
        super().__init__()
        self.autoencoder, self.windows = autoencoder, windows

    def example(self) -> tuple[Tensor, ...]:
        """Random latents."""
        return (torch.randn(1, self.windows, self.autoencoder.config.channels),)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode."""
        return self.autoencoder.decode(latents)


def graph_modules(reasoner: Reasoner, generator: MotionGenerator,
                  autoencoder: MotionAutoencoder, image_size: int) -> dict[str, Graph]:
    """
    Return the graphs of a bundle by name, in evaluation mode.

    Raises ValueError when the models do not fit each other.
    """
    windows = reasoner.config.windows
    for what, left, right in (
            ('state width', reasoner.width, generator.config.state_width),
            ('windows', windows, generator.config.windows),
            ('latent channels', autoencoder.config.channels, generator.config.channels)):
        if left != right:
            raise ValueError(f'{what}: the models disagree ({left} and {right})')
    prefill = Prefill(reasoner, image_size).eval()
    with torch.inference_mode():
        states, _, cache, _ = prefill(*prefill.example())
    rows = states.shape[1] + windows
    graphs = {
        'prefill': prefill, 'decode': Decode(reasoner, tuple(cache.shape)),
        'condition': Condition(generator, rows), 'step': Step(generator, rows),
        'encode': Encode(autoencoder, windows),
        'decode_motion': DecodeMotion(autoencoder, windows)}
    return {name: graph.eval() for name, graph in graphs.items()}
