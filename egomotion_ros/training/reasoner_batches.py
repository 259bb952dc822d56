# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What stage 1 is asked: pictures of an episode set, their questions as tokens, and the codes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from egomotion_ros.body.hands import HANDS
from egomotion_ros.data.episodes import RECORDED, EpisodeSet
from egomotion_ros.data.instructions import (
    NAMING_ACTIONS,
    OBJECT_ACTIONS,
    free_command,
    free_parameters,
    object_command,
)
from egomotion_ros.data.scenes import COLOUR_NAMES, OBJECT_COLUMNS, SHAPE_NAMES
from egomotion_ros.models.tokenizer import MotionTokenizer
from egomotion_ros.text import InstructionTooLongError, TextEncoder
from egomotion_ros.training.unknown_words import blurred

_COLUMN = {name: n for n, name in enumerate(OBJECT_COLUMNS)}
#: Commands sampled to learn the text vocabulary from.
_CORPUS = 30_000
#: Stands for a sentence that is not used.
_LEFT_OUT = 'stand still'
#: Share of the sentences that are shown with a word nobody knows (:func:`blurred`).
BLURRED = 0.3


def to_pixels(images: np.ndarray) -> Tensor:
    """Pictures (S, H, W, 3) uint8 -> (S, 3, H, W) float32 in [-1, 1]."""
    return _in_range(torch.from_numpy(np.ascontiguousarray(images)))


