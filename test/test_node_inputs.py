# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Inputs that are missing, stale, broken or odd: refused with the code that says which."""

from __future__ import annotations

import cv2
from node_harness import Harness
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState

from egomotion_ros.body.rotations import matrix_to_quaternion
from egomotion_ros.nodes.conversions import robot_from_msg, time_from_msg
from egomotion_ros.nodes.errors import ErrorCode
from egomotion_ros.nodes.observer import rpy_matrix
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.retarget.joining import sample


@pytest.fixture(scope='module')
def pipeline(tiny_bundle):
    pipeline = EgoMotionPipeline.load(tiny_bundle, threads=1)
    yield pipeline
    pipeline.close()


@pytest.fixture(scope='module')
def shared(pipeline):
    with Harness(
        pipeline, **{'image.timeout': 1.0, 'joint_states.timeout': 1.0, 'odom.timeout': 1.0}
    ) as harness:
        yield harness


@pytest.fixture
def harness(shared):
    """The shared node in a world where all is well again."""
    yield shared
    shared.camera_on = shared.joints_on = shared.odom_on = True
    shared.image_shift, shared.joint_state, shared.info = 0.0, None, None
    shared.image = picture()
    shared.set(**{'camera.hfov': 1.4, 'camera.rotate': 0})


def picture(width=64, height=48, encoding='rgb8', step=None, data=None) -> Image:
    image = Image(width=width, height=height, encoding=encoding)
    image.step = 3 * width if step is None else step
    image.data = bytes(image.step * height) if data is None else data
    return image


def refusal(harness) -> tuple[ErrorCode, str]:
    """Code and line a goal ends with; every refusal leaves the robot alone."""
    # Inputs of an earlier world are forgotten when the node stops listening.
    harness.wait(lambda: not harness.node.observer.is_open, what='the end of listening')
    before = len(harness.heard.motions)
    result = harness.run('wave', execute=False)[1]
    assert len(harness.heard.motions) == before
    return ErrorCode(result.error_code), result.error_msg


@pytest.mark.parametrize(
    ('image', 'word'),
    [
        (picture(encoding='hsv12'), 'hsv12'),
        (picture(encoding='32FC1', step=256), '32FC1'),
        (picture(encoding=''), 'encoding'),
        (picture(width=0, height=0), 'empty'),
        (picture(height=0, data=b''), 'empty'),
        (picture(data=b'123'), 'bytes'),
        (picture(width=7680, height=4320, data=b''), 'pixels'),
        (picture(width=2**32 - 1, height=2**32 - 1, step=3, data=b''), 'pixels'),
        (picture(step=10), 'step'),
    ],
)
def test_broken_images_are_refused(harness, image, word):
    harness.image = image
    code, text = refusal(harness)
    assert code == ErrorCode.BAD_IMAGE and word in text


def test_a_whole_8k_image_is_refused_and_the_next_small_one_works(harness):
    harness.image = picture(width=7680, height=4320, encoding='mono8', step=7680)
    # 33 MB thirty times a second may also keep other inputs from coming in time.
    assert refusal(harness)[0] != ErrorCode.NONE
    harness.image = picture()
    assert refusal(harness)[0] == ErrorCode.NONE


def test_no_camera_and_a_frozen_camera(harness):
    harness.camera_on = False
    assert refusal(harness)[0] == ErrorCode.NO_IMAGE


@pytest.mark.parametrize(('shift', 'word'), [(-5.0, 'old'), (+5.0, 'future'), (-1e9, 'old')])
def test_image_stamps_in_the_past_and_future(harness, shift, word):
    harness.image_shift = shift
    code, text = refusal(harness)
    assert code == ErrorCode.STALE_IMAGE and word in text


@pytest.mark.parametrize(('shift', 'code'),
                         [(0.3, ErrorCode.NONE), (9.0, ErrorCode.STALE_IMAGE)])
def test_simulated_time_that_comes_late_is_waited_for_but_not_for_long(pipeline, shift, code):
    with Harness(pipeline, sim_time=True, replan_period=0.0) as harness:
        harness.image_shift = shift
        found, text = refusal(harness)
        assert found == code, text


def joints(harness, **changes) -> JointState:
    names = list(harness.pipeline.robot.joint_names)
    state = JointState(name=names, position=harness.pipeline.robot.standing.tolist())
    for name, value in changes.items():
        setattr(state, name, value(list(getattr(state, name))))
    return state


@pytest.mark.parametrize(
    ('changes', 'word'),
    [
        ({'position': lambda x: [float('nan'), *x[1:]]}, 'finite'),
        ({'position': lambda x: [float('inf'), *x[1:]]}, 'finite'),
        ({'velocity': lambda x: [float('inf')] * 29}, 'finite'),
        ({'name': lambda x: [x[1], *x[1:]]}, 'twice'),
        ({'name': lambda x: ['other', *x[1:]]}, 'missing'),
        ({'name': lambda x: x[1:], 'position': lambda x: x[1:]}, 'missing'),
        ({'position': lambda x: x[1:]}, 'positions'),
        ({'velocity': lambda _: [0.0]}, 'velocities'),
        ({'position': lambda x: [9.0, *x[1:]]}, 'limits'),
        # Further out than a plan may start from.
        ({'position': lambda x: [2.88 + 0.15, *x[1:]]}, 'limits'),
        ({'name': lambda x: [], 'position': lambda x: []}, 'missing'),
    ],
)
def test_broken_joint_states_are_refused(harness, changes, word):
    harness.joint_state = joints(harness, **changes)
    code, text = refusal(harness)
    assert code == ErrorCode.BAD_JOINT_STATES and word in text


