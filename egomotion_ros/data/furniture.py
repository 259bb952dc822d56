# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Furniture made of boxes: tables, pedestals, shelves to put things on, and cupboards at walls."""

from __future__ import annotations

import numpy as np

from egomotion_ros.data.scenes import TEXTURES, Box, Room

#: Woods and greys (linear RGB), away from the colours objects are named by.
_FINISHES = ((0.45, 0.30, 0.18), (0.58, 0.44, 0.30), (0.33, 0.22, 0.15), (0.66, 0.56, 0.42),
             (0.42, 0.42, 0.44), (0.62, 0.62, 0.60), (0.50, 0.52, 0.56))


class Maker:
    """Boxes placed in one piece's own frame: X away from the person, Y left, origin ``at``."""

    def __init__(self, rng: np.random.Generator, at: np.ndarray, yaw: float) -> None:
        self._at, self._yaw = np.asarray(at, float), float(yaw)
        finish = np.array(_FINISHES[int(rng.integers(len(_FINISHES)))])
        self._rgb = tuple(map(float, np.clip(finish * rng.uniform(0.85, 1.15), 0, 1)))
        self._texture = int(rng.integers(TEXTURES))
        self.boxes: list[Box] = []

    def add(self, x: tuple[float, float], y: tuple[float, float],
            z: tuple[float, float], shade: float = 1.0) -> None:
        """Add a box that spans the given ranges (m) of the piece's frame."""
        low, high = np.array([x[0], y[0], z[0]]), np.array([x[1], y[1], z[1]])
        middle, half = 0.5 * (low + high), 0.5 * (high - low)
        cy, sy = np.cos(self._yaw), np.sin(self._yaw)
        position = (self._at[0] + cy * middle[0] - sy * middle[1],
                    self._at[1] + sy * middle[0] + cy * middle[1], middle[2])
        rgb = tuple(float(min(c * shade, 1.0)) for c in self._rgb)
        self.boxes.append(Box(tuple(map(float, position)), tuple(map(float, half)), self._yaw,
                              rgb, self._texture))


def support(rng: np.random.Generator, near: np.ndarray, yaw: float, height: float, depth: float,
            pedestal: bool = False) -> list[Box]:
    """
    Something of ``height`` (m) to put an object on.

    ``near`` (2,) the point of the object that faces the person, ``yaw`` the direction from the
    person to it; ``depth`` of the object (m).  Its edge is at most 9 cm before that point.
    ``pedestal`` asks for the piece that takes least room.
    """
    make = Maker(rng, near, yaw + rng.uniform(-0.12, 0.12))
    front = -rng.uniform(0.02, 0.09)
    kind = 'pedestal' if pedestal else str(rng.choice(('table', 'pedestal', 'shelf'),
                                                      p=(0.5, 0.25, 0.25)))
    if kind == 'pedestal':
        side = depth + rng.uniform(0.04, 0.15)
        make.add((front, front + side), (-0.5 * side, 0.5 * side), (0.0, height))
        return make.boxes
    if kind == 'table':
        long, deep = rng.uniform(0.6, 1.2), max(rng.uniform(0.4, 0.7), depth + 0.1)
        left = rng.uniform(0.3, 0.7) * long
        y, x = (left - long, left), (front, front + deep)
        make.add(x, y, (height - 0.04, height))
        leg = 0.05
        for ends in ((x[0], x[0] + leg), (x[1] - leg, x[1])):
            for sides in ((y[0], y[0] + leg), (y[1] - leg, y[1])):
                make.add(ends, sides, (0.0, height - 0.04), 0.8)
        return make.boxes
    wide, deep = rng.uniform(0.5, 0.9), max(rng.uniform(0.3, 0.4), depth + 0.08)
    left = rng.uniform(0.35, 0.65) * wide
    y, x = (left - wide, left), (front, front + deep)
    # No board over the object within reach of a head camera: it would hide what lies below.
    boards = [z for z in (height - 0.38, height - 0.76, height - 1.14) if z > 0.06]
    for z in (height, *boards):
        make.add(x, y, (z - 0.03, z))
    for sides in ((y[0], y[0] + 0.03), (y[1] - 0.03, y[1])):
        make.add(x, sides, (0.0, height - 0.03), 0.9)
    make.add((x[1] - 0.02, x[1]), (y[0] + 0.03, y[1] - 0.03), (0.0, height + 0.25), 0.75)
    return make.boxes


def along_walls(rng: np.random.Generator, room: Room, keep_off: np.ndarray,
                count: int) -> list[Box]:
    """
    Up to ``count`` cupboards, benches, doors and pictures at the walls of a room.

    Pieces on the floor stay 1.2 m away from the points ``keep_off`` (N, 2).
    """
    boxes: list[Box] = []
    turn = np.array([[np.cos(room.yaw), -np.sin(room.yaw)], [np.sin(room.yaw), np.cos(room.yaw)]])
    for _ in range(count):
        axis, sign = int(rng.integers(2)), int(rng.choice((-1, 1)))
        wide = rng.uniform(0.5, 1.2)
        room_left = room.half[1 - axis] - 0.5 * wide - 0.05
        if room_left <= 0:
            continue
        wall = np.zeros(2)
        wall[axis], wall[1 - axis] = sign * room.half[axis], rng.uniform(-room_left, room_left)
        at = np.array(room.center) + turn @ wall
        yaw = room.yaw + 0.5 * np.pi * axis + (np.pi if sign < 0 else 0.0)
        make = Maker(rng, at, yaw)
        kind = str(rng.choice(('cupboard', 'bench', 'picture', 'door')))
        y = (-0.5 * wide, 0.5 * wide)
        if kind == 'picture':
            make.add((-0.03, 0.0), (0.6 * y[0], 0.6 * y[1]), (1.3, 1.3 + rng.uniform(0.3, 0.6)))
        elif kind == 'door':
            make.add((-0.03, 0.0), (-0.45, 0.45), (0.0, 2.0))
        elif np.linalg.norm(keep_off - at, axis=1).min() > 1.2:
            high, deep = ((rng.uniform(0.8, 2.0), rng.uniform(0.35, 0.55)) if kind == 'cupboard'
                          else (rng.uniform(0.4, 0.5), rng.uniform(0.35, 0.45)))
            make.add((-deep, 0.0), y, (0.0, high))
            if kind == 'cupboard':  # two door leaves
                make.add((-deep - 0.015, -deep), (y[0] + 0.02, -0.01), (0.06, high - 0.04), 1.15)
                make.add((-deep - 0.015, -deep), (0.01, y[1] - 0.02), (0.06, high - 0.04), 1.15)
        boxes += make.boxes
    return boxes
