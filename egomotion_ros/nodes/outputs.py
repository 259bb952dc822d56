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
        self._publishers = []

        def publisher(kind: type, topic: str, name: str):
            self._publishers.append(node.create_lifecycle_publisher(kind, topic, profile(name)))
            return self._publishers[-1]

        stages = parameters['stages']
        self._node, self._parameters, self._robot = node, parameters, robot
        self._names = joint_map(parameters['joint_map'])
        self._moving = []
        if stages != 'reason':
            motion = parameters['qos.robot_motion']
            self._robot_motion = publisher(RobotMotion, 'robot_motion', motion)
            self._preview = publisher(RobotMotion, 'robot_motion_preview', motion)
            self._trajectory = publisher(
                JointTrajectory, 'joint_trajectory', parameters['qos.joint_trajectory']
            )
            self._human = publisher(HumanMotion, 'human_motion', 'motion')
            self._markers = publisher(MarkerArray, 'markers', 'motion')
            self._moving = [self._robot_motion, self._trajectory]
        # Where another node reasons, what it says on this topic is the input.
        self._primitives = None
        if stages != 'generate':
            self._primitives = publisher(MotionPrimitives, 'motion_primitives', 'motion')
        self._status = publisher(
            Status, 'reason/status' if stages == 'reason' else 'status', 'latched'
        )
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
        primitives = self.primitives(planned, info, self._parameters['publish_states'])
        if self._human.get_subscription_count():
            self._human.publish(human_to_msg(planned.human, info))
        if self._markers.get_subscription_count():
            self._markers.publish(
                plan_markers(planned.human, planned.robot, info, planned.primitives.instruction)
            )
        return primitives

    def primitives(self, planned: Planned, info: PlanInfo, with_states: bool) -> MotionPrimitives:
        """Publish the primitives, unless they came from another node."""
        message = primitives_to_msg(planned.primitives, info, with_states)
        if self._primitives is not None:
            self._primitives.publish(message)
        return message

    def status(self, message: Status) -> None:
        """Publish a status (latched)."""
        self._status.publish(message)

    def diagnostics(self, message: DiagnosticArray) -> None:
        """Publish diagnostics."""
        self._diagnostics.publish(message)

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def flush(self, seconds: float) -> None:
        """Give the middleware ``seconds`` to hand over the last motion (before shutdown)."""
        for publisher in (*self._moving, self._status):
            publisher.wait_for_all_acked(Duration(seconds=seconds))
