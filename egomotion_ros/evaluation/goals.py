# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Did a motion do what was asked?  Scores against goals in the start frame, and what chance gets.

A walk reaches its goal when the pelvis ends within 0.5 m of the stop point and faces within 20
degrees of the asked heading.  Rates come with bootstrap intervals; :func:`best_constant` and
:func:`other_object` give the baselines a rate must be read against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egomotion_ros.body.features import heading
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import wrap_angle
from egomotion_ros.data.instructions import ACTIONS, OBJECT_ACTIONS
from egomotion_ros.data.scenes import OBJECT_COLUMNS, stop_pose
from egomotion_ros.types import HumanMotion

#: Farthest the pelvis may end from the goal (m), and largest heading error (rad).
REACH, FACING = 0.5, float(np.radians(20.0))
#: Fastest pelvis in the last frame that counts as standing (m/s).
STILL = 0.2
_SHOULDERS, _WRISTS = (16, 17), (20, 21)


@dataclass(frozen=True)
class GoalScore:
    """
    Outcome of one motion.

    ``reached`` whether the goal's conditions hold; ``distance`` (m) and ``angle`` (rad) of the
    last pelvis pose from the goal; ``speed`` (m/s) of the pelvis at the end; ``waving`` whether a
    raised hand moved (None unless a wave was asked for).
    """

    reached: bool
    distance: float
    angle: float
    speed: float
    waving: bool | None = None

    @property
    def at_rest(self) -> bool:
        """Whether the motion ends standing."""
        return self.speed < STILL

    @property
    def settled(self) -> bool:
        """Whether the goal is reached and the motion ends standing."""
        return self.reached and self.at_rest


def tolerances(action: str, goal: np.ndarray) -> tuple[float, float]:
    """
    Allowed distance (m) and angle (rad) from a goal.

    ``walk_forward`` and ``run_forward`` must get within 40 % of the distance where that is less
    than 0.5 m, so that standing never counts as half a metre walked; ``stand_still`` must stay
    within 0.3 m.
    """
    if action not in ACTIONS:
        raise ValueError(f'action must be one of {ACTIONS}, got {action!r}')
    if action in ('walk_forward', 'run_forward'):
        return min(REACH, 0.4 * float(np.hypot(goal[0], goal[1]))), FACING
    return (0.3 if action == 'stand_still' else REACH), FACING


def score_motion(motion: HumanMotion, action: str, goal: np.ndarray) -> GoalScore:
    """
    Score the last frame of a motion in the start frame against ``goal`` (x, y, yaw).

    Lengths are metres of the motion's own scale.  ValueError for an unknown action, a goal that
    is not three finite numbers or a motion of less than two frames.
    """
    goal = np.asarray(goal, float)
    if goal.shape != (3,) or not np.isfinite(goal).all():
        raise ValueError(f'goal must be three finite numbers (x, y, yaw), got {goal}')
    if motion.frames < 2:
        raise ValueError(f'motion must have at least two frames, got {motion.frames}')
    far, wide = tolerances(action, goal)
    end = motion.root_position[-1, :2]
    distance = float(np.hypot(*(end - goal[:2])))
    angle = float(abs(wrap_angle(np.asarray(heading(motion.rotations[-1, 0]) - goal[2]))))
    speed = float(np.linalg.norm(motion.root_position[-1] - motion.root_position[-2])
                  * motion.fps)
    reached = distance <= far and angle <= wide
    waving = None
    if action == 'wave':
        waving = _waves(motion)
        reached = reached and waving
    return GoalScore(bool(reached), distance, angle, speed, waving)


def _waves(motion: HumanMotion, seconds: float = 0.7) -> bool:
    """Whether one hand is about shoulder-high or higher for some time and moves meanwhile."""
    joints = forward_kinematics(np.asarray(motion.root_position), np.asarray(motion.rotations),
                                motion.scale) / motion.scale
    for shoulder, wrist in zip(_SHOULDERS, _WRISTS, strict=True):
        high = joints[:, wrist, 2] > joints[:, shoulder, 2] - 0.15
        moving = joints[high, wrist] - joints[high, shoulder]
        if high.sum() >= seconds * motion.fps and np.ptp(moving, axis=0).max() > 0.1:
            return True
    return False


