# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the stages are trained on, what they take over, and on which device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
import copy
import os
from pathlib import Path
import shutil
import subprocess
import sys
from types import SimpleNamespace

from families_support import FAMILIES
from fixtures_bundle import tiny_models, write_tiny_run
import numpy as np
import pytest
import torch
from torch.fx.experimental import _config as fx_config
import yaml

from egomotion_ros.body.features import CONTACTS
from egomotion_ros.data.episodes import EpisodeSet, write_episodes
from egomotion_ros.data.instructions_furnished import has_held_out_verb
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.data.scenes import OBJECT_COLUMNS
from egomotion_ros.models.autoencoder import AutoencoderConfig, MotionAutoencoder
from egomotion_ros.models.checkpoints import load_model, save_model, start_from
from egomotion_ros.models.generator import GeneratorConfig, MotionGenerator
from egomotion_ros.models.pretrained import start_reasoner
from egomotion_ros.models.reasoner import Reasoner, ReasonerConfig
from egomotion_ros.text import TextEncoder
from egomotion_ros.training.autoencoder import held_out_error
import egomotion_ros.training.generator as generator_training
from egomotion_ros.training.generator import DATA, collect_states, flow_loss, train_generator
from egomotion_ros.training.loop import read_config
from egomotion_ros.training.motions import reconstruction_loss
from egomotion_ros.training.reasoner import (
    grounding_loss,
    keep_words,
    reasoner_pass,
    train_reasoner,
)
from egomotion_ros.training.reasoner_batches import (
    ReasonerBatches,
    encode_bank,
    on_device,
    train_text,
)
import egomotion_ros.training.unknown_words as unknown_words
from egomotion_ros.training.unknown_words import blurred

OWN = {'model_type': 'egomotion_vlm', 'stem': [8, 8, 16, 16], 'text_config': {
    'hidden_size': 32, 'intermediate_size': 32, 'num_hidden_layers': 1, 'num_attention_heads': 2,
    'num_key_value_heads': 2, 'vocab_size': 300}}
SMOL = copy.deepcopy(FAMILIES['smolvlm2'])
SMOL['vision_config'] |= {'image_size': 128, 'patch_size': 16}
SMOL['text_config'] |= {'vocab_size': 320}
SMOL['image_token_id'] = 319
SIZES = {'layer': 1, 'codes': 32, 'levels': 2, 'text_tokens': 64, 'text_vocabulary': 300}
TRAINING = {'steps': 2, 'batch': 4, 'warmup': 1, 'save_every': 1, 'validate_every': 2}


