# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Stage 1: train the reasoner on episodes.

Loss: cross-entropy of base and residual codes, and the grounding losses of
:mod:`egomotion_ros.models.grounding` (every object of every picture, the target's patch, the
goal).  Episodes without motions train the grounding alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as F

from egomotion_ros.data.episodes import EpisodeSet
from egomotion_ros.data.instructions import (
    ACTIONS,
)
from egomotion_ros.data.scenes import CAMERA, OBJECT_COLUMNS
from egomotion_ros.models.checkpoints import load_model, start_from
from egomotion_ros.models.grounding import DEPTHS, Grounding
from egomotion_ros.models.pretrained import start_reasoner
from egomotion_ros.models.reasoner import Reasoner, ReasonerOutput
from egomotion_ros.models.tokenizer import MotionTokenizer
from egomotion_ros.text import TextEncoder
from egomotion_ros.training.loop import Samples, TrainingConfig, processes, read_config, train
from egomotion_ros.training.reasoner_batches import (
    ReasonerBatches,
    encode_bank,
    on_device,
    recorded_sentences,
    train_text,
)

_COLUMN = {name: n for n, name in enumerate(OBJECT_COLUMNS)}


def patch_of(u: Tensor, v: Tensor, patches: int) -> Tensor:
    """Index of the patch, of ``patches`` on a side, that holds pixel ``u``, ``v``."""
    size = CAMERA.width / patches
    column = (u / size).long().clamp(0, patches - 1)
    row = (v / size).long().clamp(0, patches - 1)
    return row * patches + column


def depth_loss(answer: Tensor, depth: Tensor, patches: int) -> Tensor:
    """
    Loss of depths (S, N, DEPTHS ** 2), logarithms, against a map (S, H, W) in metres.

    Cells of a patch are compared with the nearest of the map; NaN (nothing seen) does not count,
    and what is farther than 12 m is taken as 12 m.  0 for maps of nothing.
    """
    cells = patches * DEPTHS
    where = ((torch.arange(cells, device=depth.device) + 0.5) * depth.shape[-1] / cells).long()
    wanted = depth[:, where][:, :, where].unflatten(2, (patches, DEPTHS)).unflatten(
        1, (patches, DEPTHS)).transpose(2, 3).reshape(answer.shape)
    known = torch.isfinite(wanted)
    if not known.any():
        # Sets drawn without depths: still part of the loss, as processes expect of every weight.
        return 0.0 * answer.sum()
    return F.smooth_l1_loss(answer[known], wanted[known].clamp(0.1, 12.0).log(), beta=0.1)


