# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
One more look in the middle of the way: the second plan goes on from the first.

The scene is drawn from where the head of the moving body is, the bundle reasons and generates
again with what is executed meanwhile as known prefix, and the two motions are joined, as
``egomotion_node`` does in continuous mode.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from egomotion_ros.body.edits import ground_pose, slice_frames
from egomotion_ros.body.features import heading
from egomotion_ros.body.kinematics import global_pose
from egomotion_ros.body.rotations import wrap_angle, yaw_matrix
from egomotion_ros.body.skeleton import JOINT_INDEX
from egomotion_ros.data.render import SceneRenderer
from egomotion_ros.data.scenes import Scene
from egomotion_ros.evaluation.scenes import Question, in_human_metres, observe
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.types import CameraPose, HumanMotion, PlanarPose

#: Seconds of the running motion that are executed while the second plan is made.
LATENCY = 0.6
#: What a radian of turning counts, in metres of way, in what "the middle" means.
LEVER = 0.5
_HEAD = JOINT_INDEX['head']


def middle_of_approach(motion: HumanMotion) -> int:
    """Frame at which half of the way is behind the pelvis, turns counted at LEVER m/rad."""
    way = np.linalg.norm(np.diff(motion.root_position[:, :2], axis=0), axis=1)
    turns = np.abs(wrap_angle(np.diff(np.asarray(heading(motion.rotations[:, 0])))))
    done = np.cumsum(way + LEVER * turns)
    return int(np.searchsorted(done, 0.5 * done[-1])) + 1


def head_camera(start: CameraPose, motion: HumanMotion, frame: int) -> CameraPose:
    """
    Camera of a head that saw ``start`` at frame 0, at another frame.

    Height and pitch change by what the head joint rises and nods, yaw (against the pelvis
    heading) by what it turns.
    """
    rows = [0, frame]
    places, rotations = global_pose(motion.root_position[rows], motion.rotations[rows],
                                    motion.scale)
    forward = np.asarray(rotations)[:, _HEAD, :, 2]
    pitch = -np.arcsin(np.clip(forward[:, 2], -1, 1))
    yaw = np.arctan2(forward[:, 1], forward[:, 0]) - np.asarray(heading(motion.rotations[rows, 0]))
    turned = float(wrap_angle(np.asarray(yaw[1] - yaw[0])))
    return CameraPose(start.height + float(places[1, _HEAD, 2] - places[0, _HEAD, 2]),
                      start.pitch + float(pitch[1] - pitch[0]), start.yaw + turned)


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


def answer_twice(pipeline: EgoMotionPipeline, question: Question, seed: int,
                 renderer: SceneRenderer) -> HumanMotion:
    """
    Motion for a question with one more look in the middle of the way.

    In human metres in the start frame, as ``answer``; longer by what was executed before.
    """
    observation = observe(pipeline, question)
    first = pipeline.generate(pipeline.reason(observation, f'evaluation-{seed}', seed))
    human = in_human_metres(first)
    windows = max(round(LATENCY * first.fps) // pipeline.bundle.window, 1)
    length = windows * pipeline.bundle.window
    look = min(middle_of_approach(human), first.frames - length)
    pose = ground_pose(human, look)
    camera = head_camera(question.camera, human, look)
    image = renderer.render(seen_from(question.scene, pose, camera))
    again = replace(observation, image=image, stamp=round(1e9 * look / first.fps),
                    root=ground_pose(first, look),
                    camera=replace(camera, height=camera.height * pipeline.scale))
    primitives = pipeline.reason(again, f'evaluation-{seed}-again', seed)
    second = pipeline.generate(primitives, slice_frames(first, look, look + length))
    return in_human_metres(join_motions(slice_frames(first, 0, look + length),
                                        slice_frames(second, length, second.frames)))


def join_motions(head: HumanMotion, tail: HumanMotion) -> HumanMotion:
    """Return one motion after the other; ValueError when rate or scale differ."""
    if head.fps != tail.fps or head.scale != tail.scale:
        raise ValueError(f'motions of {head.fps:g} and {tail.fps:g} fps, scales {head.scale:.3f} '
                         f'and {tail.scale:.3f} cannot be joined')
    joined = {name: np.concatenate([getattr(head, name), getattr(tail, name)])
              for name in ('root_position', 'rotations', 'contacts')}
    return replace(head, **joined)
