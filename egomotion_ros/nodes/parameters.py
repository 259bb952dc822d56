# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Every parameter of ``egomotion_node``: name, default, unit, range and what it does.

The table is the source of truth: descriptors come from it, and tests hold
``config/egomotion.yaml`` and ``docs/reference/parameters.md`` to it.
"""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from egomotion_ros.bundle import MAX_STEPS, STAGE_GRAPHS
from egomotion_ros.nodes.qos import PROFILES


@dataclass(frozen=True)
class Spec:
    """
    One parameter.

    ``span`` smallest and largest number; ``choices`` allowed values; ``length`` of a list;
    ``live`` True where it may change while the node is configured, ``fixed`` True where it may not
    change after the node was made.
    """

    name: str
    default: Any
    text: str
    span: tuple[float, float] | None = None
    choices: tuple = ()
    length: int | None = None
    live: bool = False
    fixed: bool = False


def _qos(topic: str, default: str) -> Spec:
    return Spec(
        f'qos.{topic}', default, f'QoS profile of {topic}', choices=tuple(sorted(PROFILES))
    )


SPECS: tuple[Spec, ...] = (
    Spec(
        'stages',
        'all',
        'what this node does of the way from image to motion: all of it, reason (publishes '
        'motion_primitives with states) or generate (turns those into motion); set at the start',
        choices=tuple(STAGE_GRAPHS),
        fixed=True,
    ),
    Spec('bundle', '', 'folder of the bundle; empty: the one that ships with the package'),
    Spec('robot', 'unitree_g1', 'name of a robot description, or path of its YAML'),
    Spec(
        'backend',
        'auto',
        'runtime of the bundle: auto, openvino, onnxruntime[-cuda], tensorrt[-rtx] or torch',
    ),
    Spec('threads', 2, 'CPU threads of the runtime', span=(1, 64)),
    Spec(
        'image.transport',
        'raw',
        'topic image (raw) or image/compressed (compressed)',
        choices=('raw', 'compressed'),
    ),
    Spec(
        'image.max_age',
        0.5,
        '[s] oldest image that a plan may start from',
        span=(0.01, 60.0),
        live=True,
    ),
    Spec(
        'image.timeout',
        2.0,
        '[s] without a new image until a plan is refused or any motion stopped',
        span=(0.1, 60.0),
        live=True,
    ),
    Spec(
        'camera.hfov',
        0.0,
        '[rad] horizontal field of view of an undistorted camera; 0: from camera_info',
        span=(0.0, 3.0),
        live=True,
    ),
    Spec(
        'camera.rectified',
        False,
        'the image is rectified: use P of camera_info, no distortion',
        live=True,
    ),
    Spec(
        'camera.rotate',
        0,
        '[deg] clockwise turn that makes the picture upright',
        choices=(0, 90, 180, 270),
        live=True,
    ),
    Spec(
        'camera.source',
        'robot',
        'where the camera is: from the robot description and the joint '
        'states (robot), from camera.position and camera.rpy (parameters), from the topic '
        'head_pose (topic)',
        choices=('robot', 'parameters', 'topic'),
    ),
    Spec(
        'camera.position',
        [0.08, 0.0, 0.45],
        '[m] optical centre in the base link (X forward, Y left, Z up)',
        length=3,
        live=True,
    ),
    Spec(
        'camera.rpy',
        [0.0, 0.6, 0.0],
        '[rad] roll, pitch, yaw of the camera body axes (X along '
        'the optical axis) in the base link; positive pitch looks down',
        length=3,
        live=True,
    ),
    Spec(
        'floor_height',
        0.0,
        '[m] Z of the floor in the odometry frame',
        span=(-1000.0, 1000.0),
        live=True,
    ),
    Spec(
        'base_height',
        0.75,
        '[m] height of the base link over the floor, used without odometry',
        span=(0.05, 5.0),
        live=True,
    ),
    Spec('odom.required', True, 'refuse plans without odometry; false: the robot starts at 0'),
    Spec('odom.frame', 'odom', 'frame of odometry and of every motion'),
    Spec(
        'odom.timeout',
        0.5,
        '[s] oldest odometry that a plan may start from',
        span=(0.01, 60.0),
        live=True,
    ),
    Spec(
        'joint_states.required',
        True,
        'refuse plans and stop without fresh joint states; '
        'false: without them plans start from the pose the robot description calls neutral',
    ),
    Spec(
        'joint_states.timeout',
        0.5,
        '[s] without new joint states until any motion is stopped',
        span=(0.01, 60.0),
        live=True,
    ),
    Spec(
        'future_tolerance',
        0.1,
        '[s] how far in the future the stamp of an input may lie',
        span=(0.0, 10.0),
        live=True,
    ),
    Spec(
        'replan_period',
        2.0,
        '[s] between plans while an instruction stands; 0: one plan per instruction',
        span=(0.0, 60.0),
        live=True,
    ),
    Spec(
        'goal_memory',
        True,
        'keep to where the plans of a standing instruction lead: looks on the way correct it, and '
        'where it has led, the robot stays; false: every plan is followed as if the instruction '
        'had just been given',
        live=True,
    ),
    Spec(
        'latency_budget',
        0.6,
        '[s] of the running motion after the image that a new plan keeps; more where the last '
        'plans took longer',
        span=(0.0, 3.0),
        live=True,
    ),
    Spec(
        'lead',
        0.1,
        '[s] after publication in which a new motion repeats the running one',
        span=(0.0, 1.0),
        live=True,
    ),
    Spec(
        'blend',
        0.4,
        '[s] in which a new motion leaves the running one',
        span=(0.05, 3.0),
        live=True,
    ),
    Spec(
        'primitives.max_age',
        1.0,
        '[s] oldest observation of motion_primitives that a plan may start from, with stages: '
        'generate',
        span=(0.01, 60.0),
        live=True,
    ),
    Spec(
        'primitives.timeout',
        3.0,
        '[s] without newer motion_primitives until any motion is stopped, with stages: generate; '
        'more than replan_period of the node that reasons',
        span=(0.1, 60.0),
        live=True,
    ),
    Spec(
        'first_part',
        0.5,
        '[s] of a plan that may be executed before the rest of it is there; 0: plans are '
        'published once they are whole',
        span=(0.0, 3.0),
        live=True,
    ),
    Spec('planning_timeout', 20.0, '[s] until planning is given up', span=(0.1, 600.0), live=True),
    Spec(
        'guidance',
        0.0,
        'classifier-free guidance; 0: the default of the bundle',
        span=(0.0, 20.0),
        live=True,
    ),
    Spec(
        'steps',
        0,
        'sampling steps; 0: the default of the bundle',
        span=(0, MAX_STEPS),
        live=True,
    ),
    Spec(
        'candidates',
        0,
        'motions drawn for a plan, of which the one that ends nearest to where the reasoner '
        'points is taken; 0: the default of the bundle',
        span=(0, 64),
        live=True,
    ),
    Spec(
        'output_enabled',
        True,
        'false: motion goes to robot_motion_preview only, nothing may '
        'move; switching to false stops a running motion',
        live=True,
    ),
    Spec('publish_states', False, 'frozen hidden states ride on motion_primitives', live=True),
    Spec(
        'joint_map',
        [''],
        'pairs description_name:controller_name for joint_states and '
        'joint_trajectory where names differ',
    ),
    _qos('image', 'sensor'),
    _qos('camera_info', 'sensor'),
    _qos('joint_states', 'state'),
    _qos('odom', 'state'),
    _qos('head_pose', 'state'),
    _qos('instruction', 'command'),
    _qos('robot_motion', 'motion'),
    _qos('joint_trajectory', 'motion'),
)

_BY_NAME = {spec.name: spec for spec in SPECS}


def problem(name: str, value: Any) -> str:
    """Say what is wrong with ``value`` for the parameter ``name``; empty if nothing is."""
    spec = _BY_NAME[name]
    if _is_real(spec):
        # 2 is as good as 2.0, which rclpy by itself refuses.
        numbers = value if spec.length is not None else [value]
        plain = isinstance(numbers, (list, tuple, array.array))
        if not plain or not all(type(x) in (int, float) for x in numbers):
            return f'{name}: expected {"numbers" if spec.length else "a number"}, got {value!r}'
    if spec.choices and value not in spec.choices:
        return f'{name}: expected one of {", ".join(map(str, spec.choices))}, got {value!r}'
    if spec.span and not spec.span[0] <= value <= spec.span[1]:
        return f'{name}: expected {spec.span[0]}..{spec.span[1]}, got {value}'
    if spec.length is not None:
        if len(value) != spec.length or not all(abs(x) < 1e6 for x in value):
            return f'{name}: expected {spec.length} finite numbers, got {list(value)}'
    return ''


class Parameters:
    """The parameters of one node as attributes of a plain dictionary, always valid."""

    def __init__(self, node: Node) -> None:
        """Declare all of :data:`SPECS` on ``node``; raises ValueError for a bad override."""
        self._values: dict[str, Any] = {}
        #: True while models are loaded; then only live parameters may change.
        self.frozen = False
        for spec in SPECS:
            value = node.declare_parameter(spec.name, spec.default, _descriptor(spec)).value
            wrong = problem(spec.name, value)
            if wrong:
                raise ValueError(wrong)
            self._values[spec.name] = _as_declared(spec, value)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._take)
        self.on_change = lambda names: None

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name not in _BY_NAME:
                continue
            wrong = problem(parameter.name, parameter.value)
            if not wrong and self.frozen and not _BY_NAME[parameter.name].live:
                wrong = f'{parameter.name}: can be changed in the state unconfigured only'
            if wrong:
                return SetParametersResult(successful=False, reason=wrong)
        return SetParametersResult(successful=True)

    def _take(self, parameters: list[Parameter]) -> None:
        changed = set()
        for parameter in parameters:
            if parameter.name not in _BY_NAME:
                continue
            value = _as_declared(_BY_NAME[parameter.name], parameter.value)
            if self._values[parameter.name] != value:
                self._values[parameter.name] = value
                changed.add(parameter.name)
        if changed:
            self.on_change(changed)


def joint_map(pairs: list[str]) -> dict[str, str]:
    """Read ``description:controller`` pairs; raises ValueError where one is malformed."""
    names: dict[str, str] = {}
    for pair in pairs:
        if not pair:
            continue
        ours, separator, theirs = pair.partition(':')
        if not (separator and ours and theirs) or ours in names or theirs in names.values():
            raise ValueError(f'joint_map: expected unique pairs like hip:left_hip, got {pair!r}')
        names[ours] = theirs
    return names


def _is_real(spec: Spec) -> bool:
    default = spec.default[0] if isinstance(spec.default, list) else spec.default
    return isinstance(default, float)


def _as_declared(spec: Spec, value: Any) -> Any:
    """Make integers of a real parameter real, arrays lists."""
    if spec.length is not None:
        return [float(x) for x in value]
    if isinstance(spec.default, list):
        return list(value)
    return float(value) if _is_real(spec) else value


def _descriptor(spec: Spec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=spec.text, dynamic_typing=_is_real(spec), read_only=spec.fixed
    )
    if spec.choices:
        descriptor.additional_constraints = f'one of {", ".join(map(str, spec.choices))}'
    if spec.span and isinstance(spec.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=spec.span[0], to_value=spec.span[1])
        ]
    elif spec.span:
        descriptor.integer_range = [
            IntegerRange(from_value=int(spec.span[0]), to_value=int(spec.span[1]), step=1)
        ]
    if not spec.live and not spec.fixed:
        descriptor.additional_constraints += ' (set before configure)'
    descriptor.additional_constraints = descriptor.additional_constraints.strip()
    return descriptor
