# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Recorded actions from rest to rest: the clips of :mod:`egomotion_ros.data.clips`.

The clip is played with a rate that rises from zero and falls to zero again, while the pose is
blended from a recorded standing pose into the clip and back.  Wherever the clip has a foot on the
floor, that foot stands where it was put down; a foot that stands elsewhere than the clip wants it
takes a step.  Legs are solved for these feet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egomotion_ros.body.contacts import detect_contacts
from egomotion_ros.body.edits import canonicalize, mirror
from egomotion_ros.body.features import heading
from egomotion_ros.body.kinematics import forward_kinematics, global_pose
from egomotion_ros.body.rotations import interpolate, wrap_angle, yaw_matrix
from egomotion_ros.body.skeleton import FOOT_HEIGHTS, LEG_LENGTH
from egomotion_ros.data.clips import Clip
from egomotion_ros.data.gait import Posture
from egomotion_ros.data.synthesis_body import unrest
from egomotion_ros.data.synthesis_legs import lower_to_reach, pin_legs
from egomotion_ros.data.synthesis_steps import (
    FRAMES,
    TOE_AHEAD,
    FeetPlan,
    minimum_jerk,
    planted,
    toe_drop,
)
from egomotion_ros.data.unrest import Unrest
from egomotion_ros.types import FPS, HumanMotion

_ANKLES, _TOES = (7, 8), (10, 11)
#: Seconds in which a clip gets under way and comes to rest, by action.
_RAMPS = {'kick': (0.5, 0.7), 'jump': (0.45, 0.6), 'bend': (0.5, 0.5), 'run_forward': (0.55, 0.7)}
#: Frames a step takes that the clip does not have, and how far it may lie off without one (m).
_STEP, _NEAR = 11, 0.03


@dataclass
class _Stance:
    """A foot on the floor from frame ``first`` to ``last``: where its flat ankle is, and yaw."""

    first: int
    last: int
    place: np.ndarray
    yaw: float


def clip_motion(clip: Clip) -> HumanMotion:
    """The clip as it was recorded."""
    return HumanMotion(clip.root, clip.rotations, clip.contacts)


def mirrored(clip: Clip) -> Clip:
    """The clip with left and right swapped."""
    motion = mirror(clip_motion(clip))
    return Clip(clip.action, motion.root_position, motion.rotations, motion.contacts,
                1 - clip.side if clip.side >= 0 else -1, clip.performance, clip.split)


def stretched(clip: Clip, distance: float) -> Clip:
    """The clip with its way over the floor scaled to ``distance`` (m) along its own direction."""
    way = clip.root[-1, :2] - clip.root[0, :2]
    length = float(np.hypot(*way))
    along = way / length
    root = clip.root.copy()
    travelled = (root[:, :2] - root[0, :2]) @ along
    root[:, :2] += (distance / length - 1) * travelled[:, None] * along
    return Clip(clip.action, root, clip.rotations, clip.contacts, clip.side, clip.performance,
                clip.split)


