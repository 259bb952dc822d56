# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A simulated humanoid with a head camera in a room, behind the topics a real one has.

Kinematic: the robot takes exactly the joint positions and the *planned root motion* of
``robot_motion``; there are no forces and no balance.  It stands in for a robot with its whole-body
controller, or for Isaac Sim and Gazebo, where only the interface matters.

Publishes ``image``, ``camera_info``, ``joint_states``, ``odom``, ``/clock``; subscribes
``robot_motion``; serves ``~/reset`` (back to the start of the scene) and, in lockstep,
``~/step``.  Setting the parameter ``scene_seed`` loads another room.
"""

from __future__ import annotations

import sys
import threading
import time

from nav_msgs.msg import Odometry
import numpy as np
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_srvs.srv import Trigger

from egomotion_ros.data.scenes import KINDS
from egomotion_ros.data.scenes_furnished import draw_scene
from egomotion_ros.msg import RobotMotion as RobotMotionMsg
from egomotion_ros.nodes.conversions import (
    plan_from_msg,
    refuse_foreign,
    robot_from_msg,
    time_to_msg,
)
from egomotion_ros.nodes.process import destroyed_on_failure, run_node
from egomotion_ros.nodes.qos import profile
from egomotion_ros.nodes.sensor_messages import (
    camera_info_to_msg,
    described,
    image_to_msg,
    joint_state_to_msg,
    odometry_to_msg,
)
from egomotion_ros.nodes.sources import Calibration
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.simulation.camera_thread import CameraThread
from egomotion_ros.simulation.follower import Follower
from egomotion_ros.simulation.world import World
from egomotion_ros.types import CameraIntrinsics

#: Simulation time of the first instant (ns); zero means "no time yet" to ROS.
EPOCH = 1_000_000_000
#: Longest step of the simulation clock (s): a late process slows the world down, it never jumps.
LONGEST_STEP = 0.1


class SimulationNode(Node):
    """See the module; parameters are declared in :meth:`_declare`."""

    def __init__(self, **options) -> None:
        super().__init__('simulation_node', **options)
        self._camera: CameraThread | None = None
        self._camera_lock, self._closing = threading.Lock(), False
        with destroyed_on_failure(self):
            self._declare()
            self._set_up()

    def _set_up(self) -> None:
        """Make the world and what tells of it; raises what a bad parameter raises."""
        get = self._value
        self._robot = RobotDescription.load(get('robot'))
        hfov = get('horizontal_fov') or self._robot.camera.hfov
        self._lens = CameraIntrinsics(get('image_width'), get('image_height'), hfov)
        self._calibration = Calibration.pinhole(self._lens.width, self._lens.height, hfov)
        self._now = self._next_image = EPOCH
        self._tick_period = 1.0 / get('state_rate')
        self._camera_period = round(1e9 / get('camera_rate'))
        self._factor = get('realtime_factor')
        self._clock_out = self.create_publisher(ClockMsg, '/clock', profile('command'))
        self._images = self.create_publisher(Image, 'image', profile('sensor_reliable'))
        self._infos = self.create_publisher(CameraInfo, 'camera_info', profile('sensor_reliable'))
        self._joints = self.create_publisher(JointState, 'joint_states', profile('state_reliable'))
        self._odometry = self.create_publisher(Odometry, 'odom', profile('state_reliable'))
        self.create_subscription(RobotMotionMsg, 'robot_motion', self._on_motion,
                                 profile('motion'))
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._load(get('scene_seed'))
        if self._factor > 0.0:
            self._wall = time.monotonic()
            self._timer = self.create_timer(self._tick_period, self._on_timer,
                                            clock=Clock(clock_type=ClockType.STEADY_TIME))
            pace = f'{self._factor:g} times real time'
        else:
            self.create_service(Trigger, '~/step', self._on_step)
            pace = 'lockstep (each call of ~/step is one camera period)'
        self._publish_state()
        self.get_logger().info(
            f'{self._robot.name} in scene {get("scene_seed")}, {pace}. Kinematic: joints and base '
            'follow robot_motion exactly as planned; there are no forces and no balance.')

    # Parameters and scenes --------------------------------------------------------------------
    def _declare(self) -> None:
        declare = self.declare_parameter
        declare('robot', 'unitree_g1', described(
            'robot description: a name that comes with the package, or a .yaml file'))
        declare('scene_seed', -1, described(
            'seed of the room; -1 is an empty floor. May be set at any time: loads the room and '
            'puts the robot at its start', -1, 29_999_999, read_only=False))
        declare('scene_kind', 'furnished', described(
            "rooms to load: 'furnished' with tables, shelves and things within reach, or "
            "'simple', objects on a bare floor"))
        declare('bundle_hash', '', described(
            'SHA-256 of the bundle whose plans are followed; others are refused. '
            'Empty: plans of any bundle'))
        declare('realtime_factor', 1.0, described(
            'simulated seconds per second; 0 is lockstep: time moves by ~/step only', 0.0, 20.0))
        declare('state_rate', 100.0, described(
            'rate of /clock, joint_states and odom [Hz of wall time]', 10.0, 1000.0))
        declare('camera_rate', 12.0, described(
            'rate of image and camera_info [Hz of simulated time]', 0.1, 120.0))
        declare('image_width', 256, described('width of the image [px]', 16, 1280))
        declare('image_height', 256, described('height of the image [px]', 16, 1280))
        declare('horizontal_fov', 0.0, described(
            "horizontal field of view of the head camera [rad]; 0: the robot's", 0.0, 3.0))
        declare('camera_frame', 'head_camera_optical_frame', described(
            'frame_id of image and camera_info (x right, y down, z forward)'))

    def _value(self, name: str):
        return self.get_parameter(name).value

    def _load(self, seed: int) -> None:
        """Build the room of ``seed`` and put the robot at its start."""
        kind = self._value('scene_kind')
        if kind not in KINDS:
            raise ValueError(f'scene_kind: expected one of {", ".join(KINDS)}, got {kind!r}')
        scene = None if seed < 0 else draw_scene(seed, kind)
        world = World(self._robot, scene, self._lens)
        with self._camera_lock:
            # A room that is still being loaded by another thread when the node ends.
            if self._closing:
                raise ValueError('the node is shutting down')
            camera = CameraThread(world, self._on_picture)
            if self._camera is not None:
                self._camera.close()
            self._world, self._camera = world, camera
        limits = self._robot.limits
        self._follower = Follower(self._robot.joint_names, limits.lower, limits.upper,
                                  world.home())

    def _on_parameters(self, parameters) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == 'scene_seed':
                try:
                    self._load(parameter.value)
                except (ValueError, RuntimeError) as error:
                    return SetParametersResult(successful=False, reason=str(error))
                self._next_image = self._now
                self.get_logger().info(f'scene {parameter.value}: {self._contents()}')
        return SetParametersResult(successful=True)

    def _contents(self) -> str:
        scene = self._world.scene
        return 'empty floor' if scene is None else ', '.join(item.name for item in scene.objects)

    # Time -------------------------------------------------------------------------------------
    def _on_timer(self) -> None:
        wall = time.monotonic()
        step, self._wall = (wall - self._wall) * self._factor, wall
        self._advance(round(min(step, LONGEST_STEP) * 1e9))

    def _on_step(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Move time by one camera period; answers when the image is on its way."""
        end = self._now + self._camera_period
        while self._now < end:
            self._advance(min(round(self._tick_period * 1e9), end - self._now))
        response.success = self._camera.wait()
        response.message = f'{self._now} ns' if response.success else 'the camera does not answer'
        return response

    def _advance(self, step: int) -> None:
        self._now += step
        self._publish_state()

    def _publish_state(self) -> None:
        now, state = self._now, self._follower.sample(self._now)
        self._clock_out.publish(ClockMsg(clock=time_to_msg(now)))
        self._joints.publish(joint_state_to_msg(self._robot.joint_names, state, now))
        self._odometry.publish(odometry_to_msg(state, now, self._robot.base_link))
        if now >= self._next_image:
            self._next_image += self._camera_period
            if now >= self._next_image:  # time was slow: no burst to catch up
                self._next_image = now + self._camera_period
            self._camera.request(self._world.configuration(state), now)

    def _on_picture(self, image: np.ndarray, stamp: int) -> None:
        frame = self._value('camera_frame')
        self._infos.publish(camera_info_to_msg(self._calibration, stamp, frame))
        self._images.publish(image_to_msg(image, stamp, frame))

    # What the robot is told -------------------------------------------------------------------
    def _on_motion(self, message: RobotMotionMsg) -> None:
        try:
            wanted = self._value('bundle_hash')
            if wanted:
                refuse_foreign(message.plan, wanted)
            if message.robot != self._robot.name or message.base_link != self._robot.base_link:
                raise ValueError(f'made for {message.robot!r} with base {message.base_link!r}, '
                                 f'this is {self._robot.name!r}, {self._robot.base_link!r}')
            self._follower.offer(robot_from_msg(message), plan_from_msg(message.plan).stamp,
                                 self._now)
        except ValueError as error:
            state = 'the running motion goes on to its end' if self._follower.moving else 'holding'
            self.get_logger().warning(f'refused robot_motion {message.plan.plan_id!r}: {error}; '
                                      f'{state}')

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._follower.place(self._world.home())
        self._next_image = self._now
        response.success, response.message = True, self._contents()
        return response

    def destroy_node(self) -> None:
        """Free the OpenGL context, then the node."""
        with self._camera_lock:
            self._closing = True
            if self._camera is not None:
                self._camera.close()
        super().destroy_node()


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; 1 where it cannot start."""
    return run_node(SimulationNode, 'simulation_node', args)


if __name__ == '__main__':
    sys.exit(main())
