# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Furnished rooms: objects on the floor, on tables, shelves and pedestals, near ones within reach.

Drawn from the same seeds as simple scenes (:func:`egomotion_ros.data.scenes.scene_seed`), so the
splits and the colour-shape combinations held out of training are the same.  Some objects stand
beside or behind the person: asked for one of them, a person has to look for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egomotion_ros.data.furniture import along_walls, support
from egomotion_ros.data.scenes import (
    COLOUR_NAMES,
    COLOURS,
    CONE_WIDTHS,
    DISTANCES,
    HOLD,
    MAX_BOXES,
    MAX_OBJECTS,
    SHAPE_NAMES,
    SMALL_CONES,
    SPLITS,
    STAND_OFF,
    Box,
    Lights,
    Scene,
    SceneObject,
    draw_kinds,
    draw_lights,
    draw_room,
    footprint_radius,
    sample_scene,
)
from egomotion_ros.data.scenes_view import CAMERA, clear_of_boxes, project, visible_share
from egomotion_ros.types import CameraPose

#: Ground distances (m) and heights (m) of the points hands are sent to, and half the distance
#: between two hands (m).
REACH_DISTANCES, REACH_HEIGHTS, APART = (0.4, 1.3), (0.5, 1.5), (0.08, 0.17)
#: Least distances between object centres (m): both within reach, one of them, none.
_GAPS = (0.55, 0.7, 0.9)
#: Objects in hand's reach of a scene, and their probabilities.
_NEAR = (0.25, 0.5, 0.25)


@dataclass(frozen=True)
class Ends:
    """
    Where recorded motions end, to build scenes around.

    ``stops`` (N, 2) pelvis positions of walks; ``reaches`` (M, 2, 3) hand points, left and right,
    NaN for an idle hand; all in the start frame.
    """

    stops: np.ndarray
    reaches: np.ndarray


def draw_scene(seed: int, kind: str, ends: Ends | None = None) -> Scene:
    """Draw the scene of a seed and a kind of :data:`egomotion_ros.data.scenes.KINDS`."""
    if kind == 'simple':
        return sample_scene(seed, None if ends is None else ends.stops)
    if kind != 'furnished':
        raise ValueError(f"kind must be 'simple' or 'furnished', got {kind!r}")
    return sample_furnished(seed, ends)


