# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A trained reasoner learns to answer all at once, and nothing else of it changes."""

from __future__ import annotations

import json
from pathlib import Path
import shutil

from fixtures_bundle import tiny_models
import pytest
import torch
import yaml

from egomotion_ros.data.episodes import EpisodeSet, write_episodes
from egomotion_ros.models.checkpoints import load_model, save_model
from egomotion_ros.models.reasoner import Reasoner, ReasonerConfig
from egomotion_ros.runtimes.export import Models
from egomotion_ros.training.queries import take_lessons, train_queries, with_queries
from egomotion_ros.training.reasoner_batches import ReasonerBatches, train_text

OWN = {'model_type': 'egomotion_vlm', 'stem': [8, 8, 16, 16], 'text_config': {
    'hidden_size': 32, 'intermediate_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 2,
    'num_key_value_heads': 2, 'vocab_size': 300}}
TRAINING = {'steps': 60, 'batch': 40, 'warmup': 5, 'learning_rate': 0.1, 'save_every': 30,
            'validate_every': 60}


@pytest.fixture(scope='module')
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and instructions; neither motions nor a library."""
    out = tmp_path_factory.mktemp('episodes')
    write_episodes(out, 'train', 20, kind='simple')
    return out


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a run; the reasoner answers with other codes to other prompts."""
    out = tmp_path_factory.mktemp('run')
    torch.manual_seed(0)
    reasoner = Reasoner(ReasonerConfig(vlm=OWN, layer=2, codes=8, levels=2, text_tokens=64,
                                       text_vocabulary=300))
    with torch.no_grad():
        for weight in reasoner.parameters():
            if weight.ndim > 1:
                weight.mul_(2.0)
    save_model(reasoner, 'reasoner', out / 'reasoner')
    train_text(300, 64).save(out / 'reasoner' / 'text.json')
    models = tiny_models()
    save_model(models.autoencoder, 'autoencoder', out / 'autoencoder')
    save_model(models.generator, 'generator', out / 'generator')
    return out


def write_config(folder: Path, **data) -> Path:
    path = folder / 'queries.yaml'
    path.write_text(yaml.safe_dump({'training': TRAINING, 'data': data}))
    return path


def sources(reasoner: Reasoner, episodes: Path, run: Path) -> ReasonerBatches:
    text = train_text(300, 64)
    return ReasonerBatches(EpisodeSet.open(episodes), text, None, reasoner.family.grid)


def same(reasoner: Reasoner, lessons) -> float:
    """Share of codes that the queries answer as the teacher does."""
    rows = torch.arange(len(lessons))
    with torch.no_grad():
        answer = reasoner.ask(lessons.begin, lessons.mask,
                              lessons.cache(rows, torch.device('cpu')))
    return (answer.argmax(-1) == lessons.codes).float().mean().item()


def test_lessons_are_the_greedy_answers(episodes, run):
    reasoner = load_model(run / 'reasoner')
    source = sources(reasoner, episodes, run)
    lessons = take_lessons(reasoner, source, 80, seed=3)
    assert len(lessons) == 80 and lessons.codes.unique().numel() > 3
    # Decoded anew from the kept prompt, code by code.
    cache = lessons.cache(torch.arange(80), torch.device('cpu'))
    prompt, last = lessons.mask.shape[1], lessons.begin[:, None]
    with torch.no_grad():
        for n in range(19):
            code = reasoner.base_head(last).argmax(-1)
            equal = (code[:, 0] == lessons.codes[:, n]).float().mean()
            assert equal > 0.95, f'window {n}'  # prompts are kept in half precision
            bias = torch.cat([lessons.mask, torch.zeros(80, n + 1)], 1)[:, None, None]
            last = reasoner.run(reasoner.embed_base(lessons.codes[:, n:n + 1]), bias,
                                torch.full((80, 1), prompt + n), cache)


def test_queries_learn_and_nothing_else_moves(episodes, run, tmp_path):
    teacher = load_model(run / 'reasoner')
    out = run / 'queries'
    taught = train_queries(write_config(tmp_path, samples=160), episodes, run / 'reasoner', out,
                           episodes)
    for name, value in teacher.state_dict().items():
        assert torch.equal(taught.state_dict()[name], value), name
    lessons = take_lessons(teacher, sources(teacher, episodes, run), 160, seed=5)
    torch.manual_seed(1)
    untaught = with_queries(teacher)
    assert same(taught, lessons) > same(untaught, lessons) + 0.1
    # The checkpoint is a reasoner with both decoders, and what export takes.
    assert load_model(out, 'reasoner').config.decoder == 'both'
    models = Models.load(run)
    assert models.reasoner.queries is not None
    assert {'reasoner', 'queries'} <= set(models.provenance)


def test_queries_of_another_reasoner_are_not_exported(run, tmp_path):
    other = tmp_path / 'run'
    for part in ('autoencoder', 'generator', 'reasoner'):
        shutil.copytree(run / part, other / part)
    reasoner = load_model(run / 'reasoner')
    moved = with_queries(reasoner)
    with torch.no_grad():
        moved.base_head.bias[0] += 1e-3
    save_model(moved, 'reasoner', other / 'queries')
    with pytest.raises(ValueError, match='another reasoner'):
        Models.load(other)


def test_what_cannot_be_taught_is_refused(episodes, run, tmp_path):
    config = write_config(tmp_path)
    config.write_text(yaml.safe_dump({'model': {'layer': 3}, 'training': TRAINING}))
    with pytest.raises(ValueError, match='sizes'):
        train_queries(config, episodes, run / 'reasoner', tmp_path / 'out')
    folder = tmp_path / 'parallel'
    shutil.copytree(run / 'reasoner', folder)
    reasoner = with_queries(load_model(run / 'reasoner'))
    save_model(reasoner, 'reasoner', folder)
    described = json.loads((folder / 'config.json').read_text())
    described['model']['decoder'] = 'parallel'
    (folder / 'config.json').write_text(json.dumps(described))
    with pytest.raises(ValueError, match='cannot teach'):
        train_queries(write_config(tmp_path), episodes, folder, tmp_path / 'out')
