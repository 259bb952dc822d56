# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How physical a motion is: slide, contact, penetration, acceleration, jerk; on a robot, more."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
from tqdm import tqdm

from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.evaluation.hml3d import skating_ratio
from egomotion_ros.evaluation.uniegomotion import contact, slide, sole_points
from egomotion_ros.retarget.limits import check
from egomotion_ros.retarget.quality import configurations, human_feet, robot_feet, self_collisions
from egomotion_ros.retarget.retargeter import BLEND, SLOW, Retargeter
from egomotion_ros.retarget.targets import TargetMaker, settle
from egomotion_ros.types import FPS, HumanMotion, RobotMotion


def derivative(points: np.ndarray, fps: float, order: int) -> np.ndarray:
    """Size (T - order, J) of the forward difference of some order, m/s^order, of (T, J, 3)."""
    points = np.asarray(points, np.float64)
    if len(points) <= order:
        raise ValueError(f'expected more than {order} frames, got {len(points)}')
    return np.linalg.norm(np.diff(points, order, axis=0), axis=-1) * fps**order


def acceleration(points: np.ndarray, fps: float = FPS) -> float:
    """Mean size of the second difference over frames and joints (m/s^2)."""
    return float(derivative(points, fps, 2).mean())


def jerk(points: np.ndarray, fps: float = FPS) -> float:
    """Mean size of the third difference over frames and joints (m/s^3), at 30 fps by default."""
    return float(derivative(points, fps, 3).mean())


def penetration(soles: np.ndarray) -> float:
    """Mean over frames of the depth (m) of the deepest point (T, N, 3) under the floor."""
    return float(np.clip(-np.asarray(soles)[..., 2].min(axis=-1), 0.0, None).mean())


def human_physics(motion: HumanMotion) -> dict[str, float]:
    """Figures of one human motion of scale 1, from its 22 joints and the points of its soles."""
    if motion.scale != 1.0:
        raise ValueError(f'expected a motion of scale 1, got {motion.scale:g}')
    joints = forward_kinematics(np.asarray(motion.root_position, np.float64),
                                np.asarray(motion.rotations, np.float64))
    soles, feet = sole_points(motion), human_feet(motion)
    return {'foot slide mm': feet.slide, 'speed of planted ankles m/s': feet.stance_speed,
            'foot slide of joint heights mm': slide(joints),
            'skating ratio': skating_ratio(joints, motion.fps),
            'contact mm (soles)': 1000 * contact(soles),
            'penetration mm (soles)': 1000 * penetration(soles),
            'acceleration m/s2': acceleration(joints, motion.fps),
            'jerk m/s3': jerk(joints, motion.fps)}


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every figure over motions; ValueError without any."""
    if not rows:
        raise ValueError('no motions to average over')
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def at_scale(motion: HumanMotion, scale: float) -> HumanMotion:
    """A motion of scale 1 in the size of a robot."""
    return replace(motion, root_position=motion.root_position * scale, scale=scale)


def tracking_error(retargeter: Retargeter, human: HumanMotion, robot: RobotMotion) -> float:
    """
    Mean distance (m, robot's) of the robot's bodies from where the targets wanted them.

    Over the bodies whose position counts (pelvis, feet, hands); ``robot`` is what
    ``retargeter`` made of ``human`` without a measured start.
    """
    description = retargeter.description
    wanted = TargetMaker(description).make(settle(human, robot.step_dt, SLOW), None, BLEND)
    model = description.kinematics
    data, ids = mujoco.MjData(model), [model.body(link.body).id for link in description.links]
    counts = np.array([link.position > 0 for link in description.links])
    rows = min(len(wanted.positions), robot.steps)
    errors = np.empty((rows, int(counts.sum())))
    for row, qpos in enumerate(configurations(description, robot, model)[:rows]):
        data.qpos = qpos
        mujoco.mj_kinematics(model, data)
        off = data.xpos[ids][counts] - wanted.positions[row, counts]
        errors[row] = np.linalg.norm(off, axis=-1)
    return float(errors.mean())


def robot_physics(retargeter: Retargeter, motions: list[HumanMotion]
                  ) -> tuple[dict[str, object], list[RobotMotion]]:
    """
    Retarget human motions of scale 1; what must not happen, and how well they are followed.

    Limits are checked on the interpolated 1 kHz curve.  Returns figures and the robot's motions.
    """
    if not motions:
        raise ValueError('no motions to retarget')
    description = retargeter.description
    violations, collisions, robots = 0, 0, []
    tracked, slides, sinks = [], [], []
    for motion in tqdm(motions, desc='retarget', unit='motion', mininterval=5):
        scaled = at_scale(motion, description.scale)
        robot = retargeter.retarget(scaled)
        violations += check(robot, description.limits).total
        collisions += self_collisions(description, robot)
        tracked.append(tracking_error(retargeter, scaled, robot))
        feet = robot_feet(description, robot)
        slides.append(feet.slide)
        sinks.append(feet.sinking)
        robots.append(robot)
    return {'robot': description.name, 'motions': len(motions),
            'limit violations': violations, 'self-collision rows': collisions,
            'tracking error mm': 1000 * float(np.mean(tracked)),
            'foot slide mm': float(np.mean(slides)),
            'deepest sole mm': 1000 * float(np.max(sinks))}, robots
