# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How good a retargeted motion is: sliding, sinking and self-collision, next to the human's."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.skeleton import FOOT_HEIGHTS, FOOT_JOINTS
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.robot_model import without_meshes
from egomotion_ros.types import HumanMotion, RobotMotion

#: Heights at which a foot point counts half and less (m): ankles, toes (UniEgoMotion, ICCV 2025).
SLIDE_HEIGHTS = np.array([0.08, 0.08, 0.04, 0.04])
#: Two geoms this deep (m) in each other collide; less is the model's own coarseness.
DEPTH = 0.005


@dataclass(frozen=True)
class FeetQuality:
    """
    Feet of one motion, in the units of a full-size human (robot lengths divided by its scale).

    ``slide`` UniEgoMotion's foot slide (mm a frame); ``stance_speed`` mean horizontal speed of
    the foot in contact (m/s); ``sinking`` deepest point below the floor (m).
    """

    slide: float
    stance_speed: float
    sinking: float


def foot_slide(points: np.ndarray, heights: np.ndarray) -> float:
    """
    UniEgoMotion's foot slide, mm a frame.

    ``points`` (T, 4, 3): left and right ankle, left and right toe; ``heights`` (T, 4) above
    where each is in flat standing.  Mean over the four of 1000 sum(d_xy (2 - 2^(h / H))) / T,
    over the steps that start below H = 0.08 m (ankles), 0.04 m (toes).
    """
    moved = np.linalg.norm(np.diff(points[..., :2], axis=0), axis=-1)
    low = np.clip(heights[:-1], 0.0, None) / SLIDE_HEIGHTS
    weight = np.clip(2.0 - 2.0**low, 0.0, None)
    return float(np.mean(1000.0 * np.sum(moved * weight, axis=0) / len(points)))


def human_feet(motion: HumanMotion) -> FeetQuality:
    """Feet of a human motion of any scale."""
    points = forward_kinematics(motion.root_position, motion.rotations, motion.scale)
    points = points[:, list(FOOT_JOINTS)] / motion.scale
    heights = points[..., 2] - np.array(FOOT_HEIGHTS)
    contacts = motion.contacts.reshape(-1, 2, 2).max(axis=1) >= 0.5
    return FeetQuality(
        slide=foot_slide(points, heights),
        stance_speed=_stance_speed(points[:, :2], contacts, motion.fps),
        sinking=float(np.clip(-heights.min(), 0.0, None)),
    )


def robot_feet(description: RobotDescription, motion: RobotMotion) -> FeetQuality:
    """Feet of a robot motion: its ankles, and the middle of the front edge of its soles."""
    model, data = description.kinematics, mujoco.MjData(description.kinematics)
    bodies = [model.body(foot.body).id for foot in description.feet]
    points = np.empty((motion.steps, 4, 3))
    lowest = np.inf
    for row, qpos in enumerate(configurations(description, motion, model)):
        data.qpos = qpos
        mujoco.mj_kinematics(model, data)
        for side, (body, foot) in enumerate(zip(bodies, description.feet, strict=True)):
            turn = data.xmat[body].reshape(3, 3)
            corners = data.xpos[body] + foot.points @ turn.T
            points[row, side] = data.xpos[body]
            points[row, 2 + side] = corners[2:].mean(axis=0)
            lowest = min(lowest, corners[:, 2].min())
    flat = np.array([foot.sole for foot in description.feet] + [0.0, 0.0])
    points /= description.scale
    heights = points[..., 2] - flat / description.scale
    return FeetQuality(
        slide=foot_slide(points, heights),
        stance_speed=_stance_speed(points[:, :2], motion.contacts >= 0.5, 1.0 / motion.step_dt),
        sinking=max(0.0, -float(lowest)),
    )


def self_collisions(description: RobotDescription, motion: RobotMotion) -> int:
    """
    Rows of ``motion`` in which two bodies of the robot are deeper than DEPTH in each other.

    Pairs that touch in the standing posture or in the T pose already are the model's own and do
    not count; neither do bodies joined by a joint.  Uses the collision geometry with its meshes.
    """
    model = without_meshes(description.spec(), keep_colliding=True)
    data = mujoco.MjData(model)
    where = description.qpos_indices(model)
    own: set[tuple[int, int]] = set()
    for posture in (description.standing, description.t_pose):
        qpos = np.zeros(model.nq)
        qpos[3], qpos[where] = 1.0, posture
        own |= _touching(model, data, qpos, 0.0)
    return sum(
        bool(_touching(model, data, qpos, DEPTH) - own)
        for qpos in configurations(description, motion, model)
    )


def configurations(
    description: RobotDescription, motion: RobotMotion, model: mujoco.MjModel
) -> np.ndarray:
    """The qpos (T, nq) of every row, for a ``model`` that is this robot alone."""
    out = np.zeros((motion.steps, model.nq))
    out[:, :3] = motion.root_position
    out[:, 3:7] = motion.root_quaternion[:, [3, 0, 1, 2]]
    out[:, description.qpos_indices(model)] = motion.positions
    return out


def _touching(
    model: mujoco.MjModel, data: mujoco.MjData, qpos: np.ndarray, depth: float
) -> set[tuple[int, int]]:
    data.qpos = qpos
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_collision(model, data)
    pairs = set()
    for contact in data.contact[: data.ncon]:
        if contact.dist < -depth:
            a, b = (int(model.geom_bodyid[g]) for g in contact.geom)
            pairs.add((min(a, b), max(a, b)))
    return pairs


def _stance_speed(points: np.ndarray, contacts: np.ndarray, fps: float) -> float:
    """Mean speed of the ankles (T, 2, 3) between two rows in contact."""
    speed = np.linalg.norm(np.diff(points[..., :2], axis=0), axis=-1) * fps
    both = contacts[1:] & contacts[:-1]
    return float(speed[both].mean()) if both.any() else 0.0
