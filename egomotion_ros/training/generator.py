# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Stage 2: train the generator on the frozen reasoner's states.

The states are computed once, on scenes stage 1 has not been trained on, half of them
teacher-forced and half from the reasoner's own decoded codes, and kept on disk for runs with the
same reasoner, tokenizer and episodes; no gradient of this stage can reach stage 1, because stage 1
is not part of the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as F
from tqdm import tqdm

from egomotion_ros.body.features import CONTACTS, feature_positions, integrate_root
from egomotion_ros.body.hands import WRISTS
from egomotion_ros.body.skeleton import FOOT_JOINTS
from egomotion_ros.bundle import sha256
from egomotion_ros.data.episodes import EpisodeSet
from egomotion_ros.models.autoencoder import MotionAutoencoder
from egomotion_ros.models.checkpoints import build, load_model, save_json, start_from
from egomotion_ros.models.generator import MotionGenerator
from egomotion_ros.models.reasoner import Reasoner
from egomotion_ros.models.tokenizer import MotionTokenizer
from egomotion_ros.text import TextEncoder
from egomotion_ros.training.generator_goals import (
    INSENSITIVE,
    check_goals,
    validate_generator,
    walks,
)
from egomotion_ros.training.loop import (
    Samples,
    TrainingConfig,
    ahead,
    processes,
    read_config,
    saved_step,
    train,
)
from egomotion_ros.training.motions import stillness
from egomotion_ros.training.reasoner_batches import ReasonerBatches, encode_bank, on_device
from egomotion_ros.training.settling import Settled
from egomotion_ros.types import FPS, PLAN_WINDOWS

#: After this many steps swapped conditions must raise the loss, or training stops.
SENSITIVE_AFTER = 1500
#: What errors of path and hands count in pure noise, of what they count without: the states say
#: where a motion leads before anything is seen of how it gets there.
EARLY = 0.3
#: Episodes of the validation set that are looked at.
VALIDATED = 400


@dataclass(frozen=True)
class Shown:
    """
    What of the reasoner stage 2 is shown: an ablation, where it is not all rows of its layer.

    ``layer`` whose states they are (None: the stated one; others pass the final norms as well),
    ``rows`` 'prompt', 'primitives' or 'both'.  A generator of an ablation is for comparison:
    export knows the stated layer and both kinds of rows alone.
    """

    layer: int | None = None
    rows: str = 'both'

    def __post_init__(self) -> None:
        if self.rows not in ('both', 'prompt', 'primitives'):
            raise ValueError(f"rows must be 'both', 'prompt' or 'primitives', got {self.rows!r}")

    def hide(self, mask: np.ndarray, prompt: int) -> np.ndarray:
        """Mask (E, P + W) without the rows that are not shown; ``prompt`` is P."""
        mask = mask.copy()
        mask[:, prompt:] &= self.rows != 'prompt'
        mask[:, :prompt] &= self.rows != 'primitives'
        return mask


@contextmanager
def first_layers(reasoner: Reasoner, count: int | None) -> Iterator[None]:
    """Let the reasoner run ``count`` layers only; ValueError when it has not as many."""
    language = reasoner.family.language(reasoner.vlm)
    layers = language.layers
    if count is not None and not 1 <= count <= len(layers):
        raise ValueError(f'layer {count}: the reasoner runs {len(layers)}')
    language.layers = layers[:count]
    try:
        yield
    finally:
        language.layers = layers


