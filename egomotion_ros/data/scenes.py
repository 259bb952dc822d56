# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Simulated rooms with coloured primitive objects, seen by a head camera.

A :class:`Scene` is plain data, drawn from a seed alone; :mod:`egomotion_ros.data.render` makes a
picture of it.  Everything stands in the *start frame*: the ground point under the pelvis, X along
the pelvis heading, Y left, Z up, metres.

Splits are disjoint by construction: scenes by ranges of seeds, and the colour-shape combinations
of :data:`HELD_OUT` occur in test scenes only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egomotion_ros.body.hands import HANDS
from egomotion_ros.data.scenes_view import (
    CAMERA,
    clear_of_boxes,
    clear_way,
    project,
    visible_fraction,
)
from egomotion_ros.types import CameraIntrinsics, CameraPose

#: Colours an instruction can name, as linear RGB shown under white light.
COLOURS = {
    'red': (0.85, 0.08, 0.08), 'orange': (0.98, 0.50, 0.05), 'yellow': (0.95, 0.88, 0.10),
    'green': (0.10, 0.62, 0.15), 'blue': (0.10, 0.22, 0.85), 'purple': (0.52, 0.12, 0.62),
    'white': (0.97, 0.97, 0.97), 'black': (0.05, 0.05, 0.05),
}
COLOUR_NAMES = tuple(COLOURS)
#: Shapes an instruction can name; a pillar is a cylinder taller than wide by 3 or more.
SHAPE_NAMES = ('ball', 'box', 'cylinder', 'cone', 'pillar')
#: (colour, shape) index pairs that no training or validation scene shows: one shape a colour.
HELD_OUT = frozenset((i, (2 * i + 1) % len(SHAPE_NAMES)) for i in range(len(COLOUR_NAMES)))

#: Kinds of scenes: objects on the floor of an empty room, or on and between furniture.
KINDS = ('simple', 'furnished')
#: Angle (rad) between the point of an object that faces a person and where each of two hands goes.
HOLD = float(np.radians(50.0))

#: Most objects of one scene.
MAX_OBJECTS = 6
#: Columns of the object table (:meth:`Scene.table`).
OBJECT_COLUMNS = ('valid', 'colour', 'shape', 'u', 'v', 'bearing', 'distance', 'radius', 'visible',
                  'clear')
#: Metres between the pelvis and the surface of the object once it has been reached.
STAND_OFF = 0.6
#: Least distance between two object centres (m).
SEPARATION = 0.9
#: Range of ground distances from the pelvis to an object's centre (m).
DISTANCES = (1.2, 4.5)

SPLITS = ('train', 'val', 'test')
_SEEDS_PER_SPLIT = 10_000_000


@dataclass(frozen=True)
class SceneObject:
    """
    One primitive that stands on the floor or on furniture.

    ``colour``, ``shape`` index :data:`COLOUR_NAMES` and :data:`SHAPE_NAMES`; ``rgb`` what is
    painted (the colour with a small variation); ``width``, ``height`` in metres; ``position``
    (3,) of its centre and ``yaw`` in the start frame; ``stop`` index of the stop point the object
    was built around (see :func:`sample_scene`), -1 when there was none; ``reach`` likewise the
    reaching motion and ``side`` the hands that it reaches with ('' where it is out of reach).
    """

    colour: int
    shape: int
    rgb: tuple[float, float, float]
    width: float
    height: float
    position: tuple[float, float, float]
    yaw: float
    stop: int = -1
    reach: int = -1
    side: str = ''

    @property
    def name(self) -> str:
        """Colour and shape, as in ``red ball``."""
        return f'{COLOUR_NAMES[self.colour]} {SHAPE_NAMES[self.shape]}'

    @property
    def radius(self) -> float:
        """Metres from the centre to the surface on the floor plan (a box: mean over yaw)."""
        return footprint_radius(self.shape, self.width)

    @property
    def bottom(self) -> float:
        """Height of what the object stands on (m)."""
        return self.position[2] - 0.5 * self.height

    @property
    def distance(self) -> float:
        """Ground distance from the pelvis to the centre (m)."""
        return float(np.hypot(self.position[0], self.position[1]))

    @property
    def bearing(self) -> float:
        """Direction of the centre in the start frame (rad, positive left)."""
        return float(np.arctan2(self.position[1], self.position[0]))

    def stop_pose(self) -> np.ndarray:
        """
        Where a walk to this object ends: ``(x, y, yaw)`` of the pelvis.

        The point of the start-object line that is :data:`STAND_OFF` before the surface, facing
        the object.
        """
        return stop_pose(self.bearing, self.distance, self.radius)

    def surface(self, direction: float) -> np.ndarray:
        """Point (3,) of the surface at half height, seen from the centre in a direction (rad)."""
        half = 0.5 * self.width
        if SHAPE_NAMES[self.shape] == 'box':
            turned = direction - self.yaw
            half /= max(abs(np.cos(turned)), abs(np.sin(turned)))
        elif SHAPE_NAMES[self.shape] == 'cone':
            half *= 0.5
        return np.array(self.position) + half * np.array([np.cos(direction), np.sin(direction), 0])

    def hand_targets(self, side: str) -> np.ndarray:
        """
        Where hands touch this object: (2, 3) of the left and the right, NaN for an idle hand.

        One hand goes to the point of the surface that faces the start, at half height; two go to
        :data:`HOLD` to both sides of it.
        """
        targets = np.full((2, 3), np.nan)
        for hand in HANDS[side]:
            aside = HOLD * (2 * hand - 1) if side == 'both' else 0.0
            targets[hand] = self.surface(self.bearing + np.pi + aside)
        return targets


