# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Simpler methods on the same scenes: what each part of the full method is worth.

* the reasoner's primitives decoded by the tokenizer: no generator;
* the generator conditioned on image and text features: no reasoner
  (:mod:`egomotion_ros.training.baseline_generator`);
* retrieval: the motion of the training episode whose picture and words are most alike;
* the one training motion that reaches most training goals.

All take the checkpoints the bundle was exported from, and the episodes it learned from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from egomotion_ros.body.features import features_to_motion
from egomotion_ros.body.hands import HANDS
from egomotion_ros.data.episodes import RECORDED, EpisodeSet
from egomotion_ros.data.instructions import ACTIONS
from egomotion_ros.evaluation.goals import reached_by
from egomotion_ros.evaluation.reach import TOUCH
from egomotion_ros.evaluation.scenes import Answerer, Question
from egomotion_ros.models.checkpoints import load_model
from egomotion_ros.text import TextEncoder
from egomotion_ros.training.baseline_generator import Conditions
from egomotion_ros.training.reasoner_batches import to_pixels
from egomotion_ros.types import FPS, PLAN_FRAMES, PLAN_WINDOWS, HumanMotion

#: Folder of the checkpoint without a reasoner, beside those of the stages.
FOLDER = 'baseline'
TOKENS = 'primitives decoded, no generator'
NO_REASONER = 'image and text features, no reasoner'
RETRIEVAL = 'nearest training episode'
CONSTANT = 'best constant motion'
#: Dimensions pictures are compared in (a random projection keeps their angles).
_PROJECTED = 512
#: Goals and motions the constant motion is chosen among.
_CANDIDATES = 500


class Baselines:
    """
    The four baselines over one set of checkpoints and training episodes.

    ``steps`` and ``guidance`` of the flow are those of the bundle they are compared with.
    ValueError when a checkpoint is missing or unreadable, or the episodes have no motions.
    """

    def __init__(self, checkpoints: Path, episodes: Path, steps: int = 8, guidance: float = 1.0
                 ) -> None:
        checkpoints = Path(checkpoints)
        self._flow = {'steps': steps, 'guidance': guidance}
        self._reasoner = load_model(checkpoints / 'reasoner', 'reasoner')
        self._tokenizer = load_model(checkpoints / 'tokenizer', 'tokenizer')
        self._autoencoder = load_model(checkpoints / 'autoencoder', 'autoencoder')
        self._text = TextEncoder.open(checkpoints / 'reasoner' / 'text.json',
                                      self._reasoner.config.text_tokens)
        self._generator = None
        if (checkpoints / FOLDER / 'model.safetensors').exists():
            self._generator = load_model(checkpoints / FOLDER, 'generator')
        self._train = Conditions(self._reasoner, self._text, EpisodeSet.open(episodes),
                                 checkpoints / FOLDER / 'image_rows.npy')
        self._retrieval: Retrieval | None = None

    def answerers(self, action: str) -> Iterator[tuple[str, Answerer | None]]:
        """Name and answerer of each baseline; None where its checkpoint is missing."""
        yield TOKENS, self._decode_primitives
        yield NO_REASONER, None if self._generator is None else self._generate
        yield RETRIEVAL, self._retrieve
        episodes = self._train.episodes
        # For reaching one for each way to name the hands, as many as chance has.
        constant = {side: constant_motion(episodes, action, side)
                    for side in (HANDS if action == 'reach' else ('',))}
        yield CONSTANT, lambda question, seed: constant[question.side]

    def _prompt(self, question: Question) -> tuple[torch.Tensor, ...]:
        ids, mask = self._text.encode(question.instruction)
        camera = np.array([[question.camera.height, question.camera.pitch, question.camera.yaw]])
        return (to_pixels(question.image[None]), torch.from_numpy(ids)[None],
                torch.from_numpy(mask)[None], torch.from_numpy(camera.astype(np.float32)))

    @torch.no_grad()
    def _decode_primitives(self, question: Question, seed: int) -> HumanMotion:
        codes, _, _ = self._reasoner.generate(*self._prompt(question))
        return as_motion(self._tokenizer.decode(codes)[0].numpy())

    @torch.no_grad()
    def _generate(self, question: Question, seed: int) -> HumanMotion:
        states, mask = self._reasoner.prompt(*self._prompt(question))
        noise = torch.randn(1, PLAN_WINDOWS, self._autoencoder.config.channels,
                            generator=torch.Generator().manual_seed(seed))
        latents = self._generator.sample(noise, states, mask, torch.zeros_like(noise),
                                         torch.zeros(noise.shape[:2]), **self._flow)
        return as_motion(self._autoencoder.decode(latents)[0].numpy())

    @torch.no_grad()
    def _retrieve(self, question: Question, seed: int) -> HumanMotion:
        if self._retrieval is None:
            self._retrieval = Retrieval(self._train)
        pixels, ids, mask, camera = self._prompt(question)
        image = self._reasoner.image_features(pixels, camera)[0].numpy()
        episode = self._retrieval.nearest(image, ids[mask.bool()].numpy())
        return as_motion(self._train.episodes.motion_features(episode))


