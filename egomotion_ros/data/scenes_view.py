# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the head camera sees of a scene: projection, hidden objects, and free ways to walk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from egomotion_ros.types import CameraIntrinsics, CameraPose

if TYPE_CHECKING:
    from egomotion_ros.data.scenes import Box, SceneObject

#: The picture every model of the package sees: square pixels, so 80 degrees both ways.
CAMERA = CameraIntrinsics(width=128, height=128, hfov=float(np.radians(80.0)))
#: What is farther off the axis of the camera than this (rad) is out of view for good: it has to be
#: looked for.
AWAY = float(np.radians(60.0))


#: Sample points across and up an object, as shares of its radius and height.
_ACROSS, _UP = np.linspace(-0.85, 0.85, 7), np.linspace(0.08, 0.92, 6)


def camera_rotation(pose: CameraPose) -> np.ndarray:
    """Rotation (3, 3) from the optical frame (x right, y down, z forward) to the start frame."""
    cp, sp = np.cos(pose.pitch), np.sin(pose.pitch)
    cy, sy = np.cos(pose.yaw), np.sin(pose.yaw)
    forward = np.array([cy * cp, sy * cp, -sp])
    right = np.array([sy, -cy, 0.0])
    down = np.array([forward[1] * right[2] - forward[2] * right[1],
                     forward[2] * right[0] - forward[0] * right[2],
                     forward[0] * right[1] - forward[1] * right[0]])
    return np.stack([right, down, forward], axis=1)


def project(points: np.ndarray, pose: CameraPose,
            camera: CameraIntrinsics = CAMERA) -> tuple[np.ndarray, np.ndarray]:
    """
    Project points (..., 3) of the start frame into the picture.

    Returns pixels (..., 2) and depths (...) along the optical axis (m); a pixel is meaningful
    where its depth is positive.
    """
    local = (np.asarray(points, float) - [0.0, 0.0, pose.height]) @ camera_rotation(pose)
    depth = local[..., 2]
    safe = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
    pixels = camera.focal * local[..., :2] / safe[..., None]
    return pixels + [0.5 * camera.width, 0.5 * camera.height], depth


def visible_fraction(objects: tuple[SceneObject, ...], pose: CameraPose,
                     camera: CameraIntrinsics = CAMERA, boxes: Sequence[Box] = (),
                     view: tuple[float, float] | None = None) -> np.ndarray:
    """
    Share of each object's silhouette that is in the picture and not hidden, (len(objects),).

    Sample points of an upright cylinder around each object are tested against the picture's edge,
    against the cylinders around the others and against ``boxes``.  ``view`` narrows the picture
    to a horizontal and vertical field (rad, full angles).
    """
    return np.array([visible_share(item, objects, pose, camera, boxes, view) for item in objects])


def visible_share(item: SceneObject, objects: Sequence[SceneObject], pose: CameraPose,
                  camera: CameraIntrinsics = CAMERA, boxes: Sequence[Box] = (),
                  view: tuple[float, float] | None = None) -> float:
    """As :func:`visible_fraction`, of one of the objects."""
    eye = np.array([0.0, 0.0, pose.height])
    centre = np.array(item.position)
    side = np.array([-centre[1], centre[0]]) / max(item.distance, 1e-6)
    grid = np.zeros((len(_ACROSS), len(_UP), 3))
    grid[..., :2] = centre[:2] + item.radius * _ACROSS[:, None, None] * side
    grid[..., 2] = item.bottom + item.height * _UP
    points = grid.reshape(-1, 3)
    pixels, depth = project(points, pose, camera)
    low, high = view_window(camera, view)
    good = (depth > 0.05) & (pixels >= low).all(1) & (pixels < high).all(1)
    for other in objects:
        if other is not item and other.distance < item.distance and good.any():
            good &= ~_hidden(eye, points, other)
    if boxes and good.any():
        good &= ~_slab_test(boxes, eye, points).any(0)
    return float(good.mean())


