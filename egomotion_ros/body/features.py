# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The motion representation the models see: 140 numbers a frame, nothing lost.

Row t holds, at the rate ``fps``: yaw rate (rad/s) and planar pelvis velocity (m/s, in the heading
frame of row t-1) of the step from t-1 to t, pelvis height (m), the 6D root rotation with the
heading taken out (identity = upright), the 6D rotations of joints 1-21, four foot contacts.
Row 0 repeats the step of row 1, so a row depends on the past only.  Lengths are those of the
package's own skeleton (scale 1).
"""

from __future__ import annotations

from array_api_compat import array_namespace, device
import numpy as np

from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import (
    Array,
    matrix_from_6d,
    matrix_to_6d,
    wrap_angle,
    yaw_matrix,
)
from egomotion_ros.body.skeleton import BODY_TO_WORLD, JOINTS
from egomotion_ros.types import FPS, HumanMotion, PlanarPose

YAW_RATE = slice(0, 1)
VELOCITY = slice(1, 3)
HEIGHT = slice(3, 4)
ROOT_TILT = slice(4, 10)
JOINT_ROTATIONS = slice(10, 10 + 6 * (JOINTS - 1))
CONTACTS = slice(JOINT_ROTATIONS.stop, JOINT_ROTATIONS.stop + 4)
#: Numbers a frame.
FEATURE_DIM = CONTACTS.stop


def heading(rotations: Array) -> Array:
    """
    Heading (...), radians: the angle of the body's forward axis (Z) projected on the floor.

    ``rotations`` are root rotations (..., 3, 3).
    """
    xp = array_namespace(rotations)
    return xp.atan2(rotations[..., 1, 2], rotations[..., 0, 2])


def motion_to_features(motion: HumanMotion) -> np.ndarray:
    """
    Turn a motion into features (T, 140) float64; where it starts is left out.

    Raises ValueError for an empty motion, wrong shapes or numbers that are not finite.
    """
    check_motion(motion)
    root = np.asarray(motion.root_position, dtype=np.float64) / motion.scale
    rotations = np.asarray(motion.rotations, dtype=np.float64)
    frames = motion.frames
    yaw = heading(rotations[:, 0])
    out = np.zeros((frames, FEATURE_DIM))
    if frames > 1:
        step = np.diff(root[:, :2], axis=0) * motion.fps
        c, s = np.cos(yaw[:-1]), np.sin(yaw[:-1])
        out[1:, 0] = wrap_angle(np.diff(yaw)) * motion.fps
        out[1:, 1] = c * step[:, 0] + s * step[:, 1]
        out[1:, 2] = -s * step[:, 0] + c * step[:, 1]
        out[0, :3] = out[1, :3]
    out[:, HEIGHT] = root[:, 2:]
    out[:, ROOT_TILT] = matrix_to_6d(yaw_matrix(-yaw) @ rotations[:, 0] @ BODY_TO_WORLD.T)
    out[:, JOINT_ROTATIONS] = matrix_to_6d(rotations[:, 1:]).reshape(frames, -1)
    out[:, CONTACTS] = motion.contacts
    return out


def features_to_motion(
    features: np.ndarray,
    start: PlanarPose | None = None,
    frame_id: str = 'odom',
    fps: float = FPS,
    scale: float = 1.0,
) -> HumanMotion:
    """
    Turn features (T, 140) into a motion whose row 0 stands at ``start``.

    ``scale`` multiplies root heights and steps and becomes the motion's scale; ``start`` is
    taken as it is.  Raises ValueError for a wrong shape or numbers that are not finite.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or features.shape[1] != FEATURE_DIM or not len(features):
        raise ValueError(f'features: expected (T > 0, {FEATURE_DIM}), got {features.shape}')
    if not np.isfinite(features).all():
        raise ValueError('features: a number is not finite')
    start = PlanarPose() if start is None else start
    position, rotations = feature_pose(features, fps)
    turn = yaw_matrix(np.asarray(start.yaw, dtype=np.float64))
    rotations[:, 0] = turn @ rotations[:, 0]
    position = position @ turn.T * scale + np.array([start.x, start.y, 0.0])
    return HumanMotion(
        root_position=position,
        rotations=rotations,
        contacts=np.clip(features[:, CONTACTS], 0.0, 1.0),
        fps=fps,
        frame_id=frame_id,
        scale=scale,
    )


