# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What recordings get wrong, found and mended or refused before a take may train anything.

Every function says what it did in words; the importer prints them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from egomotion_ros.body.contacts import detect_contacts, joint_speeds
from egomotion_ros.body.edits import heading, slice_frames
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import geodesic_angle, interpolate, wrap_angle
from egomotion_ros.body.skeleton import (
    FOOT_HEIGHTS,
    FOOT_JOINTS,
    JOINT_INDEX,
    REST_PELVIS_HEIGHT,
)
from egomotion_ros.types import HumanMotion

#: Fastest root (m/s): 12 cm in 1/60 s.
MAX_ROOT_SPEED = 7.2
#: Largest tilt of the pelvis (rad) in walking and running.
MAX_TILT = np.deg2rad(60.0)
#: Shortest take (s).
SHORTEST = 1.0
#: A hip that moves up and down less than this (m) was held fixed by the exporter: 0.2 to 0.7 mm in
#: such files, 1.7 mm in a recording of a person who stands and moves the arms.
CONSTANT_HEIGHT = 0.001
#: Fastest turn of a joint (rad/s) that a body can do, with room for noise at 120 fps.
MAX_JOINT_SPEED = np.deg2rad(3600.0)
#: Joints whose glitches do no harm to the rest of the body.
_OUTER = tuple(JOINT_INDEX[n] for n in ('left_foot', 'right_foot', 'left_wrist', 'right_wrist'))
#: Fastest mean speed (m/s) of toes in contact in a walk; good recordings have 0.05 to 0.08.
MAX_SLIDE = 0.15
#: Below these the body stands still (m/s, rad/s, m/s of the feet).
_REST_ROOT, _REST_TURN, _REST_FEET = 0.12, 0.3, 0.2

#: The same answer for walks on known bones (0.97 to 1.01), where it should be 1.
_KNOWN = 0.99

LOCOMOTION = ('walk', 'run')


def tilt(motion: HumanMotion) -> np.ndarray:
    """Angle (T,), rad, between the body's up axis and the vertical."""
    return np.arccos(np.clip(motion.rotations[:, 0, 2, 1], -1.0, 1.0))


def drop_first_jump(motion: HumanMotion) -> tuple[HumanMotion, str]:
    """
    Drop the first frames that are far from what follows.

    Exporters put a T pose there, sometimes blended into the motion over some frames.
    """
    if motion.frames < 12:
        return motion, ''
    step = np.linalg.norm(np.diff(motion.root_position, axis=0), axis=-1)
    turn = geodesic_angle(motion.rotations[:-1], motion.rotations[1:]).max(axis=-1)
    far = (step > max(MAX_ROOT_SPEED / motion.fps, 5 * np.median(step))) | (
        turn > max(np.deg2rad(20.0), 8 * np.median(turn))
    )
    if not far[0]:
        return motion, ''
    # A first frame that jumps is no motion; neither are those that go on from it at such a pace.
    limit = max(np.deg2rad(600.0) / motion.fps, 3 * float(np.median(turn)))
    first = 1
    while first < 10 and turn[first] > limit:
        first += 1
    what = (
        f'{step[0]:.2f} m'
        if step[0] * motion.fps > MAX_ROOT_SPEED
        else (f'{np.rad2deg(turn[0]):.0f} degrees')
    )
    frames = 'first frame' if first == 1 else f'first {first} frames'
    return slice_frames(motion, first, motion.frames), f'{frames} dropped (jump of {what})'


def check_hip_height(motion: HumanMotion) -> None:
    """Raise ValueError where the pelvis height is constant while the body moves."""
    spread = float(np.ptp(motion.root_position[:, 2]))
    moves = float(geodesic_angle(motion.rotations[:1], motion.rotations).max())
    if spread < CONSTANT_HEIGHT and moves > 0.2:
        raise ValueError(f'the hip height is constant (within {1000 * spread:.1f} mm)')


