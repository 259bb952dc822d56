# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A film of an evaluation: a goal that was reached above one that was missed, pair by pair."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from egomotion_ros.body.edits import ground_pose
from egomotion_ros.data.looks import head_camera, seen_from
from egomotion_ros.data.render import SceneRenderer
from egomotion_ros.data.scenes import CAMERA
from egomotion_ros.demo.film import viewpoint
from egomotion_ros.demo.record import Attempt, Visit
from egomotion_ros.evaluation.goals import GoalScore
from egomotion_ros.evaluation.scenes import Question, scored
from egomotion_ros.retarget.joining import still
from egomotion_ros.retarget.retargeter import Retargeter
from egomotion_ros.simulation.world import View, World
from egomotion_ros.types import CameraIntrinsics, HumanMotion

#: Sides of the first-person picture and of the third-person one, height of the caption (px).
FIRST, THIRD, BAR = 384, (512, 384), 40
FRAME_RATE = 15
_PAPER, _INK = (24, 26, 30), (235, 235, 235)
_COLOURS = {True: (90, 200, 110), False: (235, 100, 90)}


def choose_pairs(scores: list[GoalScore], count: int, seed: int = 0
                 ) -> list[tuple[int | None, int | None]]:
    """
    Draw up to ``count`` pairs (reached, missed) of questions, chosen by ``seed`` alone.

    None stands where there are no more of a kind.
    """
    if count < 1:
        raise ValueError(f'count must be at least 1, got {count}')
    order = np.random.default_rng(seed).permutation(len(scores))
    kinds = [[int(n) for n in order if scores[n].reached is kind][:count]
             for kind in (True, False)]
    size = max(map(len, kinds))
    rows = [[*kind, *[None] * (size - len(kind))] for kind in kinds]
    return list(zip(*rows, strict=True))


class Clip:
    """One question and its motion, drawn from the head and from outside."""

    def __init__(self, question: Question, motion: HumanMotion, score: GoalScore,
                 retargeter: Retargeter) -> None:
        self._question, self._motion = question, motion
        robot, scale = retargeter.description, retargeter.description.scale
        body = retargeter.retarget(replace(motion, scale=scale,
                                           root_position=motion.root_position * scale))
        stamps = np.round(1e9 * body.step_dt * np.arange(body.steps)).astype(int)
        states = list(zip(map(int, stamps), body.positions, body.root_position,
                          body.root_quaternion, strict=True))
        goal = question.goal * [scale, scale, 1.0]
        self._visit = Visit(question.scene.seed, states=states, attempts=[
            Attempt(question.instruction, 0, int(stamps[-1]), goal=goal)])
        self._world = World(robot, question.scene, CameraIntrinsics(64, 64, 1.4))
        self._view = View(self._world, *THIRD)
        self._eye, self._target = viewpoint(self._visit, scale, question.scene)
        verdict = 'reached' if score.reached else 'missed'
        self._caption = (f'"{question.instruction}"', f'{verdict}: {score.distance:.2f} m, '
                         f'{np.degrees(score.angle):.0f} deg', _COLOURS[score.reached])

    @property
    def seconds(self) -> float:
        """Length of the motion (s)."""
        return (self._motion.frames - 1) / self._motion.fps

    def draw(self, time: float, renderer: SceneRenderer) -> Image.Image:
        """Both views at ``time`` s, held where the motion has ended."""
        time = min(time, self.seconds)
        frame = round(time * self._motion.fps)
        camera = head_camera(self._question.camera, self._motion, frame)
        head = renderer.render(seen_from(self._question.scene,
                                         ground_pose(self._motion, frame), camera))
        picture = Image.new('RGB', (FIRST + THIRD[0], FIRST + BAR), _PAPER)
        picture.paste(Image.fromarray(head), (0, BAR))
        body = self._world.configuration(still(*self._visit.at(round(1e9 * time))))
        outside = self._view.third_person(body, self._eye, self._target)
        picture.paste(Image.fromarray(outside), (FIRST, BAR))
        draw, font = ImageDraw.Draw(picture), ImageFont.load_default(20)
        said, verdict, colour = self._caption
        draw.text((10, 8), said, _INK, font=font)
        draw.text((picture.width - 10 - draw.textlength(verdict, font=font), 8), verdict, colour,
                  font=font)
        return picture

    def close(self) -> None:
        """Free the OpenGL context."""
        self._view.close()


def write_film(path: Path, questions: list[Question], motions: list[HumanMotion],
               retargeter: Retargeter, pairs: int = 4, seed: int = 0) -> None:
    """
    Write an MP4 (H.264): what the head sees beside the robot, a hit above a miss.

    ``motions`` at scale 1 in the start frame; the robot follows its retargeted motion exactly
    (kinematic).  The ``pairs`` are drawn by ``seed``, not by hand.
    """
    scores = scored(questions, motions)
    size = (FIRST + THIRD[0], 2 * (FIRST + BAR))
    chosen = choose_pairs(scores, pairs, seed)
    eye = CameraIntrinsics(FIRST, FIRST, CAMERA.hfov)
    with av.open(str(path), 'w', format='mp4') as container, SceneRenderer(eye) as renderer:
        stream = container.add_stream('libx264', rate=FRAME_RATE,
                                      options={'crf': '23', 'preset': 'superfast'})
        stream.width, stream.height, stream.pix_fmt = *size, 'yuv420p'
        stream.time_base = Fraction(1, FRAME_RATE)
        for pair in tqdm(chosen, desc='film', unit='pair'):
            clips = [None if n is None else
                      Clip(questions[n], motions[n], scores[n], retargeter) for n in pair]
            try:
                longest = max(clip.seconds for clip in clips if clip is not None)
                for k in range(int(longest * FRAME_RATE) + 1):
                    picture = Image.new('RGB', size, _PAPER)
                    for row, clip in enumerate(clips):
                        if clip is not None:
                            picture.paste(clip.draw(k / FRAME_RATE, renderer),
                                          (0, row * (FIRST + BAR)))
                    frame = av.VideoFrame.from_ndarray(np.asarray(picture), format='rgb24')
                    container.mux(stream.encode(frame))
            finally:
                for clip in clips:
                    if clip is not None:
                        clip.close()
        container.mux(stream.encode(None))
