# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The robot of the camera measurement: joint states and odometry of one that does as it is told.

No world, no camera and no clock, so that what is measured beside it is the node and the camera.
"""

from __future__ import annotations

import sys

from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import JointState

from egomotion_ros.msg import RobotMotion
from egomotion_ros.nodes.conversions import robot_from_msg, time_from_msg
from egomotion_ros.nodes.process import run_node
from egomotion_ros.nodes.qos import profile
from egomotion_ros.nodes.sensor_messages import described, joint_state_to_msg, odometry_to_msg
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.joining import still
from egomotion_ros.simulation.follower import Follower


class StandIn(Node):
    """Publishes ``joint_states`` and ``odom`` at ``state_rate`` Hz, follows ``robot_motion``."""

    def __init__(self, **options) -> None:
        super().__init__('stand_in', **options)
        self.declare_parameter('robot', 'unitree_g1', described('robot description'))
        self.declare_parameter('state_rate', 60.0, described('rate [Hz]', 1.0, 1000.0))
        robot = RobotDescription.load(self.get_parameter('robot').value)
        self._robot = robot
        home = still(robot.standing, (0.0, 0.0, robot.home_height))
        self._follower = Follower(robot.joint_names, robot.limits.lower, robot.limits.upper, home)
        self._joints = self.create_publisher(JointState, 'joint_states', profile('state_reliable'))
        self._odometry = self.create_publisher(Odometry, 'odom', profile('state_reliable'))
        self.create_subscription(RobotMotion, 'robot_motion', self._on_motion, profile('motion'))
        self.create_timer(1.0 / self.get_parameter('state_rate').value, self._publish)

    def _publish(self) -> None:
        now = self.get_clock().now().nanoseconds
        state = self._follower.sample(now)
        self._joints.publish(joint_state_to_msg(self._robot.joint_names, state, now))
        self._odometry.publish(odometry_to_msg(state, now, self._robot.base_link))

    def _on_motion(self, message: RobotMotion) -> None:
        try:
            self._follower.offer(robot_from_msg(message), time_from_msg(message.plan.header.stamp),
                                 self.get_clock().now().nanoseconds)
        except ValueError as error:
            self.get_logger().warning(f'refused robot_motion: {error}')


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted."""
    return run_node(StandIn, 'stand_in', args)


if __name__ == '__main__':
    sys.exit(main())
