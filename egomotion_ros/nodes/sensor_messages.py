# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a camera and a robot say, as ROS messages: the sending side of the development nodes."""

from __future__ import annotations

import array

from geometry_msgs.msg import Point, Quaternion, Twist, Vector3
from nav_msgs.msg import Odometry
import numpy as np
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from sensor_msgs.msg import CameraInfo, Image, JointState

from egomotion_ros.body.rotations import quaternion_to_matrix
from egomotion_ros.nodes.conversions import time_to_msg
from egomotion_ros.nodes.sources import Calibration
from egomotion_ros.retarget.joining import MotionState


def image_to_msg(image: np.ndarray, stamp: int, frame_id: str) -> Image:
    """``rgb8`` image of (H, W, 3) uint8, ``stamp`` ns, in the optical frame ``frame_id``."""
    message = Image(height=image.shape[0], width=image.shape[1], encoding='rgb8',
                    step=3 * image.shape[1])
    message.data = array.array('B', np.ascontiguousarray(image).tobytes())
    message.header.stamp = time_to_msg(stamp)
    message.header.frame_id = frame_id
    return message


def camera_info_to_msg(calibration: Calibration, stamp: int, frame_id: str) -> CameraInfo:
    """Calibration of the image with the same ``stamp`` (ns); R is the identity, P is K."""
    k = calibration.matrix
    message = CameraInfo(
        height=calibration.height, width=calibration.width, distortion_model=calibration.model,
        d=list(calibration.coefficients), k=k.ravel().tolist(), r=np.eye(3).ravel().tolist(),
        p=np.column_stack([k, np.zeros(3)]).ravel().tolist())
    message.header.stamp = time_to_msg(stamp)
    message.header.frame_id = frame_id
    return message


def joint_state_to_msg(names: tuple[str, ...], state: MotionState, stamp: int) -> JointState:
    """Joint positions and velocities at ``stamp`` (ns)."""
    message = JointState(name=list(names), position=state.positions.tolist(),
                         velocity=state.velocities.tolist())
    message.header.stamp = time_to_msg(stamp)
    return message


def odometry_to_msg(state: MotionState, stamp: int, base_link: str) -> Odometry:
    """Pose of ``base_link`` in ``odom`` and its twist, which REP-105 wants in the base frame."""
    rotation = quaternion_to_matrix(np.asarray(state.root_quaternion))
    linear = (rotation.T @ state.root_twist[:3]).tolist()
    angular = (rotation.T @ state.root_twist[3:]).tolist()
    message = Odometry(child_frame_id=base_link)
    message.header.stamp = time_to_msg(stamp)
    message.header.frame_id = 'odom'
    message.pose.pose.position = Point(**dict(zip('xyz', state.root_position.tolist())))
    message.pose.pose.orientation = Quaternion(**dict(zip('xyzw',
                                                          state.root_quaternion.tolist())))
    message.twist.twist = Twist(linear=Vector3(**dict(zip('xyz', linear))),
                                angular=Vector3(**dict(zip('xyz', angular))))
    return message


def described(text: str, low: float | None = None, high: float | None = None,
              read_only: bool = True) -> ParameterDescriptor:
    """Descriptor of a parameter with its range; integer bounds make an integer range."""
    descriptor = ParameterDescriptor(description=text, read_only=read_only)
    if isinstance(low, int):
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    elif low is not None:
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return descriptor
