# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Dataclasses to messages and back, through real serialization; messages that lie are refused."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from scipy.spatial.transform import Rotation

from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.nodes.conversions import (
    PlanInfo,
    human_from_msg,
    human_to_msg,
    plan_from_msg,
    plan_to_msg,
    planar_from_msg,
    planar_to_msg,
    pose_from_msg,
    primitives_from_msg,
    primitives_to_msg,
    refuse_foreign,
    robot_from_msg,
    robot_to_msg,
    time_from_msg,
    time_to_msg,
    trajectory_to_msg,
)
from egomotion_ros.types import (
    HumanMotion,
    PlanarPose,
    PrimitivePlan,
    RobotMotion,
    Target,
)

INFO = PlanInfo(
    plan_id='abc',
    seed=2**63 + 5,
    bundle_hash='f' * 64,
    stamp=1_700_000_000_123_456_789,
    observation_stamp=1_699_999_999_999_999_999,
    observation_root=PlanarPose(1.0, -2.0, 3.0),
)


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


def robot_motion(rows: int = 7, joints: int = 3) -> RobotMotion:
    rng = np.random.default_rng(0)
    return RobotMotion(
        joint_names=tuple(f'joint_{j}' for j in range(joints)),
        step_dt=1.0 / 30.0,
        positions=rng.normal(size=(rows, joints)),
        velocities=rng.normal(size=(rows, joints)),
        root_position=rng.normal(size=(rows, 3)),
        root_quaternion=Rotation.random(rows, random_state=1).as_quat(),
        root_twist=rng.normal(size=(rows, 6)),
        contacts=rng.random((rows, 2)),
    )


def human_motion(frames: int = 5) -> HumanMotion:
    rng = np.random.default_rng(0)
    rotations = Rotation.random(frames * 22, random_state=2).as_matrix()
    return HumanMotion(
        root_position=rng.normal(size=(frames, 3)),
        rotations=rotations.reshape(frames, 22, 3, 3),
        contacts=rng.random((frames, 4)),
        scale=0.75,
    )


def primitive_plan() -> PrimitivePlan:
    rng = np.random.default_rng(0)
    return PrimitivePlan(
        plan_id='abc',
        seed=INFO.seed,
        bundle_hash=INFO.bundle_hash,
        stamp=INFO.observation_stamp,
        root=INFO.observation_root,
        instruction='walk to the red ball',
        tokens=rng.integers(0, 512, (19, 3)),
        confidence=rng.random(19).astype(np.float32),
        states=rng.normal(size=(21, 8)).astype(np.float32),
        states_mask=rng.random(21) > 0.3,
        layer=4,
        target=Target.NAMED,
    )


def test_times_keep_every_nanosecond():
    for stamp in (0, 1, 999_999_999, 1_000_000_000, INFO.stamp):
        assert time_from_msg(time_to_msg(stamp)) == stamp
    assert time_to_msg(-5) == Time()


def test_plan_header_round_trip():
    back = plan_from_msg(over_the_wire(plan_to_msg(INFO)))
    assert back.observation_root.yaw == pytest.approx(INFO.observation_root.yaw)
    assert (back.plan_id, back.seed, back.stamp, back.observation_stamp, back.frame_id) == (
        INFO.plan_id,
        INFO.seed,
        INFO.stamp,
        INFO.observation_stamp,
        'odom',
    )


def test_a_foreign_bundle_is_refused_by_name():
    refuse_foreign(plan_to_msg(INFO), 'f' * 64)
    with pytest.raises(ValueError, match='ffffffffffff.*eeee'):
        refuse_foreign(plan_to_msg(INFO), 'e' * 64)


@pytest.mark.parametrize('yaw', [-3.0, 0.0, 0.3, 3.1])
def test_ground_pose_round_trip(yaw):
    back = planar_from_msg(planar_to_msg(PlanarPose(0.5, -0.25, yaw)))
    assert (back.x, back.y) == (0.5, -0.25)
    assert back.yaw == pytest.approx(yaw)


def test_poses_that_are_none_are_refused():
    pose = Pose()
    pose.orientation.w = 0.0
    with pytest.raises(ValueError, match='unit length'):
        pose_from_msg(pose)
    pose.orientation.w, pose.position.x = 1.0, float('nan')
    with pytest.raises(ValueError, match='finite'):
        pose_from_msg(pose)


def test_robot_motion_round_trip():
    motion = robot_motion()
    message = over_the_wire(robot_to_msg(motion, INFO, 'g1', 'pelvis', hold=True))
    assert (message.robot, message.base_link, message.hold) == ('g1', 'pelvis', True)
    back = robot_from_msg(message)
    assert back.joint_names == motion.joint_names and back.step_dt == motion.step_dt
    for name in ('positions', 'velocities', 'root_position', 'root_quaternion', 'root_twist'):
        assert np.allclose(getattr(back, name), getattr(motion, name), atol=1e-12), name
    assert np.allclose(back.contacts, motion.contacts, atol=1e-6)


