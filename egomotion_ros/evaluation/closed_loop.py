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
from egomotion_ros.data.looks import head_camera, middle_of_approach, seen_from
from egomotion_ros.data.render import SceneRenderer
from egomotion_ros.evaluation.scenes import Question, in_human_metres, observe
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.types import HumanMotion

#: Seconds of the running motion that are executed while the second plan is made.
LATENCY = 0.6


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