def synthesise_clip(clip: Clip, posture: Posture, recorded: tuple[Unrest, ...],
                    rng: np.random.Generator) -> HumanMotion:
    """
    Motion of FRAMES frames in the start frame that plays a clip from rest to rest.

    Where the body rests it moves as ``recorded`` ones do that stand.
    """
    time = np.arange(FRAMES) / FPS
    rise, fall = (seconds * rng.uniform(0.9, 1.15) for seconds in _RAMPS[clip.action])
    pace = rng.uniform(0.93, 1.05)
    length = (len(clip.root) - 1) / FPS / pace
    total = length + 0.5 * (rise + fall)
    begin = min(rng.uniform(0.2, 0.6), FRAMES / FPS - 0.4 - total)
    if begin < 0.05:
        raise ValueError(f'{clip.action}: a clip of {length:.1f} s does not fit into a motion')
    end = begin + total
    rate = np.minimum(minimum_jerk((time - begin) / rise), minimum_jerk((end - time) / fall))
    at = np.concatenate([[0], np.cumsum(0.5 * (rate[1:] + rate[:-1]))])
    at *= (len(clip.root) - 1) / at[-1]
    # The pose is the clip's own by the time the body moves at speed.
    share_in = minimum_jerk((time - begin + 0.1) / (0.9 * rise))
    share_out = minimum_jerk((end + 0.1 - time) / (0.9 * fall))
    weight = np.minimum(share_in, share_out)

    left = np.minimum(at.astype(int), len(clip.root) - 2)
    mix = at - left
    root = clip.root[left] + mix[:, None] * (clip.root[left + 1] - clip.root[left])
    turns = interpolate(clip.rotations[left], clip.rotations[left + 1], mix[:, None])
    contacts = clip.contacts.reshape(-1, 2, 2).max(1) > 0.5
    down = contacts[np.rint(at).astype(int)]
    yaw = np.unwrap(heading(clip.rotations[:, 0]))
    if clip.action == 'run_forward':  # stands as it runs: hips swing about the way
        way = clip.root[-1] - clip.root[0]
        yaw = np.full_like(yaw, np.arctan2(way[1], way[0]))
    stand, height, feet_off = _standing(posture, rng)

    standing = np.broadcast_to(stand, turns.shape).copy()
    sway = unrest(standing, rng, recorded)
    early = (time < 0.5 * (begin + end))[:, None, None]
    standing[:, 0] = np.where(early, yaw_matrix(np.asarray(yaw[0])) @ stand[0],
                              yaw_matrix(np.asarray(yaw[-1])) @ stand[0])
    rotations = interpolate(standing, turns, weight[:, None])
    stances, anchors = _stances(clip, at, down, yaw, feet_off, rng)
    path = root.copy()
    for n, (frame, share) in enumerate(((0, share_in), (-1, share_out))):
        path[:, :2] += (1 - share)[:, None] * (anchors[n] - clip.root[frame, :2])
    path[:, 2] = height + weight * (root[:, 2] - height)
    ahead = yaw_matrix(np.where(early[:, 0, 0], yaw[0], yaw[-1]))
    path += (1 - weight)[:, None] * (ahead @ sway[..., None])[..., 0]
    feet = _feet(path, rotations, stances)
    path = lower_to_reach(path, rotations, feet)
    rotations = _free_soles(path, rotations, pin_legs(path, rotations, feet), stances)
    out = detect_contacts(forward_kinematics(path, rotations), FPS)
    return canonicalize(HumanMotion(path, rotations, out, frame_id='start'))[0]


def choose_clip(clips: tuple[Clip, ...], action: str, params: dict[str, float | str],
                rng: np.random.Generator) -> Clip:
    """
    A clip that does ``action``, on the asked side or over the asked way; every other is mirrored.

    ``params``: ``side`` of ``kick``, ``distance`` (m) of ``run_forward``.  ValueError when the
    motion library has none.
    """
    found = [c for c in clips if c.action == action]
    if action == 'run_forward':
        distance = float(params['distance'])
        ways = [float(np.hypot(*(c.root[-1] - c.root[0])[:2])) for c in found]
        near = min((abs(np.log(w / distance)) for w in ways), default=0.0)
        found = [c for c, w in zip(found, ways, strict=True)
                 if abs(np.log(w / distance)) < max(0.22, near + 1e-6)]
    if not found:
        raise ValueError(f'the motion library has no recording of {action}')
    clip = found[int(rng.integers(len(found)))]
    if action == 'kick':
        wanted = ('left', 'right').index(str(params['side']))
        return clip if clip.side == wanted else mirrored(clip)
    return mirrored(clip) if rng.random() < 0.5 else clip


def synthesise_action(clip: Clip, params: dict[str, float | str], posture: Posture,
                      recorded: tuple[Unrest, ...], rng: np.random.Generator) -> HumanMotion:
    """As :func:`synthesise_clip`; runs are led over the asked ``distance`` (m)."""
    if clip.action != 'run_forward':
        return synthesise_clip(clip, posture, recorded, rng)
    distance = float(params['distance']) + rng.normal(0, 0.02)
    state = rng.bit_generator.state
    motion = synthesise_clip(stretched(clip, distance), posture, recorded, rng)
    # Where one stands before and after a clip adds to its way or takes from it.
    rng.bit_generator.state = state
    ended = motion.root_position[-1, 0]
    return synthesise_clip(stretched(clip, distance * distance / ended), posture, recorded, rng)


