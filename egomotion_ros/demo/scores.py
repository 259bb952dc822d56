# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's table: how each instruction went, judged on what the robot really did."""

from __future__ import annotations

from dataclasses import dataclass
import math

import mujoco
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from egomotion_ros.body.hands import HAND_LENGTH, HANDS
from egomotion_ros.body.rotations import quaternion_to_matrix
from egomotion_ros.data.scenes import SceneObject
from egomotion_ros.demo.record import Attempt, Visit
from egomotion_ros.evaluation.reach import HOLD, TOUCH, surface_distance
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.limits import check
from egomotion_ros.retarget.quality import configurations, human_feet, robot_feet
from egomotion_ros.types import FPS, RobotMotion

#: A goal is reached within this distance (m) and angle (rad).
NEAR, FACING = 0.5, math.radians(20.0)
#: Seconds a hand must be up to count as a wave.
WAVE = 0.5


@dataclass(frozen=True)
class Score:
    """
    One line of the table.

    ``distance`` m and ``angle`` rad to the goal, None where nothing is judged; of a reach the
    farthest that the named hands stayed from the surface in the best HOLD seconds, no angle;
    ``walked`` m from start to end; ``slide`` of the robot's feet and ``human_slide`` of the
    generated motion (mm a frame, in human size); ``violations`` of joint limits on the 1 kHz
    curves published;
    ``waved`` whether a hand was above its shoulder for WAVE seconds; ``touch`` m that a hand may
    stay from what it reaches for.
    """

    attempt: Attempt
    distance: float | None
    angle: float | None
    walked: float
    slide: float
    human_slide: float | None
    violations: int
    waved: bool = False
    touch: float = TOUCH

    @property
    def reached(self) -> bool | None:
        """Whether the goal was reached; None where it is not judged or was interrupted."""
        if self.distance is None or self.attempt.ending:
            return None
        if self.attempt.item is not None:
            return self.distance <= self.touch
        if self.attempt.action == 'wave' and not self.waved:
            return False
        return self.distance <= NEAR and self.angle <= FACING


def planar(position: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """Return x, y, yaw (3,) of a base pose."""
    forward = quaternion_to_matrix(np.asarray(quaternion))[:, 0]
    return np.array([position[0], position[1], math.atan2(forward[1], forward[0])])


def score(visit: Visit, attempt: Attempt, robot: RobotDescription) -> Score:
    """Judge one attempt."""
    begin = planar(*visit.at(attempt.asked)[1:])
    end = planar(*visit.at(attempt.ended)[1:])
    distance = angle = None
    if attempt.goal is not None:
        distance = float(np.hypot(*(end - attempt.goal)[:2]))
        angle = abs((end[2] - attempt.goal[2] + math.pi) % (2 * math.pi) - math.pi)
    done = visit.executed(attempt.asked, attempt.ended, robot.joint_names, FPS)
    if attempt.item is not None and not attempt.error:
        distance = hand_gap(robot, done, attempt.side, attempt.item)
    sent = [s for s in visit.sent if attempt.asked <= s.start <= attempt.ended
            or s.plan_id == attempt.plan_id]
    return Score(
        attempt, distance, angle, float(np.hypot(*(end - begin)[:2])),
        robot_feet(robot, done).slide,
        human_feet(attempt.human).slide if attempt.human is not None else None,
        sum(check(s.motion, robot.limits).total for s in sent), raised_hand(robot, done) >= WAVE,
        TOUCH * robot.scale)


def hand_gap(robot: RobotDescription, motion: RobotMotion, side: str,
             item: SceneObject) -> float | None:
    """
    How near (m) all hands ``side`` came to an object and stayed for HOLD seconds.

    The room is as large as the robot: ``item`` in human metres.  The palm is beyond the wrist
    along the forearm as far as a person's, in the robot's size.  None for a robot without arms.
    """
    bodies = {link.joint: link.body for link in robot.links}
    names = [f'{part}_{joint}' for part in (('left', 'right')[hand] for hand in HANDS[side])
             for joint in ('elbow', 'wrist')]
    if not set(names) <= bodies.keys():
        return None
    model = robot.kinematics
    data = mujoco.MjData(model)
    places = []
    for qpos in configurations(robot, motion, model):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        places.append([data.body(bodies[name]).xpos.copy() for name in names])
    joints = np.array(places).reshape(len(places), -1, 2, 3) / robot.scale
    along = joints[:, :, 1] - joints[:, :, 0]
    palms = joints[:, :, 1] + HAND_LENGTH * along / np.linalg.norm(along, axis=-1, keepdims=True)
    away = np.abs(surface_distance(palms, item)).max(axis=1)
    rows = min(math.ceil(HOLD / motion.step_dt), len(away))
    return float(sliding_window_view(away, rows).max(axis=1).min()) * robot.scale


def raised_hand(robot: RobotDescription, motion: RobotMotion) -> float:
    """Return for how many seconds a wrist was above the shoulder of its side."""
    bodies = {link.joint: link.body for link in robot.links}
    pairs = [(bodies[f'{side}_wrist'], bodies[f'{side}_shoulder']) for side in ('left', 'right')
             if {f'{side}_wrist', f'{side}_shoulder'} <= bodies.keys()]
    model = robot.kinematics
    data = mujoco.MjData(model)
    rows = 0
    for qpos in configurations(robot, motion, model):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        rows += any(data.body(wrist).xpos[2] > data.body(shoulder).xpos[2]
                    for wrist, shoulder in pairs)
    return rows * motion.step_dt


def table(scores: list[Score], judged: bool) -> str:
    """Return the scores as text; ``judged`` False leaves the goal out."""
    head = ['instruction', 'primitives', 'reason', 'generate', 'retarget']
    head += ['goal', 'off by'] if judged else ['moved']
    head += ['foot slide', 'limits']
    rows = [head, ['', '', 'ms', 'ms', 'ms', *(['', ''] if judged else ['']), 'mm/frame',
                   'violated']]
    for item in scores:
        attempt = item.attempt
        spent = [f'{attempt.milliseconds[stage]:.0f}' if attempt.milliseconds else '-'
                 for stage in ('reason', 'generate', 'retarget')]
        row = [shorten(attempt.instruction, 34), tokens(attempt.tokens), *spent]
        if judged:
            off = '-' if item.distance is None else f'{item.distance:.2f} m'
            if item.angle is not None:
                off += f' {math.degrees(item.angle):3.0f} deg'
            row += [verdict(item), off]
        else:
            row += [f'{item.walked:.2f} m']
        ratio = '' if not item.human_slide else f' ({item.slide / item.human_slide:.1f}x)'
        rows.append([*row, f'{item.slide:.2f}{ratio}', str(item.violations)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
             for row in rows]
    lines.insert(2, '-' * (sum(widths) + 2 * (len(widths) - 1)))
    return '\n'.join(lines)


def verdict(item: Score) -> str:
    """Return one word on how an attempt ended."""
    if item.attempt.error:
        return 'refused'
    if item.attempt.ending:
        return item.attempt.ending
    return {True: 'reached', False: 'missed', None: '-'}[item.reached]


def tokens(codes: tuple[int, ...], shown: int = 6) -> str:
    """Return the first base codes of a plan."""
    text = ' '.join(map(str, codes[:shown]))
    return f'{text} ..' if len(codes) > shown else text or '-'


def shorten(text: str, length: int) -> str:
    """Return ``text`` in at most ``length`` characters."""
    return text if len(text) <= length else f'{text[:length - 2]}..'