def test_joint_states_in_another_order_with_others_among_them_are_understood(harness):
    order = np.random.default_rng(1).permutation(29)
    state = joints(harness)
    state.name = ['gripper', *[state.name[i] for i in order]]
    state.position = [0.3, *[harness.pipeline.robot.standing[i] for i in order]]
    harness.joint_state = state
    assert refusal(harness)[0] == ErrorCode.NONE
    first = np.array(harness.heard.previews[-1].positions[:29])
    assert np.allclose(first, harness.pipeline.robot.standing, atol=1e-6)


def test_velocities_that_ros2_control_does_not_know_and_other_joints_twice_do_no_harm(harness):
    state = joints(harness, velocity=lambda x: [float('nan')] * 29)
    state.name = [*state.name, 'finger', 'finger']
    state.position = [*state.position, 0.0, float('nan')]
    state.velocity = [*state.velocity, 0.0, 0.0]
    harness.joint_state = state
    assert refusal(harness)[0] == ErrorCode.NONE


def test_a_driver_of_other_joints_on_the_same_topic_is_not_heard(harness):
    hands = JointState(name=['left_thumb', 'right_thumb'], position=[0.0, 0.0])
    publish, harness.joints.publish = harness.joints.publish, lambda state: None

    def both(state):
        publish(state)
        hands.header.stamp = state.header.stamp
        publish(hands)

    harness.joints.publish = both
    try:
        codes = {refusal(harness)[0] for _ in range(6)}
        assert codes == {ErrorCode.NONE}
        harness.joints.publish = lambda state: both(hands)
        code, text = refusal(harness)
        assert code == ErrorCode.BAD_JOINT_STATES and 'missing' in text
    finally:
        harness.joints.publish = publish


@pytest.mark.parametrize('height', [0.0, 0.25, 1.5])
def test_odometry_that_tells_no_height_moves_nothing(harness, height):
    stand = harness.robot_state

    def low(now):
        positions, base, quaternion = stand(now)
        return positions, np.array([*base[:2], height]), quaternion

    harness.robot_state = low
    try:
        code, text = refusal(harness)
        assert code == ErrorCode.NO_ODOMETRY and 'floor_height' in text
        # What the line says helps.
        home = harness.pipeline.robot.home_height
        harness.set(floor_height=height - home)
        assert refusal(harness)[0] == ErrorCode.NONE
        root = harness.heard.previews[-1]
        assert abs(robot_from_msg(root).root_position[0, 2] - height) < 0.05
    finally:
        harness.robot_state = stand
        harness.set(floor_height=0.0)


def test_a_robot_on_the_move_waits_for_a_picture_that_odometry_was_heard_at(pipeline):
    with Harness(pipeline, **{'image.max_age': 3.0}) as harness:
        begun, stand, publish = harness.now(), harness.robot_state, harness.odoms.publish

        def place(now):
            return 1.0 * 1e-9 * (now - begun)  # one metre a second

        def driven(now):
            positions, base, quaternion = stand(now)
            return positions, np.array([place(now), 0.0, base[2]]), quaternion

        def send(odom):
            odom.twist.twist.linear.x = 1.0
            publish(odom)

        harness.robot_state, harness.odoms.publish = driven, send
        harness.image_shift = -0.35  # a camera with a long way
        assert refusal(harness)[0] == ErrorCode.NONE
        seen = harness.pipeline.observations[-1]
        assert abs(seen.root.x - place(seen.stamp)) < 0.05


def test_who_cannot_be_heard_for_the_quality_of_service_is_named(pipeline):
    with Harness(pipeline, **{'image.timeout': 1.0, 'qos.image': 'sensor_reliable'}) as harness:
        code, text = refusal(harness)
        assert code == ErrorCode.NO_IMAGE and 'compatible quality of service' in text
        harness.camera_on = False
        harness.world.destroy_publisher(harness.images)
        harness.wait(lambda: not harness.node.count_publishers(f'{harness.namespace}/image'))
        assert 'quality' not in refusal(harness)[1]


def test_no_joint_states_and_no_odometry(harness):
    harness.joints_on = False
    assert refusal(harness)[0] == ErrorCode.STALE_JOINT_STATES
    harness.joints_on, harness.odom_on = True, False
    assert refusal(harness)[0] == ErrorCode.NO_ODOMETRY