def grounding_loss(answer: Grounding, batch: dict[str, Tensor], patches: int
                   ) -> tuple[Tensor, dict[str, float]]:
    """Sum of the grounding losses, and figures to log."""
    table = batch['objects']
    columns = {name: table[..., n] for name, n in _COLUMN.items()}
    visible = (columns['valid'] > 0.5) & (columns['visible'] > 0.5)
    patch = patch_of(columns['u'], columns['v'], patches)
    present = torch.zeros_like(answer.objectness)
    scene = torch.arange(len(table), device=table.device)[:, None].expand_as(patch)
    present[scene[visible], patch[visible]] = 1.0
    objectness = F.binary_cross_entropy_with_logits(
        answer.objectness, present, pos_weight=present.new_tensor(8.0))
    at = (scene[visible], patch[visible])
    colour = _mean(F.cross_entropy, answer.colour[at], columns['colour'][visible].long())
    shape = _mean(F.cross_entropy, answer.shape[at], columns['shape'][visible].long())
    size = CAMERA.width / patches
    inside = torch.stack([columns['u'], columns['v']], -1)[visible] / size % 1.0
    offset = _mean(_smooth, answer.offset[at], inside)
    distance = _mean(_smooth, answer.log_distance[at], columns['distance'][visible].log())
    seen, target = batch['seen'], batch['target']
    wanted = patch_of(target[:, _COLUMN['u']], target[:, _COLUMN['v']], patches)
    where = _mean(F.cross_entropy, answer.patch[seen], wanted[seen])
    bearing = target[seen, _COLUMN['bearing']]
    direction = _mean(_smooth, answer.bearing[seen],
                      torch.stack([bearing.sin(), bearing.cos()], -1))
    far = _mean(_smooth, answer.target_log_distance[seen],
                target[seen, _COLUMN['distance']].log())
    goal = batch['goal']
    pose = torch.cat([goal[:, :2], goal[:, 2:].sin(), goal[:, 2:].cos()], -1)
    definite = batch['definite']
    reach = _mean(_smooth, answer.goal[definite], pose[definite])
    loss = (objectness + 0.5 * colour + 0.5 * shape + offset + distance + where
            + 2.0 * direction + 2.0 * far + 4.0 * reach)
    depths = depth_loss(answer.depth, batch['depth'], patches)
    loss = loss + 2.0 * depths
    figures = {'depth': depths.item()}
    if answer.hands is not None and 'hands' in batch:
        heights = _mean(_smooth, answer.height[at], batch['height'][visible])
        loss = loss + heights
        figures['height'] = heights.item()
        asked = torch.isfinite(batch['hands']) & definite[:, None, None]
        if asked.any():
            hands = F.smooth_l1_loss(answer.hands[asked], batch['hands'][asked], beta=0.05)
            loss = loss + 8.0 * hands
            figures['hands'] = hands.item()
    figures |= {'goal': reach.item()}
    if seen.any():
        with torch.no_grad():
            right = (answer.patch[seen].argmax(-1) == wanted[seen]).float().mean()
        figures |= {'patch': where.item(), 'patch_right': right.item(), 'colour': colour.item(),
                    'shape': shape.item()}
    return loss, figures


def _smooth(answer: Tensor, wanted: Tensor) -> Tensor:
    return F.smooth_l1_loss(answer, wanted, beta=0.1)


def _mean(loss: Callable[[Tensor, Tensor], Tensor], answer: Tensor, wanted: Tensor) -> Tensor:
    """Mean loss of what there is; 0, still a part of the whole, where there is nothing."""
    return loss(answer, wanted) if len(answer) else answer.sum()


def goal_scores(answer: Tensor, goal: Tensor, action: Tensor) -> dict[str, float]:
    """Share of ``walk_to``/``stop_at`` whose read-out goal is within 0.5 m and 20 degrees."""
    walk = (action == ACTIONS.index('walk_to')) | (action == ACTIONS.index('stop_at'))
    away = (answer[walk, :2] - goal[walk, :2]).norm(dim=-1)
    turn = torch.atan2(answer[walk, 2], answer[walk, 3]) - goal[walk, 2]
    turn = torch.atan2(turn.sin(), turn.cos()).abs()
    good = (away < 0.5) & (turn < np.radians(20))
    return {'goal_within': good.float().mean().item(), 'goal_metres': away.median().item(),
            'goal_degrees': float(np.degrees(turn.median().item()))}


def make_reasoner(settings: dict[str, Any], config: TrainingConfig, kind: str,
                  init: Path | None = None, decoder: str = 'autoregressive'
                  ) -> tuple[Reasoner, TextEncoder | None]:
    """
    Make a reasoner to train on scenes of a ``kind``, and its text vocabulary if it brings one.

    ``init`` is a checkpoint to start from (ValueError when its sizes are others);
    :func:`keep_words` is to follow.  The layers are compiled where the configuration asks for it.
    """
    # Only furnished scenes have heights to tell apart and things to reach for.
    settings = {'hands': True, **settings} if kind == 'furnished' else settings
    model, text = start_reasoner(settings, decoder)
    if init is not None:
        # A reasoner of simple scenes has no heads for hands: those start afresh.
        start_from(model, init, 'reasoner')
    if not torch.cuda.is_available():
        # The fused kernel's backward pass on the CPU takes twice as long as plain products.
        model.vlm.set_attn_implementation('eager')
    if config.compiled:
        for layer in model.family.language(model.vlm).layers:
            layer.compile(dynamic=True)
    return model, text


