# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A robot: one YAML file beside a URDF or MJCF model, read, checked and measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
import re
from typing import Any

import mujoco
import numpy as np
import yaml

from egomotion_ros.body.skeleton import LEG_LENGTH
from egomotion_ros.retarget.description_parts import (
    CameraMount,
    Foot,
    Leg,
    Link,
    mapping,
    read_body,
    read_camera,
    read_clearances,
    read_feet,
    read_limits,
    read_links,
    read_number,
    read_posture,
    read_root_limits,
    read_working_range,
)
from egomotion_ros.retarget.limits import JointLimits, RootLimits
from egomotion_ros.retarget.robot_model import read_model, resolve_model, without_meshes

#: Where the descriptions that come with the package are.
ROBOTS = Path(__file__).resolve().parent.parent / 'robots'
_KEYS = {
    'name', 'model', 'base_link', 'joints', 'leg', 'scale', 'standing', 't_pose', 'links', 'feet',
    'velocity_limits', 'acceleration_limits', 'root_limits', 'camera', 'clearances',
    'working_range',
}  # fmt: skip
_MOVING = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_OPTIONAL = {'scale', 'velocity_limits', 'root_limits', 'clearances', 'working_range'}


@dataclass(frozen=True)
class RobotDescription:
    """
    Everything the package knows of a robot.

    ``joint_names`` in message order; ``standing`` and ``t_pose`` (J,) rad; ``links`` by SMPL-X
    joint; ``feet`` left, right; ``limits`` of the joints, ``root_limits`` of the base;
    ``working_range`` (J, 2) inside the position limits, which targets are followed in;
    ``clearances`` pairs of bodies that shall not touch; ``scale`` robot leg / human leg;
    ``home_height`` of the base when standing (m).
    """

    name: str
    model_path: Path
    base_link: str
    joint_names: tuple[str, ...]
    links: tuple[Link, ...]
    feet: tuple[Foot, Foot]
    leg: Leg
    clearances: tuple[tuple[str, str], ...]
    working_range: np.ndarray
    standing: np.ndarray
    t_pose: np.ndarray
    limits: JointLimits
    root_limits: RootLimits
    camera: CameraMount
    scale: float
    home_height: float

    @classmethod
    def load(cls, name: str | Path, model: str | None = None) -> RobotDescription:
        """
        Read a robot that comes with the package, by name, or any YAML file, by path.

        ``model`` replaces the path in the YAML: a file, or ``package://<wheel>/<path>``.
        Raises ValueError that names the file, the key, what was expected and what came.
        """
        path = Path(name)
        if path.suffix not in ('.yaml', '.yml'):
            path = ROBOTS / f'{name}.yaml'
            if not path.is_file():
                known = ', '.join(sorted(p.stem for p in ROBOTS.glob('*.yaml')))
                raise ValueError(f'robot: expected one of {known}, or a .yaml file; got {name!r}')
        if not path.is_file():
            raise ValueError(f'robot: no such file: {path}')
        try:
            data = yaml.safe_load(path.read_text(encoding='utf-8'))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f'{path}: not a YAML file: {error}') from error
        try:
            return _build(data, path, model)
        except (ValueError, re.error, mujoco.FatalError) as error:
            raise ValueError(f'{path}: {error}') from error

    def spec(self) -> mujoco.MjSpec:
        """
        Editable MuJoCo model with its meshes: the robot alone, on a free joint, nothing else.

        The base link is the first child of the world; floors, lights and key frames of the file
        are left out.
        """
        return read_model(self.model_path, self.base_link)

    @cached_property
    def kinematics(self) -> mujoco.MjModel:
        """Compiled model without meshes: same bodies and joints, loads in milliseconds."""
        return without_meshes(self.spec(), shaped={body for pair in self.clearances
                                                    for body in pair})

    def qpos_indices(self, model: mujoco.MjModel) -> np.ndarray:
        """Where ``joint_names`` stand in the qpos (J,) of a ``model`` that holds this robot."""
        return np.array([model.joint(name).qposadr[0] for name in self.joint_names])

    def dof_indices(self, model: mujoco.MjModel) -> np.ndarray:
        """Where ``joint_names`` stand in the qvel (J,) of a ``model`` that holds this robot."""
        return np.array([model.joint(name).dofadr[0] for name in self.joint_names])


