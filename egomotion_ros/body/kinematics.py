# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics of the 22-joint body, one code for NumPy and torch (array API)."""

from __future__ import annotations

from array_api_compat import array_namespace, device

from egomotion_ros.body.rotations import Array
from egomotion_ros.body.skeleton import JOINTS, LEVELS, OFFSETS, PARENTS


def forward_kinematics(
    root_position: Array, rotations: Array, scale: float = 1.0, offsets: Array | None = None
) -> Array:
    """
    Joint positions (..., 22, 3), metres, in the frame of the root.

    ``root_position`` (..., 3); ``rotations`` (..., 22, 3, 3), joint 0 in the world, the others
    relative to their parent; ``scale`` multiplies the bones; ``offsets`` (22, 3) replaces the
    package's own bones.  Raises ValueError where the shapes do not fit.
    """
    return global_pose(root_position, rotations, scale, offsets)[0]


def global_pose(
    root_position: Array, rotations: Array, scale: float = 1.0, offsets: Array | None = None
) -> tuple[Array, Array]:
    """As :func:`forward_kinematics`, with the global rotations (..., 22, 3, 3) as well."""
    xp = array_namespace(root_position, rotations)
    if tuple(rotations.shape[-3:]) != (JOINTS, 3, 3):
        raise ValueError(f'rotations: expected (..., 22, 3, 3), got {tuple(rotations.shape)}')
    if tuple(root_position.shape) != (*rotations.shape[:-3], 3):
        raise ValueError(
            f'root_position: expected {(*rotations.shape[:-3], 3)}, '
            f'got {tuple(root_position.shape)}'
        )
    bones = OFFSETS if offsets is None else offsets
    bones = xp.asarray(bones, dtype=rotations.dtype, device=device(rotations)) * scale
    # Level by level: one product for all joints of a depth instead of one for each joint.
    position, rotation = root_position[..., None, :], rotations[..., :1, :, :]
    positions, globals_ = [position], [rotation]
    for (above, _), (first, last) in zip(LEVELS[:-1], LEVELS[1:], strict=True):
        pick = [PARENTS[j] - above for j in range(first, last)]
        if pick != list(range(rotation.shape[-3])):
            index = xp.asarray(pick, device=device(rotations))
            rotation = xp.take(rotation, index, axis=-3)
            position = xp.take(position, index, axis=-2)
        position = position + (rotation @ bones[first:last, :, None])[..., 0]
        rotation = rotation @ rotations[..., first:last, :, :]
        positions.append(position)
        globals_.append(rotation)
    return xp.concat(positions, axis=-2), xp.concat(globals_, axis=-3)


def to_local(global_rotations: Array) -> Array:
    """Turn global rotations (..., 22, 3, 3) into rotations relative to the parent joint."""
    xp = array_namespace(global_rotations)
    index = xp.asarray(list(PARENTS[1:]), device=device(global_rotations))
    parent = xp.take(global_rotations, index, axis=-3)
    local = xp.matrix_transpose(parent) @ global_rotations[..., 1:, :, :]
    return xp.concat([global_rotations[..., :1, :, :], local], axis=-3)