@torch.no_grad()
def collect_states(reasoner: Reasoner, source: ReasonerBatches, rows: np.ndarray, out: Path,
                   decoded: np.ndarray, files: Iterable[Path], batch: int | None = None,
                   layer: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """
    States (E, P + W, D) float16 and masks (E, P + W) of the episodes ``rows``, kept in ``out``.

    ``decoded`` (E,) is True where the reasoner runs on its own codes instead of the true ones.
    ``files`` are those reasoner and codes come from: states kept with the same contents of them,
    for the same episodes, are used again.  ``batch`` episodes are run together (None: as suits the
    device); ``layer`` as in :class:`Shown`.  To be called by all processes of a run: they share
    the work, and ``out``.
    """
    if batch is None:
        batch = 96 if next(reasoner.parameters()).device.type == 'cpu' else 256
    states_path, mask_path = out / 'states.npy', out / 'states_mask.npy'
    record, origin = out / 'states.json', _origin(source, rows, decoded, files, layer)
    run = processes()
    is_kept = states_path.exists() and mask_path.exists() and _kept(record) == origin
    run.wait_for_everyone()  # all have looked before anything changes
    if is_kept:
        return (np.load(states_path, mmap_mode='r', allow_pickle=False),
                np.load(mask_path, allow_pickle=False))
    shape = (len(rows), reasoner.prompt_rows + reasoner.config.windows, reasoner.width)
    unfinished = out / 'states.part.npy', out / 'states_mask.part.npy'
    if run.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        for path, kind, size in zip(unfinished, (np.float16, bool), (shape, shape[:2]),
                                    strict=True):
            np.lib.format.open_memmap(path, 'w+', kind, size).flush()
    run.wait_for_everyone()
    states, masks = (np.lib.format.open_memmap(path, 'r+') for path in unfinished)
    # Of one kind each: a batch is decoded or it is not.
    parts = [kind[start:start + batch] for kind in (np.flatnonzero(~decoded),
                                                    np.flatnonzero(decoded))
             for start in range(0, len(kind), batch)]
    parts = parts[run.process_index::run.num_processes]
    batches = ahead(lambda part: source.batch(source.episodes.scene[rows[part]], rows[part]),
                    parts)
    for part, drawn in zip(tqdm(parts, desc='states', mininterval=5), batches, strict=True):
        answer, mask = reasoner_states(reasoner, drawn, bool(decoded[part[0]]), layer)
        states[part] = answer.half().cpu().numpy()
        masks[part] = mask.cpu().numpy()
    states.flush()
    masks.flush()
    run.wait_for_everyone()
    if run.is_main_process:
        for path, target in zip(unfinished, (states_path, mask_path), strict=True):
            path.rename(target)
        # Last, so that it never stands beside other states.
        save_json({'sha256': origin}, record)
    run.wait_for_everyone()
    return (np.load(states_path, mmap_mode='r', allow_pickle=False),
            np.load(mask_path, allow_pickle=False))


def _origin(source: ReasonerBatches, rows: np.ndarray, decoded: np.ndarray,
            files: Iterable[Path], layer: int | None) -> str:
    """SHA-256 of what states are made from; pictures are known by their cameras."""
    digest = hashlib.sha256(b'' if layer is None else str(layer).encode())
    for path in files:
        digest.update(sha256(path).encode())
    camera = np.asarray(source.episodes.camera[source.episodes.scene[rows]], np.float32)
    for part in (rows.astype(np.int64), decoded.astype(bool), source.ids[rows], camera):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _kept(record: Path) -> str | None:
    """SHA-256 beside kept states; None where it is missing or unreadable."""
    try:
        return json.loads(record.read_text(encoding='utf-8'))['sha256']
    except (OSError, ValueError, KeyError, TypeError):
        return None


@torch.no_grad()
def reasoner_states(reasoner: Reasoner, batch: dict[str, Tensor], decoded: bool,
                    layer: int | None = None) -> tuple[Tensor, Tensor]:
    """States of a batch, one picture a question, teacher-forced or on decoded codes."""
    batch = on_device(batch, next(reasoner.parameters()).device)
    question = tuple(batch[name] for name in ('pixels', 'ids', 'mask', 'camera'))
    if decoded:
        codes, _, out = reasoner.generate(*question)
        if layer is None:
            return out.states, out.mask
    else:
        codes = batch['codes']
    with first_layers(reasoner, layer):
        out = reasoner.teach(*reasoner.prompt(*question), codes[..., 0])
    return out.states, out.mask


@torch.no_grad()
def bank_latents(autoencoder: MotionAutoencoder, features: np.ndarray, batch: int = 256) -> Tensor:
    """Latents (M, 19, channels) of a bank's motions."""
    device = next(autoencoder.parameters()).device
    return torch.cat([autoencoder.encode(torch.from_numpy(
        np.asarray(features[n:n + batch], np.float32)).to(device)).cpu()
        for n in range(0, len(features), batch)])


def flow_loss(generator: MotionGenerator, autoencoder: MotionAutoencoder, latents: Tensor,
              truth: Tensor, states: Tensor, mask: Tensor, rng: np.random.Generator,
              drop: float, moving: Tensor, path_weight: float, feet_weight: float = 0.0,
              reaching: Tensor | None = None, hands_weight: float = 0.0,
              liveliness: float = 0.0, jerk_gain: float = 1.0
              ) -> tuple[Tensor, dict[str, float]]:
    """
    Flow-matching loss of a batch, plus errors of the decoded motion: path, feet, hands, jerk.

    ``latents`` (B, 19, C) target, ``truth`` (B, 152, 140) its features, ``moving`` (B,) True for
    motions that do not start at rest: those always have a known prefix.  ``path_weight``,
    ``feet_weight`` and ``hands_weight`` count errors of the decoded motion of half the batch, the
    more the less noise is left, those of path and hands from :data:`EARLY` on.  Feet: the speed
    (m/s) by which planted ones move faster than in the truth, a geometric loss as in MDM (Tevet
    et al. 2023, section 3).  Hands: the gap of the wrists that reach, ``reaching`` (B, 2) True
    for left and right.  ``liveliness`` counts :func:`stillness` of the decoded motion: what a
    mean of motions smooths away, which only the last steps can bring back; ``jerk_gain`` times the
    jerk of the truth is asked for.
    """
    (batch, windows, _), device = latents.shape, latents.device
    # pi0 (Black et al. 2024): times biased towards noise, where the plan is decided.
    t = torch.from_numpy((1 - rng.beta(1.5, 1.0, batch) * 0.999).astype(np.float32)
                         ).to(device)
    count = torch.from_numpy(rng.integers(1, 4, batch)).to(device)
    with_prefix = moving | torch.from_numpy(rng.random(batch) < 0.35).to(device)
    known = torch.arange(windows, device=device) < count[:, None]
    known = (known & with_prefix[:, None]).float()
    prefix = latents * known[..., None]
    noise = torch.randn_like(latents)
    x = noise + t[:, None, None] * (latents - noise)
    null = torch.from_numpy(rng.random(batch) < drop).to(device)
    shown = torch.where(null[:, None, None], generator.null_condition(states), states)
    velocity = generator(x, t, generator.condition(shown, mask), prefix, known)
    free = 1 - known
    error = ((velocity - (latents - noise)).square().mean(-1) * free).sum(-1) / free.sum(-1)
    loss = error.mean()
    figures = {'flow': loss.item()}
    if max(path_weight, feet_weight, hands_weight, liveliness) > 0:
        half = slice(0, batch // 2)
        clean = (x + (1 - t[:, None, None]) * velocity)[half].float()
        clean = torch.where(known[half, :, None] > 0.5, prefix[half], clean)
        # Millimetres a frame matter here: half precision cannot tell them.
        with torch.autocast(clean.device.type, enabled=False):
            answer = autoencoder.decode(clean)
            told = (~null[half]).float()[:, None, None]
            weight = t[half, None, None] * told
            sure = (EARLY + (1.0 - EARLY) * t[half, None, None]) * told
            paths = _path_error(answer, truth[half], sure)
            loss = loss + path_weight * paths
            figures['path'] = paths.item()
            if max(feet_weight, hands_weight, liveliness) > 0:
                places, true = feature_positions(answer), feature_positions(truth[half])
                feet = _sliding(places, true, truth[half][..., CONTACTS], weight)
                loss = loss + feet_weight * feet
                figures['feet'] = feet.item()
                if hands_weight > 0 and reaching is not None:
                    hands = _missing(places, true, reaching[half], sure)
                    loss = loss + hands_weight * hands
                    figures['hands'] = hands.item()
                if liveliness > 0:
                    still = stillness(places, true, t[half].square(), jerk_gain)
                    loss = loss + liveliness * still
                    figures['stillness'] = still.item()
    return loss, figures


#: Settings of :func:`flow_loss`, with what they are where the YAML does not say.
LOSS = {'drop': 0.12, 'path_weight': 1.0, 'feet_weight': 0.0, 'hands_weight': 0.0,
        'liveliness': 0.0, 'jerk_gain': 1.0}
#: Keys of the section ``data`` of a generator's YAML.
DATA = (*LOSS, 'decoded_share', 'decoded_draws', 'settled')


def loss_settings(data: dict[str, Any]) -> dict[str, float]:
    """Settings of :func:`flow_loss` in the section ``data`` of a generator's YAML."""
    return {name: float(data.get(name, default)) for name, default in LOSS.items()}


def aim_loss(told: Tensor, hands: Tensor) -> tuple[Tensor, dict[str, float]]:
    """
    Whether aims (B, AIM) tell which hands reach, those of ``hands`` (B, 2, 3) that are not NaN.

    Returns the loss and how far off the hands are (m, median), which is not trained on.
    """
    points, logits = told[:, 4:10].unflatten(-1, (2, 3)), told[:, 10:]
    reaching = torch.isfinite(hands).all(-1)
    figures = {}
    if reaching.any():
        figures['aim_hands'] = (points - hands)[reaching].norm(dim=-1).median().item()
    return F.binary_cross_entropy_with_logits(logits, reaching.float()), figures


def _path_error(answer: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Error of integrated root position and heading of features (B, T, 140)."""
    path = torch.stack([a - b for a, b in zip(integrate_root(answer), integrate_root(truth),
                                              strict=True)], -1)
    return (F.smooth_l1_loss(path, torch.zeros_like(path), beta=0.1, reduction='none')
            * weight).mean()


def _sliding(places: Tensor, true: Tensor, contact: Tensor, weight: Tensor) -> Tensor:
    """Speed (m/s) of the feet that stand in the truth, above the truth's own; a mean."""
    speed, own = ((joints[:, 1:] - joints[:, :-1])[..., list(FOOT_JOINTS), :].norm(dim=-1) * FPS
                  for joints in (places, true))
    planted = contact[:, 1:] * contact[:, :-1]
    return (F.relu(speed - own) * planted * weight).sum() / planted.sum().clamp_min(1.0)


def _missing(places: Tensor, true: Tensor, reaching: Tensor, weight: Tensor) -> Tensor:
    """Gap (m) of the wrists that reach, in the start frame; a mean over their frames."""
    gap = (places - true)[..., list(WRISTS), :].norm(dim=-1)
    asked = reaching[:, None].float()
    return (gap * asked * weight).sum() / (asked.sum() * gap.shape[1]).clamp_min(1.0)


@torch.no_grad()
def _told_codes(reasoner: Reasoner, text: TextEncoder, tokenizer: MotionTokenizer,
                episodes: EpisodeSet, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """States (E, P + W, D) with the codes of the right motions, and with those of others."""
    codes = encode_bank(tokenizer, episodes.bank.features)
    source = ReasonerBatches(episodes, text, codes, reasoner.family.grid)
    answers = ([], [])
    for part in np.array_split(rows, max(len(rows) // 96, 1)):
        batch = on_device(source.batch(episodes.scene[part], part),
                          next(reasoner.parameters()).device)
        prompt = reasoner.prompt(batch['pixels'], batch['ids'], batch['mask'], batch['camera'])
        for told, order in zip(answers, (np.arange(len(part)), np.roll(np.arange(len(part)), 7)),
                               strict=True):
            told.append(reasoner.teach(*prompt, batch['codes'][order, :, 0]).states.cpu())
    return torch.cat(answers[0]), torch.cat(answers[1])


def _conditions(own: Tensor, mask: Tensor, right: Tensor, others: Tensor
                ) -> dict[str, tuple[Tensor, Tensor]]:
    """
    States and masks by what they hold.

    The reasoner's own codes, the right ones, those of another motion; all of another question.
    """
    order = np.roll(np.arange(len(own)), 7)
    return {'told': (own, mask), 'oracle': (right, mask), 'codes_swapped': (others, mask),
            'swapped': (own[order], mask[order])}


def make_generator(settings: dict[str, Any], config: TrainingConfig, init: Path | None
                   ) -> MotionGenerator:
    """Make a generator of whole plans, with the weights of ``init``, compiled where asked for."""
    generator = build('generator', {**settings, 'windows': PLAN_WINDOWS})
    if init is not None:
        start_from(generator, init, 'generator')
    if config.compiled:
        generator.condition = torch.compile(generator.condition, dynamic=True)
        for block in generator.blocks:
            block.compile(dynamic=True)
    return generator


def train_generator(config_path: Path, episodes_dir: Path, tokenizer_dir: Path,
                    autoencoder_dir: Path, reasoner_dir: Path, out: Path,
                    val_dir: Path | None = None, scenes: slice | np.ndarray = slice(None),
                    init: Path | None = None, shown: Shown = Shown(),
                    store: Path | None = None) -> MotionGenerator:
    """
    Train stage 2 on the states of ``scenes`` of the episodes and return the generator.

    ``init`` is a checkpoint to start from; ValueError when its sizes are others, or when training
    finds that swapped conditions change neither the loss nor, with ``val_dir``, the goal error.
    ``shown`` is for ablations; ``store`` is the folder that states are kept in (``out``).
    """
    settings, config, data = read_config(config_path, 'generator', DATA)
    torch.manual_seed(config.seed)
    out = Path(out)
    reasoner: Reasoner = load_model(reasoner_dir, 'reasoner')
    autoencoder: MotionAutoencoder = load_model(autoencoder_dir, 'autoencoder')
    tokenizer: MotionTokenizer = load_model(tokenizer_dir, 'tokenizer')
    device = processes().device
    for module in (reasoner, autoencoder, tokenizer):
        module.requires_grad_(False).to(device)
    text = TextEncoder.open(Path(reasoner_dir) / 'text.json', reasoner.config.text_tokens)
    files = [*(Path(reasoner_dir) / name for name in ('config.json', 'model.safetensors')),
             Path(tokenizer_dir) / 'model.safetensors']

    def prepare(folder: Path, part: slice | np.ndarray, store: Path, limit: int | None = None
                ) -> tuple[EpisodeSet, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        episodes = EpisodeSet.open(folder)
        source = ReasonerBatches(episodes, text, encode_bank(tokenizer, episodes.bank.features),
                                 reasoner.family.grid)
        asked = np.isin(episodes.scene, np.arange(len(episodes.images))[part])
        rows = np.flatnonzero(asked & source.told & (episodes.motion >= 0))[:limit]
        share = float(data.get('decoded_share', 0.5)) if limit is None else 1.0
        # The reasoner cannot see that a motion is under way: there its own codes are the truth.
        decoded = np.random.default_rng(0).random(len(rows)) < share
        decoded |= episodes.bank.under_way()[episodes.motion[rows]]
        states, mask = collect_states(reasoner, source, rows, store, decoded, files,
                                      layer=shown.layer)
        return episodes, rows, states, shown.hide(mask, reasoner.prompt_rows), decoded

    store = store or out
    episodes, rows, states, masks, decoded = prepare(episodes_dir, scenes, store / 'states')
    val = None if val_dir is None else prepare(val_dir, slice(None), store / 'states_val',
                                               VALIDATED)
    latents = bank_latents(autoencoder, episodes.bank.features)
    conditions = {}
    if val is not None:
        held, index, own, own_mask, _ = val
        with first_layers(reasoner, shown.layer):
            told = _told_codes(reasoner, text, tokenizer, held, index)
        conditions = _conditions(torch.from_numpy(np.asarray(own, np.float32)),
                                 torch.from_numpy(own_mask), *told)
    for module in (reasoner, tokenizer):
        module.cpu()  # their part is done: the GPU's memory is the generator's
    generator = make_generator({**settings, 'channels': autoencoder.config.channels,
                                'state_width': reasoner.width, 'aims': shown == Shown()},
                               config, init)
    if generator.aim is not None:
        generator.aim.adopt(reasoner.grounding)
    motions = episodes.motion[rows]
    moving = torch.from_numpy(episodes.bank.under_way())
    weights = loss_settings(data)
    reaching = torch.from_numpy(np.isfinite(episodes.bank.hands).all(-1))
    settled = Settled(episodes.bank, partial(bank_latents, autoencoder),
                      float(data.get('settled', 0.0)))
    hands = torch.from_numpy(np.asarray(episodes.hands[rows], np.float32))

    # Codes are right half of the time in the states, and never known to be in use: how often each
    # kind is drawn says how far they are to be trusted.
    draws = float(data.get('decoded_draws', decoded.mean()))
    chance = np.where(decoded, draws / max(decoded.sum(), 1),
                      (1.0 - draws) / max((~decoded).sum(), 1))
    chance /= chance.sum()

    def draw(rng: np.random.Generator, count: int) -> tuple[Tensor, ...]:
        chosen = np.sort(rng.choice(len(rows), count, p=chance))
        index = motions[chosen]
        # Rows that nobody has (padding of the text) cost time and say nothing.
        used = masks[chosen].any(0)
        target, truth = latents[index], torch.from_numpy(episodes.bank.features[index])
        begun = settled.put(rng, index, target, truth)
        return (target, truth, torch.from_numpy(states[chosen][:, used]),
                torch.from_numpy(masks[chosen][:, used]), moving[index] | begun,
                reaching[index], hands[chosen])

    def placed(drawn: tuple[Tensor, ...]) -> list[Tensor]:
        drawn = [part.to(device, non_blocking=True) for part in drawn]
        return [part.float() if part.is_floating_point() else part for part in drawn]

    samples = Samples(lambda rng: draw(rng, config.batch), config)
    done = saved_step(out)

    def loss(network: torch.nn.Module, rng: np.random.Generator, step: int
             ) -> tuple[Tensor, dict[str, float]]:
        nonlocal done
        done = step + 1
        target, truth, state, mask, is_moving, reach, hand = placed(samples(step))
        value, figures = flow_loss(network, autoencoder, target, truth, state, mask, rng,
                                   moving=is_moving, reaching=reach, **weights)
        if network.aim is not None:
            aimed, gaps = aim_loss(network.aim(state).float(), hand)
            value, figures = value + aimed, figures | gaps
        if step % 100 == 0:
            figures['sensitivity'] = sensitivity(network, step)
        return value, figures

    @torch.no_grad()
    def sensitivity(network: torch.nn.Module, step: int) -> float:
        """Loss with swapped conditions over loss with the right ones, same noise."""
        target, truth, state, mask, is_moving, *_ = placed(
            draw(np.random.default_rng(step), config.batch))
        values = []
        for order in (np.arange(len(state)), np.roll(np.arange(len(state)), 1)):
            torch.manual_seed(step)
            values.append(flow_loss(network, autoencoder, target, truth, state[order],
                                    mask[order], np.random.default_rng(1), 0.0, is_moving,
                                    0.0)[0].item())
        ratio = values[1] / values[0]
        if step >= SENSITIVE_AFTER and ratio < INSENSITIVE:
            raise ValueError(f'generator: swapping the conditions changes the loss by a factor '
                             f'of {ratio:.3f} only; it does not use the reasoner')
        return ratio

    def validate(network: torch.nn.Module) -> dict[str, float]:
        figures = validate_generator(network, autoencoder, held, index, conditions)
        # Before they are noted: a run that is called up again is looked at, and stopped, again.
        check_goals(figures, int(walks(torch.from_numpy(held.action[index])).sum()), done)
        return figures

    return train(generator, 'generator', config, loss, out, validate if conditions else None)
