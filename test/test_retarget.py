# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Retargeting: limits, feet, continuity and refusals, on three robots."""

from dataclasses import replace
from pathlib import Path
import sys
import time

import mujoco
import numpy as np
import pytest

from egomotion_ros.body.rotations import quaternion_to_matrix, yaw_matrix
from egomotion_ros.body.skeleton import JOINT_INDEX
from egomotion_ros.nodes.player import Player
from egomotion_ros.retarget import ik
from egomotion_ros.retarget.beginning import MARGIN, stop_after
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.joining import decelerate, join, sample
from egomotion_ros.retarget.limits import check
from egomotion_ros.retarget.quality import (
    configurations,
    human_feet,
    robot_feet,
    self_collisions,
)
from egomotion_ros.retarget.retargeter import Retargeter

sys.path.insert(0, str(Path(__file__).resolve().parent))
from retarget_motions import TOY_MJCF, TOY_YAML, standing, turn, walk, wild  # noqa: E402


@pytest.fixture(scope='module')
def toy_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp('toy')
    (folder / 'toy.xml').write_text(TOY_MJCF)
    (folder / 'toy.yaml').write_text(TOY_YAML)
    return folder / 'toy.yaml'


@pytest.fixture(scope='module')
def retargeters(toy_file):
    names = ('unitree_g1', 'booster_t1', toy_file)
    made = [Retargeter(RobotDescription.load(name)) for name in names]
    return {r.description.name: r for r in made}


@pytest.fixture(params=['unitree_g1', 'booster_t1', 'toy'])
def retargeter(request, retargeters):
    return retargeters[request.param]


@pytest.fixture
def g1(retargeters):
    return retargeters['unitree_g1']


def foot_track(description, motion):
    """Positions (T, 2, 4, 3) of the corners of the soles."""
    model, data = description.kinematics, mujoco.MjData(description.kinematics)
    out = np.empty((motion.steps, 2, 4, 3))
    for row, qpos in enumerate(configurations(description, motion, model)):
        data.qpos = qpos
        mujoco.mj_kinematics(model, data)
        for side, foot in enumerate(description.feet):
            body = data.body(foot.body)
            out[row, side] = body.xpos + foot.points @ body.xmat.reshape(3, 3).T
    return out


def assert_inside(motion, description):
    violations = check(motion, description.limits)
    assert violations.total == 0, violations
    assert violations.acceleration == 0, violations
    for array in (motion.positions, motion.root_position, motion.root_quaternion):
        assert np.isfinite(array).all()
    np.testing.assert_allclose(np.linalg.norm(motion.root_quaternion, axis=1), 1.0, atol=1e-9)
    np.testing.assert_allclose(motion.velocities[-1], 0.0, atol=1e-12)
    np.testing.assert_allclose(motion.root_twist[-1], 0.0, atol=1e-9)


def test_walk_keeps_every_limit_and_ends_at_rest(retargeter):
    description = retargeter.description
    human = walk(scale=description.scale)
    motion = retargeter.retarget(human)
    assert motion.joint_names == description.joint_names
    assert motion.steps >= human.frames
    assert_inside(motion, description)
    way = motion.root_position[-1, 0] - motion.root_position[0, 0]
    assert way == pytest.approx(human.root_position[-1, 0], abs=0.03)


def test_planted_feet_are_flat_on_the_floor_and_stand_still(retargeter):
    description = retargeter.description
    human = walk(scale=description.scale)
    motion = retargeter.retarget(human)
    corners = foot_track(description, motion)
    assert corners[..., 2].min() > -0.008
    planted = motion.contacts >= 0.5
    assert 0.3 < planted.mean() < 0.9
    for side in range(2):
        # Rows well inside a contact.
        deep = planted[:, side].copy()
        for shift in (1, 2, -1, -2):
            deep &= np.roll(planted[:, side], shift)
        heights = corners[deep, side, :, 2]
        assert np.abs(heights).max() < 0.008
        both = deep[1:] & deep[:-1]
        speed = np.linalg.norm(np.diff(corners[:, side, :, :2], axis=0), axis=-1)[both] * 30
        assert speed.mean() < 0.03


