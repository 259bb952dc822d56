# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Pictures of simulated scenes, by MuJoCo's offscreen renderer.

One model is compiled once; a scene only rewrites poses, sizes, colours and lights of a pool of
geoms, which keeps a 128 x 128 picture at a few milliseconds on one core.  Shadows and reflections
are off.
"""

from __future__ import annotations

import os
import sys
from typing import Self

import numpy as np

if sys.platform.startswith('linux') and not os.environ.get('DISPLAY'):
    os.environ.setdefault('MUJOCO_GL', 'egl')

import mujoco

from egomotion_ros.data.scenes import (
    CAMERA,
    CONE_WIDTHS,
    MAX_BOXES,
    MAX_OBJECTS,
    SHAPE_NAMES,
    SMALL_CONES,
    TEXTURES,
    Box,
    Scene,
    SceneObject,
)
from egomotion_ros.data.scenes_view import camera_rotation, view_window
from egomotion_ros.types import CameraIntrinsics, CameraPose

_PATTERNS = (('flat', 'none'), ('flat', 'random'), ('checker', 'none'), ('checker', 'edge'),
             ('gradient', 'random'))


_CONES = (*CONE_WIDTHS, *SMALL_CONES)
#: Half thickness of floor and walls (m); planes would be baked into the OpenGL context.
_THIN = 0.05
#: Floor, ceiling, four walls.
_SLABS = 6


def _cone_vertices(width: float) -> np.ndarray:
    """Vertices (25, 3) of an upright cone 1.2 times as high as wide, centred at half height."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles), np.zeros(24)], axis=1) * 0.5 * width
    ring[:, 2] = -0.6 * width
    return np.concatenate([ring, [[0.0, 0.0, 0.6 * width]]])


def add_assets(spec: mujoco.MjSpec) -> None:
    """Add the cone meshes and the surface patterns the scenes use to a MuJoCo spec."""
    for i, width in enumerate(_CONES):
        vertices = _cone_vertices(width)
        spec.add_mesh(name=f'cone{i}', uservert=vertices.ravel())
    for i, (builtin, mark) in enumerate(_PATTERNS[:TEXTURES]):
        spec.add_texture(
            name=f'pattern{i}', type=mujoco.mjtTexture.mjTEXTURE_2D, width=256, height=256,
            builtin=getattr(mujoco.mjtBuiltin, f'mjBUILTIN_{builtin.upper()}'),
            mark=getattr(mujoco.mjtMark, f'mjMARK_{mark.upper()}'),
            rgb1=[1, 1, 1], rgb2=[0.72, 0.72, 0.72], markrgb=[0.6, 0.6, 0.6], random=0.01)
        material = spec.add_material(name=f'pattern{i}', texrepeat=[0.7, 0.7], texuniform=True,
                                     specular=0.1, shininess=0.2, reflectance=0.0)
        textures = list(material.textures)
        textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = f'pattern{i}'
        material.textures = textures


def geom_of(item: SceneObject) -> tuple[int, np.ndarray, int]:
    """MuJoCo geom type, size (3,) and cone index (-1 for other shapes) of an object."""
    name, half = SHAPE_NAMES[item.shape], 0.5 * item.width
    if name == 'ball':
        return mujoco.mjtGeom.mjGEOM_SPHERE, np.array([half, half, half]), -1
    if name == 'box':
        return mujoco.mjtGeom.mjGEOM_BOX, np.array([half, half, 0.5 * item.height]), -1
    if name == 'cone':
        return (mujoco.mjtGeom.mjGEOM_MESH, np.array([half, half, 0.5 * item.height]),
                int(np.argmin(np.abs(np.array(_CONES) - item.width))))
    return mujoco.mjtGeom.mjGEOM_CYLINDER, np.array([half, 0.5 * item.height, 0.0]), -1


