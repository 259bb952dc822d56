# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The figures table: every figure is in it, goals are compared as stated, absence is said."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from egomotion_ros.bundle import Bundle
from egomotion_ros.cli import main
from egomotion_ros.data.scenes import OBJECT_COLUMNS, SEPARATION
from egomotion_ros.evaluation import figures, speed
from egomotion_ros.evaluation.chance import constant_pose
from egomotion_ros.evaluation.goals import reached_by, share
from egomotion_ros.evaluation.scenes import altered, held_out_questions
from egomotion_ros.evaluation.table import Goal, Row, format_rows

CAMERA_REPORT = {
    'idle': {'cpu_percent': 0.5, 'frames_per_second': 0.0},
    'camera_path': {'cpu_percent': 26.0, 'frames_per_second': 30.0},
    'soak': {'frames_per_second': 29.9, 'first_p50_ms': 230, 'latency_p50_ms': 300,
             'latency_p95_ms': 800, 'memory_half_mb': 344.0, 'memory_last_mb': 344.5,
             'minutes': 10.0, 'plans': 300}}


@pytest.fixture(scope='module')
def questions() -> list:
    return held_out_questions(6)


@pytest.mark.parametrize(('kind', 'value', 'met'), [
    ('at least', 0.45, True), ('at least', 0.449, False), ('at most', 40.0, True),
    ('at most', 40.1, False), ('below', 0.25, False), ('below', 0.249, True),
    ('at most', math.nan, False), ('at least', math.nan, False)])
def test_goals_are_compared_as_stated(kind, value, met):
    bound = {'at least': 0.45, 'at most': 40.0, 'below': 0.25}[kind]
    assert Row('s', 'f', value, goal=Goal(kind, bound)).met is met


def test_what_was_not_measured_is_neither_met_nor_missed():
    rows = figures.camera_rows(None, 'needs a camera')
    assert len(rows) == len(figures.CAMERA_FIGURES)
    assert all(row.met is None and row.value is None and row.note for row in rows)
    assert 'needs a camera' in format_rows(rows)
    with pytest.raises(ValueError, match='at least'):
        Goal('about', 1.0)


def test_the_camera_path_gives_its_rows():
    rows = {row.figure: row for row in figures.camera_rows(CAMERA_REPORT)}
    assert rows['newest image to first points published, p50'].met is False
    assert rows['newest image to motion published, p50'].met
    assert rows['newest image to motion published, p95'].met is False
    assert rows['CPU of the camera path'].value == pytest.approx(0.26)
    assert rows['CPU of the camera path'].met is False
    assert rows['CPU when idle'].met
    assert rows['memory, growth over the second half'].value == pytest.approx(0.5)
    json.dumps([row.as_dict() for row in rows.values()], allow_nan=False)


def test_speed_says_how_many_times_or_why_not():
    report = {'backend': 'onnxruntime', 'threads': 2, 'runs': 5, 'graphs_p50_ms': 100.0,
              'torch_p50_ms': 250.0, 'ratio': {'value': 2.5, 'low': 1.9, 'high': 2.9}}
    ratio = figures.speed_rows(report)[-1]
    assert (ratio.value, ratio.met, ratio.interval) == (2.5, True, (1.9, 2.9))
    rows = figures.speed_rows(report | {'ratio': None, 'why': 'no torch'})
    assert [row.value for row in rows] == [100.0, None, None]
    assert rows[-1].note == 'no torch' and rows[-1].met is None


def test_speed_is_measured_side_by_side(tiny_bundle):
    report = speed.measure(Bundle.open(tiny_bundle), 'onnxruntime', 1, 2)
    assert report['graphs_p50_ms'] > 0 and report['torch_p50_ms'] > 0
    assert report['ratio']['low'] <= report['ratio']['value'] <= report['ratio']['high']


def test_reconstruction_rows_keep_the_two_models_apart():
    rows = {row.figure: row for row in figures.reconstruction_rows({
        'performances': 3, 'windows': 7, 'autoencoder': {'mpjpe_mm': 22.0, 'drift_m': 0.1},
        'tokenizer': {'mpjpe_mm': 61.0, 'drift_m': 0.3}})}
    assert [(row.value, row.met) for row in rows.values()] == [
        (22.0, True), (61.0, False), (0.1, None), (0.3, None)]
    bounds = [row.goal.bound for row in figures.reconstruction_rows(None, 'x', True) if row.goal]
    assert bounds == [30.0, 50.0]


