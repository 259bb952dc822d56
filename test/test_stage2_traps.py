# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What stage 2 could get wrong without a sign: the null branch, the prefix, leaks, deaf models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import inspect
from pathlib import Path

from fixtures_bundle import tiny_models, write_tiny_run
import numpy as np
import pytest
import torch
import yaml

from egomotion_ros.cli import main
from egomotion_ros.data.episodes import EpisodeSet, write_episodes
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.models.generator import MotionGenerator
import egomotion_ros.training.autoencoder as autoencoder_training
import egomotion_ros.training.generator as generator_training
from egomotion_ros.training.generator import flow_loss, train_generator
import egomotion_ros.training.generator_goals as goals
from egomotion_ros.training.generator_goals import check_goals
from egomotion_ros.training.loop import validations
import egomotion_ros.training.reasoner as reasoner_training
from egomotion_ros.training.reasoner import train_reasoner
from egomotion_ros.training.reasoner_batches import ReasonerBatches

SCENES = 12
OWN = {'model_type': 'egomotion_vlm', 'stem': [8, 8, 16, 16], 'text_config': {
    'hidden_size': 32, 'intermediate_size': 32, 'num_hidden_layers': 1, 'num_attention_heads': 2,
    'num_key_value_heads': 2, 'vocab_size': 300}}
REASONER = {'vlm': OWN, 'layer': 1, 'codes': 32, 'levels': 2, 'text_tokens': 64,
            'text_vocabulary': 300}
GENERATOR = {'width': 32, 'heads': 2, 'layers': 1, 'hidden': 32}
TRAINING = {'steps': 2, 'batch': 4, 'warmup': 1, 'save_every': 1000, 'validate_every': 1000}


