# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One node that reasons and one that generates: two processes, one robot, one way to stop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
import os
from pathlib import Path
import signal

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import mujoco
from node_harness import ACTIVATE, CONFIGURE, Harness, whole
import numpy as np
import pytest
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.serialization import serialize_message
from std_srvs.srv import Trigger

from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.demo.processes import Children
from egomotion_ros.msg import MotionPrimitives, RobotMotion, Status
from egomotion_ros.nodes.conversions import (
    human_from_msg,
    robot_from_msg,
    time_from_msg,
)
from egomotion_ros.nodes.errors import ErrorCode
from egomotion_ros.nodes.qos import profile
from egomotion_ros.pipeline import EgoMotionPipeline

MODULE = 'egomotion_ros.nodes.egomotion_node'
INSTRUCTION = 'walk to the red ball'
#: Joints of the same plan may differ by this (m).
PARITY = 0.005


@dataclass
class Pair:
    """A world, a process that reasons, one that generates, one of another bundle."""

    harness: Harness
    children: Children
    reason: list[Status] = field(default_factory=list)
    foreign: list[Status] = field(default_factory=list)
    foreign_motions: list[RobotMotion] = field(default_factory=list)
    shown: RobotMotion | None = None

    def start(self, name: str, *remappings: str, **parameters) -> None:
        """Start a node as a process of its own, with a slow machine's patience."""
        values = {'camera.hfov': 1.4, 'threads': 1, 'joint_states.timeout': 10.0,
                  'odom.timeout': 10.0, 'image.max_age': 5.0, 'image.timeout': 10.0,
                  'primitives.max_age': 10.0, **parameters}
        words = ['--ros-args', '-r', f'__ns:={self.harness.namespace}', '-r', f'__node:={name}']
        for name_value in (f'{key}:={value}' for key, value in values.items()):
            words += ['-p', name_value]
        for remapping in remappings:
            words += ['-r', remapping]
        self.children.start(name, MODULE, words)

    def call(self, kind: type, name: str, request):
        client = self.harness.world.create_client(kind, name)
        try:
            self.harness.wait(client.service_is_ready, 60.0, name)
            return self.harness.call(client, request, 60.0)
        finally:
            self.harness.world.destroy_client(client)

    def bring_up(self, name: str) -> None:
        for number in (CONFIGURE, ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=number))
            answer = self.call(ChangeState, f'{name}/change_state', request)
            assert answer.success, self.words()

    def set(self, name: str, parameter: str, value: ParameterValue) -> None:
        """Set a parameter of the node called ``name``; asserts success."""
        request = SetParameters.Request(
            parameters=[ParameterMessage(name=parameter, value=value)])
        answer = self.call(SetParameters, f'{name}/set_parameters', request)
        assert answer.results[0].successful, answer.results[0].reason

    def stop(self, name: str) -> Trigger.Response:
        return self.call(Trigger, f'{name}/stop', Trigger.Request())

    def words(self) -> str:
        return self.children.every_last_word()


@pytest.fixture(scope='module')
def default() -> Iterator[EgoMotionPipeline]:
    pipeline = EgoMotionPipeline.load(threads=1)
    yield pipeline
    pipeline.close()


@pytest.fixture(scope='module')
def pair(default, tiny_bundle, tmp_path_factory) -> Iterator[Pair]:
    """Both halves under way with one instruction, shown once, then planned at least twice."""
    # The harness's own node stays unconfigured: of it only the world is wanted here.
    with (
        Harness(default, load=lambda **_: None) as harness,
        Children(tmp_path_factory.mktemp('stages'), dict(os.environ)) as children,
    ):
        pair = Pair(harness, children)
        pair.start('reasoner', stages='reason', replan_period=1.0)
        pair.start('generator', stages='generate', output_enabled=False,
                   **{'primitives.timeout': 20.0})
        pair.start('foreigner', 'robot_motion:=foreign/robot_motion', 'status:=foreign/status',
                   'joint_trajectory:=foreign/joint_trajectory', stages='generate',
                   bundle=str(tiny_bundle))
        for topic, kind, where, quality in (
            ('reason/status', Status, pair.reason, 'latched'),
            ('foreign/status', Status, pair.foreign, 'latched'),
            ('foreign/robot_motion', RobotMotion, pair.foreign_motions, 'motion'),
        ):
            harness.world.create_subscription(kind, topic, where.append, profile(quality))
        for name in ('generator', 'foreigner', 'reasoner'):
            pair.bring_up(name)
        try:
            # A plan that is shown only starts at rest, however long a busy machine stands still;
            # one that moves the robot is laid on what it has done until then.
            harness.say(INSTRUCTION)
            pair.shown = harness.wait(lambda: harness.heard.previews)[0]
            output = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=True)
            pair.set('generator', 'output_enabled', output)
            harness.say(INSTRUCTION)
            harness.wait(lambda: len(whole(harness)) >= 2 and harness.heard.humans, 60.0)
        except AssertionError as error:
            raise AssertionError(f'no two plans\n{pair.words()}') from error
        yield pair


@pytest.fixture(scope='module')
def primitives(pair: Pair) -> MotionPrimitives:
    """Return what the motion that was shown first was made of."""
    name = pair.shown.plan.plan_id
    return pair.harness.wait(lambda: next(
        (m for m in pair.harness.heard.primitives if m.plan.plan_id == name), None))


