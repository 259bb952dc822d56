# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Orders, stops and slow stages at the worst moments: whatever is published can be executed."""

from __future__ import annotations

import random
import time

from node_harness import ACTIVATE, DEACTIVATE, Harness
import numpy as np
import pytest
from test_node_primitives import Sender

from egomotion_ros.nodes.conversions import robot_from_msg, time_from_msg
from egomotion_ros.nodes.errors import ErrorCode
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.retarget.joining import sample
from egomotion_ros.retarget.limits import check

#: Things done to the node in one storm.
ACTS = 32


@pytest.fixture(scope='module')
def pipeline(tiny_bundle):
    pipeline = EgoMotionPipeline.load(tiny_bundle, threads=1)
    yield pipeline
    pipeline.close()


def assert_executable(harness: Harness) -> None:
    """Every message inside the limits and to rest, every one going on where the last one was."""
    limits = harness.pipeline.robot.limits
    motions = [robot_from_msg(message) for message in harness.heard.motions]
    starts = [time_from_msg(message.plan.header.stamp) for message in harness.heard.motions]
    for motion in motions:
        found = check(motion, limits)
        assert (found.total, found.acceleration) == (0, 0), found
        assert not motion.velocities[-1].any() and not motion.root_twist[-1].any()
        assert np.linalg.norm(motion.root_twist[:, :3], axis=1).max() < 6.0
    for k in range(1, len(motions)):
        before, after = motions[k - 1], motions[k]
        there = sample(before, 1e-9 * (starts[k] - starts[k - 1]))
        # A robot at rest is measured, and taken at a limit that it is a hair outside of.
        near = 1e-6 if starts[k] < starts[k - 1] + 1e9 * before.duration else 1e-3
        assert np.abs(after.positions[0] - there.positions).max() < near, k
        assert np.abs(after.velocities[0] - there.velocities).max() < 1e-5, k
        assert np.abs(after.root_position[0] - there.root_position).max() < max(near, 1e-4), k


@pytest.mark.parametrize('seed', [1])
def test_whatever_is_published_in_a_storm_of_orders_can_be_executed(pipeline, seed):
    chance = random.Random(seed)
    with Harness(pipeline, replan_period=0.2, first_part=0.3) as harness:
        slow = harness.pipeline

        def act() -> None:
            kind = chance.choice(
                ['say', 'say', 'goal', 'goal', 'stop', 'cancel', 'preview', 'first_part', 'off']
            )
            if kind == 'say':
                harness.say(chance.choice(['walk forward', 'turn left', 'wave']))
            elif kind in ('goal', 'preview'):
                goals.append(harness.send('turn left', execute=kind == 'goal'))
            elif kind == 'stop':
                assert harness.stop().success
            elif kind == 'cancel' and goals:
                goals[-1].cancel_goal_async()
            elif kind == 'first_part':
                harness.set(first_part=chance.choice([0.0, 0.1, 0.3, 3.0]))
            elif kind == 'off':
                harness.set(output_enabled=False)
                harness.set(output_enabled=True)

        goals: list = []
        for _ in range(ACTS):
            gate = chance.choice(['reason', 'generate', 'retarget', 'rest', ''])
            if gate:
                slow.shut(gate)
            act()
            if gate:
                # Perhaps nobody comes to that gate now: that is no reason to wait long.
                slow.reached[gate].wait(0.3)
                act()
                time.sleep(chance.choice([0.0, 0.1, 0.6]))
                slow.open_all()
            time.sleep(chance.choice([0.0, 0.05, 0.4]))
        slow.open_all()
        harness.stop()
        for goal in goals:
            _, result = harness.result(goal)
            assert result.error_code in (
                ErrorCode.NONE, ErrorCode.PREEMPTED, ErrorCode.STOPPED, ErrorCode.CANCELED,
            ), result.error_msg
        harness.wait(lambda: not harness.node.controller.is_busy, what='rest')
        # It is as ready as ever.
        harness.set(first_part=0.3)
        assert harness.run('wave', execute=False)[1].error_code == ErrorCode.NONE
        assert len(harness.heard.motions) > 3
        harness.wait(
            lambda: len(harness.heard.trajectories) == len(harness.heard.motions),
            what='all trajectories',
        )
        assert_executable(harness)


@pytest.mark.parametrize('gate', ['reason', 'generate', 'retarget', 'rest'])
def test_deactivation_in_the_middle_of_a_plan_leaves_nothing_for_the_next_life(pipeline, gate):
    with Harness(pipeline, first_part=2.0, replan_period=0.2) as harness:
        harness.pipeline.shut(gate)
        harness.say('walk forward')
        assert harness.pipeline.reached[gate].wait(20.0)
        assert harness.transition(DEACTIVATE)
        controller = harness.node.controller
        # What was on its way while the node was deactivated.
        controller.instruct('wave')
        assert controller._task is None
        assert not harness.node.observer.is_open
        assert harness.transition(ACTIVATE)
        heard = len(harness.heard.motions)
        harness.pipeline.open_all()
        harness.wait(lambda: not controller._worker.is_busy, what='the end of planning')
        assert harness.run('wave', execute=False)[1].error_code == ErrorCode.NONE
        assert len(harness.heard.motions) == heard
        assert_executable(harness)


@pytest.mark.parametrize('seed', [3])
def test_whatever_is_published_in_a_storm_of_primitives_can_be_executed(pipeline, seed):
    """Two reasoners, many more primitives than plans, stops and another life in between."""
    chance = random.Random(seed)
    patient = {'primitives.max_age': 3.0, 'primitives.timeout': 20.0}
    with Harness(pipeline, stages='generate', first_part=0.3, **patient) as harness:
        sender, slow = Sender(harness, pipeline), harness.pipeline
        instructions = [harness.now()]
        for act in range(60):
            if chance.random() < 0.15:
                instructions.append(harness.now())
            given = instructions[-1] if chance.random() < 0.7 else chance.choice(instructions)
            gate = chance.choice(['generate', 'retarget', 'rest']) if act % 6 == 0 else ''
            if gate:
                slow.shut(gate)
            sender.send(sender.message(given=given))
            if gate:
                slow.reached[gate].wait(0.3)
                for _ in range(3):
                    sender.send(sender.message(given=given))
                if act % 12 == 0:
                    assert harness.stop().success
                time.sleep(chance.choice([0.0, 0.3, 0.8]))
                slow.open_all()
            if act == 30:
                assert harness.transition(DEACTIVATE) and harness.transition(ACTIVATE)
            time.sleep(chance.choice([0.02, 0.05, 0.1]))
        # Whatever happened, the next instruction is followed.
        last = sender.message()
        sender.send(last)
        harness.wait(lambda: last.plan.plan_id in harness.heard.plans, what='its motion')
        harness.stop()
        harness.wait(lambda: not harness.node.controller.is_busy, what='rest')
        assert harness.node.health.ignored > 0
        assert len(harness.heard.plans) > 5
        harness.wait(
            lambda: len(harness.heard.trajectories) == len(harness.heard.motions),
            what='all trajectories',
        )
        assert_executable(harness)