def mend_glitches(motion: HumanMotion) -> tuple[HumanMotion, str]:
    """
    Bridge short glitches of single joints by the shortest arc between the good frames around.

    Wrists and toes, whose markers are lost most often, are bridged over any length; the other
    joints only where the bridge is itself a movement that a body can do.
    """
    steps = _joint_steps(motion)
    rotations, mended = motion.rotations.copy(), 0
    gap = round(0.1 * motion.fps)
    for j in range(1, steps.shape[1]):
        bad = np.flatnonzero(steps[:, j] > MAX_JOINT_SPEED)
        for group in np.split(bad, np.flatnonzero(np.diff(bad) > gap) + 1):
            if not len(group):
                continue
            first, last = int(group[0]), int(group[-1]) + 1
            a, b = rotations[first, j], rotations[last, j]
            speed = float(geodesic_angle(a, b)) * motion.fps / (last - first)
            if j in _OUTER or (last - first <= 2 * gap and speed < MAX_JOINT_SPEED):
                share = np.linspace(0.0, 1.0, last - first + 1)
                rotations[first : last + 1, j] = interpolate(a, b, share)
                mended += 1
    said = f'{mended} joint glitches bridged' if mended else ''
    return replace(motion, rotations=rotations), said


def _joint_steps(motion: HumanMotion) -> np.ndarray:
    """Speeds (T - 1, 22), rad/s, of the joint rotations."""
    return geodesic_angle(motion.rotations[:-1], motion.rotations[1:]) * motion.fps


def cut_jumps(motion: HumanMotion) -> tuple[HumanMotion, str]:
    """Keep the longest stretch without impossible steps of the root or of a joint."""
    step = np.linalg.norm(np.diff(motion.root_position, axis=0), axis=-1) * motion.fps
    inner = [j for j in range(motion.rotations.shape[1]) if j not in _OUTER]
    turn = _joint_steps(motion)[:, inner].max(axis=-1)
    bad = np.flatnonzero((step > MAX_ROOT_SPEED) | (turn > MAX_JOINT_SPEED))
    if not len(bad):
        return motion, ''
    edges = np.concatenate([[0], bad + 1, [motion.frames]])
    longest = int(np.argmax(np.diff(edges)))
    first, last = int(edges[longest]), int(edges[longest + 1])
    seconds = (last - first) / motion.fps
    text = (
        f'{len(bad)} impossible steps (root {step.max():.1f} m/s, joints '
        f'{np.rad2deg(turn.max()):.0f} degrees/s), longest good stretch {seconds:.1f} of '
        f'{motion.frames / motion.fps:.1f} s'
    )
    if seconds < SHORTEST:
        raise ValueError(text)
    return slice_frames(motion, first, last), text


def check_length(motion: HumanMotion) -> None:
    """Raise ValueError for a take shorter than a second."""
    seconds = motion.frames / motion.fps
    if seconds < SHORTEST:
        raise ValueError(f'only {seconds:.2f} s long, {SHORTEST:.0f} s is the least')


def check_tilt(motion: HumanMotion, action: str) -> None:
    """Raise ValueError where a walking or running body leans more than 60 degrees."""
    most = float(tilt(motion).max())
    if action in LOCOMOTION and most > MAX_TILT:
        raise ValueError(
            f'the pelvis tilts by {np.rad2deg(most):.0f} degrees in a take labelled {action}'
        )


def set_floor(motion: HumanMotion) -> tuple[HumanMotion, str]:
    """
    Move a take up or down so that its lowest foot contact stands on z = 0; find the contacts.

    The floor is where the slow feet are: a low percentile of their height above flat standing,
    not the minimum, which is noise.
    """
    positions = forward_kinematics(motion.root_position, motion.rotations, motion.scale)
    feet = positions[:, list(FOOT_JOINTS)]
    height = feet[..., 2] - np.array(FOOT_HEIGHTS) * motion.scale
    speed = joint_speeds(feet, motion.fps)
    lowest = height.min(axis=1)
    slow = np.take_along_axis(speed, height.argmin(axis=1)[:, None], axis=1)[:, 0] < 0.4
    floor = float(np.percentile(lowest[slow] if slow.sum() >= 5 else lowest, 15))
    shift = np.array([0.0, 0.0, floor])
    moved = replace(motion, root_position=motion.root_position - shift)
    contacts = detect_contacts(positions - shift, motion.fps, motion.scale)
    said = f'floor moved by {-floor:+.2f} m' if abs(floor) > 0.15 else ''
    return replace(moved, contacts=contacts), said


