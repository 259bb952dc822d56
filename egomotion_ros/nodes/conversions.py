# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The package's dataclasses to and from ROS messages.

Everything that says ``from`` checks what it was given and raises ValueError with what was
expected and what came; everything that says ``to`` trusts its dataclass.  Stamps are integer
nanoseconds on this side, quaternions ``xyzw``, matrices row-major on the wire.
"""

from __future__ import annotations

import array
from dataclasses import dataclass

from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Point32, Pose, Quaternion, Twist, Vector3
import numpy as np
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import matrix_to_quaternion, quaternion_to_matrix
from egomotion_ros.body.skeleton import JOINT_NAMES
from egomotion_ros.msg import HumanMotion as HumanMotionMsg
from egomotion_ros.msg import MotionPrimitives as MotionPrimitivesMsg
from egomotion_ros.msg import PlanHeader
from egomotion_ros.msg import RobotMotion as RobotMotionMsg
from egomotion_ros.types import (
    FPS,
    HumanMotion,
    PlanarPose,
    PrimitivePlan,
    RobotMotion,
    Target,
)

#: Most rows and joints that a message from the network may carry.
MOST_ROWS, MOST_JOINTS = 10_000, 512


@dataclass(frozen=True)
class PlanInfo:
    """
    What every message of one plan says of itself.

    ``stamp`` (ns) when the first row is due, ``observation_stamp`` (ns) and ``observation_root``
    of the image, ``frame_id`` of all poses, ``instruction_stamp`` (ns) when it was asked for.
    """

    plan_id: str
    seed: int
    bundle_hash: str
    stamp: int
    observation_stamp: int
    observation_root: PlanarPose
    frame_id: str = 'odom'
    instruction_stamp: int = 0


def time_to_msg(stamp: int) -> Time:
    """Nanoseconds to ``builtin_interfaces/Time``; a negative stamp becomes zero."""
    seconds, nanoseconds = divmod(max(int(stamp), 0), 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def time_from_msg(stamp: Time) -> int:
    """``builtin_interfaces/Time`` to nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def planar_to_msg(pose: PlanarPose) -> Pose:
    """Ground pose to ``geometry_msgs/Pose``."""
    half = 0.5 * pose.yaw
    return Pose(
        position=Point(x=float(pose.x), y=float(pose.y)),
        orientation=Quaternion(z=float(np.sin(half)), w=float(np.cos(half))),
    )


def planar_from_msg(pose: Pose) -> PlanarPose:
    """Ground pose of a ``geometry_msgs/Pose``: its x, y and the yaw of its X axis."""
    position, quaternion = pose_from_msg(pose)
    x, y, z, w = quaternion
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return PlanarPose(float(position[0]), float(position[1]), float(yaw))