@torch.no_grad()
def keep_words(model: Reasoner, text: TextEncoder, init: Path) -> None:
    """Give every token that the vocabulary of the checkpoint ``init`` has its embedding there."""
    known = TextEncoder.open(Path(init) / 'text.json', model.config.text_tokens).vocabulary
    if text.vocabulary == known:
        return
    table = model.vlm.get_input_embeddings().weight
    old, fresh = table.clone(), torch.randn_like(table) * table.std()
    for token, number in text.vocabulary.items():
        table[number] = old[known[token]] if token in known else fresh[number]


def reasoner_pass(model: torch.nn.Module, batch: dict[str, Tensor]) -> ReasonerOutput:
    """Teacher-forced pass over a batch; the prompt alone when it has no codes."""
    base = batch['codes'][..., 0] if 'codes' in batch else batch['ids'][:, :0]
    return model(batch['pixels'], batch['ids'], batch['mask'], batch['camera'], base)


def train_reasoner(config_path: Path, episodes_dir: Path, out: Path,
                   tokenizer_dir: Path | None = None, val_dir: Path | None = None,
                   init: Path | None = None, scenes: slice | np.ndarray = slice(None)) -> Reasoner:
    """
    Train stage 1 and return it.

    ``tokenizer_dir`` may be None for episodes without motions (grounding alone); ``init`` starts
    from another reasoner's weights (ValueError when its sizes are others), words that both
    vocabularies have keep their embeddings; scenes that are seen on the way teach where things
    are, and no codes; ``scenes`` restricts the scenes that are shown, so that
    stage 2 can be given states of scenes stage 1 never saw.
    """
    settings, config, data = read_config(config_path, 'reasoner', ('decoder', 'questions'))
    torch.manual_seed(config.seed)
    episodes = EpisodeSet.open(episodes_dir)
    kind = episodes.kind
    model, own_text = make_reasoner(settings, config, kind, init,
                                    str(data.get('decoder', 'autoregressive')))
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with processes().main_process_first():
        if processes().is_main_process:
            text = own_text or train_text(model.config.text_vocabulary,
                                          model.config.text_tokens, kind=kind,
                                          recorded=recorded_sentences(episodes))
            text.save(out / 'text.json')
        else:
            text = TextEncoder.open(out / 'text.json', model.config.text_tokens)
    if init is not None:
        keep_words(model, text, init)
    tokenizer = (None if tokenizer_dir is None else
                 load_model(tokenizer_dir, 'tokenizer').to(processes().device))
    patches = model.family.grid
    held_out = (None if val_dir is None else
                stage1_batches(val_dir, text, patches, tokenizer))
    return fit_reasoner(model, config, int(data.get('questions', 5)), out,
                        stage1_batches(episodes_dir, text, patches, tokenizer, scenes), held_out)


def stage1_batches(folder: Path, text: TextEncoder, patches: int,
                   tokenizer: MotionTokenizer | None = None,
                   scenes: slice | np.ndarray = slice(None)) -> ReasonerBatches:
    """Give the samples of ``scenes`` of the set in ``folder``; without ``tokenizer`` no codes."""
    episodes = EpisodeSet.open(folder)
    codes = None
    if tokenizer is not None and episodes.bank is not None:
        codes = encode_bank(tokenizer, episodes.bank.features)
    return ReasonerBatches(episodes, text, codes, patches,
                           np.arange(len(episodes.images))[scenes])


