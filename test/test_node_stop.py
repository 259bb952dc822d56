# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Everything that must bring egomotion_node's motion to rest, and what then reaches a robot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from action_msgs.msg import GoalStatus
from lifecycle_msgs.srv import ChangeState, GetState
from node_harness import CONFIGURE, DEACTIVATE, PATIENCE, Harness
import numpy as np
import pytest
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState

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
    with Harness(pipeline) as harness:
        yield harness


def assert_seamless_stop(harness):
    """The newest motion is a stop that takes the one before up where it was, within limits."""
    harness.wait(lambda: harness.heard.motions[-1].hold, what='the hold')
    before, stop = harness.heard.motions[-2:]
    motion, hold = robot_from_msg(before), robot_from_msg(stop)
    gone = time_from_msg(stop.plan.header.stamp) - time_from_msg(before.plan.header.stamp)
    state = sample(motion, 1e-9 * gone)
    assert np.abs(hold.positions[0] - state.positions).max() < 1e-4
    assert np.abs(hold.root_position[0] - state.root_position).max() < 1e-4
    assert not hold.velocities[-1].any() and not hold.root_twist[-1].any()
    assert check(hold, harness.pipeline.robot.limits).total == 0
    assert stop.plan.plan_id == before.plan.plan_id
    # Both topics carry it, with one stamp.
    harness.wait(
        lambda: len(harness.heard.trajectories) == len(harness.heard.motions),
        what='the same on joint_trajectory',
    )
    assert harness.heard.trajectories[-1].header.stamp == stop.plan.header.stamp


def moving(harness, instruction='walk forward'):
    harness.say(instruction)
    harness.wait(lambda: harness.heard.motions, what='motion')
    harness.wait_status(Status.EXECUTING)
    # The robot follows, and the node may know.
    harness.wait(lambda: harness.followed > 3, what='joint states')


def test_stop_service_decelerates_at_once_even_while_a_plan_is_being_made(harness):
    harness.set(replan_period=0.2)
    moving(harness)
    harness.pipeline.shut('generate')
    assert harness.pipeline.reached['generate'].wait(10.0)
    answer = harness.stop()
    assert answer.success and answer.message == 'stopping'
    assert_seamless_stop(harness)
    harness.wait_status(Status.STOPPING, ErrorCode.STOPPED)
    harness.wait_status(Status.HOLDING, ErrorCode.STOPPED)
    # The plan that was being made comes to nothing, the instruction is gone.
    count = len(harness.heard.motions)
    harness.pipeline.open_all()
    assert harness.stop().message == 'nothing was moving'
    harness.say('turn left')
    harness.wait(lambda: len(harness.heard.motions) > count, what='the next motion')
    plan = harness.heard.motions[count].plan.plan_id
    assert plan == harness.heard.messages[-1].plan_id


def test_stop_answers_in_every_lifecycle_state(pipeline):
    with Harness(None) as harness:
        assert harness.stop().success
    with Harness(pipeline) as harness:
        assert harness.stop().message == 'nothing was moving'
        assert harness.transition(DEACTIVATE)
        assert harness.stop().success


def test_deactivation_publishes_the_deceleration_first(harness):
    moving(harness)
    assert harness.transition(DEACTIVATE)
    assert_seamless_stop(harness)


def test_shutdown_transition_publishes_the_deceleration_first(harness):
    moving(harness)
    harness.node.trigger_shutdown()
    assert_seamless_stop(harness)
    assert harness.pipeline.closed


@pytest.fixture
def brief(pipeline):
    """A node that plans once an instruction; see :func:`fall_silent` for its patience."""
    with Harness(pipeline, replan_period=0.0) as harness:
        yield harness


#: Patience with joint states, with the camera (s).
HASTE = ({'joint_states.timeout': 0.3}, {'image.timeout': 0.4, 'image.max_age': 0.4})


def fall_silent(harness, how):
    """
    Let camera or joint states end, repeat themselves, or come too late; returns the code.

    The node loses patience with that input only: a machine that stands still for a moment silences
    all of them.
    """
    harness.set(**HASTE['camera' in how])
    if how == 'camera off':
        harness.camera_on = False
    elif how == 'camera late':
        harness.image_shift = -1.0
    elif how == 'joint states off':
        harness.joints_on = False
    else:
        harness.frozen = harness.now()
    return ErrorCode.STALE_IMAGE if 'camera' in how else ErrorCode.STALE_JOINT_STATES


STALE = ('camera off', 'camera late', 'joint states off', 'joint states frozen')


