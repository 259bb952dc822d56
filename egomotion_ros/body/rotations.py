# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Rotations, written once for NumPy and torch against the array API.

Every function takes and gives arrays of one library with any leading dimensions, keeps dtype and
device, and lets gradients flow (no NaN gradient at the identity).  Matrices are (..., 3, 3) and
map child-frame vectors to the parent frame; quaternions are ``xyzw``.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

#: A NumPy array or a torch tensor.
Array = Any


def _norm(x: Array, floor: float = 1e-12) -> Array:
    """Length over the last axis, kept as an axis; its gradient is zero, not NaN, at zero."""
    xp = array_namespace(x)
    square = xp.sum(x * x, axis=-1, keepdims=True)
    zero = square <= floor * floor
    return xp.where(zero, 0.0 * square + floor, xp.sqrt(xp.where(zero, square + 1.0, square)))


def matrix_to_6d(matrix: Array) -> Array:
    """
    Give the first two columns of (..., 3, 3) as (..., 6), first column first.

    Zhou et al., On the Continuity of Rotation Representations in Neural Networks, 2019.
    """
    xp = array_namespace(matrix)
    return xp.concat([matrix[..., :, 0], matrix[..., :, 1]], axis=-1)


def matrix_from_6d(six: Array) -> Array:
    """Orthonormalise (..., 6) by Gram-Schmidt into rotations (..., 3, 3)."""
    xp = array_namespace(six)
    a, b = six[..., :3], six[..., 3:6]
    x = a / _norm(a)
    b = b - xp.sum(x * b, axis=-1, keepdims=True) * x
    y = b / _norm(b)
    return xp.stack([x, y, cross(x, y)], axis=-1)


def cross(a: Array, b: Array) -> Array:
    """Cross product over the last axis of two (..., 3)."""
    xp = array_namespace(a)
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return xp.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def transpose(matrix: Array) -> Array:
    """Swap the last two axes: the inverse of a rotation."""
    return array_namespace(matrix).matrix_transpose(matrix)


def _matrix(rows: list[list[Array]]) -> Array:
    xp = array_namespace(rows[0][0])
    return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_to_matrix(quaternion: Array) -> Array:
    """Turn quaternions (..., 4) xyzw of any length but zero into rotations (..., 3, 3)."""
    q = quaternion / _norm(quaternion)
    x, y, z, w = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    return _matrix(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def matrix_to_quaternion(matrix: Array) -> Array:
    """
    Turn rotations (..., 3, 3) into unit quaternions (..., 4) xyzw with w >= 0.

    Of the four algebraically equal forms, the one with the largest divisor is taken
    (Shepperd, Quaternion from rotation matrix, 1978), so that no angle is badly conditioned.
    """
    xp = array_namespace(matrix)
    m00, m01, m02 = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 0, 2]
    m10, m11, m12 = matrix[..., 1, 0], matrix[..., 1, 1], matrix[..., 1, 2]
    m20, m21, m22 = matrix[..., 2, 0], matrix[..., 2, 1], matrix[..., 2, 2]
    # The symmetric matrix 4 q q^T; its row with the largest diagonal is q up to length and sign.
    rows = _matrix(
        [
            [1 + m00 - m11 - m22, m01 + m10, m02 + m20, m21 - m12],
            [m01 + m10, 1 - m00 + m11 - m22, m12 + m21, m02 - m20],
            [m02 + m20, m12 + m21, 1 - m00 - m11 + m22, m10 - m01],
            [m21 - m12, m02 - m20, m10 - m01, 1 + m00 + m11 + m22],
        ]
    )
    diagonal = xp.stack([rows[..., i, i] for i in range(4)], axis=-1)
    best = xp.argmax(diagonal, axis=-1)
    q = rows[..., 3, :]
    for i in range(3):
        q = xp.where((best == i)[..., None], rows[..., i, :], q)
    q = q / _norm(q)
    return xp.where(q[..., 3:4] < 0, -q, q)


def axis_angle_to_matrix(vector: Array) -> Array:
    """Turn rotation vectors (..., 3), radians, into rotations (..., 3, 3)."""
    xp = array_namespace(vector)
    square = xp.sum(vector * vector, axis=-1, keepdims=True)
    small = square < 1e-8
    angle = xp.sqrt(xp.where(small, square + 1.0, square))
    # Half-angle form; the series serves where the quotient would be 0 / 0.
    scale = xp.where(small, 0.5 - square / 48.0, xp.sin(0.5 * angle) / angle)
    w = xp.where(small, 1.0 - square / 8.0, xp.cos(0.5 * angle))
    return quaternion_to_matrix(xp.concat([vector * scale, w], axis=-1))


def matrix_to_axis_angle(matrix: Array) -> Array:
    """Turn rotations (..., 3, 3) into rotation vectors (..., 3) of at most pi radians."""
    xp = array_namespace(matrix)
    q = matrix_to_quaternion(matrix)
    v, w = q[..., :3], q[..., 3:4]
    square = xp.sum(v * v, axis=-1, keepdims=True)
    small = square < 1e-16
    sine = xp.sqrt(xp.where(small, square + 1.0, square))
    return v * xp.where(small, 2.0 + 0.0 * w, 2.0 * xp.atan2(sine, w) / sine)


def yaw_matrix(yaw: Array) -> Array:
    """Rotations (..., 3, 3) about Z by angles (...), radians."""
    xp = array_namespace(yaw)
    c, s = xp.cos(yaw), xp.sin(yaw)
    zero, one = xp.zeros_like(c), xp.ones_like(c)
    return _matrix([[c, -s, zero], [s, c, zero], [zero, zero, one]])


def geodesic_angle(a: Array, b: Array) -> Array:
    """Angle (...), radians in [0, pi], between rotations (..., 3, 3); exact near 0 and pi."""
    xp = array_namespace(a)
    r = transpose(a) @ b
    skew = xp.stack(
        [
            r[..., 2, 1] - r[..., 1, 2],
            r[..., 0, 2] - r[..., 2, 0],
            r[..., 1, 0] - r[..., 0, 1],
        ],
        axis=-1,
    )
    trace = r[..., 0, 0] + r[..., 1, 1] + r[..., 2, 2]
    return xp.atan2(_norm(skew)[..., 0], trace - 1)


def interpolate(a: Array, b: Array, share: Array) -> Array:
    """
    Go the stated share of the shortest way from rotations ``a`` to ``b`` (slerp).

    ``a``, ``b`` (..., 3, 3); ``share`` broadcasts against (...), 0 gives ``a``, 1 gives ``b``.
    """
    vector = matrix_to_axis_angle(transpose(a) @ b)
    return a @ axis_angle_to_matrix(vector * share[..., None])


def wrap_angle(angle: Array) -> Array:
    """Bring angles (...) into [-pi, pi]."""
    xp = array_namespace(angle)
    return xp.atan2(xp.sin(angle), xp.cos(angle))
