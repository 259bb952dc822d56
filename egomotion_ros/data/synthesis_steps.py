# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Where the pelvis goes and where the feet are put down, before any pose exists.

:func:`plan_root` lays a smooth path from rest to rest; :func:`plan_feet` places alternating steps
along it.  A planted foot does not move; its heel lifts by turning about the toes, and the swing
follows the profile of a recorded stride.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from egomotion_ros.body.rotations import wrap_angle
from egomotion_ros.body.skeleton import FOOT_HEIGHTS, OFFSETS
from egomotion_ros.data.gait import SAMPLES, Stride
from egomotion_ros.types import FPS, PLAN_WINDOWS, WINDOW

#: Frames of one synthesised motion: whole windows of the models.
FRAMES = PLAN_WINDOWS * WINDOW
_ANKLE_HEIGHT = FOOT_HEIGHTS[0]
#: Ankle to toe joint on the floor plan when the foot is flat: ahead, and down (m).
TOE_AHEAD, _TOE_DOWN = float(OFFSETS[10, 2]), float(-OFFSETS[10, 1])
#: Latest moment at which the body is at rest again (s).
_LATEST = 4.75
#: How far the toe joint of a swinging foot is at the least above the floor in mid-swing (m).  Of
#: 0.01, 0.02, 0.03 and 0.04 this made walks slide as recorded ones do (ratio 1.04, before 1.29).
CLEARANCE = 0.03
#: Quickest steps (s each), and rotation one step can bring (rad).
_STEP_TIME, _STEP_TURN = 0.42, np.radians(38)


@dataclass(frozen=True)
class RootPlan:
    """
    Planned pelvis and gait clock, FRAMES rows.

    ``position`` (T, 2) m, ``yaw`` (T,) rad, ``amplitude`` (T,) share of the recorded stride in
    the pose (0: standing), ``clock`` (T,) strides; ``steps`` rows (foot 0 left | 1 right,
    lift-off, landing) on that clock.
    """

    position: np.ndarray
    yaw: np.ndarray
    amplitude: np.ndarray
    clock: np.ndarray
    steps: np.ndarray


@dataclass(frozen=True)
class FeetPlan:
    """Ankle positions (T, 2, 3), sole yaw (T, 2) and heel-up pitch (T, 2); sides left, right."""

    ankle: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray


def minimum_jerk(share: np.ndarray) -> np.ndarray:
    """Rest-to-rest progress 0..1 of least jerk at time shares (Flash and Hogan, 1985)."""
    t = np.clip(share, 0.0, 1.0)
    return t ** 3 * (10 - 15 * t + 6 * t ** 2)


def plan_root(goal: np.ndarray, stride: Stride, rng: np.random.Generator,
              straight: bool) -> RootPlan:
    """
    Path from the origin (facing X) to ``goal`` (x, y, yaw) that begins and ends at rest.

    ``straight`` keeps the path on the line to the goal and the yaw on its minimum-jerk curve;
    otherwise the path bows gently and the heading follows it.
    """
    way, turn = float(np.hypot(goal[0], goal[1])), float(goal[2])
    speed = rng.uniform(0.85, 1.1) * min(max(stride.speed, 0.85), 1.2)
    ramp = rng.uniform(0.6, 0.9)
    speed = min(speed, max(way, 1e-3) / (1.4 * ramp))
    step_length = 0.5 * stride.length * np.sqrt(max(speed, 0.3) / stride.speed)
    count = max(2, int(np.ceil(way / (0.85 * step_length) + 0.9)),
                int(np.ceil(abs(turn) / _STEP_TURN)) + 1)
    duration = max(way / speed + ramp, abs(turn) / np.radians(rng.uniform(60, 90)) + 0.4,
                   count * rng.uniform(0.48, 0.56))
    begin = rng.uniform(0.1, 0.5)
    begin = min(begin, max(_LATEST - duration, 0.05))
    duration = min(duration, _LATEST - begin)
    count = max(2, min(count, int(duration / _STEP_TIME)))

    time = np.arange(FRAMES) / FPS
    share = (time - begin) / duration
    edge = np.clip(ramp / duration, 0.15, 0.5)
    pace = minimum_jerk(share / edge) * minimum_jerk((1 - share) / edge)
    travelled = np.concatenate([[0], np.cumsum(0.5 * (pace[1:] + pace[:-1]))])
    travelled /= travelled[-1]
    if straight or way < 0.3:
        position = travelled[:, None] * goal[:2]
        # A person turns towards the goal first and walks on then.
        share_turn = share if way < 0.3 else (time - begin) / min(duration, 1.1)
        yaw = turn * minimum_jerk(share_turn)
    else:
        position, yaw = _bowed_path(goal, travelled, time, begin, rng)
    velocity = np.hypot(*np.gradient(position, 1 / FPS, axis=0).T)
    spin = np.abs(np.gradient(yaw, 1 / FPS))
    amplitude = np.maximum(np.minimum(velocity / stride.speed, 1.1) ** 0.8,
                           0.3 * np.minimum(spin / 1.2, 1.0))
    amplitude = gaussian_filter1d(amplitude, 2.0)

    steps = _step_clock(stride, count, int(turn < 0) if abs(turn) > 0.15 else
                        int(rng.integers(2)))
    # Feet begin a little before the pelvis and come to rest a little after it.
    stepping = (time > begin - 0.08) & (time < begin + duration + 0.12)
    rate = np.where(stepping, 0.85 + 0.15 * pace, 0.0)
    clock = np.concatenate([[0], np.cumsum(0.5 * (rate[1:] + rate[:-1]))])
    clock = steps[0, 1] + clock / clock[-1] * (steps[-1, 2] - steps[0, 1])
    return RootPlan(position, yaw, amplitude, clock, steps)


