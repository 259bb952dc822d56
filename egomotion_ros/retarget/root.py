# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The floating base between the rows of a motion: smooth orientation curves and their twist."""

from __future__ import annotations

import numpy as np

from egomotion_ros.body.rotations import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_quaternion,
    transpose,
)
from egomotion_ros.retarget.spline import hermite


def _skew(vector: np.ndarray) -> np.ndarray:
    """Matrices (..., 3, 3) that stand for the cross product with (..., 3)."""
    out = np.zeros((*vector.shape, 3))
    x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -z, y, -x
    out[..., 1, 0], out[..., 2, 0], out[..., 2, 1] = z, -y, x
    return out


def _right_jacobian(vector: np.ndarray, inverse: bool) -> np.ndarray:
    """
    Matrices (N, 3, 3) from the rate of a rotation vector (N, 3) to its body-frame velocity.

    Chirikjian, Stochastic Models, Information Theory, and Lie Groups, 2012, section 10.6.
    """
    angle = np.linalg.norm(vector, axis=-1)[:, None, None]
    safe = np.maximum(angle, 1e-4)  # below, the terms differ from their limits by 1e-9
    k = _skew(vector)
    if inverse:
        factor = 1.0 / safe**2 - (1.0 + np.cos(safe)) / (2.0 * safe * np.sin(safe))
        return np.eye(3) + 0.5 * k + factor * (k @ k)
    return (
        np.eye(3) - (1.0 - np.cos(safe)) / safe**2 * k + (safe - np.sin(safe)) / safe**3 * (k @ k)
    )


def orientation_between(
    r0: np.ndarray, w0: np.ndarray, r1: np.ndarray, w1: np.ndarray, u: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """
    Orientation (N, 3, 3) and angular velocity (N, 3) on the way from ``r0`` to ``r1``.

    A cubic Hermite curve of the rotation vector relative to ``r0``, so that orientation and
    angular velocity take the values of both ends: ``w0``, ``w1`` (N, 3) in the world frame;
    ``u`` (N, 1) in [0, 1], ``step`` seconds between the ends.  The ends may differ by less
    than half a turn.
    """
    whole = matrix_to_axis_angle(transpose(r0) @ r1)
    rate0 = np.einsum('nji,nj->ni', r0, w0)
    rate1 = np.einsum('nji,nj->ni', r1, w1)
    rate1 = np.einsum('nij,nj->ni', _right_jacobian(whole, inverse=True), rate1)
    vector, rate, _ = hermite(np.zeros_like(whole), rate0, whole, rate1, u, step)
    rotation = r0 @ axis_angle_to_matrix(vector)
    body = np.einsum('nij,nj->ni', _right_jacobian(vector, inverse=False), rate)
    return rotation, np.einsum('nij,nj->ni', rotation, body)


def angular_velocity(
    rotation: np.ndarray, step: float, start: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """
    Angular velocity (T, 3), rad/s in the world frame, of ``rotation`` (T, 3, 3).

    Central differences inside; ``start`` and ``end`` (3,) at the first and last row.
    """
    out = np.empty((len(rotation), 3))
    out[0], out[-1] = start, end
    if len(rotation) > 2:
        turn = matrix_to_axis_angle(rotation[2:] @ transpose(rotation[:-2]))
        out[1:-1] = turn / (2.0 * step)
    return out


def smooth(rotation: np.ndarray) -> np.ndarray:
    """
    Orientations (T, 3, 3) at the knots of a spline with control orientations (T + 2, 3, 3).

    The weighted mean (1, 4, 1) / 6 of a cubic B-spline, taken in the tangent space of the middle.
    """
    back = matrix_to_axis_angle(transpose(rotation[1:-1]) @ rotation[:-2])
    ahead = matrix_to_axis_angle(transpose(rotation[1:-1]) @ rotation[2:])
    return rotation[1:-1] @ axis_angle_to_matrix((back + ahead) / 6.0)


def to_quaternions(rotation: np.ndarray) -> np.ndarray:
    """Quaternions (T, 4) xyzw of (T, 3, 3) without a change of sign between rows."""
    out = np.asarray(matrix_to_quaternion(rotation))
    flips = np.cumprod(np.where(np.sum(out[1:] * out[:-1], axis=-1) < 0, -1.0, 1.0))
    out[1:] *= flips[:, None]
    return out
