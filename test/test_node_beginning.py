# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Two messages of one plan: its beginning before its rest is solved, and what may come between."""

from __future__ import annotations

from action_msgs.msg import GoalStatus
from node_harness import Harness
import numpy as np
import pytest

from egomotion_ros.msg import Status
from egomotion_ros.nodes.conversions import robot_from_msg, time_from_msg
from egomotion_ros.nodes.errors import ErrorCode
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.retarget.joining import sample
from egomotion_ros.retarget.limits import check


@pytest.fixture(scope='module')
def pipeline(tiny_bundle):
    pipeline = EgoMotionPipeline.load(tiny_bundle, threads=1)
    yield pipeline
    pipeline.close()


@pytest.fixture
def harness(pipeline):
    # Long enough for a slow machine to do something before the stop begins.
    with Harness(pipeline, replan_period=0.0, first_part=2.0) as harness:
        yield harness


def begun(harness, instruction='walk forward'):
    """Send a goal and stand between its first points and the rest; goal and first message."""
    count = len(harness.heard.motions)
    harness.pipeline.shut('rest')
    goal = harness.send(instruction)
    assert harness.pipeline.reached['rest'].wait(20.0)
    first = harness.wait(lambda: harness.heard.motions[count:], what='the first points')[0]
    assert first.unfinished and not first.hold
    return goal, first


def whole(harness, plan_id):
    """Wait for the whole plan."""
    return harness.wait(
        lambda: next((m for m in harness.heard.motions
                      if m.plan.plan_id == plan_id and not (m.unfinished or m.hold)), None),
        what='the whole plan',
    )


def assert_rests_inside_the_limits(harness, message):
    motion = robot_from_msg(message)
    assert check(motion, harness.pipeline.robot.limits).total == 0
    assert not motion.velocities[-1].any() and not motion.root_twist[-1].any()


def assert_same_until_the_stop(harness, first, rest):
    """Both start together and are the same motion for as long as the first is no stop."""
    assert first.plan == rest.plan
    beginning, motion = robot_from_msg(first), robot_from_msg(rest)
    assert beginning.steps < motion.steps
    assert_rests_inside_the_limits(harness, first)
    assert_rests_inside_the_limits(harness, rest)
    off = np.zeros(beginning.steps)
    for name in ('positions', 'root_position'):
        other = getattr(motion, name)[: beginning.steps]
        off = np.maximum(off, np.abs(getattr(beginning, name) - other).max(axis=1))
    rows = int(np.argmax(off > 1e-9)) if (off > 1e-9).any() else beginning.steps
    # Two seconds of it, less what the machine needed to solve and send it.
    assert rows > 30
    # A velocity is told by the rows on either side.
    for name in ('velocities', 'root_twist'):
        one, other = getattr(beginning, name)[: rows - 1], getattr(motion, name)[: rows - 1]
        np.testing.assert_allclose(one, other, rtol=0.0, atol=1e-6, err_msg=name)


def test_first_points_come_before_the_whole_and_are_a_part_of_it(harness):
    goal, first = begun(harness)
    assert not any(m.state == Status.EXECUTING for m in harness.heard.messages)
    harness.wait(lambda: harness.heard.trajectories, what='the first points for a controller')
    # Nothing more comes before the rest is solved.
    assert len(harness.heard.motions) == 1
    harness.pipeline.open_all()
    rest = whole(harness, first.plan.plan_id)
    assert_same_until_the_stop(harness, first, rest)
    told = harness.wait_status(Status.EXECUTING)
    assert 0.0 < told.first_ms < told.latency_ms
    # The next plan joins this one and comes in two messages as well.
    harness.wait(lambda: harness.followed > 3, what='joint states of the motion')
    second, joined = begun(harness, 'turn left')
    assert harness.pipeline.prefixes[-1] is not None
    running, beginning = robot_from_msg(rest), robot_from_msg(joined)
    gone = 1e-9 * (time_from_msg(joined.plan.header.stamp) - time_from_msg(rest.plan.header.stamp))
    before = sample(running, gone + beginning.step_dt * np.arange(3))
    assert np.abs(before.positions - beginning.positions[:3]).max() < 1e-6
    harness.pipeline.open_all()
    assert_same_until_the_stop(harness, joined, whole(harness, joined.plan.plan_id))
    # The result carries the whole motion.
    status, result = harness.result(second)
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert result.robot_motion == whole(harness, joined.plan.plan_id)
    assert harness.result(goal)[1].error_code == ErrorCode.PREEMPTED
    assert harness.node.health.plans == 2
    assert len(harness.heard.trajectories) == len(harness.heard.motions) == 4
    values = {item.key for item in harness.node.health.report(
        harness.node.get_clock().now().to_msg(), '', harness.node.observer, True).status[0].values}
    assert {'first points p50 [ms]', 'latency p50 [ms]'} <= values


def end_by_cancel(harness, goal):
    goal.cancel_goal_async()
    return ErrorCode.CANCELED


def end_by_stop(harness, goal):
    assert harness.stop().message == 'stopping'
    return ErrorCode.STOPPED


def end_by_switch(harness, goal):
    harness.set(output_enabled=False)
    return ErrorCode.STOPPED


def end_by_silence(harness, goal):
    harness.set(**{'image.timeout': 0.1})
    harness.camera_on = False
    return ErrorCode.STALE_IMAGE