def room_slabs(scene: Scene) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Floor, ceiling, four walls as thin boxes: centre (3,), rotation (3, 3), half size (3,)."""
    room = scene.room
    cy, sy = np.cos(room.yaw), np.sin(room.yaw)
    turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1.0]])
    centre = np.array([*room.center, 0.0])
    flat = np.array([*room.half, _THIN])
    slabs = [(centre - [0, 0, _THIN], turn, flat),
             (centre + [0, 0, room.height + _THIN], turn, flat)]
    up = np.array([0, 0, 1.0])
    for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1)):
        inward = -sign * turn[:, axis]
        rotation = np.stack([np.cross(up, inward), up, inward], axis=1)
        middle = centre - inward * (room.half[axis] + _THIN) + up * 0.5 * room.height
        slabs.append((middle, rotation,
                      np.array([room.half[1 - axis], 0.5 * room.height, _THIN])))
    return slabs


def add_scene(spec: mujoco.MjSpec, scene: Scene, assets: bool = True) -> None:
    """
    Add a scene's room, objects and lights to a MuJoCo spec as fixed visual geoms.

    For worlds that show more than the scene (a robot, say); ``assets`` False when the spec has
    had :func:`add_assets` before.  Geoms do not collide; objects are named ``object0`` ...
    """
    if assets:
        add_assets(spec)
    world = spec.worldbody
    for i, (centre, rotation, half) in enumerate(room_slabs(scene)):
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, rotation.ravel())
        pattern = scene.room.wall_texture if i else scene.room.floor_texture
        rgb = scene.room.wall_rgb if i else scene.room.floor_rgb
        world.add_geom(name=f'room{i}', type=mujoco.mjtGeom.mjGEOM_BOX, pos=centre, quat=quat,
                       size=half, rgba=[*rgb, 1], material=f'pattern{pattern}',
                       contype=0, conaffinity=0)
    for i, item in enumerate(scene.objects):
        kind, size, cone = geom_of(item)
        extra = {'meshname': f'cone{cone}'} if cone >= 0 else {}
        world.add_geom(name=f'object{i}', type=kind, size=size, pos=item.position,
                       quat=[np.cos(item.yaw / 2), 0, 0, np.sin(item.yaw / 2)],
                       rgba=[*item.rgb, 1], contype=0, conaffinity=0, **extra)
    for i, box in enumerate(scene.boxes):
        world.add_geom(name=f'box{i}', type=mujoco.mjtGeom.mjGEOM_BOX, size=box.half,
                       pos=box.position, quat=[np.cos(box.yaw / 2), 0, 0, np.sin(box.yaw / 2)],
                       rgba=[*box.rgb, 1], material=f'pattern{box.texture}',
                       contype=0, conaffinity=0)
    lamp = scene.lights
    world.add_light(name='lamp', pos=lamp.position, dir=lamp.direction, diffuse=lamp.lamp,
                    castshadow=False, type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    spec.visual.headlight.ambient = [lamp.ambient] * 3
    spec.visual.headlight.diffuse = [lamp.fill] * 3


class SceneRenderer:
    """
    Renders scenes to RGB pictures; keep one a process and reuse it.

    ``camera`` gives the size and field of view of the pictures.  Use as a context manager or call
    :meth:`close`; RuntimeError from MuJoCo when no OpenGL back end (EGL, OSMesa) is found.
    """

    def __init__(self, camera: CameraIntrinsics = CAMERA) -> None:
        self.camera = camera
        spec = mujoco.MjSpec()
        add_assets(spec)
        world = spec.worldbody
        for i in range(_SLABS):
            world.add_geom(name=f'room{i}', type=mujoco.mjtGeom.mjGEOM_BOX, size=[1, 1, 1],
                           material='pattern0')
        for i in range(MAX_OBJECTS):
            world.add_geom(name=f'object{i}', type=mujoco.mjtGeom.mjGEOM_MESH, meshname='cone0')
        for i in range(MAX_BOXES):
            world.add_geom(name=f'box{i}', type=mujoco.mjtGeom.mjGEOM_BOX, size=[1, 1, 1],
                           material='pattern0')
        # Meshes no geom uses would be dropped by the compiler.
        for i in range(len(_CONES)):
            world.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=f'cone{i}',
                           pos=[0, 0, -50], rgba=[0, 0, 0, 0])
        world.add_light(name='lamp', castshadow=False,
                        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
        fovy = 2 * np.degrees(np.arctan(0.5 * camera.height / camera.focal))
        world.add_camera(name='head', fovy=fovy)
        spec.visual.global_.offwidth = camera.width
        spec.visual.global_.offheight = camera.height
        spec.visual.quality.offsamples = 4
        spec.visual.map.znear = 0.02
        self._model = spec.compile()
        self._model.stat.extent = 4.0
        self._data = mujoco.MjData(self._model)
        mujoco.mj_forward(self._model, self._data)
        # The vertices of a mesh are re-centred on its centre of mass by the compiler.
        self._mesh_offset = [float(self._model.mesh_pos[i, 2]) for i in range(len(_CONES))]
        self._renderer = mujoco.Renderer(self._model, camera.height, camera.width)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()

    def render(self, scene: Scene, pose: CameraPose | None = None) -> np.ndarray:
        """Picture (height, width, 3) uint8 RGB of a scene from ``pose`` (default: its camera)."""
        self._place(scene, pose or scene.camera)
        picture = self._renderer.render().copy()
        picture[self._beyond(scene)] = 0
        return picture

    def depth(self, scene: Scene, pose: CameraPose | None = None) -> np.ndarray:
        """
        Metres along the optical axis, (height, width) float32, of what :meth:`render` shows.

        NaN outside the field of a narrower camera.
        """
        self._place(scene, pose or scene.camera)
        self._renderer.enable_depth_rendering()
        metres = self._renderer.render().copy()
        self._renderer.disable_depth_rendering()
        metres[self._beyond(scene)] = np.nan
        return metres

    def _beyond(self, scene: Scene) -> np.ndarray:
        """Pixels (height, width) that rectification leaves black around a narrower picture."""
        beyond = np.zeros((self.camera.height, self.camera.width), bool)
        if scene.view is not None:
            low, high = (np.round(edge).astype(int) for edge in view_window(self.camera,
                                                                            scene.view))
            beyond[:low[1]] = beyond[high[1]:] = True
            beyond[:, :low[0]] = beyond[:, high[0]:] = True
        return beyond

    def _place(self, scene: Scene, pose: CameraPose) -> None:
        """Put a scene's surfaces, lights and camera into the renderer."""
        model, data = self._model, self._data
        for i, (centre, rotation, half) in enumerate(room_slabs(scene)):
            model.geom_size[i] = half
            model.geom_matid[i] = scene.room.wall_texture if i else scene.room.floor_texture
            model.geom_rgba[i, :3] = scene.room.wall_rgb if i else scene.room.floor_rgb
            data.geom_xpos[i] = centre
            data.geom_xmat[i] = rotation.ravel()
        for i in range(MAX_OBJECTS):
            g = _SLABS + i
            if i >= len(scene.objects):
                model.geom_rgba[g, 3] = 0.0
                continue
            item = scene.objects[i]
            kind, size, cone = geom_of(item)
            model.geom_type[g], model.geom_size[g] = kind, size
            model.geom_rbound[g] = np.linalg.norm(size)
            model.geom_rgba[g] = (*item.rgb, 1.0)
            data.geom_xpos[g] = item.position
            cy, sy = np.cos(item.yaw), np.sin(item.yaw)
            data.geom_xmat[g] = (cy, -sy, 0, sy, cy, 0, 0, 0, 1)
            if cone >= 0:
                model.geom_dataid[g] = cone
                data.geom_xpos[g, 2] += self._mesh_offset[cone]
        self._place_boxes(scene.boxes)
        lamp = scene.lights
        model.light_diffuse[0] = lamp.lamp
        data.light_xpos[0], data.light_xdir[0] = lamp.position, lamp.direction
        model.vis.headlight.ambient[:] = lamp.ambient
        model.vis.headlight.diffuse[:] = lamp.fill
        rotation = camera_rotation(pose)
        data.cam_xpos[0] = (0, 0, pose.height)
        # MuJoCo's camera looks along -Z with Y up.
        data.cam_xmat[0] = (rotation * [1, -1, -1]).ravel()
        self._renderer.update_scene(data, camera='head')
        view = self._renderer.scene
        view.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        view.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        view.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = 0

    def _place_boxes(self, boxes: tuple[Box, ...]) -> None:
        """Furniture into its pool of geoms; the rest of the pool is not drawn."""
        model, data = self._model, self._data
        first = _SLABS + MAX_OBJECTS
        model.geom_rgba[first + len(boxes):first + MAX_BOXES, 3] = 0.0
        for g, box in enumerate(boxes, first):
            model.geom_size[g] = box.half
            model.geom_rbound[g] = np.linalg.norm(box.half)
            model.geom_rgba[g] = (*box.rgb, 1.0)
            model.geom_matid[g] = box.texture
            data.geom_xpos[g] = box.position
            cy, sy = np.cos(box.yaw), np.sin(box.yaw)
            data.geom_xmat[g] = (cy, -sy, 0, sy, cy, 0, 0, 0, 1)
