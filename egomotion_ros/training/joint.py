# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The paper's claim, put to the test: reasoner and generator trained together or decoupled.

EgoMotion (arXiv 2604.19105) trains the two stages apart because, it says, their gradients
conflict when the generator's loss flows into the reasoner.  Here both arms see the same batches
in the same order for the same number of steps from the same weights; the one difference is
whether the states handed to the generator carry a gradient (``joint``) or not (``decoupled``).
The cosine between the two losses' gradients on the weights they share is logged in both arms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config
import torch.nn.functional as F

from egomotion_ros.body.features import feature_positions
from egomotion_ros.body.skeleton import FOOT_HEIGHTS, FOOT_JOINTS
from egomotion_ros.data.episodes import EpisodeSet
from egomotion_ros.models.autoencoder import MotionAutoencoder
from egomotion_ros.models.checkpoints import load_model
from egomotion_ros.models.generator import GeneratorConfig, MotionGenerator
from egomotion_ros.models.reasoner import Reasoner, ReasonerConfig
from egomotion_ros.retarget.quality import foot_slide
from egomotion_ros.text import TextEncoder
from egomotion_ros.training.generator import (
    bank_latents,
    flow_loss,
    make_generator,
)
from egomotion_ros.training.generator_goals import end_pose, goal_share
from egomotion_ros.training.loop import (
    TrainingConfig,
    processes,
    read_config,
    saved_step,
    train,
    validations,
)
from egomotion_ros.training.reasoner import (
    grounding_loss,
    keep_words,
    make_reasoner,
    reasoner_pass,
    validate_reasoner,
)
from egomotion_ros.training.reasoner_batches import (
    ReasonerBatches,
    encode_bank,
    on_device,
    train_text,
)
from egomotion_ros.types import FPS, PLAN_WINDOWS

ARMS = ('decoupled', 'joint')
#: Steps between two measurements of the gradients' cosine.
COSINE_EVERY = 25
#: Held-out episodes of a validation.
HELD_OUT = 300


@dataclass(frozen=True)
class PairConfig:
    """Sizes of both stages."""

    reasoner: ReasonerConfig
    generator: GeneratorConfig


class Pair(nn.Module):
    """Reasoner and generator in one module, so that one optimiser steps both."""

    def __init__(self, reasoner: Reasoner, generator: MotionGenerator) -> None:
        super().__init__()
        self.reasoner, self.generator = reasoner, generator
        self.config = PairConfig(reasoner.config, generator.config)

    def shared(self) -> list[nn.Parameter]:
        """Weights both losses can reach: the reasoner without its heads."""
        return [p for name, p in self.reasoner.named_parameters()
                if not name.startswith(('base_head', 'residual_head', 'grounding'))]


def gradient_cosine(first: Tensor, second: Tensor, weights: list[nn.Parameter]
                    ) -> tuple[float, float]:
    """
    Cosine of two losses' gradients on ``weights``, and the ratio of their norms, second to first.

    The graph of both losses is kept.  Weights a loss does not reach count as zero.
    """
    flat = []
    for loss in (first, second):
        parts = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        flat.append(torch.cat([(torch.zeros_like(w) if g is None else g).float().flatten()
                               for g, w in zip(parts, weights, strict=True)]))
    norms = [part.norm().clamp_min(1e-12) for part in flat]
    return ((flat[0] @ flat[1]) / (norms[0] * norms[1])).item(), (norms[1] / norms[0]).item()