def test_without_calibration_nothing_is_planned_and_camera_info_is_enough(harness):
    harness.set(**{'camera.hfov': 0.0})
    assert refusal(harness)[0] == ErrorCode.NO_CALIBRATION
    harness.info = CameraInfo(width=64, height=48, distortion_model='plumb_bob')
    assert refusal(harness)[0] == ErrorCode.NO_CALIBRATION  # focal length 0
    harness.info.k = [40.0, 0.0, 32.0, 0.0, 40.0, 24.0, 0.0, 0.0, 1.0]
    harness.info.d = [float('nan')] * 5
    assert refusal(harness)[0] == ErrorCode.NO_CALIBRATION
    harness.info.d = [-0.1, 0.01, 0.0, 0.0, 0.0]
    assert refusal(harness)[0] == ErrorCode.NONE
    harness.info.width = 640  # speaks of another picture
    assert refusal(harness)[0] == ErrorCode.NO_CALIBRATION


def test_the_camera_pose_comes_from_the_robot_and_its_joints(harness):
    assert refusal(harness)[0] == ErrorCode.NONE
    camera = harness.pipeline.observations[-1].camera
    assert 1.0 < camera.height < 1.4 and camera.pitch > 0 and abs(camera.yaw) < 1e-6
    # Turn the waist: the camera looks to the left of where the pelvis heads.
    names = harness.pipeline.robot.joint_names
    turned = harness.pipeline.robot.standing.copy()
    turned[names.index('waist_yaw_joint')] = 0.5
    harness.joint_state = joints(harness, position=lambda _: turned.tolist())
    assert refusal(harness)[0] == ErrorCode.NONE
    assert abs(harness.pipeline.observations[-1].camera.yaw - 0.5) < 1e-6


@pytest.mark.parametrize('bent', [0.0, 0.5, 0.8, 1.0])
def test_a_camera_that_looks_down_tells_the_heading_of_the_robot(harness, bent):
    # The camera looks 0.45 rad down; the waist bends by 0.5 rad at most, then the whole body does.
    state = joints(harness)
    waist = harness.pipeline.robot.joint_names.index('waist_pitch_joint')
    state.position[waist] = harness.pipeline.robot.standing[waist] + min(bent, 0.5)
    harness.joint_state = state
    stand = harness.robot_state

    def leaning(now):
        turned = rpy_matrix([0.02, max(bent - 0.5, 0.0), 1.0])
        return *stand(now)[:2], matrix_to_quaternion(turned)

    harness.robot_state = leaning
    try:
        assert refusal(harness)[0] == ErrorCode.NONE
    finally:
        harness.robot_state = stand
    seen = harness.pipeline.observations[-1]
    assert abs(seen.root.yaw - 1.0) < 0.05 and abs(seen.camera.yaw) < 0.1
    assert seen.camera.pitch == pytest.approx(0.45 + bent, abs=0.05)


def test_compressed_images_whole_and_truncated(pipeline):
    with Harness(pipeline, **{'image.transport': 'compressed', 'image.timeout': 1.0}) as harness:
        pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        jpeg = cv2.imencode('.jpg', pixels)[1].tobytes()
        harness.compressed_image = CompressedImage(format='jpeg', data=jpeg)
        assert refusal(harness)[0] == ErrorCode.NONE
        for bad in (jpeg[: len(jpeg) // 2], jpeg[:3], b'', b'GIF89a' + bytes(40)):
            harness.compressed_image = CompressedImage(format='jpeg', data=bad)
            assert refusal(harness)[0] == ErrorCode.BAD_IMAGE


def test_a_headset_without_robot_needs_neither_joint_states_nor_odometry(pipeline):
    values = {
        'joint_states.required': False,
        'odom.required': False,
        'camera.source': 'parameters',
        'camera.position': [0.0, 0.0, 0.85],
        'camera.rpy': [0.0, 0.3, 0.1],
        'base_height': 0.8,
        'output_enabled': False,
    }
    with Harness(pipeline, **values) as harness:
        harness.joints_on = harness.odom_on = False
        assert refusal(harness)[0] == ErrorCode.NONE
        observation = harness.pipeline.observations[-1]
        assert observation.camera.height == pytest.approx(1.65)
        assert observation.camera.pitch == pytest.approx(0.3)
        assert observation.camera.yaw == pytest.approx(0.1)
        assert (observation.root.x, observation.root.y, observation.root.yaw) == (0, 0, 0)


def test_without_odometry_the_base_is_where_it_was_told_to_be(pipeline):
    with Harness(pipeline, **{'odom.required': False, 'replan_period': 0.5}) as harness:
        harness.odom_on = False
        harness.say('walk forward')
        harness.wait(lambda: len(harness.pipeline.observations) >= 4, what='four plans')
        harness.stop()
        for seen in harness.pipeline.observations[1:4]:
            motion = next(
                m
                for m in reversed(harness.heard.motions)
                if time_from_msg(m.plan.header.stamp) <= seen.stamp
            )
            late = 1e-9 * (seen.stamp - time_from_msg(motion.plan.header.stamp))
            told = sample(robot_from_msg(motion), late).root_position
            assert np.hypot(seen.root.x - told[0], seen.root.y - told[1]) < 0.02
        assert harness.pipeline.observations[3].root.x != 0.0
