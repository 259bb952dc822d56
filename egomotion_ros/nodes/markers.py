# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Markers of one plan for RViz and Foxglove: the path, the body at a few times, the words."""

from __future__ import annotations

from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
import numpy as np
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.skeleton import PARENTS
from egomotion_ros.nodes.conversions import PlanInfo, time_to_msg
from egomotion_ros.types import HumanMotion, RobotMotion

#: Seconds between the stick figures.
EVERY = 0.5
_TEAL, _GREY = (0.1, 0.65, 0.6), (0.6, 0.6, 0.6)
_WHITE = (1.0, 1.0, 1.0)


def plan_markers(
    human: HumanMotion, robot: RobotMotion, info: PlanInfo, instruction: str
) -> MarkerArray:
    """
    Path of the robot's base, stick figures of the human motion, goal pose and instruction.

    All in ``info.frame_id``; each array replaces the markers of the plan before.
    """
    joints = forward_kinematics(human.root_position, human.rotations, human.scale)
    path = _marker(info, 'path', Marker.LINE_STRIP, _TEAL, width=0.02)
    path.points = _points(robot.root_position * [1.0, 1.0, 0.0] + [0.0, 0.0, 0.01])
    figures = _marker(info, 'body', Marker.LINE_LIST, _GREY, width=0.015)
    bones = np.array([(parent, joint) for joint, parent in enumerate(PARENTS) if parent >= 0])
    step = max(round(EVERY * human.fps), 1)
    shown = joints[::step]
    figures.points = _points(shown[:, bones].reshape(-1, 3))
    for share in np.linspace(0.3, 1.0, len(shown)):
        colour = ColorRGBA(
            r=_TEAL[0] * share, g=_TEAL[1] * share, b=_TEAL[2] * share, a=0.3 + 0.6 * share
        )
        figures.colors += [colour] * (2 * len(bones))
    goal = _marker(info, 'goal', Marker.ARROW, _TEAL)
    x, y, _ = robot.root_position[-1].tolist()
    a, b, c, d = robot.root_quaternion[-1].tolist()
    yaw = np.arctan2(2 * (d * c + a * b), 1 - 2 * (b * b + c * c))
    goal.pose = Pose(
        position=Point(x=x, y=y, z=0.02),
        orientation=Quaternion(z=float(np.sin(yaw / 2)), w=float(np.cos(yaw / 2))),
    )
    goal.scale = Vector3(x=0.4, y=0.06, z=0.06)
    words = _marker(info, 'instruction', Marker.TEXT_VIEW_FACING, _WHITE)
    words.text = instruction
    top = joints[0, :, 2].max()
    words.pose.position = Point(
        x=float(human.root_position[0, 0]), y=float(human.root_position[0, 1]), z=float(top) + 0.4
    )
    words.scale.z = 0.15
    return MarkerArray(markers=[path, figures, goal, words])


def _marker(
    info: PlanInfo,
    namespace: str,
    kind: int,
    colour: tuple[float, float, float],
    width: float = 0.0,
) -> Marker:
    marker = Marker(ns=namespace, type=kind, action=Marker.ADD)
    marker.header.frame_id = info.frame_id
    marker.header.stamp = time_to_msg(info.stamp)
    marker.pose.orientation.w = 1.0
    marker.scale.x = width
    marker.color = ColorRGBA(r=colour[0], g=colour[1], b=colour[2], a=1.0)
    return marker


def _points(rows: np.ndarray) -> list[Point]:
    return [Point(x=x, y=y, z=z) for x, y, z in rows.astype(np.float64).tolist()]