def fit_reasoner(model: Reasoner, config: TrainingConfig, questions: int, out: Path,
                 source: ReasonerBatches, held_out: ReasonerBatches | None = None) -> Reasoner:
    """
    Train a reasoner on ``source``, ``questions`` of every picture, and return it.

    ``held_out`` is what its curves are of; checkpoints go to ``out`` (:func:`loop.train`).
    """
    samples = Samples(lambda rng: source.sample(rng, config.batch, questions), config)

    def loss(network: torch.nn.Module, rng: np.random.Generator, step: int
             ) -> tuple[Tensor, dict[str, float]]:
        batch = on_device(samples(step), processes().device)
        result = reasoner_pass(network, batch)
        value, figures = grounding_loss(result.grounding, batch, source.patches)
        if 'codes' in batch and batch['spoken'].any():
            # A picture does not tell that the body is under way: those motions have no words.
            spoken = batch['spoken']
            codes = batch['codes'][spoken]
            base = F.cross_entropy(result.base[spoken].float().flatten(0, 1),
                                   codes[..., 0].flatten())
            residual = F.cross_entropy(result.residual[spoken].float().flatten(0, 2),
                                       codes[..., 1:].flatten())
            value = value + 0.3 * residual
            figures |= {'base': base.item(), 'residual': residual.item()}
            if model.config.decoder != 'parallel':
                value = value + base
            if result.parallel is not None:
                queries = F.cross_entropy(result.parallel[spoken].float().flatten(0, 1),
                                          codes[..., 0].flatten())
                value = value + queries
                figures['parallel'] = queries.item()
        return value, figures

    validate = None
    if held_out is not None:
        def validate(network: torch.nn.Module) -> dict[str, float]:
            return validate_reasoner(network, held_out, questions)

    return train(model, 'reasoner', config, loss, out, validate)


def validate_reasoner(model: Reasoner, source: ReasonerBatches, questions: int,
                      limit: int = 320) -> dict[str, float]:
    """Figures on held-out scenes: goal read-out, the same blanked and shuffled, code accuracy."""
    rng = np.random.default_rng(1)
    answers: dict[str, list[Tensor]] = {k: [] for k in ('told', 'blank', 'shuffled')}
    goals, actions, right, gaps, depths = [], [], [], [], []
    for start in range(0, min(limit, len(source.scenes)), 32):
        scenes = source.scenes[start:start + 32]
        rows = np.concatenate([rng.choice(source.of_scene[s], questions) for s in scenes])
        batch = on_device(source.batch(scenes, rows), next(model.parameters()).device)
        out = reasoner_pass(model, batch)
        if 'codes' in batch:
            right.append((out.base.argmax(-1) == batch['codes'][..., 0])[batch['spoken']].float())
        answers['told'].append(out.grounding.goal)
        if torch.isfinite(batch['depth']).any():
            depths.append(depth_loss(out.grounding.depth, batch['depth'], source.patches))
        if out.grounding.hands is not None and 'hands' in batch:
            gap = (out.grounding.hands - batch['hands']).norm(dim=-1)
            gaps.append(gap[torch.isfinite(gap)])
        goals.append(batch['goal'])
        actions.append(batch['action'])
        blank = batch | {'pixels': torch.zeros_like(batch['pixels'])}
        answers['blank'].append(reasoner_pass(model, blank).grounding.goal)
        order = torch.from_numpy(rng.permutation(len(rows)))
        mixed = batch | {'ids': batch['ids'][order], 'mask': batch['mask'][order]}
        answers['shuffled'].append(reasoner_pass(model, mixed).grounding.goal)
    goal, action = torch.cat(goals), torch.cat(actions)
    figures = goal_scores(torch.cat(answers['told']), goal, action)
    for name in ('blank', 'shuffled'):
        figures[name] = goal_scores(torch.cat(answers[name]), goal, action)['goal_within']
    if gaps and (gap := torch.cat(gaps)).numel():
        figures |= {'hands_within': (gap < 0.12).float().mean().item(),
                    'hands_metres': gap.median().item()}
    if depths:
        figures['depth'] = torch.stack(depths).mean().item()
    if right:
        figures['base_right'] = torch.cat(right).mean().item()
    return figures