def as_motion(features: np.ndarray) -> HumanMotion:
    """Motion of one plan, in the start frame at scale 1, from features (T >= 150, 140)."""
    return features_to_motion(np.asarray(features[:PLAN_FRAMES], np.float64), None, 'start', FPS)


class Retrieval:
    """
    Nearest training episode by picture and words.

    Pictures are compared by the cosine of their image tokens about the mean picture, words by the
    cosine of token counts, rare tokens counting more (tf-idf, Salton and Buckley 1988); both are
    standardised over the episodes and summed.
    """

    def __init__(self, train: Conditions) -> None:
        episodes = train.episodes
        # A person who stands cannot be given a motion that is under way.
        usable = ((episodes.motion >= 0) & (episodes.action != RECORDED)
                  & ~episodes.bank.under_way()[episodes.motion])
        self._episodes = np.flatnonzero(usable)
        if not len(self._episodes):
            raise ValueError(f'{episodes.folder}: no episode starts at rest')
        size = int(np.prod(train.images.shape[1:]))
        self._matrix = np.random.default_rng(0).standard_normal(
            (size, _PROJECTED)).astype(np.float32) / np.sqrt(size)
        pictures = np.concatenate([self._project(train.images[n:n + 256])
                                   for n in range(0, len(train.images), 256)])
        self._mean = pictures.mean(0)
        self._pictures = _unit(pictures - self._mean)
        self._scene = episodes.scene[self._episodes]
        words = np.where(train.masks, train.ids, -1)[self._episodes]
        texts, said = np.unique(words, axis=0, return_inverse=True)
        self._said, self._vocabulary = said.ravel(), int(texts.max()) + 1
        counts = np.stack([self._count(ids) for ids in texts])
        self._weight = np.log(len(texts) / np.maximum((counts > 0).sum(0), 1)).astype(np.float32)
        self._texts = _unit(counts * self._weight)

    def _project(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows, np.float32).reshape(len(rows), -1) @ self._matrix

    def _count(self, ids: np.ndarray) -> np.ndarray:
        known = ids[(ids >= 0) & (ids < self._vocabulary)]
        return np.bincount(known, minlength=self._vocabulary).astype(np.float32)

    def nearest(self, image: np.ndarray, ids: np.ndarray) -> int:
        """Episode most alike to image tokens (N, D) and token ids (any count; negative: none)."""
        picture = _unit(self._project(image[None]) - self._mean)[0]
        alike = (self._pictures @ picture)[self._scene]
        said = (self._texts @ _unit((self._count(ids) * self._weight)[None])[0])[self._said]
        return int(self._episodes[np.argmax(_standard(alike) + _standard(said))])


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(float(values.std()), 1e-9)


def constant_motion(episodes: EpisodeSet, action: str, side: str = '') -> HumanMotion:
    """
    Return the motion of the bank that reaches most goals of an action in the episodes.

    To ``reach`` with the hands ``side`` is to bring them all within TOUCH of where the episode's
    own motion has them.
    """
    bank = episodes.bank
    asked = np.flatnonzero((episodes.action == ACTIONS.index(action)) & (episodes.motion >= 0))
    asked = asked[~bank.under_way()[episodes.motion[asked]]]
    if action == 'reach':
        wanted = np.isin(np.arange(2), HANDS[side])
        reaching = np.isfinite(bank.hands[episodes.motion[asked]]).all(-1)
        asked = asked[(reaching == wanted).all(-1)]
    if not len(asked):
        raise ValueError(f'{episodes.folder}: no episode asks to {action} from rest'
                         f'{f", {side}" if side else ""}')
    rng = np.random.default_rng(0)
    asked = rng.permutation(asked)[:_CANDIDATES]
    goals, motions = np.asarray(episodes.goal[asked], float), np.unique(episodes.motion[asked])
    if action == 'reach':
        places = np.asarray(bank.hands[episodes.motion[asked]], float)[:, wanted]
        away = [np.linalg.norm(places - np.asarray(bank.hands[m], float)[wanted], axis=-1)
                for m in motions]
        hits = [(gaps.max(axis=-1) <= TOUCH).mean() for gaps in away]
    else:
        hits = [reached_by(np.asarray(bank.goal[m], float), goals, action).mean()
                for m in motions]
    return as_motion(np.asarray(bank.features[motions[int(np.argmax(hits))]]))
