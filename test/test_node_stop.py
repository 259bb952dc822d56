# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Everything that must bring egomotion_node's motion to rest, and what then reaches a robot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from node_harness import CONFIGURE, DEACTIVATE, Harness
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


def test_joint_states_that_go_silent_stop_the_motion(harness):
    harness.set(**{'joint_states.timeout': 0.3})
    moving(harness)
    harness.joints_on = False
    harness.wait_status(Status.STOPPING, ErrorCode.STALE_JOINT_STATES)
    assert_seamless_stop(harness)


def test_joint_states_that_only_repeat_themselves_are_silent(harness):
    harness.set(**{'joint_states.timeout': 0.3})
    moving(harness)
    harness.frozen = harness.now()
    harness.wait_status(Status.STOPPING, ErrorCode.STALE_JOINT_STATES)
    assert_seamless_stop(harness)


def test_a_camera_that_goes_silent_stops_a_standing_instruction(harness):
    harness.set(**{'image.timeout': 0.4, 'replan_period': 1.0})
    moving(harness)
    harness.camera_on = False
    harness.wait_status(Status.STOPPING, ErrorCode.STALE_IMAGE)
    assert_seamless_stop(harness)
    # It does not start again by itself when the camera is back.
    harness.camera_on = True
    count = len(harness.heard.motions)
    goal = harness.send('wave')
    harness.wait(lambda: len(harness.heard.motions) > count, what='the motion of the goal')
    goal.cancel_goal_async()
    assert harness.heard.motions[count].plan.plan_id == harness.result(goal)[1].plan_id


def test_a_clock_that_jumps_back_stops_the_motion_where_it_was(pipeline):
    with Harness(pipeline, sim_time=True) as harness:
        moving(harness)
        harness.wait(lambda: harness.now() > harness.heard.arrivals[0] + 1_000_000_000)
        before = harness.heard.motions[-1]
        harness.now_ns -= 8_000_000_000
        harness.wait_status(Status.STOPPING, ErrorCode.CLOCK_JUMPED)
        stop = robot_from_msg(
            harness.wait(lambda: harness.heard.motions[-1].hold and harness.heard.motions[-1])
        )
        motion = robot_from_msg(before)
        late = np.abs(motion.positions - stop.positions[0]).max(axis=1).argmin()
        assert np.abs(motion.positions[late] - stop.positions[0]).max() < 0.02
        assert late * motion.step_dt > 0.8
        assert time_from_msg(harness.heard.motions[-1].plan.header.stamp) <= harness.now()


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
            from lifecycle_msgs.srv import ChangeState

            name = f'{harness.namespace}/child/lonely/change_state'
            harness.changer = harness.world.create_client(ChangeState, name)
            assert harness.changer.wait_for_service(timeout_sec=30.0)
            for step in (CONFIGURE, 3):
                assert harness.transition(step)
            moving(harness)
            child.send_signal(signal.SIGTERM)
            assert_seamless_stop(harness)
            assert child.wait(15.0) == 0
        finally:
            child.kill()
            child.wait()
