# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
egomotion_node for a robot, with its camera, backend and bundle as arguments.

Safe by default: ``output_enabled:=false`` lets nothing move (motion goes to
``robot_motion_preview`` only) until somebody sets the parameter ``output_enabled`` to true.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    GroupAction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.events import matches_action
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

ARGUMENTS = {
    'stages': ('all', 'all, or on two hosts: reason on one, generate on the other'),
    'node_name': ('egomotion_node', 'name of the node; two in one namespace need two names'),
    'namespace': ('', 'namespace of the node and of all its topics'),
    'robot': ('unitree_g1', 'name of a robot description, or path of its YAML'),
    'bundle': ('', 'folder of the bundle; empty: the one that ships with the package'),
    'backend': ('auto', 'auto, openvino, onnxruntime[-cuda], tensorrt[-rtx] or torch'),
    'image': ('image', 'camera topic; for transport compressed without its /compressed'),
    'transport': ('raw', 'raw or compressed'),
    'camera_info': ('camera_info', 'topic of the calibration of that camera'),
    'camera_source': ('robot', 'where the camera is: robot, parameters or topic'),
    'joint_states': ('joint_states', 'topic of the measured joints'),
    'joint_states_required': ('true', 'refuse plans and stop without fresh joint states'),
    'odom': ('odom', 'topic of the odometry'),
    'odom_required': ('true', 'refuse plans without odometry'),
    'joint_trajectory': ('joint_trajectory', 'topic of the joint trajectory controller'),
    'output_enabled': ('false', 'false: nothing may move until the parameter is set to true'),
    'autostart': ('true', 'configure and activate the node; false: wait for a lifecycle manager'),
    'use_sim_time': ('false', 'take the time from /clock'),
    'log_level': ('info', 'debug, info, warn, error'),
}


def generate_launch_description() -> LaunchDescription:
    """One lifecycle node, brought to active unless ``autostart:=false``."""
    value = LaunchConfiguration
    node = LifecycleNode(
        package='egomotion_ros', executable='egomotion_node', name=value('node_name'),
        namespace=value('namespace'), output='screen',
        arguments=['--ros-args', '--log-level', value('log_level')],
        parameters=[value('params_file'), {
            'stages': ParameterValue(value('stages'), value_type=str),
            'robot': ParameterValue(value('robot'), value_type=str),
            'bundle': ParameterValue(value('bundle'), value_type=str),
            'backend': ParameterValue(value('backend'), value_type=str),
            'image.transport': ParameterValue(value('transport'), value_type=str),
            'camera.source': ParameterValue(value('camera_source'), value_type=str),
            'joint_states.required': ParameterValue(
                value('joint_states_required'), value_type=bool),
            'odom.required': ParameterValue(value('odom_required'), value_type=bool),
            'output_enabled': ParameterValue(value('output_enabled'), value_type=bool),
            'use_sim_time': ParameterValue(value('use_sim_time'), value_type=bool),
        }],
        remappings=[
            ('image', value('image')),
            ('image/compressed', [value('image'), '/compressed']),
            ('camera_info', value('camera_info')),
            ('joint_states', value('joint_states')),
            ('odom', value('odom')),
            ('joint_trajectory', value('joint_trajectory')),
        ])

    def request(transition: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(
            lifecycle_node_matcher=matches_action(node), transition_id=transition))

    # Only the way up activates the node: an operator's deactivate must stay in force.
    activate = RegisterEventHandler(OnStateTransition(
        target_lifecycle_node=node, start_state='configuring', goal_state='inactive',
        entities=[request(Transition.TRANSITION_ACTIVATE)]))
    autostart = GroupAction(
        [activate, request(Transition.TRANSITION_CONFIGURE)], scoped=False,
        condition=IfCondition(value('autostart')))

    config = Path(get_package_share_directory('egomotion_ros')) / 'config'
    variable = 'FASTRTPS_DEFAULT_PROFILES_FILE'
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text)
          for name, (default, text) in ARGUMENTS.items()),
        DeclareLaunchArgument(
            'params_file', default_value=str(config / 'egomotion.yaml'),
            description='YAML of all other parameters; the arguments above come on top'),
        # Images at full rate, unless the user has a profile already; see the file.
        SetEnvironmentVariable(
            variable, EnvironmentVariable(variable, default_value=str(config / 'fastdds.xml'))),
        node,
        autostart,
    ])
