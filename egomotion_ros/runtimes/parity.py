# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Does a runtime answer as the reference does?  Graph by graph, and end to end.

End to end means: same picture, instruction and seed, both decode primitives and sample a motion
on their own; compared are the tokens and where the 22 joints end up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from egomotion_ros.body.features import feature_positions
from egomotion_ros.bundle import DECODERS, PARALLEL_GRAPHS, Bundle
from egomotion_ros.runtimes.base import Runtime
from egomotion_ros.runtimes.loops import (
    Decoded,
    both_ways,
    decode_primitives,
    sample_candidates,
    sample_latents,
)
from egomotion_ros.text import InstructionTooLongError, TextEncoder

#: The gate: how far joints may be apart (m), and the share of tokens that must be identical.
MAX_JOINT_METRES = 0.005
MIN_TOKENS_EQUAL = 0.99
#: What every output of every graph must reach when both sides count in float32.
MIN_COSINE = 0.9999

_INSTRUCTIONS = ('walk to the red ball', 'turn left', 'go to the small blue box and stop',
                 'stand still', 'wave with your right hand', 'walk forward',
                 'turn to the green cylinder', 'stop at the big yellow cone')


@dataclass(frozen=True)
class GraphParity:
    """Largest absolute difference over all outputs, and the smallest cosine similarity."""

    max_abs: float
    cosine: float


@dataclass(frozen=True)
class ParityReport:
    """
    How closely ``runtime`` follows ``reference`` over ``cases`` cases.

    ``joints_m`` is the largest distance of a joint in any frame, over the cases whose tokens
    agree; ``tokens_equal`` the share of identical tokens of all cases.
    """

    reference: str
    runtime: str
    cases: int
    tokens_equal: float
    joints_m: float
    graphs: dict[str, GraphParity]

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self)

    def require(self, exact: bool = False) -> None:
        """
        Raise ValueError, with the figures, unless both gates are passed.

        ``exact`` asks for :data:`MIN_COSINE` of every graph too: for float32 on both sides.
        """
        worst = '; '.join(f'{name}: max abs {item.max_abs:.2g}, cosine {item.cosine:.6f}'
                          for name, item in self.graphs.items())
        if not (self.tokens_equal >= MIN_TOKENS_EQUAL and self.joints_m <= MAX_JOINT_METRES):
            raise ValueError(
                f'{self.runtime} does not follow {self.reference}: {self.tokens_equal:.2%} of '
                f'tokens equal (at least {MIN_TOKENS_EQUAL:.0%}), joints up to '
                f'{1000 * self.joints_m:.2f} mm apart (at most {1000 * MAX_JOINT_METRES:.0f}); '
                f'{worst}')
        apart = [name for name, item in self.graphs.items() if not item.cosine >= MIN_COSINE]
        if exact and apart:
            raise ValueError(f'{self.runtime} does not follow {self.reference}: cosine below '
                             f'{MIN_COSINE} in {", ".join(apart)}; {worst}')


@dataclass(frozen=True)
class Case:
    """One prompt: image (H, W, 3) uint8, text ids and mask, camera (3,)."""

    image: np.ndarray
    text: np.ndarray
    text_mask: np.ndarray
    camera: np.ndarray


def reference_cases(bundle: Bundle, text: TextEncoder, count: int) -> Iterator[Case]:
    """Yield ``count`` made-up prompts: a floor, a wall and coloured boxes, by seed."""
    height, width = bundle.camera.height, bundle.camera.width
    for n in range(count):
        random = np.random.Generator(np.random.Philox(n))
        image = np.empty((height, width, 3), np.uint8)
        horizon = int(height * random.uniform(0.2, 0.5))
        image[:horizon], image[horizon:] = random.integers(60, 220, (2, 3))
        for _ in range(random.integers(1, 5)):
            top, left = (random.uniform(0.1, 0.8, 2) * (height, width)).astype(int)
            size = int(height * random.uniform(0.05, 0.25))
            image[top:top + size, left:left + size] = random.integers(0, 256, 3)
        noise = random.integers(-6, 7, image.shape)
        image = np.clip(image.astype(np.int16) + noise, 0, 255).astype(np.uint8)
        ids, mask = _encode(text, _INSTRUCTIONS[n % len(_INSTRUCTIONS)])
        camera = np.array([random.uniform(1.3, 1.7), random.uniform(0.2, 0.7),
                           random.uniform(-0.2, 0.2)], np.float32)
        yield Case(image, ids, mask, camera)