def last_frame(features: np.ndarray, fps: float = FPS) -> HumanMotion:
    """
    Last frame of :func:`features_to_motion`, at scale 1, without the frames before it.

    Only the path needs those.  Raises ValueError for a number that is not finite.
    """
    features = np.asarray(features, np.float64)
    if not np.isfinite(features).all():
        raise ValueError('features: a number is not finite')
    x, y, yaw = integrate_root(features, fps)
    return features_to_motion(features[-1:], PlanarPose(x[-1], y[-1], yaw[-1]), fps=fps)


def integrate_root(features: Array, fps: float = FPS) -> tuple[Array, Array, Array]:
    """
    Ground path of features (..., T, 140): x, y (m) and yaw (rad), each (..., T), 0 in row 0.

    Batched and differentiable; the start frame of row 0 is the frame of the path.
    """
    xp = array_namespace(features)
    step = features[..., 1:, :3] / fps
    yaw = xp.cumulative_sum(step[..., 0], axis=-1, include_initial=True)
    c, s = xp.cos(yaw[..., :-1]), xp.sin(yaw[..., :-1])
    dx, dy = step[..., 1], step[..., 2]
    x = xp.cumulative_sum(c * dx - s * dy, axis=-1, include_initial=True)
    y = xp.cumulative_sum(s * dx + c * dy, axis=-1, include_initial=True)
    return x, y, yaw


def feature_pose(features: Array, fps: float = FPS) -> tuple[Array, Array]:
    """Root positions (..., T, 3) and rotations (..., T, 22, 3, 3) in the start frame."""
    xp = array_namespace(features)
    lead = features.shape[:-1]
    x, y, yaw = integrate_root(features, fps)
    position = xp.stack([x, y, features[..., HEIGHT.start]], axis=-1)
    # Root tilt and joint rotations stand side by side: one Gram-Schmidt for all 22.
    six = features[..., ROOT_TILT.start : JOINT_ROTATIONS.stop]
    matrices = matrix_from_6d(xp.reshape(six, (*lead, JOINTS, 6)))
    upright = xp.asarray(BODY_TO_WORLD, dtype=features.dtype, device=device(features))
    root = yaw_matrix(yaw) @ matrices[..., 0, :, :] @ upright
    rotations = xp.concat([root[..., None, :, :], matrices[..., 1:, :, :]], axis=-3)
    return position, rotations


def feature_positions(features: Array, fps: float = FPS) -> Array:
    """
    Joint positions (..., T, 22, 3) in the start frame of features (..., T, 140).

    NumPy or torch, batched and differentiable: what a training loss on positions uses.
    """
    return forward_kinematics(*feature_pose(features, fps))


def check_motion(motion: HumanMotion) -> None:
    """Raise ValueError unless shapes fit, all numbers are finite, and fps and scale are > 0."""
    frames = len(motion.root_position)
    if not frames:
        raise ValueError('motion: expected at least one frame, got none')
    for name, shape in (
        ('root_position', (frames, 3)),
        ('rotations', (frames, JOINTS, 3, 3)),
        ('contacts', (frames, 4)),
    ):
        value = np.asarray(getattr(motion, name))
        if value.shape != shape:
            raise ValueError(f'motion.{name}: expected shape {shape}, got {value.shape}')
        if not np.isfinite(value).all():
            raise ValueError(f'motion.{name}: a number is not finite')
    for name in ('fps', 'scale'):
        value = getattr(motion, name)
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f'motion.{name}: expected a number > 0, got {value}')