def test_the_size_is_that_of_all_files(tmp_path):
    for name, size in (('a', 30_000_000), ('b', 10_000_001)):
        with open(tmp_path / name, 'wb') as file:
            file.truncate(size)
    row = figures.size_row(tmp_path)
    assert row.value == pytest.approx(40.000001) and row.met is False


def test_ratios_stand_against_at_least_one_reached_scene():
    told, none = (share(hits) | share(hits, 'at_rest') | {
        'median_distance_m': 0.2, 'median_angle_deg': 3.0} for hits in ([1, 1, 1, 0], [0] * 4))
    rows = {row.figure: row for row in figures.goal_rows({
        'told': told, 'image blanked': none, 'instruction shuffled': told,
        'scored against another object': none, 'best constant motion': none}, 'walk_to')}
    assert rows['reached, against the image blanked'].value == pytest.approx(3.0)
    assert rows['reached, against instructions shuffled'].value == pytest.approx(1.0)
    assert rows['reached, against instructions shuffled'].met is False
    assert rows['goal reached'].met and rows['goal reached'].interval[0] < 0.75


def test_held_out_scenes_are_as_the_protocol_says(questions):
    column = {name: k for k, name in enumerate(OBJECT_COLUMNS)}
    for question in questions:
        table = question.objects[question.objects[:, column['valid']] > 0]
        target, others = table[0], table[1:]
        assert 3 <= len(table) <= 6 and 1.2 <= target[column['distance']] <= 4.5
        assert (others[:, column['colour']] == target[column['colour']]).any()
        assert (others[:, column['shape']] == target[column['shape']]).any()
        places = np.array([item.position[:2] for item in question.scene.objects])
        apart = np.linalg.norm(places[:, None] - places, axis=-1) + 9 * np.eye(len(places))
        assert apart.min() >= SEPARATION
        stop = target[column['distance']] - target[column['radius']] - 0.6
        assert np.hypot(*question.goal[:2]) == pytest.approx(max(stop, 0.0), abs=1e-5)
        assert question.instruction != question.known
        assert question.instruction.split('the ')[-1].split()[0] in question.known


def test_modes_change_only_what_they_name(questions):
    blank, mixed = altered(questions, 'image blanked'), altered(questions, 'instruction shuffled')
    for told, one, other in zip(questions, blank, mixed, strict=True):
        assert np.ptp(one.image) == 0 and one.instruction == told.instruction
        assert other.image is told.image and other.goal is told.goal
    assert sorted(q.instruction for q in mixed) == sorted(q.instruction for q in questions)
    with pytest.raises(ValueError, match='mode'):
        altered(questions, 'upside down')


def test_the_best_constant_is_chosen_on_training_scenes(questions):
    pose = constant_pose('walk_to', scenes=60)
    assert 0.3 < pose[0] < 3.5 and abs(pose[1]) < 1.5
    goals = np.array([pose, pose + [0.49, 0, 0], pose + [0, 0, np.radians(21)]])
    assert reached_by(pose, goals, 'walk_to').tolist() == [True, True, False]


@pytest.mark.parametrize(('options', 'message'), [
    (['--checkpoints', 'x'], 'goes together'), (['--baselines', 'x'], 'goes together'),
    (['--scenes', '0'], 'at least 1'),
    (['--camera-path', '-1'], 'minutes'), (['--action', 'reach'], 'furnished'),
    (['--video', '.'], 'folder')])
def test_bad_arguments_are_refused_before_anything_is_run(options, message, capsys):
    assert main(['evaluate', *options]) == 1
    assert message in capsys.readouterr().err


def test_one_command_prints_every_row(tiny_bundle, capsys):
    assert main(['evaluate', '--bundle', str(tiny_bundle), '--scenes', '2', '--retargeted', '1',
                 '--threads', '1', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    rows = {row['figure']: row for row in report['rows']}
    assert report['bundle'] == Bundle.open(tiny_bundle).hash
    for name in (*figures.ROBOT_FIGURES, *figures.SPEED_FIGURES):
        assert rows[name]['value'] is not None
    for name in figures.CAMERA_FIGURES:
        assert rows[name]['met'] is None and '--camera-path' in rows[name]['note']
    goal = rows['goal reached']
    assert goal['goal'] == {'kind': 'at least', 'bound': 0.45} and len(goal['interval']) == 2
    assert goal['value'] == report['details']['walk_to']['told']['reached']
    assert rows['tokenizer, pelvis- and heading-aligned MPJPE']['value'] is None
