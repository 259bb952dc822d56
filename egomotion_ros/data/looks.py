# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What a person sees on the way: a scene from where a motion has got to.

Episodes of it are for re-planning.  The target is nearer than any scene starts with, often at the
lower edge of the picture or below it, and the body is under way: the motion that goes on is the
rest of the one that led there (:func:`egomotion_ros.data.episodes_bank.with_moving_starts`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from egomotion_ros.body.edits import ground_pose
from egomotion_ros.body.features import features_to_motion, heading
from egomotion_ros.body.kinematics import global_pose
from egomotion_ros.body.rotations import wrap_angle, yaw_matrix
from egomotion_ros.body.skeleton import JOINT_INDEX
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.data.scenes import OBJECT_COLUMNS, Scene
from egomotion_ros.types import CameraPose, HumanMotion, PlanarPose

#: Share of the scenes of a set that are seen on the way, where the bank has motions for it.
SHARE = 0.25
#: What a radian of turning counts, in metres of way, in what "the middle" means.
LEVER = 0.5
#: Standard deviation (frames) of the smoothing that takes the sway of standing out of a way.
SWAY = 5.0
_HEAD = JOINT_INDEX['head']
_COLUMN = {name: k for k, name in enumerate(OBJECT_COLUMNS)}


@dataclass(frozen=True)
class Look:
    """A scene as it is seen on the way to ``target``; ``motion`` of the bank goes on there."""

    scene: Scene
    target: int
    motion: int


def look_on_the_way(scene: Scene, bank: MotionBank) -> Look | None:
    """
    One look on the way in a scene, None for the scenes that are seen from the start.

    The same scene and bank always give the same.
    """
    if not (bank.cut[:, 0] >= 0).any():
        return None
    rng = np.random.default_rng([scene.seed, 10])
    if rng.random() >= SHARE:
        return None
    table = scene.table()
    walks, reaches = bank.of('walk_to'), bank.of('reach')
    options = []
    for n, item in enumerate(scene.objects):
        source = -1
        if item.side and item.reach >= 0:
            source = reaches[item.reach]
        elif item.stop >= 0 and table[n, _COLUMN['clear']]:
            source = walks[item.stop]
        if source >= 0 and table[n, _COLUMN['visible']]:
            options += [(n, int(cut)) for cut in np.flatnonzero(bank.cut[:, 0] == source)]
    if not options:
        return None
    target, motion = options[int(rng.integers(len(options)))]
    source, frame = bank.cut[motion]
    way = features_to_motion(bank.features[source][:frame + 1])
    camera = head_camera(scene.camera, way, frame)
    return Look(seen_from(scene, ground_pose(way, frame), camera), target, motion)


def middle_of_approach(motion: HumanMotion) -> int:
    """
    Frame at which half of the way is behind the pelvis, turns counted at LEVER m/rad.

    The way is smoothed: a body that stands sways, and gets nowhere by it.
    """
    yaw = np.unwrap(np.asarray(heading(motion.rotations[:, 0])))
    path = gaussian_filter1d(np.column_stack([motion.root_position[:, :2], yaw]), SWAY, axis=0)
    way = np.linalg.norm(np.diff(path[:, :2], axis=0), axis=1)
    turns = np.abs(np.diff(path[:, 2]))
    done = np.cumsum(way + LEVER * turns)
    return int(np.searchsorted(done, 0.5 * done[-1])) + 1


def head_camera(start: CameraPose, motion: HumanMotion, frame: int) -> CameraPose:
    """
    Camera of a head that saw ``start`` at frame 0, at another frame.

    Height and pitch change by what the head joint rises and nods, yaw (against the pelvis
    heading) by what it turns.
    """
    before, now = head_pose(motion, 0), head_pose(motion, frame)
    return CameraPose(start.height + now.height - before.height,
                      start.pitch + now.pitch - before.pitch,
                      start.yaw + float(wrap_angle(np.asarray(now.yaw - before.yaw))))


def head_pose(motion: HumanMotion, frame: int) -> CameraPose:
    """Height of the head joint, how far it looks down, and its yaw against the pelvis heading."""
    rows = [frame]
    places, rotations = global_pose(motion.root_position[rows], motion.rotations[rows],
                                    motion.scale)
    forward = np.asarray(rotations)[0, _HEAD, :, 2]
    yaw = np.arctan2(forward[1], forward[0]) - np.asarray(heading(motion.rotations[rows, 0]))[0]
    return CameraPose(float(places[0, _HEAD, 2]), -float(np.arcsin(np.clip(forward[2], -1, 1))),
                      float(yaw))


def seen_from(scene: Scene, pose: PlanarPose, camera: CameraPose) -> Scene:
    """Return the scene as it stands in the start frame of a body at ``pose`` of this one's."""
    turn = yaw_matrix(np.asarray(-pose.yaw))
    origin = np.array([pose.x, pose.y, 0.0])

    def moved(point: tuple[float, ...]) -> tuple[float, ...]:
        flat = len(point) == 2
        full = np.array([*point, 0.0] if flat else point)
        return tuple(map(float, ((full - origin) @ turn.T)[:len(point)]))

    objects = tuple(replace(item, position=moved(item.position), yaw=item.yaw - pose.yaw)
                    for item in scene.objects)
    boxes = tuple(replace(box, position=moved(box.position), yaw=box.yaw - pose.yaw)
                  for box in scene.boxes)
    room = replace(scene.room, center=moved(scene.room.center), yaw=scene.room.yaw - pose.yaw)
    lights = replace(scene.lights, position=moved(scene.lights.position),
                     direction=tuple(map(float, turn @ np.array(scene.lights.direction))))
    return replace(scene, objects=objects, boxes=boxes, room=room, lights=lights,
                   camera=camera)
