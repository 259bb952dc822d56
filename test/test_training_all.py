# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From a library and episodes to a bundle, by the commands that made the default."""

from __future__ import annotations

from pathlib import Path

from fixtures_gait import walking_motion
import pytest
import torch
import yaml

from egomotion_ros.bundle import PARALLEL_GRAPHS, Bundle
from egomotion_ros.cli import main
from egomotion_ros.data.episodes import write_episodes
from egomotion_ros.data.library import Take, save_library
from egomotion_ros.models.checkpoints import load_tensors
from egomotion_ros.runtimes.export import Models
from egomotion_ros.training.naming import NoNamingError

#: As many steps as it takes to note the loss once.
TRAINING = {'steps': 20, 'batch': 4, 'warmup': 1, 'save_every': 20, 'validate_every': 20}
BODY = {'width': 16, 'blocks': 1, 'frame_width': 16, 'frame_blocks': 1}
MODELS = {
    'tokenizer': {**BODY, 'code_width': 8, 'codes': 32, 'levels': 2},
    'autoencoder': {**BODY, 'channels': 8},
    'reasoner': {
        'vlm': {'model_type': 'egomotion_vlm', 'stem': [8, 8, 16, 16], 'text_config': {
            'hidden_size': 32, 'intermediate_size': 32, 'num_hidden_layers': 1,
            'num_attention_heads': 2, 'num_key_value_heads': 2, 'vocab_size': 300}},
        'layer': 1, 'codes': 32, 'levels': 2, 'text_tokens': 64, 'text_vocabulary': 300},
    'generator': {'width': 32, 'heads': 2, 'layers': 1, 'hidden': 32},
}


@pytest.fixture()
def folders(gait_bank, tmp_path: Path) -> Path:
    """A library, episodes and one configuration a stage; none of the queries."""
    save_library(tmp_path / 'library', [
        Take(split, split, f'walk {split}', 'walk', split, f'{split}.bvh', motion.frames, 1.0, 0.0,
             False, False, motion)
        for split, motion in (('train', walking_motion(1.2, 7.0)),
                              ('val', walking_motion(1.0, 7.0)))])
    write_episodes(tmp_path / 'episodes', 'train', 8, bank=gait_bank)
    (tmp_path / 'config').mkdir()
    for stage, model in MODELS.items():
        (tmp_path / 'config' / f'{stage}.yaml').write_text(
            yaml.safe_dump({'model': model, 'training': TRAINING}))
    return tmp_path


def test_a_decoder_learns_alone_where_the_encoder_is_held(folders: Path, capsys) -> None:
    config = folders / 'config' / 'autoencoder.yaml'
    sets = ['--config', str(config), '--library', str(folders / 'library'), '--episodes',
            str(folders / 'episodes'), '--threads', '1']
    first, second = folders / 'first', folders / 'second'
    assert main(['train', 'autoencoder', *sets, '--out', str(first)]) == 0
    config.write_text(yaml.safe_dump({'model': MODELS['autoencoder'], 'training': TRAINING,
                                      'data': {'encoder_held': True}}))
    assert main(['train', 'autoencoder', *sets, '--out', str(second)]) == 1
    assert 'encoder_held needs a checkpoint to start from' in capsys.readouterr().err
    assert main(['train', 'autoencoder', *sets, '--out', str(second), '--init', str(first)]) == 0
    before, after = (load_tensors(run / 'autoencoder/model.safetensors')
                     for run in (first, second))
    # Latents stay what they were, whatever was trained on them.
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and {name.split('.')[0] for name in changed} == {'decoder'}


def test_all_stages_end_in_a_bundle(folders: Path, benchmark_script, capsys, monkeypatch) -> None:
    runs = folders / 'runs'
    command = ['train', 'all', '--config', str(folders / 'config'), '--library',
               str(folders / 'library'), '--episodes', str(folders / 'episodes'),
               '--out', str(runs), '--threads', '1']
    assert main(command) == 0
    assert sorted(path.name for path in runs.iterdir()) == sorted(MODELS)
    assert main(['export', str(runs), '--out', str(folders / 'one_by_one')]) == 0
    assert PARALLEL_GRAPHS[0] not in Bundle.open(folders / 'one_by_one').graphs
    made = {path: path.read_bytes() for path in runs.glob('*/model.safetensors')}

    # With a configuration of the queries they are taught too; what is finished stays.
    (folders / 'config' / 'queries.yaml').write_text(
        yaml.safe_dump({'training': TRAINING, 'data': {'samples': 80}}))
    assert main(command) == 0
    assert {path: path.read_bytes() for path in made} == made
    assert main(['export', str(runs), '--decoder', 'parallel',
                 '--out', str(folders / 'at_once')]) == 0
    bundle = Bundle.open(folders / 'at_once')
    assert bundle.decoder == 'parallel' and set(PARALLEL_GRAPHS) <= set(bundle.graphs)

    # With one of the naming the reasoner is read for that as well.
    (folders / 'config' / 'naming.yaml').write_text(yaml.safe_dump({'data': {'samples': 80}}))

    def none(*_):
        raise NoNamingError('all name a thing')

    with monkeypatch.context() as patched:
        patched.setattr('egomotion_ros.training.naming.train_naming', none)
        assert main(command) == 0 and 'left out: all name' in capsys.readouterr().out
        assert main(['train', 'naming', *command[2:]]) == 1
    assert main(command) == 0 and (runs / 'naming' / 'model.safetensors').exists()
    assert Models.load(runs).reasoner.config.naming and not bundle.tells_naming

    curves = benchmark_script('training_curves')
    assert curves.draw(runs, folders / 'curves.png') == [*MODELS, 'queries']
    assert (folders / 'curves.png').read_bytes()[:4] == b'\x89PNG'
    with pytest.raises(ValueError, match='no stage'):
        curves.draw(folders, folders / 'none.png')