def test_feet_slide_no_more_than_those_of_the_human(retargeter):
    description = retargeter.description
    human = walk(scale=description.scale)
    of_human, of_robot = (
        human_feet(human),
        robot_feet(description, retargeter.retarget(human)),
    )
    assert of_robot.slide <= 1.5 * of_human.slide
    assert of_robot.stance_speed <= 1.5 * max(of_human.stance_speed, 0.02)


def test_swing_feet_leave_the_floor(g1):
    motion = g1.retarget(walk(scale=g1.description.scale))
    corners = foot_track(g1.description, motion)
    assert (corners[:, :, :, 2].min(axis=2).max(axis=0) > 0.03).all()


def test_a_foot_that_spins_in_contact_is_put_down_anew(g1):
    description = g1.description
    human = standing(frames=90, scale=description.scale)
    share = np.clip((np.arange(90) - 20) / 40, 0, 1)
    spun = yaw_matrix(1.6 * share**2 * (3 - 2 * share))
    around = replace(
        human,
        root_position=np.einsum('tij,tj->ti', spun, human.root_position),
        rotations=np.concatenate(
            [(spun @ human.rotations[:, 0])[:, None], human.rotations[:, 1:]], axis=1
        ),
        contacts=np.ones((90, 4)),
    )
    motion = g1.retarget(around)
    assert motion.contacts[:15].min() == 1.0
    assert motion.contacts[35:45].max() == 0.0
    corners = foot_track(description, motion)
    assert corners[40, :, :, 2].min() > 0.01
    toward = (corners[-1, :, 2:] - corners[-1, :, :2]).mean(axis=1)
    np.testing.assert_allclose(np.arctan2(toward[:, 1], toward[:, 0]), 1.6, atol=0.1)
    assert self_collisions(description, motion) == 0
    assert_inside(motion, description)


@pytest.mark.parametrize('name', ['unitree_g1', 'booster_t1'])
def test_arms_that_would_pass_through_the_body_are_kept_beside_it(name):
    description = RobotDescription.load(name)
    human = walk(90, scale=description.scale)
    rotations = human.rotations.copy()
    for side, sign in (('left', -1.0), ('right', 1.0)):
        rotations[:, JOINT_INDEX[f'{side}_shoulder']] @= turn([0, 0, 1], [0.6 * sign])
    pressed = replace(human, rotations=rotations)
    through = Retargeter(replace(description, clearances=())).retarget(pressed)
    assert self_collisions(description, through) > 20
    beside = Retargeter(description).retarget(pressed)
    assert self_collisions(description, beside) == 0
    assert_inside(beside, description)


def test_an_arm_swung_as_fast_as_in_a_kick_brakes_before_the_body(g1, monkeypatch):
    description = g1.description
    human = standing(frames=90, scale=description.scale)
    share = np.clip((np.arange(90) - 30) / 4, 0, 1)
    rotations = human.rotations.copy()
    rotations[:, JOINT_INDEX['right_shoulder']] @= turn(
        [0, 0, 1], -0.5 + 1.4 * share**2 * (3 - 2 * share)
    )
    swung = replace(human, rotations=rotations)
    motion = g1.retarget(swung)
    assert self_collisions(description, motion) == 0
    assert_inside(motion, description)
    # Seen as late as that, and closing half of the gap a step, it cannot.
    monkeypatch.setattr(ik, 'NEARBY', 0.05)
    monkeypatch.setattr(ik, 'CLOSING', 0.5)
    assert self_collisions(description, g1.retarget(swung)) > 0


def test_stances_that_low_contact_joins_are_stepped_between(g1):
    human = walk(scale=g1.description.scale)
    contacts = human.contacts.copy()
    contacts[:, 3] = np.maximum(contacts[:, 3], 0.6)
    clean, unsure = (g1.retarget(replace(human, contacts=c)) for c in (human.contacts, contacts))
    # Held in one place for the whole motion, the foot would pull the pelvis to the floor.
    assert np.abs(unsure.root_position - clean.root_position).max() < 0.05
    tracks = [foot_track(g1.description, motion)[:, 1] for motion in (clean, unsure)]
    assert np.abs(tracks[1] - tracks[0])[..., :2].max() < 0.1


