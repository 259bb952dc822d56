# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A bundle under the published protocols: what is asked, what is answered, what is compared.

Held-out episodes are split in two halves with no motion in common.  The bundle answers the first
half; its answers are compared with the recorded motions of the *second*, and so are the recorded
motions of the first: that is the real-to-real floor, of the same size and against the same set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from egomotion_ros.body.features import VELOCITY, features_to_motion, motion_to_features
from egomotion_ros.bundle import Bundle
from egomotion_ros.data.episodes import EpisodeSet
from egomotion_ros.evaluation import hml3d, uniegomotion
from egomotion_ros.evaluation.captions import EVALUATED, EpisodeTexts
from egomotion_ros.evaluation.physics import mean_of
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.runtimes.base import Runtime
from egomotion_ros.types import CameraPose, HumanMotion, Observation

if TYPE_CHECKING:
    from egomotion_ros.evaluation.evaluator import Evaluator

#: Which FID a table shows; they differ by orders of magnitude and never compare.
RAW, NORMALISED = 'raw embeddings', 'L2-normalised embeddings'
#: Speeds (m/s) of walking that is compared with recordings on autoencoder features.
WALKING = (0.7, 1.6)


class Asked:
    """Episodes a bundle is asked, ``rows`` (N,), and as many others to compare with."""

    def __init__(self, episodes: EpisodeTexts, rows: np.ndarray, others: np.ndarray) -> None:
        self.episodes, self.rows, self.others = episodes, rows, others

    @property
    def texts(self) -> list[str]:
        """Captions of the episodes asked."""
        return [self.episodes.text(int(n)) for n in self.rows]

    @property
    def real(self) -> np.ndarray:
        """Recorded features (N, 144, 140) of the episodes asked."""
        return self.episodes.features(self.rows)

    @property
    def other(self) -> np.ndarray:
        """Recorded features (N, 144, 140) of the other half."""
        return self.episodes.features(self.others)

    def recorded(self) -> list[HumanMotion]:
        """Recorded motions of the episodes asked, in the start frame."""
        return [features_to_motion(row) for row in self.real]


