# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The clock a plan is played on, without ROS: progress, prefix, joining, stopping."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from egomotion_ros.nodes.player import Measured, Player, check_motion
from egomotion_ros.retarget.beginning import stop_after
from egomotion_ros.retarget.joining import sample
from egomotion_ros.retarget.limits import JointLimits, RootLimits, check
from egomotion_ros.types import HumanMotion, RobotMotion

NAMES = ('hip', 'knee')
LIMITS = JointLimits(
    lower=np.full(2, -2.0),
    upper=np.full(2, 2.0),
    velocity=np.full(2, 6.0),
    acceleration=np.full(2, 80.0),
    joint_names=NAMES,
)
SECOND = 1_000_000_000


def swing(rows: int = 151) -> RobotMotion:
    """Five seconds of a slow swing that begins and ends at rest, walking forward."""
    step = 1.0 / 30.0
    t = np.linspace(0.0, 1.0, rows)[:, None]
    length = (rows - 1) * step
    shape = 0.5 * (1.0 - np.cos(2.0 * np.pi * t))
    rate = np.pi * np.sin(2.0 * np.pi * t) / length
    root = np.concatenate([shape, 0 * t, 0 * t + 0.75], axis=1)
    twist = np.zeros((rows, 6))
    twist[:, :1] = rate
    return RobotMotion(
        NAMES,
        step,
        np.concatenate([shape, -shape], axis=1),
        np.concatenate([rate, -rate], axis=1),
        root,
        np.tile([0.0, 0.0, 0.0, 1.0], (rows, 1)),
        twist,
        np.ones((rows, 2)),
    )


def human(frames: int = 150) -> HumanMotion:
    root = np.zeros((frames, 3))
    root[:, 0] = np.arange(frames)  # the frame's number, to find it again
    return HumanMotion(root, np.tile(np.eye(3), (frames, 22, 1, 1)), np.ones((frames, 4)))


@pytest.fixture
def player() -> Player:
    player = Player(LIMITS, RootLimits())
    player.begin(swing(), human(), 10 * SECOND)
    return player


def test_time_passes(player):
    assert player.is_moving(10 * SECOND) and player.is_moving(15 * SECOND - 1)
    assert not player.is_moving(15 * SECOND)
    assert player.progress(9 * SECOND) == 0.0
    assert player.progress(int(12.5 * SECOND)) == pytest.approx(0.5)
    assert player.progress(99 * SECOND) == 1.0


def test_the_prefix_is_what_was_executed_since_the_image(player):
    prefix = player.prefix(int(11.5 * SECOND), 0.6)
    assert prefix.frames == 18
    assert prefix.root_position[0, 0] == 45.0
    # The rest of a plan that is nearly over, and nothing of one that is.
    assert player.prefix(int(14.8 * SECOND), 0.6).frames == 6
    assert player.prefix(16 * SECOND, 0.6) is None
    assert player.prefix(9 * SECOND, 0.6) is None  # before there was a plan
    assert player.prefix(int(11.5 * SECOND), 0.0) is None


