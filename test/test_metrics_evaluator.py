# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The evaluator learns which text goes with which motion; captions say where the goal is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fixtures_gait import walking_motion
import numpy as np
import pytest
import torch

from egomotion_ros.body.features import features_to_motion
from egomotion_ros.cli import main
from egomotion_ros.commands.train import STAGES
from egomotion_ros.data.episodes import EpisodeSet, write_episodes
from egomotion_ros.data.instructions import ACTIONS
from egomotion_ros.data.library import MotionLibrary, Take, save_library
from egomotion_ros.evaluation.captions import EVALUATED, EpisodeTexts, caption, meaning
from egomotion_ros.evaluation.evaluator import Evaluator
from egomotion_ros.evaluation.report import Counts, measure
from egomotion_ros.models.checkpoints import build, load_model
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.training.evaluator import LibraryTexts, held_out_precision
from egomotion_ros.types import FPS, PLAN_FRAMES, HumanMotion, Observation, PrimitivePlan

SMALL = """
model: {embedding: 32, width: 32, blocks: 1, layers: 1, heads: 2, text_tokens: 64}
training: {steps: 60, batch: 32, learning_rate: 3.0e-3, warmup: 5, validate_every: 60}
data: {library_share: 0.1}
"""


@pytest.fixture(scope='module')
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Walks of three splits, each of its own speed."""
    def take(name: str, split: str, motion: HumanMotion) -> Take:
        return Take(name, name, f'walk {name}', 'walk', split, f'{name}.bvh', motion.frames, 1.0,
                    0.0, False, False, motion)
    out = tmp_path_factory.mktemp('library')
    save_library(out, [take('one', 'train', walking_motion(1.2, 4.0)),
                       take('two', 'val', walking_motion(1.0, 4.0)),
                       take('three', 'test', walking_motion(1.1, 4.0, 1.0)),
                       take('still', 'test', walking_motion(0.2, 4.0))])
    return out


@pytest.fixture(scope='module')
def episodes(gait_bank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('episodes')
    write_episodes(out, 'train', 60, bank=gait_bank)
    return out


@pytest.fixture(scope='module')
def trained(library, episodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an evaluator trained by the command for some seconds."""
    out = tmp_path_factory.mktemp('evaluator')
    (out / 'evaluator.yaml').write_text(SMALL)
    assert main(['train', 'evaluator', '--config', str(out), '--library', str(library),
                 '--episodes', str(episodes), '--val', str(episodes), '--out', str(out),
                 '--threads', '1']) == 0
    return out / 'evaluator'


def test_the_evaluator_is_no_stage_of_the_default() -> None:
    assert STAGES == ('tokenizer', 'autoencoder', 'reasoner', 'generator')


def test_training_teaches_which_text_goes_with_which_motion(trained, episodes) -> None:
    texts = EpisodeTexts(EpisodeSet.open(episodes))
    evaluator = Evaluator.open(trained)
    learned = held_out_precision(evaluator, texts)
    torch.manual_seed(0)
    naive = build('evaluator', {'embedding': 32, 'width': 32, 'blocks': 1, 'layers': 1,
                                'heads': 2})
    naive.scale.set(evaluator.model.scale.mean, evaluator.model.scale.std)
    untrained = held_out_precision(Evaluator(naive, evaluator.text), texts)
    # Chance is 3 / 32.
    assert untrained['R@3'] < 0.25
    assert learned['R@3'] > 2 * untrained['R@3']
    assert learned['R@1'] <= learned['R@2'] <= learned['R@3']


