# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The baselines are what they claim to be, and learn from what the full method learned from."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from fixtures_bundle import standing, tiny_models
import numpy as np
import pytest
import torch

from egomotion_ros.body.edits import ground_pose
from egomotion_ros.body.features import motion_to_features
from egomotion_ros.commands.evaluate import _baselines
from egomotion_ros.data.episodes import EpisodeSet, write_episodes
from egomotion_ros.data.instructions import ACTIONS
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.evaluation.baselines import (
    CONSTANT,
    FOLDER,
    NO_REASONER,
    RETRIEVAL,
    TOKENS,
    Baselines,
    Retrieval,
    as_motion,
    constant_motion,
)
from egomotion_ros.evaluation.comparison import FULL, comparison_rows, judge
from egomotion_ros.evaluation.goals import reached_by
from egomotion_ros.evaluation.scenes import Question, held_out_questions
from egomotion_ros.models.checkpoints import load_model, save_model
from egomotion_ros.models.reasoner import Reasoner
from egomotion_ros.models.tokenizer import MotionTokenizer, TokenizerConfig
from egomotion_ros.training.baseline_generator import image_rows, train_baseline_generator
from egomotion_ros.training.loop import saved_step
from egomotion_ros.types import CameraPose

CONFIG = """
model: {width: 32, heads: 2, layers: 1, hidden: 64}
training: {steps: 2, batch: 4, warmup: 1, save_every: 2, validate_every: 2}
data: {path_weight: 1.0, feet_weight: 0.5}
"""


