# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's pictures: a film of both views side by side, and a contact sheet."""

from __future__ import annotations

from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from egomotion_ros.data.scenes import Scene
from egomotion_ros.demo.record import Attempt, Visit
from egomotion_ros.demo.scores import Score, tokens, verdict
from egomotion_ros.demo.script import room
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.joining import still
from egomotion_ros.simulation.world import View, World
from egomotion_ros.types import CameraIntrinsics

#: Sides of the first-person picture and of the third-person one, height of the caption (px).
FIRST, THIRD, BAR = 480, (640, 480), 88
FRAME_RATE = 15
#: Of the third person, vertically (degrees): MuJoCo's free camera.
FIELD_OF_VIEW = 45.0
#: Size of one picture of the contact sheet, and its columns (px).
TILE = (288, 216)
COLUMNS = 5
_KINEMATIC = 'third person (kinematic: the robot follows the plan exactly)'
_INK, _PAPER, _SOFT, _ACCENT = (240, 240, 240), (24, 26, 30), (150, 156, 166), (255, 200, 80)


class Theatre:
    """
    Draws recorded visits in third person, from a place that sees the whole way.

    One OpenGL context a visit; use :meth:`close` when done with it.
    """

    def __init__(self, visit: Visit, robot: RobotDescription) -> None:
        scene = room(visit.seed)
        self._world = World(robot, scene, CameraIntrinsics(64, 64, 1.4))
        self._view = View(self._world, *THIRD)
        self._visit = visit
        self._eye, self._target = viewpoint(visit, robot.scale, scene)

    def draw(self, stamp: int) -> np.ndarray:
        """Return the robot at ``stamp`` (ns), (480, 640, 3) uint8 RGB."""
        state = still(*self._visit.at(stamp))
        return self._view.third_person(self._world.configuration(state), self._eye, self._target)

    def close(self) -> None:
        """Free the OpenGL context."""
        self._view.close()


def viewpoint(visit: Visit, scale: float, scene: Scene | None) -> tuple[np.ndarray, np.ndarray]:
    """
    Where the third-person camera stands and what it looks at, (3,) each, in ``odom``.

    Behind the robot's start and to its left, so that the robot is near and what it goes to is
    ahead of it; as near as shows the whole way, and what is faced at its end, in the picture.
    """
    path = np.array([state[2][:2] for state in visit.states])
    start = path[0]
    points = [start, path[-1], path.min(axis=0), path.max(axis=0)]
    for x, y, yaw in (attempt.goal for attempt in visit.attempts if attempt.goal is not None):
        points.append(np.array([x + 0.8 * np.cos(yaw), y + 0.8 * np.sin(yaw)]))
    points += [scale * np.array(attempt.item.position[:2])
               for attempt in visit.attempts if attempt.item is not None]
    if len(points) == 4 and scene is not None:
        points += [scale * np.array(item.position[:2]) for item in scene.objects]
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    ahead = np.mean(points, axis=0) - start
    ahead = ahead / np.hypot(*ahead) if np.hypot(*ahead) > 0.1 else np.array([1.0, 0.0])
    target = np.array([*(0.5 * (low + high)), 0.5 * scale])
    # Behind, to the left, above: the direction from what is looked at to the camera.
    away = np.array([*(-0.8 * ahead + 0.75 * np.array([-ahead[1], ahead[0]])), 0.45])
    away /= np.linalg.norm(away)
    right = np.cross(-away, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, -away)
    corners = np.array([[*point, z] for point in points for z in (0.0, 1.75 * scale)]) - target
    half = 0.85 * np.tan(np.radians(0.5 * FIELD_OF_VIEW))
    # A corner is in view when its offset is at most ``half`` times its depth.
    depth = corners @ -away
    sides = np.maximum(np.abs(corners @ up), np.abs(corners @ right) * THIRD[1] / THIRD[0])
    return target + max(1.8, float((sides / half - depth).max())) * away, target