def pair_loss(pair: Pair, autoencoder: MotionAutoencoder | None, batch: dict[str, Tensor],
              latents: Tensor, truth: Tensor, rng: np.random.Generator, arm: str,
              patches: int, drop: float, path_weight: float, measure: bool
              ) -> tuple[Tensor, dict[str, float]]:
    """
    Both stages' losses on one batch, summed.

    ``latents`` (B, 19, C) and ``truth`` (B, 152, 140) belong to the batch's episodes.  With
    ``measure`` the figures hold ``cosine`` and ``norm_ratio`` of the two gradients on the shared
    weights, whether or not the arm lets the second one act.
    """
    if arm not in ARMS:
        raise ValueError(f'arm {arm!r}: expected one of {", ".join(ARMS)}')
    result = reasoner_pass(pair.reasoner, batch)
    reason, figures = grounding_loss(result.grounding, batch, patches)
    base = F.cross_entropy(result.base.float().flatten(0, 1), batch['codes'][..., 0].flatten())
    residual = F.cross_entropy(result.residual.float().flatten(0, 2),
                               batch['codes'][..., 1:].flatten())
    reason = reason + base + 0.3 * residual
    figures |= {'base': base.item()}

    def flow(states: Tensor) -> tuple[Tensor, dict[str, float]]:
        still = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
        return flow_loss(pair.generator, autoencoder, latents, truth, states.float(),
                         result.mask, rng, drop, still, path_weight)

    joint = arm == 'joint'
    if measure:
        # The same draws for both passes: only the path of the gradient may differ.
        kept = rng.bit_generator.state
        with torch.random.fork_rng([latents.device] if latents.is_cuda else []):
            probe = flow(result.states)[0]
        figures['cosine'], figures['norm_ratio'] = gradient_cosine(reason, probe, pair.shared())
        rng.bit_generator.state = kept
    moved, more = flow(result.states if joint else result.states.detach())
    return reason + moved, figures | more


def make_pair(settings: dict[str, Any], config: TrainingConfig, kind: str, channels: int,
              init: Path | None) -> tuple[Pair, TextEncoder]:
    """Make both stages for scenes of a ``kind`` and the text vocabulary, as single stages do."""
    sizes = dict(settings)
    generator_sizes = sizes.pop('generator', {})
    stages = [None if init is None else Path(init) / name for name in ('reasoner', 'generator')]
    reasoner, text = make_reasoner(sizes, config, kind, stages[0])
    text = text or train_text(reasoner.config.text_vocabulary, reasoner.config.text_tokens,
                              kind=kind)
    if stages[0] is not None:
        keep_words(reasoner, text, stages[0])
    generator = make_generator({**generator_sizes, 'channels': channels,
                                'state_width': reasoner.width}, config, stages[1])
    return Pair(reasoner, generator), text


def train_pair(config_path: Path, arm: str, seed: int, episodes_dir: Path, tokenizer_dir: Path,
               autoencoder_dir: Path, val_dir: Path, out: Path, init: Path | None = None
               ) -> dict[str, list[dict[str, Any]]]:
    """
    Train one arm with one seed; returns ``{'train': rows, 'val': rows}``, each with its step.

    The configuration has the sections of the reasoner's and, below ``model.generator``, those of
    the generator; ``init`` is a run whose ``reasoner`` and ``generator`` are started from.
    Checkpoints and, as they come, rows go to ``out``; an unfinished run goes on from both.
    """
    settings, config, data = read_config(config_path, 'pair', ('questions', 'drop', 'path_weight'))
    config = replace(config, seed=seed)
    torch.manual_seed(seed)
    tokenizer = load_model(tokenizer_dir, 'tokenizer').requires_grad_(False)
    autoencoder: MotionAutoencoder = load_model(autoencoder_dir,
                                                'autoencoder').requires_grad_(False)
    pair, text = make_pair(settings, config, EpisodeSet.open(episodes_dir).kind,
                           autoencoder.config.channels, init)
    patches = pair.reasoner.family.grid

    def open_set(folder: Path) -> tuple[ReasonerBatches, np.ndarray, Tensor]:
        episodes = EpisodeSet.open(folder)
        if episodes.bank is None:
            raise ValueError(f'{folder}: episodes without motions cannot train a generator')
        source = ReasonerBatches(episodes, text, encode_bank(tokenizer, episodes.bank.features),
                                 patches)
        source.drop_under_way()
        return source, episodes.bank.features, bank_latents(autoencoder, episodes.bank.features)

    source, features, latents = open_set(episodes_dir)
    held, _, _ = open_set(val_dir)
    questions, drop = int(data.get('questions', 4)), float(data.get('drop', 0.12))
    path_weight = float(data.get('path_weight', 2.0))
    device = processes().device
    autoencoder.to(device)
    rows = Rows(Path(out), saved_step(out))

    def loss(network: nn.Module, rng: np.random.Generator, step: int
             ) -> tuple[Tensor, dict[str, float]]:
        batch = source.sample(rng, config.batch, questions)
        index = batch['motion'].numpy()
        batch = on_device(batch, device)
        truth = torch.from_numpy(np.asarray(features[index], np.float32)).to(device)
        measure = step % COSINE_EVERY == 0
        value, figures = pair_loss(network, autoencoder, batch, latents[index].to(device),
                                   truth, rng, arm, patches, drop, path_weight, measure)
        if measure:
            rows.add(step, figures)
        return value, figures

    # The cosine takes gradients of a graph that is kept: compiled blocks must not give its
    # buffers away.
    with functorch_config.patch(donated_buffer=False):
        train(pair, 'pair', config, loss, Path(out),
              lambda network: validate_pair(network, autoencoder, held, questions))
    return {'train': rows.kept, 'val': validations(out)}


