# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A MuJoCo model of one room with one humanoid in it, and pictures of it.

Nothing is simulated in the sense of physics: the model is posed (forward kinematics) and drawn.
The room is a scene of :mod:`egomotion_ros.data.scenes`, made smaller or larger by the robot's
size relative to a person, so that the robot's steps suit it and its pictures look like those the
default bundle was trained on.
"""

from __future__ import annotations

import os
import sys

import numpy as np

if sys.platform.startswith('linux') and not os.environ.get('DISPLAY'):
    os.environ.setdefault('MUJOCO_GL', 'egl')

import mujoco

from egomotion_ros.data.render import add_scene
from egomotion_ros.data.scenes import Scene
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.joining import MotionState, still
from egomotion_ros.types import CameraIntrinsics

#: Geom groups: the scene's objects and floor, the robot, the walls.
ROOM, ROBOT, WALLS, HIDDEN = 0, 2, 4, 5
#: Robot meshes of more triangles are drawn with vertices merged on a grid of this spacing (m).
FINE_MESH, GRID = 1000, 0.008


class World:
    """
    The compiled model of a scene and a robot; ``scene`` None is an empty floor.

    ``camera`` says what the head camera's picture is like.  The robot starts at the origin of
    ``odom``, which is the scene's start frame.
    """

    def __init__(self, robot: RobotDescription, scene: Scene | None,
                 camera: CameraIntrinsics) -> None:
        self.robot, self.scene, self.camera = robot, scene, camera
        spec, room = _robot(robot, camera), _room(scene, robot.scale)
        spec.visual.headlight.ambient = room.visual.headlight.ambient
        spec.visual.headlight.diffuse = room.visual.headlight.diffuse
        # Behind walls that are hidden for the third person.
        spec.add_texture(name='sky', type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=64, height=384,
                         builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, rgb1=[0.50, 0.54, 0.60],
                         rgb2=[0.22, 0.24, 0.28])
        # The robot keeps its names, under which its description knows it.
        spec.attach(room, prefix='room/', frame=spec.worldbody.add_frame())
        spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 1280
        spec.visual.quality.offsamples = 4
        spec.visual.map.znear = 0.01
        self.model = spec.compile()
        self.model.stat.extent = 4.0
        simplify_meshes(self.model)
        self._walls = [i for i in range(self.model.ngeom) if self.model.geom_group[i] == WALLS]
        self._joints = robot.qpos_indices(self.model)
        free = self.model.body(robot.base_link).jntadr[0]
        self._base = int(self.model.jnt_qposadr[free])
        self._data = mujoco.MjData(self.model)

    def home(self) -> MotionState:
        """Return the robot standing at the origin, facing X."""
        return still(self.robot.standing, (0.0, 0.0, self.robot.home_height))

    def configuration(self, state: MotionState) -> np.ndarray:
        """Return MuJoCo's ``qpos`` for a state of the robot."""
        qpos = self.model.qpos0.copy()
        qpos[self._joints] = state.positions
        qpos[self._base:self._base + 3] = state.root_position
        x, y, z, w = state.root_quaternion
        qpos[self._base + 3:self._base + 7] = (w, x, y, z)
        return qpos

    def open_towards(self, eye: np.ndarray) -> None:
        """Hide walls and ceiling that ``eye`` (3,) m sees from outside, show the others."""
        middle = self.model.geom_pos[self._walls].mean(axis=0) if self._walls else None
        for wall in self._walls:
            rotation = np.zeros(9)
            mujoco.mju_quat2Mat(rotation, self.model.geom_quat[wall])
            place, normal = self.model.geom_pos[wall], rotation[2::3]
            # Seen from within: eye and room are on the same side of the slab.
            inside = ((np.asarray(eye) - place) @ normal) * ((middle - place) @ normal) > 0.0
            self.model.geom_group[wall] = WALLS if inside else HIDDEN

    def head(self, state: MotionState) -> tuple[np.ndarray, np.ndarray]:
        """Place (3,) m and rotation (3, 3) of the head camera's optical frame in ``odom``."""
        self._data.qpos[:] = self.configuration(state)
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_camlight(self.model, self._data)
        place = self._data.camera('head')
        return place.xpos.copy(), place.xmat.reshape(3, 3) * (1.0, -1.0, -1.0)


