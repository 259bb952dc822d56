# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Read from a trained reasoner whether it sees what it is told about, and change nothing of it.

The state of the prompt's last row, from which the first primitive is told, also tells whether the
sentence names a thing, and whether that is in view: two logistic regressions on it (a linear
probe, Alain and Bengio 2016, arXiv 1610.01644).  The motion that follows from the same state is of
two minds where a thing is out of view; the reading is not, and the reasoner then answers the
sentence of a search instead.

It needs pictures and instructions, but neither motions nor the tokenizer, and scenes that stage 1
has never seen: in those it has, everything is far easier to tell apart than elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
import torch.nn.functional as F
from tqdm import tqdm

from egomotion_ros.bundle import sha256
from egomotion_ros.data.episodes import EpisodeSet
from egomotion_ros.data.instructions import ACTIONS, NAMING_ACTIONS
from egomotion_ros.models.checkpoints import load_model, save_json, save_model
from egomotion_ros.models.outlook import OutlookConfig, OutlookHead
from egomotion_ros.models.reasoner import Reasoner
from egomotion_ros.text import TextEncoder
from egomotion_ros.training.loop import processes, read_config
from egomotion_ros.training.reasoner_batches import ReasonerBatches, on_device

#: Questions that are read together.
_BATCH = 64
#: Held-out questions the threshold is set on.
_HELD_OUT = 4000
#: Weight of the squared weights in the fit, of standardised states.
_DECAY = 1e-3
_NAMING = [ACTIONS.index(action) for action in NAMING_ACTIONS]


class NoOutlookError(ValueError):
    """Episodes that do not ask for what an outlook is learned from."""


@torch.no_grad()
def readings(reasoner: Reasoner, source: ReasonerBatches, count: int, seed: int
             ) -> tuple[Tensor, Tensor, Tensor]:
    """
    States (N, D) of the row before the first primitive, of at most ``count`` questions.

    They are about the scenes of ``source``.  Beside them labels (N, 2) of :class:`OutlookHead`,
    whether a thing is named and whether it is in view, and which of them are known (N, 2): of what
    is not named nobody asks whether it is in view, of what has left the picture on the way the
    picture does not tell.
    """
    rng, device = np.random.default_rng(seed), next(reasoner.parameters()).device
    naming = torch.tensor(_NAMING, device=device)
    parts: list[tuple[Tensor, ...]] = []
    owners = source.episodes.scene
    asked = rng.permutation(np.flatnonzero(source.told & np.isin(owners, source.scenes)))[:count]
    for first in tqdm(range(0, len(asked), _BATCH), desc='readings', mininterval=5.0):
        rows = asked[first:first + _BATCH]
        batch = on_device(source.batch(owners[rows], rows), device)
        tokens, mask = reasoner.prompt(*(batch[name]
                                         for name in ('pixels', 'ids', 'mask', 'camera')))
        none = torch.zeros(len(tokens), 0, dtype=torch.long, device=device)
        begin = reasoner.teach(tokens, mask, none).states[:, -1]
        names = torch.isin(batch['action'], naming)
        told = batch['action'] >= 0  # of what somebody said about a recording it is not known
        parts.append((begin.float().cpu(), torch.stack([names, batch['seen']], 1).cpu(),
                      torch.stack([told, names & batch['definite']], 1).cpu()))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def fit(states: Tensor, labels: Tensor, known: Tensor) -> nn.Linear:
    """
    Logistic regressions (D -> 2) of ``labels`` (N, 2) on ``states`` (N, D), where ``known``.

    Both answers of a question count alike, however often each is given.  NoOutlookError where
    one is never given.
    """
    states, labels = states.double(), labels.double()
    weight = torch.zeros_like(labels)
    for answer in (0.0, 1.0):
        such = known & (labels == answer)
        if not such.any(0).all():
            raise NoOutlookError('an outlook is learned from sentences that name things, in view '
                                 'and out of it, and sentences that name none: the episodes lack '
                                 'one of these')
        weight += such / such.sum(0)
    mean, deviation = states.mean(0), states.std(0).clamp_min(1e-6)
    standard = (states - mean) / deviation
    head = nn.Linear(states.shape[1], 2, dtype=torch.float64)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    search = torch.optim.LBFGS(head.parameters(), max_iter=500, history_size=20,
                               line_search_fn='strong_wolfe')

    def loss() -> Tensor:
        search.zero_grad()
        value = F.binary_cross_entropy_with_logits(head(standard), labels, weight,
                                                   reduction='sum')
        value = value + _DECAY * head.weight.square().sum()
        value.backward()
        return value

    search.step(loss)
    with torch.no_grad():
        head.weight /= deviation
        head.bias -= head.weight @ mean
    return head.float()


