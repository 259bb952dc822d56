# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
More looks than one: a plan goes on from the one before, as ``egomotion_node`` plans again.

The scene is drawn from where the head of the moving body is, the bundle reasons and generates
again with what is executed meanwhile as known prefix, and the two motions are joined: one more
look in the middle of the way, or one every few seconds, as in continuous mode.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from egomotion_ros.body.edits import ground_pose, slice_frames
from egomotion_ros.body.rotations import wrap_angle
from egomotion_ros.data.looks import head_camera, middle_of_approach, seen_from
from egomotion_ros.data.render import SceneRenderer
from egomotion_ros.data.scenes_view import AWAY
from egomotion_ros.evaluation.questions import Question, goal_of
from egomotion_ros.evaluation.scenes import in_human_metres, observe
from egomotion_ros.pipeline import CameraPoseError, EgoMotionPipeline
from egomotion_ros.pursuit import Pursuit
from egomotion_ros.types import HumanMotion, PlanarPose, Target

#: Seconds of the running motion that are executed while the second plan is made.
LATENCY = 0.6
#: Seconds between looks: ``replan_period`` of the node.
PERIOD = 2.0


def answer_twice(pipeline: EgoMotionPipeline, question: Question, seed: int,
                 renderer: SceneRenderer) -> HumanMotion:
    """
    Motion for a question with one more look in the middle of the way.

    In human metres in the start frame, as ``answer``; longer by what was executed before.  A plan
    that leads elsewhere than the first is not followed, as in the node.
    """
    walk = _Walk(pipeline, question, seed, renderer, Pursuit(pipeline.scale))
    middle = middle_of_approach(in_human_metres(walk.motion))
    walk.look(min(middle, walk.motion.frames - walk.meanwhile))
    return in_human_metres(walk.motion)


def keep_looking(pipeline: EgoMotionPipeline, question: Question, seed: int,
                 renderer: SceneRenderer, looks: int, period: float = PERIOD,
                 pursuit: Pursuit | None = None) -> HumanMotion:
    """
    Motion for a question with ``looks`` looks, one every ``period`` seconds.

    In human metres in the start frame, to the end of the last plan that was followed.  Plans that
    ``pursuit`` does not follow change nothing; without one all are followed.
    """
    walk = _Walk(pipeline, question, seed, renderer, pursuit)
    for n in range(1, looks):
        walk.look(round(n * period * walk.motion.fps))
    return in_human_metres(walk.motion)


class _Walk:
    """A body that goes on looking; ``motion`` so far and to the end of its plan, robot's scale."""

    def __init__(self, pipeline: EgoMotionPipeline, question: Question, seed: int,
                 renderer: SceneRenderer, pursuit: Pursuit | None) -> None:
        self._pipeline, self._question, self._seed = pipeline, question, seed
        self._renderer, self._pursuit = renderer, pursuit
        self._ended = False
        window = pipeline.bundle.window
        #: Frames that are executed while a plan is made: whole windows.
        self.meanwhile = max(round(LATENCY * pipeline.bundle.fps) // window, 1) * window
        primitives = pipeline.reason(observe(pipeline, question), f'look-{seed}', seed)
        self.motion = pipeline.generate(primitives)
        if pursuit is not None:
            pursuit.follows(PlanarPose(), ground_pose(self.motion, -1), at_rest=True,
                            target=primitives.target)
            pursuit.commit()

    def look(self, frame: int) -> None:
        """Look at a frame, which may be after the motion's last, and go on as that says."""
        if self._ended:
            return
        motion, over = self.motion, frame + 1 >= self.motion.frames
        known, here = None, ground_pose(motion, min(frame, motion.frames - 1))
        if not over:
            lasting = join_motions(motion, _still(motion, self.meanwhile))
            known = slice_frames(lasting, frame, frame + self.meanwhile)
        try:
            plan, target = self._plan(min(frame, motion.frames - 1), known)
        except CameraPoseError:  # the node refuses such a look, stops and ends the instruction
            self.motion, self._ended = slice_frames(
                motion, 0, min(frame + 1, motion.frames)), True
            return
        if self._pursuit is not None:
            begins = None if over else ground_pose(plan, self.meanwhile - 1)
            if not self._pursuit.follows(here, ground_pose(plan, -1), over, begins, target):
                return
            self._pursuit.commit()
        if over:
            before = join_motions(motion, _still(motion, frame - motion.frames + 1))
            self.motion = join_motions(before, plan)
        else:
            self.motion = join_motions(
                slice_frames(lasting, 0, frame + self.meanwhile),
                slice_frames(plan, self.meanwhile, plan.frames))

    def _plan(self, frame: int, known: HumanMotion | None) -> tuple[HumanMotion, Target]:
        """What a look at a frame leads to, and whether the instruction names a thing."""
        pipeline, question, motion = self._pipeline, self._question, self.motion
        human = in_human_metres(motion)
        camera = head_camera(question.camera, human, frame)
        image = self._renderer.render(
            seen_from(question.scene, ground_pose(human, frame), camera))
        seen = replace(observe(pipeline, question), image=image,
                       stamp=round(1e9 * frame / motion.fps), root=ground_pose(motion, frame),
                       camera=replace(camera, height=camera.height * pipeline.scale))
        name = f'look-{self._seed}-{frame}'
        primitives = pipeline.reason(seen, name, self._seed)
        return pipeline.generate(primitives, known), primitives.target


def _still(motion: HumanMotion, frames: int) -> HumanMotion:
    """The last frame of a motion, held for ``frames``."""
    last = slice_frames(motion, motion.frames - 1, motion.frames)
    return replace(last, **{name: np.repeat(getattr(last, name), frames, axis=0)
                            for name in ('root_position', 'rotations', 'contacts')})


def turned_away(question: Question, renderer: SceneRenderer) -> Question:
    """
    The same scene and the same thing asked for, entered with the back or a side to it.

    The body is turned where it stands so that the target is at least AWAY off the camera's axis.
    """
    rng = np.random.default_rng([question.scene.seed, 23])
    camera = question.scene.camera
    bearing = question.scene.objects[question.target].bearing
    seen_at = rng.choice((-1.0, 1.0)) * rng.uniform(AWAY, np.pi)
    turn = float(wrap_angle(np.asarray(bearing - camera.yaw - seen_at)))
    scene = seen_from(question.scene, PlanarPose(0.0, 0.0, turn), camera)
    table = scene.table()
    return replace(question, scene=scene, image=renderer.render(scene), objects=table,
                   goal=goal_of(question.action, scene, table, question.target))


def join_motions(head: HumanMotion, tail: HumanMotion) -> HumanMotion:
    """Return one motion after the other; ValueError when rate or scale differ."""
    if head.fps != tail.fps or head.scale != tail.scale:
        raise ValueError(f'motions of {head.fps:g} and {tail.fps:g} fps, scales {head.scale:.3f} '
                         f'and {tail.scale:.3f} cannot be joined')
    joined = {name: np.concatenate([getattr(head, name), getattr(tail, name)])
              for name in ('root_position', 'rotations', 'contacts')}
    return replace(head, **joined)
