# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The ROS side of a plan without a node: image message -> pixels, plan -> messages -> bytes."""

from __future__ import annotations

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image

from egomotion_ros.nodes.conversions import (
    PlanInfo,
    primitives_to_msg,
    robot_to_msg,
    trajectory_to_msg,
)
from egomotion_ros.nodes.images import decode
from egomotion_ros.nodes.player import check_motion
from egomotion_ros.nodes.rectify import Lens, Rectifier
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.types import CameraIntrinsics, Plan, PlanarPose, PrimitivePlan, RobotMotion

_WIDTH, _HEIGHT, _HFOV = 1280, 720, 1.2


class Messages:
    """A 1280x720 rgb8 camera, and the three messages that ``egomotion_node`` always publishes."""

    def __init__(self, camera: CameraIntrinsics, bundle_hash: str,
                 robot: RobotDescription) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, _WIDTH * _HEIGHT * 3, np.uint8)
        message = Image(width=_WIDTH, height=_HEIGHT, encoding='rgb8', step=3 * _WIDTH)
        message.data.frombytes(pixels.tobytes())
        self._image = serialize_message(message)
        self._rectifier = Rectifier(Lens.from_field_of_view(_WIDTH, _HEIGHT, _HFOV), camera)
        self._hash, self._robot = bundle_hash, robot

    def decode(self) -> np.ndarray:
        """Read the bytes from the network as pixels (H, W, 3) uint8."""
        return decode(deserialize_message(self._image, Image))

    def rectify(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels -> the picture of the bundle's canonical camera."""
        return self._rectifier(pixels)

    def check(self, motion: RobotMotion) -> None:
        """Refuse what breaks the limits, as the node does before it publishes."""
        check_motion(motion, self._robot.limits)

    def build(self, plan: Plan) -> int:
        """Make robot motion, joint trajectory and primitives; returns their bytes on the wire."""
        primitives = primitives_to_msg(plan.primitives, self._info(plan.primitives))
        return self._moving(plan.robot, plan.primitives) + len(serialize_message(primitives))

    def first(self, motion: RobotMotion, primitives: PrimitivePlan) -> None:
        """Check the first points of a plan, make robot motion and joint trajectory of them."""
        self.check(motion)
        self._moving(motion, primitives)

    def _moving(self, motion: RobotMotion, primitives: PrimitivePlan) -> int:
        robot = self._robot
        return sum(len(serialize_message(message)) for message in (
            robot_to_msg(motion, self._info(primitives), robot.name, robot.base_link),
            trajectory_to_msg(motion, 0, {})))

    def _info(self, primitives: PrimitivePlan) -> PlanInfo:
        return PlanInfo(primitives.plan_id, primitives.seed, self._hash, 0, 0,
                        PlanarPose(0.0, 0.0, 0.0))
