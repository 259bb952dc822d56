# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Synthesised motions do what is asked, stand on their feet and come to rest."""

from dataclasses import replace

from fixtures_gait import walking_motion
import numpy as np
import pytest

from egomotion_ros.body.edits import ground_pose
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.skeleton import FOOT_HEIGHTS, FOOT_JOINTS, REST_PELVIS_HEIGHT
from egomotion_ros.data.episodes_bank import plan_bank
from egomotion_ros.data.gait import (
    GaitLibrary,
    Gesture,
    Posture,
    extract_postures,
    extract_strides,
    mean_posture,
)
from egomotion_ros.data.instructions import ACTIONS
from egomotion_ros.data.synthesis import FRAMES, action_goal, end_pose, synthesise
from egomotion_ros.evaluation.goals import score_motion

CASES = [('walk_to', {'x': 2.4, 'y': 0.9}), ('walk_to', {'x': 0.35, 'y': -0.2}),
         ('walk_to', {'x': 3.4, 'y': -1.4}), ('stop_at', {'x': 1.5, 'y': 0.0}),
         ('turn_to', {'angle': -0.6}), ('turn', {'angle': np.pi / 2}), ('turn', {'angle': -np.pi}),
         ('walk_forward', {'distance': 0.5}), ('walk_forward', {'distance': 3.0}),
         ('stand_still', {}), ('wave', {'side': 'right'}), ('wave', {'side': 'left'})]


def _name(case):
    return '-'.join([case[0], *(f'{v:.2f}' if isinstance(v, float) else str(v)
                                 for v in case[1].values())])


@pytest.fixture(scope='module')
def library(gait_library):
    return gait_library


@pytest.fixture(scope='module')
def motions(library):
    return {(action, tuple(params.items())):
            synthesise(action, params, np.random.default_rng(i), library, 'train')
            for i, (action, params) in enumerate(CASES)}


def _joints(motion):
    return forward_kinematics(motion.root_position, motion.rotations)


def _slide(feet):
    """UniEgoMotion's foot slide, with heights counted from those of a flat foot."""
    step = np.linalg.norm(np.diff(feet[..., :2], axis=0), axis=-1)
    height = np.maximum(feet[1:, :, 2] - FOOT_HEIGHTS, 0.0)
    weight = np.clip(2 - 2 ** (height / [0.08, 0.08, 0.04, 0.04]), 0, 1)
    return 1000 * (step * weight).sum(0).mean() / len(feet)


def test_strides_are_cut_from_a_walk_and_close_on_themselves(library):
    strides = extract_strides(walking_motion(), 'walker', 'train')
    assert len(strides) >= 2
    for stride in strides:
        assert stride.speed == pytest.approx(1.2, rel=0.15)
        assert stride.length == pytest.approx(1.32, rel=0.1)
        seam = np.abs(stride.rotations[0] - stride.rotations[-1]).max()
        inside = np.abs(np.diff(stride.rotations, axis=0)).max()
        assert seam < 2 * inside
        assert (stride.swing[:, 1] > stride.swing[:, 0]).all()
        assert 0.2 < stride.footing.min() and stride.footing.max() < 0.6


def test_standing_and_turning_on_the_spot_yield_no_stride():
    still = walking_motion(speed=0.0)
    assert extract_strides(still, 'still', 'train') == []
    assert extract_postures(walking_motion(), 'walker', 'train') == []


@pytest.mark.parametrize('case', CASES, ids=_name)
def test_motion_reaches_its_goal_and_rests(motions, case):
    action, params = case
    motion = motions[action, tuple(params.items())]
    assert motion.frames == FRAMES == 152
    goal = action_goal(action, params)
    score = score_motion(motion, action, goal)
    assert score.reached and score.distance < 0.12 and score.angle < np.radians(5)
    assert score.speed < 0.2
    start = ground_pose(motion, 0)
    np.testing.assert_allclose([start.x, start.y, start.yaw], 0, atol=1e-9)


@pytest.mark.parametrize('case', CASES, ids=_name)
def test_feet_stay_on_and_above_the_floor(motions, case):
    motion = motions[case[0], tuple(case[1].items())]
    joints = _joints(motion)
    assert joints[..., 2].min() > 0.015
    feet = joints[:, list(FOOT_JOINTS)]
    speed = np.linalg.norm(np.gradient(feet[..., :2], 1 / 30, axis=0), axis=-1)
    planted = motion.contacts > 0.5
    assert planted.any(1).mean() > 0.95  # never in the air
    assert speed[planted].mean() < 0.08
    assert _slide(feet) < 12.0  # millimetres a frame; recorded walks have 4 to 12