def write_pictures(out: Path, visits: list[Visit], scores: list[Score],
                   robot: RobotDescription) -> None:
    """
    Write ``demo.mp4`` and ``contact_sheet.png`` into ``out``.

    The film (H.264) shows first person, third person and the instruction; the sheet has a row an
    instruction: the view it was given in, and four moments of what followed.
    """
    count = sum(len(_stamps(visit)) for visit in visits)
    remaining, rows = iter(scores), []
    with av.open(str(out / 'demo.mp4'), 'w') as container, \
            tqdm(total=count, desc='film', unit='frame', mininterval=1.0) as bar:
        stream = container.add_stream('libx264', rate=FRAME_RATE,
                                      options={'crf': '23', 'preset': 'superfast'})
        stream.width, stream.height, stream.pix_fmt = FIRST + THIRD[0], FIRST + BAR, 'yuv420p'
        stream.time_base = Fraction(1, FRAME_RATE)
        for visit in visits:
            theatre = Theatre(visit, robot)
            try:
                for stamp in _stamps(visit):
                    picture = _compose(visit, stamp, theatre.draw(stamp))
                    frame = av.VideoFrame.from_ndarray(np.asarray(picture), format='rgb24')
                    container.mux(stream.encode(frame))
                    bar.update()
                rows += [_row(visit, attempt, next(remaining), theatre)
                         for attempt in visit.attempts]
            finally:
                theatre.close()
        container.mux(stream.encode(None))
    sheet = Image.new('RGB', (rows[0].width, sum(row.height for row in rows)), _PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(out / 'contact_sheet.png')


def _stamps(visit: Visit) -> range:
    """Times (ns) of the film's frames of one visit."""
    step = round(1e9 / FRAME_RATE)
    return range(visit.images[0][0], visit.states[-1][0], step)


def _compose(visit: Visit, stamp: int, third: np.ndarray) -> Image.Image:
    """One frame of the film."""
    attempt = _current(visit, stamp)
    words = ('', '', '')
    if attempt is not None:
        doing = [state for when, state in visit.captions if when <= stamp]
        doing = doing[-1] if doing else ''
        if stamp > attempt.ended and attempt.ending != 'stopped':
            doing = 'done'
        shown = f'primitives {tokens(attempt.tokens, 12)}' if attempt.tokens else ''
        words = (f'"{attempt.instruction}"', doing, shown)
    picture = _frame(*words).copy()
    first, seen = _first_person(visit, stamp), Image.fromarray(third)
    for image, left, text in ((first, 0, 'head camera'), (seen, FIRST, _KINEMATIC)):
        picture.paste(image, (left, 0))
        label = _overlay(text)
        picture.paste(label, (left + 6, 4), label)
    return picture


@lru_cache(maxsize=64)
def _frame(instruction: str, doing: str, shown: str) -> Image.Image:
    """Frame of the film without its pictures: the same for many frames in a row."""
    picture = Image.new('RGB', (FIRST + THIRD[0], FIRST + BAR), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((16, FIRST + 12), instruction, _INK, font=_font(28))
    draw.text((16, FIRST + 54), doing, _ACCENT, font=_font(19))
    draw.text((150, FIRST + 54), shown, _SOFT, font=_font(19))
    return picture


@cache
def _overlay(text: str) -> Image.Image:
    """Transparent picture of a label."""
    picture = Image.new('RGBA', (THIRD[0], 30))
    _label(ImageDraw.Draw(picture), (4, 4), text)
    return picture


def _row(visit: Visit, attempt: Attempt, score: Score, theatre: Theatre) -> Image.Image:
    """One row of the contact sheet."""
    width, height = TILE
    row = Image.new('RGB', (COLUMNS * (width + 6) + 6, height + 46), _PAPER)
    draw = ImageDraw.Draw(row)
    draw.text((10, 9), f'"{attempt.instruction}"', _INK, font=_font(22))
    text = verdict(score)
    if score.distance is not None:
        turned = '' if score.angle is None else f', {np.degrees(score.angle):.0f} deg'
        text += f'   {score.distance:.2f} m{turned} from the goal'
    text = '' if text == '-' else text
    left = row.width - 12 - draw.textlength(text, font=_font(18))
    draw.text((left, 12), text, _ACCENT, font=_font(18))
    side = _first_person(visit, attempt.asked).resize((height, height))
    row.paste(side, (6 + (width - height) // 2, 40))
    for column, share in enumerate((0.0, 0.4, 0.7, 1.0), start=1):
        stamp = round(attempt.asked + share * (attempt.ended - attempt.asked))
        tile = Image.fromarray(theatre.draw(stamp)).resize(TILE, Image.Resampling.LANCZOS)
        left = 6 + column * (width + 6)
        row.paste(tile, (left, 40))
        _label(draw, (left + 6, 44), f'{(stamp - attempt.asked) * 1e-9:.1f} s', 15)
    return row


def _first_person(visit: Visit, stamp: int) -> Image.Image:
    """The head camera's newest picture at ``stamp``, fitted into a square."""
    seen = [image for when, image in visit.images if when <= stamp] or [visit.images[0][1]]
    picture = Image.fromarray(seen[-1])
    scale = FIRST / max(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    square = Image.new('RGB', (FIRST, FIRST))
    square.paste(picture.resize(size, Image.Resampling.BILINEAR),
                 ((FIRST - size[0]) // 2, (FIRST - size[1]) // 2))
    return square


def _current(visit: Visit, stamp: int) -> Attempt | None:
    """The instruction that stands at ``stamp``."""
    given = [attempt for attempt in visit.attempts if attempt.asked <= stamp]
    return given[-1] if given else None


def _label(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int = 16) -> None:
    """Text that is readable on any picture."""
    draw.text(place, text, _INK, font=_font(size), stroke_width=2, stroke_fill=(0, 0, 0))


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own font, so that no font needs to be installed."""
    return ImageFont.load_default(size)