@pytest.mark.parametrize('how', STALE)
def test_stale_inputs_stop_a_goal_and_abort_it_with_their_own_code(brief, how):
    goal = brief.send('walk forward')
    brief.wait(lambda: brief.followed > 3, what='joint states of the motion')
    code = fall_silent(brief, how)
    status, result = brief.result(goal)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, code)
    assert result.plan_id == brief.heard.motions[0].plan.plan_id
    assert_seamless_stop(brief)
    brief.wait_status(Status.STOPPING, code)


@pytest.mark.parametrize(('how', 'period'), list(zip(STALE, (0.0, 1.0, 1.0, 0.0), strict=True)))
def test_stale_inputs_stop_an_instruction_from_the_topic(brief, how, period):
    brief.set(replan_period=period)
    moving(brief)
    code = fall_silent(brief, how)
    brief.wait_status(Status.STOPPING, code)
    assert_seamless_stop(brief)
    brief.wait_status(Status.HOLDING, code)
    # It does not start again by itself when the input is back.
    count = len(brief.heard.motions)
    brief.camera_on = brief.joints_on = True
    brief.image_shift, brief.frozen = 0.0, None
    brief.set(**PATIENCE)
    goal = brief.send('wave')
    brief.wait(lambda: len(brief.heard.motions) > count, what='the motion of the goal')
    goal.cancel_goal_async()
    assert brief.heard.motions[count].plan.plan_id == brief.result(goal)[1].plan_id


def test_a_camera_that_goes_silent_while_a_goal_replaces_another_stops_both(brief):
    first = brief.send('walk forward')
    brief.wait(lambda: brief.followed > 3, what='joint states of the motion')
    brief.pipeline.shut('generate')
    second = brief.send('turn left')
    assert brief.pipeline.reached['generate'].wait(10.0)
    fall_silent(brief, 'camera off')
    assert brief.result(first)[1].error_code == ErrorCode.PREEMPTED
    assert brief.result(second)[1].error_code == ErrorCode.STALE_IMAGE
    assert_seamless_stop(brief)


def jumped(harness, seconds):
    """
    Set the simulated clock while the robot moves; the motion before and the stop after it.

    Returns where in the motion (s) the stop takes it up.
    """
    moving(harness)
    harness.wait(lambda: harness.now() > harness.heard.arrivals[0] + 1_000_000_000)
    before = harness.heard.motions[-1]
    harness.now_ns += round(1e9 * seconds)
    harness.wait_status(Status.STOPPING, ErrorCode.CLOCK_JUMPED)
    after = harness.wait(lambda: harness.heard.motions[-1].hold and harness.heard.motions[-1])
    motion, stop = robot_from_msg(before), robot_from_msg(after)
    row = np.abs(motion.positions - stop.positions[0]).max(axis=1).argmin()
    assert np.abs(motion.positions[row] - stop.positions[0]).max() < 0.02
    assert np.abs(motion.root_position[row] - stop.root_position[0]).max() < 0.02
    assert not stop.velocities[-1].any() and not stop.root_twist[-1].any()
    assert check(stop, harness.pipeline.robot.limits).total == 0
    # It is executed in the new time: begun, and not over.
    start = time_from_msg(after.plan.header.stamp)
    assert start <= harness.heard.arrivals[-1] < start + 1e9 * stop.duration
    harness.wait_status(Status.HOLDING, ErrorCode.CLOCK_JUMPED)
    return row * motion.step_dt


# Back; ahead by more than a motion; ahead over its end by less than counts otherwise.
@pytest.mark.parametrize('seconds', [-8.0, 60.0, 4.5])
def test_a_clock_that_jumps_stops_the_motion_where_it_was(pipeline, seconds):
    with Harness(pipeline, sim_time=True, replan_period=0.0) as harness:
        assert 0.8 < jumped(harness, seconds) < 3.0


def test_a_jump_over_the_rest_of_a_motion_stops_it_and_a_shorter_one_does_not(pipeline):
    with Harness(pipeline, sim_time=True, replan_period=0.0) as harness:
        moving(harness)
        whole = harness.wait(
            lambda: next((m for m in harness.heard.motions if not m.unfinished), None)
        )
        count = len(harness.heard.motions)
        end = time_from_msg(whole.plan.header.stamp) + 1e9 * robot_from_msg(whole).duration
        harness.now_ns += 1_200_000_000  # still within the motion
        harness.wait(lambda: harness.now() > end - 2e9)
        assert len(harness.heard.motions) == count
        assert harness.heard.statuses[-1][0] == Status.EXECUTING
        harness.now_ns += 2_500_000_000  # shorter than what counts by itself, but over the end
        harness.wait_status(Status.STOPPING, ErrorCode.CLOCK_JUMPED)
        harness.wait(lambda: harness.heard.motions[-1].hold, what='the stop')