@dataclass(frozen=True)
class Box:
    """
    A piece of furniture, or part of one: an upright box that nobody asks for.

    ``position`` (3,) of its centre, ``half`` sizes (3,) and ``yaw`` in the start frame; ``rgb``
    its colour, ``texture`` a pattern of the renderer.
    """

    position: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float
    rgb: tuple[float, float, float]
    texture: int


@dataclass(frozen=True)
class Room:
    """
    Floor and four walls.

    ``center`` (x, y), ``half`` extents (x, y) and ``yaw`` in the start frame; ``height`` (m);
    ``floor_rgb``, ``wall_rgb`` base colours; ``floor_texture``, ``wall_texture`` index the
    patterns of the renderer.
    """

    center: tuple[float, float]
    half: tuple[float, float]
    yaw: float
    height: float
    floor_rgb: tuple[float, float, float]
    wall_rgb: tuple[float, float, float]
    floor_texture: int
    wall_texture: int


@dataclass(frozen=True)
class Lights:
    """One ceiling lamp at ``position`` (m) shining along ``direction``, and an even fill light."""

    position: tuple[float, float, float]
    direction: tuple[float, float, float]
    lamp: tuple[float, float, float]
    fill: float
    ambient: float


@dataclass(frozen=True)
class Scene:
    """
    A room, its objects (the first is the main target), its lights and the head camera.

    ``kind`` one of :data:`KINDS`; ``boxes`` the furniture; ``view`` the horizontal and vertical
    field (rad) of a camera whose picture does not fill the canonical one, None where it does.
    """

    seed: int
    split: str
    objects: tuple[SceneObject, ...]
    camera: CameraPose
    room: Room
    lights: Lights
    kind: str = 'simple'
    boxes: tuple[Box, ...] = ()
    view: tuple[float, float] | None = None

    def table(self, camera: CameraIntrinsics = CAMERA) -> np.ndarray:
        """
        Object table, (MAX_OBJECTS, len(OBJECT_COLUMNS)) float32, rows past the last object zero.

        ``u``, ``v`` pixel position of the projected centre (right, down; pixel ``j`` spans
        ``[j, j + 1)``), ``bearing`` rad and ``distance``, ``radius`` m in the start frame,
        ``visible`` 1 when at least half of what faces the camera is in the picture and not
        hidden, ``clear`` 1 when no other object stands in the straight way to the stop point.
        """
        rows = np.zeros((MAX_OBJECTS, len(OBJECT_COLUMNS)), np.float32)
        seen = visible_fraction(self.objects, self.camera, camera, self.boxes, self.view)
        way = clear_way(self.objects)
        if self.boxes:
            way = way & [clear_of_boxes(o.stop_pose(), self.boxes, 0.3) for o in self.objects]
        centres = np.array([o.position for o in self.objects])
        pixels, _ = project(centres, self.camera, camera)
        for i, item in enumerate(self.objects):
            rows[i] = (1, item.colour, item.shape, pixels[i, 0], pixels[i, 1], item.bearing,
                       item.distance, item.radius, seen[i] >= 0.5, way[i])
        return rows


