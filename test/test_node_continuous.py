# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A standing instruction: re-planning, seams, what a joint controller is given, laziness."""

from __future__ import annotations

from dataclasses import replace
import math
import time

from node_harness import Harness, Leading
import numpy as np
import pytest
from rclpy.serialization import serialize_message
from std_msgs.msg import String

from egomotion_ros.msg import MotionPrimitives, Status
from egomotion_ros.nodes.conversions import robot_from_msg, time_from_msg
from egomotion_ros.nodes.errors import ErrorCode
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.retarget.joining import sample
from egomotion_ros.retarget.limits import check
from egomotion_ros.types import Target


@pytest.fixture(scope='module')
def pipeline(tiny_bundle):
    pipeline = EgoMotionPipeline.load(tiny_bundle, threads=1)
    yield pipeline
    pipeline.close()


def whole_plans(harness):
    """Motions that are whole plans: no stop, and not only the beginning of a plan."""
    return [m for m in harness.heard.motions if not (m.hold or m.unfinished)]


@pytest.fixture(scope='module')
def session(pipeline):
    """One instruction, planned three times: what was heard of it."""
    with Harness(pipeline, replan_period=0.8) as harness:
        harness.say('walk to the red ball')
        harness.wait(lambda: len(whole_plans(harness)) >= 3, 30.0, 'three plans')
        harness.stop()
        harness.wait(lambda: harness.heard.motions[-1].hold)
        harness.wait(
            lambda: len(harness.heard.trajectories) == len(harness.heard.motions),
            what='all trajectories',
        )
        yield harness


def test_every_plan_is_of_the_newest_image_and_carries_its_origin(session):
    plans = [m.plan for m in whole_plans(session)]
    stamps = [time_from_msg(p.observation_stamp) for p in plans]
    assert stamps == sorted(set(stamps))
    assert len({p.plan_id for p in plans}) == len(plans)
    for plan, observation in zip(plans, session.pipeline.observations, strict=False):
        assert plan.bundle_hash == session.pipeline.bundle.hash
        assert time_from_msg(plan.observation_stamp) == observation.stamp
        assert plan.header.frame_id == 'odom'


def test_the_next_motion_repeats_the_running_one_and_leaves_it_without_a_seam(session):
    limits = session.pipeline.robot.limits
    motions = whole_plans(session)
    for before, after in zip(motions, motions[1:], strict=False):
        old, new = robot_from_msg(before), robot_from_msg(after)
        shift = 1e-9 * (
            time_from_msg(after.plan.header.stamp) - time_from_msg(before.plan.header.stamp)
        )
        lead = int(0.1 / new.step_dt)
        running = sample(old, shift + new.step_dt * np.arange(lead))
        assert np.abs(new.positions[:lead] - running.positions).max() < 1e-6
        assert np.abs(new.velocities[:lead] - running.velocities).max() < 1e-5
        assert np.abs(new.root_position[:lead] - running.root_position).max() < 1e-6
        assert check(new, limits).total == 0


def test_what_was_executed_since_the_image_is_handed_to_the_generator(session):
    prefixes = session.pipeline.prefixes
    assert prefixes[0] is None
    # At least the latency budget of 0.6 s; more where the machine is slower than that.
    assert all(prefix is not None and prefix.frames >= 18 for prefix in prefixes[1:3])


def test_joint_trajectory_is_what_a_controller_takes(session):
    names = list(session.pipeline.robot.joint_names)
    for motion, trajectory, arrived in zip(
        session.heard.motions, session.heard.trajectories, session.heard.arrivals, strict=True
    ):
        assert trajectory.joint_names == names
        assert trajectory.header.stamp == motion.plan.header.stamp
        assert time_from_msg(trajectory.header.stamp) <= arrived
        times = [time_from_msg(p.time_from_start) for p in trajectory.points]
        assert times[0] == 0 and min(np.diff(times)) > 0
        assert not any(trajectory.points[-1].velocities)
        positions = np.array([p.positions for p in trajectory.points])
        assert np.array_equal(positions.ravel(), motion.positions)


def test_only_an_instruction_makes_the_node_listen(pipeline):
    with Harness(pipeline, replan_period=0.0) as harness:
        harness.wait(lambda: harness.heard.messages, what='the first status')
        assert harness.heard.messages[0].state == Status.IDLE
        assert harness.images.get_subscription_count() == 0
        assert harness.joints.get_subscription_count() == 0
        harness.say('wave')
        harness.wait(harness.images.get_subscription_count, what='a subscription')
        harness.wait(lambda: harness.heard.motions, what='the motion')
        # With replan_period 0 the instruction is over with its motion, and so is the listening.
        harness.wait(lambda: harness.heard.messages[-1].state == Status.IDLE, what='idle')
        harness.wait(
            lambda: harness.images.get_subscription_count() == 0, what='the end of listening'
        )


