# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of a robot description, and how they are read from the YAML."""

from __future__ import annotations

from dataclasses import dataclass
import math
from pathlib import Path
import re
from typing import Any

import mujoco
import numpy as np

from egomotion_ros.body.skeleton import JOINT_INDEX
from egomotion_ros.retarget.limits import JointLimits, RootLimits
from egomotion_ros.retarget.robot_model import urdf_velocity_limits


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


def mapping(value: Any, key: str) -> dict:
    """``value`` as a mapping, {} for None.  Raises ValueError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f'{key}: expected a mapping, got {value!r}')
    return value


def read_limits(
    data: dict, names: tuple[str, ...], model: mujoco.MjModel, path: Path
) -> JointLimits:
    """Position limits of the model, velocity and acceleration limits of the YAML or the URDF."""
    ranges = []
    for name in names:
        joint = model.joint(name)
        if not model.jnt_limited[joint.id]:
            raise ValueError(f'model: joint {name!r} has no position limits')
        ranges.append(joint.range)
    lower, upper = np.array(ranges).T
    urdf = urdf_velocity_limits(path)
    velocity = _by_pattern(data.get('velocity_limits'), names, 'velocity_limits', urdf)
    acceleration = _by_pattern(data['acceleration_limits'], names, 'acceleration_limits', {})
    return JointLimits(lower, upper, velocity, acceleration, names)


def read_working_range(table: Any, limits: JointLimits) -> np.ndarray:
    """Range (J, 2) that targets are followed in."""
    out = np.stack([limits.lower, limits.upper], axis=1)
    for pattern, pair in mapping(table, 'working_range').items():
        mine = [j for j, name in enumerate(limits.joint_names) if re.fullmatch(str(pattern), name)]
        if not mine or not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(
                f'working_range: expected joint pattern: [low, high], got {pattern!r}'
            )
        low, high = (read_number(x, f'working_range.{pattern}') for x in pair)
        out[mine, 0] = np.maximum(out[mine, 0], low)
        out[mine, 1] = np.minimum(out[mine, 1], high)
    if (out[:, 0] >= out[:, 1]).any():
        raise ValueError('working_range: a range is empty or outside the position limits')
    return out


def _by_pattern(
    table: Any, names: tuple[str, ...], key: str, default: dict[str, float]
) -> np.ndarray:
    """Value of every joint: of the first pattern in ``table`` that matches its whole name."""
    table = mapping(table, key)
    out = []
    for name in names:
        value = default.get(name)
        for pattern, number in table.items():
            if re.fullmatch(str(pattern), name):
                value = read_number(number, f'{key}.{pattern}')
                break
        if value is None:
            raise ValueError(f'{key}: nothing for joint {name!r}')
        out.append(value)
    return np.array(out)


def read_posture(table: Any, names: tuple[str, ...], key: str) -> np.ndarray:
    """Joint angles (J,), 0 for joints without a pattern."""
    table = mapping(table, key)
    for pattern in table:
        if not any(re.fullmatch(str(pattern), name) for name in names):
            raise ValueError(f'{key}: {pattern!r} matches no joint')
    return _by_pattern(table, names, key, dict.fromkeys(names, 0.0))


def read_links(table: Any, model: mujoco.MjModel) -> tuple[Link, ...]:
    """Which body follows which SMPL-X joint."""
    out = []
    for joint, entry in mapping(table, 'links').items():
        entry = mapping(entry, f'links.{joint}')
        if joint not in JOINT_INDEX:
            raise ValueError(f'links: {joint!r} is no SMPL-X joint ({", ".join(JOINT_INDEX)})')
        body = read_body(entry.get('body'), model, f'links.{joint}')
        weights = [
            read_number(entry.get(k, 0.0), f'links.{joint}.{k}')
            for k in ('position', 'orientation')
        ]
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError(f'links.{joint}: expected weights >= 0, one > 0, got {weights}')
        out.append(Link(joint, body, *weights))
    for joint in ('pelvis', 'left_ankle', 'right_ankle'):
        if not any(link.joint == joint and link.position > 0 for link in out):
            raise ValueError(f'links: {joint} needs a body with a position weight')
    return tuple(out)


def read_feet(table: Any, model: mujoco.MjModel) -> tuple[Foot, Foot]:
    """Left and right foot."""
    feet = []
    for side in ('left', 'right'):
        entry = mapping(mapping(table, 'feet').get(side), f'feet.{side}')
        body = read_body(entry.get('body'), model, f'feet.{side}')
        corners = [np.array(entry.get(k, []), dtype=np.float64) for k in ('heel', 'toe')]
        if any(c.shape != (2, 3) or not np.isfinite(c).all() for c in corners):
            raise ValueError(f'feet.{side}: expected two points [x, y, z] each for heel and toe')
        feet.append(Foot(body, *corners))
    return feet[0], feet[1]


def read_body(name: Any, model: mujoco.MjModel, key: str) -> str:
    """Name of a body that the model has."""
    if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, str(name)) < 0:
        raise ValueError(f'{key}: the model has no body {name!r}')
    return str(name)


def read_number(value: Any, key: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f'{key}: expected a finite number, got {value!r}')
    return float(value)


def _vector(value: Any, key: str) -> np.ndarray:
    out = np.array(value if value is not None else [], dtype=np.float64)
    if out.shape != (3,) or not np.isfinite(out).all():
        raise ValueError(f'{key}: expected [x, y, z], got {value!r}')
    return out


def read_camera(table: Any, model: mujoco.MjModel) -> CameraMount:
    """The head camera."""
    table = mapping(table, 'camera')
    return CameraMount(
        body=read_body(table.get('body'), model, 'camera'),
        position=_vector(table.get('position'), 'camera.position'),
        rpy=_vector(table.get('rpy'), 'camera.rpy'),
        hfov=read_number(table.get('hfov'), 'camera.hfov'),
    )


def read_root_limits(table: Any) -> RootLimits:
    """Limits of the base, the defaults of RootLimits where nothing is said."""
    table = mapping(table, 'root_limits')
    unknown = set(table) - set(RootLimits.__dataclass_fields__)
    if unknown:
        raise ValueError(f'root_limits: unknown keys {sorted(map(str, unknown))}')
    return RootLimits(**{k: read_number(v, f'root_limits.{k}') for k, v in table.items()})


def read_clearances(table: Any, model: mujoco.MjModel) -> tuple[tuple[str, str], ...]:
    """Pairs of bodies that shall not touch."""
    pairs = table or []
    good = isinstance(pairs, list) and all(isinstance(p, list) and len(p) == 2 for p in pairs)
    if not good:
        raise ValueError(f'clearances: expected pairs of bodies, got {table!r}')
    return tuple(
        (read_body(a, model, 'clearances'), read_body(b, model, 'clearances')) for a, b in pairs
    )
