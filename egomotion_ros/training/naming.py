# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Read from a trained reasoner whether a sentence names a thing, and change nothing of it.

"Turn left" and a search for something that is out of view are one motion, and no motion tells
which it is.  The state of the prompt's last row, from which the first primitive is told, does: a
logistic regression on it (a linear probe, Alain and Bengio 2016, arXiv 1610.01644).  It needs
pictures and instructions, but neither motions nor the tokenizer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
import torch.nn.functional as F
from tqdm import tqdm

from egomotion_ros.bundle import sha256
from egomotion_ros.data.episodes import RECORDED, EpisodeSet
from egomotion_ros.data.instructions import ACTIONS, NAMING_ACTIONS
from egomotion_ros.models.checkpoints import load_model, save_json, save_model
from egomotion_ros.models.naming import NamingConfig, NamingHead
from egomotion_ros.models.reasoner import Reasoner
from egomotion_ros.text import TextEncoder
from egomotion_ros.training.loop import processes, read_config
from egomotion_ros.training.reasoner_batches import ReasonerBatches, on_device

#: Questions that are read together.
_BATCH = 64
#: Weight of the squared weights in the fit, of standardised states.
_DECAY = 1e-3
_NAMING = [ACTIONS.index(action) for action in NAMING_ACTIONS]


class NoNamingError(ValueError):
    """Episodes whose sentences all name a thing, or none of them."""


@torch.no_grad()
def readings(reasoner: Reasoner, source: ReasonerBatches, count: int, seed: int
             ) -> tuple[Tensor, Tensor]:
    """
    States (N, D) of the row before the first primitive, and whether (N,) a thing is named.

    Of at most ``count`` questions about the scenes of ``source``.  What people said about a
    recording is left out: of their words it is not known.
    """
    episodes, device = source.episodes, next(reasoner.parameters()).device
    usable = source.told & np.isin(episodes.scene, source.scenes) & (episodes.action != RECORDED)
    asked = np.random.default_rng(seed).permutation(np.flatnonzero(usable))[:count]
    states = [torch.zeros(0, reasoner.width)]
    for first in tqdm(range(0, len(asked), _BATCH), desc='readings', mininterval=5.0):
        rows = asked[first:first + _BATCH]
        batch = on_device(source.batch(episodes.scene[rows], rows), device)
        tokens, mask = reasoner.prompt(*(batch[name]
                                         for name in ('pixels', 'ids', 'mask', 'camera')))
        none = torch.zeros(len(tokens), 0, dtype=torch.long, device=device)
        states.append(reasoner.teach(tokens, mask, none).states[:, -1].float().cpu())
    return torch.cat(states), torch.from_numpy(np.isin(episodes.action[asked], _NAMING))


def fit(states: Tensor, named: Tensor) -> nn.Linear:
    """
    Logistic regression of ``named`` (N,) on ``states`` (N, D), as logits (D -> 2) of both answers.

    Both answers count alike, however often each is given.  NoNamingError where one never is.
    """
    states, wanted = states.double(), named.long()
    count = named.sum().item()
    if not 0 < count < len(named):
        raise NoNamingError('needs sentences that name a thing and sentences that name none: '
                            f'of {len(named)} of the episodes {count} do')
    weight = torch.tensor([1.0 / (len(named) - count), 1.0 / count], dtype=torch.float64)
    mean, deviation = states.mean(0), states.std(0).clamp_min(1e-6)
    standard = (states - mean) / deviation
    head = nn.Linear(states.shape[1], 2, dtype=torch.float64)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    search = torch.optim.LBFGS(head.parameters(), max_iter=500, history_size=20,
                               line_search_fn='strong_wolfe')

    def loss() -> Tensor:
        search.zero_grad()
        value = F.cross_entropy(head(standard), wanted, weight, reduction='sum')
        value = value + _DECAY * head.weight.square().sum()
        value.backward()
        return value

    search.step(loss)
    with torch.no_grad():
        head.weight /= deviation
        head.bias -= head.weight @ mean
    return head.float()


def train_naming(config_path: Path, episodes_dir: Path, reasoner_dir: Path, out: Path,
                 scenes: np.ndarray | None = None) -> NamingHead:
    """
    Fit the reading to the reasoner in ``reasoner_dir`` and write it to ``out``.

    ``data.samples`` questions about ``scenes`` of the episodes (None: all) are read; those about
    the last quarter of the scenes are held out, and how many of them are answered right is said
    and kept in ``validation.json``.  NoNamingError for episodes that lack a case, ValueError for
    a configuration that sets sizes.
    """
    settings, config, data = read_config(config_path, 'naming', ('samples',))
    if settings:
        raise ValueError(f'{config_path}: the sizes are those of the reasoner; drop "model"')
    reasoner_dir, out = Path(reasoner_dir), Path(out)
    reasoner = load_model(reasoner_dir, 'reasoner').requires_grad_(False)
    text = TextEncoder.open(reasoner_dir / 'text.json', reasoner.config.text_tokens)
    reasoner.to(processes().device)
    episodes, samples = EpisodeSet.open(episodes_dir), int(data.get('samples', 8000))
    scenes = np.arange(len(episodes.images)) if scenes is None else np.sort(scenes)
    border = len(scenes) - max(len(scenes) // 4, 1)

    def read(part: np.ndarray, share: float) -> tuple[Tensor, Tensor]:
        source = ReasonerBatches(episodes, text, None, reasoner.family.grid, part)
        return readings(reasoner, source, round(share * samples), config.seed)

    head = NamingHead(NamingConfig(reasoner.width, sha256(reasoner_dir / 'model.safetensors')))
    head.read = fit(*read(scenes[:border], 0.75))
    states, named = read(scenes[border:], 0.25)
    with torch.no_grad():
        right = (head(states).argmax(-1) == 1) == named
    figures = {name: right[such].float().mean().item() if such.any() else None
               for name, such in (('named', named), ('not_named', ~named))}
    if processes().is_main_process:
        print('held out, answered right: ' + ', '.join(
            f'{name} {"none asked" if share is None else f"{100 * share:.1f} %"}'
            for name, share in figures.items()))
        save_model(head, 'naming', out)
        save_json(figures, out / 'validation.json')
    return head.eval()