def test_g1_walks_upright_with_bent_knees(g1):
    description = g1.description
    motion = g1.retarget(walk(scale=description.scale))
    knees = [description.joint_names.index(f'{s}_knee_joint') for s in ('left', 'right')]
    assert motion.positions[:, knees].min() > 0.1
    assert motion.positions[:, knees].max() > 0.6
    up = quaternion_to_matrix(motion.root_quaternion)[:, 2, 2]
    assert up.min() > np.cos(0.2)
    np.testing.assert_allclose(
        motion.root_position[:, 2], description.home_height, atol=0.15 * description.home_height
    )
    assert self_collisions(description, motion) == 0


def test_standing_human_gives_the_standing_robot(g1):
    description = g1.description
    motion = g1.retarget(standing(scale=description.scale))
    legs = slice(0, 12)
    np.testing.assert_allclose(motion.positions[-1, legs], description.standing[legs], atol=0.5)
    assert np.ptp(motion.positions, axis=0).max() < 0.02
    assert motion.contacts.min() == 1.0


def test_base_twist_is_the_derivative_of_the_base_pose(g1):
    motion = g1.retarget(walk(scale=g1.description.scale, speed=1.2))
    step = motion.step_dt
    linear = (motion.root_position[2:] - motion.root_position[:-2]) / (2 * step)
    np.testing.assert_allclose(linear, motion.root_twist[1:-1, :3], atol=0.06)
    rotation = quaternion_to_matrix(motion.root_quaternion)
    spin = (rotation[2:] - rotation[:-2]) / (2 * step) @ np.swapaxes(rotation[1:-1], 1, 2)
    vector = np.stack([spin[:, 2, 1], spin[:, 0, 2], spin[:, 1, 0]], axis=1)
    np.testing.assert_allclose(vector, motion.root_twist[1:-1, 3:], atol=0.15)


def test_first_row_is_the_measured_state(retargeter):
    description = retargeter.description
    rng = np.random.default_rng(1)
    middle = 0.5 * (description.limits.lower + description.limits.upper)
    measured = description.standing + 0.2 * rng.uniform(0, 1) * (middle - description.standing)
    human = walk(scale=description.scale)
    motion = retargeter.retarget(human, joint_positions=measured)
    np.testing.assert_allclose(motion.positions[0], measured, atol=1e-9)
    np.testing.assert_allclose(motion.velocities[0], 0.0, atol=1e-9)
    assert_inside(motion, description)


def test_base_starts_where_it_was_measured(g1):
    description = g1.description
    base = np.array([0.05, -0.02, description.home_height - 0.01])
    quaternion = np.array([0.0, 0.0, np.sin(0.1), np.cos(0.1)])
    human = walk(scale=description.scale)
    motion = g1.retarget(human, description.standing, (base, quaternion))
    np.testing.assert_allclose(motion.root_position[0], base, atol=1e-9)
    assert abs(motion.root_quaternion[0] @ quaternion) > 1 - 1e-9
    np.testing.assert_allclose(motion.positions[0], description.standing, atol=1e-9)
    assert_inside(motion, description)
    # A foot that stands is not dragged to where the human's stands.
    corners = foot_track(description, motion)
    side = int(motion.contacts[0].argmax())
    rows = int(motion.contacts[:, side].argmin())
    assert rows >= 3
    moved = corners[:rows, side, :, :2] - corners[0, side, :, :2]
    assert np.abs(moved).max() < 0.01


def test_measured_velocity_is_taken_over(g1):
    description = g1.description
    speed = np.zeros(len(description.joint_names))
    speed[15] = 1.5
    motion = g1.retarget(
        walk(scale=description.scale), description.standing, joint_velocities=speed
    )
    np.testing.assert_allclose(motion.velocities[0], speed, atol=1e-9)
    assert_inside(motion, description)


@pytest.mark.parametrize('seed', range(4))
def test_impossible_motions_stay_inside_the_limits(retargeter, seed):
    description = retargeter.description
    human = wild(seed=seed, scale=description.scale)
    assert_inside(retargeter.retarget(human), description)
    motion = retargeter.retarget(human, joint_positions=description.standing)
    np.testing.assert_allclose(motion.positions[0], description.standing, atol=1e-9)
    assert_inside(motion, description)