def train_outlook(config_path: Path, episodes_dir: Path, reasoner_dir: Path, out: Path,
                  val_dir: Path | None = None, scenes: np.ndarray | None = None) -> OutlookHead:
    """
    Fit the outlook of the reasoner in ``reasoner_dir`` and write it to ``out``.

    ``data.samples`` questions of the episodes about ``scenes`` (None: all) are read;
    ``data.missed`` is the share of held-out questions about things in view that may be taken for
    questions about things that are not, and sets the threshold: those of ``val_dir``, without one
    about the last quarter of the scenes.  ``model.search`` is the sentence of a search.  Raises
    ValueError for a share that is none or a sentence that does not fit the prompt, NoOutlookError
    for episodes that lack a case.
    """
    settings, config, data = read_config(config_path, 'outlook')
    missed = float(data.get('missed', 0.02))
    if not 0.0 < missed < 1.0:
        raise ValueError(f'{config_path}: missed {missed}: expected a share within (0, 1)')
    reasoner_dir, out = Path(reasoner_dir), Path(out)
    reasoner = load_model(reasoner_dir, 'reasoner').requires_grad_(False)
    text = TextEncoder.open(reasoner_dir / 'text.json', reasoner.config.text_tokens)
    sizes = OutlookConfig(**{**settings, 'width': reasoner.width,
                             'reasoner': sha256(reasoner_dir / 'model.safetensors')})
    text.encode(sizes.search)
    reasoner.to(processes().device)

    def read(episodes: EpisodeSet, count: int, part: np.ndarray | None, seed: int
             ) -> tuple[Tensor, Tensor, Tensor]:
        source = ReasonerBatches(episodes, text, None, reasoner.family.grid, part)
        return readings(reasoner, source, count, config.seed + seed)

    episodes = EpisodeSet.open(episodes_dir)
    scenes = np.arange(len(episodes.images)) if scenes is None else np.sort(scenes)
    held, rest = (None if val_dir is None else EpisodeSet.open(val_dir)), None
    if held is None:
        held, border = episodes, len(scenes) - max(len(scenes) // 4, 1)
        scenes, rest = scenes[:border], scenes[border:]

    head = OutlookHead(sizes)
    head.read = fit(*read(episodes, int(data.get('samples', 20000)), scenes, 0))
    states, labels, known = read(held, _HELD_OUT, rest, 1)
    with torch.no_grad():
        answers = head(states)
        seen = known[:, 1] & labels[:, 1]
        if not seen.any():
            raise NoOutlookError(f'{held.folder}: nothing that is asked for is in view')
        lift = answers[seen, 1].quantile(missed)
        head.read.bias[1] -= lift
        answers[:, 1] -= lift
    right = (answers > 0) == labels
    figures = {name: right[rows & known[:, n], n].float().mean().item() for name, rows, n in (
        ('names', labels[:, 0], 0), ('names_nothing', ~labels[:, 0], 0),
        ('in_view', labels[:, 1], 1), ('out_of_view', ~labels[:, 1], 1))}
    print('held out, answered right: ' + ', '.join(
        f'{name} {100 * share:.1f} %' for name, share in figures.items()))
    if processes().is_main_process:
        save_model(head, 'outlook', out)
        save_json(figures, out / 'validation.json')
    return head.eval()
