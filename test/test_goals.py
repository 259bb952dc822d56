# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Goal scores: the stated limits, intervals that cover, baselines that are what they claim."""

from dataclasses import replace
from types import SimpleNamespace

from fixtures_bundle import standing
import numpy as np
import pytest

from egomotion_ros.aim import Aim
from egomotion_ros.body.edits import place
from egomotion_ros.data.scenes import OBJECT_COLUMNS, sample_scene, scene_seed
from egomotion_ros.data.synthesis import synthesise
from egomotion_ros.evaluation.goals import (
    best_constant,
    bootstrap_interval,
    object_goal,
    other_object,
    score_motion,
    summarise,
)
from egomotion_ros.types import PlanarPose


@pytest.fixture(scope='module')
def walk(gait_library):
    return synthesise('walk_to', {'x': 2.0, 'y': 0.0}, np.random.default_rng(0), gait_library,
                      'train')


@pytest.mark.parametrize(('offset', 'reached'), [
    ((0.0, 0.0, 0.0), True), ((0.4, 0.0, 0.0), True), ((0.6, 0.0, 0.0), False),
    ((0.0, -0.4, 0.0), True), ((0.0, 0.0, 15.0), True), ((0.0, 0.0, 25.0), False),
    ((0.0, 0.0, -25.0), False)])
def test_limits_are_half_a_metre_and_twenty_degrees(walk, offset, reached):
    goal = np.array([2.0, 0.0, 0.0]) + [offset[0], offset[1], np.radians(offset[2])]
    score = score_motion(walk, 'walk_to', goal)
    assert score.reached == reached
    assert score.distance == pytest.approx(np.hypot(*offset[:2]), abs=0.06)
    assert score.at_rest


def test_facing_is_compared_around_the_circle(walk):
    turned = place(walk, PlanarPose(0.0, 0.0, np.pi - 0.05))
    score = score_motion(turned, 'walk_to', np.array([-2.0, 0.1, -np.pi + 0.05]))
    assert np.degrees(score.angle) < 12


def test_a_motion_cut_while_walking_is_not_at_rest(walk):
    cut = replace(walk, root_position=walk.root_position[:60], rotations=walk.rotations[:60],
                  contacts=walk.contacts[:60])
    assert not score_motion(cut, 'walk_to', np.array([2.0, 0, 0])).at_rest


def test_standing_never_counts_as_walking_forward(gait_library):
    still = synthesise('stand_still', {}, np.random.default_rng(0), gait_library, 'train')
    for metres in (0.5, 1.0, 2.0):
        assert not score_motion(still, 'walk_forward', np.array([metres, 0, 0])).reached
    assert score_motion(still, 'stand_still', np.zeros(3)).reached
    assert not score_motion(still, 'wave', np.zeros(3)).reached


def test_waving_is_seen(gait_library):
    wave = synthesise('wave', {'side': 'left'}, np.random.default_rng(1), gait_library, 'train')
    score = score_motion(wave, 'wave', np.zeros(3))
    assert score.waving and score.reached


def test_bad_input_is_refused(walk):
    with pytest.raises(ValueError, match='action'):
        score_motion(walk, 'fly', np.zeros(3))
    with pytest.raises(ValueError, match='finite'):
        score_motion(walk, 'walk_to', np.array([np.nan, 0, 0]))
    with pytest.raises(ValueError, match='three'):
        score_motion(walk, 'walk_to', np.zeros(2))
    with pytest.raises(ValueError, match='values'):
        bootstrap_interval(np.array([]))
    with pytest.raises(ValueError, match='no scores'):
        summarise([])


