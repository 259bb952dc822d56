# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The baseline without a reasoner: the generator conditioned on image and text features alone.

Its conditions are the rows a reasoner is given, not those it makes: image tokens of the vision
part, the camera, and word embeddings, all frozen as stage 1 left them.  Generator, loss, steps
and data are those of stage 2; what is missing is the language model and its primitives.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from egomotion_ros.data.episodes import EpisodeSet
from egomotion_ros.models.autoencoder import MotionAutoencoder
from egomotion_ros.models.checkpoints import load_model
from egomotion_ros.models.generator import MotionGenerator
from egomotion_ros.models.reasoner import Reasoner
from egomotion_ros.text import TextEncoder
from egomotion_ros.training.generator import (
    DATA,
    bank_latents,
    flow_loss,
    loss_settings,
    make_generator,
)
from egomotion_ros.training.generator_goals import end_pose, goal_share
from egomotion_ros.training.loop import processes, read_config, train
from egomotion_ros.training.reasoner_batches import ReasonerBatches, to_pixels
from egomotion_ros.types import PLAN_WINDOWS

#: Held-out episodes the curves are drawn from.
_HELD_OUT = 400


@torch.no_grad()
def image_rows(reasoner: Reasoner, images: np.ndarray, cameras: np.ndarray, store: Path,
               batch: int = 64) -> np.ndarray:
    """
    Image tokens (S, N, D) float16 of pictures (S, H, W, 3) uint8, kept in the file ``store``.

    ``cameras`` (S, 3) height m, pitch rad, yaw rad.

    An existing file is used again when its shape and its first and last row are right.
    """
    def seen(rows: np.ndarray) -> Tensor:
        return reasoner.image_features(to_pixels(images[rows]),
                                       torch.from_numpy(np.float32(cameras[rows]))).half()

    ends = seen(np.array([0, len(images) - 1]))
    shape = (len(images), *ends.shape[1:])
    if store.exists():
        rows = np.load(store, mmap_mode='r', allow_pickle=False)
        if rows.shape == shape and np.allclose(rows[[0, -1]], ends.numpy(), atol=1e-2):
            return rows
    store.parent.mkdir(parents=True, exist_ok=True)
    part = store.with_name(f'part-{store.name}')
    rows = np.lib.format.open_memmap(part, 'w+', np.float16, shape)
    for start in tqdm(range(0, len(images), batch), desc='image tokens', mininterval=5):
        these = np.arange(start, min(start + batch, len(images)))
        rows[these] = seen(these).numpy()
    rows.flush()
    part.rename(store)
    return np.load(store, mmap_mode='r', allow_pickle=False)


class Conditions:
    """Conditions of the episodes of a set: what the reasoner would have been given."""

    def __init__(self, reasoner: Reasoner, text: TextEncoder, episodes: EpisodeSet,
                 store: Path) -> None:
        if episodes.bank is None:
            raise ValueError(f'{episodes.folder}: a baseline needs episodes with motions')
        self.episodes, self._reasoner = episodes, reasoner
        source = ReasonerBatches(episodes, text, None, 1)
        self.ids, self.masks = source.ids, source.mask
        #: Episodes that have a motion and whose words can be told.
        self.usable = np.flatnonzero((episodes.motion >= 0) & source.told)
        with processes().main_process_first():
            self.images = image_rows(reasoner, episodes.images, episodes.camera, store)

    @torch.no_grad()
    def rows(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """Rows (B, P, D) and mask (B, P) of the episodes ``index`` (B,)."""
        scenes = self.episodes.scene[index]
        camera = np.asarray(self.episodes.camera[scenes], np.float32)
        return self._reasoner.embed_prompt(
            torch.from_numpy(np.asarray(self.images[scenes], np.float32)),
            torch.from_numpy(self.ids[index]), torch.from_numpy(self.masks[index]),
            torch.from_numpy(camera))


def train_baseline_generator(config_path: Path, episodes_dir: Path, autoencoder_dir: Path,
                             reasoner_dir: Path, out: Path, val_dir: Path | None = None,
                             init: Path | None = None) -> MotionGenerator:
    """
    Train the generator without a reasoner on all scenes of the episodes and return it.

    ``init`` is a generator's checkpoint to start from; ValueError when its sizes are others.
    """
    settings, config, data = read_config(config_path, 'generator', DATA)
    torch.manual_seed(config.seed)
    out = Path(out)
    reasoner: Reasoner = load_model(reasoner_dir, 'reasoner').requires_grad_(False)
    autoencoder: MotionAutoencoder = load_model(autoencoder_dir,
                                                'autoencoder').requires_grad_(False)
    text = TextEncoder.open(Path(reasoner_dir) / 'text.json', reasoner.config.text_tokens)
    source = Conditions(reasoner, text, EpisodeSet.open(episodes_dir), out / 'image_rows.npy')
    bank, motion = source.episodes.bank, source.episodes.motion
    usable = source.usable
    latents = bank_latents(autoencoder, bank.features)
    moving = torch.from_numpy(bank.under_way())
    device = processes().device
    autoencoder.to(device)
    generator = make_generator({**settings, 'channels': autoencoder.config.channels,
                                'state_width': source.rows(usable[:1])[0].shape[-1]}, config,
                               init)
    reaching = torch.from_numpy(np.isfinite(bank.hands).all(-1))
    weights = loss_settings(data)

    def loss(network: torch.nn.Module, rng: np.random.Generator, step: int
             ) -> tuple[Tensor, dict[str, float]]:
        chosen = np.sort(rng.choice(usable, config.batch))
        index = motion[chosen]
        truth = torch.from_numpy(np.asarray(bank.features[index], np.float32))
        states, mask = source.rows(chosen)
        used = mask.any(0)
        target, truth, states, mask, under_way, hands = (part.to(device) for part in (
            latents[index], truth, states[:, used], mask[:, used], moving[index],
            reaching[index]))
        return flow_loss(network, autoencoder, target, truth, states, mask, rng,
                         moving=under_way, reaching=hands, **weights)

    validate = None
    if val_dir is not None:
        held = Conditions(reasoner, text, EpisodeSet.open(val_dir), out / 'image_rows_val.npy')

        def validate(network: torch.nn.Module) -> dict[str, float]:
            return held_out_figures(network, autoencoder, held)

    return train(generator, 'generator', config, loss, out, validate)


def held_out_figures(generator: torch.nn.Module, autoencoder: MotionAutoencoder,
                     held: Conditions) -> dict[str, float]:
    """Share of held-out walks that end at their goals, and their median distance (m)."""
    index = held.usable[:_HELD_OUT]
    device = next(generator.parameters()).device
    states, mask = (part.to(device) for part in held.rows(index))
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(len(index), PLAN_WINDOWS, autoencoder.config.channels,
                        generator=rng).to(device)
    answer = generator.sample(noise, states, mask, torch.zeros_like(noise),
                              torch.zeros(noise.shape[:2], device=device))
    goal = torch.from_numpy(np.asarray(held.episodes.goal[index], np.float32)).to(device)
    action = torch.from_numpy(held.episodes.action[index].astype(np.int64)).to(device)
    within, metres = goal_share(end_pose(autoencoder.decode(answer)), goal, action)
    return {'told_within': within, 'told_metres': metres}