def test_start_at_the_limits_is_possible(g1):
    limits = g1.description.limits
    human = walk(frames=60, scale=g1.description.scale)
    for corner in (limits.lower, limits.upper):
        motion = g1.retarget(human, joint_positions=corner)
        np.testing.assert_allclose(motion.positions[0], corner, atol=1e-9)
        assert_inside(motion, g1.description)


def test_any_frame_rate_gives_rows_at_30_hz(g1):
    scale = g1.description.scale
    slow = g1.retarget(walk(frames=75, scale=scale, fps=30.0))
    fast = g1.retarget(walk(frames=149, scale=scale, fps=60.0))
    assert slow.step_dt == fast.step_dt == pytest.approx(1 / 30)
    rows = 60
    np.testing.assert_allclose(slow.root_position[:rows], fast.root_position[:rows], atol=0.02)


def test_joined_and_stopped_robot_motions_stay_inside_the_limits(g1):
    description = g1.description
    running = g1.retarget(walk(scale=description.scale))
    turned = walk(scale=description.scale, speed=0.7)
    turned = replace(turned, root_position=turned.root_position + [0.5, 0.1, 0.0])
    begin = sample(running, 1.0)
    new = g1.retarget(
        turned, begin.positions, (begin.root_position, begin.root_quaternion), begin.velocities
    )
    joined, start = join(running, 1.3, new, 1.0, description.limits, description.root_limits)
    assert_inside(joined, description)
    stop, _ = decelerate(joined, 1.0, sample(joined, 1.0), description.limits)
    assert_inside(stop, description)
    corners = foot_track(description, stop)
    assert corners[..., 2].min() > -0.01


ROWS = ('positions', 'velocities', 'root_position', 'root_quaternion', 'root_twist', 'contacts')


