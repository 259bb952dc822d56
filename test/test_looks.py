# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scenes seen on the way: pictures, goals and motions of them agree."""

import numpy as np
import pytest

from egomotion_ros.body.edits import ground_pose
from egomotion_ros.body.features import features_to_motion
from egomotion_ros.body.hands import hand_points
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.data.episodes import EpisodeSet, write_episodes
from egomotion_ros.data.episodes_bank import make_bank, with_moving_starts
from egomotion_ros.data.instructions import ACTIONS
from egomotion_ros.data.looks import look_on_the_way
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.data.scenes import OBJECT_COLUMNS, STAND_OFF, scene_seed
from egomotion_ros.data.scenes_furnished import draw_scene

SCENES = 60
COLUMN = {name: n for n, name in enumerate(OBJECT_COLUMNS)}


@pytest.fixture(scope='module')
def bank(gait_library):
    return with_moving_starts(make_bank(gait_library, 'train', 100, kind='furnished'), 120)


@pytest.fixture(scope='module')
def episodes(bank, tmp_path_factory):
    out = tmp_path_factory.mktemp('looks')
    write_episodes(out, 'train', SCENES, bank=bank, kind='furnished')
    return EpisodeSet.open(out)


@pytest.fixture(scope='module')
def under_way(episodes):
    moving = episodes.bank.under_way()
    return np.array([e for e in range(len(episodes))
                     if episodes.motion[e] >= 0 and moving[episodes.motion[e]]])


def test_a_cut_motion_is_the_rest_of_its_source_with_the_same_end(bank):
    cuts = np.flatnonzero(bank.cut[:, 0] >= 0)
    assert len(cuts) == 120
    assert {ACTIONS[a] for a in bank.action[cuts]} == {'walk_to', 'reach'}
    for n in cuts[::7]:
        source, frame = bank.cut[n]
        whole, rest = (features_to_motion(bank.features[k]) for k in (source, n))
        start = ground_pose(whole, frame)
        c, s = np.cos(start.yaw), np.sin(start.yaw)
        end = bank.goal[n, :2] @ np.array([[c, s], [-s, c]]) + [start.x, start.y]
        np.testing.assert_allclose(end, bank.goal[source, :2], atol=0.02)
        used = np.isfinite(bank.hands[n]).all(-1)
        np.testing.assert_array_equal(used, np.isfinite(bank.hands[source]).all(-1))
        hands = hand_points(forward_kinematics(rest.root_position, rest.rotations))[-1]
        assert np.linalg.norm(hands - bank.hands[n], axis=-1)[used].max(initial=0) < 0.03
        still = np.linalg.norm(np.diff(rest.root_position[-8:], axis=0), axis=1)
        assert still.max() < 2e-3


def test_some_scenes_are_seen_on_the_way_to_one_of_their_things(episodes, under_way):
    scenes = episodes.scene[under_way]
    assert len(set(scenes.tolist())) == len(scenes) and 3 < len(scenes) < SCENES // 2
    for e in under_way:
        assert ACTIONS[episodes.action[e]] in ('walk_to', 'stop_at', 'reach')
        others = np.flatnonzero(episodes.scene == episodes.scene[e])
        assert (episodes.motion[others[others != e]] == -1).all()
    standing = ~np.isin(episodes.scene, scenes)
    assert (episodes.motion[standing] >= 0).all()


def test_the_motion_that_goes_on_ends_before_the_thing_it_went_to(episodes, under_way):
    for e in under_way:
        row = episodes.objects[episodes.scene[e], episodes.target[e]]
        gap = row[COLUMN['distance']] * np.array([np.cos(row[COLUMN['bearing']]),
                                                  np.sin(row[COLUMN['bearing']])])
        end = episodes.goal[e]
        away = gap - end[:2]
        if ACTIONS[episodes.action[e]] != 'reach':
            assert np.hypot(*away) - row[COLUMN['radius']] == pytest.approx(STAND_OFF, abs=0.03)
            turn = np.arctan2(away[1], away[0]) - end[2]
            assert abs(np.arctan2(np.sin(turn), np.cos(turn))) < np.radians(3)
        else:
            used = np.isfinite(episodes.hands[e]).all(-1)
            hands = episodes.hands[e][used]
            assert np.linalg.norm(hands[:, :2] - gap, axis=-1).max() < 0.35


def test_what_is_seen_on_the_way_is_nearer_and_depends_on_the_seed_alone(bank, episodes):
    ends = bank.ends()
    assert len(ends.stops) + len(ends.reaches) == (bank.cut[:, 0] < 0)[
        np.isin(bank.action, [ACTIONS.index('walk_to'), ACTIONS.index('reach')])].sum()
    found = 0
    for n in range(SCENES):
        scene = draw_scene(scene_seed('train', n), 'furnished', ends)
        look, again = look_on_the_way(scene, bank), look_on_the_way(scene, bank)
        if look is None:
            assert again is None
            continue
        found += 1
        assert again.motion == look.motion
        np.testing.assert_array_equal(again.scene.table(), look.scene.table())
        before, after = (s.objects[look.target].distance for s in (scene, look.scene))
        assert after < before + 0.02
        np.testing.assert_array_equal(look.scene.table(), episodes.objects[n])
    assert found > 3


def test_banks_without_cuts_are_read_and_looked_at_from_the_start_alone(bank, tmp_path):
    bank.save(tmp_path)
    (tmp_path / 'motion_cut.npy').unlink()
    old = MotionBank.load(tmp_path)
    assert (old.cut == -1).all()
    for n in range(8):
        assert look_on_the_way(draw_scene(scene_seed('train', n), 'furnished'), old) is None
