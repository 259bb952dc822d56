# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a reasoner tells of the thing that an instruction is about, and what follows from it."""

from __future__ import annotations

import json
from pathlib import Path
import shutil

from fixtures_bundle import TINY_CAMERA, tiny_models
import numpy as np
import pytest
import torch
import yaml

from egomotion_ros.bundle import Bundle
from egomotion_ros.data.episodes import EpisodeSet, write_episodes
from egomotion_ros.data.scenes import OBJECT_COLUMNS
from egomotion_ros.models.checkpoints import load_model, save_model
from egomotion_ros.models.outlook import OutlookConfig, OutlookHead
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.runtimes.export import Models, export_bundle
from egomotion_ros.runtimes.loops import read_outlook
from egomotion_ros.training.outlook import fit, readings, train_outlook
from egomotion_ros.training.reasoner_batches import ReasonerBatches, train_text
from egomotion_ros.types import CameraPose, Observation, Outlook


def answering(named: float, in_view: float) -> Models:
    """Tiny models that are read for an outlook, and always find the same."""
    models = tiny_models()
    head = OutlookHead(OutlookConfig(models.reasoner.width))
    with torch.no_grad():
        head.read.weight.zero_()
        head.read.bias.copy_(torch.tensor([named, in_view]))
    models.reasoner.look_with(head)
    return models


def exported(models: Models, out: Path) -> Path:
    export_bundle(models, out, TINY_CAMERA, steps=2, references=2, progress=False)
    return out


def hide_in_every_second_scene(folder: Path) -> None:
    """Say of all objects of every second scene that they are out of view."""
    path = folder / 'shard-00000' / 'objects.npy'
    objects = np.load(path)
    objects[::2, :, OBJECT_COLUMNS.index('visible')] = 0.0
    np.save(path, objects)


def reason(folder: Path, instruction: str):
    picture = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    pipeline = EgoMotionPipeline.load(folder, stages='reason')
    answer = pipeline.reason(Observation(picture, instruction, 5,
                                         CameraPose(1.1, 0.4, 0.0)), 'a', 3)
    pipeline.close()
    return answer


