# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
From newest messages to what a plan starts from: the picture, the camera, the robot's state.

Everything that can be wrong with an input is found here and leaves as a :class:`NodeError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import threading
import time
from typing import TYPE_CHECKING

from geometry_msgs.msg import PoseStamped
import mujoco
from nav_msgs.msg import Odometry
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState

from egomotion_ros.body.rotations import quaternion_to_matrix
from egomotion_ros.nodes.conversions import pose_from_msg
from egomotion_ros.nodes.errors import ErrorCode, NodeError
from egomotion_ros.nodes.images import decode, decode_compressed
from egomotion_ros.nodes.inputs import Channel, Inputs, Sample
from egomotion_ros.nodes.parameters import Parameters, joint_map
from egomotion_ros.nodes.player import Measured
from egomotion_ros.nodes.qos import profile
from egomotion_ros.nodes.rectify import Lens, Rectifier
from egomotion_ros.nodes.robot_state import (
    around,
    between,
    check_frame,
    check_height,
    heading,
    read_joints,
    read_odometry,
)
from egomotion_ros.retarget.joining import MotionState
from egomotion_ros.types import CameraPose, Observation, PlanarPose

if TYPE_CHECKING:
    from egomotion_ros.nodes.egomotion_node import EgoMotionNode
    from egomotion_ros.pipeline import EgoMotionPipeline

#: Longest wait (s) for simulated time to reach the stamps of what was sensed at that time, and
#: the shortest that is told of.
LATE_CLOCK, TOLD_WAIT = 2.0, 0.1
#: Poses of a robot or a head that are kept, and the shortest time (s) between them: at least a
#: second of them, from the stamp of a late picture on.
KEPT_POSES, SPACING = 200, 0.005
#: Way (m) and turn (rad) of the robot between a picture and the first odometry that do no harm.
MOVED = 0.02
#: Positions (J,), velocities (J,) and stamp of the joints.
Joints = tuple[np.ndarray, np.ndarray, int]
#: Position (3,), quaternion (4,) and twist (6,) of the base link.
Base = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class View:
    """
    What a plan starts from.

    ``observation``, None where another node looked; the robot as ``measured``, or None where joint
    states are not required and there are none; ``arrived`` when the image came (steady clock, ns).
    """

    observation: Observation | None
    measured: Measured | None
    arrived: int


class Observer:
    """Owns the input channels and reads them."""

    def __init__(
        self, node: EgoMotionNode, parameters: Parameters, pipeline: EgoMotionPipeline
    ) -> None:
        self._parameters = parameters
        self._camera, self._robot = pipeline.camera, pipeline.robot
        self._clock, self._log = node.get_clock(), node.get_logger()
        self._patience_ends = 0.0
        self._unwanted = threading.Event()
        self._names = joint_map(parameters['joint_map'])

        def channel(kind: type, topic: str, name: str, *kept, **options) -> Channel:
            return Channel(
                node, kind, topic, profile(parameters[f'qos.{name}']), *kept, **options
            )

        compressed = parameters['image.transport'] == 'compressed'
        self.image = (
            channel(CompressedImage, 'image/compressed', 'image')
            if compressed
            else channel(Image, 'image', 'image')
        )
        self._decode = decode_compressed if compressed else decode
        self.camera_info = channel(CameraInfo, 'camera_info', 'camera_info')
        # Hands, or arms and legs, may have drivers of their own on the same topic.
        wanted = tuple(self._names.get(name, name) for name in self._robot.joint_names)
        self.joint_states = channel(JointState, 'joint_states', 'joint_states', about=wanted)
        self.odom = channel(Odometry, 'odom', 'odom', KEPT_POSES, SPACING)
        self.head_pose = channel(PoseStamped, 'head_pose', 'head_pose', KEPT_POSES, SPACING)
        # Newest joint states that were looked into, and since when (ns) they have been unusable.
        self._judged: Sample | None = None
        self._unusable: tuple[int, str] | None = None
        stages, source = parameters['stages'], parameters['camera.source']
        # A node that only reasons wants the joints for nothing but the camera they carry.
        wants_joints = stages != 'reason' or source == 'robot'
        self._needs_joints = wants_joints and parameters['joint_states.required']
        channels = [self.odom]
        if wants_joints:
            channels.append(self.joint_states)
        if stages != 'generate':
            channels += [self.image, self.camera_info]
            if source == 'topic':
                channels.append(self.head_pose)
        self._inputs = Inputs(node, channels)
        self.channels = channels
        #: Where the base was told to be at a stamp (ns), None: nowhere; used without odometry.
        self.commanded: Callable[[int], MotionState | None] = lambda stamp: None
        self._rectifier: tuple[tuple, Rectifier] | None = None
        self._model = self._robot.kinematics
        self._data = mujoco.MjData(self._model)

    def open(self) -> None:
        """Subscribe to all inputs."""
        self._inputs.open()

    def close(self) -> None:
        """Unsubscribe."""
        self._inputs.close()

    def destroy(self) -> None:
        """Close for good."""
        self.close()

    def clear(self) -> None:
        """Forget everything that came."""
        self._unusable = None
        for channel in self.channels:
            channel.clear()

    def excuse(self) -> None:
        """Forget what came before a harmless jump of the clock; see :meth:`Channel.excuse`."""
        self._unusable = None
        for channel in self.channels:
            channel.excuse()

    @property
    def is_open(self) -> bool:
        """True while subscribed."""
        return self._inputs.is_open

    def look(self, instruction: str, unwanted: threading.Event) -> View:
        """
        Make an observation of the newest image; waits for a first one, until ``unwanted`` is set.

        Raises NodeError with the code of what is missing, stale or bad.
        """
        self._unwanted = unwanted
        sample = self.image.wait(self._parameters['image.timeout'], unwanted)
        self._patience_ends = time.monotonic() + LATE_CLOCK
        if sample is None:
            raise NodeError(
                ErrorCode.NO_IMAGE,
                f'no image on {self.image.topic!r} within {self._parameters["image.timeout"]} s'
                f'{incompatible(self.image)}',
            )
        most = self._parameters['image.max_age']
        self._await(sample)
        self.check_fresh(self.image, sample, 'image', most, ErrorCode.STALE_IMAGE)
        joints, base = self._joints(patient=True), self._base(sample.stamp, patient=True)
        while self._has_moved_since(sample, base) and time.monotonic() < self._patience_ends \
                and not unwanted.wait(0.005):
            sample = self.image.newest() or sample
            base = self._base(sample.stamp, patient=True)
        with content(self.image, sample, ErrorCode.BAD_IMAGE):
            pixels = self._decode(self.image.read(sample))
        image = self._rectify(pixels)
        root, camera = self._camera_pose(joints, base, sample.stamp)
        return View(
            Observation(image, instruction, sample.stamp, camera, root),
            None if joints is None else Measured(*joints, base),
            sample.steady,
        )

    def _has_moved_since(self, sample: Sample, base: Base | None) -> bool:
        """
        Whether the robot was elsewhere when ``sample`` was taken than all odometry tells.

        Odometry is heard only from a goal on, and a camera may show what was before that.
        """
        told = self.odom.all()
        if base is None or not told:
            return False
        gap = 1e-9 * (told[0].stamp - sample.stamp)
        return gap > 0.0 and gap * float(np.abs(base[2]).max()) > MOVED

    def lapse(self) -> NodeError | None:
        """Say for how long nothing new was seen; None where that is not too long."""
        age = self.image.age()
        if age <= self._parameters['image.timeout']:
            return None
        return NodeError(ErrorCode.STALE_IMAGE, f'no new image for {age:.2f} s')

    # The robot --------------------------------------------------------------------------------
    def measure(self, stamp: int | None = None, patient: bool = True) -> Measured | None:
        """
        Measure the robot, its base at ``stamp`` (ns; None: the newest).

        Waits for required messages that did not come yet, unless not ``patient`` (when stopping).
        None where joint states are neither there nor required.  Raises NodeError for states that
        are required and missing, stale or bad.
        """
        joints = self._joints(patient)
        base = self._base(stamp, patient)
        return None if joints is None else Measured(*joints, base)

    def joint_lapse(self) -> NodeError | None:
        """Say for how long no usable joint states came; None where that is not too long."""
        most, sample = self._parameters['joint_states.timeout'], self.joint_states.newest()
        age = self.joint_states.age()
        if sample is not None and sample is not self._judged:
            self._judged = sample
            try:
                read_joints(self.joint_states.read(sample), self._robot, self._names)
                self._unusable = None
            except ValueError as error:
                self.joint_states.refuse(sample, 'content')
                since = sample.arrived if self._unusable is None else self._unusable[0]
                self._unusable = since, str(error)
        if age > most:
            return NodeError(ErrorCode.STALE_JOINT_STATES, f'no new joint states for {age:.2f} s')
        if self._unusable is not None:
            since, why = self._unusable
            lasted = 1e-9 * (self._clock.now().nanoseconds - since)
            if lasted > most:
                return NodeError(
                    ErrorCode.STALE_JOINT_STATES, f'no usable ones for {lasted:.2f} s: {why}'
                )
        return None

    def _joints(self, patient: bool) -> Joints | None:
        timeout = self._parameters['joint_states.timeout']
        sample = self.joint_states.newest()
        if sample is None and self._needs_joints and patient:
            sample = self.joint_states.wait(timeout, self._unwanted)
        if sample is None:
            if self._needs_joints:
                self._complain_of_foreign_joints()
                raise NodeError(
                    ErrorCode.STALE_JOINT_STATES,
                    f'no joint states within {timeout} s{incompatible(self.joint_states)}',
                )
            return None
        code = ErrorCode.STALE_JOINT_STATES
        if patient:
            self._await(sample)
        self.check_fresh(self.joint_states, sample, 'joint state', timeout, code)
        with content(self.joint_states, sample, ErrorCode.BAD_JOINT_STATES):
            message = self.joint_states.read(sample)
            return *read_joints(message, self._robot, self._names), sample.stamp

    def _complain_of_foreign_joints(self) -> None:
        """Raise NodeError where joint states came, but never of all the robot's joints."""
        foreign = self.joint_states.foreign
        if foreign is not None:
            with content(self.joint_states, foreign, ErrorCode.BAD_JOINT_STATES):
                read_joints(self.joint_states.read(foreign), self._robot, self._names)

    def _base(self, stamp: int | None, patient: bool) -> Base | None:
        """Position (3,), quaternion (4,) and twist (6,) of the base link at ``stamp``."""
        required = self._parameters['odom.required']
        samples = self.odom.all()
        if not samples and required and patient:
            self.odom.wait(self._parameters['odom.timeout'], self._unwanted)
            samples = self.odom.all()
        if not samples:
            if required:
                raise NodeError(
                    ErrorCode.NO_ODOMETRY,
                    f'no odometry within {self._parameters["odom.timeout"]} s'
                    f'{incompatible(self.odom)}',
                )
            return None
        most, frame = self._parameters['odom.timeout'], self._parameters['odom.frame']
        if patient:
            self._await(samples[-1])
        self.check_fresh(self.odom, samples[-1], 'odometry', most, ErrorCode.NO_ODOMETRY)
        near, floor = [], self._parameters['floor_height']
        for sample in around(samples, stamp):
            with content(self.odom, sample, ErrorCode.NO_ODOMETRY):
                near.append(read_odometry(self.odom.read(sample), frame))
                check_height(float(near[-1][0][2]) - floor, self._robot)
        return between(near, [s.stamp for s in around(samples, stamp)], stamp)

    # The camera -------------------------------------------------------------------------------
    def _rectify(self, pixels: np.ndarray) -> np.ndarray:
        """Make pixels of the canonical camera; raises NodeError without a calibration."""
        height, width = pixels.shape[:2]
        hfov, rotate = self._parameters['camera.hfov'], self._parameters['camera.rotate']
        rectified = self._parameters['camera.rectified']
        try:
            if hfov > 0:
                key: tuple = (width, height, hfov, rotate)
            else:
                sample = self.camera_info.wait(
                    self._parameters['image.timeout'], self._unwanted
                )
                if sample is None:
                    raise ValueError(
                        f'no calibration: nothing on {self.camera_info.topic!r} and the '
                        'parameter camera.hfov is 0'
                    )
                info = self.camera_info.read(sample)
                key = (*_fingerprint(info), rectified, rotate)
            if self._rectifier is None or self._rectifier[0] != key:
                lens = (
                    Lens.from_field_of_view(width, height, hfov)
                    if hfov > 0
                    else Lens.from_camera_info(info, rectified)
                )
                self._rectifier = key, Rectifier(lens, self._camera, rotate)
            return self._rectifier[1](pixels)
        except ValueError as error:
            raise NodeError(ErrorCode.NO_CALIBRATION, str(error)) from error

    def stand(self, base: Base | None, stamp: int) -> tuple[PlanarPose, np.ndarray, np.ndarray]:
        """Ground pose of the pelvis at ``stamp``; position (3,), rotation (3, 3) of the base."""
        if base is not None:
            position, rotation = base[0], quaternion_to_matrix(base[1])
        else:
            # Dead reckoning: on the floor, where the motion under way has brought the robot.
            position, rotation = np.zeros(3), np.eye(3)
            told = self.commanded(stamp)
            if told is not None:
                position = told.root_position.copy()
                turned = heading(quaternion_to_matrix(told.root_quaternion))
                rotation = rpy_matrix([0.0, 0.0, turned])
            position[2] = self._parameters['floor_height'] + self._parameters['base_height']
        ground = PlanarPose(float(position[0]), float(position[1]), heading(rotation))
        return ground, position, rotation

    def _camera_pose(
        self, joints: Joints | None, base: Base | None, stamp: int
    ) -> tuple[PlanarPose, CameraPose]:
        """Ground pose of the pelvis and the camera above it."""
        root, position, rotation = self.stand(base, stamp)
        source = self._parameters['camera.source']
        if source == 'topic':
            centre, axes = self._head(stamp)
        else:
            offset, mount = (
                self._mount(joints)
                if source == 'robot'
                else (
                    np.array(self._parameters['camera.position']),
                    rpy_matrix(self._parameters['camera.rpy']),
                )
            )
            centre, axes = position + rotation @ offset, rotation @ mount
        turn = heading(axes) - root.yaw
        return root, CameraPose(
            height=float(centre[2]) - self._parameters['floor_height'],
            pitch=float(np.arcsin(np.clip(-axes[2, 0], -1.0, 1.0))),
            yaw=float(np.arctan2(np.sin(turn), np.cos(turn))),
        )

    def _mount(self, joints: Joints | None) -> tuple[np.ndarray, np.ndarray]:
        """Camera of the robot description in the base link, at the measured joints."""
        positions = self._robot.standing if joints is None else joints[0]
        self._data.qpos[:] = 0.0
        self._data.qpos[3] = 1.0
        self._data.qpos[self._robot.qpos_indices(self._model)] = positions
        mujoco.mj_kinematics(self._model, self._data)
        camera = self._robot.camera
        body = self._data.body(camera.body)
        rotation = body.xmat.reshape(3, 3)
        return body.xpos + rotation @ camera.position, rotation @ rpy_matrix(camera.rpy)

    def _head(self, stamp: int) -> tuple[np.ndarray, np.ndarray]:
        """Optical centre and body axes of the camera from the topic head_pose."""
        self.head_pose.wait(self._parameters['odom.timeout'], self._unwanted)
        samples = self.head_pose.all()
        if not samples:
            raise NodeError(ErrorCode.NO_ODOMETRY, 'no head pose came')
        most = self._parameters['odom.timeout']
        self._await(samples[-1])
        self.check_fresh(self.head_pose, samples[-1], 'head pose', most, ErrorCode.NO_ODOMETRY)
        nearest = min(samples, key=lambda sample: abs(sample.stamp - stamp))
        with content(self.head_pose, nearest, ErrorCode.NO_ODOMETRY):
            message = self.head_pose.read(nearest)
            check_frame(message.header.frame_id, self._parameters['odom.frame'], 'head pose')
            position, quaternion = pose_from_msg(message.pose)
        return position, quaternion_to_matrix(quaternion)

    def _await(self, sample: Sample) -> None:
        """
        Wait until simulated time has reached the stamp of ``sample``, LATE_CLOCK seconds a look.

        Simulated time is a topic of its own: on a busy machine it comes later than the picture
        that was taken at that time, which then seems to lie in the future.
        """
        if not self._clock.ros_time_is_active:
            return
        reached = sample.stamp - round(1e9 * self._parameters['future_tolerance'])
        begun = time.monotonic()
        while (self._clock.now().nanoseconds < reached
               and time.monotonic() < self._patience_ends
               and not self._unwanted.wait(0.005)):
            pass
        waited = time.monotonic() - begun
        if waited > TOLD_WAIT:
            self._log.warning(f'/clock was {waited:.2f} s behind the stamps of the inputs',
                              throttle_duration_sec=5.0)

    def check_fresh(
        self, channel: Channel, sample: Sample, what: str, most: float, code: ErrorCode
    ) -> None:
        """Raise NodeError ``code`` where the stamp is too old or in the future."""
        age = 1e-9 * (self._clock.now().nanoseconds - sample.stamp)
        if -self._parameters['future_tolerance'] <= age <= most:
            return
        channel.refuse(sample, 'stamp')
        if age > most:
            raise NodeError(code, f'the newest {what} is {age:.3g} s old, at most {most} s')
        raise NodeError(code, f'the stamp of the {what} lies {-age:.3g} s in the future')


def incompatible(channel: Channel) -> str:
    """Say so where somebody publishes what the quality of service lets nobody hear."""
    senders = channel.unheard()
    return f'; {senders} publish it, none with a compatible quality of service' if senders else ''


@contextmanager
def content(channel: Channel, sample: Sample, code: ErrorCode) -> Iterator[None]:
    """Turn a ValueError about what ``sample`` holds into a NodeError, and count it."""
    try:
        yield
    except ValueError as error:
        channel.refuse(sample, 'content')
        raise NodeError(code, str(error)) from error


def rpy_matrix(rpy: np.ndarray | list[float]) -> np.ndarray:
    """Rotation matrix (3, 3) of fixed-axis roll, pitch, yaw (URDF convention)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def _fingerprint(info: CameraInfo) -> tuple:
    """Everything of a CameraInfo that the table of pixels depends on."""
    region = info.roi
    return (
        info.width,
        info.height,
        info.distortion_model,
        tuple(info.d),
        tuple(info.k),
        tuple(info.p),
        info.binning_x,
        info.binning_y,
        (region.x_offset, region.y_offset, region.width, region.height),
    )
