# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Train the evaluator of the HumanML3D protocol: texts and motions that belong together, contrasted.

Pairs are the episodes' motions with their captions and the library's takes with their labels,
from the training split of both.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from egomotion_ros.body.edits import mirror
from egomotion_ros.body.features import motion_to_features
from egomotion_ros.data.episodes import EpisodeSet
from egomotion_ros.data.library import MotionLibrary
from egomotion_ros.evaluation.captions import EpisodeTexts
from egomotion_ros.evaluation.evaluator import Evaluator
from egomotion_ros.evaluation.hml3d import GROUP, TOP, matching_distance, r_precision
from egomotion_ros.models.checkpoints import build
from egomotion_ros.models.evaluator import MotionEvaluator
from egomotion_ros.text import TextEncoder, clean_instruction
from egomotion_ros.training.loop import processes, read_config, train
from egomotion_ros.training.motions import CROP

#: Held-out episodes that are ranked in validation, and captions the tokenizer is learned from.
RANKED, READ = 512, 20_000


class LibraryTexts:
    """Takes of the library's training split with their labels; crops of CROP frames."""

    def __init__(self, library: MotionLibrary) -> None:
        self.takes: list[tuple[np.ndarray, str]] = []
        for take in library.takes(split='train'):
            if take.motion.frames < CROP:
                continue
            # A label that names a side is not true of the mirror image.
            sided = {'left', 'right'} & set(take.label.lower().replace(',', ' ').split())
            for motion in (take.motion,) if sided else (take.motion, mirror(take.motion)):
                self.takes.append((motion_to_features(motion).astype(np.float32), take.label))
        if not self.takes:
            raise ValueError(f'{library.folder}: no training take has {CROP} frames or more')
        self.keep(clean_instruction)

    def keep(self, read: Callable[[str], object]) -> None:
        """
        Leave out takes whose label ``read`` refuses, and say how many.

        Raises ValueError when none is left.
        """
        kept = [take for take in self.takes if _reads(read, take[1])]
        if not kept:
            raise ValueError('no label of the library can be read: ' + self.takes[0][1][:60])
        _say_left_out(len(self.takes) - len(kept), 'takes')
        self.takes = kept
        weights = np.array([len(f) - CROP + 1 for f, _ in self.takes], np.float64)
        self.weights = weights / weights.sum()

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[str]]:
        """Draw crops (count, 96, 140) and their labels."""
        crops, labels = [], []
        for n in rng.choice(len(self.takes), count, p=self.weights):
            features, label = self.takes[n]
            start = int(rng.integers(len(features) - CROP + 1))
            crops.append(features[start:start + CROP])
            labels.append(label)
        return np.stack(crops), labels


def _reads(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


def _say_left_out(count: int, what: str) -> None:
    if count:
        tqdm.write(f'evaluator: {count} {what} left out, their texts are empty or too long')


def keep_captions(texts: EpisodeTexts, read: Callable[[str], object]) -> None:
    """Leave out episodes whose caption ``read`` refuses; ValueError when none is left."""
    kept = np.array([_reads(read, texts.text(n)) for n in range(len(texts))], bool)
    if not kept.any():
        raise ValueError(f'{texts.set.folder}: no caption can be read: {texts.text(0)[:60]}')
    _say_left_out(int((~kept).sum()), 'episodes')
    texts.index = texts.index[kept]


def train_evaluator(config_path: Path, library_dir: Path, episodes_dir: Path, out: Path,
                    val_dir: Path | None = None) -> MotionEvaluator:
    """Train on the library's and the episodes' training split; writes ``text.json`` as well."""
    settings, config, data = read_config(config_path, 'evaluator', ('library_share',))
    share = float(data.get('library_share', 0.15))
    if not 0.0 <= share < 1.0:
        raise ValueError(f'{config_path}: library_share must be within [0, 1), got {share}')
    torch.manual_seed(config.seed)
    model = build('evaluator', settings)
    takes = LibraryTexts(MotionLibrary.open(library_dir))
    episodes = EpisodeTexts(EpisodeSet.open(episodes_dir))
    held_out = None if val_dir is None else EpisodeTexts(EpisodeSet.open(val_dir))
    rng = np.random.default_rng(config.seed)
    read = [episodes.text(int(n)) for n in rng.integers(len(episodes), size=READ)]
    read += [label for _, label in takes.takes]
    text = TextEncoder.train(read, model.config.text_vocabulary, model.config.text_tokens)
    Path(out).mkdir(parents=True, exist_ok=True)
    text.save(Path(out) / 'text.json')
    takes.keep(text.encode)
    for captions in (episodes, held_out):
        if captions is not None:
            keep_captions(captions, text.encode)
    device = processes().device
    rows = np.concatenate([*(f for f, _ in takes.takes), *episodes.features(
        rng.integers(len(episodes), size=min(len(episodes), 2000)))])
    model.scale.set(torch.from_numpy(rows.mean(axis=0)),
                    torch.from_numpy(np.maximum(rows.std(axis=0), 0.02)))

    def loss(network: nn.Module, rng: np.random.Generator, step: int
             ) -> tuple[Tensor, dict[str, float]]:
        from_takes = round(config.batch * share)
        chosen = rng.integers(len(episodes), size=config.batch - from_takes)
        parts = [torch.from_numpy(episodes.features(chosen))]
        texts = [episodes.text(int(n)) for n in chosen]
        keys: list[object] = [episodes.meaning(int(n)) for n in chosen]
        if from_takes:
            crops, labels = takes.sample(rng, from_takes)
            parts.append(torch.from_numpy(crops))
            texts += labels
            keys += labels
        numbers = {key: n for n, key in enumerate(dict.fromkeys(keys))}
        ids, mask = zip(*map(text.encode, texts), strict=True)
        value, squared = network([part.to(device) for part in parts],
                                 torch.from_numpy(np.stack(ids)).to(device),
                                 torch.from_numpy(np.stack(mask)).to(device),
                                 torch.tensor([numbers[key] for key in keys], device=device))
        nearest = squared.argmin(dim=1)
        first = (nearest == torch.arange(len(nearest), device=device)).float().mean()
        return value, {'top 1 of batch': first.item()}

    def validate(network: nn.Module) -> dict[str, float]:
        return held_out_precision(Evaluator(network, text), held_out)

    return train(model, 'evaluator', config, loss, Path(out),
                 None if held_out is None else validate)


def held_out_precision(evaluator: Evaluator, episodes: EpisodeTexts) -> dict[str, float]:
    """R-precision (groups of 32) and MM-Dist of recorded pairs that were not trained on."""
    chosen = np.random.default_rng(0).permutation(len(episodes))[:RANKED]
    words = evaluator.texts([episodes.text(int(n)) for n in chosen])
    motion = evaluator.features(episodes.features(chosen))
    precision = r_precision(words, motion, min(GROUP, len(chosen)), min(TOP, len(chosen)))
    return {**{f'R@{n + 1}': float(value) for n, value in enumerate(precision)},
            'MM-Dist': matching_distance(words, motion)}