@pytest.fixture(scope='module')
def episodes(gait_bank: MotionBank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('episodes')
    write_episodes(out, 'train', 8, bank=gait_bank)
    return out


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizer, autoencoder and a reasoner of a pretrained family, all of them random."""
    return write_tiny_run(tmp_path_factory.mktemp('checkpoints'), {'vlm': SMOL, **SIZES})


def write_config(folder: Path, model: dict, data: dict) -> Path:
    path = folder / 'config.yaml'
    path.write_text(yaml.safe_dump({'model': model, 'training': TRAINING, 'data': data}))
    return path


def test_stage_2_learns_from_a_reasoner_of_another_family(episodes, checkpoints, tmp_path):
    config = write_config(tmp_path, {'width': 32, 'heads': 2, 'layers': 1, 'hidden': 32}, {})
    model = train_generator(config, episodes, checkpoints / 'tokenizer',
                            checkpoints / 'autoencoder', checkpoints / 'reasoner',
                            tmp_path / 'out', episodes)
    assert model.config.state_width == 32 and model.outward.weight.abs().max() > 0


def test_kept_states_are_those_of_this_reasoner_and_these_episodes(episodes, checkpoints,
                                                                    tmp_path):
    held = EpisodeSet.open(episodes)
    tokenizer = load_model(checkpoints / 'tokenizer')
    reasoner = load_model(checkpoints / 'reasoner').requires_grad_(False)
    source = ReasonerBatches(held, train_text(300, 64), encode_bank(tokenizer,
                                                                   held.bank.features), 8)
    weights = tmp_path / 'model.safetensors'
    shutil.copy(checkpoints / 'reasoner' / 'model.safetensors', weights)
    rows, decoded, out = np.arange(6), np.arange(6) % 2 == 0, tmp_path / 'states'

    def collect(chosen: np.ndarray) -> tuple[np.ndarray, int]:
        states, _ = collect_states(reasoner, source, chosen, out, decoded, [weights], batch=4)
        return np.array(states), (out / 'states.npy').stat().st_ino

    first, written = collect(rows)
    again, same = collect(rows)
    assert same == written
    np.testing.assert_array_equal(again, first)
    # Others of the same shape: other episodes, other weights, or no record of where they are from.
    moved, other = collect(rows + 1)
    np.testing.assert_array_equal(moved.shape, first.shape)
    assert np.abs(moved - first).max() > 0
    with torch.no_grad():
        reasoner.norm.weight.mul_(2.0)
    weights.write_bytes(b'other weights')
    np.testing.assert_allclose(collect(rows + 1)[0], 2 * moved, rtol=0.05, atol=0.05)
    (out / 'states.json').unlink()
    with torch.no_grad():
        reasoner.norm.weight.mul_(0.5)
    np.testing.assert_allclose(collect(rows + 1)[0], moved, rtol=0.05, atol=0.05)


SHARING = """
import sys
from pathlib import Path
import numpy as np
from egomotion_ros.data.episodes import EpisodeSet
from egomotion_ros.models.checkpoints import load_model
from egomotion_ros.training.generator import collect_states
from egomotion_ros.training.loop import processes
from egomotion_ros.training.reasoner import ReasonerBatches, encode_bank
from egomotion_ros.text import TextEncoder
checkpoints, episodes, out = map(Path, sys.argv[1:])
held = EpisodeSet.open(episodes)
text = TextEncoder.open(out.parent / 'text.json', 64)
tokenizer = load_model(checkpoints / 'tokenizer')
reasoner = load_model(checkpoints / 'reasoner').requires_grad_(False)
source = ReasonerBatches(held, text, encode_bank(tokenizer, held.bank.features), 8)
rows = np.arange(7)
for again in range(2):
    states, masks = collect_states(reasoner, source, rows, out, rows % 2 == 0, [], batch=2)
np.savez(out.parent / f'seen-{processes().process_index}.npz', states=states, masks=masks)
"""


def test_processes_share_the_states_of_stage_2(episodes, checkpoints, tmp_path):
    train_text(300, 64).save(tmp_path / 'text.json')
    (tmp_path / 'share.py').write_text(SHARING)
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
         str(tmp_path / 'share.py'), str(checkpoints), str(episodes), str(tmp_path / 'shared')],
        capture_output=True, text=True, timeout=280,
        env=os.environ | {'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr[-3000:]
    held, rows = EpisodeSet.open(episodes), np.arange(7)
    tokenizer = load_model(checkpoints / 'tokenizer')
    source = ReasonerBatches(held, train_text(300, 64), encode_bank(tokenizer,
                                                                   held.bank.features), 8)
    reasoner = load_model(checkpoints / 'reasoner').requires_grad_(False)
    states, masks = collect_states(reasoner, source, rows, tmp_path / 'alone', rows % 2 == 0, [],
                                   batch=2)
    assert masks.any() and np.abs(states).max() > 0.1
    for rank in (0, 1):
        with np.load(tmp_path / f'seen-{rank}.npz') as shared:
            np.testing.assert_array_equal(shared['masks'], masks)
            np.testing.assert_allclose(shared['states'], states, atol=2e-3)


def test_motions_under_way_teach_stage_1_places_and_no_codes(episodes, tmp_path):
    held = EpisodeSet.open(episodes)
    folder = tmp_path / 'moving'
    shutil.copytree(episodes, folder)
    motions = np.load(folder / 'motions.npy')
    motions[:, :8, 1] = 0.0
    taken = held.motion[held.scene == 3]
    motions[taken, :8, 1] = 1.0
    np.save(folder / 'motions.npy', motions)
    moving = EpisodeSet.open(folder)
    source = ReasonerBatches(moving, train_text(300, 64), None, 8)
    under_way = np.isin(moving.motion, taken)
    rows = np.arange(len(moving))
    batch = source.batch(moving.scene[rows], rows)
    np.testing.assert_array_equal(batch['spoken'].numpy(), ~under_way)
    np.testing.assert_array_equal(batch['definite'].numpy(), batch['seen'].numpy() | ~under_way)
    scenes = set(moving.scene[under_way].tolist())
    assert 3 in scenes and source.scenes.tolist() == list(range(8))
    source.drop_under_way()
    assert set(source.scenes.tolist()) == set(range(8)) - scenes
    motions[:, :8, 1] = 1.0
    np.save(folder / 'motions.npy', motions)
    with pytest.raises(ValueError, match='start at rest'):
        ReasonerBatches(EpisodeSet.open(folder), train_text(300, 64), None, 8).drop_under_way()


def test_a_reasoner_that_starts_from_another_keeps_the_words_both_know(episodes, tmp_path):
    config = write_config(tmp_path, {'vlm': OWN, **SIZES}, {'questions': 2})
    first = Reasoner(ReasonerConfig(vlm=OWN, **SIZES))
    save_model(first, 'reasoner', tmp_path / 'first')
    words = TextEncoder.train(['walk to the purple hippopotamus'] * 9, 280, 64)
    words.save(tmp_path / 'first' / 'text.json')
    start = start_reasoner({'vlm': OWN, **SIZES}, 'autoregressive')[0]
    start_from(start, tmp_path / 'first', 'reasoner')
    text = train_text(300, 64)
    keep_words(start, text, tmp_path / 'first')
    old, new = (model.vlm.get_input_embeddings().weight for model in (first, start))
    both = sorted(set(text.vocabulary) & set(words.vocabulary))
    assert 'Ġto' in both and len(both) > 250
    for token in both:
        assert torch.equal(new[text.vocabulary[token]], old[words.vocabulary[token]])
    alone = next(token for token in text.vocabulary if token not in words.vocabulary)
    assert not (old == new[text.vocabulary[alone]]).all(-1).any()
    trained = train_reasoner(config, episodes, tmp_path / 'out', init=tmp_path / 'first')
    # Two steps of training leave the weights near those they start from.
    assert (trained.norm.weight - first.norm.weight).abs().max() < 0.01
    stem = 'vision_tower.stages.0.reduce.weight'
    begun, ended = (dict(model.vlm.model.named_parameters())[stem] for model in (first, trained))
    assert (ended - begun).abs().max() < 0.1 * begun.abs().max()
    config = write_config(tmp_path, {'vlm': OWN, **SIZES, 'codes': 16}, {})
    with pytest.raises(ValueError, match='other sizes'):
        train_reasoner(config, episodes, tmp_path / 'other', init=tmp_path / 'first')


def test_light_changes_pictures_and_noise_lies_over_them():
    images = torch.full((2, 4, 4, 3), 128, dtype=torch.uint8)
    plain = on_device({'images': images}, torch.device('cpu'))
    assert set(plain) == {'pixels'} and plain['pixels'].shape == (2, 3, 4, 4)
    torch.testing.assert_close(plain['pixels'], torch.full((2, 3, 4, 4), 128 / 127.5 - 1))
    images = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    light = torch.tensor([[0.8, 0.8, 1.2, 0.1], [1.0, 1.0, 1.0, 0.0]])
    torch.manual_seed(0)
    batch = {'images': images, 'light': light}
    dim, same = on_device(batch, torch.device('cpu'))['pixels']
    # Black is -1: a gain of 0.8 makes it -0.8 before the lift.
    assert dim[0].mean().item() == pytest.approx(-0.7, abs=0.01)
    assert dim[2].mean().item() == pytest.approx(-0.9, abs=0.01)
    assert dim[0].std().item() == pytest.approx(0.02, rel=0.1)
    assert same.min() == -1 and set(batch) == {'images', 'light'}


def test_padding_that_is_left_out_changes_nothing(episodes):
    torch.manual_seed(0)
    model = Reasoner(ReasonerConfig(vlm=OWN, **SIZES)).eval()
    source = ReasonerBatches(EpisodeSet.open(episodes), train_text(300, 64), None, 8)
    rows = np.arange(6)
    batch = on_device(source.batch(source.episodes.scene[rows], rows), torch.device('cpu'))
    base = torch.arange(19).repeat(6, 1) % SIZES.get('codes', 8)
    length = int(batch['mask'].sum(1).max())
    assert length < 40
    with torch.no_grad():
        whole, short = (model(batch['pixels'], batch['ids'][:, :n], batch['mask'][:, :n],
                              batch['camera'], base) for n in (64, length))
    torch.testing.assert_close(short.base, whole.base, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(short.residual, whole.residual, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(short.grounding.goal, whole.grounding.goal, rtol=1e-4, atol=1e-5)


def test_hands_that_miss_cost_where_they_reach_and_nowhere_else():
    torch.manual_seed(0)
    models = tiny_models()
    latents = torch.randn(6, 19, 8)
    with torch.no_grad():
        truth = models.autoencoder.decode(latents)
    states, mask = torch.randn(6, 30, 32), torch.ones(6, 30, dtype=torch.bool)
    moving = torch.zeros(6, dtype=torch.bool)

    def loss(reaching: torch.Tensor, weight: float) -> tuple[float, dict[str, float]]:
        torch.manual_seed(1)
        value, figures = flow_loss(models.generator, models.autoencoder, latents, truth, states,
                                   mask, np.random.default_rng(0), 0.0, moving, 1.0, 1.0,
                                   reaching, weight)
        return value.item(), figures

    nobody, everybody = torch.zeros(6, 2, dtype=torch.bool), torch.ones(6, 2, dtype=torch.bool)
    without, figures = loss(nobody, 2.0)
    assert figures['hands'] == 0.0 and without == pytest.approx(loss(everybody, 0.0)[0])
    told, figures = loss(everybody, 2.0)
    assert figures['hands'] > 0.001
    assert told == pytest.approx(without + 2.0 * figures['hands'], rel=1e-4)


def test_path_and_hands_count_in_pure_noise_and_feet_do_not(monkeypatch):
    torch.manual_seed(0)
    models = tiny_models()
    latents = torch.randn(6, 19, 8)
    with torch.no_grad():
        truth = models.autoencoder.decode(latents)
    # All standing: every row of the truth is one of planted feet.
    truth[..., CONTACTS] = 1.0

    def figures(early: float) -> dict[str, float]:
        monkeypatch.setattr(generator_training, 'EARLY', early)
        rng = np.random.default_rng(0)
        times = SimpleNamespace(random=rng.random, integers=rng.integers,
                                beta=lambda a, b, count: np.ones(count))
        torch.manual_seed(1)
        return flow_loss(models.generator, models.autoencoder, latents, truth,
                         torch.randn(6, 30, 32), torch.ones(6, 30, dtype=torch.bool), times, 0.0,
                         torch.zeros(6, dtype=torch.bool), 1.0, 1.0,
                         torch.ones(6, 2, dtype=torch.bool), 1.0)[1]

    part, whole = figures(0.3), figures(1.0)
    for name in ('path', 'hands'):
        assert part[name] > 0 and part[name] == pytest.approx(0.3 * whole[name], rel=0.01)
    assert 0 < part['feet'] == whole['feet']


def test_unknown_words_stand_for_doing_words_alone():
    texts = ['walk over to the red ball', 'reach for the blue cone with your left hand',
             'turn left by 45 degrees', 'leap']
    for seed in range(20):
        changed = blurred(texts, seed)
        assert changed[3] == 'leap'
        for before, after in zip(texts[:3], changed[:3], strict=True):
            gone = [(a, b) for a, b in zip(before.split(), after.split(), strict=True) if a != b]
            assert len(gone) == 1 and gone[0][0] in ('walk', 'reach', 'turn')
            assert not has_held_out_verb(gone[0][1])
    assert blurred(texts, 3) == blurred(texts, 3) != blurred(texts, 4)


def test_what_is_left_of_a_sentence_with_an_unknown_word_tells_what_to_do():
    unclear = ['turn to the red ball', 'face the red ball', 'walk towards the red ball',
               'look for the red ball']
    clear = ['walk to the red ball', 'turn towards the red ball', 'look at the red ball',
             'turn 90 degrees to the left']
    for seed in range(5):
        assert blurred(unclear, seed) == unclear
        assert all(a != b for a, b in zip(blurred(clear, seed), clear, strict=True))


def test_where_an_unknown_word_would_leave_nothing_that_tells_there_is_none():
    bare = ['walk', 'jump', 'run forward', 'take a step forward', 'keep walking', 'bend forward']
    ahead = ['walk forward', 'go straight', 'move forward', 'walk straight ahead']
    for seed in range(5):
        assert blurred(bare, seed) == bare
        assert all(a != b for a, b in zip(blurred(ahead, seed), ahead, strict=True))


def test_unknown_words_alone_ask_for_nothing():
    still = ['stop', 'stand still', 'do nothing', 'wait here']
    for seed in range(10):
        for before, after in zip(still, blurred(still, seed), strict=True):
            assert set(before.split()).isdisjoint(after.split())
            assert 1 <= len(after.split()) <= 3


def test_chance_spells_neither_known_words_nor_held_out_ones(monkeypatch):
    monkeypatch.setattr(unknown_words, 'ONSETS', ('h', 'g'))
    monkeypatch.setattr(unknown_words, 'NUCLEI', ('o',))
    monkeypatch.setattr(unknown_words, 'CODAS', ('', 'p'))
    drawn = {sentence.split()[0] for seed in range(40)
             for sentence in blurred(['walk to the red ball', 'go to the red ball'], seed)}
    assert {'ho', 'hogo', 'hopho'} <= drawn and drawn.isdisjoint(('hop', 'walk'))
    # "gop" is read as "go" and a "p": it would teach that "go" means nothing.
    assert not any(word.startswith('go') for word in drawn)


def test_sentences_that_a_made_up_word_makes_too_long_stay_as_they_were(episodes):
    held, text = EpisodeSet.open(episodes), train_text(300, 64)
    tokens, changed = (np.array([text.encode(sentence)[1].sum() for sentence in sentences])
                       for sentences in (held.instructions, blurred(held.instructions)))
    long = changed > tokens.max()
    source = ReasonerBatches(held, train_text(300, int(tokens.max())), None, 8)
    drawn, _ = source.blurred(np.arange(len(held)))
    other = (drawn != source.ids).any(1)
    assert long.any() and not other[long].any() and other[~long].any()


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """
    A device that is not the CPU and refuses its tensors, on a machine without a GPU.

    Tensors on it have no content: figures are nil, and every row of a choice is taken.
    """
    monkeypatch.setattr(torch.Tensor, 'item', lambda tensor: 0.0)
    monkeypatch.setattr(torch.Tensor, '__bool__', lambda tensor: True)
    monkeypatch.setattr(torch, 'autocast', lambda *args, **kwargs: nullcontext())
    with fx_config.patch(meta_nonzero_assume_all_nonzero=True):
        yield torch.device('meta')


def test_the_loss_of_stage_2_stays_on_its_device(other):
    generator = MotionGenerator(GeneratorConfig(channels=4, state_width=16, width=16, heads=2,
                                                layers=1, hidden=16)).to(other)
    autoencoder = MotionAutoencoder(AutoencoderConfig(width=16, frame_width=8, channels=4))
    loss, figures = flow_loss(
        generator, autoencoder.to(other), torch.randn(4, 19, 4, device=other),
        torch.randn(4, 152, 140, device=other), torch.randn(4, 3, 16, device=other),
        torch.ones(4, 3, dtype=torch.bool, device=other), np.random.default_rng(0), 0.1,
        torch.zeros(4, dtype=torch.bool, device=other), 1.0, 1.0)
    assert loss.device == other and {'path', 'feet'} <= figures.keys()


def test_the_loss_of_stage_1_stays_on_its_device(other):
    reasoner = Reasoner(ReasonerConfig(vlm=OWN, **SIZES)).to(other)
    batch = {'pixels': torch.rand(2, 3, 128, 128), 'ids': torch.zeros(4, 64, dtype=torch.long),
             'mask': torch.ones(4, 64, dtype=torch.bool), 'camera': torch.rand(4, 3),
             'depth': torch.rand(2, 32, 32) + 1.0,
             'objects': torch.rand(2, 6, len(OBJECT_COLUMNS)), 'goal': torch.rand(4, 3),
             'seen': torch.ones(4, dtype=torch.bool),
             'definite': torch.ones(4, dtype=torch.bool),
             'target': torch.rand(4, len(OBJECT_COLUMNS)),
             'codes': torch.zeros(4, 19, 2, dtype=torch.long)}
    batch = {name: value.to(other) for name, value in batch.items()}
    result = reasoner_pass(reasoner, batch)
    assert result.residual.device == other
    assert grounding_loss(result.grounding, batch, 8)[0].device == other


def test_the_loss_of_tokenizer_and_autoencoder_stays_on_its_device(other):
    autoencoder = MotionAutoencoder(AutoencoderConfig(width=16, frame_width=8, channels=4))
    autoencoder.to(other)
    truth = torch.randn(2, 96, 140, device=other)
    answer, *_ = autoencoder(truth)
    assert reconstruction_loss(answer, truth, autoencoder.scale.std)[0].device == other
    # Windows of held-out takes lie on the CPU.
    assert set(held_out_error(autoencoder, [torch.randn(1, 96, 140)])) == {'mpjpe_mm', 'drift_m'}


@pytest.mark.parametrize(('text', 'words'), [
    ('', 'expected the sections'),
    ('[1, 2]', 'expected the sections'),
    ('training: 3', 'must hold keys'),
    ('training: {steps: abc}', 'training.steps: expected int'),
    ('training: {steps: 3.5}', 'training.steps: expected int'),
    ('training: {steps: 0}', 'training.steps: expected 1 to'),
    ('training: {batch: -2}', 'training.batch: expected 1 to'),
    ('training: {save_every: 0}', 'training.save_every: expected 1 to'),
    ('training: {ema: 2}', 'training.ema: expected 0 to'),
    ('training: {seed: -1}', 'training.seed'),
    ('training: {learning_rate: .nan}', 'not finite'),
    ('training: {learning_rate: fast}', 'training.learning_rate: expected float'),
    ('training: {compiled: 1}', 'training.compiled: expected bool'),
    ('training: {stepps: 1}', "unknown training keys ['stepps']"),
    ('data: {hand_weight: 1.0}', "unknown data keys ['hand_weight']"),
    ('extra: {}', "unknown section ['extra']"),
])
def test_configurations_that_cannot_be_are_refused_in_a_line(tmp_path, text, words):
    path = tmp_path / 'generator.yaml'
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_config(path, 'generator', DATA)
    assert words in str(error.value) and str(path) in str(error.value)


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path):
    path = tmp_path / 'generator.yaml'
    path.write_text('model:\ntraining: {learning_rate: 1e-3, steps: 1e3}\ndata: {drop: 1e-1}\n')
    model, config, data = read_config(path, 'generator', DATA)
    assert (model, config.learning_rate, config.steps, data) == ({}, 1e-3, 1000, {'drop': 0.1})


def test_every_configuration_that_ships_is_read():
    folder = Path(__file__).parents[1] / 'config' / 'train'
    keys = {'generator': DATA, 'settled': DATA, 'reasoner': ('questions',),
            'settle': ('questions',), 'given_up': ('questions',),
            'queries': ('samples',), 'naming': ('samples',),
            'evaluator': ('library_share',), 'joint': ('questions', 'drop', 'path_weight')}
    files = sorted(folder.rglob('*.yaml'))
    assert len(files) > 10
    for path in files:
        read_config(path, path.stem, keys.get(
            path.stem, ('bank_share', 'regulariser', 'encoder_held', 'liveliness')))