def sample_furnished(seed: int, ends: Ends | None = None) -> Scene:
    """
    Draw a furnished scene; the same seed and ends always give the same scene.

    With ``ends`` every object in view is placed where a recorded motion ends, and names it.
    """
    split = SPLITS[seed // 10_000_000] if 0 <= seed < 30_000_000 else ''
    if not split:
        raise ValueError(f'seed must come from scene_seed(), got {seed}')
    rng = np.random.default_rng([seed, 8])
    kinds = draw_kinds(rng, split)
    near = set(rng.permutation(3)[:int(rng.choice(3, p=_NEAR))].tolist())
    hidden = len(kinds) < MAX_OBJECTS and rng.random() < 0.5
    while True:
        camera = CameraPose(height=float(rng.uniform(1.3, 1.75)),
                            pitch=float(np.radians(rng.uniform(0, 45))),
                            yaw=float(np.radians(rng.uniform(-12, 12))))
        view = _draw_view(rng)
        placed = _furnish(rng, kinds, near, camera, view, ends)
        if placed is not None:
            break
    objects, boxes = placed
    if hidden:
        objects = _with_hidden(rng, objects, boxes, split)
    room = draw_room(rng, objects)
    points = np.array([(0.0, 0.0)] + [o.position[:2] for o in objects])
    decor = along_walls(rng, room, points, int(rng.integers(0, 5)))
    boxes = (boxes + decor)[:MAX_BOXES]
    return Scene(seed, split, objects, camera, room, _vary(draw_lights(rng), rng), 'furnished',
                 tuple(boxes), view)


def _draw_view(rng: np.random.Generator) -> tuple[float, float] | None:
    """Field of a camera of 60 to 110 degrees and common aspect, None when it fills ours."""
    across = np.radians(rng.uniform(60, 110))
    aspect = rng.choice((1.0, 4 / 3, 16 / 9))
    down = 2 * np.arctan(np.tan(0.5 * across) / aspect)
    return None if min(across, down) >= CAMERA.hfov else (float(across), float(down))


def _furnish(rng: np.random.Generator, kinds: list[tuple[int, int]], near: set[int],
             camera: CameraPose, view: tuple[float, float] | None, ends: Ends | None
             ) -> tuple[tuple[SceneObject, ...], list[Box]] | None:
    """Put objects and what they stand on down; None when the main target is not in order."""
    placed: list[SceneObject] = []
    boxes: list[Box] = []
    for number, (colour, shape) in enumerate(kinds):
        for _ in range(30):
            item = (_near_object if number in near else _far_object)(rng, colour, shape, camera,
                                                                     ends)
            if item is None or not _apart(item, placed):
                continue
            # Most things can be walked up to; a few stand behind something.
            if boxes and not item.side and rng.random() < 0.85 and not clear_of_boxes(
                    item.stop_pose(), boxes, 0.3):
                continue
            under: list[Box] = []
            if item.bottom > 0.05:
                point = item.surface(item.bearing + np.pi)[:2]
                for pedestal in (False, True):
                    under = support(rng, point, item.bearing, item.bottom, 2 * item.radius,
                                    pedestal)
                    if _fits(under, placed, boxes, item):
                        break
                else:
                    continue
            elif any(_inside(box, item.position[:2], item.radius) for box in boxes):
                continue
            if len(boxes) + len(under) > MAX_BOXES - 12:
                continue
            if not _ways_free(placed, under):
                continue
            placed.append(item)
            boxes += under
            break
    objects = tuple(placed)
    if len(objects) < 3 or (objects[0].colour, objects[0].shape) != kinds[0]:
        return None
    if visible_share(objects[0], objects, camera, CAMERA, boxes, view) < 0.6:
        return None
    first = objects[0]
    place = first.stop_pose() if not first.side else approach(first)
    return (objects, boxes) if clear_of_boxes(place, boxes, 0.2) else None


def approach(item: SceneObject) -> np.ndarray:
    """Where a person stands at the least to reach an object (2,): 0.45 m before its surface."""
    way = max(item.distance - item.radius - 0.45, 0.0)
    return way * np.array([np.cos(item.bearing), np.sin(item.bearing)])


def _ways_free(placed: list[SceneObject], under: list[Box]) -> bool:
    """Whether new furniture leaves the ways to what stands there already free."""
    if not under:
        return True
    near = [approach(o) for o in placed if o.side]
    far = [o.stop_pose() for o in placed if not o.side]
    return (all(clear_of_boxes(place, under, 0.2) for place in (np.zeros(2), *near))
            and all(clear_of_boxes(place, under, 0.3) for place in far))


def _apart(item: SceneObject, placed: list[SceneObject]) -> bool:
    """Whether an object keeps its distance from all others and has a motion of its own."""
    for other in placed:
        gap = _GAPS[2 - bool(item.side) - bool(other.side)]
        if np.hypot(item.position[0] - other.position[0],
                    item.position[1] - other.position[1]) < gap:
            return False
        if (item.stop >= 0 and item.stop == other.stop) or (
                item.reach >= 0 and item.reach == other.reach):
            return False
    return True


def _inside(box: Box, point: tuple[float, float], margin: float) -> bool:
    """Whether a point of the floor lies in the footprint of a box, ``margin`` (m) around it."""
    dx, dy = point[0] - box.position[0], point[1] - box.position[1]
    cy, sy = np.cos(box.yaw), np.sin(box.yaw)
    return bool(abs(cy * dx + sy * dy) < box.half[0] + margin
                and abs(cy * dy - sy * dx) < box.half[1] + margin)


def _fits(under: list[Box], placed: list[SceneObject], boxes: list[Box],
          item: SceneObject) -> bool:
    """Whether new furniture stands clear of the other objects and of other furniture."""
    for box in under:
        if any(_inside(box, o.position[:2], o.radius) for o in placed):
            return False
        reach = float(np.hypot(box.half[0], box.half[1]))
        for other in boxes:
            if _inside(other, item.position[:2], item.radius):
                return False
            if np.hypot(box.position[0] - other.position[0],
                        box.position[1] - other.position[1]) > reach + np.hypot(*other.half[:2]):
                continue
            grid = np.linspace(-1, 1, 5)
            cy, sy = np.cos(box.yaw), np.sin(box.yaw)
            for a in grid * box.half[0]:
                for b in grid * box.half[1]:
                    point = (box.position[0] + cy * a - sy * b, box.position[1] + sy * a + cy * b)
                    if _inside(other, point, 0.0):
                        return False
    return True


def _sizes(rng: np.random.Generator, shape: int, width: float) -> tuple[float, float]:
    """Width and height (m) of a thing that stands on furniture."""
    name = SHAPE_NAMES[shape]
    if name == 'cone':
        width = SMALL_CONES[int(np.argmin(np.abs(np.array(SMALL_CONES) - width)))]
        return width, 1.2 * width
    tall = {'ball': 1.0, 'box': rng.uniform(0.7, 1.3), 'cylinder': rng.uniform(0.8, 1.6),
            'pillar': rng.uniform(3.0, 3.6)}[name]
    return width, width * tall


def _near_object(rng: np.random.Generator, colour: int, shape: int, camera: CameraPose,
                 ends: Ends | None) -> SceneObject | None:
    """An object on furniture with its surface where hands reach; None when the draw is unfit."""
    reach = -1
    if ends is None:
        bearing = camera.yaw + np.radians(rng.uniform(-36, 36))
        side = str(rng.choice(('left', 'right', 'both'), p=(0.35, 0.4, 0.25)))
        targets = reach_targets(rng.uniform(*REACH_DISTANCES), bearing,
                                rng.uniform(*REACH_HEIGHTS), side, rng.uniform(*APART))
    else:
        reach = int(rng.integers(len(ends.reaches)))
        targets = ends.reaches[reach]
    used = ~np.isnan(targets).any(1)
    side = 'both' if used.all() else 'left' if used[0] else 'right'
    middle = np.nanmean(targets, axis=0)
    bearing = float(np.arctan2(middle[1], middle[0]))
    yaw = float(rng.uniform(-np.pi, np.pi))
    name = SHAPE_NAMES[shape]
    if side == 'both':
        if name in ('cone', 'pillar'):
            return None
        half = 0.5 * float(np.hypot(*(targets[0] - targets[1])[:2]))
        width = 2 * half if name == 'box' else 2 * half / np.sin(HOLD)
        yaw = bearing
        height = width * (1.0 if name == 'ball' else rng.uniform(0.5, 0.9))
    else:
        width, height = _sizes(rng, shape, rng.uniform(0.06, 0.09) if name == 'pillar'
                               else rng.uniform(0.09, 0.2))
    if middle[2] - 0.5 * height < 0.3:
        return None
    trial = SceneObject(colour, shape, (0, 0, 0), width, height, (0.0, 0.0, middle[2]), yaw)
    away = np.array([np.cos(bearing), np.sin(bearing)])
    # The centre lies behind the touched points by what the surface stands out towards them.
    aside = HOLD if side == 'both' else 0.0
    out = float(-trial.surface(bearing + np.pi + aside)[:2] @ away)
    centre = middle[:2] + out * away
    return _finish(rng, trial, (*centre, float(middle[2])), camera, -1, reach, side)


def reach_targets(distance: float, bearing: float, height: float, side: str,
                  apart: float = 0.12) -> np.ndarray:
    """
    Hand targets (2, 3) for a place: left, right, NaN for an idle hand.

    ``distance`` (m) over the floor, ``bearing`` (rad) and ``height`` (m) of the touched point, or
    of the middle between two of them that are ``2 * apart`` (m) from one another.
    """
    point = np.array([distance * np.cos(bearing), distance * np.sin(bearing), height])
    left = np.array([-np.sin(bearing), np.cos(bearing), 0.0])
    targets = np.full((2, 3), np.nan)
    if side == 'both':
        targets[:] = point + apart * np.array([1, -1])[:, None] * left
    else:
        targets[('left', 'right').index(side)] = point
    return targets


def _far_object(rng: np.random.Generator, colour: int, shape: int, camera: CameraPose,
                ends: Ends | None) -> SceneObject | None:
    """An object to walk to, on the floor or on furniture; None when the draw is unfit."""
    name = SHAPE_NAMES[shape]
    bottom = 0.0
    if rng.random() < 0.45:
        bottom = rng.uniform(0.35, 1.2)
        width, height = _sizes(rng, shape, rng.uniform(0.07, 0.12) if name == 'pillar'
                               else rng.uniform(0.12, 0.35))
    elif name == 'pillar':
        width, height = rng.uniform(0.2, 0.3), rng.uniform(0.9, 1.4)
    else:
        width = rng.uniform(0.2, 0.65)
        if name == 'cone':
            width = CONE_WIDTHS[int(np.argmin(np.abs(np.array(CONE_WIDTHS) - width)))]
        height = width * {'ball': 1.0, 'box': rng.uniform(0.7, 1.3), 'cone': 1.2,
                          'cylinder': rng.uniform(0.8, 1.4)}[name]
    radius = footprint_radius(shape, width)
    stop = -1
    if ends is None:
        bearing = camera.yaw + np.radians(rng.uniform(-38, 38))
        distance = rng.uniform(*DISTANCES)
    else:
        stop = int(rng.integers(len(ends.stops)))
        bearing = float(np.arctan2(ends.stops[stop, 1], ends.stops[stop, 0]))
        distance = float(np.hypot(*ends.stops[stop, :2])) + STAND_OFF + radius
        if not DISTANCES[0] <= distance <= DISTANCES[1]:
            return None
    trial = SceneObject(colour, shape, (0, 0, 0), width, height, (0, 0, 0),
                        float(rng.uniform(-np.pi, np.pi)))
    return _finish(rng, trial, (distance * np.cos(bearing), distance * np.sin(bearing),
                                bottom + 0.5 * height), camera, stop, -1, '')


def _finish(rng: np.random.Generator, trial: SceneObject, position: tuple[float, float, float],
            camera: CameraPose | None, stop: int, reach: int, side: str) -> SceneObject | None:
    """Colour an object and put it in place; None when its centre is out of the picture."""
    if camera is not None:
        pixels, depth = project(np.array(position), camera)
        if depth <= 0 or not (4 < pixels[0] < CAMERA.width - 4
                              and 4 < pixels[1] < CAMERA.height - 4):
            return None
    rgb = np.array(COLOURS[COLOUR_NAMES[trial.colour]]) + rng.uniform(-0.05, 0.05, 3)
    return SceneObject(trial.colour, trial.shape, tuple(map(float, np.clip(rgb, 0, 1))),
                       float(trial.width), float(trial.height), tuple(map(float, position)),
                       trial.yaw, stop, reach, side)


def _with_hidden(rng: np.random.Generator, objects: tuple[SceneObject, ...], boxes: list[Box],
                 split: str) -> tuple[SceneObject, ...]:
    """Add an object far aside of the view or behind the person, where there is room."""
    taken = {(o.colour, o.shape) for o in objects}
    for _ in range(20):
        colour, shape = draw_kinds(rng, split)[0]
        trial = _far_object(rng, colour, shape, CameraPose(1.5, 0.6), None)
        if (colour, shape) in taken or trial is None or trial.bottom > 0.05:
            continue
        bearing = np.radians(rng.uniform(80, 180)) * rng.choice((-1, 1))
        distance = rng.uniform(1.2, 3.0)
        place = (distance * np.cos(bearing), distance * np.sin(bearing), trial.position[2])
        item = _finish(rng, trial, place, None, -1, -1, '')
        if _apart(item, list(objects)) and not any(
                _inside(box, place[:2], item.radius) for box in boxes):
            return (*objects, item)
    return objects


def _vary(lights: Lights, rng: np.random.Generator) -> Lights:
    """Dimmer, brighter and more tinted light than that of simple scenes."""
    tint = np.clip(np.array(lights.lamp) * rng.uniform(0.6, 1.2) * (
        1 + rng.uniform(-0.15, 0.15, 3)), 0, 1)
    return Lights(lights.position, lights.direction, tuple(map(float, tint)),
                  lights.fill * float(rng.uniform(0.6, 1.3)),
                  lights.ambient * float(rng.uniform(0.65, 1.15)))
