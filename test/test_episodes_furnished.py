# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Furnished episode sets: reaches that touch, searches for what is hidden, grounding on both."""

import json

import numpy as np
import pytest

from egomotion_ros.aim import SWEEP
from egomotion_ros.body.features import features_to_motion
from egomotion_ros.body.hands import hand_points
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.data.episodes import EpisodeSet, write_episodes
from egomotion_ros.data.episodes_bank import make_bank
from egomotion_ros.data.episodes_table import rows
from egomotion_ros.data.instructions import ACTIONS, NAMING_ACTIONS, object_command, templates
from egomotion_ros.data.instructions_furnished import TEST, TRAIN
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.data.scenes import COLOUR_NAMES, OBJECT_COLUMNS
from egomotion_ros.data.scenes_view import CAMERA

SCENES = 16
REACH, SEARCH = ACTIONS.index('reach'), ACTIONS.index('search')
VISIBLE, COLOUR = OBJECT_COLUMNS.index('visible'), OBJECT_COLUMNS.index('colour')


@pytest.fixture(scope='module')
def folder(gait_library, tmp_path_factory):
    out = tmp_path_factory.mktemp('furnished')
    bank = make_bank(gait_library, 'train', 100, kind='furnished')
    write_episodes(out, 'train', SCENES, bank=bank, kind='furnished')
    return out


@pytest.fixture(scope='module')
def episodes(folder):
    return EpisodeSet.open(folder)


def test_set_says_its_kind_and_has_every_column(episodes):
    assert episodes.kind == 'furnished'
    assert episodes.hands.shape == (len(episodes), 2, 3)
    assert episodes.height.shape == (SCENES, 6)
    assert episodes.view.shape == (SCENES, 2)
    assert episodes.view.max() <= np.radians(110) and episodes.view.min() > np.radians(30)
    valid = episodes.objects[..., 0] > 0
    np.testing.assert_array_equal(np.isfinite(episodes.height), valid)
    assert (episodes.objects.shape[1:]) == (6, len(OBJECT_COLUMNS))


def test_reaching_hands_touch_what_is_named_until_the_end(episodes):
    reaches = np.flatnonzero(episodes.action == REACH)
    assert len(reaches) > 3
    for e in reaches:
        motion = features_to_motion(episodes.motion_features(e))
        hands = hand_points(forward_kinematics(motion.root_position, motion.rotations))[-16:]
        used = np.isfinite(episodes.hands[e]).all(-1)
        assert used.any()
        assert np.linalg.norm(hands - episodes.hands[e], axis=-1)[:, used].max() < 0.03
        assert episodes.objects[episodes.scene[e], episodes.target[e], VISIBLE] == 1
        side = 'both' if used.all() else 'left' if used[0] else 'right'
        assert side in episodes.instruction(e) or 'two hands' in episodes.instruction(e)
    others = episodes.action != REACH
    assert np.isnan(episodes.hands[others]).all()


def test_searches_turn_left_for_what_is_out_of_view(episodes):
    searches = np.flatnonzero(episodes.action == SEARCH)
    assert len(searches) > 1
    for e in searches:
        np.testing.assert_allclose(episodes.goal[e], [0, 0, SWEEP], atol=1e-6)
        motion = features_to_motion(episodes.motion_features(e))
        ahead = motion.rotations[-1, 0, :2, 2]
        assert abs(np.arctan2(ahead[1], ahead[0]) - SWEEP) < np.radians(6)
        table = episodes.objects[episodes.scene[e]]
        if episodes.target[e] >= 0:
            assert table[episodes.target[e], VISIBLE] == 0
            colour = COLOUR_NAMES[int(table[episodes.target[e], COLOUR])]
            assert colour in episodes.instruction(e)


@pytest.mark.parametrize('split', ['train', 'test'])
def test_what_is_out_of_view_is_asked_for_in_the_words_of_every_action(split):
    patterns = set(templates('search', split, 'furnished'))
    for action in NAMING_ACTIONS:
        assert patterns.issuperset((TRAIN if split == 'train' else TEST)[action]), action
    rng = np.random.default_rng(0)
    commands = [object_command('search', -1, 1, 2, rng, split, 'furnished', 'left')
                for _ in range(200)]
    handed = [command for command in commands if 'left hand' in command.text]
    assert 10 < len(handed) < 100
    assert all(command.action == 'search' and not command.params for command in commands)
    assert not any('{' in command.text for command in commands)