def _bowed_path(goal: np.ndarray, travelled: np.ndarray, time: np.ndarray, begin: float,
                rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cubic Bezier that ends along the goal's yaw, and the heading that follows it."""
    way = np.hypot(goal[0], goal[1])
    bearing = np.arctan2(goal[1], goal[0])
    leave = bearing * rng.uniform(0.35, 0.95)
    reach = way * rng.uniform(0.2, 0.35)
    points = np.array([
        [0.0, 0.0], [reach * np.cos(leave), reach * np.sin(leave)],
        [goal[0] - reach * np.cos(goal[2]), goal[1] - reach * np.sin(goal[2])], goal[:2]])
    t = np.linspace(0, 1, 200)[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t ** 2 * (1 - t), t ** 3], 1)
    curve = weights @ points
    chord = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(curve, axis=0).T))])
    at = travelled * chord[-1]
    position = np.stack([np.interp(at, chord, curve[:, k]) for k in range(2)], axis=1)
    tangent = np.gradient(curve, axis=0)
    angle = np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0]))
    yaw = np.interp(at, chord, angle)
    yaw = yaw * minimum_jerk((time - begin) / rng.uniform(0.8, 1.2))
    return position, gaussian_filter1d(yaw, 2.0, mode='nearest')


def _step_clock(stride: Stride, count: int, first: int) -> np.ndarray:
    """Rows (foot, lift-off, landing) of ``count`` alternating steps on the stride's clock."""
    rows = []
    now = stride.swing[first, 0] - 1e-6
    foot = first
    for _ in range(count):
        off, land = stride.swing[foot]
        whole = np.ceil(now - off)
        rows.append((foot, off + whole, land + whole))
        now = off + whole
        foot = 1 - foot
    return np.array(rows)


def plan_feet(root: RootPlan, stride: Stride, rng: np.random.Generator) -> FeetPlan:
    """Put the steps of a root plan on the floor."""
    width, toe_out = rng.uniform(0.075, 0.105), np.radians(rng.uniform(2, 9))
    # A standing body's weight is over the middle of its feet: ankles stand behind the pelvis.
    behind, stagger = rng.uniform(0.045, 0.075), rng.uniform(-0.04, 0.04, 2)
    frames = np.arange(FRAMES)
    clock = root.clock + 1e-9 * frames  # strictly increasing, to be inverted
    ankle, yaw, pitch = (np.zeros((FRAMES, 2, 3)), np.zeros((FRAMES, 2)),
                         np.zeros((FRAMES, 2)))
    phase = (root.clock % 1.0) * SAMPLES
    for side in range(2):
        steps = root.steps[root.steps[:, 0] == side]
        lands = [-np.inf, *steps[:, 2]]
        offs = [*steps[:, 1], np.inf]
        places, yaws = [], []
        for i, (land, off) in enumerate(zip(lands, offs, strict=True)):
            ends = np.interp([land, off], clock, frames)
            last_pair = off == np.inf
            at = np.array([ends[1]] * 2 if last_pair else [ends[0]] * 2 if i == 0 else ends)
            share = np.clip(stride.footing[side], 0.25, 0.5)
            weight = np.array([1 - share, share])
            centre = np.array([np.interp(at, frames, root.position[:, k]) @ weight
                               for k in range(2)])
            angle = float(np.interp(at, frames, root.yaw).mean())
            lean = (stagger[side] - behind) * (i == 0 or last_pair)
            left = np.array([-np.sin(angle), np.cos(angle)]) * width * (1 - 2 * side)
            places.append(centre + left + lean * np.array([np.cos(angle), np.sin(angle)]))
            yaws.append(angle + toe_out * (1 - 2 * side))
        wave = np.interp(phase, np.arange(SAMPLES + 1),
                         np.append(stride.pitch[:, side], stride.pitch[0, side]))
        pitch[:, side] = wave * np.minimum(root.amplitude, 1.0)
        _follow(ankle[:, side], yaw[:, side], pitch[:, side], places, yaws, steps, stride, side,
                root)
    return FeetPlan(ankle, yaw, pitch)