def fit_path(motion: HumanMotion) -> tuple[HumanMotion, str]:
    """
    Scale the path of a walk so that its standing feet stand (files that carry no bones).

    The speed of the pelvis must be the negative of the speed of a standing toe relative to it;
    the factor is the least-squares answer.  Toes, not ankles: those roll forward over the foot.
    """
    positions = forward_kinematics(motion.root_position, motion.rotations, motion.scale)
    if motion.frames < 5:
        return motion, ''
    speed = np.gradient(positions[..., :2], 1.0 / motion.fps, axis=0)[1:-1]
    root = speed[:, :1]
    toes = speed[:, list(FOOT_JOINTS[2:])] - root
    touching = (motion.contacts[1:-1, 2:] > 0.5)[..., None]
    weight = float((touching * root**2).sum())
    walked = float(np.linalg.norm(motion.root_position[-1, :2] - motion.root_position[0, :2]))
    if walked < 1.5 or weight <= 0.0:
        return motion, ''
    factor = -float((touching * root * toes).sum()) / weight / _KNOWN
    if abs(factor - 1.0) < 0.015:
        return motion, ''
    factor = float(np.clip(factor, 0.88, 1.12))
    scale = np.array([factor, factor, 1.0])
    moved = replace(motion, root_position=motion.root_position * scale)
    return moved, f'path scaled by {factor:.2f} (bones unknown)'


def check_upright(motion: HumanMotion, action: str) -> None:
    """Raise ValueError where a walking pelvis is never near standing height (wrong unit)."""
    height = float(np.median(motion.root_position[:, 2])) / motion.scale
    if action in LOCOMOTION and not 0.75 < height / REST_PELVIS_HEIGHT < 1.2:
        raise ValueError(f'the pelvis is {height:.2f} m high in a take labelled {action}')


def check_slide(motion: HumanMotion, action: str) -> None:
    """Raise ValueError for a walk whose standing toes slide (treadmills, wrong bones)."""
    positions = forward_kinematics(motion.root_position, motion.rotations, motion.scale)
    toes = joint_speeds(positions[:, list(FOOT_JOINTS[2:]), :2], motion.fps)
    touching = motion.contacts[:, 2:] > 0.5
    if action == 'walk' and touching.any():
        slide = float(toes[touching].mean())
        if slide > MAX_SLIDE:
            raise ValueError(f'standing toes slide at {slide:.2f} m/s in a take labelled {action}')


def describe(motion: HumanMotion) -> dict[str, float | bool]:
    """Speed over the floor, sum of turns, and whether the take starts and ends at rest."""
    ground = motion.root_position[:, :2]
    yaw = heading(motion.rotations[:, 0])
    seconds = max((motion.frames - 1) / motion.fps, 1e-9)
    positions = forward_kinematics(motion.root_position, motion.rotations, motion.scale)
    feet = joint_speeds(positions[:, list(FOOT_JOINTS)], motion.fps).max(axis=1)
    root = joint_speeds(ground[:, None], motion.fps)[:, 0] if motion.frames > 1 else np.zeros(1)
    turning = np.abs(np.gradient(np.unwrap(yaw)) * motion.fps) if motion.frames > 1 else root
    still = (root < _REST_ROOT) & (turning < _REST_TURN) & (feet < _REST_FEET)
    window = max(1, round(0.3 * motion.fps))
    return {
        'speed': float(np.linalg.norm(np.diff(ground, axis=0), axis=-1).sum() / seconds),
        'turn': float(wrap_angle(np.diff(yaw)).sum()),
        'starts_at_rest': bool(still[:window].all()),
        'ends_at_rest': bool(still[-window:].all()),
    }


def stance_speed(motion: HumanMotion) -> float:
    """Mean horizontal speed (m/s) of the foot joints that are in contact; NaN without any."""
    positions = forward_kinematics(motion.root_position, motion.rotations, motion.scale)
    feet = joint_speeds(positions[:, list(FOOT_JOINTS), :2], motion.fps)
    touching = motion.contacts > 0.5
    return float(feet[touching].mean()) if touching.any() else float('nan')
