# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The graphs of a bundle as torch modules: what eager torch runs, and what the graphs are held to.

Most are exported as they are; :mod:`egomotion_ros.runtimes.export_lean` rewrites the others.

Shapes are static and the batch is one.  Each module's ``forward`` takes the graph's inputs in
the order of ``inputs`` and returns its outputs in the order of ``outputs``.  Numbers go in and
come out as float32, whatever the weights are.
"""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor, nn
import torch.nn.functional as F
from transformers import DynamicCache

from egomotion_ros.bundle import BATCH_GRAPH
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


class ModelLayers(nn.Module):
    """The reasoner's decoder as the model itself runs it, whatever its family."""

    def __init__(self, reasoner: Reasoner) -> None:
        super().__init__()
        self.reasoner = reasoner

    def forward(self, tokens: Tensor, bias: Tensor, rows: Tensor,
                cache: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """
        Run ``tokens`` (1, M, width) that stand at ``rows`` (1, M) behind ``cache``.

        ``cache`` (layers, K and V, heads, N, depth), ``bias`` additive, over N + M columns.
        Returns states (1, M, D) and K and V of the tokens, laid out as the cache is.
        """
        past = DynamicCache()
        for layer in range(0 if cache is None else cache.shape[0]):
            past.update(cache[layer, 0][None], cache[layer, 1][None], layer)
        states = self.reasoner.run(tokens, bias, rows, past)
        count = tokens.shape[1]
        return states, torch.stack([
            torch.stack([layer.keys[0, :, -count:], layer.values[0, :, -count:]])
            for layer in past.layers])


class Reading(Graph):
    """A graph that runs the reasoner's layers; ``layers`` says how."""

    def __init__(self, reasoner: Reasoner) -> None:
        super().__init__()
        self.reasoner, self.layers = reasoner, ModelLayers(reasoner)

    def with_layers(self, layers: nn.Module) -> Reading:
        """Return the same graph over other ``layers``, called as :class:`ModelLayers` is."""
        other = copy(self)
        other._modules = {**self._modules, 'layers': layers}
        return other


class Vision(Reading):
    """
    One picture -> what is known of its rows; it stands as long as the picture does.

    Families that look at the camera's pose are given it beside the picture: there it stands as
    long as both do.
    Image tokens (1, N, (1 + deep) D) where the prompt is read both ways.  Where it is read
    causally the picture, which comes first, depends on nothing that follows: its rows go through
    the layers here, and a row of ``features`` is its state and its keys and values.
    """

    outputs = ('features',)

    def __init__(self, reasoner: Reasoner, image_size: int) -> None:
        super().__init__(reasoner)
        self.image_size = image_size
        self.inputs = ('image', 'camera') if reasoner.family.sees_camera else ('image',)
        if reasoner.family.bidirectional:
            self.layers = None

    def with_layers(self, layers: nn.Module) -> Reading:
        """Return itself where no layers are run."""
        return self if self.layers is None else super().with_layers(layers)

    def example(self) -> tuple[Tensor, ...]:
        """One grey image, of a camera as people carry it where its pose counts."""
        image = torch.full((1, self.image_size, self.image_size, 3), 128, dtype=torch.uint8)
        return (image, torch.tensor([[1.5, 0.4, 0.0]]))[:len(self.inputs)]

    def forward(self, image: Tensor, camera: Tensor | None = None) -> Tensor:
        """Encode an image (1, h, w, 3), seen by a camera (1, 3) where that counts."""
        reasoner = self.reasoner
        # Cast first: TensorRT moves no uint8.
        pixels = image.to(torch.float32).permute(0, 3, 1, 2) / 127.5 - 1.0
        features = reasoner.image_features(pixels, camera)
        if self.layers is not None:
            rows = features.shape[1]
            bias = reasoner.bias(torch.ones(1, rows, dtype=torch.bool, device=image.device), rows)
            states, pairs = self.layers(features, bias.to(features.dtype),
                                        torch.arange(rows, device=image.device)[None])
            pairs = pairs.permute(3, 0, 1, 2, 4).reshape(1, rows, -1)
            features = torch.cat([states, pairs], dim=-1)
        return features.float()


class Prefill(Reading):
    """
    The prompt in one pass: what vision gave, text, camera -> states, cache, first logits.

    And, of reasoners that are read for it, whether the text names a thing.
    """

    inputs = ('features', 'text', 'text_mask', 'camera')

    def __init__(self, reasoner: Reasoner) -> None:
        super().__init__(reasoner)
        self.outputs = ('states', 'mask', 'cache', 'logits')
        if reasoner.naming is not None:
            self.outputs += ('named',)

    def example(self) -> tuple[Tensor, ...]:
        """Random image rows, half a prompt of text."""
        length, family = self.reasoner.config.text_tokens, self.reasoner.family
        width = (1 + family.deep) * self.reasoner.width
        if not family.bidirectional:
            layers, pair, heads, _, depth = cache_shape(self.reasoner)
            width = self.reasoner.width + layers * pair * heads * depth
        return (torch.randn(1, family.grid ** 2, width),
                torch.arange(length)[None] % self.reasoner.config.text_vocabulary,
                torch.arange(length)[None] < max(length // 2, 1),
                torch.tensor([[1.5, 0.4, 0.0]]))

    def forward(self, features: Tensor, text: Tensor, text_mask: Tensor,
                camera: Tensor) -> tuple[Tensor, ...]:
        """
        Cache: (layers, K and V, heads, prompt + windows, width), zero behind the prompt.

        Named: logits (1, 2) of no thing and of a thing.
        """
        reasoner, seen = self.reasoner, features.shape[1]
        features = features.to(_dtype(reasoner))
        if reasoner.family.bidirectional:
            tokens, mask = reasoner.embed_prompt(features, text, text_mask, camera)
            rows = tokens.shape[1]
            states, pairs = self.layers(tokens, reasoner.bias(mask, rows).to(tokens.dtype),
                                        torch.arange(rows, device=tokens.device)[None])
        else:
            none = features.new_zeros(1, 0, (1 + reasoner.family.deep) * reasoner.width)
            tokens, mask = reasoner.embed_prompt(none, text, text_mask, camera)
            mask = torch.cat([mask.new_ones(1, seen), mask], dim=1)
            layers, pair, heads, _, depth = cache_shape(reasoner)
            before, past = features.split([reasoner.width, layers * pair * heads * depth], -1)
            past = past.reshape(seen, layers, pair, heads, depth).permute(1, 2, 3, 0, 4)
            bias = reasoner.bias(mask, mask.shape[1])[:, :, seen:].to(tokens.dtype)
            rows = torch.arange(seen, mask.shape[1], device=tokens.device)[None]
            states, pairs = self.layers(tokens, bias, rows, past)
            states = torch.cat([before, states], dim=1)
            pairs = torch.cat([past, pairs], dim=3)
        pairs = F.pad(pairs, (0, 0, 0, reasoner.config.windows))
        begin = states[:, -1]
        answer = states.float(), mask, pairs.float(), reasoner.base_head(begin).float()
        return answer if reasoner.naming is None else (
            *answer, reasoner.naming(begin).float())


class Cached(Reading):
    """A graph over the prompt's cache; ``cache`` is its shape."""

    def __init__(self, reasoner: Reasoner, cache: tuple[int, ...]) -> None:
        super().__init__(reasoner)
        self.cache = cache
        self.prompt = cache[3] - reasoner.config.windows

    def example_cache(self) -> tuple[Tensor, Tensor]:
        """Return an empty cache and a mask that shows the prompt."""
        return (torch.zeros(self.cache),
                torch.where(torch.arange(self.cache[3]) >= self.prompt, FORBIDDEN, 0.0)[None])

    def run(self, tokens: Tensor, bias: Tensor, rows: Tensor,
            cache: Tensor) -> tuple[Tensor, Tensor]:
        """Run the layers in the precision of the weights."""
        dtype = _dtype(self.reasoner)
        return self.layers(tokens.to(dtype), bias.to(dtype), rows, cache.to(dtype))


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
        bias = F.pad(mask, (0, 1))[:, None, None, :]
        state, pairs = self.run(self.reasoner.embed_base(token[None]), bias,
                                (index + self.prompt)[None], cache)
        return (self.reasoner.base_head(state[:, 0]).float(), state[:, 0].float(),
                self.reasoner.residual(state)[:, 0].float(), pairs[:, :, :, 0].float())


class Query(Cached):
    """Every base code in one pass: the queries against the prompt."""

    inputs = ('begin', 'cache', 'mask')
    outputs = ('logits',)

    def example(self) -> tuple[Tensor, ...]:
        """An empty prompt."""
        return torch.zeros(1, self.reasoner.width), *self.example_cache()

    def forward(self, begin: Tensor, cache: Tensor, mask: Tensor) -> Tensor:
        """
        Logits (1, windows, codes); slots behind the prompt are not looked at.

        ``begin`` (1, D) is the state of the prompt's last row.
        """
        windows = self.reasoner.config.windows
        bias = F.pad(mask[:, :self.prompt], (0, windows))[:, None, None, :]
        begin = begin.to(self.reasoner.base_head.weight.dtype)
        states, _ = self.run(self.reasoner.queries(begin), bias.expand(-1, -1, windows, -1),
                             (torch.arange(windows, device=begin.device) + self.prompt)[None],
                             cache[:, :, :, :self.prompt])
        states = torch.cat([begin[:, None], states[:, 1:]], dim=1)
        return self.reasoner.base_head(states).float()


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
        causal = torch.ones(windows, windows, dtype=torch.bool, device=mask.device).tril()
        later = torch.zeros_like(causal, dtype=mask.dtype).masked_fill(~causal, FORBIDDEN)
        bias = torch.cat([mask[:, :self.prompt].expand(windows, -1), later], dim=1)
        states, _ = self.run(reasoner.embed_base(tokens), bias[None, None],
                             (torch.arange(windows, device=mask.device) + self.prompt)[None],
                             cache[:, :, :, :self.prompt])
        return (reasoner.base_head(states).float(), states.float(),
                reasoner.residual(states).float())


def _dtype(reasoner: Reasoner) -> torch.dtype:
    return reasoner.base_head.weight.dtype


class Condition(Graph):
    """
    Frozen states -> cross-attention K and V of every block, once a plan.

    And where the motion is to end, of generators that read it.
    """

    inputs = ('states', 'mask')

    def __init__(self, generator: MotionGenerator, rows: int) -> None:
        super().__init__()
        self.generator, self.rows = generator, rows
        self.outputs = ('context', 'context_mask')
        if generator.aim is not None:
            self.outputs += ('aim',)

    def example(self) -> tuple[Tensor, ...]:
        """Random states, the last one masked out."""
        states = torch.randn(1, self.rows, self.generator.config.state_width)
        return states, torch.arange(self.rows)[None] < self.rows - 1

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """
        Context: (K and V, layers, 1, heads, rows, width), additive mask (1, 1, 1, rows).

        Aim: (1, AIM).
        """
        keys, values, bias = self.generator.condition(states, mask)
        answer = torch.stack([keys, values]), bias
        return answer if self.generator.aim is None else (
            *answer, self.generator.aim(states).float())


class Time(Graph):
    """Time of a step -> what the blocks are told of it; the same in every plan."""

    inputs = ('t',)
    outputs = ('modulation',)

    def __init__(self, generator: MotionGenerator) -> None:
        super().__init__()
        self.generator = generator

    def example(self) -> tuple[Tensor, ...]:
        """Half way."""
        return (torch.tensor([0.5]),)

    def forward(self, t: Tensor) -> Tensor:
        """Modulation (1, 6, width) of ``t`` (1,) in [0, 1]."""
        return self.generator.modulation(t)


class Step(Graph):
    """One guided Euler step of the flow, of ``candidates`` that share all but their noise."""

    inputs = ('x', 'modulation', 'dt', 'guidance', 'context', 'context_mask', 'known',
              'known_mask')
    outputs = ('x_next',)

    def __init__(self, generator: MotionGenerator, rows: int, candidates: int = 1) -> None:
        super().__init__()
        self.generator, self.rows, self.candidates = generator, rows, candidates
        null = generator.null_condition(torch.zeros(1, 1, generator.config.state_width))
        with torch.no_grad():
            keys, values, _ = generator.condition(null, torch.ones(1, 1, dtype=torch.bool))
        self.null = nn.Buffer(torch.stack([keys, values]), persistent=False)

    def example(self) -> tuple[Tensor, ...]:
        """With two known windows."""
        config = self.generator.config
        known = (torch.arange(config.windows)[None] < 2).float()
        context = torch.randn(2, config.layers, 1, config.heads, self.rows,
                              config.width // config.heads)
        return (torch.randn(self.candidates, config.windows, config.channels),
                torch.randn(1, 6, config.width),
                torch.tensor([0.125]), torch.tensor([1.5]), context,
                torch.zeros(1, 1, 1, self.rows),
                torch.randn(1, config.windows, config.channels) * known[..., None], known)

    def forward(self, x: Tensor, modulation: Tensor, dt: Tensor, guidance: Tensor,
                context: Tensor, context_mask: Tensor, known: Tensor,
                known_mask: Tensor) -> Tensor:
        """
        Advance ``x`` (candidates, ...) by ``dt``; guidance 1 is the plain conditional flow.

        The null condition is the same row everywhere, so that one row stands for all of it: it
        comes last, and the masks of the two branches say which rows each of them sees.
        """
        keys, values = torch.cat([context, self.null], dim=4)
        bias = torch.cat([F.pad(context_mask, (0, 1), value=FORBIDDEN),
                          F.pad(torch.full_like(context_mask, FORBIDDEN), (0, 1))])
        count = len(x)
        velocity = self.generator.velocity(
            torch.cat([x, x]), modulation, (keys, values, bias.repeat_interleave(count, dim=0)),
            known.expand(2 * count, -1, -1), known_mask.expand(2 * count, -1))
        with_condition, without = velocity[:count], velocity[count:]
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
                  autoencoder: MotionAutoencoder, image_size: int, candidates: int = 1
                  ) -> dict[str, Graph]:
    """
    Return the graphs of a bundle by name, in evaluation mode; one more for several ``candidates``.

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
        'condition': Condition(generator, rows), 'time': Time(generator),
        'step': Step(generator, rows),
        'encode': Encode(autoencoder, windows),
        'decode_motion': DecodeMotion(autoencoder, windows)}
    if candidates > 1:
        graphs[BATCH_GRAPH] = Step(generator, rows, candidates)
    return {name: graph.eval() for name, graph in graphs.items()}


def cache_shape(reasoner: Reasoner) -> tuple[int, int, int, int, int]:
    """Layers, K and V, heads, rows of prompt and codes, width of a head."""
    text = reasoner.vlm.config.get_text_config()
    depth = getattr(text, 'head_dim', None) or text.hidden_size // text.num_attention_heads
    return (reasoner.config.layer, 2, text.num_key_value_heads,
            reasoner.prompt_rows + reasoner.config.windows, depth)


def reasoner_graphs(reasoner: Reasoner, image_size: int) -> dict[str, Graph]:
    """Return the graphs of the reasoner; those of parallel decoding where it was trained for."""
    cache = cache_shape(reasoner)
    graphs: dict[str, Graph] = {
        'vision': Vision(reasoner, image_size), 'prefill': Prefill(reasoner),
        'decode': Decode(reasoner, cache)}
    if reasoner.queries is not None:
        graphs |= {'query': Query(reasoner, cache), 'refine': Refine(reasoner, cache)}
    return {name: graph.eval() for name, graph in graphs.items()}