def test_a_goal_takes_over_and_the_topic_is_ignored_meanwhile(pipeline):
    with Harness(pipeline) as harness:
        harness.say('walk forward')
        harness.wait(lambda: harness.heard.motions, what='motion')
        goal = harness.send('turn left')
        harness.wait(lambda: len(harness.heard.plans) >= 2, what='motion of the goal')
        harness.say('wave')
        harness.wait(lambda: harness.node.health.ignored == 1, what='an ignored instruction')
        goal.cancel_goal_async()
        assert harness.result(goal)[1].error_code == ErrorCode.CANCELED
        harness.wait(lambda: harness.heard.motions[-1].hold, what='the hold')
        assert 'wave' not in {m.instruction for m in harness.heard.messages}
        assert {o.instruction for o in harness.pipeline.observations} == {
            'walk forward',
            'turn left',
        }


def test_an_instruction_that_is_said_again_and_again_is_still_done(pipeline):
    with Harness(pipeline, replan_period=0.0) as harness:
        reason, harness.pipeline.reason = harness.pipeline.reason, None

        def slowly(*asked):
            time.sleep(0.5)
            return reason(*asked)

        harness.pipeline.reason = slowly
        harness.wait(harness.words.get_subscription_count)
        for _ in range(60):  # three seconds, every plan takes half a one
            harness.words.publish(String(data='wave'))
            time.sleep(0.05)
        assert len(harness.heard.plans) >= 2
        # Other words count at once.
        harness.words.publish(String(data='wave'))
        harness.words.publish(String(data='turn left'))
        harness.wait(lambda: harness.pipeline.observations[-1].instruction == 'turn left')


def test_the_prefix_counts_in_the_time_of_the_simulation(pipeline):
    with Harness(pipeline, sim_time=True, replan_period=1.0, latency_budget=0.1) as harness:
        harness.tick_ns = 100_000_000  # five times as fast as the world's own time
        reason = harness.pipeline.reason

        def slowly(*asked):
            time.sleep(0.15)
            return reason(*asked)

        harness.pipeline.reason = slowly
        harness.say('walk to the red ball')
        harness.wait(lambda: sum(p is not None for p in harness.pipeline.prefixes) >= 3)
        # 0.15 s are three quarters of a simulated second.
        known = harness.pipeline.prefixes[-1]
        assert known is not None and known.frames / known.fps > 0.7


def test_a_changed_instruction_is_followed_at_once(pipeline):
    with Harness(pipeline, replan_period=30.0) as harness:
        harness.say('walk forward')
        harness.wait(lambda: harness.heard.motions, what='motion')
        harness.say('turn left')
        harness.wait(lambda: len(harness.heard.plans) >= 2, what='the new motion')
        assert harness.pipeline.observations[-1].instruction == 'turn left'
        assert harness.pipeline.prefixes[-1] is not None


def test_refused_instructions_say_why_and_change_nothing(pipeline):
    with Harness(pipeline) as harness:
        harness.say('')
        harness.wait_status(Status.REFUSED, ErrorCode.EMPTY_INSTRUCTION)
        harness.say('x' * 10_000)
        harness.wait_status(Status.REFUSED, ErrorCode.INSTRUCTION_TOO_LONG)
        # Bytes that are no UTF-8, as a careless writer of another language sends them.
        broken = serialize_message(String(data='walk ????')).replace(b'????', b'\xff\xfe\xc3(')
        harness.words.publish(broken)
        harness.wait_status(Status.REFUSED, ErrorCode.BAD_INSTRUCTION)
        harness.say('wave')
        harness.wait(lambda: harness.heard.motions, what='motion')
        harness.wait_status(Status.EXECUTING)
        count = len(harness.heard.messages)
        harness.say('  ')
        refused = harness.wait_status(Status.EXECUTING, ErrorCode.EMPTY_INSTRUCTION, count)
        assert refused.instruction == 'wave'


def test_human_motion_markers_and_primitives_tell_the_same_plan(pipeline):
    with Harness(pipeline, publish_states=True) as harness:
        harness.run('wave', execute=False)
        human = harness.wait(lambda: harness.heard.humans, what='human_motion')[0]
        primitives = harness.wait(lambda: harness.heard.primitives, what='primitives')[0]
        assert human.plan.plan_id == primitives.plan.plan_id
        assert len(primitives.states) == 2 * int(np.prod(primitives.states_shape))


def slow_second_goal(harness):
    """
    Let a goal wait, in the middle of another's motion, until its plan would be over.

    The machine is slow: the motion that the plan continues ends, and so would the plan.  Gives the
    goal, whose retargeting is still shut, and when it was sent (ns).
    """
    first = harness.send('walk forward')
    harness.wait(lambda: harness.followed > 3, what='joint states of the motion')
    harness.pipeline.shut('retarget')
    second = harness.send('turn left')
    assert harness.pipeline.reached['retarget'].wait(10.0)
    assert harness.result(first)[1].error_code == ErrorCode.PREEMPTED
    started = harness.now()
    harness.tick_ns = 60_000_000  # seconds in which nothing happens
    harness.wait(lambda: harness.now() > started + 6_000_000_000, 120.0)
    return second, started


