# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The graphs of a bundle as torch modules: what is exported, and what eager torch runs.

Shapes are static and the batch is one.  Each module's ``forward`` takes the graph's inputs in
the order of ``inputs`` and returns its outputs in the order of ``outputs``.  Numbers go in and
come out as float32, whatever the weights are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
import torch.nn.functional as F
from transformers import DynamicCache

from egomotion_ros.models.autoencoder import MotionAutoencoder
from egomotion_ros.models.generator import MotionGenerator
from egomotion_ros.models.reasoner import FORBIDDEN, Reasoner
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
        reasoner = self.reasoner
        # Cast first: TensorRT moves no uint8.
        pixels = image.to(torch.float32).permute(0, 3, 1, 2) / 127.5 - 1.0
        tokens, mask = reasoner.prompt(pixels, text, text_mask, camera)
        rows = tokens.shape[1]
        cache = DynamicCache()
        states = reasoner.run(tokens, reasoner.bias(mask, rows).to(tokens.dtype),
                              torch.arange(rows)[None], cache)
        pairs = torch.stack([torch.stack([layer.keys[0], layer.values[0]])
                             for layer in cache.layers])
        pairs = F.pad(pairs, (0, 0, 0, reasoner.config.windows))
        return (states.float(), mask, pairs.float(),
                reasoner.base_head(states[:, -1]).float())


class Cached(Graph):
    """A graph over the prompt's cache; ``cache`` is its shape."""

    def __init__(self, reasoner: Reasoner, cache: tuple[int, ...]) -> None:
        super().__init__()
        self.reasoner, self.cache = reasoner, cache
        self.prompt = cache[3] - reasoner.config.windows

    def example_cache(self) -> tuple[Tensor, Tensor]:
        """Return an empty cache and a mask that shows the prompt."""
        return (torch.zeros(self.cache),
                torch.where(torch.arange(self.cache[3]) >= self.prompt, FORBIDDEN, 0.0)[None])

    def past(self, cache: Tensor, rows: int) -> DynamicCache:
        """Return the first ``rows`` slots as the layers take them."""
        past = DynamicCache()
        cache = cache[:, :, :, :rows].to(_dtype(self.reasoner))
        for layer in range(cache.shape[0]):
            past.update(cache[layer, 0][None], cache[layer, 1][None], layer)
        return past


class Decode(Cached):
    """One base code -> logits of the next, the code's own state, residual logits, cache rows."""

    inputs = ('token', 'index', 'cache', 'mask')
    outputs = ('logits', 'state', 'residual', 'rows')

    def example(self) -> tuple[Tensor, ...]:
        """The first code after the prompt."""
        return (torch.tensor([0]), torch.tensor([0]), *self.example_cache())

    def forward(self, token: Tensor, index: Tensor, cache: Tensor,
                mask: Tensor) -> tuple[Tensor, ...]:
        """
        Run one row against the cache.

        The row's own key and value are appended for this step and handed back as ``rows``
        (layers, K and V, heads, width); the caller writes them into the cache.
        """
        past = self.past(cache, cache.shape[3])
        bias = F.pad(mask, (0, 1))[:, None, None, :].to(_dtype(self.reasoner))
        state = self.reasoner.run(self.reasoner.embed_base(token[None]), bias,
                                  (index + self.prompt)[None], past)
        rows = torch.stack([torch.stack([layer.keys[0, :, -1], layer.values[0, :, -1]])
                            for layer in past.layers])
        return (self.reasoner.base_head(state[:, 0]).float(), state[:, 0].float(),
                self.reasoner.residual(state)[:, 0].float(), rows.float())


class Query(Cached):
    """Every base code in one pass: the learned queries against the prompt."""

    inputs = ('cache', 'mask')
    outputs = ('logits',)

    def example(self) -> tuple[Tensor, ...]:
        """An empty prompt."""
        return self.example_cache()

    def forward(self, cache: Tensor, mask: Tensor) -> Tensor:
        """Logits (1, windows, codes); slots behind the prompt are not looked at."""
        return self.reasoner.ask(mask[:, :self.prompt], self.past(cache, self.prompt)).float()


class Refine(Cached):
    """All base codes at once -> their states, residual logits, and logits of the codes after."""

    inputs = ('tokens', 'cache', 'mask')
    outputs = ('logits', 'states', 'residual')

    def example(self) -> tuple[Tensor, ...]:
        """The same code everywhere."""
        return (torch.zeros(1, self.reasoner.config.windows, dtype=torch.long),
                *self.example_cache())

    def forward(self, tokens: Tensor, cache: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Run the rows of the codes against the prompt; row k's logits are of window k + 1."""
        reasoner, windows = self.reasoner, self.reasoner.config.windows
        causal = torch.ones(windows, windows, dtype=torch.bool).tril()
        later = torch.zeros(windows, windows).masked_fill(~causal, FORBIDDEN)
        bias = torch.cat([mask[:, :self.prompt].expand(windows, -1), later], dim=1)
        states = reasoner.run(
            reasoner.embed_base(tokens), bias[None, None].to(_dtype(reasoner)),
            (torch.arange(windows) + self.prompt)[None], self.past(cache, self.prompt))
        return (reasoner.base_head(states).float(), states.float(),
                reasoner.residual(states).float())


def _dtype(reasoner: Reasoner) -> torch.dtype:
    return reasoner.base_head.weight.dtype


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
    graphs = reasoner_graphs(reasoner, image_size)
    rows = reasoner.prompt_rows + windows
    graphs |= {
        'condition': Condition(generator, rows), 'step': Step(generator, rows),
        'encode': Encode(autoencoder, windows),
        'decode_motion': DecodeMotion(autoencoder, windows)}
    return {name: graph.eval() for name, graph in graphs.items()}


def reasoner_graphs(reasoner: Reasoner, image_size: int) -> dict[str, Graph]:
    """Return the graphs of the reasoner; those of parallel decoding where it was trained for."""
    text = reasoner.vlm.config.get_text_config()
    depth = getattr(text, 'head_dim', None) or text.hidden_size // text.num_attention_heads
    cache = (reasoner.config.layer, 2, text.num_key_value_heads,
             reasoner.prompt_rows + reasoner.config.windows, depth)
    graphs: dict[str, Graph] = {'prefill': Prefill(reasoner, image_size),
                                'decode': Decode(reasoner, cache)}
    if reasoner.queries is not None:
        graphs |= {'query': Query(reasoner, cache), 'refine': Refine(reasoner, cache)}
    return {name: graph.eval() for name, graph in graphs.items()}