def view_window(camera: CameraIntrinsics, view: tuple[float, float] | None
                ) -> tuple[np.ndarray, np.ndarray]:
    """Pixel range (low (2,), high (2,)) of a picture that shows the field ``view`` (rad) only."""
    size = np.array([camera.width, camera.height], float)
    if view is None:
        return np.zeros(2), size
    half = np.minimum(camera.focal * np.tan(0.5 * np.array(view)), 0.5 * size)
    return 0.5 * size - half, 0.5 * size + half


def _hidden(eye: np.ndarray, points: np.ndarray, blocker: SceneObject) -> np.ndarray:
    """Whether the upright cylinder of ``blocker`` cuts the lines from ``eye`` to ``points``."""
    step = points - eye
    to = np.array(blocker.position[:2]) - eye[:2]
    length2 = np.maximum((step[:, :2] ** 2).sum(1), 1e-9)
    along = np.clip((step[:, :2] @ to) / length2, 0.0, 1.0)
    gap = np.hypot(*(along[:, None] * step[:, :2] - to).T)
    height = eye[2] + along * step[:, 2]
    within = (height < blocker.bottom + blocker.height) & (height > blocker.bottom - 1e-9)
    return (gap < blocker.radius) & within & (along < 1.0)


def _slab_test(boxes: Sequence[Box], start: np.ndarray, ends: np.ndarray,
               margin: float | None = None) -> np.ndarray:
    """
    Whether segments from ``start`` (3,) to ``ends`` (N, 3) pass through boxes, (boxes, N).

    Kay and Kajiya's slab test (1986).  With ``margin`` (m) boxes are that much wider to all
    sides and have no top nor bottom.
    """
    yaw = np.array([box.yaw for box in boxes])
    cy, sy, zero = np.cos(yaw), np.sin(yaw), np.zeros(len(yaw))
    turn = np.stack([cy, sy, zero, -sy, cy, zero, zero, zero, zero + 1], 1).reshape(-1, 3, 3)
    half = np.array([box.half for box in boxes])
    if margin is not None:
        half = np.stack([half[:, 0] + margin, half[:, 1] + margin, zero + 10.0], axis=1)
    origin = (turn @ (start - np.array([box.position for box in boxes]))[..., None])[..., 0]
    step = (ends - start) @ np.swapaxes(turn, 1, 2)
    step = np.where(np.abs(step) < 1e-9, 1e-9, step)
    near, far = (-half - origin)[:, None] / step, (half - origin)[:, None] / step
    enter, leave = np.minimum(near, far).max(-1), np.maximum(near, far).min(-1)
    # What stands a hair's breadth before the end is the thing that is looked at.
    return (enter <= leave) & (leave > 0.0) & (enter < 0.999)


def clear_of_boxes(place: np.ndarray, boxes: Sequence[Box], body: float) -> bool:
    """Whether a body of radius ``body`` (m) walks straight to ``place`` (2,), boxes untouched."""
    boxes = [box for box in boxes if box.position[2] - box.half[2] < 1.9]  # others: overhead
    if not boxes:
        return True
    end = np.array([[place[0] + 1e-3, place[1], 0.5]])
    return not _slab_test(boxes, np.array([0.0, 0.0, 0.5]), end, body).any()


def clear_way(objects: tuple[SceneObject, ...], body: float = 0.3) -> np.ndarray:
    """Whether a body of radius ``body`` (m) walks to each object's stop point untouched."""
    result = np.ones(len(objects), bool)
    for i, item in enumerate(objects):
        stop = item.stop_pose()[:2]
        length2 = max(float(stop @ stop), 1e-9)
        for other in objects:
            if other is item:
                continue
            to = np.array(other.position[:2])
            along = np.clip(float(stop @ to) / length2, 0.0, 1.0)
            if np.hypot(*(along * stop - to)) < other.radius + body:
                result[i] = False
    return result