def _follow(ankle: np.ndarray, yaw: np.ndarray, pitch: np.ndarray, places: list[np.ndarray],
            yaws: list[float], steps: np.ndarray, stride: Stride, side: int,
            root: RootPlan) -> None:
    """Fill one foot's rows: planted at each place, swinging in between."""
    clock = root.clock
    number = np.searchsorted(steps[:, 1], clock, 'right')  # steps begun so far
    # A foot that has not lifted yet in this stance may already raise its heel.
    for i, (place, angle) in enumerate(zip(places, yaws, strict=True)):
        rows = number == i
        if i > 0:
            rows &= clock >= steps[i - 1, 2]
        if not rows.any():
            continue
        if 0 < i == len(steps):  # the last stance: let the foot come down flat
            pitch[rows] *= np.clip(1 - 4 * (clock[rows] - steps[i - 1, 2]), 0, 1)
        ankle[rows] = planted(place, angle, pitch[rows])
        yaw[rows] = angle
    for i, (_, off, land) in enumerate(steps):
        rows = (clock >= off) & (clock < land)
        share = (clock[rows] - off) / (land - off)
        grid = np.linspace(0, 1, stride.progress.shape[1])
        profile = minimum_jerk(share)
        way = 0.5 * np.interp(share, grid, stride.progress[side]) + 0.5 * profile
        before = planted(places[i], yaws[i],
                          np.interp([off], clock + 1e-9 * np.arange(len(clock)), pitch))[0]
        after = planted(places[i + 1], yaws[i + 1], np.zeros(1))[0]
        ankle[rows] = before + way[:, None] * (after - before)
        size = np.clip(root.amplitude[rows].max(initial=0.0), 0.35, 1.0)
        ankle[rows, 2] += size * np.interp(share, grid, stride.lift[side])
        yaw[rows] = yaws[i] + wrap_angle(np.asarray(yaws[i + 1] - yaws[i])) * profile
        # Toes stay off the floor while they pass it.
        toe = ankle[rows, 2] - toe_drop(pitch[rows])
        least = FOOT_HEIGHTS[2] + CLEARANCE * np.sin(np.pi * share)
        ankle[rows, 2] += np.maximum(least - toe, 0.0)


def toe_drop(pitch: np.ndarray) -> np.ndarray:
    """Height of the ankle joint over the toe joint at a heel-up pitch (m)."""
    return _TOE_DOWN * np.cos(pitch) + TOE_AHEAD * np.sin(pitch)


def planted(place: np.ndarray, angle: float, pitch: np.ndarray) -> np.ndarray:
    """Ankle (n, 3) over a footprint: fixed while flat or toes-up, about the toes if heel-up."""
    up = np.maximum(pitch, 0.0)
    back = TOE_AHEAD - (TOE_AHEAD * np.cos(up) - _TOE_DOWN * np.sin(up))
    out = np.empty((len(pitch), 3))
    out[:, 0] = place[0] + back * np.cos(angle)
    out[:, 1] = place[1] + back * np.sin(angle)
    out[:, 2] = FOOT_HEIGHTS[2] + np.maximum(toe_drop(up), _ANKLE_HEIGHT - FOOT_HEIGHTS[2])
    return out
