# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Teach a trained reasoner to answer all at once, and change nothing else of it.

Only the learned queries of the parallel decoder are trained; every other weight is frozen, so
that stage 2 stays good for both decoders.  The reasoner is its own teacher: the queries learn the
base codes that it decodes greedily one by one (distillation of an autoregressive model into a
parallel one, as in Gu et al. 2018, arXiv 1711.02281, section 3.3).  It therefore needs pictures
and instructions, but neither motions nor the tokenizer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
import shutil

import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as F
from tqdm import tqdm
from transformers import DynamicCache

from egomotion_ros.data.episodes import EpisodeSet
from egomotion_ros.models.checkpoints import build, load_model
from egomotion_ros.models.reasoner import Reasoner
from egomotion_ros.text import TextEncoder
from egomotion_ros.training.loop import processes, read_config, train
from egomotion_ros.training.reasoner_batches import ReasonerBatches, on_device

#: Pictures and questions a picture that are decoded together.
_PICTURES, _QUESTIONS = 16, 5


@dataclass
class Lessons:
    """
    Prompts as the layers saw them, and the reasoner's own greedy answers.

    ``keys``, ``values`` (L, N, H, P, d) float16, ``mask`` (N, P) additive, ``begin`` (N, D) states
    of the row before the first code, ``codes`` (N, W) base codes.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor
    begin: Tensor
    codes: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    def cache(self, rows: Tensor, device: torch.device) -> DynamicCache:
        """Keys and values of the prompts ``rows`` as a fresh cache."""
        cache = DynamicCache()
        for layer in range(len(self.keys)):
            cache.update(self.keys[layer, rows].float().to(device),
                         self.values[layer, rows].float().to(device), layer)
        return cache


@torch.no_grad()
def take_lessons(model: Reasoner, source: ReasonerBatches, count: int, seed: int) -> Lessons:
    """Let ``model`` answer ``count`` questions (rounded up to whole batches) of ``source``."""
    rng = np.random.default_rng(seed)
    device = next(model.parameters()).device
    parts: list[Lessons] = []
    size = _PICTURES * _QUESTIONS
    for _ in tqdm(range(-(-count // size)), desc='lessons', unit='batch', mininterval=5.0):
        batch = on_device(source.sample(rng, _PICTURES, _QUESTIONS, whole=True),
                          device)
        features = model.image_features(batch['pixels'], batch['camera'][::_QUESTIONS])
        tokens, mask = model.embed_prompt(features.repeat_interleave(_QUESTIONS, dim=0),
                                          batch['ids'], batch['mask'], batch['camera'])
        parts.append(_answer(model, tokens, mask))
    return Lessons(*(torch.cat([getattr(part, name) for part in parts],
                               dim=1 if name in ('keys', 'values') else 0)
                     for name in ('keys', 'values', 'mask', 'begin', 'codes')))


def _answer(model: Reasoner, tokens: Tensor, mask: Tensor) -> Lessons:
    """Greedy answers to embedded prompts, and what the layers made of the prompts."""
    count, prompt, _ = tokens.shape
    windows = model.config.windows
    bias = model.bias(torch.cat([mask, mask.new_ones(count, windows)], dim=1), prompt)
    bias = bias.to(tokens.dtype)
    rows = torch.arange(prompt + windows, device=tokens.device).expand(count, -1)
    cache = DynamicCache()
    start = model.run(tokens, bias[:, :, :prompt, :prompt], rows[:, :prompt], cache)
    keys = torch.stack([layer.keys for layer in cache.layers]).half().cpu()
    values = torch.stack([layer.values for layer in cache.layers]).half().cpu()
    last, codes = start[:, -1:], []
    for row in range(prompt, prompt + windows):
        codes.append(model.base_head(last).argmax(-1))
        last = model.run(model.embed_base(codes[-1]), bias[:, :, row:row + 1, :row + 1],
                         rows[:, row:row + 1], cache)
    return Lessons(keys, values, bias[:, 0, prompt, :prompt].cpu(), start[:, -1].cpu(),
                   torch.cat(codes, dim=1).cpu())


def with_queries(reasoner: Reasoner) -> Reasoner:
    """The same reasoner, trainable in its queries alone; new ones where it had none."""
    model = build('reasoner', asdict(reasoner.config) | {'decoder': 'both'})
    model.load_state_dict(model.state_dict() | reasoner.state_dict())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith('queries.'))
    return model


def train_queries(config_path: Path, episodes_dir: Path, reasoner_dir: Path, out: Path,
                  val_dir: Path | None = None) -> Reasoner:
    """
    Train the queries of the reasoner in ``reasoner_dir`` and write the whole to ``out``.

    ``data.samples`` questions of the episodes are answered once by the reasoner itself, then
    learned from.  Raises ValueError for a reasoner trained to decode in parallel only, or a
    configuration that sets sizes.
    """
    settings, config, data = read_config(config_path, 'queries', ('samples',))
    if settings:
        raise ValueError(f'{config_path}: the sizes are those of the reasoner; drop "model"')
    torch.manual_seed(config.seed)
    reasoner = load_model(reasoner_dir, 'reasoner').merge()
    if reasoner.config.decoder == 'parallel':
        raise ValueError(f'{reasoner_dir}: trained to decode in parallel only, it cannot teach')
    model = with_queries(reasoner)
    if not torch.cuda.is_available():
        # As in stage 1: the fused kernel's backward pass on the CPU takes twice as long.
        model.vlm.set_attn_implementation('eager')
    text = TextEncoder.open(Path(reasoner_dir) / 'text.json', model.config.text_tokens)
    Path(out).mkdir(parents=True, exist_ok=True)
    if processes().is_main_process:
        shutil.copyfile(Path(reasoner_dir) / 'text.json', Path(out) / 'text.json')

    def lessons(folder: Path, count: int, seed: int) -> Lessons:
        source = ReasonerBatches(EpisodeSet.open(folder), text, None, model.family.grid)
        source.drop_under_way()
        return take_lessons(model.to(processes().device).eval(), source, count, seed)

    # Every process learns from prompts of its own.
    taught = lessons(episodes_dir, int(data.get('samples', 4000)),
                     config.seed + processes().process_index)

    def loss(network: torch.nn.Module, rng: np.random.Generator, step: int
             ) -> tuple[Tensor, dict[str, float]]:
        rows = torch.from_numpy(rng.integers(len(taught), size=config.batch))
        device = processes().device
        logits = network.ask(taught.begin[rows].to(device), taught.mask[rows].to(device),
                             taught.cache(rows, device))
        wanted = taught.codes[rows].to(device)
        value = F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten())
        return value, {'same': (logits.argmax(-1) == wanted).float().mean().item()}

    validate = None
    if val_dir is not None:
        asked = lessons(val_dir, 400, config.seed)

        def validate(network: Reasoner) -> dict[str, float]:
            return validate_queries(network, asked)

    return train(model, 'reasoner', config, loss, out, validate)


def validate_queries(model: Reasoner, lessons: Lessons, refinements: int = 3,
                     batch: int = 80) -> dict[str, float]:
    """Share of codes that are the greedy ones: of the queries, and after each refinement."""
    windows, prompt = lessons.codes.shape[1], lessons.mask.shape[1]
    device = next(model.parameters()).device
    future = torch.full((windows, windows), -1e4, device=device).triu(1)
    same: list[list[float]] = []
    for first in range(0, len(lessons), batch):
        rows = torch.arange(first, min(first + batch, len(lessons)))
        mask, wanted = lessons.mask[rows].to(device), lessons.codes[rows].to(device)
        begin = lessons.begin[rows].to(device)
        cache = lessons.cache(rows, device)
        codes = model.ask(begin, mask, cache).argmax(-1)
        cache.crop(-windows)
        bias = torch.cat([mask[:, None, :].expand(-1, windows, -1),
                          future.expand(len(rows), -1, -1)], dim=-1)[:, None]
        where = torch.arange(prompt, prompt + windows, device=device).expand(len(rows), -1)
        right = [(codes == wanted).float().mean().item()]
        for _ in range(refinements):
            states = model.run(model.embed_base(codes), bias, where, cache)
            cache.crop(-windows)
            codes = model.base_head(torch.cat([begin[:, None], states[:, :-1]], dim=1)).argmax(-1)
            right.append((codes == wanted).float().mean().item())
        same.append(right)
    means = np.mean(same, axis=0)
    return {f'same_{n}' if n else 'same': float(value) for n, value in enumerate(means)}