def test_labels_that_do_not_fit_are_left_out_before_training(episodes, tmp_path, capsys) -> None:
    def take(name: str, label: str) -> Take:
        motion = walking_motion(1.2, 4.0)
        return Take(name, name, label, 'walk', 'train', f'{name}.bvh', motion.frames, 1.0, 0.0,
                    False, False, motion)
    letters = np.random.default_rng(0).integers(ord('a'), ord('z') + 1, 300)
    tokens, characters = ''.join(map(chr, letters)), 'walk ' * 100
    save_library(tmp_path / 'library', [take('one', 'walk on'), take('two', tokens),
                                        take('three', characters)])
    (tmp_path / 'evaluator.yaml').write_text(SMALL.replace('60', '3').replace('0.1}', '0.5}'))
    assert main(['train', 'evaluator', '--config', str(tmp_path), '--library',
                 str(tmp_path / 'library'), '--episodes', str(episodes), '--out', str(tmp_path),
                 '--threads', '1']) == 0
    said = capsys.readouterr().out
    # Each take counts with its mirror image.
    assert said.count('2 takes left out') == 2
    save_library(tmp_path / 'none', [take('two', characters)])
    with pytest.raises(ValueError, match='no label'):
        LibraryTexts(MotionLibrary.open(tmp_path / 'none'))


def test_embeddings_do_not_depend_on_the_company(trained, episodes) -> None:
    evaluator = Evaluator.open(trained)
    features = EpisodeTexts(EpisodeSet.open(episodes)).features(np.arange(5))
    assert features.shape[1] == EVALUATED
    together, words = evaluator.features(features), evaluator.texts(['stand still', 'turn left'])
    np.testing.assert_allclose(evaluator.features(features[3:4])[0], together[3], atol=1e-5)
    np.testing.assert_allclose(evaluator.texts(['turn left'])[0], words[1], atol=1e-5)
    assert np.abs(words[0] - words[1]).max() > 1e-3
    # Frames beyond whole windows are not looked at.
    np.testing.assert_allclose(evaluator.features(features[:1, :83])[0],
                               evaluator.features(features[:1, :80])[0], atol=1e-6)


def test_a_checkpoint_of_another_kind_is_refused(trained) -> None:
    with pytest.raises(ValueError, match='holds a evaluator, expected a tokenizer'):
        load_model(trained, 'tokenizer')
    with pytest.raises(ValueError, match='expected features'):
        Evaluator.open(trained).features(np.zeros((1, 7, 140)))


@pytest.mark.parametrize(('action', 'goal', 'text'), [
    ('walk_to', (2.0, 0.0, 0.0), 'do it, 2 metres, straight ahead'),
    ('walk_to', (0.0, 1.1, 1.5), 'do it, 1 metres, 90 degrees to the left'),
    ('stop_at', (1.5, -1.5, 0.0), 'do it, 2 metres, 40 degrees to the right'),
    ('turn_to', (0.0, 0.0, 0.51), 'do it, 30 degrees to the left'),
    ('turn', (0.0, 0.0, 0.5), 'do it'), ('wave', (0.0, 0.0, 0.0), 'do it')])
def test_captions_say_where_the_picture_has_the_goal(action, goal, text) -> None:
    assert caption('do it', action, np.array(goal)) == text


def test_motions_that_answer_both_mean_the_same() -> None:
    goal = np.array([2.0, 0.1, 0.1])
    assert meaning('walk_to', goal) == meaning('stop_at', goal)
    assert meaning('walk_to', goal) != meaning('walk_to', goal + [0.5, 0.0, 0.0])
    turn = np.array([0.0, 0.0, 0.5])
    assert meaning('turn', turn) == meaning('turn_to', turn) != meaning('turn', -turn)
    assert meaning('wave', goal, 0.0) != meaning('wave', goal, 1.0)
    with pytest.raises(ValueError, match='action'):
        caption('fly', 'fly', goal)


def test_the_halves_that_are_compared_share_no_motion(episodes) -> None:
    from egomotion_ros.evaluation.protocols import draw
    asked = draw(EpisodeSet.open(episodes), 1000)
    motions = asked.episodes.set.motion[asked.episodes.index]
    both = np.concatenate([motions[asked.rows], motions[asked.others]])
    assert len(asked.rows) == len(asked.others) >= 32
    assert len(np.unique(both)) == len(both)
    assert len(asked.texts) == len(asked.recorded()) == len(asked.rows)
    assert {ACTIONS[a] for a in asked.episodes.set.action[asked.episodes.index[asked.rows]]} > {
        'walk_to'}