@pytest.mark.parametrize('end', [end_by_cancel, end_by_stop, end_by_switch, end_by_silence])
def test_what_ends_a_goal_between_its_first_points_and_the_rest_stops_the_robot(harness, end):
    goal, first = begun(harness)
    code = end(harness, goal)
    assert harness.result(goal)[1].error_code == code
    stop = harness.wait(lambda: harness.heard.motions[-1].hold and harness.heard.motions[-1])
    gone = 1e-9 * (time_from_msg(stop.plan.header.stamp) - time_from_msg(first.plan.header.stamp))
    state = sample(robot_from_msg(first), gone)
    assert np.abs(robot_from_msg(stop).positions[0] - state.positions).max() < 1e-4
    assert stop.plan.plan_id == first.plan.plan_id and not stop.unfinished
    assert_rests_inside_the_limits(harness, stop)
    # The rest is thrown away: the next motion is that of another plan.
    harness.pipeline.open_all()
    harness.wait(lambda: not harness.node.controller._worker.is_busy, what='the end of planning')
    harness.camera_on = True
    harness.set(**{'output_enabled': True, 'image.timeout': 5.0})
    harness.wait_status(Status.HOLDING, code)
    count = len(harness.heard.motions)
    harness.say('wave')
    harness.wait(lambda: len(harness.heard.motions) > count, what='the next motion')
    assert harness.heard.motions[count].plan.plan_id != first.plan.plan_id


def test_a_clock_that_jumps_between_them_stops_the_robot_in_the_new_time(pipeline):
    with Harness(pipeline, sim_time=True, replan_period=0.0, first_part=2.0) as harness:
        goal, first = begun(harness)
        harness.now_ns -= 8_000_000_000
        assert harness.result(goal)[1].error_code == ErrorCode.CLOCK_JUMPED
        stop = harness.wait(lambda: harness.heard.motions[-1].hold and harness.heard.motions[-1])
        start = [time_from_msg(message.plan.header.stamp) for message in (first, stop)]
        assert start[1] < start[0] - 5_000_000_000
        assert_rests_inside_the_limits(harness, stop)
        harness.pipeline.open_all()
        harness.wait(lambda: not harness.node.controller._worker.is_busy)
        assert harness.run('wave', execute=False)[1].error_code == ErrorCode.NONE
        assert [motion.hold for motion in harness.heard.motions] == [False, True]


def test_a_plan_ended_after_its_beginning_was_executed_does_not_move_again(harness):
    harness.set(first_part=0.3)
    _, first = begun(harness)
    end = time_from_msg(first.plan.header.stamp) + 1e9 * robot_from_msg(first).duration
    harness.wait(lambda: harness.now() > end + 100_000_000, what='the end of the first points')
    assert harness.stop().message == 'nothing was moving'
    harness.pipeline.open_all()
    harness.wait(lambda: not harness.node.controller._worker.is_busy, what='the end of planning')
    preview = harness.run('wave', execute=False)[1]
    assert preview.error_code == ErrorCode.NONE
    assert harness.heard.motions == [first]


@pytest.mark.parametrize(('error', 'code'), [
    (ValueError('a row that is not finite'), ErrorCode.PLAN_INVALID),
    (RuntimeError('out of memory'), ErrorCode.BACKEND_FAILED),
])
def test_a_rest_that_fails_stops_the_robot_and_aborts_the_goal(harness, error, code):
    harness.pipeline.fail_rest = error
    goal, first = begun(harness)
    harness.pipeline.open_all()
    status, result = harness.result(goal)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, code)
    assert result.plan_id == first.plan.plan_id
    harness.wait(lambda: harness.heard.motions[-1].hold, what='the stop')
    assert_rests_inside_the_limits(harness, harness.heard.motions[-1])
    harness.wait_status(Status.HOLDING, code)


def test_a_goal_that_preempts_between_them_lets_the_motion_go_on(harness):
    goal, first = begun(harness)
    harness.pipeline.shut('reason')
    second = harness.send('turn left')
    assert harness.result(goal)[1].error_code == ErrorCode.PREEMPTED
    harness.pipeline.gates['rest'].set()
    assert_same_until_the_stop(harness, first, whole(harness, first.plan.plan_id))
    harness.pipeline.open_all()
    harness.wait(lambda: len(harness.heard.plans) == 2, what='the motion of the new goal')
    assert not any(motion.hold for motion in harness.heard.motions)
    second.cancel_goal_async()
    assert harness.result(second)[1].error_code == ErrorCode.CANCELED


def test_a_rest_that_comes_after_the_robot_has_stopped_is_joined(harness):
    harness.set(first_part=0.3)
    goal, first = begun(harness)
    end = time_from_msg(first.plan.header.stamp) + 1e9 * robot_from_msg(first).duration
    harness.wait(lambda: harness.now() > end, what='the end of the first points')
    harness.pipeline.open_all()
    rest = robot_from_msg(whole(harness, first.plan.plan_id))
    at_rest = robot_from_msg(first)
    assert np.abs(rest.positions[0] - at_rest.positions[-1]).max() < 1e-6
    assert not rest.velocities[0].any()
    assert check(rest, harness.pipeline.robot.limits).total == 0
    assert harness.result(goal)[1].error_code == ErrorCode.NONE


def test_previews_are_whole_and_so_are_plans_with_no_first_part(harness):
    harness.run('wave', execute=False)
    assert [m.unfinished for m in harness.heard.previews] == [False]
    harness.set(first_part=0.0)
    goal = harness.send('walk forward')
    harness.wait_status(Status.EXECUTING)
    motion = harness.wait(lambda: harness.heard.motions, what='the motion')[0]
    goal.cancel_goal_async()
    assert not motion.unfinished
    assert harness.result(goal)[1].error_code == ErrorCode.CANCELED
    assert [m.hold for m in harness.heard.motions] in ([False], [False, True])
