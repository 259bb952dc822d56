# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Uniform cubic B-splines: the curve a joint trajectory controller makes of positions + velocities.

A ``joint_trajectory_controller`` given positions and velocities interpolates every segment with a
cubic Hermite polynomial.  If the waypoints are taken from a uniform cubic B-spline with control
points ``c`` at the same spacing ``h``::

    p[i] = (c[i-1] + 4 c[i] + c[i+1]) / 6        v[i] = (c[i+1] - c[i-1]) / 2h

then that Hermite curve *is* the B-spline, and three sequences bound it on every instant, because
a B-spline lies in the convex hull of its control points (de Boor, A Practical Guide to Splines,
1978): positions by ``c[i]``, velocities by ``(c[i+1] - c[i]) / h``, accelerations by
``(c[i+1] - 2 c[i] + c[i-1]) / h^2``.  Limits that hold for these numbers hold on the whole curve.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_banded


def waypoints(control: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """
    Positions and velocities (T, J) at the knots of the spline with ``control`` (T + 2, J).

    ``control[i]``, ``control[i + 1]``, ``control[i + 2]`` surround waypoint i; ``step`` seconds.
    """
    before, here, after = control[:-2], control[1:-1], control[2:]
    return (before + 4.0 * here + after) / 6.0, (after - before) / (2.0 * step)


def controls(
    positions: np.ndarray, start_velocity: np.ndarray, end_velocity: np.ndarray, step: float
) -> np.ndarray:
    """
    Control points (T + 2, J) of the spline through ``positions`` (T, J), T >= 2.

    ``start_velocity``, ``end_velocity`` (J,) hold at the first and last knot.
    """
    rows = len(positions)
    band = np.ones((3, rows))
    band[1] = 4.0
    band[0, 1] = band[2, -2] = 2.0
    right = 6.0 * positions
    right[0] += 2.0 * step * start_velocity
    right[-1] -= 2.0 * step * end_velocity
    inner = solve_banded((1, 1), band, right, check_finite=False)
    first = inner[1] - 2.0 * step * start_velocity
    last = inner[-2] + 2.0 * step * end_velocity
    return np.concatenate([first[None], inner, last[None]])


def hermite(
    p0: np.ndarray, v0: np.ndarray, p1: np.ndarray, v1: np.ndarray, u: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Position, velocity and acceleration of cubic Hermite segments at ``u`` in [0, 1].

    ``p0``, ``v0``, ``p1``, ``v1`` (N, J) end values, ``u`` (N, 1), ``step`` seconds a segment.
    """
    u2, u3 = u * u, u * u * u
    jump, a, b = p1 - p0, step * v0, step * v1
    position = p0 + u * a + u2 * (3 * jump - 2 * a - b) + u3 * (a + b - 2 * jump)
    velocity = (a + 2 * u * (3 * jump - 2 * a - b) + 3 * u2 * (a + b - 2 * jump)) / step
    acceleration = (2 * (3 * jump - 2 * a - b) + 6 * u * (a + b - 2 * jump)) / step**2
    return position, velocity, acceleration
