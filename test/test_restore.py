# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A bundle gives back the models it was exported from."""

from dataclasses import replace
import json
from pathlib import Path
import shutil

from fixtures_bundle import TINY_CAMERA, tiny_models
import pytest
import torch

from egomotion_ros.bundle import Bundle, write_manifest
from egomotion_ros.cli import main
from egomotion_ros.models.checkpoints import load_model
from egomotion_ros.models.naming import NamingConfig, NamingHead
from egomotion_ros.runtimes.export import Models, export_bundle
from egomotion_ros.runtimes.restore import restore_models


@pytest.fixture(scope='module')
def models() -> Models:
    """Two layers, and no weight left at the one or zero it starts with."""
    made = tiny_models(layers=2)
    made.reasoner.tell_naming(NamingHead(NamingConfig(made.reasoner.width)))
    torch.manual_seed(3)
    with torch.no_grad():
        for model in (made.reasoner, made.generator, made.autoencoder):
            for value in model.parameters():
                value.add_(0.05 * torch.randn_like(value))
    return made


@pytest.fixture(scope='module')
def bundle(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('restore') / 'bundle'
    export_bundle(models, out, TINY_CAMERA, steps=2, references=2, progress=False)
    return out


@pytest.fixture(scope='module')
def again(bundle: Path) -> Models:
    return restore_models(Bundle.open(bundle), progress=False)


def test_weights_come_back_as_they_were(models: Models, again: Models) -> None:
    for kind in ('reasoner', 'autoencoder'):
        before, after = (getattr(part, kind).state_dict() for part in (models, again))
        assert before.keys() == after.keys()
        for name, value in before.items():
            if not name.startswith('grounding.'):
                assert torch.equal(after[name], value), name
    assert again.text.vocabulary == models.text.vocabulary
    computed = ('query_norm', 'key_norm', 'table', 'null_state', 'position', 'inward.bias')
    before, after = models.generator.state_dict(), again.generator.state_dict()
    for name, value in before.items():
        if not any(part in name for part in computed):
            assert torch.equal(after[name], value), name


def test_the_generator_answers_as_before_with_and_without_a_condition(
        models: Models, again: Models) -> None:
    torch.manual_seed(0)
    noise, states = torch.randn(3, 19, 8), torch.randn(3, 40, 32)
    mask = torch.rand(3, 40) > 0.2
    known = (torch.arange(19)[None] < torch.tensor([0, 2, 3])[:, None]).float()
    prefix = torch.randn(3, 19, 8) * known[..., None]
    with torch.no_grad():
        for guidance in (0.0, 1.0, 1.7):
            a, b = (model.sample(noise, states, mask, prefix, known, 3, guidance)
                    for model in (models.generator, again.generator))
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_the_command_writes_checkpoints_that_train_on(
        bundle: Path, again: Models, tmp_path: Path, capsys: pytest.CaptureFixture,
        monkeypatch: pytest.MonkeyPatch) -> None:
    # What is restored is looked at above; another time would take a quarter of a minute.
    monkeypatch.setattr('egomotion_ros.runtimes.restore.restore_models', lambda found: again)
    assert main(['restore', '--bundle', str(bundle), '--out', str(tmp_path / 'run')]) == 0
    for kind in ('reasoner', 'generator', 'autoencoder'):
        load_model(tmp_path / 'run' / kind, kind)
    assert (tmp_path / 'run' / 'reasoner' / 'text.json').is_file()
    assert main(['restore', '--bundle', str(bundle), '--out', str(tmp_path / 'run')]) == 1
    assert 'holds a checkpoint already' in capsys.readouterr().err


def test_a_bundle_of_other_models_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'bundle'
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / 'manifest.json').read_text())
    manifest['models']['autoencoder']['blocks'] = 2
    write_manifest(folder, manifest)
    with pytest.raises(ValueError, match='of the autoencoder where this version'):
        restore_models(Bundle.open(folder), progress=False)
    opened = Bundle.open(folder)
    nameless = replace(opened, manifest={**opened.manifest, 'models': {}})
    with pytest.raises(ValueError, match='does not describe the reasoner'):
        restore_models(nameless, progress=False)