def _encode(text: TextEncoder, instruction: str) -> tuple[np.ndarray, np.ndarray]:
    """Encode as many words as a short prompt holds."""
    words = instruction.split()
    while len(words) > 1:
        try:
            return text.encode(' '.join(words))
        except InstructionTooLongError:
            words.pop()
    return text.encode(words[0][:text.length // 4])


def check_parity(bundle: Bundle, text: TextEncoder, reference: Runtime, candidate: Runtime,
                 count: int, progress: bool = True) -> ParityReport:
    """
    Compare two runtimes of the same bundle over ``count`` reference cases.

    A bundle with both decoders is compared with each of them.
    """
    graphs: dict[str, GraphParity] = {}
    equal, joints = [], [0.0]
    recording = _Recorder(reference)
    for seed, case in enumerate(tqdm(reference_cases(bundle, text, count), total=count,
                                     desc='parity', disable=not progress)):
        for decoder in DECODERS if PARALLEL_GRAPHS[0] in bundle.graphs else DECODERS[:1]:
            variant = replace(bundle, decoder=decoder)
            expected, motion = _answer(recording, variant, case, seed)
            found, other = _answer(candidate, variant, case, seed)
            same = expected.tokens == found.tokens
            equal.append(same.mean())
            if same.all():
                apart = feature_positions(motion) - feature_positions(other)
                joints.append(float(np.linalg.norm(apart, axis=-1).max()))
        for name, arrays, outputs in recording.take():
            answer = candidate.run(name, **arrays)
            for key, value in outputs.items():
                graphs[name] = _worse(graphs.get(name), value, answer[key])
    return ParityReport(reference.name, candidate.name, count, float(np.mean(equal)),
                        max(joints), graphs)


def _answer(runtime: Runtime, bundle: Bundle, case: Case,
            seed: int) -> tuple[Decoded, np.ndarray]:
    """
    Decode, sample, sample again with the first windows of the answer known: every graph.

    Returns what was decoded and the features (candidates, T, 140) of the second motions.
    """
    decoded = decode_primitives(runtime, bundle, case.image, case.text, case.text_mask,
                                case.camera, seed)
    free = sample_latents(runtime, bundle, decoded.states, decoded.mask,
                          np.zeros((0, bundle.channels), np.float32), seed, bundle.steps,
                          bundle.guidance)
    features = runtime.run('decode_motion', latents=free[None])['features']
    known = runtime.run('encode', features=features)['latents'][0, :2]
    joined, _ = sample_candidates(runtime, bundle, decoded.states, decoded.mask, known, seed,
                                  bundle.steps, bundle.guidance, both_ways(bundle.batch))
    features = [runtime.run('decode_motion', latents=latents[None])['features'][0]
                for latents in joined]
    return decoded, np.array(features, np.float64)


class _Recorder(Runtime):
    """Passes calls on and keeps the first of every graph, inputs and outputs."""

    def __init__(self, inner: Runtime) -> None:
        super().__init__(inner.specs)
        self.name = inner.name
        self._inner = inner
        self._seen: dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = {}

    def _run(self, graph: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = self._inner.run(graph, **arrays)
        if graph not in self._seen:
            # The loops go on writing into their arrays.
            self._seen[graph] = ({name: array.copy() for name, array in arrays.items()}, outputs)
        return outputs

    def take(self) -> list[tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]]:
        calls = [(name, *call) for name, call in self._seen.items()]
        self._seen.clear()
        return calls

    def close(self) -> None:
        self._inner.close()


def _worse(old: GraphParity | None, expected: np.ndarray, found: np.ndarray) -> GraphParity:
    a, b = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    cosine = float(a @ b / lengths) if lengths > 0 else float(np.array_equal(a, b))
    new = GraphParity(float(np.abs(a - b).max()), cosine)
    if not (np.isfinite(new.max_abs) and np.isfinite(new.cosine)):
        new = GraphParity(float('inf'), -1.0)
    if old is None:
        return new
    return GraphParity(max(old.max_abs, new.max_abs), min(old.cosine, new.cosine))