class View:
    """
    Draws a world; keep it in the thread that made it, where its OpenGL context lives.

    RuntimeError or AttributeError from MuJoCo where there is no EGL or OSMesa.
    """

    def __init__(self, world: World, width: int, height: int) -> None:
        self._world = world
        self._data = mujoco.MjData(world.model)
        self._renderer = mujoco.Renderer(world.model, height, width)
        self._option = mujoco.MjvOption()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()

    def first_person(self, qpos: np.ndarray) -> np.ndarray:
        """
        Return what the head camera sees, (height, width, 3) uint8 RGB.

        Drawn as the scenes the default bundle is trained on: without shadows, and without the
        robot's own body.
        """
        self._pose(qpos, 'head', (ROOM, WALLS))
        return self._renderer.render().copy()

    def third_person(self, qpos: np.ndarray, eye: np.ndarray, target: np.ndarray) -> np.ndarray:
        """
        Return the robot in its room, seen from ``eye`` (3,) towards ``target`` (3,).

        Lit a little better than the room is; for a world of its own, not one whose head camera
        is in use.
        """
        self._world.open_towards(eye)
        away = np.asarray(target) - np.asarray(eye)
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.lookat[:] = target
        camera.distance = float(np.linalg.norm(away))
        camera.azimuth = float(np.degrees(np.arctan2(away[1], away[0])))
        camera.elevation = float(np.degrees(np.arctan2(away[2], np.hypot(away[0], away[1]))))
        light = self._world.model.vis.headlight
        light.ambient[:] = np.maximum(light.ambient, 0.4)
        light.diffuse[:] = np.maximum(light.diffuse, 0.3)
        self._pose(qpos, camera, (ROOM, ROBOT, WALLS), sky=True)
        self._add_shadows()
        return self._renderer.render().copy()

    def _pose(self, qpos: np.ndarray, camera: str | mujoco.MjvCamera,
              groups: tuple[int, ...], sky: bool = False) -> None:
        """Fill the renderer's scene."""
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._world.model, self._data)
        mujoco.mj_camlight(self._world.model, self._data)
        self._option.geomgroup[:] = [group in groups for group in range(6)]
        self._renderer.update_scene(self._data, camera, self._option)
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = sky

    def _add_shadows(self) -> None:
        """Put soft dark discs under robot and objects: a shadow map costs five times as much."""
        scene, scale = self._world.scene, self._world.robot.scale
        discs = [(self._data.body(foot.body).xpos, 0.13, 0.12) for foot in self._world.robot.feet]
        discs.append((self._data.body(self._world.robot.base_link).xpos, 0.28, 0.05))
        discs += [(scale * np.array(item.position), 1.2 * scale * item.radius, 0.12)
                  for item in (scene.objects if scene is not None else ())]
        view = self._renderer.scene
        for layer, size in enumerate((1.0, 0.88, 0.76)):
            for (x, y, _), radius, darkness in discs:
                if view.ngeom >= view.maxgeom:
                    return
                mujoco.mjv_initGeom(
                    view.geoms[view.ngeom], mujoco.mjtGeom.mjGEOM_CYLINDER,
                    np.array([size * radius, 0.0005, 0.0]),
                    np.array([x, y, 0.003 + 0.001 * layer]), np.eye(3).ravel(),
                    np.array([0.0, 0.0, 0.0, darkness], np.float32))
                view.ngeom += 1