def object_goal(action: str, row: np.ndarray) -> np.ndarray:
    """Goal (x, y, yaw) of an object action from the object's row of the object table."""
    if action not in OBJECT_ACTIONS:
        raise ValueError(f'action must be one of {OBJECT_ACTIONS}, got {action!r}')
    named = dict(zip(OBJECT_COLUMNS, map(float, row), strict=True))
    if action == 'turn_to':
        return np.array([0.0, 0.0, named['bearing']])
    return stop_pose(named['bearing'], named['distance'], named['radius'])


def other_object(objects: np.ndarray, target: int, rng: np.random.Generator) -> int:
    """
    Another visible object of the scene, for the baseline that ignores which one was named.

    ``objects`` (6, columns) of one scene; ValueError when there is no other.
    """
    visible = np.flatnonzero(objects[:, OBJECT_COLUMNS.index('visible')] > 0)
    others = visible[visible != target]
    if not len(others):
        raise ValueError(f'the scene shows no object but number {target}')
    return int(rng.choice(others))


def best_constant(goals: np.ndarray, action: str = 'walk_to',
                  candidates: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """
    The one end pose that reaches most goals (N, 3), and the share it reaches.

    This is what a model can get that looks at neither picture nor instruction.  ``candidates``
    (M, 3) are tried, by default the goals themselves; give those of training data to keep the
    baseline honest.
    """
    goals = np.asarray(goals, float).reshape(-1, 3)
    tried = goals if candidates is None else np.asarray(candidates, float).reshape(-1, 3)
    if not len(goals) or not len(tried):
        raise ValueError('best_constant needs at least one goal and one candidate')
    rates = [reached_by(pose, goals, action).mean() for pose in tried]
    best = int(np.argmax(rates))
    return tried[best].copy(), float(rates[best])


def reached_by(pose: np.ndarray, goals: np.ndarray, action: str) -> np.ndarray:
    """Which of ``goals`` (N, 3) a motion reaches that ends at ``pose`` (3,): (N,) bool."""
    limits = np.array([tolerances(action, goal) for goal in goals])
    near = np.hypot(*(goals[:, :2] - pose[:2]).T) <= limits[:, 0]
    return near & (np.abs(wrap_angle(goals[:, 2] - pose[2])) <= limits[:, 1])


def bootstrap_interval(values: np.ndarray, groups: np.ndarray | None = None, seed: int = 0,
                       resamples: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """
    Percentile bootstrap interval of the mean of ``values`` (N,).

    With ``groups`` (N,), scene numbers say, whole groups are drawn, because questions about one
    picture are not independent.  Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f'values must be (N > 0,), got shape {values.shape}')
    if groups is None:
        sums, counts = values, np.ones(len(values))
    else:
        if np.shape(groups) != values.shape:
            raise ValueError(f'groups must be {values.shape}, got {np.shape(groups)}')
        _, index = np.unique(groups, return_inverse=True)
        sums = np.bincount(index, values)
        counts = np.bincount(index).astype(float)
    draws = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def summarise(scores: list[GoalScore], groups: np.ndarray | None = None) -> dict[str, object]:
    """
    Shares of reached goals, of motions at rest and of both, with 95 % intervals; median errors.

    ``settled`` is the share that reaches the goal and ends standing.
    """
    if not scores:
        raise ValueError('no scores to summarise')
    figures: dict[str, object] = {'count': len(scores)}
    for name in ('reached', 'at_rest', 'settled'):
        figures |= share([getattr(score, name) for score in scores], name, groups)
    return figures | {
        'median_distance_m': float(np.median([s.distance for s in scores])),
        'median_angle_deg': float(np.degrees(np.median([s.angle for s in scores]))),
    }


def share(hits: list[bool] | np.ndarray, name: str = 'reached',
          groups: np.ndarray | None = None) -> dict[str, object]:
    """Count, mean of ``hits`` under ``name``, and its 95 % interval under ``name_interval``."""
    values = np.asarray(hits, float)
    return {'count': len(values), name: float(values.mean()),
            f'{name}_interval': bootstrap_interval(values, groups)}