def test_everything_in_view_is_asked_for(episodes):
    named = [ACTIONS.index(a) for a in NAMING_ACTIONS if a != 'search']
    for s in range(SCENES):
        here = (episodes.scene == s) & np.isin(episodes.action, named)
        visible = np.flatnonzero(episodes.objects[s, :, VISIBLE])
        assert set(visible.tolist()) == set(episodes.target[here].tolist())


def test_same_seed_writes_the_same_set(episodes, gait_library, folder, tmp_path):
    write_episodes(tmp_path, 'train', 3, bank=MotionBank.load(folder), kind='furnished')
    again = EpisodeSet.open(tmp_path)
    np.testing.assert_array_equal(again.images[0:3], episodes.images[0:3])
    assert again.instructions == episodes.instructions[:len(again)]
    np.testing.assert_array_equal(again.hands, episodes.hands[:len(again)])


def test_kinds_are_not_mixed_in_one_folder(folder):
    with pytest.raises(ValueError, match='furnished scenes already'):
        write_episodes(folder, 'train', 3, kind='simple')
    with pytest.raises(ValueError, match='kind'):
        write_episodes(folder, 'train', 3, kind='empty')


def test_sets_of_the_first_format_are_read(tmp_path):
    write_episodes(tmp_path, 'val', 2)
    for name in ('hands', 'height', 'view'):
        (tmp_path / 'shard-00000' / f'{name}.npy').unlink()
    facts = json.loads((tmp_path / 'episodes.json').read_text())
    del facts['kind']
    (tmp_path / 'episodes.json').write_text(json.dumps(facts | {'version': 1}))
    old = EpisodeSet.open(tmp_path)
    assert old.kind == 'simple'
    assert np.isnan(old.hands).all() and old.hands.shape == (len(old), 2, 3)
    assert np.isnan(old.height).all()
    np.testing.assert_allclose(old.view, CAMERA.hfov)


def test_table_counts_minutes_and_sources_of_every_action(episodes, gait_library):
    lines = rows(episodes, gait_library, 'train')
    reach = next(line for line in lines if line.startswith('reach')).split()
    motions = int((episodes.bank.action == REACH).sum())
    assert reach[2] == str(motions)
    assert float(reach[3]) == pytest.approx(motions * 152 / 30 / 60, abs=0.06)
    assert reach[4:] == ['1', '/', '2', 'one-source']
    assert not any(line.startswith('kick') for line in lines)
    # What cannot be made is not left out silently.
    assert lines[-1] == 'no recordings for train: jump, bend, run_forward, kick; left out'
    assert 'sources' in lines[0]


def test_reasoner_learns_where_hands_go(episodes):
    torch = pytest.importorskip('torch')
    from egomotion_ros.models.grounding import GroundingHeads
    from egomotion_ros.training.reasoner import grounding_loss
    from egomotion_ros.training.reasoner_batches import ReasonerBatches, train_text
    torch.manual_seed(0)
    text = train_text(512, 40, kind='furnished')
    source = ReasonerBatches(episodes, text, None, 8)
    batch = source.sample(np.random.default_rng(0), 8, 5)
    features, states = torch.randn(8, 64, 32), torch.randn(40, 70, 32)
    plain = GroundingHeads(32, 8, 5)
    heads = GroundingHeads(32, 8, 5, hands=True)
    assert set(heads.state_dict()) > set(plain.state_dict())
    _, figures = grounding_loss(plain(features, states, 70), batch, 8)
    assert 'hands' not in figures
    optimiser = torch.optim.Adam(heads.parameters(), 0.01)
    seen = []
    for _ in range(60):
        loss, figures = grounding_loss(heads(features, states, 70), batch, 8)
        seen.append((figures['hands'], figures['height']))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert np.isfinite(loss.item())
    assert seen[-1][0] < 0.5 * seen[0][0] and seen[-1][1] < 0.7 * seen[0][1]


def test_motions_of_all_actions_start_at_rest(episodes):
    assert not episodes.bank.under_way().any()
