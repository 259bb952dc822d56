# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What stage 2 is shown of the reasoner, for comparison, and the table of it."""

import inspect
from pathlib import Path

from fixtures_bundle import write_tiny_run
import numpy as np
import pytest
import torch
import yaml

from egomotion_ros.data.episodes import EpisodeSet, write_episodes
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.models.checkpoints import build
import egomotion_ros.training.baseline_generator as baseline_training
import egomotion_ros.training.generator as generator_training
from egomotion_ros.training.generator import (
    Shown,
    first_layers,
    reasoner_states,
    train_generator,
)
from egomotion_ros.training.loop import validations
from egomotion_ros.training.reasoner_batches import ReasonerBatches, train_text

VLM = {'model_type': 'egomotion_vlm', 'stem': [8, 8, 16, 16], 'text_config': {
    'hidden_size': 32, 'intermediate_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 2,
    'num_key_value_heads': 2, 'vocab_size': 300}}
REASONER = {'vlm': VLM, 'layer': 2, 'codes': 32, 'levels': 2, 'text_tokens': 40,
            'text_vocabulary': 300}
FIGURES = ('told', 'oracle', 'codes_swapped', 'swapped')


@pytest.fixture(scope='module')
def episodes(gait_bank: MotionBank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('episodes')
    write_episodes(out, 'train', 10, bank=gait_bank)
    return out


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random checkpoints, the reasoner's of two layers."""
    return write_tiny_run(tmp_path_factory.mktemp('run'), REASONER)


@pytest.fixture(scope='module')
def script(benchmark_script):
    return benchmark_script('condition_ablation')


def test_rows_that_are_not_shown_are_masked():
    mask = np.array([[True, True, False, True, True], [True, False, False, True, True]])
    np.testing.assert_array_equal(Shown().hide(mask, 3), mask)
    np.testing.assert_array_equal(Shown(rows='prompt').hide(mask, 3)[:, 3:], False)
    np.testing.assert_array_equal(Shown(rows='prompt').hide(mask, 3)[:, :3], mask[:, :3])
    np.testing.assert_array_equal(Shown(rows='primitives').hide(mask, 3)[:, :3], False)
    np.testing.assert_array_equal(Shown(rows='primitives').hide(mask, 3)[:, 3:], mask[:, 3:])
    assert mask.sum() == 7
    with pytest.raises(ValueError, match='rows must be'):
        Shown(rows='none')


def test_states_of_a_layer_are_those_of_a_reasoner_that_ends_there(episodes):
    torch.manual_seed(1)
    reasoner = build('reasoner', REASONER).eval()
    held = EpisodeSet.open(episodes)
    codes = np.random.default_rng(0).integers(0, 32, (len(held.bank.features), 19, 2))
    source = ReasonerBatches(held, train_text(300, 40), codes, 8)
    rows = np.arange(4)
    batch = source.batch(source.episodes.scene[rows], rows)
    whole, one, two = (reasoner_states(reasoner, batch, False, n)[0] for n in (None, 1, 2))
    torch.testing.assert_close(two, whole)
    assert (one - whole).abs().max() > 0.01
    short = build('reasoner', REASONER | {'layer': 1}).eval()
    known = reasoner.state_dict()
    short.load_state_dict({name: known[name] for name in short.state_dict()})
    torch.testing.assert_close(reasoner_states(short, batch, False)[0], one)
    # Codes are decoded by the whole reasoner whatever is shown of it.
    decoded = [reasoner_states(reasoner, batch, True, n)[0] for n in (None, 2)]
    torch.testing.assert_close(*decoded, rtol=1e-4, atol=1e-4)
    layers = reasoner.family.language(reasoner.vlm).layers
    assert len(layers) == 2
    with pytest.raises(ValueError, match='layer 3'), first_layers(reasoner, 3):
        pass


def test_without_the_primitives_rows_no_codes_matter(episodes, run, script, tmp_path, capsys,
                                                     monkeypatch):
    config = tmp_path / 'generator.yaml'
    config.write_text(yaml.safe_dump({
        'model': {'width': 32, 'heads': 2, 'layers': 1, 'hidden': 32},
        'training': {'steps': 2, 'batch': 4, 'warmup': 1, 'save_every': 1, 'validate_every': 1}}))
    assert set(script.choices(4)) == {
        'layer 4, both', 'layer 4, prompt', 'layer 4, primitives', 'layer 3, both',
        'layer 2, both', 'layer 1, both'}
    out = tmp_path / 'out'
    monkeypatch.setattr('sys.argv', [
        'condition_ablation', *f'--config {config} --run {run} --episodes {episodes} '
        f'--val {episodes} --out {out} --stage1-scenes 0.5'.split()])
    script.main()
    text = capsys.readouterr().out
    assert (out / 'ablation.md').read_text() in text
    lines = [line for line in text.splitlines() if line.startswith('| layer')]
    assert [line.split('|')[1].strip() for line in lines] == list(script.choices(2))
    # The states of a layer are made once, whichever rows of them are shown.
    assert sorted(path.parent.parent.name for path in out.rglob('states/states.npy')) == [
        'states-1', 'states-2']
    prompt = validations(out / 'layer2-prompt')
    assert [row['step'] for row in prompt] == [1, 2]
    assert {f'{name}_{part}' for name in FIGURES for part in ('within', 'metres')} < set(prompt[0])
    assert prompt[-1]['told_metres'] == pytest.approx(prompt[-1]['oracle_metres'], abs=1e-4)
    assert prompt[-1]['told_metres'] == pytest.approx(prompt[-1]['codes_swapped_metres'], abs=1e-4)


def test_how_often_decoded_states_are_drawn_is_what_the_configuration_says(
        episodes, run, tmp_path, monkeypatch):
    drawn = []
    loss = generator_training.flow_loss

    def spy(network, autoencoder, latents, truth, states, *rest, **named):
        drawn.append(states)
        return loss(network, autoencoder, latents, truth, states, *rest, **named)

    monkeypatch.setattr(generator_training, 'flow_loss', spy)
    for draws in (1.0, 0.0):
        drawn.clear()
        config = tmp_path / 'generator.yaml'
        config.write_text(yaml.safe_dump({
            'model': {'width': 32, 'heads': 2, 'layers': 1, 'hidden': 32},
            'training': {'steps': 3, 'batch': 8, 'warmup': 1},
            'data': {'decoded_draws': draws}}))
        out = tmp_path / f'out-{draws}'
        train_generator(config, episodes, run / 'tokenizer', run / 'autoencoder',
                        run / 'reasoner', out)
        kept = torch.from_numpy(np.load(out / 'states' / 'states.npy')).float()
        rows = len(kept)
        decoded = np.random.default_rng(0).random(rows) < 0.5
        mine = torch.from_numpy(decoded == (draws == 1.0))
        for states in drawn:
            for state in states:
                assert any(len(state) <= len(other) and torch.equal(state[:40], other[:40])
                           and torch.equal(state[-19:], other[-19:]) for other in kept[mine])


def test_both_generators_learn_by_every_weight_of_one_configuration(episodes, run, tmp_path,
                                                                    monkeypatch):
    config = tmp_path / 'generator.yaml'
    weights = {'drop': 0.5, 'path_weight': 6.0, 'feet_weight': 2.0, 'hands_weight': 3.0,
               'liveliness': 4.0, 'jerk_gain': 5.0}
    config.write_text(yaml.safe_dump({
        'model': {'width': 32, 'heads': 2, 'layers': 1, 'hidden': 32},
        'training': {'steps': 1, 'batch': 4, 'warmup': 1}, 'data': weights}))
    heard = []
    loss = generator_training.flow_loss
    signature = inspect.signature(loss)

    def spy(*args, **named):
        heard.append(signature.bind(*args, **named).arguments)
        return loss(*args, **named)

    for module in (generator_training, baseline_training):
        monkeypatch.setattr(module, 'flow_loss', spy)
    train_generator(config, episodes, run / 'tokenizer', run / 'autoencoder', run / 'reasoner',
                    tmp_path / 'full')
    full = len(heard)
    baseline_training.train_baseline_generator(config, episodes, run / 'autoencoder',
                                               run / 'reasoner', tmp_path / 'baseline')
    assert 0 < full < len(heard)
    for call in (heard[0], heard[full]):
        assert {name: call[name] for name in weights} == weights


def test_a_generator_of_all_rows_sees_which_codes_it_is_given(episodes, run, tmp_path):
    config = tmp_path / 'generator.yaml'
    config.write_text(yaml.safe_dump({
        'model': {'width': 32, 'heads': 2, 'layers': 1, 'hidden': 32},
        'training': {'steps': 2, 'batch': 4, 'warmup': 1, 'learning_rate': 0.05, 'save_every': 1,
                     'validate_every': 2}}))
    train_generator(config, episodes, run / 'tokenizer', run / 'autoencoder', run / 'reasoner',
                    tmp_path / 'out', episodes, slice(5, None))
    last = validations(tmp_path / 'out')[-1]
    assert last['oracle_metres'] != last['codes_swapped_metres']