@pytest.mark.parametrize('seconds', [0.6, 0.9, 1.4])
def test_a_short_jump_is_no_silence_of_the_inputs_but_two_without_news_are(pipeline, seconds):
    # The timeouts that a node has by itself.
    values = {'joint_states.timeout': 0.5, 'image.timeout': 2.0, 'image.max_age': 2.0}
    with Harness(pipeline, sim_time=True, replan_period=0.0, **values) as harness:
        controller = harness.node.controller

        def jump():
            harness.now_ns += round(1e9 * seconds)
            harness.wait(
                lambda: harness.node.get_clock().now().nanoseconds == harness.now_ns
                and not controller._is_jumping,
                what='the new time',
            )
            controller.tick()

        moving(harness)
        harness.time_runs = harness.joints_on = harness.camera_on = False
        harness.wait(lambda: harness.node.observer.joint_states.age() < 0.3, what='calm')
        jump()
        assert harness.node.observer.joint_states.age() == 0.0
        assert harness.node.observer.image.age() == 0.0
        assert not controller._player.is_stopping(harness.now_ns)
        jump()
        harness.wait_status(Status.STOPPING, ErrorCode.STALE_JOINT_STATES)
        assert_seamless_stop(harness)


def test_a_stop_under_way_goes_on_in_the_new_time_when_the_clock_jumps(pipeline):
    with Harness(pipeline, sim_time=True) as harness:
        moving(harness)
        harness.time_runs = False
        harness.stop()
        first = harness.wait(lambda: harness.heard.motions[-1].hold and harness.heard.motions[-1])
        harness.now_ns -= 8_000_000_000
        harness.wait(lambda: harness.heard.motions[-1] is not first, what='the stop, moved')
        again = harness.heard.motions[-1]
        moved = time_from_msg(first.plan.header.stamp) - time_from_msg(again.plan.header.stamp)
        assert abs(moved - 8_000_000_000) < 100_000_000 and again.hold
        assert np.array_equal(again.positions, first.positions)
        harness.time_runs = True
        harness.wait_status(Status.HOLDING)


class SetClock:
    """The node's clock, as it goes on after somebody has set the machine's."""

    ros_time_is_active = False

    def __init__(self, clock):
        self._clock, self.by = clock, 0

    def now(self):
        return self._clock.now() + Duration(nanoseconds=self.by)


@pytest.mark.parametrize('seconds', [-3600.0, 3600.0])
def test_a_system_clock_that_is_set_stops_the_motion(harness, monkeypatch, seconds):
    controller = harness.node.controller
    clock = SetClock(harness.node.get_clock())
    for owner in (controller, controller._watch, *harness.node.observer.channels):
        monkeypatch.setattr(owner, '_clock', clock)
    moving(harness)
    harness.wait(lambda: harness.now() > harness.heard.arrivals[0] + 500_000_000)
    clock.by = round(1e9 * seconds)
    harness.wait_status(Status.STOPPING, ErrorCode.CLOCK_JUMPED)
    stop = harness.wait(lambda: harness.heard.motions[-1].hold and harness.heard.motions[-1])
    late = clock.now().nanoseconds - time_from_msg(stop.plan.header.stamp)
    assert 0 <= late < 20_000_000_000


def test_a_system_clock_that_is_set_back_at_rest_brings_nothing_back(harness, monkeypatch):
    controller = harness.node.controller
    clock = SetClock(harness.node.get_clock())
    for owner in (controller, controller._watch, controller.status, harness.node.observer,
                  *harness.node.observer.channels):
        monkeypatch.setattr(owner, '_clock', clock)
    monkeypatch.setattr(harness, 'now', lambda: clock.now().nanoseconds)
    assert harness.run('walk to the red ball')[1].error_code == ErrorCode.NONE
    harness.wait(lambda: not controller.is_busy, what='rest')
    last, heard = robot_from_msg(harness.heard.motions[-1]), len(harness.heard.motions)
    # The world's robot must not go back with the clock.
    rest = harness.robot_state(2**62)
    monkeypatch.setattr(harness, 'robot_state', lambda now: rest)
    clock.by = -3600 * 10**9
    assert harness.stop().message == 'nothing was moving'
    assert harness.run('walk to the red ball')[1].error_code == ErrorCode.NONE
    new = harness.heard.motions[heard:]
    assert new and not any(m.hold for m in new)
    first = robot_from_msg(new[0])
    assert np.abs(first.positions[0] - last.positions[-1]).max() < 0.1
    assert np.linalg.norm(first.root_position[0] - last.root_position[-1]) < 0.05


