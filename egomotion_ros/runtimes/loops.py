# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The two loops over graphs, the same for every runtime: decoding primitives, integrating the flow.

All chance comes from NumPy's counter-based Philox generator, so that a seed means the same noise
whatever runs the graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from egomotion_ros.bundle import BATCH_GRAPH, Bundle, batch_of
from egomotion_ros.runtimes.base import Runtime
from egomotion_ros.types import Target

#: Additive attention mask of a forbidden slot; finite, so that fp16 stays finite too.
FORBIDDEN = -1e4

# Streams of one seed: what the reasoner draws must not repeat what the generator draws.
_REASONER, _GENERATOR = 0, 1


def random_stream(seed: int, stream: int) -> np.random.Generator:
    """Random numbers of one ``stream`` of a plan's ``seed`` (0 to 2**64 - 1)."""
    if not 0 <= seed < 1 << 64:
        raise ValueError(f'seed must be between 0 and 2**64 - 1, got {seed}')
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))


class _Last:
    """What one graph answered last, known while the runtime still holds what it ``keeps``."""

    def __init__(self, graph: str, keeps: str) -> None:
        self.answer: dict[str, np.ndarray] = {}
        self._graph, self._keeps = graph, frozenset({keeps})
        self._given: dict[str, np.ndarray] = {}
        self._overwritten = -1

    def knows(self, runtime: Runtime, given: Mapping[str, np.ndarray]) -> bool:
        """Whether the answer to these arrays is the last one."""
        return bool(self._given) and self._overwritten == runtime.overwritten.get(
            self._graph, 0) and all(np.array_equal(array, self._given[name])
                                    for name, array in given.items())

    def ask(self, runtime: Runtime, given: Mapping[str, np.ndarray],
            **beside: np.ndarray) -> None:
        """Run the graph on the arrays it is known by and those ``beside`` them."""
        self._given = {}
        self.answer = runtime.run(self._graph, keep=self._keeps, **given, **beside)
        # Callers may reuse their arrays.
        self._given = {name: array.copy() for name, array in given.items()}
        self._overwritten = runtime.overwritten.get(self._graph, 0)


class PromptMemory:
    """
    The last prompt and what the runtime read in it: what is the same again is not run again.

    A picture that stands is not seen again, unless the camera's pose counts and has changed;
    where text and camera pose stand too, the prompt is not read again.  Goes by content, not by
    stamp: a picture that stands is recognised however it came.  ``pictures`` and ``prompts`` count
    what was known.  Belongs to one runtime and one pipeline.
    """

    def __init__(self) -> None:
        self.pictures = self.prompts = 0
        self._vision, self._prefill = _Last('vision', 'features'), _Last('prefill', 'cache')

    def run(self, runtime: Runtime, seen: Mapping[str, np.ndarray],
            **prompt: np.ndarray) -> dict[str, np.ndarray]:
        """
        Run ``vision`` on what is ``seen`` and ``prefill``, or return their last answers to it.

        ``seen`` holds the image and, where the bundle asks for it, the camera's pose.
        """
        stands = self._vision.knows(runtime, seen)
        if stands:
            self.pictures += 1
        else:
            self._vision.ask(runtime, seen)
        if stands and self._prefill.knows(runtime, prompt):
            self.prompts += 1
        else:
            self._prefill.ask(runtime, prompt, **self._vision.answer)
        return self._prefill.answer


class TimeMemory:
    """What the steps of a flow are told of their times, kept for the last number of steps."""

    def __init__(self) -> None:
        self._modulations: tuple[np.ndarray, ...] = ()

    def run(self, runtime: Runtime, steps: int) -> tuple[np.ndarray, ...]:
        """Return the modulation of each of ``steps`` steps; run ``time`` where they are new."""
        if len(self._modulations) != steps:
            self._modulations = tuple(
                runtime.run('time', t=np.array([n / steps], np.float32))['modulation']
                for n in range(steps))
        return self._modulations


@dataclass(frozen=True)
class Decoded:
    """
    ``tokens`` (W, levels) int64, ``confidence`` (W,), ``states`` (N, D), ``mask`` (N,) bool.

    ``target`` says whether the text names a thing.
    """

    tokens: np.ndarray
    confidence: np.ndarray
    states: np.ndarray
    mask: np.ndarray
    target: Target = Target.UNKNOWN