def test_a_plan_that_takes_longer_than_it_lasts_is_made_again_from_a_newer_image(pipeline):
    with Harness(pipeline, sim_time=True, replan_period=0.0, planning_timeout=120.0) as harness:
        second, started = slow_second_goal(harness)
        seen = len(harness.pipeline.observations)
        harness.pipeline.open_all()
        result = harness.result(second)[1]
        assert result.error_code == ErrorCode.NONE
        assert len(harness.pipeline.observations) == seen + 1
        newest = harness.heard.motions[-1]
        assert newest.plan.plan_id == result.plan_id and not newest.hold
        assert time_from_msg(newest.plan.observation_stamp) > started + 5_500_000_000


def test_a_standing_instruction_keeps_to_where_it_has_led(pipeline):
    with Harness(pipeline, replan_period=0.3, goal_memory=True) as harness:
        leading = Leading(harness, 1.0, 0.0, 0.0)
        harness.say('walk to the red ball')
        harness.wait(lambda: whole_plans(harness), what='a plan')
        health = harness.node.health
        leading.to, leading.from_here = (0.0, 0.0, 1.5), True  # a search
        seen = health.unfollowed
        harness.wait(lambda: health.unfollowed > seen, what='a plan that is not followed')
        followed = len(harness.heard.plans)
        harness.wait(lambda: health.unfollowed > seen + 2, what='more of them')
        assert len(harness.heard.plans) == followed
        assert harness.heard.messages[-1].code == ErrorCode.NONE
        # Another instruction is followed wherever it leads.
        harness.say('walk to the green ball')
        harness.wait(lambda: len(harness.heard.plans) > followed, what='the new instruction')
        harness.stop()


def test_a_goal_with_several_looks_ends_where_they_have_led(pipeline):
    with Harness(pipeline, replan_period=0.5, goal_memory=True) as harness:
        leading = Leading(harness, 0.8, 0.0, 0.0)
        goal = harness.send('walk to the red ball', looks=100)
        harness.wait(lambda: whole_plans(harness), what='a plan')
        leading.to = (0.8, 0.0, 2.0)  # a search, where it has arrived
        result = harness.result(goal)[1]
        assert result.error_code == ErrorCode.NONE, result.error_msg
        assert len(harness.pipeline.observations) < 40
        assert robot_from_msg(result.robot_motion).root_position[-1, 0] == pytest.approx(
            0.8, abs=0.15)


def test_a_goal_that_finds_nothing_all_around_says_so(pipeline):
    with Harness(pipeline, replan_period=0.5, goal_memory=True) as harness:
        Leading(harness, 0.0, 0.0, math.radians(90.0), from_here=True)
        result = harness.run('walk to the red ball', looks=100)[1]
        assert result.error_code == ErrorCode.NOT_FOUND and 'did not find' in result.error_msg
        assert len(harness.heard.plans) == 4
        assert harness.heard.messages[-1].code == ErrorCode.NOT_FOUND


def test_what_names_nothing_to_look_at_is_done_once(pipeline):
    with Harness(pipeline, replan_period=0.5, goal_memory=True) as harness:
        Leading(harness, 0.0, 0.0, math.radians(90.0), from_here=True)
        reason = harness.pipeline.reason
        harness.pipeline.reason = lambda *given: replace(reason(*given),
                                                         target=Target.NONE)
        result = harness.run('turn left', looks=100)[1]
        assert result.error_code == ErrorCode.NONE, result.error_msg
        assert len(harness.heard.plans) == 1
        assert harness.heard.primitives[-1].target == MotionPrimitives.TARGET_NONE


@pytest.mark.parametrize(('period', 'looks'), [(0.3, 3), (0.0, 2)])
def test_a_goal_looks_at_most_as_often_as_it_is_told(pipeline, period, looks):
    with Harness(pipeline, replan_period=period) as harness:
        assert harness.run('walk forward', looks=looks)[1].error_code == ErrorCode.NONE
        assert len(harness.pipeline.observations) == looks


def test_a_plan_that_came_too_late_leads_nowhere(pipeline):
    with Harness(pipeline, sim_time=True, replan_period=0.0, planning_timeout=120.0,
                 goal_memory=True) as harness:
        leading = Leading(harness, 2.0, 0.0, 0.0)
        second, _ = slow_second_goal(harness)
        leading.to = (-1.0, 0.0, 0.0)  # elsewhere than the plan that nothing came of
        harness.pipeline.open_all()
        result = harness.result(second)[1]
        assert result.error_code == ErrorCode.NONE
        assert robot_from_msg(result.robot_motion).root_position[-1, 0] < 0.0