def test_toes_of_a_swinging_foot_clear_the_floor(motions):
    walk = motions[CASES[0][0], tuple(CASES[0][1].items())]
    toes = _joints(walk)[:, list(FOOT_JOINTS[2:])]
    fast = np.linalg.norm(np.diff(toes[..., :2], axis=0), axis=-1) * 30 > 1.5
    above = (toes[:-1, :, 2] - FOOT_HEIGHTS[2])[fast]
    assert above.min() > 0.01 and np.median(above) > 0.025


@pytest.mark.parametrize('case', CASES, ids=_name)
def test_pelvis_moves_as_people_do(motions, case):
    motion = motions[case[0], tuple(case[1].items())]
    velocity = np.gradient(motion.root_position, 1 / 30, axis=0)
    assert np.linalg.norm(velocity, axis=1).max() < 2.0
    height = motion.root_position[:, 2] / REST_PELVIS_HEIGHT
    assert 0.8 < height.min() and height.max() < 1.05
    jerk = np.linalg.norm(np.diff(_joints(motion), 3, axis=0) * 30.0 ** 3, axis=-1)
    assert jerk.mean() < 150  # recorded walks have about 180
    rotations = motion.rotations
    np.testing.assert_allclose(rotations @ np.swapaxes(rotations, -1, -2),
                               np.broadcast_to(np.eye(3), rotations.shape), atol=1e-6)


def test_same_random_state_gives_the_same_motion(library):
    one, two, other = (synthesise('walk_to', {'x': 2.0, 'y': 0.5}, np.random.default_rng(s),
                                  library, 'train') for s in (3, 3, 4))
    np.testing.assert_array_equal(one.rotations, two.rotations)
    np.testing.assert_array_equal(one.root_position, two.root_position)
    assert np.abs(one.root_position - other.root_position).max() > 0.01


def test_left_hand_waves_on_the_left(motions):
    right = _joints(motions['wave', (('side', 'right'),)])
    left = _joints(motions['wave', (('side', 'left'),)])
    assert right[:, 21, 2].max() > right[:, 20, 2].max() + 0.2
    assert left[:, 20, 2].max() > left[:, 21, 2].max() + 0.2


@pytest.mark.parametrize(('action', 'params', 'match'), [
    ('fly', {}, 'action'), ('walk_to', {'x': 1.0}, "'y'"), ('turn', {}, 'angle'),
    ('walk_to', {'x': 9.0, 'y': 0.0}, 'beyond'), ('turn', {'angle': float('nan')}, 'beyond')])
def test_impossible_requests_are_refused(library, action, params, match):
    with pytest.raises(ValueError, match=match):
        synthesise(action, params, np.random.default_rng(0), library, 'train')


def test_splits_use_their_own_performances_only(library):
    part = library.of('val')
    assert {s.performance for s in part.strides}.isdisjoint(
        s.performance for s in library.of('train').strides)
    with pytest.raises(ValueError, match='strides'):
        library.of('test')


def test_gait_library_survives_its_file(library, tmp_path):
    library.save(tmp_path / 'gait.npz')
    again = GaitLibrary.load(tmp_path / 'gait.npz')
    assert len(again.strides) == len(library.strides)
    motion = synthesise('turn', {'angle': 1.0}, np.random.default_rng(0), library, 'train')
    same = synthesise('turn', {'angle': 1.0}, np.random.default_rng(0), again, 'train')
    np.testing.assert_array_equal(motion.rotations, same.rotations)


def test_bank_covers_every_action_and_meets_its_goals(gait_bank, gait_library):
    bank = gait_bank
    wanted = plan_bank(gait_library, 100, 'train')
    assert {a for a, _ in wanted} == set(ACTIONS[:7]) - {'stop_at'}
    assert len(bank.features) == len(wanted)
    walks = bank.of('walk_to')
    assert np.hypot(*(bank.goal[walks] - bank.oracle[walks])[:, :2].T).max() < 0.1
    np.testing.assert_array_equal(bank.of('stop_at'), walks)


def test_mean_posture_faces_forward(library):
    posture = mean_posture(library.strides[0])
    assert isinstance(posture, Posture)
    joints = forward_kinematics(np.zeros((1, 3)), posture.rotations[None])[0]
    assert joints[15, 2] > 0.5 and joints[7, 2] < -0.7
    assert isinstance(replace(library.gestures[0]), Gesture)


def test_end_pose_reads_the_last_frame(motions):
    motion = motions['turn', (('angle', np.pi / 2),)]
    assert end_pose(motion)[2] == pytest.approx(np.pi / 2, abs=0.1)
