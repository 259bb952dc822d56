# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Generated motion meets recordings of its own action and speed only; ratios as by hand."""

from __future__ import annotations

from dataclasses import replace

from fixtures_gait import walking_motion
import mujoco
import numpy as np
import pytest

from egomotion_ros.body.edits import place
from egomotion_ros.body.features import heading
from egomotion_ros.body.rotations import yaw_matrix
from egomotion_ros.commands.metrics import table
from egomotion_ros.data.library import MotionLibrary, Take, save_library
from egomotion_ros.evaluation import realism, report
from egomotion_ros.evaluation.leaks import library_leaks, text_leaks
from egomotion_ros.evaluation.physics import at_scale, robot_physics, tracking_error
from egomotion_ros.evaluation.realism import Window, human_trace, robot_trace
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.quality import configurations, self_collisions
from egomotion_ros.retarget.retargeter import Retargeter
from egomotion_ros.types import HumanMotion, PlanarPose, RobotMotion


@pytest.fixture(scope='module')
def walk() -> HumanMotion:
    return walking_motion(1.2, 3.0)


@pytest.fixture(scope='module')
def robot() -> RobotDescription:
    return RobotDescription.load('unitree_g1')


def cells(motion: HumanMotion) -> set[str]:
    return {window.cell for window in realism.windows(human_trace(motion, 'a'))}


def turning(rate: float) -> HumanMotion:
    """A standing body on a turntable, ``rate`` rad/s."""
    still = walking_motion(0.0, 2.0)
    turns = yaw_matrix(rate * np.arange(still.frames) / 30)
    rotations = still.rotations.copy()
    rotations[:, 0] = turns @ rotations[:, 0]
    return replace(still, rotations=rotations)


def test_windows_are_named_by_what_happens_in_them(walk) -> None:
    assert cells(walk) == {'walk 1.0 m/s'}
    assert cells(walking_motion(0.55, 2.0)) == {'walk 0.4 m/s'}
    assert cells(walking_motion(0.0, 2.0)) == {'stand'}
    assert cells(turning(0.5)) == {'turn'}
    assert cells(turning(0.2)) == {'stand'}
    # A run is outside all bands, and so is what is shorter than a second.
    assert cells(walking_motion(2.5, 2.0)) == set()
    assert cells(walking_motion(1.2, 0.9)) == set()


def test_a_hand_that_moves_makes_standing_a_gesture(gait_library) -> None:
    from egomotion_ros.data.synthesis import synthesise
    wave = synthesise('wave', {'side': 'right'}, np.random.default_rng(0), gait_library, 'train')
    assert 'gesture' in cells(wave)


def test_where_a_motion_stands_and_faces_changes_nothing(walk) -> None:
    here = realism.windows(human_trace(walk, 'a'))
    there = realism.windows(human_trace(place(walk, PlanarPose(3.0, -2.0, 2.0)), 'a'))
    for a, b in zip(here, there, strict=True):
        assert a.cell == b.cell
        assert a.figures == pytest.approx(b.figures, rel=1e-6)


def test_a_larger_skeleton_is_measured_in_human_units(walk) -> None:
    here = realism.windows(human_trace(walk, 'a'))
    small = realism.windows(human_trace(at_scale(walk, 0.7), 'a'))
    assert [w.cell for w in here] == [w.cell for w in small]
    assert here[0].figures == pytest.approx(small[0].figures, rel=1e-6)


def test_slide_does_not_depend_on_the_shoes_a_body_stands_in(walk) -> None:
    bare, shod = human_trace(walk, 'a'), human_trace(
        replace(walk, root_position=walk.root_position + [0.0, 0.0, 0.02]), 'a')
    np.testing.assert_allclose(realism.standing(shod) - realism.standing(bare), 0.02, atol=1e-9)
    own, skeleton, joints, _ = (np.array(column) for column in zip(
        *(w.figures for w in realism.windows(shod)), strict=True))
    expected = np.array([w.figures for w in realism.windows(bare)])
    np.testing.assert_allclose(own, expected[:, 0], rtol=1e-6)
    # Measured from the bare skeleton's feet, the same sliding counts less.
    assert (skeleton < 0.9 * expected[:, 1]).all()
    assert (joints < expected[:, 2]).all()
    # What floats does not count as shod.
    high = replace(bare, above=bare.above + 0.2)
    np.testing.assert_allclose(realism.standing(high), realism.SHOES)
    # A foot that never rests tells no height.
    fast = replace(bare, feet=bare.feet + 0.01 * np.arange(len(bare.feet))[:, None, None])
    assert (realism.standing(fast) == 0.0).all()


def make(cell: str, value: float, count: int, clip: str = 'c') -> list[Window]:
    figures = (value,) * len(realism.FIGURES)
    return [Window(f'{clip}{n}', cell, figures) for n in range(count)]


