# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
camera_node and egomotion_node: a recording or a live camera in place of the robot's.

Neither has joints or odometry, so plans start from the robot's neutral pose at the
origin.  Nothing moves: motion goes to ``robot_motion_preview``.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {
    'path': (None, 'video file, folder of pictures, Aria .vrs file, or URL of a live camera'),
    'namespace': ('', 'namespace of both nodes and of all their topics'),
    'robot': ('unitree_g1', 'name of a robot description, or path of its YAML'),
    'bundle': ('', 'folder of the bundle; empty: the one that ships with the package'),
    'backend': ('auto', 'auto, openvino, onnxruntime[-cuda], tensorrt[-rtx] or torch'),
    'rate': ('1.0', 'speed of playing, 1 is as recorded'),
    'loop': ('true', 'begin again at the end'),
    'latency': ('0.0', '[s] from capture to arrival of a live picture'),
    'calibration': ('', "YAML of ROS's camera_calibration; replaces the recording's own"),
    'horizontal_fov': ('0.0', '[rad] of an undistorted camera without calibration; 0: unknown'),
    'output_enabled': ('false', 'true: publish robot_motion for whatever listens'),
    'autostart': ('true', 'configure and activate egomotion_node'),
}


def generate_launch_description() -> LaunchDescription:
    """Bring-up with a recording in place of a robot."""
    value = LaunchConfiguration
    bringup = Path(get_package_share_directory('egomotion_ros')) / 'launch' / 'bringup.launch.py'
    passed_on = ('namespace', 'robot', 'bundle', 'backend', 'output_enabled', 'autostart')
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text)
          for name, (default, text) in ARGUMENTS.items()),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(bringup)),
            launch_arguments={
                **{name: value(name) for name in passed_on},
                'joint_states_required': 'false', 'odom_required': 'false'}.items()),
        Node(
            package='egomotion_ros', executable='camera_node', name='camera_node',
            namespace=value('namespace'), output='screen',
            parameters=[{
                'path': ParameterValue(value('path'), value_type=str),
                'rate': ParameterValue(value('rate'), value_type=float),
                'loop': ParameterValue(value('loop'), value_type=bool),
                'latency': ParameterValue(value('latency'), value_type=float),
                'calibration': ParameterValue(value('calibration'), value_type=str),
                'horizontal_fov': ParameterValue(value('horizontal_fov'), value_type=float),
            }]),
    ])