def read_target(answer: Mapping[str, np.ndarray]) -> Target:
    """What ``prefill`` says of whether its text names a thing."""
    if 'named' not in answer:
        return Target.UNKNOWN
    nothing, thing = answer['named'][0]
    return Target.NAMED if thing > nothing else Target.NONE


def decode_primitives(runtime: Runtime, bundle: Bundle, image: np.ndarray, text: np.ndarray,
                      text_mask: np.ndarray, camera: np.ndarray, seed: int,
                      memory: PromptMemory | None = None) -> Decoded:
    """
    Read the prompt, then decode base codes, one a step or all at once as the bundle says.

    Residual codes fall out beside them.

    ``image`` (H, W, 3) uint8, ``text``, ``text_mask`` (text_length,), ``camera`` (3,) height m,
    pitch rad, yaw rad.  The bundle's temperature 0 takes the likeliest code; above it, codes are
    drawn by the Gumbel-max trick.  With a ``memory``, what it holds of the prompt is not read
    again.
    """
    pose = camera[None].astype(np.float32)
    # What counts is what runs: the graph may come from other weights than the bundle's.
    vision = runtime.specs['vision'].inputs if 'vision' in runtime.specs else ()
    seen = {'image': image[None]} | {item.name: pose for item in vision if item.name == 'camera'}
    start = (memory or PromptMemory()).run(
        runtime, seen, text=text[None], text_mask=text_mask[None], camera=pose)
    random = random_stream(seed, _REASONER)
    prompt, windows = start['states'].shape[1], bundle.windows
    cache = start['cache']
    if isinstance(cache, np.ndarray):
        # Rows are written into it. What a device holds is written over where no mask is open.
        cache = cache.copy()
    # Slots fill up as primitives are decoded; the step's own row needs no slot.
    bias = np.full((1, prompt + windows), FORBIDDEN, np.float32)
    bias[0, :prompt][start['mask'][0]] = 0.0
    tokens = np.zeros((windows, bundle.levels), np.int64)
    confidence = np.zeros(windows, np.float32)
    states = np.zeros((prompt + windows, start['states'].shape[2]), np.float32)
    states[:prompt] = start['states'][0]
    logits = start['logits'][0]
    if bundle.decoder == 'parallel':
        tokens, confidence, states[prompt:] = _decode_at_once(
            runtime, bundle, logits, states[prompt - 1:prompt], cache, bias, random)
    for n in range(windows if bundle.decoder == 'autoregressive' else 0):
        tokens[n, 0] = _draw(logits, bundle.temperature, random)
        weights = np.exp(logits - logits.max())
        confidence[n] = weights[tokens[n, 0]] / weights.sum()
        out = runtime.run('decode', keep=frozenset({'rows'}), token=tokens[n, :1],
                          index=np.array([n]), cache=cache, mask=bias)
        runtime.write_row(cache, out['rows'], prompt + n)
        bias[0, prompt + n] = 0.0
        states[prompt + n] = out['state'][0]
        tokens[n, 1:] = [_draw(row, bundle.temperature, random) for row in out['residual'][0]]
        logits = out['logits'][0]
    mask = np.concatenate([start['mask'][0], np.ones(windows, bool)])
    return Decoded(tokens, confidence, states, mask, read_target(start))


