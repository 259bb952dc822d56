# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Episode sets: written once, read back the same, pictures and motions that agree."""

from dataclasses import replace
import shutil

import numpy as np
import pytest

from egomotion_ros.body.features import features_to_motion
from egomotion_ros.data.episodes import EpisodeSet, write_episodes
from egomotion_ros.data.episodes_bank import with_moving_starts
from egomotion_ros.data.instructions import ACTIONS, OBJECT_ACTIONS
from egomotion_ros.data.render import SceneRenderer
from egomotion_ros.data.scenes import COLOUR_NAMES, OBJECT_COLUMNS, stop_pose
from egomotion_ros.data.scenes_furnished import draw_scene
from egomotion_ros.data.scenes_view import CAMERA, camera_rotation
from egomotion_ros.evaluation.goals import object_goal, score_motion

SCENES = 12


@pytest.fixture(scope='module')
def folder(gait_bank, tmp_path_factory):
    out = tmp_path_factory.mktemp('episodes')
    write_episodes(out, 'train', SCENES, bank=gait_bank)
    return out


@pytest.fixture(scope='module')
def episodes(folder):
    return EpisodeSet.open(folder)


def test_shapes_and_types(episodes):
    assert episodes.images.shape == (SCENES, 128, 128, 3)
    assert episodes.images[0].dtype == np.uint8
    assert episodes.images[np.array([3, 1])].shape == (2, 128, 128, 3)
    assert episodes.images[2:5].shape[0] == 3
    assert episodes.camera.shape == (SCENES, 3)
    assert episodes.objects.shape == (SCENES, 6, len(OBJECT_COLUMNS))
    assert len(episodes) == len(episodes.instructions) >= 3 * SCENES
    with pytest.raises(IndexError):
        episodes.images[SCENES]


def test_depths_are_those_of_what_is_seen(episodes, folder, tmp_path):
    assert episodes.depth.shape == (SCENES, 32, 32)
    scene = draw_scene(int(episodes.scene_seed[4]), 'simple', episodes.bank.ends())
    with SceneRenderer() as renderer:
        metres = renderer.depth(scene)
    np.testing.assert_allclose(episodes.depth[4], metres[2::4, 2::4], rtol=2e-3)
    # The floor that fills the lowest row lies where the rays meet it.
    ray = np.array([66.5 - 64, 126.5 - 64, CAMERA.focal]) / CAMERA.focal
    down = -(camera_rotation(scene.camera) @ ray)[2]
    floor = scene.camera.height / down
    assert metres[126, 66] <= floor * 1.01
    assert (np.abs(metres[126] / floor - 1) < 0.01).mean() > 0.3
    # Without the file, or with one of another set, nothing is made up.
    shard = shutil.copytree(folder, tmp_path / 'copy') / 'shard-00000'
    (shard / 'depth.npy').unlink()
    assert np.isnan(EpisodeSet.open(tmp_path / 'copy').depth[0]).all()
    np.save(shard / 'depth.npy', np.ones((SCENES - 1, 32, 32), np.float16))
    with pytest.raises(ValueError, match='depths of shape'):
        EpisodeSet.open(tmp_path / 'copy')


def test_cameras_are_in_the_stated_ranges(episodes):
    height, pitch, yaw = episodes.camera.T
    assert height.min() >= 1.3 and height.max() <= 1.75
    assert np.degrees(pitch).min() >= 10 and np.degrees(pitch).max() <= 35
    assert np.abs(np.degrees(yaw)).max() <= 10


def test_instruction_names_the_target(episodes):
    for e in range(len(episodes)):
        if episodes.target[e] < 0:
            assert ACTIONS[episodes.action[e]] not in OBJECT_ACTIONS
            continue
        row = episodes.objects[episodes.scene[e], episodes.target[e]]
        assert row[OBJECT_COLUMNS.index('visible')] == 1
        colour = COLOUR_NAMES[int(row[OBJECT_COLUMNS.index('colour')])]
        assert colour in episodes.instruction(e).split()


def test_every_visible_object_is_asked_for(episodes):
    for s in range(SCENES):
        visible = np.flatnonzero(episodes.objects[s, :, OBJECT_COLUMNS.index('visible')])
        asked = set(episodes.target[episodes.scene == s].tolist()) - {-1}
        assert asked == set(visible.tolist())


