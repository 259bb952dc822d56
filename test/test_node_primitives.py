# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The half of the node that generates, and what the network may bring it."""

from __future__ import annotations

import array
from collections.abc import Iterator
from dataclasses import replace
import uuid

from node_harness import ACTIVATE, DEACTIVATE, Harness, Leading, whole
import numpy as np
import pytest
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message

from egomotion_ros.msg import MotionPrimitives, Status
from egomotion_ros.nodes.conversions import (
    PlanInfo,
    primitives_to_msg,
    time_from_msg,
    time_to_msg,
)
from egomotion_ros.nodes.errors import ErrorCode
from egomotion_ros.nodes.qos import profile
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.types import CameraPose, Observation, PlanarPose


@pytest.fixture(scope='module')
def tiny(tiny_bundle) -> Iterator[EgoMotionPipeline]:
    pipeline = EgoMotionPipeline.load(tiny_bundle, threads=1)
    yield pipeline
    pipeline.close()


@pytest.fixture(scope='module')
def generating(tiny) -> Iterator[Sender]:
    patient = {'primitives.max_age': 10.0, 'primitives.timeout': 20.0}
    with Harness(tiny, stages='generate', **patient) as harness:
        yield Sender(harness, tiny)


class Sender:
    """A reasoner that sends what it is told to."""

    def __init__(self, harness: Harness, pipeline: EgoMotionPipeline) -> None:
        self.harness, self.pipeline = harness, pipeline
        self._publisher = harness.world.create_publisher(
            MotionPrimitives, 'motion_primitives', profile('motion')
        )
        self.given = harness.now()

    def message(self, **changes) -> MotionPrimitives:
        """Primitives of what is seen now, for an instruction given anew unless ``given``."""
        now = self.harness.now()
        self.given = changes.pop('given', now)
        camera = self.pipeline.camera
        image = np.zeros((camera.height, camera.width, 3), np.uint8)
        plan = self.pipeline.reason(
            Observation(image, 'walk forward', now, CameraPose(1.2, 0.6)), uuid.uuid4().hex, 7
        )
        bundle = changes.pop('bundle_hash', self.pipeline.bundle.hash)
        _, place, (x, y, z, w) = self.harness.robot_state(now)
        yaw = np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
        root = PlanarPose(float(place[0]), float(place[1]), float(yaw))
        info = PlanInfo(plan.plan_id, 7, bundle, now, now, root, instruction_stamp=self.given)
        message = primitives_to_msg(plan, info, with_states=True)
        for name, value in changes.items():
            setattr(message, name, value)
        return message

    def send(self, message: MotionPrimitives | bytes) -> None:
        # The world listens as well as the node.
        self.harness.wait(lambda: self._publisher.get_subscription_count() >= 2)
        self._publisher.publish(message)

    def refused(self, message: MotionPrimitives | bytes, code: ErrorCode, text: str) -> None:
        """Send what must be refused by this code, in these words, and change nothing else."""
        harness, health = self.harness, self.harness.node.health
        refusals, moved = health.failures, len(harness.heard.motions)
        self.send(message)
        harness.wait(lambda: health.failures > refusals, what=f'{code.name}: {text}')
        assert health.last_code == code and text in health.last_message
        harness.wait(lambda: harness.heard.messages[-1].code == code, what=code.name)
        assert len(harness.heard.motions) == moved


def states(message: MotionPrimitives, value: float) -> array.array:
    """The states with one number replaced."""
    numbers = np.frombuffer(message.states, '<f2').copy()
    numbers[5] = value
    return array.array('B', numbers.tobytes())


