# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The two loops over graphs, the same for every runtime: decoding primitives, integrating the flow.

All chance comes from NumPy's counter-based Philox generator, so that a seed means the same noise
whatever runs the graphs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.base import Runtime

#: Additive attention mask of a forbidden slot; finite, so that fp16 stays finite too.
FORBIDDEN = -1e4

# Streams of one seed: what the reasoner draws must not repeat what the generator draws.
_REASONER, _GENERATOR = 0, 1


def random_stream(seed: int, stream: int) -> np.random.Generator:
    """Random numbers of one ``stream`` of a plan's ``seed`` (0 to 2**64 - 1)."""
    if not 0 <= seed < 1 << 64:
        raise ValueError(f'seed must be between 0 and 2**64 - 1, got {seed}')
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))


@dataclass(frozen=True)
class Decoded:
    """``tokens`` (W, levels) int64, ``confidence`` (W,), ``states`` (N, D), ``mask`` (N,) bool."""

    tokens: np.ndarray
    confidence: np.ndarray
    states: np.ndarray
    mask: np.ndarray


def decode_primitives(runtime: Runtime, bundle: Bundle, image: np.ndarray, text: np.ndarray,
                      text_mask: np.ndarray, camera: np.ndarray, seed: int) -> Decoded:
    """
    Read the prompt, then decode one base code a step; residual codes fall out beside it.

    ``image`` (H, W, 3) uint8, ``text``, ``text_mask`` (text_length,), ``camera`` (3,) height m,
    pitch rad, yaw rad.  The bundle's temperature 0 takes the likeliest code; above it, codes are
    drawn by the Gumbel-max trick.
    """
    start = runtime.run('prefill', image=image[None], text=text[None], text_mask=text_mask[None],
                        camera=camera[None].astype(np.float32))
    random = random_stream(seed, _REASONER)
    prompt, windows = start['states'].shape[1], bundle.windows
    cache = np.array(start['cache'])
    # Slots fill up as primitives are decoded; the step's own row needs no slot.
    bias = np.full((1, prompt + windows), FORBIDDEN, np.float32)
    bias[0, :prompt][start['mask'][0]] = 0.0
    tokens = np.zeros((windows, bundle.levels), np.int64)
    confidence = np.zeros(windows, np.float32)
    states = np.zeros((prompt + windows, start['states'].shape[2]), np.float32)
    states[:prompt] = start['states'][0]
    logits = start['logits'][0]
    for n in range(windows):
        tokens[n, 0] = _draw(logits, bundle.temperature, random)
        weights = np.exp(logits - logits.max())
        confidence[n] = weights[tokens[n, 0]] / weights.sum()
        out = runtime.run('decode', token=tokens[n, :1], index=np.array([n]), cache=cache,
                          mask=bias)
        cache[:, :, :, prompt + n] = out['rows']
        bias[0, prompt + n] = 0.0
        states[prompt + n] = out['state'][0]
        tokens[n, 1:] = [_draw(row, bundle.temperature, random) for row in out['residual'][0]]
        logits = out['logits'][0]
    mask = np.concatenate([start['mask'][0], np.ones(windows, bool)])
    return Decoded(tokens, confidence, states, mask)


def _draw(logits: np.ndarray, temperature: float, random: np.random.Generator) -> int:
    if temperature > 0:
        logits = logits / temperature + random.gumbel(size=logits.shape)
    return int(np.argmax(logits))


def sample_latents(runtime: Runtime, bundle: Bundle, states: np.ndarray, mask: np.ndarray,
                   known: np.ndarray, seed: int, steps: int, guidance: float) -> np.ndarray:
    """
    Integrate the flow from noise (t = 0) to motion latents (t = 1) with ``steps`` Euler steps.

    ``states`` (N, D), ``mask`` (N,) as decoded; ``known`` (K, channels), K < windows, latents of
    the windows that are already being executed: they stay as they are (in-painting).  Returns
    latents (windows, channels) float32.
    """
    context = runtime.run('condition', states=states[None].astype(np.float32), mask=mask[None])
    shape = (1, bundle.windows, bundle.channels)
    x = random_stream(seed, _GENERATOR).standard_normal(shape).astype(np.float32)
    fixed = np.zeros(shape, np.float32)
    fixed_mask = np.zeros(shape[:2], np.float32)
    fixed[0, :len(known)] = known
    fixed_mask[0, :len(known)] = 1.0
    dt = np.array([1.0 / steps], np.float32)
    strength = np.array([guidance], np.float32)
    for n in range(steps):
        x = runtime.run('step', x=x, t=np.array([n / steps], np.float32), dt=dt,
                        guidance=strength, known=fixed, known_mask=fixed_mask,
                        **context)['x_next']
    return np.where(fixed_mask[..., None] > 0, fixed, x)[0]