def test_motion_of_every_episode_reaches_its_goal(episodes):
    for e in range(len(episodes)):
        motion = features_to_motion(episodes.motion_features(e))
        action = ACTIONS[episodes.action[e]]
        score = score_motion(motion, action, episodes.goal[e])
        assert score.reached and score.distance < 0.15 and score.at_rest, episodes.instruction(e)
        if action in ('walk_to', 'stop_at'):  # the object was placed around this very motion
            assert score.distance < 0.01


def test_goal_follows_from_the_object_table(episodes):
    for e in np.flatnonzero(episodes.target >= 0):
        row = episodes.objects[episodes.scene[e], episodes.target[e]]
        goal = object_goal(ACTIONS[episodes.action[e]], row)
        np.testing.assert_allclose(episodes.goal[e], goal, atol=1e-4)


def test_nothing_stands_in_the_way_of_a_walk(episodes):
    clear = OBJECT_COLUMNS.index('clear')
    for e in np.flatnonzero(episodes.target >= 0):
        if ACTIONS[episodes.action[e]] != 'turn_to':
            assert episodes.objects[episodes.scene[e], episodes.target[e], clear] == 1


def test_same_seed_writes_the_same_set_and_another_seed_does_not(episodes, gait_bank, tmp_path):
    write_episodes(tmp_path, 'train', 4, bank=gait_bank)
    again = EpisodeSet.open(tmp_path)
    np.testing.assert_array_equal(again.images[0:4], episodes.images[0:4])
    count = len(again)
    assert again.instructions == episodes.instructions[:count]
    np.testing.assert_array_equal(again.motion_features(0), episodes.motion_features(0))
    write_episodes(tmp_path / 'other', 'train', 4, seed=1)
    other = EpisodeSet.open(tmp_path / 'other')
    assert np.abs(other.images[0].astype(int) - again.images[0]).mean() > 3


def test_set_without_motions_serves_grounding(tmp_path):
    write_episodes(tmp_path, 'val', 3)
    grounding = EpisodeSet.open(tmp_path)
    assert set(np.unique(grounding.action)) <= {0, 1, 2}
    assert (grounding.motion == -1).all()
    with pytest.raises(ValueError, match='no motion'):
        grounding.motion_features(0)


def test_finished_shards_are_kept(folder, episodes):
    before = (folder / 'shard-00000' / 'images.npy').stat().st_mtime_ns
    write_episodes(folder, 'train', SCENES)
    assert (folder / 'shard-00000' / 'images.npy').stat().st_mtime_ns == before


def test_what_is_not_an_episode_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match='not an episode set'):
        EpisodeSet.open(tmp_path)
    (tmp_path / 'episodes.json').write_text('{"version": 99}')
    with pytest.raises(ValueError, match='version'):
        EpisodeSet.open(tmp_path)
    (tmp_path / 'episodes.json').write_text('{"version": 1}')
    with pytest.raises(ValueError, match='no finished shard'):
        EpisodeSet.open(tmp_path)
    with pytest.raises(ValueError, match='split'):
        write_episodes(tmp_path, 'dev', 1)


def test_pickled_arrays_are_refused(episodes, folder, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(folder, copy)
    np.save(copy / 'shard-00000' / 'camera.npy', np.array([{'a': 1}], dtype=object))
    with pytest.raises(ValueError, match='pickle'):
        EpisodeSet.open(copy)


def test_stop_point_is_never_behind_the_person():
    pose = stop_pose(0.3, 0.5, 0.3)
    np.testing.assert_allclose(pose, [0, 0, 0.3])


def test_walks_cut_under_way_are_told_from_starts_at_rest(gait_bank):
    assert not gait_bank.under_way().any()
    bank = with_moving_starts(gait_bank, 60)
    flagged = bank.under_way()
    np.testing.assert_array_equal(flagged, bank.cut[:, 0] >= 0)
    assert not flagged[:len(gait_bank.features)].any() and flagged.sum() == 60
    speed = np.linalg.norm(np.asarray(bank.features[:, :8, 1:3], np.float64), axis=-1).mean(1)
    assert (speed[flagged] > 0.08).sum() > 40


@pytest.mark.parametrize(('velocity', 'moving'), [
    ((0.25, 0.0), True), ((0.0, 0.5), True), ((-0.06, 0.06), True), ((0.05, 0.05), False),
    ((0.0, 0.0), False)])
def test_moving_in_any_direction_is_moving(gait_bank, velocity, moving):
    features = np.array(gait_bank.features[:1])
    features[:, :8, 1:3] = velocity
    one = replace(gait_bank, features=features, cut=gait_bank.cut[:1])
    assert one.under_way().tolist() == [moving]