def test_bootstrap_interval_of_known_rates():
    values = np.r_[np.ones(150), np.zeros(150)]
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(0.5 - 1.96 * 0.5 / np.sqrt(300), abs=0.015)
    assert high == pytest.approx(0.5 + 1.96 * 0.5 / np.sqrt(300), abs=0.015)
    assert bootstrap_interval(values) == (low, high)
    # Five copies of each answer are worth no more than one.
    wide = bootstrap_interval(np.repeat(values, 5), np.repeat(np.arange(300), 5))
    naive = bootstrap_interval(np.repeat(values, 5))
    assert wide[1] - wide[0] > 1.8 * (naive[1] - naive[0])
    assert bootstrap_interval(np.ones(20)) == (1.0, 1.0)


def test_best_constant_finds_the_densest_goal():
    goals = np.array([[2, 0, 0], [2.2, 0.1, 0.1], [2.1, -0.2, -0.1], [0.5, 1, 1.0], [3.5, -1, -1]])
    pose, rate = best_constant(goals)
    assert rate == pytest.approx(0.6)
    assert np.hypot(*(pose[:2] - [2.1, 0])) < 0.3
    _, held = best_constant(goals, candidates=np.array([[9.0, 9.0, 0.0]]))
    assert held == 0.0


def test_best_constant_is_far_below_the_goal_on_drawn_scenes():
    asked, seen = ([sample_scene(scene_seed(split, i)).objects[0].stop_pose()
                    for i in range(200)] for split in ('val', 'train'))
    _, rate = best_constant(np.array(asked), candidates=np.array(seen))
    assert 0.02 < rate < 0.25


def test_other_object_is_another_visible_one():
    table = sample_scene(scene_seed('val', 1)).table()
    rng = np.random.default_rng(0)
    drawn = {other_object(table, 0, rng) for _ in range(40)}
    assert 0 not in drawn and all(table[k, 8] for k in drawn) and len(drawn) > 1
    alone = np.zeros_like(table)
    alone[0] = table[0]
    with pytest.raises(ValueError, match='no object but'):
        other_object(alone, 0, rng)


def test_object_goals(gait_library):
    scene = sample_scene(scene_seed('val', 2))
    row, item = scene.table()[0], scene.objects[0]
    np.testing.assert_allclose(object_goal('walk_to', row), item.stop_pose(), atol=1e-5)
    np.testing.assert_allclose(object_goal('turn_to', row), [0, 0, item.bearing], atol=1e-6)


def test_summary_counts(walk):
    scores = [score_motion(walk, 'walk_to', np.array([x, 0, 0])) for x in (2.0, 2.2, 3.0, 4.0)]
    summary = summarise(scores)
    assert summary['reached'] == 0.5 and summary['count'] == 4 and summary['at_rest'] == 1.0
    low, high = summary['reached_interval']
    assert 0 <= low <= 0.5 <= high <= 1


@pytest.mark.parametrize('pelvis, why', [
    ((2.1, 0.0, 0.0), 'generator'), ((3.0, 0.1, 0.0), 'aim: distance'),
    ((0.0, 0.0, 1.57), 'aim: a search'), ((0.0, 1.4, 1.57), 'aim: another object, same colour'),
    ((1.5, -1.5, 0.0), 'aim: elsewhere')])
def test_a_walk_that_missed_has_a_reason(benchmark_script, pelvis, why):
    """A red ball 2.6 m ahead was asked for; a red box stands 2 m to the left."""
    table = np.zeros((6, len(OBJECT_COLUMNS)))
    for row, (bearing, distance, shape) in enumerate(((0.0, 2.6, 0), (0.5 * np.pi, 2.0, 1))):
        facts = {'valid': 1, 'bearing': bearing, 'distance': distance, 'shape': shape, 'colour': 0,
                 'visible': 1}
        for name, value in facts.items():
            table[row, OBJECT_COLUMNS.index(name)] = value
    goal = object_goal('walk_to', table[0])
    question = SimpleNamespace(goal=goal, objects=table, target=0)
    aim = Aim(np.array(pelvis), np.full((2, 3), np.nan))
    assert benchmark_script('misses').reason(question, aim, standing(2)) == why