def test_the_plan_is_that_of_one_node_at_the_same_seed(pair, primitives, default):
    name = primitives.plan.plan_id
    human = pair.harness.wait(lambda: next(
        (m for m in pair.harness.heard.humans if m.plan.plan_id == name), None))
    with Harness(default) as harness:
        one = harness.run(INSTRUCTION, seed=primitives.plan.seed, execute=False)[1]
        assert one.error_code == ErrorCode.NONE
        alone = harness.wait(lambda: harness.heard.humans, what='human_motion')[0]
    assert list(one.primitives.tokens) == list(primitives.tokens)

    def joints(message):
        motion = human_from_msg(message)
        return forward_kinematics(motion.root_position, motion.rotations, motion.scale)

    assert np.linalg.norm(joints(human) - joints(alone), axis=-1).max() < PARITY
    apart = bodies(default, pair.shown) - bodies(default, one.robot_motion)
    assert np.linalg.norm(apart, axis=-1).max() < PARITY


def bodies(pipeline: EgoMotionPipeline, message: RobotMotion) -> np.ndarray:
    """Positions of all links of the robot, (steps, links, 3)."""
    robot, motion = pipeline.robot, robot_from_msg(message)
    model = robot.kinematics
    data, found = mujoco.MjData(model), []
    for root, quaternion, positions in zip(
        motion.root_position, motion.root_quaternion, motion.positions, strict=True
    ):
        data.qpos[:3], data.qpos[3:7] = root, np.roll(quaternion, 1)
        data.qpos[robot.qpos_indices(model)] = positions
        mujoco.mj_kinematics(model, data)
        found.append(data.xpos.copy())
    return np.array(found)


def test_the_bytes_of_a_plan_are_those_the_page_tells(primitives, checkout: Path, default):
    rows, width = default.bundle.graphs['condition'].inputs[0].shape[1:]
    assert (primitives.states_dtype, list(primitives.states_shape)) == ('float16', [rows, width])
    assert len(primitives.states) == 2 * rows * width
    page = (checkout / 'docs' / 'how-to' / 'split.md').read_text(encoding='utf-8')
    assert f'{len(serialize_message(primitives)):,} bytes' in page


def test_the_half_that_reasons_moves_nothing(pair, primitives):
    world, heard = pair.harness.world, pair.harness.heard
    motions = world.get_publishers_info_by_topic(f'{pair.harness.namespace}/robot_motion')
    assert [entry.node_name for entry in motions] == ['generator']
    senders = world.get_publishers_info_by_topic(f'{pair.harness.namespace}/motion_primitives')
    assert [entry.node_name for entry in senders] == ['reasoner']
    assert {m.plan.plan_id for m in heard.motions} <= {m.plan.plan_id for m in heard.primitives}
    assert pair.harness.wait(lambda: pair.reason)[-1].instruction == INSTRUCTION


def test_the_next_plan_joins_the_running_one(pair):
    first, second = whole(pair.harness)[:2]
    old, new = robot_from_msg(first), robot_from_msg(second)
    shift = 1e-9 * (time_from_msg(second.plan.header.stamp)
                    - time_from_msg(first.plan.header.stamp))
    row = round(shift / old.step_dt)
    assert 0 < row < old.steps
    assert np.abs(new.positions[0] - old.positions[row]).max() < 0.02


def test_another_bundle_is_refused_and_nothing_moves(pair):
    pair.harness.wait(lambda: pair.foreign and pair.foreign[-1].code == ErrorCode.FOREIGN_BUNDLE)
    assert pair.foreign[-1].state == Status.REFUSED
    assert not pair.foreign_motions


def test_stop_of_the_moving_half_holds_although_plans_go_on_coming(pair):
    harness = pair.harness
    assert pair.stop('generator').message == 'stopping'
    harness.wait(lambda: harness.heard.motions[-1].hold, what='the deceleration')
    seen = len(harness.heard.primitives)
    harness.wait(lambda: len(harness.heard.primitives) >= seen + 2, what='more primitives')
    harness.wait_status(Status.HOLDING, ErrorCode.STOPPED)
    assert harness.heard.motions[-1].hold


def test_stop_of_the_reasoning_half_ends_the_instruction(pair):
    assert pair.stop('reasoner').success
    pair.harness.wait(lambda: pair.reason[-1].code == ErrorCode.STOPPED, what='its status')
    assert pair.reason[-1].state == Status.HOLDING


def test_a_reasoner_that_dies_stops_the_robot(pair):
    harness = pair.harness
    # Three plans' time: less than what is left of the motion when the reasoner dies.
    patience = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=3.0)
    pair.set('generator', 'primitives.timeout', patience)
    seen = len(harness.heard.motions)
    harness.say('walk forward')
    harness.wait(lambda: len(harness.heard.motions) > seen, 60.0, 'motion')
    os.kill(pair.children.pid('reasoner'), signal.SIGKILL)
    harness.wait(lambda: harness.heard.motions[-1].hold, what='the deceleration')
    status = harness.wait(lambda: next(
        (m for m in harness.heard.messages if m.code == ErrorCode.STALE_PRIMITIVES), None))
    assert status.state == Status.STOPPING
    stop = robot_from_msg(harness.heard.motions[-1])
    assert np.abs(stop.velocities[-1]).max() < 1e-6