def _in_range(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def train_text(vocabulary: int, length: int, seed: int = 0, kind: str = 'simple',
               recorded: Sequence[str] = ()) -> TextEncoder:
    """
    Learn the text vocabulary from commands of the training grammar for a kind of scenes.

    Sentences that ``recorded`` has are learned from as well, a third of the whole where there are
    so many.
    """
    rng = np.random.default_rng(seed)
    naming = OBJECT_ACTIONS if kind == 'simple' else NAMING_ACTIONS
    sides = tuple(HANDS)
    free = list(free_parameters(kind))
    texts = []
    for _ in range(_CORPUS):
        if rng.random() < 0.7:
            texts.append(object_command(
                str(rng.choice(naming)), 0, int(rng.integers(len(COLOUR_NAMES))),
                int(rng.integers(len(SHAPE_NAMES))), rng, 'train', kind,
                sides[len(texts) % len(sides)]).text)
        else:
            texts.append(free_command(str(rng.choice(free)), rng, 'train', kind).text)
    return TextEncoder.train([*texts, *recorded[:_CORPUS // 2]], vocabulary, length)


def recorded_sentences(episodes: EpisodeSet) -> list[str]:
    """Sentences of a set's recordings, each once, in an order that has nothing to do with time."""
    found = sorted({episodes.instruction(int(row))
                    for row in np.flatnonzero(episodes.action == RECORDED)})
    return [found[n] for n in np.random.default_rng(0).permutation(len(found))]


def _encoded(text: TextEncoder, sentences: list[str], instead: list[str]
             ) -> tuple[np.ndarray, np.ndarray]:
    """Ids and masks (E, tokens) of sentences; of those ``instead`` where one is too long."""
    encode = cache(text.encode)  # thousands of sentences stand for hundreds of thousands
    pairs = []
    for n, sentence in enumerate(sentences):
        try:
            pairs.append(encode(sentence))
        except InstructionTooLongError:
            pairs.append(encode(instead[n]))
    return np.stack([ids for ids, _ in pairs]), np.stack([mask for _, mask in pairs])


def _told(text: TextEncoder, episodes: EpisodeSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Ids and masks (E, tokens) of all instructions, and which of them (E,) can be told.

    Those of recordings may be too long, and how many are is said; others raise
    InstructionTooLongError.
    """
    good = np.ones(len(episodes), bool)
    for row in np.flatnonzero(episodes.action == RECORDED):
        try:
            text.encode(episodes.instruction(int(row)))
        except InstructionTooLongError:
            good[row] = False
    if not good.all():
        tqdm.write(f'{episodes.folder}: {int((~good).sum())} sentences of recordings are longer '
                   f'than {text.length} tokens and left out')
    told = [sentence if fits else _LEFT_OUT
            for sentence, fits in zip(episodes.instructions, good, strict=True)]
    return *_encoded(text, told, told), good


def encode_bank(tokenizer: MotionTokenizer, features: np.ndarray, batch: int = 256) -> np.ndarray:
    """Codes (M, 19, levels) of the motions (M, 152, 140) of a bank."""
    device = next(tokenizer.parameters()).device
    parts = [tokenizer.encode(torch.from_numpy(
        np.asarray(features[n:n + batch], np.float32)).to(device)).cpu().numpy()
        for n in range(0, len(features), batch)]
    return np.concatenate(parts)


def on_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """
    Give a batch of :class:`ReasonerBatches` on ``device``, its pictures as pixels in [-1, 1].

    Pictures with a ``light`` (S, 4), gain of the colours and lift, are changed by it, and noise
    is laid over them.
    """
    batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    pixels = _in_range(batch.pop('images'))
    light = batch.pop('light', None)
    if light is not None:
        gain, lift = light[:, :3, None, None], light[:, 3:, None, None]
        pixels = (pixels * (0.5 * gain + 0.5 * gain[:, :1]) + lift
                  + 0.02 * torch.randn_like(pixels)).clamp(-1, 1)
    return batch | {'pixels': pixels}


class ReasonerBatches:
    """Samples of an episode set: pictures with several questions each."""

    def __init__(self, episodes: EpisodeSet, text: TextEncoder, codes: np.ndarray | None,
                 patches: int, scenes: np.ndarray | None = None) -> None:
        self.episodes, self.codes, self.patches, self._text = episodes, codes, patches, text
        self.ids, self.mask, self.told = _told(text, episodes)
        motion = np.asarray(episodes.motion)
        moving = np.zeros(len(motion), bool)
        if episodes.bank is not None:
            moving = (motion >= 0) & episodes.bank.under_way()[motion]
        # Of a simulated motion under way nothing is said but where it is to lead from rest.
        self.moving = moving & (episodes.action != RECORDED)
        self.spoken = (motion >= 0) & ~self.moving
        order = np.argsort(episodes.scene, kind='stable')
        order = order[self.told[order]]
        bounds = np.searchsorted(episodes.scene[order], np.arange(len(episodes.images) + 1))
        self.of_scene = [order[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
        usable = [n for n, rows in enumerate(self.of_scene) if len(rows)]
        self.scenes = np.intersect1d(usable, usable if scenes is None else scenes)

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(word for text in set(self.episodes.instructions)
                         for word in text.split())

    def blurred(self, rows: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Ids and masks of the sentences of ``rows`` with a word nobody knows in each."""
        known = [self.episodes.instruction(int(row)) for row in rows]
        return _encoded(self._text, blurred(known, seed, self._words), known)

    def drop_under_way(self) -> None:
        """
        Leave out scenes that are seen on the way.

        Raises ValueError when no scene is left.
        """
        self.scenes = np.setdiff1d(self.scenes, self.episodes.scene[self.moving])
        if not len(self.scenes):
            raise ValueError(f'{self.episodes.folder}: no scene whose motions start at rest')

    def sample(self, rng: np.random.Generator, pictures: int, questions: int,
               whole: bool = False) -> dict[str, Tensor]:
        """
        Draw ``pictures`` scenes with ``questions`` episodes each.

        As :meth:`batch`, with a ``light`` to change and some unknown words; text only as long as
        the longest of them, unless it is to be ``whole``.
        """
        scenes = rng.choice(self.scenes, pictures)
        rows = np.concatenate([rng.choice(self.of_scene[s], questions,
                                          replace=len(self.of_scene[s]) < questions)
                               for s in scenes])
        batch = self.batch(scenes, rows)
        other = rng.random(len(rows)) < BLURRED
        seed = int(rng.integers(2 ** 32))
        if other.any():
            for name, values in zip(('ids', 'mask'), self.blurred(rows[other], seed),
                                    strict=True):
                batch[name][torch.from_numpy(other)] = torch.from_numpy(values)
        # Padding that all questions share costs time and says nothing.
        length = batch['mask'].shape[1] if whole else int(batch['mask'].sum(1).max())
        batch |= {name: batch[name][:, :length] for name in ('ids', 'mask')}
        # Brightness and contrast of a real camera wander.
        gain, lift = rng.uniform(0.75, 1.25, (pictures, 3)), rng.uniform(-0.12, 0.12, pictures)
        batch['light'] = torch.from_numpy(np.column_stack([gain, lift]).astype(np.float32))
        return batch

    def batch(self, scenes: np.ndarray, rows: np.ndarray) -> dict[str, Tensor]:
        """
        Tensors of pictures ``scenes`` (S,) and episodes ``rows`` (B,), grouped by picture.

        :func:`on_device` makes pixels of the pictures, ``images`` (S, H, W, 3) uint8.
        """
        episodes = self.episodes
        owner = episodes.scene[rows]
        batch = {
            'images': torch.from_numpy(episodes.images[scenes]),
            'objects': torch.from_numpy(np.asarray(episodes.objects[scenes], np.float32)),
            'depth': torch.from_numpy(np.asarray(episodes.depth[scenes], np.float32)),
            'ids': torch.from_numpy(self.ids[rows]), 'mask': torch.from_numpy(self.mask[rows]),
            'camera': torch.from_numpy(np.asarray(episodes.camera[owner], np.float32)),
            'goal': torch.from_numpy(np.asarray(episodes.goal[rows], np.float32)),
            'action': torch.from_numpy(episodes.action[rows].astype(np.int64)),
            'motion': torch.from_numpy(episodes.motion[rows].astype(np.int64)),
            'spoken': torch.from_numpy(self.spoken[rows]),
        }
        if episodes.kind == 'furnished':
            batch['height'] = torch.from_numpy(np.asarray(episodes.height[scenes], np.float32))
            batch['hands'] = torch.from_numpy(np.asarray(episodes.hands[rows], np.float32))
        target = episodes.target[rows]
        table = np.asarray(episodes.objects[owner, np.maximum(target, 0)]
                           if isinstance(episodes.objects, np.ndarray) else
                           [episodes.objects[int(s)][max(int(t), 0)]
                            for s, t in zip(owner, target, strict=True)], np.float32)
        seen = (target >= 0) & (table[:, _COLUMN['visible']] > 0.5)
        batch['seen'] = torch.from_numpy(seen)
        batch['target'] = torch.from_numpy(table)
        # What has left the picture on the way is known from the motion alone.
        batch['definite'] = torch.from_numpy(seen | ~self.moving[rows])
        if self.codes is not None:
            batch['codes'] = torch.from_numpy(
                self.codes[episodes.motion[rows]].astype(np.int64))
        return batch
