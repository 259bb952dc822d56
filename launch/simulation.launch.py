# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
simulation_node and egomotion_node, connected: a kinematic humanoid in a room of its own.

Here nothing can be hurt, so ``output_enabled`` starts true.  The simulation's clock is the clock
of both nodes.
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
    'namespace': ('', 'namespace of both nodes and of all their topics but /clock'),
    'robot': ('unitree_g1', 'name of a robot description, or path of its YAML'),
    'bundle': ('', 'folder of the bundle; empty: the one that ships with the package'),
    'backend': ('auto', 'auto, openvino, onnxruntime[-cuda], tensorrt[-rtx] or torch'),
    'scene_seed': ('0', 'seed of the room; -1 is an empty floor'),
    'scene_kind': ('furnished', 'furnished rooms, or simple: objects on a bare floor'),
    'realtime_factor': ('1.0', 'simulated seconds per second; 0: lockstep by ~/step'),
    'output_enabled': ('true', 'false: the simulated robot does not move'),
    'autostart': ('true', 'configure and activate egomotion_node'),
}


def generate_launch_description() -> LaunchDescription:
    """Bring-up with the simulation in place of a robot."""
    value = LaunchConfiguration
    bringup = Path(get_package_share_directory('egomotion_ros')) / 'launch' / 'bringup.launch.py'
    passed_on = ('namespace', 'robot', 'bundle', 'backend', 'output_enabled', 'autostart')
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text)
          for name, (default, text) in ARGUMENTS.items()),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(bringup)),
            launch_arguments={
                **{name: value(name) for name in passed_on}, 'use_sim_time': 'true'}.items()),
        Node(
            package='egomotion_ros', executable='simulation_node', name='simulation_node',
            namespace=value('namespace'), output='screen',
            parameters=[{
                'robot': ParameterValue(value('robot'), value_type=str),
                'scene_seed': ParameterValue(value('scene_seed'), value_type=int),
                'scene_kind': ParameterValue(value('scene_kind'), value_type=str),
                'realtime_factor': ParameterValue(value('realtime_factor'), value_type=float),
            }]),
    ])