def _standing(posture: Posture, rng: np.random.Generator
              ) -> tuple[np.ndarray, float, np.ndarray]:
    """Standing pose facing X, its pelvis height and its ankles (2, 2) seen from the pelvis."""
    stand = posture.rotations
    joints = forward_kinematics(np.zeros((1, 3)), stand[None])[0]
    height = FOOT_HEIGHTS[0] + rng.uniform(0.965, 0.978) * LEG_LENGTH - joints[1:3, 2].min()
    ankles = np.array([[-0.06, 0.09], [-0.06, -0.09]]) + rng.uniform(-0.015, 0.015, (2, 2))
    return stand, height, ankles


def _foot_tracks(root: np.ndarray, rotations: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ankles (T, 2, 3), yaw and heel-up pitch (T, 2) of the soles of a motion."""
    joints, turns = global_pose(root, rotations)
    forward = turns[:, list(_ANKLES)] @ np.array([0.0, 0.0, 1.0])
    ahead = heading(rotations[:, 0])[:, None]
    flat = np.hypot(forward[..., 0], forward[..., 1])
    aside = wrap_angle(np.arctan2(forward[..., 1], forward[..., 0]) - ahead)
    pitch = np.arctan2(-forward[..., 2], flat)
    # A heel thrown up behind turns the sole over: past the vertical, not to another yaw.
    over = np.abs(aside) > 0.5 * np.pi
    pitch = np.where(over, np.pi - pitch, pitch)
    aside = np.where(over, wrap_angle(aside + np.pi), aside)
    # Where the sole is upright it has no yaw of its own.
    yaw = np.unwrap(ahead + aside * np.clip(flat / 0.5, 0, 1), axis=0)
    return joints[:, list(_ANKLES)], yaw, pitch


def _stances(clip: Clip, at: np.ndarray, down: np.ndarray, yaw: np.ndarray, feet_off: np.ndarray,
             rng: np.random.Generator) -> tuple[list[list[_Stance]], list[np.ndarray]]:
    """
    When each foot stands where, and the pelvis positions (2,) of standing before and after.

    The person stands before and after over the foot that the clip has on the floor there; the
    other foot steps in from, and back to, its place beside it.
    """
    ankles, soles, pitch = _foot_tracks(clip.root, clip.rotations)
    toes = forward_kinematics(clip.root, clip.rotations)[:, list(_TOES), :2]
    frame = np.rint(at).astype(int)
    moving = np.flatnonzero((at > 0.3) & (at < len(clip.root) - 1.3))
    first, last = int(moving[0]), int(moving[-1])
    stances: list[list[_Stance]] = [[], []]
    for side in range(2):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], down[:, side].astype(int), [0]])))
        for a, b in edges.reshape(-1, 2).tolist():
            rows = np.unique(frame[a:b])
            angle = float(np.median(soles[rows, side]))
            ahead = TOE_AHEAD * np.array([np.cos(angle), np.sin(angle)])
            # The toes stay where they are while the heel comes up.
            flat = np.where((pitch[rows, side] > 0.1)[:, None], toes[rows, side] - ahead,
                            ankles[rows, side, :2])
            stances[side].append(_Stance(a, b - 1, np.median(flat, axis=0), angle))
    anchors = []
    toe_out = np.radians(rng.uniform(3, 8))
    for end, angle in ((0, yaw[0]), (-1, yaw[-1])):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        here = [s for s in range(2) if stances[s]
                and (stances[s][0].first == 0 if end == 0 else stances[s][-1].last == FRAMES - 1)]
        if not here:
            raise ValueError(f'{clip.action}: the clip has no foot on the floor at its ends')
        gaps = [np.linalg.norm(stances[s][end].place - clip.root[end, :2]) for s in here]
        support = here[int(np.argmin(gaps))]
        anchor = stances[support][end].place - turn @ feet_off[support]
        anchors.append(anchor)
        other = 1 - support
        place, sole = anchor + turn @ feet_off[other], angle + toe_out * (1 - 2 * other)
        if end == 0:
            _step_in(stances[other], place, sole, first)
        else:
            _step_out(stances[other], place, sole, last)
    return stances, anchors


def _step_in(stances: list[_Stance], place: np.ndarray, sole: float, moving: int) -> None:
    """Begin a foot's stances, in place, at its place in the standing pose."""
    leave = moving + 4
    if stances and stances[0].first == 0:
        here = stances[0]
        if np.linalg.norm(here.place - place) < _NEAR:
            here.place = place
            return
        if here.last < leave + _STEP + 3:  # it lifts soon anyway: from where the person stood
            here.place, here.yaw = place, sole
            return
        here.first = leave + _STEP
    elif stances and stances[0].first < leave + _STEP:
        stances[0].first = min(leave + _STEP, stances[0].last)
    stances.insert(0, _Stance(0, leave, place, sole))


def _step_out(stances: list[_Stance], place: np.ndarray, sole: float, moving: int) -> None:
    """End a foot's stances, in place, at its place in the standing pose."""
    land = min(moving + 2, FRAMES - 6)
    if stances and stances[-1].last == FRAMES - 1:
        here = stances[-1]
        if np.linalg.norm(here.place - place) < _NEAR:
            here.place = place
            return
        here.last = max(land - _STEP, here.first)
    elif stances:
        land = min(max(land, stances[-1].last + _STEP), FRAMES - 6)
    stances.append(_Stance(land, FRAMES - 1, place, sole))


def _free_soles(path: np.ndarray, pose: np.ndarray, pinned: np.ndarray,
                stances: list[list[_Stance]]) -> np.ndarray:
    """Rotations ``pinned``, with the soles of swinging feet turned as in the ``pose``."""
    recorded, solved = global_pose(path, pose)[1], global_pose(path, pinned)[1]
    frames = np.arange(FRAMES)
    for side, ankle in enumerate(_ANKLES):
        away = np.min([np.maximum(s.first - frames, frames - s.last) for s in stances[side]], 0)
        free = minimum_jerk(away / 5)
        sole = interpolate(solved[:, ankle], recorded[:, ankle], free)
        pinned[:, ankle] = np.swapaxes(solved[:, ankle - 3], -1, -2) @ sole
    return pinned


def _feet(path: np.ndarray, rotations: np.ndarray, stances: list[list[_Stance]]) -> FeetPlan:
    """Ankles that stand still in their stances and follow the pose in between."""
    ankle, yaw, pitch = _foot_tracks(path, rotations)
    for side in range(2):
        offsets = np.zeros((FRAMES, 5))  # ankle, yaw, extra lift
        runs = stances[side]
        for stance in runs:
            rows = slice(stance.first, stance.last + 1)
            held = planted(stance.place, stance.yaw, pitch[rows, side])
            offsets[rows, :3] = held - ankle[rows, side]
            offsets[rows, 3] = wrap_angle(stance.yaw - yaw[rows, side])
        for before, after in zip(runs[:-1], runs[1:], strict=True):
            count = after.first - before.last
            share = minimum_jerk(np.arange(1, count) / count)[:, None]
            rows = slice(before.last + 1, after.first)
            offsets[rows] = offsets[before.last] + share * (offsets[after.first]
                                                            - offsets[before.last])
            # A step the clip does not have is lifted over the floor.
            span = ankle[before.last:after.first + 1, side, 2]
            if np.ptp(span) < 0.06 and np.linalg.norm(after.place - before.place) > _NEAR:
                offsets[rows, 2] += 0.06 * np.sin(np.pi * share[:, 0]) ** 2
        ankle[:, side] += offsets[:, :3]
        yaw[:, side] += offsets[:, 3]
        floor = FOOT_HEIGHTS[2] + np.maximum(toe_drop(pitch[:, side]), FOOT_HEIGHTS[0]
                                             - FOOT_HEIGHTS[2])
        ankle[:, side, 2] = np.maximum(ankle[:, side, 2], floor)
    return FeetPlan(ankle, yaw, pitch)