def test_ratio_weighs_cells_as_the_generated_motion_fills_them() -> None:
    made = make('stand', 2.0, 9) + make('walk 1.0 m/s', 6.0, 3)
    # However many more walks were recorded: (0.75 * 2 + 0.25 * 6) / (0.75 * 1 + 0.25 * 2) = 2.4.
    real = make('stand', 1.0, 4, 'r') + make('walk 1.0 m/s', 2.0, 40, 'r')
    out = realism.compare(made, real)
    assert out['matched'] == 1.0
    found = out['groups']['all']['foot slide']
    assert found['ratio'] == pytest.approx(2.4)
    assert found['made'] == pytest.approx(3.0) and found['recorded'] == pytest.approx(1.25)
    assert found['interval'][0] <= 2.4 <= found['interval'][1]
    assert out['groups']['stand']['jerk']['ratio'] == pytest.approx(2.0)
    assert out['groups']['walk 1.0 m/s']['jerk']['ratio'] == pytest.approx(3.0)


def test_cells_without_recordings_are_left_out_and_named() -> None:
    made = make('stand', 2.0, 3) + make('turn', 50.0, 1)
    out = realism.compare(made, make('stand', 1.0, 3) + make('turn', 1.0, realism.LEAST - 1))
    assert out['not matched'] == ['turn']
    assert out['matched'] == pytest.approx(0.75)
    assert out['groups']['all']['jerk']['ratio'] == pytest.approx(2.0)
    assert realism.compare(made, make('walk 0.4 m/s', 1.0, 9))['groups'] == {}
    with pytest.raises(ValueError, match='30 frames'):
        realism.compare([], made)


def test_windows_of_one_performance_make_no_certainty() -> None:
    rng = np.random.default_rng(0)
    made = make('stand', 1.0, 50)
    many = [Window(f'r{n}', 'stand', (x,) * len(realism.FIGURES))
            for n, x in enumerate(rng.uniform(0.2, 1.8, 40))]
    few = [replace(window, clip=f'r{n % 2}') for n, window in enumerate(many)]
    low, high = realism.compare(made, many)['groups']['all']['jerk']['interval']
    assert 0.0 < high - low < 0.6
    # Two performances of 20 windows each: only four ways to draw them.
    values = {round(realism.compare(made, few, seed)['groups']['all']['jerk']['interval'][0], 9)
              for seed in range(3)}
    assert len(values) == 1


def test_a_robot_is_measured_where_the_human_is(walk, robot) -> None:
    figures, motions = robot_physics(Retargeter(robot), [walk])
    assert figures['limit violations'] == 0
    assert 0.0 < figures['tracking error mm'] < 60.0
    trace = robot_trace(robot, motions[0], 'a')
    joints = realism.linked_joints(robot)
    human = human_trace(walk, 'a', joints)
    assert trace.points.shape[1] == human.points.shape[1] == len(joints)
    # In human metres and up to where the robot comes to rest, both go the same way.
    middle = slice(20, 60)
    assert np.abs(np.diff(trace.root[middle, 0]) - np.diff(human.root[middle, 0])).mean() < 0.005
    assert np.abs(trace.yaw[middle] - heading(walk.rotations[middle, 0])).max() < 0.15
    assert {w.cell for w in realism.windows(trace)[:2]} == {'walk 1.0 m/s'}
    # A foot that stands flat is as high as the human's joint is in flat standing.
    low = np.quantile(trace.feet[..., 2], 0.2, axis=0)
    assert low == pytest.approx([0.085, 0.085, 0.02, 0.02], abs=0.02)


@pytest.fixture(scope='module')
def stood(robot) -> tuple[Retargeter, HumanMotion, RobotMotion]:
    """A person who stands, in the size of the robot, and what the robot makes of it."""
    retargeter = Retargeter(robot)
    human = at_scale(walking_motion(0.0, 1.0), robot.scale)
    return retargeter, human, retargeter.retarget(human)


def test_tracking_error_is_the_distance_by_which_bodies_are_off(stood) -> None:
    retargeter, human, motion = stood
    own = tracking_error(*stood)
    assert 0.0 < own < 0.03
    # A metre aside all the time; for twice as many rows it is twice as much.
    more = []
    for rows in (motion.steps, 20, 10):
        aside = motion.root_position.copy()
        aside[:rows, 1] += 1.0
        more.append(tracking_error(retargeter, human, replace(motion, root_position=aside)) - own)
    assert more[0] == pytest.approx(1.0, abs=own)
    assert 0.2 < more[2] < 0.3 and more[1] == pytest.approx(2 * more[2], rel=0.02)
    # One hand of the five bodies that count (pelvis, feet, hands) is off: a fifth of its way.
    description = retargeter.description
    raised = motion.positions.copy()
    raised[:, description.joint_names.index('left_shoulder_pitch_joint')] -= 1.0
    lifted = replace(motion, positions=raised)
    model = description.kinematics
    data, hand = mujoco.MjData(model), model.body('left_wrist_yaw_link').id
    places = []
    for qpos in (configurations(description, m, model)[0] for m in (motion, lifted)):
        data.qpos = qpos
        mujoco.mj_kinematics(model, data)
        places.append(data.xpos[hand].copy())
    way = np.linalg.norm(places[1] - places[0])
    assert way > 0.2
    assert tracking_error(retargeter, human, lifted) == pytest.approx(way / 5, abs=own)