def test_human_motion_round_trip():
    human = human_motion()
    message = over_the_wire(human_to_msg(human, INFO))
    back = human_from_msg(message)
    assert np.allclose(back.rotations, human.rotations, atol=1e-9)
    assert np.allclose(back.root_position, human.root_position)
    assert back.scale == pytest.approx(0.75) and back.fps == pytest.approx(30.0)
    joints = forward_kinematics(human.root_position, human.rotations, human.scale)
    sent = np.array([[p.x, p.y, p.z] for p in message.joint_positions]).reshape(-1, 22, 3)
    assert np.allclose(sent, joints, atol=1e-5)


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_primitives_round_trip_with_states(dtype):
    plan = primitive_plan()
    message = over_the_wire(primitives_to_msg(plan, INFO, with_states=True, dtype=dtype))
    back = primitives_from_msg(message)
    assert np.array_equal(back.tokens, plan.tokens)
    assert np.allclose(back.confidence, plan.confidence)
    assert np.allclose(back.states, plan.states, atol=1e-6 if dtype == 'float32' else 2e-3)
    assert np.array_equal(back.states_mask, plan.states_mask)
    assert (back.layer, back.window_frames) == (4, plan.window_frames)
    assert back.instruction == plan.instruction and back.target is Target.NAMED


def test_primitives_without_states_stay_small():
    message = over_the_wire(primitives_to_msg(primitive_plan(), INFO))
    assert len(message.states) == 0 and len(serialize_message(message)) < 600
    assert primitives_from_msg(message).states.shape == (0, 0)


def test_joint_trajectory_times_increase_strictly_and_names_are_mapped():
    motion = robot_motion(rows=300)
    message = over_the_wire(trajectory_to_msg(motion, INFO.stamp, {'joint_1': 'knee'}))
    assert message.joint_names == ['joint_0', 'knee', 'joint_2']
    times = [time_from_msg(point.time_from_start) for point in message.points]
    assert times[0] == 0 and min(np.diff(times)) > 0
    assert times[-1] == pytest.approx(1e9 * motion.duration, abs=300)
    assert time_from_msg(message.header.stamp) == INFO.stamp
    assert np.array_equal([p.velocities for p in message.points], motion.velocities)


def change(message, **values):
    for name, value in values.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    'change_it',
    [
        lambda m: change(m, steps=0),
        lambda m: change(m, steps=8),
        lambda m: change(m, steps=2**31),
        lambda m: change(m, step_dt=0.0),
        lambda m: change(m, step_dt=float('nan')),
        lambda m: change(m, positions=[0.0]),
        lambda m: change(m, velocities=[float('nan')] * 21),
        lambda m: change(m, joint_names=['a', 'a', 'b']),
        lambda m: change(m, joint_names=[]),
        lambda m: change(m, root=m.root[:-1]),
        lambda m: change(m, root=[Pose()] * 6 + [change(Pose(), orientation=bad_quaternion())]),
        lambda m: change(m, contacts=[]),
    ],
)
def test_robot_motions_that_lie_about_themselves_are_refused(change_it):
    message = robot_to_msg(robot_motion(), INFO, 'g1', 'pelvis')
    with pytest.raises(ValueError):
        robot_from_msg(change_it(message))


def bad_quaternion():
    from geometry_msgs.msg import Quaternion

    return Quaternion(x=float('inf'))


@pytest.mark.parametrize(
    'values',
    [
        {'frames': 4},
        {'frames': 0},
        {'dt': -1.0},
        {'joint_names': ['pelvis']},
        {'rotations': []},
        {'contacts': [float('inf')] * 20},
    ],
)
def test_human_motions_that_lie_about_themselves_are_refused(values):
    with pytest.raises(ValueError):
        human_from_msg(change(human_to_msg(human_motion(), INFO), **values))


@pytest.mark.parametrize(
    'values',
    [
        {'windows': 18},
        {'levels': 9},
        {'confidence': [0.5]},
        {'states_dtype': 'object'},
        {'states_shape': [21, 9]},
        {'states_shape': [2**31, 2**31]},
        {'states_mask': [True]},
        {'target': 3},
    ],
)
def test_primitives_that_lie_about_themselves_are_refused(values):
    message = primitives_to_msg(primitive_plan(), INFO, with_states=True)
    with pytest.raises(ValueError):
        primitives_from_msg(change(message, **values))