def draw(episodes: EpisodeSet, count: int, seed: int = 0) -> Asked:
    """
    Draw two halves of up to ``count`` episodes each, every one with another motion.

    Motions that begin under way are left out: only a prefix makes them definite.
    """
    texts = EpisodeTexts(episodes)
    motions = episodes.motion[texts.index]
    moving = episodes.bank.under_way()[motions]
    order = np.random.default_rng(seed).permutation(np.flatnonzero(~moving))
    _, first = np.unique(motions[order], return_index=True)
    unique = order[np.sort(first)]
    half = min(count, len(unique) // 2)
    if count < hml3d.GROUP:
        raise ValueError(f'the protocol needs {hml3d.GROUP} answers and more, {count} are asked')
    if half < hml3d.GROUP:
        raise ValueError(f'{episodes.folder}: {len(unique)} episodes with a motion of their own, '
                         f'the protocol needs {2 * hml3d.GROUP}')
    return Asked(texts, unique[:half], unique[half:2 * half])


def answers(pipeline: EgoMotionPipeline, asked: Asked, rows: np.ndarray, samples: int,
            label: str) -> list[list[HumanMotion]]:
    """Answer the episodes ``rows`` ``samples`` times each, in human metres and start frame."""
    out = []
    for n in tqdm(rows, desc=label, unit='episode', mininterval=5):
        out.append(list(_answers(pipeline, asked.episodes, int(n), samples)))
    return out


def _answers(pipeline: EgoMotionPipeline, texts: EpisodeTexts, n: int, samples: int
             ) -> Iterator[HumanMotion]:
    episodes, episode = texts.set, int(texts.index[n])
    height, pitch, yaw = map(float, episodes.camera[int(episodes.scene[episode])])
    observation = Observation(
        np.asarray(episodes.image(episode)), episodes.instruction(episode), 0,
        CameraPose(height * pipeline.scale, pitch, yaw))
    primitives = None
    for seed in range(samples):
        # At temperature 0 the reasoner has one answer, whatever the seed.
        if primitives is None or pipeline.bundle.temperature > 0:
            primitives = pipeline.reason(observation, f'metrics-{n}-{seed}', seed)
        motion = pipeline.generate(primitives, seed=1000 * n + seed)
        yield replace(motion, root_position=motion.root_position / motion.scale, scale=1.0)


def stacked(motions: list[HumanMotion]) -> np.ndarray:
    """Features (N, 144, 140) of plans."""
    return np.stack([motion_to_features(m)[:EVALUATED] for m in motions])


def text_to_motion(evaluator: Evaluator, asked: Asked, coded: list[HumanMotion],
                   made: list[list[HumanMotion]], repeated: list[list[HumanMotion]],
                   replications: int) -> dict[str, object]:
    """
    HumanML3D protocol: rows of figures with mean and interval.

    ``real`` are the recorded motions, ``reconstructed`` the same through the autoencoder,
    ``coded``: what a generator in its latent space can reach.  ``generated``: ``made`` answers of
    the episodes asked, ``repeated`` texts with many samples each (MultiModality).  A replication
    draws groups, pairs and one of the samples of every text.
    """
    words = evaluator.texts(asked.texts)
    other = evaluator.features(asked.other)
    samples = len(made[0])
    rows = {'real': evaluator.features(asked.real)[:, None],
            'reconstructed': evaluator.motions(coded)[:, None],
            'generated': evaluator.motions([m for row in made for m in row]).reshape(
                len(made), samples, -1)}
    many = np.stack([evaluator.motions(row) for row in repeated])
    pairs = min(hml3d.SAMPLE_PAIRS, many.shape[1])
    out: dict[str, object] = {
        'FID': f'{RAW}, against {len(other)} other recorded motions; the row "real" is its floor',
        'pairs': len(words), 'samples a text': samples, 'replications': replications,
        'MultiModality': f'{len(repeated)} texts x {many.shape[1]} samples, {pairs} pairs'}
    for name, all_samples in rows.items():
        def measure(rng: np.random.Generator, rows: np.ndarray = all_samples,
                    name: str = name) -> dict[str, float]:
            order = rng.permutation(len(words))
            motion = rows[order, rng.integers(rows.shape[1], size=len(order))]
            precision = hml3d.r_precision(words[order], motion)
            figures = {f'R@{k + 1}': float(v) for k, v in enumerate(precision)}
            figures |= {'MM-Dist': hml3d.matching_distance(words[order], motion),
                        'FID': hml3d.frechet_distance(motion, other),
                        'Diversity': hml3d.diversity(motion, rng)}
            if name == 'generated':
                figures['MultiModality'] = hml3d.multimodality(many, rng, pairs)
            return figures
        out[name] = hml3d.replicate(measure, replications)
    return out


def egocentric(evaluator: Evaluator | None, asked: Asked, made: list[HumanMotion]
               ) -> dict[str, object]:
    """UniEgoMotion protocol: first answers against the recorded motions of the same episodes."""
    out: dict[str, object] = mean_of([uniegomotion.compare(answer, truth) for answer, truth in
                                      zip(made, asked.recorded(), strict=True)])
    if evaluator is not None:
        answer, real = evaluator.motions(made), evaluator.features(asked.real)
        other = evaluator.features(asked.other)
        out |= {'semantic similarity': uniegomotion.semantic_similarity(answer, real),
                f'FID ({NORMALISED})': uniegomotion.normalised_fid(answer, other),
                f'FID ({NORMALISED}), real-to-real floor':
                    uniegomotion.normalised_fid(real, other)}
    return {'motions': len(made), **out}


def latents(runtime: Runtime, features: np.ndarray, windows: int, window: int) -> np.ndarray:
    """
    Autoencoder features: latents (N, T // 8, channels) of motions (N, T, 140).

    The encoder's graph takes whole plans; shorter motions are filled up with their last row,
    which changes nothing before it, because the encoder is causal.
    """
    whole = features.shape[1] // window
    if not 1 <= whole <= windows:
        raise ValueError(f'expected {window} to {windows * window} frames, '
                         f'got {features.shape[1]}')
    kept = features[:, :whole * window]
    fill = np.repeat(kept[:, -1:], windows * window - kept.shape[1], axis=1)
    padded = np.concatenate([kept, fill], axis=1).astype(np.float32)
    return np.stack([runtime.run('encode', features=row[None])['latents'][0, :whole]
                     for row in padded])


def autoencoder_frechet(pipeline: EgoMotionPipeline, runtime: Runtime, asked: Asked,
                        made: list[HumanMotion]) -> dict[str, object]:
    """
    Frechet distance on the autoencoder's latents, one row a window of 8 frames.

    ``generated``, ``floor``: answers, and recorded motions of the same episodes, against the
    recorded motions of the other half.
    """
    bundle = pipeline.bundle
    sets = [latents(runtime, part, bundle.windows, bundle.window).reshape(-1, bundle.channels)
            for part in (stacked(made), asked.real, asked.other)]
    return {'rows': len(sets[0]), 'features': f'{bundle.channels} autoencoder latents a window, '
            'standardised, no other normalisation',
            'generated': hml3d.frechet_distance(sets[0], sets[2]),
            'real-to-real floor': hml3d.frechet_distance(sets[1], sets[2])}


def walking_frechet(pipeline: EgoMotionPipeline, runtime: Runtime,
                    made: dict[str, list[HumanMotion]], sides: tuple[list[HumanMotion], ...],
                    seed: int = 0) -> dict[str, object]:
    """
    Frechet distance of walking alone against recordings, and of recordings among themselves.

    ``sides`` are recordings of two disjoint sets of performances: the floor is the distance
    between them, every set of ``made`` is compared with the second.  Rows are latents of windows
    that go WALKING metres a second, as many on every left side as the first has; sets with fewer
    than two are named under ``not compared``.
    """
    rows = {name: _walking(pipeline, runtime, motions) for name, motions in
            {**made, 'real-to-real floor': sides[0], 'truth': sides[1]}.items()}
    short = [name for name, found in rows.items() if len(found) < 2]
    truth, count = rows.pop('truth'), len(rows['real-to-real floor'])
    out: dict[str, object] = {'rows': f'{count} and {len(truth)}', 'not compared': short}
    rng = np.random.default_rng(seed)
    if len(truth) > 1 and count > 1:
        for name in [name for name in rows if name not in short]:
            kept = rng.choice(len(rows[name]), min(count, len(rows[name])), replace=False)
            out[name] = hml3d.frechet_distance(rows[name][kept], truth)
    return out


def _walking(pipeline: EgoMotionPipeline, runtime: Runtime, motions: list[HumanMotion]
             ) -> np.ndarray:
    """Latents (N, channels) of the windows of motions that walk."""
    bundle, out = pipeline.bundle, [np.zeros((0, pipeline.bundle.channels))]
    for part in (part for motion in motions for part in _plans(bundle, motion)):
        codes = latents(runtime, part[None], bundle.windows, bundle.window)[0]
        steps = part[:len(codes) * bundle.window, VELOCITY].reshape(len(codes), -1, 2)
        speed = np.linalg.norm(steps, axis=-1).mean(axis=1)
        out.append(codes[(speed >= WALKING[0]) & (speed < WALKING[1])])
    return np.concatenate(out)


def _plans(bundle: Bundle, motion: HumanMotion) -> Iterator[np.ndarray]:
    """Features (T, 140) of a motion in pieces of a plan's length, at least a window long."""
    features = motion_to_features(motion).astype(np.float32)
    length = bundle.windows * bundle.window
    for first in range(0, len(features) - bundle.window + 1, length):
        yield features[first:first + length]


def reconstructed(pipeline: EgoMotionPipeline, runtime: Runtime, motion: HumanMotion
                  ) -> list[HumanMotion]:
    """A recording through the bundle's autoencoder, plan by plan; what is left over is dropped."""
    bundle = pipeline.bundle
    out = []
    for part in _plans(bundle, motion):
        codes = latents(runtime, part[None], bundle.windows, bundle.window)[0]
        whole = len(codes)
        # Beyond the recording the last latent is repeated; those frames are cut off again.
        codes = np.concatenate([codes, np.repeat(codes[-1:], bundle.windows - whole, axis=0)])
        answer = runtime.run('decode_motion', latents=codes[None])['features'][0]
        out.append(features_to_motion(answer[:whole * bundle.window]))
    return out