@pytest.fixture(scope='module')
def episodes(gait_bank: MotionBank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('episodes')
    write_episodes(out, 'train', 8, bank=gait_bank)
    return out


@pytest.fixture(scope='module')
def checkpoints(episodes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints of every stage, and of the baseline after two steps of training."""
    out = tmp_path_factory.mktemp('checkpoints')
    models = tiny_models()
    reasoner = Reasoner(replace(models.reasoner.config, text_tokens=80))
    save_model(reasoner, 'reasoner', out / 'reasoner')
    models.text.save(out / 'reasoner' / 'text.json')
    save_model(models.autoencoder, 'autoencoder', out / 'autoencoder')
    tokenizer = MotionTokenizer(TokenizerConfig(
        width=16, blocks=1, frame_width=16, frame_blocks=1, code_width=8, codes=32, levels=2))
    tokenizer.scale.set(models.autoencoder.scale.mean, models.autoencoder.scale.std)
    save_model(tokenizer, 'tokenizer', out / 'tokenizer')
    config = out / 'generator.yaml'
    config.write_text(CONFIG)
    train_baseline_generator(config, episodes, out / 'autoencoder', out / 'reasoner',
                             out / FOLDER, episodes)
    return out


@pytest.fixture(scope='module')
def baselines(checkpoints: Path, episodes: Path) -> Baselines:
    return Baselines(checkpoints, episodes)


@pytest.fixture(scope='module')
def question() -> Question:
    return held_out_questions(1)[0]


def as_question(question: Question, episodes: EpisodeSet, episode: int) -> Question:
    """A question that repeats a training episode word for word."""
    camera = CameraPose(*map(float, episodes.camera[episodes.scene[episode]]))
    return replace(question, image=np.asarray(episodes.image(episode)), camera=camera,
                   instruction=episodes.instruction(episode))


def test_every_baseline_answers_with_a_whole_motion(baselines, question):
    answers = {name: answerer(question, 3) for name, answerer in baselines.answerers('walk_to')}
    assert list(answers) == [TOKENS, NO_REASONER, RETRIEVAL, CONSTANT]
    for motion in answers.values():
        assert motion.frames == 150 and motion.scale == 1.0
        start = ground_pose(motion)
        assert (start.x, start.y, start.yaw) == pytest.approx((0.0, 0.0, 0.0), abs=0.05)


def test_the_baseline_generator_is_one_and_has_learned(checkpoints):
    trained = load_model(checkpoints / FOLDER, 'generator')
    # A fresh generator answers zero.
    assert trained.config.state_width == 32 and trained.outward.weight.abs().max() > 0


def test_image_tokens_are_kept_and_made_anew_for_another_model(episodes, tmp_path):
    reasoner = tiny_models().reasoner
    seen = EpisodeSet.open(episodes)
    images, cameras = seen.images, seen.camera
    store = tmp_path / 'rows.npy'
    first = np.array(image_rows(reasoner, images, cameras, store))
    written = store.stat().st_mtime_ns
    image_rows(reasoner, images, cameras, store)
    assert store.stat().st_mtime_ns == written
    with torch.no_grad():
        reasoner.vlm.model.vision_tower.out.bias += 1.0
    again = image_rows(reasoner, images, cameras, store)
    np.testing.assert_allclose(again, first + 1.0, atol=2e-2)
    # The same pictures of cameras that are held otherwise.
    written = store.stat().st_mtime_ns
    image_rows(reasoner, images, cameras + [0.0, 0.3, 0.0], store)
    assert store.stat().st_mtime_ns != written


def test_without_its_checkpoint_the_baseline_is_said_to_be_missing(checkpoints, episodes,
                                                                   question, tmp_path):
    for name in ('reasoner', 'autoencoder', 'tokenizer'):
        (tmp_path / name).symlink_to(checkpoints / name)
    answerers = dict(Baselines(tmp_path, episodes).answerers('turn_to'))
    assert answerers[NO_REASONER] is None
    question = replace(question, action='turn_to')
    figures = judge([question], [answerers[CONSTANT](question, 0)])
    rows = comparison_rows({FULL: figures, NO_REASONER: None, CONSTANT: figures}, 'turn_to')
    missing = [row for row in rows if row.value is None]
    assert len(missing) == 1 and 'train baseline' in missing[0].note
    with pytest.raises(ValueError, match='no method'):
        comparison_rows({FULL: figures, NO_REASONER: None}, 'turn_to')


def test_one_command_trains_the_baseline_that_is_missing(checkpoints, episodes, tmp_path):
    for name in ('reasoner', 'autoencoder', 'tokenizer'):
        (tmp_path / name).symlink_to(checkpoints / name)
    bundle = SimpleNamespace(bundle=SimpleNamespace(steps=2, guidance=1.0))
    asked = {'checkpoints': tmp_path, 'baselines': episodes}
    found = _baselines(Namespace(**asked, baseline_config=None), bundle)
    assert dict(found.answerers('walk_to'))[NO_REASONER] is None
    config = Namespace(**asked, baseline_config=checkpoints / 'generator.yaml')
    assert dict(_baselines(config, bundle).answerers('walk_to'))[NO_REASONER] is not None
    # The next comparison takes it as it is; what was interrupted goes on.
    weights = tmp_path / FOLDER / 'model.safetensors'
    written = weights.stat().st_mtime_ns
    _baselines(config, bundle)
    assert weights.stat().st_mtime_ns == written
    longer = tmp_path / 'longer.yaml'
    longer.write_text(CONFIG.replace('steps: 2', 'steps: 4'))
    _baselines(Namespace(**asked, baseline_config=longer), bundle)
    assert saved_step(tmp_path / FOLDER) == 4


def test_the_constant_reach_is_the_one_whose_hands_are_where_most_are_asked_for():
    nan = [np.nan] * 3
    hands = np.array([[[1.0, 0, 1], nan], [[0.5, 0, 1], nan], [[0.55, 0, 1], nan],
                      [nan, [1, 0, 1]],
                      [[0.45, 0.05, 1], [0.45, -0.05, 1]], [[0.6, 0, 1], nan]])
    features = np.repeat(motion_to_features(standing(150))[None], len(hands), 0)
    features[..., 1] = 0.1 * np.arange(len(hands))[:, None]  # every one walks another way
    bank = SimpleNamespace(hands=hands, features=features,
                           under_way=lambda: np.array([False] * 5 + [True]))
    held = SimpleNamespace(folder='x', bank=bank, motion=np.arange(len(hands)),
                           action=np.full(len(hands), ACTIONS.index('reach')),
                           goal=np.zeros((len(hands), 3)))

    def way(side: str) -> float:
        return constant_motion(held, 'reach', side).root_position[-1, 0] / (149 / 30)

    assert way('left') == pytest.approx(0.1, abs=1e-6)  # or 0.2, which reaches as many
    assert way('right') == pytest.approx(0.3, abs=1e-6)
    assert way('both') == pytest.approx(0.4, abs=1e-6)
    held.action = held.action[:0]
    held.motion = held.motion[:0]
    with pytest.raises(ValueError, match='asks to reach from rest, left'):
        constant_motion(held, 'reach', 'left')


def test_retrieval_finds_the_episode_itself(baselines, episodes, question):
    held = EpisodeSet.open(episodes)
    rest = np.flatnonzero(~held.bank.under_way()[held.motion])
    answerer = dict(baselines.answerers('walk_to'))[RETRIEVAL]
    for episode in rest[::9]:
        same = [n for n in rest if held.scene[n] == held.scene[episode]
                and held.instruction(n) == held.instruction(episode)]
        found = answerer(as_question(question, held, int(episode)), 0)
        ends = [as_motion(held.motion_features(n)).root_position[-1] for n in same]
        assert min(np.linalg.norm(found.root_position[-1] - end) for end in ends) < 1e-9


def test_retrieval_weighs_words_and_pictures(baselines, episodes):
    held = baselines._train
    retrieval = Retrieval(held)
    one, two = (int(np.flatnonzero(held.episodes.scene == scene)[0]) for scene in (1, 4))
    words = held.ids[two][held.masks[two].astype(bool)]
    picture = np.asarray(held.images[held.episodes.scene[two]], np.float32)
    assert held.episodes.scene[retrieval.nearest(picture, words)] == 4
    other = np.asarray(held.images[held.episodes.scene[one]], np.float32)
    near = retrieval.nearest(other, held.ids[one][held.masks[one].astype(bool)])
    assert held.episodes.scene[near] == 1


@pytest.mark.parametrize('action', ['walk_to', 'turn_to'])
def test_no_other_motion_reaches_more_training_goals(episodes, action):
    held = EpisodeSet.open(episodes)
    asked = np.flatnonzero(held.action == ACTIONS.index(action))
    goals = np.asarray(held.goal[asked], float)

    def hits(end) -> int:
        return int(reached_by(np.asarray(end, float), goals, action).sum())

    end = ground_pose(constant_motion(held, action), -1)
    best = max(hits(held.bank.goal[m]) for m in held.motion[asked])
    assert abs(hits([end.x, end.y, end.yaw]) - best) <= 1 and best >= 1
    with pytest.raises(ValueError, match='asks to'):
        constant_motion(_Empty(held), action)


class _Empty:
    """An episode set whose questions were all taken out."""

    def __init__(self, held: EpisodeSet) -> None:
        self.folder, self.bank = held.folder, held.bank
        self.action, self.motion = held.action[:0], held.motion[:0]


def test_slide_is_that_of_the_motions(question):
    still = standing(150)
    gliding = replace(still, root_position=still.root_position
                      + np.linspace(0, 1.49, 150)[:, None] * [1.0, 0.0, 0.0])
    figures = judge([question, question], [still, gliding])
    # Feet flat on the floor count once: 149 steps of 10 mm over 150 frames.
    assert figures['slide'] == pytest.approx(0.5 * 149 * 10 / 150, rel=1e-6)


def test_the_full_method_must_stand_apart():
    def method(low, high, slide_low, slide_high) -> dict:
        middle, slide = 0.5 * (low + high), 0.5 * (slide_low + slide_high)
        return {'count': 500, 'settled': middle, 'settled_interval': (low, high),
                'slide': slide, 'slide_interval': (slide_low, slide_high)}
    full, near, far = (method(0.7, 0.8, 2.0, 2.4), method(0.6, 0.71, 2.5, 3.0),
                       method(0.1, 0.2, 3.0, 4.0))
    rows = comparison_rows({FULL: full, 'near': near, 'far': far}, 'walk_to')
    goals, slide = rows[-2:]
    assert goals.value == pytest.approx(-0.01) and goals.met is False and goals.note == 'near'
    assert slide.value == pytest.approx(0.1) and slide.met