def _decode_at_once(runtime: Runtime, bundle: Bundle, first: np.ndarray, begin: np.ndarray,
                    cache: np.ndarray, bias: np.ndarray, random: np.random.Generator
                    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Ask for all base codes, run them, refine them as often as the bundle says.

    ``first`` (codes,) are the logits of the first window, ``begin`` (1, D) the state they were
    read from.  Returns tokens (W, levels), confidence
    (W,) and the states of the codes (W, D).
    """
    windows, codes = bundle.windows, bundle.codebook
    # The same noise in every pass: only what the model says may change a code.
    noise = _noise((windows, codes), bundle.temperature, random)
    logits = runtime.run('query', begin=begin, cache=cache, mask=bias)['logits'][0]
    for n in range(bundle.refinements + 1):
        base = np.argmax(logits + noise, axis=-1)
        out = runtime.run('refine', tokens=base[None], cache=cache, mask=bias)
        if n < bundle.refinements:
            logits = np.concatenate([first[None], out['logits'][0, :-1]])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    confidence = (weights[np.arange(windows), base] / weights.sum(-1)).astype(np.float32)
    residual = out['residual'][0]
    drawn = residual + _noise(residual.shape, bundle.temperature, random)
    tokens = np.concatenate([base[:, None], drawn.argmax(-1)], axis=1).astype(np.int64)
    return tokens, confidence, out['states'][0]


def _noise(shape: tuple[int, ...], temperature: float, random: np.random.Generator
           ) -> np.ndarray | float:
    """Noise of the Gumbel-max trick; none, and no time for it, at temperature 0."""
    return random.gumbel(size=shape) * temperature if temperature > 0 else 0.0


def _draw(logits: np.ndarray, temperature: float, random: np.random.Generator) -> int:
    if temperature > 0:
        logits = logits / temperature + random.gumbel(size=logits.shape)
    return int(np.argmax(logits))


def batches(candidates: int, batch: int) -> list[int]:
    """
    How many candidates each run of the flow draws, where graphs draw ``batch`` at once or one.

    What is left over is drawn one by one, or as a batch with idle rows where that costs less:
    four at once take a little longer than two one by one.
    """
    whole, left = divmod(candidates, batch)
    return [batch] * whole + ([batch] if 2 * left > batch else [1] * left)


def both_ways(batch: int) -> int:
    """Fewest candidates of which some are drawn at once, where graphs do, and one alone."""
    return batch + 1 if batch > 1 else 1


def sample_latents(runtime: Runtime, bundle: Bundle, states: np.ndarray, mask: np.ndarray,
                   known: np.ndarray, seed: int, steps: int, guidance: float,
                   memory: TimeMemory | None = None) -> np.ndarray:
    """Latents (windows, channels) of one candidate, as :func:`sample_candidates` draws it."""
    return sample_candidates(runtime, bundle, states, mask, known, seed, steps, guidance, 1,
                             memory)[0][0]


def sample_candidates(runtime: Runtime, bundle: Bundle, states: np.ndarray, mask: np.ndarray,
                      known: np.ndarray, seed: int, steps: int, guidance: float,
                      candidates: int, memory: TimeMemory | None = None
                      ) -> tuple[list[np.ndarray], np.ndarray | None]:
    """
    Integrate the flow from noise (t = 0) to motion latents (t = 1) with ``steps`` Euler steps.

    ``states`` (N, D), ``mask`` (N,) as decoded; ``known`` (K, channels), K < windows, latents of
    the windows that are already being executed: they stay as they are (in-painting).  With a
    ``memory``, the times it holds are not computed again.  Returns latents (windows, channels)
    float32 of every one of ``candidates``, which differ in their noise alone, and what the states
    tell of where the motion ends (AIM,), None of bundles that do not say.
    """
    told = runtime.run('condition', keep=frozenset({'context', 'context_mask'}),
                       states=states[None].astype(np.float32), mask=mask[None])
    context = {name: told[name] for name in ('context', 'context_mask')}
    shape = (1, bundle.windows, bundle.channels)
    fixed = np.zeros(shape, np.float32)
    fixed_mask = np.zeros(shape[:2], np.float32)
    fixed[0, :len(known)] = known
    fixed_mask[0, :len(known)] = 1.0
    dt = np.array([1.0 / steps], np.float32)
    strength = np.array([guidance], np.float32)
    modulations = (memory or TimeMemory()).run(runtime, steps)
    random, latents = random_stream(seed, _GENERATOR), []
    for size in batches(candidates, batch_of(runtime.specs)):
        # One after the other as they come, so that a seed means the same in batches of any size.
        count = min(size, candidates - len(latents))
        x = np.zeros((size, *shape[1:]), np.float32)
        x[:count] = random.standard_normal((count, *shape[1:]))
        graph = BATCH_GRAPH if size > 1 else 'step'
        same = runtime.hold(graph, dt=dt, guidance=strength, known=fixed, known_mask=fixed_mask)
        for n, modulation in enumerate(modulations):
            # Only what the last step answers is read here.
            keep = frozenset({'x_next'} if n + 1 < len(modulations) else ())
            x = runtime.run(graph, keep=keep, x=x, modulation=modulation, **same,
                            **context)['x_next']
        latents += list(np.where(fixed_mask[..., None] > 0, fixed, x)[:count])
    aim = told.get('aim')
    return latents, None if aim is None else np.asarray(aim)[0]
