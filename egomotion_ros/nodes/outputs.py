# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Everything the node publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from egomotion_ros.msg import HumanMotion, MotionPrimitives, RobotMotion, Status
from egomotion_ros.nodes.conversions import (
    PlanInfo,
    human_to_msg,
    primitives_to_msg,
    robot_to_msg,
    trajectory_to_msg,
)
from egomotion_ros.nodes.markers import plan_markers
from egomotion_ros.nodes.parameters import Parameters, joint_map
from egomotion_ros.nodes.planning import Planned
from egomotion_ros.nodes.player import Playing
from egomotion_ros.nodes.qos import profile

if TYPE_CHECKING:
    from egomotion_ros.nodes.lifecycle import ManagedNode
    from egomotion_ros.retarget.description import RobotDescription


class Outputs:
    """The node's lifecycle publishers; silent unless the node is active."""

    def __init__(self, node: ManagedNode, parameters: Parameters, robot: RobotDescription) -> None:
        def publisher(kind: type, topic: str, name: str):
            return node.create_lifecycle_publisher(kind, topic, profile(name))

        motion = parameters['qos.robot_motion']
        self._node, self._parameters, self._robot = node, parameters, robot
        self._names = joint_map(parameters['joint_map'])
        self._robot_motion = publisher(RobotMotion, 'robot_motion', motion)
        self._preview = publisher(RobotMotion, 'robot_motion_preview', motion)
        self._trajectory = publisher(
            JointTrajectory, 'joint_trajectory', parameters['qos.joint_trajectory']
        )
        self._human = publisher(HumanMotion, 'human_motion', 'motion')
        self._primitives = publisher(MotionPrimitives, 'motion_primitives', 'motion')
        self._markers = publisher(MarkerArray, 'markers', 'motion')
        self._status = publisher(Status, 'status', 'latched')
        self._diagnostics = publisher(DiagnosticArray, 'diagnostics', 'default')

    def play(self, playing: Playing, info: PlanInfo) -> RobotMotion:
        """Send a motion, or a stop, to whoever moves the robot; both topics, one stamp."""
        message = robot_to_msg(
            playing.motion,
            info,
            self._robot.name,
            self._robot.base_link,
            playing.hold,
            unfinished=playing.beginning is not None,
        )
        trajectory = trajectory_to_msg(playing.motion, info.stamp, self._names)
        self._robot_motion.publish(message)
        self._trajectory.publish(trajectory)
        return message

    def preview(self, planned: Planned, info: PlanInfo) -> RobotMotion:
        """Show a motion that nobody must execute."""
        message = robot_to_msg(planned.robot, info, self._robot.name, self._robot.base_link)
        self._preview.publish(message)
        return message

    def explain(self, planned: Planned, info: PlanInfo) -> MotionPrimitives:
        """Publish what the plan was made of; costly messages only where somebody listens."""
        primitives = primitives_to_msg(
            planned.primitives, info, with_states=self._parameters['publish_states']
        )
        self._primitives.publish(primitives)
        if self._human.get_subscription_count():
            self._human.publish(human_to_msg(planned.human, info))
        if self._markers.get_subscription_count():
            self._markers.publish(
                plan_markers(planned.human, planned.robot, info, planned.primitives.instruction)
            )
        return primitives

    def status(self, message: Status) -> None:
        """Publish a status (latched)."""
        self._status.publish(message)

    def diagnostics(self, message: DiagnosticArray) -> None:
        """Publish diagnostics."""
        self._diagnostics.publish(message)

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (
            self._robot_motion,
            self._preview,
            self._trajectory,
            self._human,
            self._primitives,
            self._markers,
            self._status,
            self._diagnostics,
        ):
            self._node.destroy_lifecycle_publisher(publisher)

    def flush(self, seconds: float) -> None:
        """Give the middleware ``seconds`` to hand over the last motion (before shutdown)."""
        for publisher in (self._robot_motion, self._trajectory, self._status):
            publisher.wait_for_all_acked(Duration(seconds=seconds))
