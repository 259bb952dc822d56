# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a sentence names a thing is read from a trained reasoner, and nothing of it changes."""

from __future__ import annotations

import json
from pathlib import Path

from fixtures_bundle import TINY_CAMERA, tiny_models
import numpy as np
import pytest
import torch
import yaml

from egomotion_ros.data.episodes import EpisodeSet, write_episodes
from egomotion_ros.data.instructions import ACTIONS, NAMING_ACTIONS
from egomotion_ros.models.checkpoints import load_model, load_tensors, save_model
from egomotion_ros.models.naming import NamingConfig, NamingHead
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.runtimes.export import Models, export_bundle
from egomotion_ros.runtimes.loops import read_target
from egomotion_ros.training.naming import NoNamingError, fit, readings, train_naming
from egomotion_ros.training.reasoner_batches import ReasonerBatches, train_text
from egomotion_ros.types import CameraPose, Observation, Target


@pytest.fixture(scope='module')
def episodes(gait_bank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('episodes')
    write_episodes(out, 'train', 40, bank=gait_bank)
    return out


@pytest.fixture()
def run(tmp_path: Path) -> Path:
    """Checkpoints of a run."""
    models = tiny_models(text_tokens=64)
    for part in ('reasoner', 'generator', 'autoencoder'):
        save_model(getattr(models, part), part, tmp_path / 'run' / part)
    train_text(300, 64).save(tmp_path / 'run' / 'reasoner' / 'text.json')
    return tmp_path / 'run'


def write_config(folder: Path, **sections) -> Path:
    path = folder / 'naming.yaml'
    path.write_text(yaml.safe_dump(sections))
    return path


def test_the_fit_finds_what_states_tell_however_rare_it_is():
    torch.manual_seed(0)
    states = torch.randn(6000, 5) * torch.tensor([1.0, 100.0, 0.01, 1.0, 0.0])
    named = states[:, 2] + 1e-4 * states[:, 1] > -0.02
    assert 0.01 < (~named).float().mean() < 0.08
    with torch.no_grad():
        right = (fit(states, named)(states).argmax(-1) == 1) == named
    assert right[named].float().mean() > 0.94 and right[~named].float().mean() > 0.94


@pytest.mark.parametrize('named', [True, False])
def test_a_case_that_never_occurs_is_told(named):
    with pytest.raises(NoNamingError, match='of 20 of the episodes'):
        fit(torch.randn(20, 3), torch.full((20,), named))


def test_readings_are_of_the_scenes_asked_for_and_of_the_row_before_the_codes(episodes, run):
    opened, reasoner = EpisodeSet.open(episodes), load_model(run / 'reasoner')
    text = train_text(300, 64)
    source = ReasonerBatches(opened, text, None, reasoner.family.grid, np.arange(5))
    states, named = readings(reasoner, source, 1000, seed=0)
    rows = np.flatnonzero(np.isin(opened.scene, np.arange(5)))
    rows = np.random.default_rng(0).permutation(rows)
    naming = [ACTIONS.index(action) for action in NAMING_ACTIONS]
    assert named.tolist() == np.isin(opened.action[rows], naming).tolist()
    assert 0 < named.float().mean() < 1
    batch = source.batch(opened.scene[rows[:1]], rows[:1])
    pixels = batch['images'].permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        _, _, out = reasoner.generate(pixels, batch['ids'], batch['mask'], batch['camera'])
    assert torch.allclose(states[0], out.states[0, reasoner.prompt_rows - 1], atol=1e-4)


def test_what_is_read_is_exported_and_belongs_to_one_reasoner(episodes, run, tmp_path):
    before = load_tensors(run / 'reasoner' / 'model.safetensors')
    config = write_config(tmp_path, data={'samples': 400})
    train_naming(config, episodes, run / 'reasoner', run / 'naming')
    after = load_tensors(run / 'reasoner' / 'model.safetensors')
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    figures = json.loads((run / 'naming' / 'validation.json').read_text())
    # A reasoner that has learned nothing still hears other words.
    assert figures['named'] > 0.7 and figures['not_named'] > 0.7
    models = Models.load(run)
    assert models.reasoner.config.naming and 'naming' in models.provenance
    head = load_model(run / 'naming', 'naming')
    assert torch.equal(models.reasoner.naming.weight, head.read.weight)
    with torch.no_grad():
        models.reasoner.base_head.bias[0] += 1.0
    save_model(models.reasoner, 'reasoner', run / 'reasoner')
    with pytest.raises(ValueError, match='another reasoner'):
        Models.load(run)


def test_what_cannot_be_read_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match='sizes'):
        train_naming(write_config(tmp_path, model={'width': 3}), tmp_path, run / 'reasoner',
                     tmp_path / 'out')
    # Without motions every sentence names a thing.
    write_episodes(tmp_path / 'episodes', 'train', 8)
    with pytest.raises(NoNamingError):
        train_naming(write_config(tmp_path), tmp_path / 'episodes', run / 'reasoner',
                     tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_bundle_tells_whether_something_is_named(tiny_bundle, tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    seen = Observation(picture, 'turn left', 5, CameraPose(1.1, 0.4, 0.0))
    found = {}
    for target, bias in ((Target.NAMED, 1.0), (Target.UNKNOWN, None)):
        folder = tiny_bundle
        if bias is not None:
            models, folder = tiny_models(), tmp_path / target.name
            head = NamingHead(NamingConfig(models.reasoner.width))
            torch.nn.init.zeros_(head.read.weight)
            with torch.no_grad():
                head.read.bias.copy_(torch.tensor([-bias, bias]))
            models.reasoner.tell_naming(head)
            export_bundle(models, folder, TINY_CAMERA, steps=2, references=2, progress=False)
        pipeline = EgoMotionPipeline.load(folder, stages='reason')
        found[target] = pipeline.reason(seen, 'a', 3)
        assert found[target].target is target
        assert pipeline.bundle.tells_naming is (bias is not None)
        pipeline.close()
    # It is said beside the answer, which stays what it is.
    for answer in found.values():
        assert np.array_equal(answer.tokens, found[Target.UNKNOWN].tokens)


def test_the_larger_number_tells_and_one_that_is_none_names_nothing():
    for nothing, thing, target in ((-1.0, 1.0, Target.NAMED), (2.0, 1.0, Target.NONE)):
        assert read_target({'named': np.array([[nothing, thing]], np.float32)}) is target
    assert read_target({'named': np.array([[0.0, np.nan]], np.float32)}) is Target.NONE
    assert read_target({'logits': np.zeros((1, 4))}) is Target.UNKNOWN