def _room(scene: Scene | None, scale: float) -> mujoco.MjSpec:
    """The scene as a spec, ``scale`` times as large."""
    spec = mujoco.MjSpec()
    if scene is None:
        spec.add_texture(name='floor', type=mujoco.mjtTexture.mjTEXTURE_2D, width=256, height=256,
                         builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER, rgb1=[0.62, 0.64, 0.66],
                         rgb2=[0.55, 0.57, 0.59])
        material = spec.add_material(name='floor', texrepeat=[1, 1], texuniform=True)
        textures = list(material.textures)
        textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = 'floor'
        material.textures = textures
        spec.worldbody.add_geom(name='room0', type=mujoco.mjtGeom.mjGEOM_PLANE,
                                size=[6, 6, 1], material='floor')
        spec.worldbody.add_light(name='lamp', pos=[1, 1, 4], dir=[-0.2, -0.2, -1],
                                 diffuse=[0.6, 0.6, 0.6],
                                 type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
        return spec
    add_scene(spec, scene)
    for mesh in spec.meshes:
        mesh.scale = [scale] * 3
    for material in spec.materials:
        material.texrepeat = [repeat / scale for repeat in material.texrepeat]
    for light in spec.lights:
        light.pos = [scale * value for value in light.pos]
    for geom in spec.geoms:
        geom.pos = [scale * value for value in geom.pos]
        geom.size = [scale * value for value in geom.size]
        wall = geom.name.startswith('room') and geom.name != 'room0'
        geom.group = WALLS if wall else ROOM
    return spec


def _robot(robot: RobotDescription, camera: CameraIntrinsics) -> mujoco.MjSpec:
    """The robot as a spec with its head camera; collision shapes are not drawn."""
    spec = robot.spec()
    spec.compiler.discardvisual = False  # a URDF's default would drop the whole room
    for extra in (*spec.lights, *spec.cameras, *spec.sensors, *spec.actuators):
        spec.delete(extra)
    visual = [geom for geom in spec.geoms if geom.contype == 0 and geom.conaffinity == 0]
    for geom in spec.geoms:
        geom.group = ROBOT if geom in visual or not visual else HIDDEN
    # The mount has X along the optical axis and Z up; MuJoCo's camera looks along -Z, Y up.
    turn, mount = np.zeros(4), np.zeros(4)
    mujoco.mju_euler2Quat(mount, robot.camera.rpy, 'XYZ')
    mujoco.mju_mat2Quat(turn, np.array([0.0, 0, -1, -1, 0, 0, 0, 1, 0]))
    quat = np.zeros(4)
    mujoco.mju_mulQuat(quat, mount, turn)
    spec.body(robot.camera.body).add_camera(
        name='head', pos=robot.camera.position, quat=quat,
        fovy=float(np.degrees(2 * np.arctan(0.5 * camera.height / camera.focal))))
    return spec


def simplify_meshes(model: mujoco.MjModel) -> None:
    """
    Let meshes of many triangles be drawn with fewer: vertices merge on a grid (in place).

    A humanoid's CAD meshes have hundreds of thousands of triangles, which a software renderer
    draws at a few pictures a second; call before the first renderer is made.
    """
    for mesh in range(model.nmesh):
        first, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        if count <= FINE_MESH:
            continue
        start = model.mesh_vertadr[mesh]
        vertices = model.mesh_vert[start:start + model.mesh_vertnum[mesh]]
        _, keeper, cell = np.unique(np.round(vertices / GRID).astype(int), axis=0,
                                    return_index=True, return_inverse=True)
        faces = keeper[cell.ravel()[model.mesh_face[first:first + count]]]
        solid = ((faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2])
                 & (faces[:, 2] != faces[:, 0]))
        kept = int(solid.sum())
        model.mesh_face[first:first + kept] = faces[solid]
        normals = model.mesh_facenormal[first:first + count][solid]
        model.mesh_facenormal[first:first + kept] = normals
        model.mesh_facenum[mesh] = kept
