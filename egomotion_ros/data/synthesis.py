# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Motions that do what an instruction asks, composed of real motion capture.

The pelvis follows a planned path, the pose is a recorded stride run by the gait clock and blended
towards the performer's standing pose where the body is slow, feet are planted by
:mod:`egomotion_ros.data.synthesis_legs`.  Waving takes the arm of a recorded gesture.
"""

from __future__ import annotations

import numpy as np

from egomotion_ros.body.contacts import detect_contacts
from egomotion_ros.body.edits import canonicalize, ground_pose, mirror
from egomotion_ros.body.hands import HANDS
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import interpolate
from egomotion_ros.data.clips import CLIP_ACTIONS, Clip
from egomotion_ros.data.gait import GaitLibrary
from egomotion_ros.data.instructions import ACTIONS
from egomotion_ros.data.scenes_furnished import reach_targets
from egomotion_ros.data.synthesis_body import choose_posture, pose_body, standing_plan
from egomotion_ros.data.synthesis_clips import choose_clip, synthesise_action
from egomotion_ros.data.synthesis_legs import lower_to_reach, pin_legs
from egomotion_ros.data.synthesis_reach import check_targets, standing_place, synthesise_reach
from egomotion_ros.data.synthesis_steps import FRAMES, minimum_jerk, plan_feet, plan_root
from egomotion_ros.types import FPS, HumanMotion

_RIGHT_ARM = (14, 17, 19, 21)


def action_goal(action: str, params: dict[str, float | str]) -> np.ndarray:
    """
    Where the pelvis should end, ``(x, y, yaw)`` in the start frame.

    ``params``: ``x``, ``y`` (m) of the stop point for ``walk_to`` and ``stop_at``; ``angle`` (rad)
    for ``turn``, ``turn_to`` and ``search``; ``distance`` (m) for ``walk_forward`` and
    ``run_forward``; for ``reach`` :func:`hand_goal`.  Kicks, jumps and bends end where
    they end.  ValueError otherwise.
    """
    try:
        if action in ('walk_to', 'stop_at'):
            x, y = float(params['x']), float(params['y'])
            goal = np.array([x, y, np.arctan2(y, x)])
        elif action in ('turn', 'turn_to', 'search'):
            goal = np.array([0.0, 0.0, float(params['angle'])])
        elif action in ('walk_forward', 'run_forward'):
            goal = np.array([float(params['distance']), 0.0, 0.0])
        elif action == 'reach':
            goal = standing_place(hand_goal(params), str(params['side']))
        elif action in ACTIONS:
            goal = np.zeros(3)
        else:
            raise ValueError(f'action must be one of {ACTIONS}, got {action!r}')
    except KeyError as missing:
        raise ValueError(f'{action} needs the parameter {missing}') from None
    if not np.isfinite(goal).all() or np.hypot(*goal[:2]) > 4.5 or abs(goal[2]) > np.pi + 1e-6:
        raise ValueError(f'{action}: goal {goal} is beyond 4.5 m or half a turn')
    return goal


def hand_goal(params: dict[str, float | str]) -> np.ndarray:
    """
    Hand targets (2, 3) of a ``reach``: left, right, NaN for an idle hand, in the start frame.

    ``params``: ``side``; ``distance`` (m), ``bearing`` (rad) and ``height`` (m) of the touched
    point; for both hands ``apart``, half the distance between them (m).
    """
    side = str(params['side'])
    if side not in HANDS:
        raise ValueError(f'reach: side must be one of {tuple(HANDS)}, got {side!r}')
    return check_targets(reach_targets(
        float(params['distance']), float(params['bearing']), float(params['height']), side,
        float(params.get('apart', 0.12))))


def synthesise(action: str, params: dict[str, float | str], rng: np.random.Generator,
               library: GaitLibrary, split: str, stride_index: int | None = None,
               clip: Clip | None = None) -> HumanMotion:
    """
    Motion of FRAMES frames in the start frame that does ``action``, ending at rest.

    ``library`` gives the blocks, of the performances of ``split`` alone; the same generator state
    gives the same motion.  For ``params`` see :func:`action_goal`; ``wave`` and ``kick`` take
    ``side``.  ``stride_index`` chooses among the strides of the split and ``clip`` the recording
    of CLIP_ACTIONS; by default they are drawn.
    """
    goal = action_goal(action, params)
    blocks = library.of(split)
    if stride_index is None:
        stride_index = int(rng.integers(len(blocks.strides)))
    if action == 'reach':
        return synthesise_reach(hand_goal(params), rng, library, split, stride_index)
    stride = blocks.strides[stride_index]
    posture = choose_posture(stride, blocks, rng)
    if action in CLIP_ACTIONS:
        clip = choose_clip(blocks.clips, action, params, rng) if clip is None else clip
        return synthesise_action(clip, params, posture, blocks.unrest, rng)
    if action in ('stand_still', 'wave'):
        root = standing_plan(stride, rng)
    else:
        root = plan_root(_loosened(goal, action, rng), stride, rng,
                         straight=action not in ('walk_to', 'stop_at'))
    feet = plan_feet(root, stride, rng)
    path, rotations = pose_body(root, feet, stride, posture, blocks, rng)
    if action == 'wave':
        if not blocks.gestures:
            raise ValueError(f'split {split!r} of the motion library has no waving hand')
        gesture = blocks.gestures[int(rng.integers(len(blocks.gestures)))]
        _add_gesture(rotations, gesture.rotations, rng)
    path = lower_to_reach(path, rotations, feet)
    rotations = pin_legs(path, rotations, feet)
    contacts = detect_contacts(forward_kinematics(path, rotations), FPS)
    motion = HumanMotion(path, rotations, contacts, frame_id='start')
    if action == 'wave' and params.get('side', 'right') == 'left':
        motion = mirror(motion)
    return canonicalize(motion)[0]


def end_pose(motion: HumanMotion) -> np.ndarray:
    """Ground pose ``(x, y, yaw)`` of the pelvis in the last frame."""
    pose = ground_pose(motion, -1)
    return np.array([pose.x, pose.y, pose.yaw])


def _loosened(goal: np.ndarray, action: str, rng: np.random.Generator) -> np.ndarray:
    """People stop within a few centimetres and degrees of where they were told."""
    out = goal + rng.normal(0, 1, 3) * [0.01, 0.01, np.radians(1.0)]
    if action in ('turn', 'turn_to', 'search'):
        out[:2] = rng.normal(0, 0.03, 2)
    return out


def _add_gesture(rotations: np.ndarray, clip: np.ndarray, rng: np.random.Generator) -> None:
    """Let the right arm of a clip (T, 22, 3, 3) take over for some seconds, in place."""
    begin, rise, fall = rng.uniform(0.2, 0.6), rng.uniform(0.5, 0.7), rng.uniform(0.6, 0.8)
    end = rng.uniform(3.9, 4.3)
    time = np.arange(FRAMES) / FPS
    weight = minimum_jerk((time - begin) / rise) * minimum_jerk((end + fall - time) / fall)
    weight = np.where(time < end, minimum_jerk((time - begin) / rise), weight)
    # To and fro through the clip, so that it has no seam however long the waving lasts.
    count = len(clip) - 1
    at = np.maximum(time - begin, 0) * FPS * rng.uniform(0.9, 1.1)
    at = count - np.abs(at % (2 * count) - count)
    left = np.minimum(at.astype(int), count - 1)
    arm = list(_RIGHT_ARM)
    moving = interpolate(clip[left][:, arm], clip[left + 1][:, arm], (at - left)[:, None])
    rotations[:, arm] = interpolate(rotations[:, arm], moving, weight[:, None])