def _build(data: Any, path: Path, model_text: str | None) -> RobotDescription:
    if not isinstance(data, dict):
        raise ValueError(f'expected a mapping, got {type(data).__name__}')
    if data.keys() - _KEYS:
        raise ValueError(f'unknown keys: {", ".join(sorted(map(str, data.keys() - _KEYS)))}')
    if _KEYS - _OPTIONAL - data.keys():
        raise ValueError(f'missing keys: {", ".join(sorted(_KEYS - _OPTIONAL - data.keys()))}')
    names = data['joints']
    if not isinstance(names, list) or not names or len(set(names)) != len(names):
        raise ValueError('joints: expected a list of different joint names')
    names = tuple(str(name) for name in names)
    model_path = resolve_model(str(model_text or data['model']), path.parent)
    base = str(data['base_link'])
    model = without_meshes(read_model(model_path, base))
    hinges = {model.joint(i).name for i in range(model.njnt) if int(model.jnt_type[i]) in _MOVING}
    if set(names) != hinges:
        raise ValueError(
            f'joints: not in the model: {sorted(set(names) - hinges)}; '
            f'in the model but not listed: {sorted(hinges - set(names))}'
        )
    feet = read_feet(data['feet'], model)
    standing, t_pose = (read_posture(data[key], names, key) for key in ('standing', 't_pose'))
    limits = read_limits(data, names, model, model_path)
    work = read_working_range(data.get('working_range'), limits)
    for key, posture, low, high in (
        ('standing', standing, *work.T),
        ('t_pose', t_pose, limits.lower, limits.upper),
    ):
        out = (posture < low - 1e-6) | (posture > high + 1e-6)
        if out.any():
            raise ValueError(
                f'{key}: outside the limits: {[names[j] for j in np.flatnonzero(out)]}'
            )
    scratch = mujoco.MjData(model)
    pose = np.zeros(model.nq)
    pose[3] = 1.0
    where = [model.joint(name).qposadr[0] for name in names]
    pose[where] = standing
    scratch.qpos = pose
    mujoco.mj_kinematics(model, scratch)
    corners = np.concatenate([_points(scratch, foot) for foot in feet])
    if np.ptp(corners[:, 2]) > 0.02:
        raise ValueError(
            f'standing: the soles are not flat on one floor, their corners differ by '
            f'{1e3 * np.ptp(corners[:, 2]):.0f} mm in height'
        )
    ends = [
        read_body(mapping(data['leg'], 'leg').get(key), model, 'leg') for key in ('hip', 'ankle')
    ]
    pose[where] = t_pose
    scratch.qpos = pose
    mujoco.mj_kinematics(model, scratch)
    straight = scratch.body(ends[0]).xpos - scratch.body(ends[1]).xpos
    leg = Leg(*ends, float(np.linalg.norm(straight)))
    scale = read_number(data.get('scale', leg.length / LEG_LENGTH), 'scale')
    if not 0.05 < scale < 5.0:
        raise ValueError(f'scale: expected 0.05 to 5, got {scale:.3f}')
    return RobotDescription(
        name=str(data['name']),
        model_path=model_path,
        base_link=base,
        joint_names=names,
        links=read_links(data['links'], model),
        feet=feet,
        leg=leg,
        clearances=read_clearances(data.get('clearances'), model),
        working_range=work,
        standing=standing,
        t_pose=t_pose,
        limits=limits,
        root_limits=read_root_limits(data.get('root_limits')),
        camera=read_camera(data['camera'], model),
        scale=scale,
        home_height=-float(corners[:, 2].min()),
    )


def _points(data: mujoco.MjData, foot: Foot) -> np.ndarray:
    body = data.body(foot.body)
    return body.xpos + foot.points @ body.xmat.reshape(3, 3).T