def test_broken_primitives_are_refused_by_name_and_a_good_one_moves(generating):
    sender, bad = generating, ErrorCode.BAD_PRIMITIVES
    good = sender.message()
    for changes, text in (
        ({'states': states(good, np.nan)}, 'not finite'),
        ({'states': states(good, np.inf)}, 'not finite'),
        ({'states': good.states[:-2]}, 'does not fit'),
        ({'states_shape': array.array('I', [good.states_shape[1], good.states_shape[0]])},
         'states_mask'),
        ({'states_shape': array.array('I', [len(good.states) // 2])}, 'does not fit'),
        ({'states_mask': [False] * len(good.states_mask)}, 'no row is real'),
        ({'states_dtype': 'object'}, 'float16 or float32'),
        ({'states': array.array('B')}, 'there are none'),
        ({'states_layer': 7}, 'layer 7'),
        ({'windows': good.windows - 1}, 'tokens'),
        ({'tokens': array.array('H', [9999] * len(good.tokens))}, 'codes below'),
        ({'confidence': array.array('f', [np.nan] * len(good.confidence))}, 'confidence'),
        ({'window_duration': float('inf')}, 'window_duration'),
        ({'instruction': ''}, 'EMPTY_INSTRUCTION'),
    ):
        sender.refused(sender.message(**changes), bad, text)
    packed = bytes(serialize_message(sender.message()))
    for cut in (30, len(packed) // 2):
        sender.refused(packed[:cut], bad, 'not a MotionPrimitives')
    frame = sender.message()
    frame.plan.header.frame_id = 'map'
    sender.refused(frame, bad, 'odom')
    pose = sender.message()
    pose.plan.observation_pose.position.x = float('nan')
    sender.refused(pose, bad, 'pose')
    sender.refused(sender.message(bundle_hash='0' * 64), ErrorCode.FOREIGN_BUNDLE, '000000000000')
    assert not sender.harness.heard.motions and not sender.harness.heard.previews
    sender.send(sender.message())
    sender.harness.wait(lambda: whole(sender.harness), what='motion')


def test_old_early_repeated_and_overtaken_primitives_are_refused(generating):
    sender, stale = generating, ErrorCode.STALE_PRIMITIVES
    harness = sender.harness
    overtaken, again = sender.message(), sender.message()
    seen = len(whole(harness))
    sender.send(again)
    harness.wait(lambda: len(whole(harness)) > seen, what='motion')
    sender.refused(again, stale, 'came already')
    sender.refused(overtaken, stale, 'older than the one before')
    old, early = sender.message(), sender.message()
    old.plan.observation_stamp = time_to_msg(harness.now() - 60_000_000_000)
    sender.refused(old, stale, 's old')
    early.plan.observation_stamp = time_to_msg(harness.now() + 60_000_000_000)
    sender.refused(early, stale, 'in the future')


def test_what_was_stopped_stays_stopped_until_another_instruction(generating):
    sender, harness = generating, generating.harness
    seen = len(harness.heard.motions)
    sender.send(sender.message())
    harness.wait(lambda: len(harness.heard.motions) > seen, what='motion')
    harness.stop()
    harness.wait(lambda: harness.heard.motions[-1].hold, what='the deceleration')
    given, ignored = sender.given, harness.node.health.ignored
    sender.send(sender.message(given=given))
    harness.wait(lambda: harness.node.health.ignored > ignored, what='ignored primitives')
    assert harness.heard.motions[-1].hold
    seen = len(harness.heard.motions)
    sender.send(sender.message())
    harness.wait(lambda: len(harness.heard.motions) > seen, what='motion')
    # The same holds for what was asked before the node was active.
    assert harness.transition(DEACTIVATE) and harness.transition(ACTIVATE)
    ignored, seen = harness.node.health.ignored, len(harness.heard.motions)
    sender.send(sender.message(given=sender.given))
    harness.wait(lambda: harness.node.health.ignored > ignored, what='ignored primitives')
    assert len(harness.heard.motions) == seen


def test_primitives_that_come_during_a_plan_are_next_and_continue_it(generating):
    sender, harness = generating, generating.harness
    made = len(harness.pipeline.prefixes)
    harness.pipeline.shut('retarget')
    sender.send(sender.message())
    assert harness.pipeline.reached['retarget'].wait(20.0)
    newest = sender.message(given=sender.given)
    for message in (sender.message(given=sender.given), newest):
        message.plan.observation_stamp = time_to_msg(harness.now())
        sender.send(message)
    harness.wait(lambda: harness.node.controller._next is not None
                 and harness.node.controller._next.plan_id == newest.plan.plan_id)
    harness.pipeline.open_all()
    harness.wait(lambda: [m for m in whole(harness) if m.plan.plan_id == newest.plan.plan_id],
                 what='motion of the newest primitives')
    assert len(harness.pipeline.prefixes) == made + 2
    harness.stop()


def test_an_instruction_from_a_clock_that_is_ahead_is_stopped_too(tiny):
    with Harness(tiny, stages='generate', future_tolerance=10.0,
                 **{'primitives.max_age': 10.0, 'primitives.timeout': 20.0}) as harness:
        sender = Sender(harness, tiny)
        ahead = harness.now() + 8_000_000_000
        sender.send(sender.message(given=ahead))
        harness.wait(lambda: harness.heard.motions, what='motion')
        assert harness.stop().message == 'stopping'
        harness.wait(lambda: harness.heard.motions[-1].hold, what='the deceleration')
        seen = len(harness.heard.motions)
        sender.send(sender.message(given=ahead))
        harness.wait(lambda: harness.node.health.ignored, what='ignored primitives')
        assert len(harness.heard.motions) == seen
        sender.send(sender.message(given=ahead + 1))
        harness.wait(lambda: len(harness.heard.motions) > seen, what='motion')


def test_a_second_reasoner_with_an_older_instruction_is_ignored_and_hides_no_silence(tiny):
    with Harness(tiny, stages='generate',
                 **{'primitives.max_age': 10.0, 'primitives.timeout': 20.0}) as harness:
        sender, controller = Sender(harness, tiny), harness.node.controller
        older = harness.now()
        sender.send(sender.message(given=older))
        harness.wait(lambda: whole(harness), what='motion')
        newer = sender.message()
        sender.send(newer)
        harness.wait(lambda: newer.plan.plan_id in harness.heard.plans, what='the newer motion')
        for _ in range(3):
            sender.send(sender.message(given=older))
        harness.wait(lambda: harness.node.health.ignored == 3, what='ignored primitives')
        assert harness.heard.plans[-1] == newer.plan.plan_id
        assert controller._task.given == time_from_msg(newer.plan.instruction_stamp)
        harness.set(**{'primitives.timeout': 0.5})
        sender.send(sender.message(given=older))
        harness.wait(lambda: harness.heard.motions[-1].hold, what='the deceleration')
        harness.wait_status(Status.HOLDING, ErrorCode.STALE_PRIMITIVES)


def test_primitives_that_grew_old_behind_another_plan_are_not_used(generating):
    sender, harness = generating, generating.harness
    harness.pipeline.shut('retarget')
    sender.send(sender.message())
    assert harness.pipeline.reached['retarget'].wait(20.0)
    waiting = sender.message(given=sender.given)
    sender.send(waiting)
    harness.wait(lambda: harness.node.controller._next is not None)
    ignored = harness.node.health.ignored
    harness.set(**{'primitives.max_age': 0.01})
    harness.pipeline.open_all()
    harness.wait(lambda: harness.node.health.ignored > ignored, what='ignored primitives')
    harness.set(**{'primitives.max_age': 10.0})
    fresh = sender.message(given=sender.given)
    sender.send(fresh)
    harness.wait(lambda: fresh.plan.plan_id in harness.heard.plans, what='motion')
    assert waiting.plan.plan_id not in harness.heard.plans
    harness.stop()


@pytest.mark.parametrize('where', [1e9, -100.0])
def test_primitives_of_what_was_seen_elsewhere_move_nothing(generating, where):
    sender, harness = generating, generating.harness
    harness.wait(lambda: not harness.node.controller.is_busy, what='rest')
    seen = len(harness.heard.motions)
    message = sender.message()
    message.plan.observation_pose.position.x += where
    sender.send(message)
    harness.wait(lambda: harness.node.health.last_code == ErrorCode.BAD_PRIMITIVES,
                 what='the refusal')
    assert 'from where the robot was' in harness.node.health.last_message
    harness.wait(lambda: not harness.node.controller.is_busy)
    assert len(harness.heard.motions) == seen


def test_primitives_on_their_way_at_deactivation_start_nothing(generating):
    sender, harness = generating, generating.harness
    controller, late = harness.node.controller, sender.message()
    assert harness.transition(DEACTIVATE)
    harness.node.observer.accept = lambda sample: (None, PlanInfo(
        'late', 1, '', 0, 0, PlanarPose(), instruction_stamp=harness.now() + 50_000_000))
    try:
        controller.receive(late)
        assert controller._task is None and not controller.is_busy
    finally:
        del harness.node.observer.accept
        assert harness.transition(ACTIVATE)


def test_goals_are_told_where_to_go(generating):
    assert generating.harness.run('wave')[1].error_code == ErrorCode.WRONG_STAGE
    generating.harness.wait(lambda: generating.harness.heard.messages[-1].code
                            == ErrorCode.WRONG_STAGE)


def test_without_output_plans_are_shown_and_switching_it_on_starts_nothing(tiny):
    with Harness(tiny, stages='generate', output_enabled=False,
                 **{'primitives.max_age': 10.0}) as harness:
        sender = Sender(harness, tiny)
        sender.send(sender.message())
        harness.wait(lambda: harness.heard.previews, what='a preview')
        harness.set(output_enabled=True)
        sender.send(sender.message(given=sender.given))
        harness.wait(lambda: harness.node.health.ignored, what='ignored primitives')
        assert not harness.heard.motions
        # No camera is listened to, whatever goes on.
        assert harness.images.get_subscription_count() == 0


def test_a_clock_that_is_set_back_stops_and_the_next_instruction_counts(tiny):
    with Harness(tiny, stages='generate', sim_time=True,
                 **{'primitives.max_age': 10.0, 'primitives.timeout': 20.0}) as harness:
        sender = Sender(harness, tiny)

        def some_time() -> None:
            # What is asked in the very step of the clock of a stop came before it.
            then = harness.now()
            harness.wait(lambda: harness.node.get_clock().now().nanoseconds > then + 100_000_000)

        some_time()
        sender.send(sender.message())
        harness.wait(lambda: harness.followed > 3, what='joint states of the motion')
        before = sender.given
        harness.now_ns -= 5_000_000_000
        harness.wait(lambda: harness.heard.motions[-1].hold, what='the deceleration')
        assert harness.node.health.last_code == ErrorCode.CLOCK_JUMPED
        sender.send(sender.message(given=before))
        harness.wait(lambda: harness.node.health.ignored, what='ignored primitives')
        assert harness.heard.motions[-1].hold
        some_time()
        sender.send(sender.message())
        harness.wait(lambda: not harness.heard.motions[-1].hold, what='motion')


def test_reasoning_needs_joints_for_nothing_but_the_camera(tiny):
    with Harness(tiny, stages='reason', **{'camera.source': 'parameters'}) as harness:
        harness.joints_on = False
        _, place, upright = harness.robot_state(0)
        harness.robot_state = lambda now: (None, place + [1.5, 0.0, 0.0], upright)
        harness.say('wave')
        message = harness.wait(lambda: harness.heard.primitives, what='primitives')[0]
        assert message.states and message.plan.bundle_hash == tiny.bundle.hash
        # The odometry counts, though there are no joints.
        assert message.plan.observation_pose.position.x == 1.5
        assert message.plan.instruction_stamp.sec > 0
        assert harness.joints.get_subscription_count() == 0
        assert harness.world.count_publishers(f'{harness.namespace}/robot_motion') == 0
        assert not harness.action.server_is_ready()
        harness.camera_on = False
        harness.set(**{'image.timeout': 0.3})
        harness.wait(lambda: harness.node.controller.status.code == ErrorCode.STALE_IMAGE)
        answer = harness.node.set_parameters([Parameter('stages', value='all')])[0]
        assert not answer.successful


def test_each_half_loads_its_own_graphs(tiny_bundle, tiny):
    reason = EgoMotionPipeline.load(tiny_bundle, threads=1, stages='reason')
    generate = EgoMotionPipeline.load(tiny_bundle, threads=1, stages='generate')
    for half in (reason, generate):
        half.warm_up()
    image = np.zeros((tiny.camera.height, tiny.camera.width, 3), np.uint8)
    observation = Observation(image, 'wave', 0, CameraPose(1.2, 0.6))
    plan = reason.reason(observation, 'p', 3)
    whole = tiny.generate(tiny.reason(observation, 'p', 3))
    assert np.array_equal(generate.generate(plan).root_position, whole.root_position)
    with pytest.raises(ValueError, match="no graph 'vision'"):
        generate.reason(observation, 'p', 3)
    with pytest.raises(ValueError, match='condition'):
        reason.generate(plan)
    reason.close()
    generate.close()


def test_states_beyond_float16_travel_as_float32(generating):
    sender = generating
    image = np.zeros((sender.pipeline.camera.height, sender.pipeline.camera.width, 3), np.uint8)
    plan = sender.pipeline.reason(
        Observation(image, 'wave', 0, CameraPose(1.2, 0.6)), 'p', 3)
    info = PlanInfo('p', 3, plan.bundle_hash, 0, 0, PlanarPose())
    assert primitives_to_msg(plan, info, with_states=True).states_dtype == 'float16'
    large = replace(plan, states=plan.states * np.float32(1e6))
    assert primitives_to_msg(large, info, with_states=True).states_dtype == 'float32'


def test_what_is_sent_on_for_an_instruction_changes_nothing_where_it_has_led(tiny):
    with Harness(tiny, stages='generate', goal_memory=True,
                 **{'primitives.max_age': 10.0, 'primitives.timeout': 20.0}) as harness:
        sender, leading = Sender(harness, tiny), Leading(harness, 1.0, 0.0, 0.0)
        sender.send(sender.message())
        harness.wait(lambda: whole(harness), what='motion')
        # The motion is over, and with it the task; the reasoner sends on.
        harness.wait(lambda: harness.heard.messages[-1].state == Status.IDLE, what='idle')
        leading.to = (1.0, 0.0, 1.5)  # a search
        for count in (1, 2):
            sender.send(sender.message(given=sender.given))
            harness.wait(lambda count=count: harness.node.health.unfollowed == count,
                         what='a plan that is not followed')
        assert len(harness.heard.plans) == 1
        sender.send(sender.message())  # the instruction is given again
        harness.wait(lambda: len(harness.heard.plans) == 2, what='motion')