@pytest.fixture(scope='module')
def seeking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of models that never see what they are told about."""
    return exported(answering(1.0, -1.0), tmp_path_factory.mktemp('seeking') / 'bundle')


def test_the_fit_finds_what_states_tell_however_rare_it_is():
    torch.manual_seed(0)
    states = torch.randn(6000, 5) * torch.tensor([1.0, 100.0, 0.01, 1.0, 0.0])
    # One in six sentences names nothing, one thing in twelve is out of view.
    labels = torch.stack([states[:, 1] > -97.0, states[:, 2] > -0.014], 1)
    known = torch.stack([torch.ones(6000, dtype=torch.bool), labels[:, 0]], 1)
    with torch.no_grad():
        right = (fit(states, labels, known)(states) > 0) == labels
    for n in (0, 1):
        for answer in (True, False):
            assert right[known[:, n] & (labels[:, n] == answer), n].float().mean() > 0.94


def test_what_is_not_known_teaches_nothing():
    torch.manual_seed(0)
    states = torch.randn(2000, 3)
    labels = torch.stack([states[:, 0] > 0, states[:, 1] > 0], 1)
    known = torch.ones_like(labels)
    known[:, 1] = torch.arange(2000) < 1000
    wrong = labels.clone()
    wrong[1000:, 1] = ~wrong[1000:, 1]
    assert torch.equal(fit(states, labels, known).weight, fit(states, wrong, known).weight)


def test_a_case_that_never_occurs_is_told():
    states, labels = torch.randn(20, 3), torch.ones(20, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match='in view and out of it'):
        fit(states, labels, torch.ones_like(labels))


def test_the_outlook_of_a_reasoner_is_learned_and_exported(gait_bank, tmp_path):
    run, folder = tmp_path / 'run', tmp_path / 'episodes'
    write_episodes(folder, 'train', 20, bank=gait_bank)
    models = tiny_models(text_tokens=64)
    models.text = train_text(300, 64)
    for part in ('reasoner', 'generator', 'autoencoder'):
        save_model(getattr(models, part), part, run / part)
    models.text.save(run / 'reasoner' / 'text.json')
    source = ReasonerBatches(EpisodeSet.open(folder), models.text, None,
                             models.reasoner.family.grid)
    states, labels, known = readings(models.reasoner, source, 60, seed=0)
    assert states.shape == (60, models.reasoner.width) and labels.shape == (60, 2)
    assert 0 < labels[:, 0].float().mean() < 1 and not (labels[:, 1] & ~labels[:, 0]).any()
    assert known[:, 0].all() and torch.equal(known[:, 1], labels[:, 0])
    config = tmp_path / 'outlook.yaml'
    config.write_text(yaml.safe_dump({'model': {'search': 'turn left'},
                                      'data': {'samples': 60, 'missed': 0.05}}))
    # Simple scenes ask for nothing that is out of view.
    with pytest.raises(ValueError, match='in view and out of it'):
        train_outlook(config, folder, run / 'reasoner', run / 'outlook', folder)
    assert not (run / 'outlook').exists()
    hide_in_every_second_scene(folder)
    train_outlook(config, folder, run / 'reasoner', run / 'outlook')
    first = load_model(run / 'outlook').read.bias.clone()
    train_outlook(config, folder, run / 'reasoner', run / 'outlook', folder)
    assert not torch.equal(load_model(run / 'outlook').read.bias, first)  # more was read
    figures = json.loads((run / 'outlook' / 'validation.json').read_text())
    assert figures['in_view'] >= 0.94 and set(figures) == {
        'names', 'names_nothing', 'in_view', 'out_of_view'}
    loaded = Models.load(run)
    assert loaded.reasoner.config.search == 'turn left' and 'outlook' in loaded.provenance
    # Another reasoner's states are not read with it.
    with torch.no_grad():
        models.reasoner.base_head.bias[0] += 1.0
    save_model(models.reasoner, 'reasoner', run / 'reasoner')
    with pytest.raises(ValueError, match='another reasoner'):
        Models.load(run)


@pytest.mark.parametrize(('named', 'in_view', 'outlook'), [
    (-1.0, 1.0, Outlook.NO_TARGET), (-1.0, -1.0, Outlook.NO_TARGET),
    (2.0, 0.5, Outlook.IN_VIEW), (2.0, -0.5, Outlook.SOUGHT), (float('nan'), 1.0,
                                                               Outlook.NO_TARGET)])
def test_two_numbers_tell_the_outlook(named, in_view, outlook):
    assert read_outlook({'outlook': np.array([[named, in_view]], np.float32)}) is outlook
    assert read_outlook({'logits': np.zeros((1, 4))}) is Outlook.UNKNOWN


def test_what_is_not_seen_is_answered_with_a_search(seeking, tmp_path, tiny_bundle):
    sought, turned = (reason(seeking, text) for text in ('walk to the red ball', 'turn left'))
    assert sought.outlook is Outlook.SOUGHT and sought.instruction == 'walk to the red ball'
    plain = {text: reason(tiny_bundle, text) for text in ('walk to the red ball', 'turn left')}
    assert plain['turn left'].outlook is Outlook.UNKNOWN
    assert not np.array_equal(plain['walk to the red ball'].states, plain['turn left'].states)
    for answer in (sought, turned):
        assert np.array_equal(answer.tokens, plain['turn left'].tokens)
        assert np.abs(answer.states - plain['turn left'].states).max() < 1e-4
    # What is seen, and what names nothing to see, is answered as it is.
    for n, (bias, outlook) in enumerate((((1.0, 1.0), Outlook.IN_VIEW),
                                         ((-1.0, -1.0), Outlook.NO_TARGET))):
        answer = reason(exported(answering(*bias), tmp_path / str(n)), 'walk to the red ball')
        assert answer.outlook is outlook
        assert np.abs(answer.states - plain['walk to the red ball'].states).max() < 1e-4


def test_a_bundle_whose_search_its_prompt_does_not_know_of_is_refused(seeking, tmp_path):
    shutil.copytree(seeking, tmp_path / 'b')
    manifest = json.loads((tmp_path / 'b' / 'manifest.json').read_text())
    manifest['models']['reasoner']['search'] = ''
    (tmp_path / 'b' / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match='outlook has shape'):
        Bundle.open(tmp_path / 'b')


def test_an_outlook_is_a_checkpoint(tmp_path):
    head = OutlookHead(OutlookConfig(8, 'look around', 'abc'))
    save_model(head, 'outlook', tmp_path)
    again = load_model(tmp_path, 'outlook')
    assert again.config == head.config and torch.equal(again.read.weight, head.read.weight)