def stop_pose(bearing: float, distance: float, radius: float) -> np.ndarray:
    """Pelvis ``(x, y, yaw)`` before an object: as the columns of the object table describe it."""
    reach = max(float(distance) - float(radius) - STAND_OFF, 0.0)
    return np.array([reach * np.cos(bearing), reach * np.sin(bearing), float(bearing)])


def footprint_radius(shape: int, width: float) -> float:
    """Radius of the circle that has the area of an object's footprint (m)."""
    return width / np.sqrt(np.pi) if SHAPE_NAMES[shape] == 'box' else 0.5 * width


def scene_seed(split: str, index: int) -> int:
    """Seed of scene ``index`` of a split; ValueError when either is out of range."""
    if split not in SPLITS:
        raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
    if not 0 <= index < _SEEDS_PER_SPLIT:
        raise ValueError(f'scene index must be in 0..{_SEEDS_PER_SPLIT - 1}, got {index}')
    return SPLITS.index(split) * _SEEDS_PER_SPLIT + index


def sample_scene(seed: int, stops: np.ndarray | None = None) -> Scene:
    """
    Draw a scene; the same seed (see :func:`scene_seed`) and stops always give the same scene.

    With ``stops`` (N, 2), pelvis positions in the start frame where recorded motions end, every
    object is placed so that the end of one of them is its stop point, and ``SceneObject.stop``
    names it; otherwise places are drawn freely.
    """
    if not 0 <= seed < len(SPLITS) * _SEEDS_PER_SPLIT:
        raise ValueError(f'seed must come from scene_seed(), got {seed}')
    split = SPLITS[seed // _SEEDS_PER_SPLIT]
    rng = np.random.default_rng([seed, 0])
    kinds = draw_kinds(rng, split)
    while True:
        camera = CameraPose(height=float(rng.uniform(1.3, 1.75)),
                            pitch=float(np.radians(rng.uniform(10, 35))),
                            yaw=float(np.radians(rng.uniform(-10, 10))))
        objects = _place(rng, kinds, camera, stops)
        if objects is not None:
            break
    return Scene(seed, split, objects, camera, draw_room(rng, objects), draw_lights(rng))


def draw_kinds(rng: np.random.Generator, split: str) -> list[tuple[int, int]]:
    """Distinct (colour, shape) pairs: a target, one of its colour, one of its shape, others."""
    pairs = [(c, s) for c in range(len(COLOUR_NAMES)) for s in range(len(SHAPE_NAMES))
             if split == 'test' or (c, s) not in HELD_OUT]
    first = pairs
    if split == 'test' and rng.random() < 0.5:
        first = sorted(HELD_OUT)
    kinds = [first[rng.integers(len(first))]]
    colour, shape = kinds[0]
    for group in ([p for p in pairs if p[0] == colour and p[1] != shape],
                  [p for p in pairs if p[1] == shape and p[0] != colour]):
        kinds.append(group[rng.integers(len(group))])
    while len(kinds) < 3 + int(rng.integers(0, MAX_OBJECTS - 2)):
        pair = pairs[rng.integers(len(pairs))]
        if pair not in kinds:
            kinds.append(pair)
    return kinds


def _place(rng: np.random.Generator, kinds: list[tuple[int, int]], camera: CameraPose,
           stops: np.ndarray | None) -> tuple[SceneObject, ...] | None:
    """Put the objects down, or None when the target cannot be seen or reached."""
    placed: list[SceneObject] = []
    for colour, shape in kinds:
        for _ in range(40):
            item = _draw_object(rng, colour, shape, camera, stops)
            if item is None:
                continue
            gaps = [np.hypot(item.position[0] - o.position[0], item.position[1] - o.position[1])
                    for o in placed]
            if min(gaps, default=np.inf) >= SEPARATION and item.stop not in {
                    o.stop for o in placed if o.stop >= 0}:
                placed.append(item)
                break
    objects = tuple(placed)
    if len(objects) < 3 or (objects[0].colour, objects[0].shape) != kinds[0]:
        return None
    if visible_fraction(objects, camera)[0] < 0.6 or not clear_way(objects)[0]:
        return None
    return objects


def _draw_object(rng: np.random.Generator, colour: int, shape: int, camera: CameraPose,
                 stops: np.ndarray | None) -> SceneObject | None:
    """One object somewhere in front of the camera; None when the draw falls outside the range."""
    name = SHAPE_NAMES[shape]
    if name == 'pillar':
        width, height = rng.uniform(0.2, 0.3), rng.uniform(0.9, 1.4)
    else:
        width = rng.uniform(0.25, 0.6)
        height = width * (1.0 if name in ('ball', 'box') else
                          rng.uniform(0.8, 1.2) if name == 'cylinder' else 1.2)
    if name == 'cone':  # the renderer keeps one mesh a size
        width = CONE_WIDTHS[int(np.argmin(np.abs(np.array(CONE_WIDTHS) - width)))]
        height = 1.2 * width
    radius = footprint_radius(shape, width)
    stop = -1
    if stops is None:
        bearing = camera.yaw + np.radians(rng.uniform(-38, 38))
        distance = rng.uniform(*DISTANCES)
    else:
        stop = int(rng.integers(len(stops)))
        bearing = float(np.arctan2(stops[stop, 1], stops[stop, 0]))
        distance = float(np.hypot(*stops[stop, :2])) + STAND_OFF + radius
        if not DISTANCES[0] <= distance <= DISTANCES[1]:
            return None
    position = (distance * np.cos(bearing), distance * np.sin(bearing), 0.5 * height)
    pixels, depth = project(np.array(position), camera)
    if depth <= 0 or not (4 < pixels[0] < CAMERA.width - 4 and 4 < pixels[1] < CAMERA.height - 4):
        return None
    rgb = np.clip(np.array(COLOURS[COLOUR_NAMES[colour]]) + rng.uniform(-0.04, 0.04, 3), 0, 1)
    return SceneObject(colour, shape, tuple(map(float, rgb)), float(width), float(height),
                       tuple(map(float, position)), float(rng.uniform(-np.pi, np.pi)), stop)


#: Widths of the cone meshes (m), and of those that stand on furniture.
CONE_WIDTHS = tuple(float(w) for w in np.round(np.linspace(0.25, 0.6, 8), 3))
SMALL_CONES = (0.10, 0.13, 0.16, 0.20)


def draw_room(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> Room:
    """A rectangle around the person and all objects, in pale colours no object has."""
    yaw = float(rng.uniform(-np.pi / 4, np.pi / 4))
    turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    points = np.array([(0.0, 0.0)] + [o.position[:2] for o in objects]) @ turn.T
    low = points.min(0) - rng.uniform(0.8, 2.5, 2)
    high = points.max(0) + rng.uniform(0.8, 2.5, 2)
    center = turn.T @ (0.5 * (low + high))
    half = 0.5 * (high - low)

    def pale() -> tuple[float, float, float]:
        grey = rng.uniform(0.3, 0.75)
        return tuple(map(float, np.clip(grey + rng.uniform(-0.10, 0.10, 3), 0, 1)))

    return Room(tuple(map(float, center)), tuple(map(float, half)), yaw,
                float(rng.uniform(2.4, 3.2)), pale(), pale(),
                int(rng.integers(TEXTURES)), int(rng.integers(TEXTURES)))


#: Most boxes the furniture of a scene is made of.
MAX_BOXES = 48
#: Count of surface patterns the renderer has.
TEXTURES = 5


def draw_lights(rng: np.random.Generator) -> Lights:
    """A lamp near the ceiling with a slight tint, and fill light of varied strength."""
    direction = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), -1.0])
    tint = np.clip(rng.uniform(0.4, 0.75) * (1 + rng.uniform(-0.1, 0.1, 3)), 0, 1)
    return Lights((float(rng.uniform(-1, 4)), float(rng.uniform(-3, 3)), 3.0),
                  tuple(map(float, direction / np.linalg.norm(direction))),
                  tuple(map(float, tint)), float(rng.uniform(0.15, 0.4)),
                  float(rng.uniform(0.3, 0.55)))