class Rows:
    """
    Figures of a run's steps, counted from 0: ``kept``, and in ``rows.jsonl`` as well.

    A run that goes on at ``step`` begins with what it had measured until then.
    """

    def __init__(self, out: Path, step: int) -> None:
        self.kept: list[dict[str, Any]] = []
        self._path = out / 'rows.jsonl'
        lines = self._path.read_text(encoding='utf-8').splitlines() if self._path.exists() else []
        for line in lines:
            try:
                row = json.loads(line)
                if int(row['step']) < step:
                    self.kept.append(row)
            except (ValueError, KeyError, TypeError):
                continue  # cut off while it was written
        if processes().is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            self._path.write_text(''.join(map(self._line, self.kept)), encoding='utf-8')

    @staticmethod
    def _line(row: dict[str, Any]) -> str:
        return json.dumps(row) + '\n'

    def add(self, step: int, figures: dict[str, float]) -> None:
        """Append a row; the first process writes it."""
        self.kept.append({'step': step, **figures})
        if processes().is_main_process:
            with self._path.open('a', encoding='utf-8') as file:
                file.write(self._line(self.kept[-1]))


def validate_pair(pair: Pair, autoencoder: MotionAutoencoder, source: ReasonerBatches,
                  questions: int) -> dict[str, float]:
    """
    What a pair does on held-out scenes, from its own decoded codes, without guidance.

    ``within``/``metres``: walks that end at their goal, and how far off; ``swapped_within`` with
    another episode's states; ``slide`` (UniEgoMotion, mm a frame) and ``jerk`` (m/s^3, 22 joints)
    of the motions; the reasoner's own figures beside.
    """
    figures = validate_reasoner(pair.reasoner, source, questions)
    episodes = source.episodes
    scenes = set(source.scenes.tolist())
    chosen = [n for n in range(len(episodes)) if int(episodes.scene[n]) in scenes][:HELD_OUT]
    index, device = np.array(chosen), next(pair.parameters()).device
    noise = torch.randn(len(index), PLAN_WINDOWS, pair.generator.config.channels,
                        generator=torch.Generator().manual_seed(0)).to(device)
    parts = []
    for start in range(0, len(index), 100):
        part = index[start:start + 100]
        batch = on_device(source.batch(episodes.scene[part], part), device)
        parts.append(pair.reasoner.generate(batch['pixels'], batch['ids'], batch['mask'],
                                            batch['camera'])[2])
    states = torch.cat([part.states for part in parts]).float()
    mask = torch.cat([part.mask for part in parts])
    goal = torch.from_numpy(np.asarray(episodes.goal[index], np.float32)).to(device)
    action = torch.from_numpy(episodes.action[index].astype(np.int64)).to(device)
    for name, order in (('', np.arange(len(index))), ('swapped_', np.roll(np.arange(len(index)),
                                                                          7))):
        answer = pair.generator.sample(noise, states[order], mask[order],
                                       torch.zeros_like(noise),
                                       torch.zeros(noise.shape[:2], device=device),
                                       guidance=1.0)
        motion = autoencoder.decode(answer)
        share, away = goal_share(end_pose(motion), goal, action)
        figures |= {f'{name}within': share, f'{name}metres': away}
        if not name:
            figures |= motion_figures(motion)
    return figures


def motion_figures(features: Tensor) -> dict[str, float]:
    """Mean foot slide (mm a frame) and jerk (m/s^3) of features (B, T, 140)."""
    places = feature_positions(features).cpu()
    jerk = places.diff(n=3, dim=1).norm(dim=-1).mean().item() * FPS ** 3
    feet = places[:, :, list(FOOT_JOINTS)].numpy()
    heights = feet[..., 2] - np.array(FOOT_HEIGHTS)
    slide = np.mean([foot_slide(a, b) for a, b in zip(feet, heights, strict=True)])
    return {'slide': float(slide), 'jerk': jerk}