def pose_from_msg(pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """
    Position (3,) and unit quaternion (4,) xyzw of a pose.

    Raises ValueError where a number is not finite or the quaternion is far from unit length.
    """
    p, q = pose.position, pose.orientation
    position = np.array([p.x, p.y, p.z])
    quaternion = np.array([q.x, q.y, q.z, q.w])
    length = float(np.linalg.norm(quaternion))
    if not (np.isfinite(position).all() and np.isfinite(length)):
        raise ValueError('pose: position and orientation must be finite')
    if not 0.9 < length < 1.1:
        raise ValueError(f'pose: orientation must have unit length, has {length:.3f}')
    return position, quaternion / length


def plan_to_msg(info: PlanInfo) -> PlanHeader:
    """Make the header that all messages of one plan share."""
    message = PlanHeader(
        plan_id=info.plan_id,
        seed=info.seed,
        bundle_hash=info.bundle_hash,
        observation_stamp=time_to_msg(info.observation_stamp),
        instruction_stamp=time_to_msg(info.instruction_stamp),
        observation_pose=planar_to_msg(info.observation_root),
    )
    message.header.stamp = time_to_msg(info.stamp)
    message.header.frame_id = info.frame_id
    return message


def plan_from_msg(message: PlanHeader) -> PlanInfo:
    """Read a plan header; raises ValueError for a pose that is not finite."""
    return PlanInfo(
        plan_id=message.plan_id,
        seed=message.seed,
        bundle_hash=message.bundle_hash,
        stamp=time_from_msg(message.header.stamp),
        observation_stamp=time_from_msg(message.observation_stamp),
        observation_root=planar_from_msg(message.observation_pose),
        frame_id=message.header.frame_id,
        instruction_stamp=time_from_msg(message.instruction_stamp),
    )


def refuse_foreign(message: PlanHeader, bundle_hash: str) -> None:
    """Raise ValueError where the plan was made by another bundle than ``bundle_hash``."""
    if message.bundle_hash != bundle_hash:
        raise ValueError(
            f'plan {message.plan_id!r} comes from bundle {message.bundle_hash[:12]!r}, '
            f'this consumer has {bundle_hash[:12]!r}'
        )


def primitives_to_msg(
    plan: PrimitivePlan, info: PlanInfo, with_states: bool = False, dtype: str = ''
) -> MotionPrimitivesMsg:
    """
    Primitives, and the frozen states as ``dtype`` where ``with_states``.

    Without a ``dtype`` that is float16, which moves no joint of the default's motions by more than
    0.1 mm, or float32 where a state is beyond float16 (residual streams of some VLMs are).
    """
    message = MotionPrimitivesMsg(
        plan=plan_to_msg(info),
        instruction=plan.instruction,
        windows=plan.tokens.shape[0],
        levels=plan.tokens.shape[1],
        tokens=array.array('H', plan.tokens.astype('<u2').tobytes()),
        confidence=array.array('f', plan.confidence.astype(np.float32).tobytes()),
        window_duration=plan.window_frames / plan.fps,
        states_layer=plan.layer,
        target=int(plan.target),
    )
    if with_states:
        if not dtype:
            most = float(np.abs(plan.states).max(initial=0.0))
            dtype = 'float16' if most <= float(np.finfo(np.float16).max) else 'float32'
        states = np.ascontiguousarray(plan.states, dtype=np.dtype(dtype).newbyteorder('<'))
        message.states = array.array('B', states.tobytes())
        message.states_dtype = dtype
        message.states_shape = array.array('I', states.shape)
        message.states_mask = [bool(x) for x in plan.states_mask]
    return message


def primitives_from_msg(message: MotionPrimitivesMsg) -> PrimitivePlan:
    """
    Read primitives; ``states`` has shape (0, 0) where the message carries none.

    Raises ValueError where the sizes do not fit.
    """
    tokens = _rows(message.tokens, (message.windows, message.levels), 'tokens')
    if len(message.confidence) != message.windows:
        raise ValueError(
            f'confidence: expected {message.windows} numbers, got {len(message.confidence)}'
        )
    states, mask = np.zeros((0, 0), np.float32), np.zeros(0, bool)
    if len(message.states):
        if message.states_dtype not in ('float16', 'float32'):
            raise ValueError(
                f'states_dtype: expected float16 or float32, got {message.states_dtype!r}'
            )
        shape = tuple(int(x) for x in message.states_shape)
        dtype = np.dtype(message.states_dtype).newbyteorder('<')
        if len(shape) != 2 or shape[0] * shape[1] * dtype.itemsize != len(message.states):
            raise ValueError(f'states: shape {shape} does not fit {len(message.states)} bytes')
        states = np.frombuffer(message.states, dtype).reshape(shape).astype(np.float32)
        mask = np.array(message.states_mask, dtype=bool)
        if len(mask) != shape[0]:
            raise ValueError(f'states_mask: expected {shape[0]} flags, got {len(mask)}')
    info = plan_from_msg(message.plan)
    if not 0 < message.window_duration < MOST_ROWS:
        raise ValueError(f'window_duration: expected seconds > 0, got {message.window_duration}')
    window = round(message.window_duration * FPS)
    try:
        target = Target(message.target)
    except ValueError:
        raise ValueError(f'target: {message.target} is not one of the constants') from None
    return PrimitivePlan(
        plan_id=info.plan_id,
        seed=info.seed,
        bundle_hash=info.bundle_hash,
        stamp=info.observation_stamp,
        root=info.observation_root,
        instruction=message.instruction,
        tokens=tokens.astype(np.int64),
        confidence=np.array(message.confidence, dtype=np.float32),
        states=states,
        states_mask=mask,
        layer=message.states_layer,
        window_frames=window,
        target=target,
    )


def human_to_msg(human: HumanMotion, info: PlanInfo) -> HumanMotionMsg:
    """Human motion with its joint positions in the motion's frame."""
    quaternions = matrix_to_quaternion(human.rotations)
    joints = forward_kinematics(human.root_position, human.rotations, human.scale)
    return HumanMotionMsg(
        plan=plan_to_msg(info),
        joint_names=list(JOINT_NAMES),
        dt=1.0 / human.fps,
        frames=human.frames,
        scale=float(human.scale),
        root=_poses(human.root_position, quaternions[:, 0]),
        rotations=_quaternions(quaternions[:, 1:].reshape(-1, 4)),
        joint_positions=[Point32(x=x, y=y, z=z) for x, y, z in joints.reshape(-1, 3).tolist()],
        contacts=array.array('f', human.contacts.astype(np.float32).tobytes()),
    )


def human_from_msg(message: HumanMotionMsg) -> HumanMotion:
    """Read a human motion; raises ValueError where sizes do not fit or numbers are not finite."""
    if tuple(message.joint_names) != tuple(JOINT_NAMES):
        raise ValueError(f'joint_names: expected {JOINT_NAMES}, got {message.joint_names}')
    frames = _count(message.frames, MOST_ROWS, 'frames')
    if len(message.root) != frames or len(message.rotations) != 21 * frames:
        raise ValueError(
            f'{frames} frames need as many root poses and {21 * frames} rotations, got '
            f'{len(message.root)} and {len(message.rotations)}'
        )
    if not (np.isfinite(message.dt) and message.dt > 0):
        raise ValueError(f'dt: expected seconds > 0, got {message.dt}')
    root = [pose_from_msg(pose) for pose in message.root]
    joints = np.array([[q.x, q.y, q.z, q.w] for q in message.rotations]).reshape(frames, 21, 4)
    quaternions = np.concatenate([np.array([q for _, q in root])[:, None], joints], axis=1)
    if not np.isfinite(quaternions).all() or np.linalg.norm(quaternions, axis=-1).min() < 0.5:
        raise ValueError('rotations: expected finite unit quaternions')
    return HumanMotion(
        root_position=np.array([p for p, _ in root]),
        rotations=quaternion_to_matrix(quaternions),
        contacts=_rows(message.contacts, (frames, 4), 'contacts'),
        fps=1.0 / message.dt,
        frame_id=message.plan.header.frame_id,
        scale=message.scale,
    )


def robot_to_msg(
    motion: RobotMotion,
    info: PlanInfo,
    robot: str,
    base_link: str,
    hold: bool = False,
    unfinished: bool = False,
) -> RobotMotionMsg:
    """Full-body reference; ``hold`` marks a stop, ``unfinished`` the beginning of a plan."""
    return RobotMotionMsg(
        plan=plan_to_msg(info),
        robot=robot,
        base_link=base_link,
        joint_names=list(motion.joint_names),
        step_dt=float(motion.step_dt),
        steps=motion.steps,
        positions=array.array('d', motion.positions.astype(np.float64).tobytes()),
        velocities=array.array('d', motion.velocities.astype(np.float64).tobytes()),
        root=_poses(motion.root_position, motion.root_quaternion),
        root_twist=[
            Twist(linear=Vector3(x=a, y=b, z=c), angular=Vector3(x=d, y=e, z=f))
            for a, b, c, d, e, f in motion.root_twist.tolist()
        ],
        contacts=array.array('f', motion.contacts.astype(np.float32).tobytes()),
        hold=hold,
        unfinished=unfinished,
    )


def robot_from_msg(message: RobotMotionMsg) -> RobotMotion:
    """Read a robot motion; raises ValueError where sizes do not fit or numbers are not finite."""
    names = tuple(message.joint_names)
    _count(len(names), MOST_JOINTS, 'joints')
    if len(set(names)) != len(names):
        raise ValueError(f'joint_names: a name stands twice in {names}')
    steps = _count(message.steps, MOST_ROWS, 'steps')
    if not (np.isfinite(message.step_dt) and message.step_dt > 0):
        raise ValueError(f'step_dt: expected seconds > 0, got {message.step_dt}')
    if len(message.root) != steps or len(message.root_twist) != steps:
        raise ValueError(
            f'{steps} steps need as many root poses and twists, got '
            f'{len(message.root)} and {len(message.root_twist)}'
        )
    root = [pose_from_msg(pose) for pose in message.root]
    twist = np.array(
        [
            [t.linear.x, t.linear.y, t.linear.z, t.angular.x, t.angular.y, t.angular.z]
            for t in message.root_twist
        ]
    )
    if not np.isfinite(twist).all():
        raise ValueError('root_twist: expected finite numbers')
    return RobotMotion(
        joint_names=names,
        step_dt=message.step_dt,
        positions=_rows(message.positions, (steps, len(names)), 'positions'),
        velocities=_rows(message.velocities, (steps, len(names)), 'velocities'),
        root_position=np.array([p for p, _ in root]),
        root_quaternion=np.array([q for _, q in root]),
        root_twist=twist,
        contacts=_rows(message.contacts, (steps, 2), 'contacts'),
        frame_id=message.plan.header.frame_id,
    )


def trajectory_to_msg(motion: RobotMotion, stamp: int, names: dict[str, str]) -> JointTrajectory:
    """
    Joint part of ``motion`` as ``joint_trajectory_controller`` takes it.

    ``stamp`` (ns) of the first row; ``names`` joint of the robot description -> name the
    controller knows it by, for those that differ.  Times are strictly increasing from zero.
    """
    message = JointTrajectory(joint_names=[names.get(n, n) for n in motion.joint_names])
    message.header.stamp = time_to_msg(stamp)
    message.header.frame_id = motion.frame_id
    step = round(motion.step_dt * 1e9)
    for row, (position, velocity) in enumerate(
        zip(motion.positions.tolist(), motion.velocities.tolist(), strict=True)
    ):
        seconds, nanoseconds = divmod(row * step, 1_000_000_000)
        message.points.append(
            JointTrajectoryPoint(
                positions=position,
                velocities=velocity,
                time_from_start=Duration(sec=seconds, nanosec=nanoseconds),
            )
        )
    return message


def _poses(positions: np.ndarray, quaternions: np.ndarray) -> list[Pose]:
    return [
        Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=a, y=b, z=c, w=d))
        for (x, y, z), (a, b, c, d) in zip(
            positions.astype(np.float64).tolist(),
            quaternions.astype(np.float64).tolist(),
            strict=True,
        )
    ]


def _quaternions(rows: np.ndarray) -> list[Quaternion]:
    return [Quaternion(x=x, y=y, z=z, w=w) for x, y, z, w in rows.astype(np.float64).tolist()]


def _rows(flat, shape: tuple[int, int], name: str) -> np.ndarray:
    values = np.array(flat, dtype=np.float64)
    if values.size != shape[0] * shape[1]:
        raise ValueError(f'{name}: expected {shape[0]} x {shape[1]} numbers, got {values.size}')
    if not np.isfinite(values).all():
        raise ValueError(f'{name}: expected finite numbers')
    return values.reshape(shape)


def _count(value: int, most: int, name: str) -> int:
    if not 0 < value <= most:
        raise ValueError(f'{name}: expected 1..{most}, got {value}')
    return value