def test_simulated_time_that_is_switched_on_late_stops_and_is_lived_in(pipeline):
    with Harness(pipeline, replan_period=0.0) as harness:
        moving(harness)
        harness.now_ns, harness.sim_time = 100_000_000_000, True
        harness.node.set_parameters([Parameter('use_sim_time', value=True)])
        harness.wait_status(Status.HOLDING, ErrorCode.CLOCK_JUMPED)
        stops = [m for m in harness.heard.motions if m.hold]
        assert stops
        # None is dated in the time that was left, nor begins anywhere but where the motion was.
        assert all(time_from_msg(m.plan.header.stamp) < 200 * 10**9 for m in stops)
        told = robot_from_msg(next(m for m in harness.heard.motions if not m.hold))
        at_rest = robot_from_msg(stops[-1])
        gap = np.linalg.norm(told.root_position - at_rest.root_position[0], axis=1).min()
        assert gap < 0.05
        harness.wait(lambda: not harness.node.controller.is_busy, what='rest')
        assert harness.run('walk to the red ball')[1].error_code == ErrorCode.NONE


def test_joint_states_that_become_unusable_stop_the_motion(harness):
    harness.set(**{'joint_states.timeout': 0.5})
    moving(harness)
    names = list(harness.pipeline.robot.joint_names)
    harness.joint_state = JointState(name=names, position=[float('nan')] * len(names))
    harness.wait_status(Status.STOPPING, ErrorCode.STALE_JOINT_STATES)
    assert 'finite' in harness.heard.messages[-1].message
    assert_seamless_stop(harness)


def test_a_driver_of_hands_does_not_hide_that_the_bodys_is_dead(harness):
    harness.set(**{'joint_states.timeout': 0.5})
    moving(harness)
    harness.joint_state = JointState(name=['left_thumb'], position=[0.0])
    harness.wait_status(Status.STOPPING, ErrorCode.STALE_JOINT_STATES)
    assert_seamless_stop(harness)


def test_output_disabled_reaches_the_preview_only(pipeline):
    with Harness(pipeline, output_enabled=False) as harness:
        harness.say('walk forward')
        first = harness.wait(lambda: harness.heard.previews, what='the preview')[0]
        assert harness.wait_status(Status.IDLE).output_enabled is False
        goal = harness.run('wave')[1]
        assert goal.error_code == ErrorCode.OUTPUT_DISABLED
        # Enabling moves nothing by itself: the first motion is that of an instruction after it.
        harness.set(output_enabled=True)
        harness.say('turn left')
        motion = harness.wait(lambda: harness.heard.motions, what='motion')[0]
        harness.wait(lambda: harness.heard.trajectories, what='the trajectory')
        assert motion.plan.plan_id not in {p.plan.plan_id for p in harness.heard.previews}
        assert first.plan.plan_id != motion.plan.plan_id
        assert harness.heard.trajectories[0].header.stamp == motion.plan.header.stamp


def test_disabling_the_output_stops_a_running_motion(harness):
    moving(harness)
    harness.set(output_enabled=False)
    assert_seamless_stop(harness)
    assert harness.wait_status(Status.STOPPING).output_enabled is False


def test_sigterm_stops_the_motion_before_the_process_ends(pipeline, tiny_bundle):
    """A node in a process of its own; the harness plays the world and the operator."""
    with Harness(pipeline, load=lambda **_: None) as harness:
        child = subprocess.Popen(
            [
                sys.executable,
                '-m',
                'egomotion_ros.nodes.egomotion_node',
                '--ros-args',
                '-r',
                f'__ns:={harness.namespace}/child',
                '-r',
                '__node:=lonely',
                '-p',
                f'bundle:={tiny_bundle}',
                '-p',
                'camera.hfov:=1.4',
                *(
                    arg
                    for topic in (
                        'image',
                        'joint_states',
                        'odom',
                        'instruction',
                        'status',
                        'robot_motion',
                        'joint_trajectory',
                    )
                    for arg in ('-r', f'{topic}:={harness.namespace}/{topic}')
                ),
            ],
            env=dict(os.environ),
        )
        try:
            name = f'{harness.namespace}/child/lonely'
            harness.changer = harness.world.create_client(ChangeState, f'{name}/change_state')
            harness.getter = harness.world.create_client(GetState, f'{name}/get_state')
            for step in (CONFIGURE, 3):
                assert harness.transition(step)
            moving(harness)
            child.send_signal(signal.SIGTERM)
            assert_seamless_stop(harness)
            assert child.wait(15.0) == 0
        finally:
            child.kill()
            child.wait()