@pytest.fixture(scope='module')
def episodes(gait_bank: MotionBank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('episodes')
    write_episodes(out, 'train', SCENES, bank=gait_bank)
    return out


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random tokenizer, autoencoder and reasoner."""
    return write_tiny_run(tmp_path_factory.mktemp('checkpoints'), REASONER)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small take ten times as long where threads wait for busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def generator() -> MotionGenerator:
    """A small generator with random weights that has something to say."""
    return tiny_models().generator


def stage_2(folder: Path, episodes: Path, checkpoints: Path, val: Path | None = None,
            scenes: slice = slice(None), **training: float) -> MotionGenerator:
    """Train a tiny generator by its flow loss alone and return it; files go to ``folder``."""
    config = folder / 'config.yaml'
    config.write_text(yaml.safe_dump({'model': GENERATOR, 'training': TRAINING | training,
                                      'data': {'path_weight': 0.0}}))
    return train_generator(config, episodes, checkpoints / 'tokenizer',
                           checkpoints / 'autoencoder', checkpoints / 'reasoner', folder / 'out',
                           val, scenes)


def sampled(generator: MotionGenerator, states: torch.Tensor, guidance: float) -> torch.Tensor:
    torch.manual_seed(3)
    noise = torch.randn(len(states), 19, 8)
    with torch.no_grad():
        return generator.sample(noise, states, torch.ones(states.shape[:2], dtype=torch.bool),
                                torch.zeros_like(noise), torch.zeros_like(noise[..., 0]), 4,
                                guidance)


def test_without_guidance_no_state_is_seen(generator):
    states, others = torch.randn(2, 3, 25, 32)
    # Rows of every kind: prompt and primitives, one of them or all.
    last = states.clone()
    last[:, -1] = others[:, -1]
    blind = sampled(generator, states, 0.0)
    for changed in (others, last):
        torch.testing.assert_close(sampled(generator, changed, 0.0), blind)
        for guidance in (1.0, 2.0):
            assert (sampled(generator, changed, guidance)
                    - sampled(generator, states, guidance)).abs().max() > 1e-3


def test_a_known_prefix_stays_in_both_branches(generator):
    torch.manual_seed(0)
    states, noise = torch.randn(2, 25, 32), torch.randn(2, 19, 8)
    known = torch.zeros(2, 19)
    known[:, :2] = 1.0
    answers: list[torch.Tensor] = []
    generator.register_forward_hook(lambda module, given, out: answers.append(out))

    def branches(prefix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """First velocity of the free windows, with the states and without them."""
        answers.clear()
        with torch.no_grad():
            generator.sample(noise, states, torch.ones(2, 25, dtype=torch.bool),
                             prefix * known[..., None], known, 1, 2.0)
        return answers[0][:, 2:].chunk(2)

    first, again, other = (branches(part) for part in (torch.ones(2, 19, 8), torch.ones(2, 19, 8),
                                                       -torch.ones(2, 19, 8)))
    for one, same, changed in zip(first, again, other, strict=True):
        torch.testing.assert_close(one, same)
        assert (one - changed).abs().max() > 1e-3
    assert (first[0] - first[1]).abs().max() > 1e-3


def test_dropped_conditions_are_not_learned_from(generator):
    torch.manual_seed(0)
    models = tiny_models()
    latents = torch.randn(8, 19, 8)
    with torch.no_grad():
        truth = models.autoencoder.decode(latents) + 0.1
    mask, moving = torch.ones(8, 25, dtype=torch.bool), torch.zeros(8, dtype=torch.bool)

    def loss(states: torch.Tensor, drop: float) -> dict[str, float]:
        torch.manual_seed(1)
        return flow_loss(generator, models.autoencoder, latents, truth, states, mask,
                         np.random.default_rng(0), drop, moving, 1.0)[1]

    states, others = torch.randn(2, 8, 25, 32)
    blind = loss(states, 1.0)
    assert loss(others, 1.0) == pytest.approx(blind, rel=1e-6)
    # Where a motion leads cannot be asked of who was not told.
    assert blind['path'] == 0.0
    told, swapped = loss(states, 0.0), loss(others, 0.0)
    assert told['path'] > 0.0
    for name in told:
        assert swapped[name] != pytest.approx(told[name], rel=1e-5)


def test_training_shows_no_prefix_and_prefixes_of_one_to_three_windows(generator):
    torch.manual_seed(0)
    latents, moving = torch.randn(900, 19, 8), torch.arange(900) < 300
    seen = []
    generator.register_forward_pre_hook(lambda module, given: seen.append(given[3:]))
    with torch.no_grad():
        flow_loss(generator, None, latents, latents, torch.randn(900, 2, 32),
                  torch.ones(900, 2, dtype=torch.bool), np.random.default_rng(0), 0.1, moving,
                  0.0)
    (prefix, known), = seen
    lengths = known.sum(1).int()
    assert torch.equal(known, (torch.arange(19) < lengths[:, None]).float())
    assert torch.equal(prefix, latents * known[..., None])
    assert set(lengths[~moving].tolist()) == {0, 1, 2, 3}
    assert set(lengths[moving].tolist()) == {1, 2, 3}
    assert 0.28 < (lengths[~moving] > 0).float().mean() < 0.42


@pytest.mark.parametrize('share', [None, 0.5])
def test_train_all_gives_the_two_stages_disjoint_scenes(share, episodes, tmp_path, monkeypatch):
    given = {}

    def spy(module: object, name: str) -> None:
        signature = inspect.signature(getattr(module, name))

        def instead(*args, **kwargs) -> None:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given[name] = bound.arguments.get('scenes')

        monkeypatch.setattr(module, name, instead)

    for stage in ('tokenizer', 'autoencoder'):
        spy(autoencoder_training, f'train_{stage}')
    spy(reasoner_training, 'train_reasoner')
    spy(generator_training, 'train_generator')
    (tmp_path / 'config').mkdir()
    asked = [] if share is None else ['--stage1-scenes', str(share)]
    assert main(['train', 'all', '--config', str(tmp_path / 'config'), '--library',
                 str(tmp_path), '--episodes', str(episodes), '--out', str(tmp_path), *asked]) == 0
    first, second = (np.arange(SCENES)[given[f'train_{stage}']]
                     for stage in ('reasoner', 'generator'))
    assert np.intersect1d(first, second).size == 0
    assert sorted([*first, *second]) == list(range(SCENES))
    assert len(first) == int(SCENES * (share or 0.65))


def test_stages_look_at_the_scenes_they_are_given_alone(episodes, checkpoints, tmp_path,
                                                        monkeypatch):
    drawn: set[int] = set()
    batch = ReasonerBatches.batch

    def noted(self: ReasonerBatches, scenes: np.ndarray, rows: np.ndarray):
        drawn.update(np.asarray(scenes).tolist(), self.episodes.scene[rows].tolist())
        return batch(self, scenes, rows)

    monkeypatch.setattr(ReasonerBatches, 'batch', noted)
    config = tmp_path / 'reasoner.yaml'
    config.write_text(yaml.safe_dump({'model': REASONER, 'training': TRAINING | {'steps': 5},
                                      'data': {'questions': 1}}))
    train_reasoner(config, episodes, tmp_path / 'reasoner', checkpoints / 'tokenizer',
                   scenes=slice(0, 7))
    assert len(drawn) > 3 and drawn <= set(range(7))
    drawn.clear()
    stage_2(tmp_path, episodes, checkpoints, scenes=slice(7, None))
    assert drawn == set(range(7, SCENES))


@pytest.fixture
def show(episodes: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Give a function that lets all states tell the latents to be made, or tell nothing."""
    held = EpisodeSet.open(episodes)

    def replace(telling: bool) -> None:
        def states(reasoner, source, rows, *args, **kwargs) -> tuple[np.ndarray, np.ndarray]:
            out = np.ones((len(rows), reasoner.prompt_rows + 19, 32), np.float16)
            if telling:
                # What a motion is (a row of the bank) in 32 signs.
                signs = np.random.default_rng(0).choice([-1, 1], (len(held.bank.goal), 32))
                out[:] = signs[held.motion[rows], None]
            # Training leaves out rows that nobody has: what is shown is the least there can be.
            return out, np.arange(out.shape[1])[None].repeat(len(rows), 0) >= out.shape[1] - 20

        monkeypatch.setattr(generator_training, 'collect_states', states)

    return replace


def test_a_generator_that_does_not_use_its_states_stops(show, episodes, checkpoints, tmp_path,
                                                        monkeypatch):
    monkeypatch.setattr(generator_training, 'SENSITIVE_AFTER', 100)
    settings = {'steps': 101, 'batch': 32, 'learning_rate': 1e-2}
    show(True)
    told, deaf = tmp_path / 'told', tmp_path / 'deaf'
    told.mkdir()
    deaf.mkdir()
    stage_2(told, episodes, checkpoints, **settings)
    show(False)
    with pytest.raises(ValueError, match='does not use the reasoner'):
        stage_2(deaf, episodes, checkpoints, **settings)


def test_walks_that_swapped_states_change_nothing_in_stop_training(show, episodes, checkpoints,
                                                                   tmp_path, monkeypatch):
    show(False)
    held = EpisodeSet.open(episodes)
    monkeypatch.setattr(goals, 'GOALS_AFTER', 3)
    stage_2(tmp_path, episodes, checkpoints, episodes)
    keys = set(validations(tmp_path / 'out')[-1])
    assert {'told_metres', 'swapped_metres', 'oracle_metres', 'codes_swapped_metres'} < keys
    # A run that goes on counts the steps of before; one that is called up again stops again.
    for _ in range(2):
        with pytest.raises(ValueError, match='after 3 steps .* does not use the reasoner'):
            stage_2(tmp_path, episodes, checkpoints, episodes, steps=3)
    assert [row['step'] for row in validations(tmp_path / 'out')] == [2]
    asked = []

    def apart(network, autoencoder, episodes, rows, conditions) -> dict[str, float]:
        asked.append(len(rows))
        return {'told_metres': 0.3, 'swapped_metres': 0.4}

    monkeypatch.setattr(generator_training, 'validate_generator', apart)
    stage_2(tmp_path, episodes, checkpoints, episodes, steps=3)
    assert asked == [(held.motion >= 0).sum()]


def test_goals_say_nothing_too_early_of_too_few_walks_or_of_none():
    same = {'told_metres': 0.5, 'swapped_metres': 0.505}
    for walks, step in ((19, 5000), (80, 999)):
        check_goals(same, walks, step)
    check_goals({'told_metres': np.nan, 'swapped_metres': np.nan}, 0, 5000)
    check_goals(same | {'swapped_metres': 0.52}, 80, 5000)
    for swapped in (0.505, 0.3):
        with pytest.raises(ValueError, match=r'walks end 0\.50 m .* swapped conditions 0\.'):
            check_goals(same | {'swapped_metres': swapped}, 80, 1000)