def test_a_stop_has_no_prefix_and_is_not_stopped_again(player):
    stop = player.stop(12 * SECOND, None)
    assert stop.hold and player.is_stopping(stop.start)
    assert player.prefix(stop.start, 0.6) is None
    assert player.stop(stop.start + SECOND // 10, None) is None
    assert not player.is_moving(stop.end)
    assert player.stop(stop.end, None) is None


def test_a_stop_goes_on_from_what_was_commanded(player):
    now = int(11.25 * SECOND)
    stop = player.stop(now, None)
    assert 0 <= now - stop.start < SECOND // 30
    first = sample(swing(), 1e-9 * (stop.start - 10 * SECOND))
    assert np.allclose(stop.motion.positions[0], first.positions, atol=1e-6)
    assert not stop.motion.velocities[-1].any()


def test_an_old_measurement_is_no_robot_that_is_lost(player):
    then, now = 10 * SECOND, 12 * SECOND
    old = Measured(swing().positions[0], np.zeros(2), then, None)
    commanded = sample(swing(), 2.0)
    assert np.abs(commanded.positions - old.positions).max() > 0.5
    stop = player.stop(now, old)
    assert np.allclose(stop.motion.positions[0], commanded.positions, atol=1e-3)


def test_a_robot_that_does_not_follow_brakes_where_it_is(player):
    now = 12 * SECOND
    base = (np.array([0.1, 0.0, 0.7]), np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(6))
    lost = Measured(np.array([-0.4, 0.4]), np.zeros(2), now, base)
    stop = player.stop(now, lost)
    assert np.allclose(stop.motion.positions[0], lost.positions)
    assert np.allclose(stop.motion.root_position[0], base[0])


def test_a_clock_that_was_set_moves_the_motion_with_it(player):
    before = player.stop(12 * SECOND, None)
    after = player.shift(-8 * SECOND)
    assert after.start == before.start - 8 * SECOND
    assert player.is_moving(after.start) and not player.is_moving(before.start)


def test_the_next_plan_joins_at_once_and_keeps_the_clock_of_its_image(player):
    now = int(11.0 * SECOND)
    observed = int(10.7 * SECOND)
    playing = player.follow(swing(), human(), observed, now, lead=0.1, blend=0.4)
    assert playing.start <= now
    assert playing.human_start == observed
    assert player.prefix(now, 0.6).root_position[0, 0] == 9.0
    late = 30 * SECOND
    with pytest.raises(ValueError, match='ends'):
        player.follow(swing(), human(), observed, late, lead=0.1, blend=0.4)


def opened(player, now, observed=None, solved=1.6):
    """Let the beginning of a plan be played: a swing of which 1.6 s are solved."""
    part = stop_after(swing(), int(30 * solved), LIMITS, RootLimits())
    return player.open('plan', part, solved, human(), observed, now, 0.1, 0.4)


def test_a_beginning_stops_by_itself_and_its_whole_takes_its_place():
    player = Player(LIMITS, RootLimits())
    begun = opened(player, 10 * SECOND)
    assert begun.beginning.stop == 11 * SECOND and begun.start == 10 * SECOND
    assert not begun.motion.velocities[-1].any() and begun.end < 12 * SECOND
    # What the stop will leave out is not told as executed.
    assert player.prefix(int(10.7 * SECOND), 0.6).frames == 9
    whole = player.complete(swing(), human(), int(10.8 * SECOND), 0.1, 0.4)
    assert (whole.start, whole.end, whole.beginning) == (10 * SECOND, 15 * SECOND, None)
    np.testing.assert_array_equal(whole.motion.positions[:31], begun.motion.positions[:31])
    assert player.prefix(int(10.7 * SECOND), 0.6).frames == 18


@pytest.mark.parametrize('late', [10.95, 11.2, 12.5])
def test_a_whole_that_comes_when_the_stop_has_begun_joins_it(late):
    player = Player(LIMITS, RootLimits())
    begun = opened(player, 10 * SECOND)
    now = int(late * SECOND)
    whole = player.complete(swing(), human(), now, 0.1, 0.4)
    assert whole.start <= now
    there = sample(begun.motion, 1e-9 * (whole.start - begun.start))
    np.testing.assert_allclose(whole.motion.positions[0], there.positions, atol=1e-9)
    assert check(whole.motion, LIMITS).total == 0
    end = sample(whole.motion, whole.motion.duration)
    np.testing.assert_allclose(end.positions, swing().positions[-1], atol=1e-6)


@pytest.mark.parametrize('late', [11.2, 12.5, 14.0])
def test_a_plan_goes_on_later_from_where_its_beginning_stopped(late):
    player = Player(LIMITS, RootLimits())
    opened(player, 10 * SECOND)
    whole = player.complete(swing(), human(), int(late * SECOND), 0.1, 0.4)
    # Not dragged to where it would be by now: hardly faster than the plan itself.
    fastest = np.abs(swing().root_twist[:, 0]).max()
    assert np.abs(whole.motion.root_twist[:, 0]).max() < 1.15 * fastest
    # What it was made from is late as well.
    assert whole.human_start > 10 * SECOND
    assert whole.end - whole.human_start == pytest.approx(5 * SECOND, abs=SECOND / 6)


def test_a_whole_that_is_another_motion_than_its_beginning_is_joined():
    player = Player(LIMITS, RootLimits())
    begun = opened(player, 10 * SECOND)
    other = replace(swing(), positions=swing().positions + 0.05)
    now = int(10.5 * SECOND)
    whole = player.complete(other, human(), now, 0.1, 0.4)
    for seconds in (10.5, 10.55, 10.6):
        told = sample(begun.motion, begun.seconds(int(seconds * SECOND)))
        tells = sample(whole.motion, whole.seconds(int(seconds * SECOND)))
        np.testing.assert_allclose(tells.positions, told.positions, atol=1e-6)
    assert check(whole.motion, LIMITS).total == 0


def test_a_beginning_that_would_stop_at_once_is_not_played(player):
    before = player.playing
    observed, now = int(11.0 * SECOND), int(11.95 * SECOND)
    assert opened(player, now, observed) is None
    assert player.playing is before and player.begun('plan') is None


def test_nothing_completes_what_was_stopped(player):
    opened(player, int(11.3 * SECOND), 11 * SECOND)
    assert player.begun('plan') == 11 * SECOND
    assert player.stop(int(11.4 * SECOND), None).hold
    assert player.begun('plan') is None
    # Neither where there was nothing to stop, because its beginning was over.
    again = Player(LIMITS, RootLimits())
    end = opened(again, 10 * SECOND).end
    assert again.stop(end, None) is None
    assert again.begun('plan') is None


@pytest.mark.parametrize(
    ('changes', 'word'),
    [
        ({'joint_names': ('hip', 'ankle')}, 'joints'),
        ({'positions': np.full((151, 2), np.nan)}, 'positions'),
        ({'root_twist': np.zeros((3, 6))}, 'root_twist'),
        ({'positions': np.full((151, 2), 2.1)}, 'limits'),
        ({'velocities': np.ones((151, 2))}, 'rest'),
    ],
)
def test_motions_that_must_not_reach_a_robot(changes, word):
    check_motion(swing(), LIMITS)
    with pytest.raises(ValueError, match=word):
        check_motion(replace(swing(), **changes), LIMITS)