def test_rows_of_the_protocol_are_what_they_are_called(trained, episodes) -> None:
    from egomotion_ros.evaluation.protocols import draw, text_to_motion
    asked = draw(EpisodeSet.open(episodes), 1000)
    real = asked.recorded()
    swapped = real[1:] + real[:1]
    rows = text_to_motion(Evaluator.open(trained), asked, real, [[m] for m in swapped],
                          [[real[0], real[0]], [real[1], real[2]]], replications=3)
    mean = {row: {figure: value['mean'] for figure, value in rows[row].items()}
            for row in ('real', 'reconstructed', 'generated')}
    assert mean['reconstructed'] == pytest.approx(mean['real'], rel=0.02, abs=0.05)
    # The same motions, none with its own text: FID cannot tell, what pairs them does.
    assert mean['generated']['FID'] == pytest.approx(mean['real']['FID'], rel=0.02)
    assert mean['generated']['MM-Dist'] > mean['real']['MM-Dist']
    assert mean['generated']['R@3'] < mean['real']['R@3']
    assert mean['generated'].pop('MultiModality') > 0.0
    assert set(mean['generated']) == set(mean['real'])


class ByHeart:
    """A pipeline whose generator answers every episode with the recorded motion."""

    def __init__(self, pipeline: EgoMotionPipeline, texts: EpisodeTexts) -> None:
        self._pipeline, self._texts = pipeline, texts

    def __getattr__(self, name: str):
        return getattr(self._pipeline, name)

    def reason(self, observation: Observation, plan_id: str, seed: int) -> PrimitivePlan:
        # The tiny prompt does not hold every sentence.
        return self._pipeline.reason(replace(observation, instruction='wave'), plan_id, seed)

    def generate(self, primitives: PrimitivePlan, **_) -> HumanMotion:
        episode = int(self._texts.index[int(primitives.plan_id.split('-')[1])])
        features = self._texts.set.motion_features(episode)[:PLAN_FRAMES]
        return features_to_motion(np.asarray(features, float), None, 'odom', FPS,
                                  self._pipeline.scale)


def test_a_model_that_knew_every_answer_would_score_as_the_recordings_do(
        trained, episodes, library, tiny_bundle) -> None:
    pipeline = EgoMotionPipeline.load(tiny_bundle, threads=1)
    opened = EpisodeSet.open(episodes)
    report = measure(ByHeart(pipeline, EpisodeTexts(opened)), pipeline._runtime,
                     MotionLibrary.open(library), opened, evaluator=Evaluator.open(trained),
                     counts=Counts(plans=1000, texts=2, samples=2, replications=2, retargeted=1))
    pipeline.close()
    text = report['HumanML3D protocol']
    for figure in ('R@1', 'R@3', 'MM-Dist'):
        assert text['generated'][figure]['mean'] == pytest.approx(text['real'][figure]['mean'],
                                                                  rel=1e-3)
    # The tiny autoencoder knows nothing: what goes through it is no recording any more.
    assert text['reconstructed']['FID']['mean'] > 2 * text['generated']['FID']['mean']
    seen = report['UniEgoMotion protocol']
    assert seen['MPJPE m'] < 1e-3 and seen['head rotation'] < 1e-2
    physics = report['physics']  # a recorded answer is two frames longer than a plan
    assert physics['generated'] == pytest.approx(physics['recorded answers'], rel=0.1)
    ratios = {name: row['groups']['all']
              for name, row in report['against held-out recordings'].items()}
    for figure in ('foot slide', 'jerk'):
        assert ratios['generated, before IK'][figure]['ratio'] == pytest.approx(
            ratios['recorded answers (synthesised)'][figure]['ratio'], rel=0.02)
    assert report['robot']['limit violations'] == 0 and report['robot']['self-collision rows'] == 0
    assert 'not audited' in report['leaks']['instructions']
    assert report['diversity']['instructions'] == 2 and report['diversity']['joints m'] == 0.0
    assert report['episodes'] >= 32 and report['bundle'] == pipeline.bundle.hash


def test_too_few_episodes_are_refused(tiny_bundle, library, gait_bank, tmp_path, capsys) -> None:
    write_episodes(tmp_path, 'train', 3, bank=gait_bank)
    assert main(['metrics', str(tiny_bundle), '--library', str(library), '--episodes',
                 str(tmp_path)]) == 1
    assert 'needs 64' in capsys.readouterr().err