def test_rows_in_self_collision_are_counted_one_by_one(stood) -> None:
    retargeter, _, motion = stood
    description = retargeter.description
    shoulder, hip = (description.joint_names.index(f'left_{name}_roll_joint')
                     for name in ('shoulder', 'hip'))
    assert self_collisions(description, motion) == 0
    # The upper arm goes through the chest in seven rows, the thigh through the other in four, of
    # which two are the same.
    inward = motion.positions.copy()
    inward[5:12, shoulder] = -0.6
    assert self_collisions(description, replace(motion, positions=inward)) == 7
    inward[10:14, hip] = -0.5
    assert self_collisions(description, replace(motion, positions=inward)) == 9
    # Away from the body they touch nothing.
    outward = motion.positions.copy()
    outward[5:12, shoulder], outward[10:14, hip] = 1.0, 0.3
    assert self_collisions(description, replace(motion, positions=outward)) == 0


def test_diversity_of_two_answers_is_their_distance(walk) -> None:
    aside = replace(walk, root_position=walk.root_position + [0.0, 0.5, 0.0])
    out = realism.pose_diversity([walk, aside])
    assert out['joints m'] == pytest.approx(0.5)
    assert out['end m'] == pytest.approx(0.5)
    assert out['end deg'] == pytest.approx(0.0, abs=1e-6)
    # Three answers, two alike: distances 0, 0.5, 0.5.
    assert realism.pose_diversity([walk, walk, aside])['end m'] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match='two samples'):
        realism.pose_diversity([walk])


def test_verbatim_texts_are_counted_whatever_their_case_and_spaces() -> None:
    out = text_leaks(['Walk  to the box', 'stand still'],
                     ['walk to the box', 'walk to the box', 'turn left', 'stand  there'])
    assert out['share'] == pytest.approx(0.5)
    assert out['unique'] == pytest.approx(1 / 3)
    assert out['examples'] == ['walk to the box']


def test_instructions_that_were_not_audited_are_said_to_be(tmp_path) -> None:
    save_library(tmp_path, [Take(split, split, f'walk {split}', 'walk', split, f'{split}.bvh',
                                 motion.frames, 1.0, 0.0, False, False, motion)
                            for split, motion in (('train', walking_motion(1.2, 4.0)),
                                                  ('test', walking_motion(0.9, 4.0)))])
    library, asked = MotionLibrary.open(tmp_path), ['walk to the box', 'turn left']
    without, audited = (report._leaks(library, texts, asked) for texts in (None, asked[:1]))
    assert without['instructions'].startswith('not audited: ')
    assert audited['instructions']['share'] == pytest.approx(0.5)

    def shown(leaks: dict[str, object]) -> str:
        text = table({'bundle': 'abc', 'episodes': 2, 'leaks': leaks})
        return next(line for line in text.splitlines() if 'instructions' in line)

    assert 'instructions: not audited: ' in shown(without) and '--train-episodes' in shown(without)
    assert 'not audited' not in shown(audited)
    assert '50% of 2 held-out texts stand verbatim' in shown(audited)


def test_a_recording_under_two_names_across_splits_is_found(tmp_path) -> None:
    from readers_support import walk as recorded_walk

    from egomotion_ros.body.edits import resample, slice_frames

    def take(name: str, split: str, motion: HumanMotion) -> Take:
        return Take(name, name, f'walk {name}', 'walk', split, f'{name}.bvh', motion.frames, 1.0,
                    0.0, False, False, motion)

    walks = [resample(recorded_walk(6.0, 120.0, turn=0.2 * i, seed=i), 30.0) for i in range(3)]
    clean = [take('one', 'train', walks[0]), take('two', 'val', walks[1]),
             take('three', 'test', walks[2])]
    save_library(tmp_path, clean)
    out = library_leaks(MotionLibrary.open(tmp_path))
    assert out['recordings across splits'] == [] and out['performances across splits'] == []
    assert out['labels']['share'] == 0.0
    copy = slice_frames(walks[0], 25, 170)
    save_library(tmp_path, [*clean, take('copy', 'test', copy)])
    assert library_leaks(MotionLibrary.open(tmp_path))['recordings across splits'] == [
        'copy (test) = one (train)']
