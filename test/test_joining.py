# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Joining, stopping and holding robot motions: continuity and limits, on the 1 kHz curve."""

from dataclasses import replace

import numpy as np
import pytest

from egomotion_ros.retarget.joining import (
    LOST,
    MotionState,
    decelerate,
    hold,
    join,
    sample,
    still,
)
from egomotion_ros.retarget.limits import Box, JointLimits, RootLimits, check, govern
from egomotion_ros.retarget.root import smooth, to_quaternions
from egomotion_ros.retarget.spline import waypoints
from egomotion_ros.types import RobotMotion

JOINTS = 6
NAMES = tuple(f'joint_{i}' for i in range(JOINTS))
STEP = 1.0 / 30.0
LIMITS = JointLimits(
    lower=np.array([-1.0, -0.1, -2.0, 0.0, -0.3, -3.0]),
    upper=np.array([1.0, 2.8, 0.5, 2.5, 0.3, 3.0]),
    velocity=np.array([10.0, 20.0, 5.0, 30.0, 12.0, 2.0]),
    acceleration=np.array([80.0, 200.0, 60.0, 150.0, 100.0, 20.0]),
    joint_names=NAMES,
)
ROOT = RootLimits()


def yaw_rotation(yaw):
    c, s, zero, one = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw), np.ones_like(yaw)
    rows = [[c, -s, zero], [s, c, zero], [zero, zero, one]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def wild_motion(seed, rows=90, reach=1.3):
    """A motion that keeps the limits while its targets jump across and beyond them."""
    rng = np.random.default_rng(seed)
    middle, half = (LIMITS.upper + LIMITS.lower) / 2, (LIMITS.upper - LIMITS.lower) / 2
    knots = middle + reach * half * rng.uniform(-1, 1, (rows // 6 + 1, JOINTS))
    targets = np.repeat(knots, 6, axis=0)[:rows]
    box = Box.of_joints(LIMITS, STEP)
    begin = np.clip(targets[0], LIMITS.lower, LIMITS.upper)
    control = govern(targets, box.start(begin, np.zeros(JOINTS), STEP), box)
    positions, velocities = waypoints(control, STEP)
    rows = len(positions)
    root_box = Box.of_root_position(ROOT, STEP)
    path = np.cumsum(rng.normal(0, 0.02, (rows - 2, 3)), axis=0) + rng.uniform(-0.2, 0.2, 3)
    root = govern(path, root_box.start(path[0], np.zeros(3), STEP), root_box)
    tail = rows + 2 - len(root)
    root = root[: rows + 2] if tail < 0 else np.concatenate([root, np.repeat(root[-1:], tail, 0)])
    root[-3:] = root[-3]
    yaw = np.cumsum(rng.normal(0, 0.03, rows + 2)) + rng.uniform(-3, 3)
    yaw[:3], yaw[-3:] = yaw[2], yaw[-3]
    rotation = yaw_rotation(yaw)
    rate = np.concatenate([np.zeros((rows, 2)), ((yaw[2:] - yaw[:-2]) / (2 * STEP))[:, None]], 1)
    root_position, linear = waypoints(root, STEP)
    return RobotMotion(
        joint_names=NAMES,
        step_dt=STEP,
        positions=positions,
        velocities=velocities,
        root_position=root_position,
        root_quaternion=to_quaternions(smooth(rotation)),
        root_twist=np.concatenate([linear, rate], axis=1),
        contacts=np.ones((rows, 2)),
    )


def yaw_of(quaternion):
    x, y, z, w = np.moveaxis(quaternion, -1, 0)
    return np.unwrap(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))


def assert_at_rest(motion):
    np.testing.assert_allclose(motion.velocities[-1], 0.0, atol=1e-12)
    np.testing.assert_allclose(motion.root_twist[-1], 0.0, atol=1e-12)


def assert_smooth_base(motion, slack=1.0):
    """On the 1 kHz curve nothing moves further than its speed allows, and speeds do not jump."""
    times = np.arange(0.0, motion.duration, 1e-3)
    state = sample(motion, times)
    twist = state.root_twist
    assert np.abs(np.diff(state.root_position, axis=0)).max() <= 1.01e-3 * ROOT.linear_velocity
    jump = np.abs(np.diff(twist[:, :3], axis=0)).max()
    assert jump <= slack * 1.01e-3 * ROOT.linear_acceleration
    moved = np.diff(yaw_of(state.root_quaternion))
    middle = 0.5 * (twist[1:, 5] + twist[:-1, 5])
    np.testing.assert_allclose(moved, 1e-3 * middle, atol=2e-4)


@pytest.mark.parametrize('seed', range(8))
def test_targets_that_jump_give_a_motion_inside_every_limit(seed):
    violations = check(wild_motion(seed), LIMITS)
    assert violations.total == 0
    assert violations.acceleration == 0
    assert violations.samples > 2900


def test_targets_inside_the_limits_are_followed_exactly():
    time = np.arange(120) * STEP
    targets = 0.2 + 0.1 * np.sin(2 * np.pi * 0.7 * time)[:, None] * np.ones(JOINTS)
    box = Box.of_joints(LIMITS, STEP)
    start = np.stack([2 * targets[0] - targets[1], targets[0], targets[1]])
    control = govern(targets, start, box)
    np.testing.assert_allclose(control[1 : 1 + len(targets)], targets, atol=1e-12)


def test_check_sees_a_violation_between_two_waypoints_that_are_fine():
    motion = hold(NAMES, still(np.zeros(JOINTS) + 0.1), duration=1.0)
    positions, velocities = motion.positions.copy(), motion.velocities.copy()
    positions[:, 4] = 0.29
    velocities[10, 4] = 6.0
    found = check(replace(motion, positions=positions, velocities=velocities), LIMITS)
    assert found.position > 0
    assert found.velocity == 0
    assert found.worst_joint == 'joint_4'
    assert check(replace(motion, positions=positions), LIMITS).total == 0


def test_sample_gives_rows_back_and_rests_outside_the_motion():
    motion = wild_motion(3)
    state = sample(motion, STEP * np.arange(motion.steps))
    np.testing.assert_allclose(state.positions, motion.positions, atol=1e-9)
    np.testing.assert_allclose(state.velocities, motion.velocities, atol=1e-9)
    np.testing.assert_allclose(state.root_twist, motion.root_twist, atol=1e-6)
    np.testing.assert_allclose(
        np.abs(np.sum(state.root_quaternion * motion.root_quaternion, axis=1)), 1.0, atol=1e-9
    )
    for time, row in ((-5.0, 0), (99.0, -1)):
        outside = sample(motion, time)
        np.testing.assert_allclose(outside.positions, motion.positions[row])
        assert not outside.velocities.any()
        assert not outside.root_twist.any()
    with pytest.raises(ValueError, match='finite'):
        sample(motion, float('nan'))


def test_sampled_twist_is_the_derivative_of_the_sampled_pose():
    motion = wild_motion(5)
    state = sample(motion, np.arange(0.2, 2.0, 1e-4))
    rate = np.gradient(state.root_position, 1e-4, axis=0)[1:-1]
    np.testing.assert_allclose(rate, state.root_twist[1:-1, :3], atol=5e-3)
    turn = np.gradient(yaw_of(state.root_quaternion), 1e-4)[1:-1]
    np.testing.assert_allclose(turn, state.root_twist[1:-1, 5], atol=2e-2)


@pytest.mark.parametrize('seed', range(10))
def test_join_has_no_seam_and_keeps_the_limits(seed):
    rng = np.random.default_rng(100 + seed)
    running, new = wild_motion(seed), wild_motion(seed + 50)
    now, stamp = float(rng.uniform(0.0, 2.5)), float(rng.uniform(-0.3, 0.5))
    if stamp + new.duration < now + 0.5:
        stamp = now - 0.3
    joined, start = join(running, now, new, stamp, LIMITS)
    assert start <= now < start + STEP
    # The first points are the running plan's own rows.
    first = round(start / STEP)
    rows = min(int(np.ceil((now + 0.1) / STEP - 1e-6)), running.steps - 1) - first + 1
    np.testing.assert_allclose(joined.positions[:rows], running.positions[first:][:rows])
    np.testing.assert_allclose(
        joined.velocities[:rows], running.velocities[first:][:rows], atol=1e-9
    )
    np.testing.assert_allclose(
        joined.root_position[:rows], running.root_position[first:][:rows], atol=1e-9
    )
    np.testing.assert_allclose(
        joined.root_twist[:rows], running.root_twist[first:][:rows], atol=1e-6
    )
    assert check(joined, LIMITS).total == 0
    assert check(joined, LIMITS).acceleration == 0
    assert_smooth_base(joined)
    assert_at_rest(joined)
    np.testing.assert_allclose(joined.positions[-1], new.positions[-1], atol=1e-9)
    np.testing.assert_allclose(joined.root_position[-1], new.root_position[-1], atol=1e-9)
    assert abs(np.dot(joined.root_quaternion[-1], new.root_quaternion[-1])) > 1 - 1e-9


def test_joining_a_plan_with_itself_changes_nothing():
    running = wild_motion(7)
    joined, start = join(running, 0.5, running, 0.0, LIMITS)
    first = round(start / STEP)
    count = running.steps - first
    np.testing.assert_allclose(joined.positions[:count], running.positions[first:], atol=1e-4)
    np.testing.assert_allclose(
        joined.root_position[:count], running.root_position[first:], atol=1e-4
    )


def test_join_after_the_running_plan_ended_starts_from_its_last_pose():
    running, new = wild_motion(1), wild_motion(2)
    now = running.duration + 2.0
    joined, start = join(running, now, new, now - 0.3, LIMITS)
    assert start == pytest.approx(now, abs=STEP)
    np.testing.assert_allclose(joined.positions[0], running.positions[-1])
    assert check(joined, LIMITS).total == 0


def test_a_chain_of_joins_stays_inside_the_limits():
    running, clock = wild_motion(20), 0.0
    for seed in range(21, 29):
        now = clock + 0.37
        joined, start = join(running, now, wild_motion(seed), now - 0.31, LIMITS)
        assert check(joined, LIMITS).total == 0
        assert_smooth_base(joined)
        running, clock = joined, now - start


@pytest.mark.parametrize(
    ('now', 'stamp', 'message'),
    [(float('nan'), 0.0, 'times'), (-1.0, 0.0, 'times'), (50.0, 0.0, 'ends at')],
)
def test_join_refuses_times_that_make_no_sense(now, stamp, message):
    with pytest.raises(ValueError, match=message):
        join(wild_motion(1), now, wild_motion(2), stamp, LIMITS)


def test_join_refuses_another_robot_or_frame():
    running, new = wild_motion(1), wild_motion(2)
    with pytest.raises(ValueError, match='joints'):
        join(running, 0.1, replace(new, joint_names=tuple('abcdef')), 0.0, LIMITS)
    with pytest.raises(ValueError, match='frames'):
        join(running, 0.1, replace(new, frame_id='map'), 0.0, LIMITS)


@pytest.mark.parametrize('seed', range(12))
def test_stop_along_the_path_is_continuous_and_keeps_the_limits(seed):
    running = wild_motion(seed)
    time = float(np.random.default_rng(seed).uniform(0.0, running.duration))
    begin = sample(running, time)
    stop, start = decelerate(running, time, begin, LIMITS)
    assert start <= time < start + STEP
    # Up to now, and a row more at most, the robot was told nothing else.
    now = sample(stop, time - start)
    np.testing.assert_allclose(now.positions, begin.positions, atol=1e-9)
    np.testing.assert_allclose(now.velocities, begin.velocities, atol=1e-6)
    np.testing.assert_allclose(now.root_position, begin.root_position, atol=1e-9)
    np.testing.assert_allclose(now.root_twist, begin.root_twist, atol=1e-6)
    assert check(stop, LIMITS).acceleration == 0
    assert_smooth_base(stop, slack=1.5)
    assert check(stop, LIMITS).total == 0
    assert_at_rest(stop)
    assert stop.duration < 3.0


def test_stop_without_a_plan_brakes_every_joint_at_its_limit():
    speed = 0.5 * LIMITS.velocity
    middle = (LIMITS.lower + LIMITS.upper) / 2
    measured = replace(
        still(middle), velocities=speed, root_twist=np.array([1.0, 0, 0, 0, 0, 2.0])
    )
    stop, _ = decelerate(None, 0.0, measured, LIMITS)
    assert check(stop, LIMITS).total == 0
    assert check(stop, LIMITS).acceleration == 0
    assert_at_rest(stop)
    np.testing.assert_allclose(stop.positions[0], middle, atol=1e-9)
    way = np.abs(stop.positions[-1] - middle)
    assert (way <= speed**2 / (2 * LIMITS.acceleration) + speed * STEP).all()
    assert stop.root_position[-1, 0] > 0.005


def test_stop_starts_where_a_robot_that_lost_its_plan_really_is():
    running = wild_motion(4)
    begin = sample(running, 1.0)
    positions = begin.positions.copy()
    positions[5] += 2 * LOST * (1 if positions[5] < 0 else -1)
    stop, start = decelerate(running, 1.0, still(positions), LIMITS)
    np.testing.assert_allclose(stop.positions, np.tile(positions, (stop.steps, 1)), atol=1e-9)


def test_stop_never_refuses_a_robot_outside_its_limits_and_does_not_make_it_jump():
    positions = LIMITS.upper + 0.4
    stop, _ = decelerate(None, 0.0, still(positions), LIMITS)
    np.testing.assert_allclose(stop.positions, np.tile(positions, (stop.steps, 1)))
    assert_at_rest(stop)


def test_a_robot_stopped_outside_its_limits_is_led_back_without_a_jump():
    outside = LIMITS.upper + 0.2
    stopped, _ = decelerate(None, 0.0, still(outside), LIMITS)
    new = wild_motion(3)
    joined, start = join(stopped, 0.5, new, 0.3, LIMITS)
    np.testing.assert_allclose(joined.positions[0], outside)
    state = sample(joined, np.arange(0.0, joined.duration, 1e-3))
    assert (np.abs(np.diff(state.positions, axis=0)) <= 1.001e-3 * LIMITS.velocity).all()
    assert (joined.positions[-1] <= LIMITS.upper + 1e-9).all()


@pytest.mark.parametrize(
    'field', ['positions', 'velocities', 'root_position', 'root_quaternion', 'root_twist']
)
def test_states_that_are_not_finite_are_refused(field):
    state = still(np.zeros(JOINTS) + 0.1)
    broken = np.full_like(getattr(state, field), np.nan)
    bad: MotionState = replace(state, **{field: broken})
    with pytest.raises(ValueError, match=field):
        decelerate(None, 0.0, bad, LIMITS)
    with pytest.raises(ValueError, match=field):
        hold(NAMES, bad)


def test_hold_stands_still_and_needs_every_joint():
    motion = hold(NAMES, still(np.zeros(JOINTS) + 0.1), duration=0.5)
    assert motion.duration >= 0.5
    assert_at_rest(motion)
    assert np.ptp(motion.positions, axis=0).max() == 0
    with pytest.raises(ValueError, match='positions'):
        hold(NAMES, still(np.zeros(JOINTS - 1)))


def test_limits_that_contradict_themselves_are_refused():
    with pytest.raises(ValueError, match='lower limit'):
        JointLimits([1.0], [0.0], [1.0], [1.0], ('a',))
    with pytest.raises(ValueError, match='velocity'):
        JointLimits([0.0], [1.0], [float('inf')], [1.0], ('a',))
    with pytest.raises(ValueError, match='must be > 0'):
        JointLimits([0.0], [1.0], [1.0], [0.0], ('a',))
    with pytest.raises(ValueError, match='linear_velocity'):
        RootLimits(linear_velocity=-1.0)


def test_a_plan_far_away_is_refused_at_once_and_not_reached_in_a_seam_of_an_hour():
    running, new = wild_motion(1), wild_motion(2)
    far = replace(new, root_position=new.root_position + [1e7, 0.0, 0.0])
    with pytest.raises(ValueError, match='apart'):
        join(running, 1.0, far, 0.8, LIMITS, ROOT)