def assert_same_rows(one, other, rows):
    for name in ROWS:
        a, b = getattr(one, name)[:rows], getattr(other, name)[:rows]
        np.testing.assert_allclose(a, b, rtol=0.0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize('first', [0.0, 0.51, 1.1])
def test_rows_handed_over_early_are_those_of_the_whole_and_come_to_rest(retargeter, first):
    description = retargeter.description
    for human in (walk(scale=description.scale, speed=1.3), wild(scale=description.scale, seed=5)):
        for measured in (None, description.standing):
            early = []
            # Both new: where the solver starts looking depends on the motion before.
            alone = Retargeter(description).retarget(human, measured)
            motion = Retargeter(description).retarget(human, measured, None, None, first,
                                                      early.append)
            (part,) = early
            solved = int(np.ceil(30 * first)) + 1
            assert solved < part.steps < motion.steps
            assert_same_rows(part, motion, solved)
            # Further on the part is another motion, and to have made it changed nothing.
            assert np.abs(part.positions[solved] - motion.positions[solved]).max() > 1e-6
            assert_same_rows(motion, alone, motion.steps)
            assert_inside(part, description)
            for row in {0, solved // 2, solved - 1}:
                stopped = stop_after(part, row, description.limits, description.root_limits)
                assert_same_rows(stopped, motion, row + 1)
                assert_inside(stopped, description)


def test_a_motion_that_is_solved_at_once_is_not_handed_over_early(g1):
    human = walk(frames=30, scale=g1.description.scale)
    early = []
    g1.retarget(human, first=5.0, on_first=early.append)
    assert early == []


def test_what_the_taker_of_the_first_rows_raises_ends_the_retargeting(g1):
    human = walk(frames=30, scale=g1.description.scale)

    def refuse(part):
        raise RuntimeError('not wanted')

    with pytest.raises(RuntimeError, match='not wanted'):
        g1.retarget(human, first=0.1, on_first=refuse)
    # Nothing of it is left in the next motion.
    after, alone = g1.retarget(human), Retargeter(g1.description).retarget(human)
    np.testing.assert_allclose(after.positions, alone.positions, atol=1e-6)


@pytest.mark.parametrize('seed', range(5))
def test_a_beginning_and_the_whole_join_a_running_motion_alike(g1, seed):
    description = g1.description
    player = Player(description.limits, description.root_limits)
    rng = np.random.default_rng(seed)
    human = walk(scale=description.scale, speed=rng.uniform(0.5, 1.0))
    player.begin(g1.retarget(human), human, 0)
    observed = round(1e9 * rng.uniform(0.8, 1.5))
    now = observed + round(1e9 * rng.uniform(0.1, 0.5))
    state = player.state(observed)
    new = walk(scale=description.scale, speed=1.2)
    if seed >= 3:
        new = wild(frames=150, scale=description.scale, seed=seed)
    aside = state.root_position * [1.0, 1.0, 0.0] + [0.1, 0.05, 0.0]
    new = replace(new, root_position=new.root_position + aside)
    solved, early = 1e-9 * (now - observed) + 0.6 + MARGIN, []
    base = (state.root_position, state.root_quaternion)
    motion = g1.retarget(new, state.positions, base, state.velocities, solved, early.append)
    begun = player.open('a', early[0], solved, new, observed, now, 0.1, 0.4)
    assert player.begun('a') == observed and player.begun('b') is None
    whole = player.complete(motion, new, now + 50_000_000, 0.1, 0.4)
    assert player.begun('a') is None
    assert whole.start == begun.start
    stop = round(1e-9 * (begun.beginning.stop - begun.start) * 30)
    assert 0.5 < 1e-9 * (begun.beginning.stop - now) <= 0.6 + 1e-6
    assert_same_rows(begun.motion, whole.motion, stop + 1)
    assert_inside(begun.motion, description)
    assert_inside(whole.motion, description)


def test_150_frames_take_at_most_150_ms_of_one_core(g1):
    human = walk(frames=150, scale=g1.description.scale)
    spent = []
    for _ in range(4):
        begin = time.process_time()
        g1.retarget(human)
        spent.append(time.process_time() - begin)
    assert min(spent) <= 0.150


def broken(motion, **changes):
    return replace(motion, **{k: v(getattr(motion, k).copy()) for k, v in changes.items()})


def put(value):
    def change(array):
        array[3] = value
        return array

    return change


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'root_position': put(np.nan)}, 'root_position'),
        ({'rotations': put(np.inf)}, 'rotations'),
        ({'rotations': lambda a: 1.1 * a}, 'not rotation matrices'),
        ({'rotations': lambda a: -a}, 'not rotation matrices'),
        ({'rotations': lambda a: a[:, :21]}, 'rotations: expected'),
        ({'contacts': lambda a: a[:-1]}, 'contacts: expected'),
        ({'contacts': put(np.nan)}, 'contacts'),
    ],
)
def test_broken_human_motions_are_refused(g1, changes, message):
    with pytest.raises(ValueError, match=message):
        g1.retarget(broken(walk(frames=20, scale=g1.description.scale), **changes))


def test_motions_without_length_rate_or_size_are_refused(g1):
    good = walk(frames=20, scale=g1.description.scale)
    one = replace(
        good,
        root_position=good.root_position[:1],
        rotations=good.rotations[:1],
        contacts=good.contacts[:1],
    )
    with pytest.raises(ValueError, match='2 frames'):
        g1.retarget(one)
    with pytest.raises(ValueError, match='fps'):
        g1.retarget(replace(good, fps=0.0))
    with pytest.raises(ValueError, match='scale'):
        g1.retarget(replace(good, scale=float('nan')))


def test_bad_measured_states_are_refused(g1):
    description = g1.description
    human = walk(frames=20, scale=description.scale)
    nan = description.standing.copy()
    nan[2] = np.nan
    far = description.standing.copy()
    far[3] = -0.5
    with pytest.raises(ValueError, match='joint_positions: expected'):
        g1.retarget(human, joint_positions=nan)
    with pytest.raises(ValueError, match='joint_positions: expected'):
        g1.retarget(human, joint_positions=description.standing[:5])
    with pytest.raises(ValueError, match='left_knee_joint is at -0.500'):
        g1.retarget(human, joint_positions=far)
    with pytest.raises(ValueError, match='unit quaternion'):
        g1.retarget(human, description.standing, (np.zeros(3), np.zeros(4)))
    with pytest.raises(ValueError, match='measured base needs'):
        g1.retarget(human, root=(np.zeros(3), np.array([0.0, 0, 0, 1])))
    with pytest.raises(ValueError, match='solves'):
        Retargeter(description, solves=0)
