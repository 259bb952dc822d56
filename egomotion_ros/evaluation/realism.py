# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Generated motion against real held-out recordings of the same action and speed.

Clean numbers mean little by themselves: standing still never slides, and a fast walk jerks more
than a slow one.  Motions are therefore cut into windows of one second; every window is named by
what happens in it (stand, gesture, turn, walk) and, for walks, by a band of mean speed; and a
generated window is compared with recorded windows of its own name and band alone.  The same cells
on both sides are weighted as the generated motion fills them.  Intervals come from drawing whole
motions and whole performances, because the windows of one are not independent.

Foot slide is UniEgoMotion's, with h taken above where a joint is when this body stands on it
(:func:`standing`): recorded people wear shoes and their skeletons are fitted, so that their joints
stand one or two centimetres higher than those of a bare skeleton, and their sliding would count
two thirds.  Beside it are stated: h above where the skeleton's joint is in flat standing
(of bare feet); and h the height of the joint itself, as the formula stands in the protocol,
where an ankle that stands at 0.085 m is above H and never counts.

A robot is measured at the points it shares with the human skeleton: the bodies its description
links to joints, ankles and front edges of its soles, all divided by its scale.  What it is
compared with is measured at the same joints.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from egomotion_ros.body.features import heading
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import quaternion_to_matrix, wrap_angle
from egomotion_ros.body.skeleton import FOOT_HEIGHTS, FOOT_JOINTS, JOINT_INDEX, JOINT_NAMES
from egomotion_ros.data.library import MotionLibrary
from egomotion_ros.evaluation.physics import derivative
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.quality import configurations, foot_slide
from egomotion_ros.types import FPS, HumanMotion, RobotMotion

#: Frames of a window and between the starts of two.
WINDOW, HOP = 30, 15
#: Below this speed (m/s) and turn rate (rad/s) a body stands; hands faster than this gesture.
STANDING, TURNING, GESTURING = 0.12, 0.35, 0.3
#: Below this speed (m/s) what turns turns in place.
IN_PLACE = 0.3
#: Borders (m/s) of the speed bands of a walk; a band is named by its lower one.
BANDS = (0.12, 0.4, 0.7, 1.0, 1.3, 1.6, 2.1)
#: Actions of the library whose windows may stand for standing, gestures, turns and walks.
CALM = ('walk', 'signal', 'wash', 'bend', 'stand', 'turn', 'reach')
#: A cell needs this many windows on the recorded side to be compared.
LEAST = 3
#: Figures that are compared, and the ratio the project asks for.
FIGURES = ('foot slide', 'foot slide of bare feet', 'foot slide of joint heights', 'jerk')
GOAL = (0.67, 1.5)
#: A joint of the feet slower than this (m/s) is stood on; so many frames tell how high it is; this
#: is the most that shoes and a fitted skeleton are taken to raise it (m): above it, it floats.
PLANTED, PLANTED_FRAMES, SHOES = 0.1, 10, 0.04
RESAMPLES = 1000


@dataclass(frozen=True)
class Trace:
    """
    What is measured of a motion, in the units of a full-size human.

    ``root`` (T, 3), ``yaw`` (T,), ``points`` (T, J, 3) that jerk is taken of, ``feet`` (T, 4, 3)
    left and right ankle, left and right toe, ``above`` (T, 4) their heights above where each is
    in flat standing, ``hands`` (T, 2, 3); ``clip`` what is drawn as a whole by the bootstrap.
    """

    clip: str
    root: np.ndarray
    yaw: np.ndarray
    points: np.ndarray
    feet: np.ndarray
    above: np.ndarray
    hands: np.ndarray


@dataclass(frozen=True)
class Window:
    """One second of a motion: its cell (action, band) and its figures."""

    clip: str
    cell: str
    figures: tuple[float, ...]


def linked_joints(description: RobotDescription) -> tuple[str, ...]:
    """Joints of the human skeleton that a body of the robot stands for."""
    return tuple(link.joint for link in description.links)


def human_trace(motion: HumanMotion, clip: str, joints: tuple[str, ...] = JOINT_NAMES) -> Trace:
    """Measure a human motion of any scale at ``joints`` (all 22 without)."""
    if motion.fps != FPS:
        raise ValueError(f'expected a motion at {FPS} fps, got {motion.fps:g}')
    points = forward_kinematics(np.asarray(motion.root_position, np.float64),
                                np.asarray(motion.rotations, np.float64),
                                motion.scale) / motion.scale
    feet = points[:, list(FOOT_JOINTS)]
    return Trace(clip, points[:, 0], np.asarray(heading(motion.rotations[:, 0])),
                 points[:, [JOINT_INDEX[name] for name in joints]], feet,
                 feet[..., 2] - np.array(FOOT_HEIGHTS),
                 points[:, [JOINT_INDEX['left_wrist'], JOINT_INDEX['right_wrist']]])


def robot_trace(description: RobotDescription, motion: RobotMotion, clip: str) -> Trace:
    """
    Measure a robot motion at its linked bodies and at its feet, divided by its scale.

    ``feet`` are raised to the heights the human's joints have in flat standing, so that heights of
    joints mean the same for both bodies.
    """
    if abs(motion.step_dt * FPS - 1.0) > 1e-6:
        raise ValueError(f'expected rows 1/{FPS} s apart, got {motion.step_dt:g} s')
    model = description.kinematics
    data = mujoco.MjData(model)
    names = list(linked_joints(description))
    ids = [model.body(link.body).id for link in description.links]
    bodies = [model.body(foot.body).id for foot in description.feet]
    points, feet = np.empty((motion.steps, len(ids), 3)), np.empty((motion.steps, 4, 3))
    for row, qpos in enumerate(configurations(description, motion, model)):
        data.qpos = qpos
        mujoco.mj_kinematics(model, data)
        points[row] = data.xpos[ids]
        for side, (body, foot) in enumerate(zip(bodies, description.feet, strict=True)):
            corners = data.xpos[body] + foot.points @ data.xmat[body].reshape(3, 3).T
            feet[row, side] = data.xpos[body]
            feet[row, 2 + side] = corners[2:].mean(axis=0)
    flat = np.array([foot.sole for foot in description.feet] + [0.0, 0.0])
    points, feet = points / description.scale, feet / description.scale
    above = feet[..., 2] - flat / description.scale
    feet[..., 2] = above + np.array(FOOT_HEIGHTS)
    forward = quaternion_to_matrix(motion.root_quaternion)[..., 0]
    yaw = np.arctan2(forward[:, 1], forward[:, 0])
    hands = points[:, [names.index('left_wrist'), names.index('right_wrist')]]
    return Trace(clip, points[:, names.index('pelvis')], yaw, points, feet, above, hands)


def cell_of(trace: Trace, rows: slice) -> str | None:
    """
    Name what happens in the rows of a trace: stand, gesture, turn, or walk with its band.

    None for what the bands do not hold (a run).
    """
    root, yaw = trace.root[rows, :2], np.unwrap(trace.yaw[rows])
    seconds = (len(root) - 1) / FPS
    speed = float(np.linalg.norm(np.diff(root, axis=0), axis=1).sum() / seconds)
    rate = abs(float(yaw[-1] - yaw[0])) / seconds
    if speed < IN_PLACE and rate >= TURNING:
        return 'turn'
    if speed < STANDING:
        hands = np.diff(trace.hands[rows] - trace.root[rows, None], axis=0)
        fastest = float(np.linalg.norm(hands, axis=-1).mean(axis=0).max()) * FPS
        return 'gesture' if fastest >= GESTURING else 'stand'
    band = int(np.searchsorted(BANDS, speed, 'right')) - 1
    return f'walk {BANDS[band]:.1f} m/s' if band < len(BANDS) - 1 else None


def standing(trace: Trace) -> np.ndarray:
    """
    How much higher than the skeleton's the joints of the feet are when this body stands, (4,) m.

    Median over the frames in which a joint moves at less than PLANTED, SHOES at the most; 0 with
    fewer than PLANTED_FRAMES of them.
    """
    speed = np.linalg.norm(np.diff(trace.feet, axis=0), axis=-1) * FPS
    still = speed < PLANTED
    found = [np.median(trace.above[:-1][rows, k]) if rows.sum() >= PLANTED_FRAMES else 0.0
             for k, rows in enumerate(still.T)]
    return np.clip(found, -SHOES, SHOES)


def windows(trace: Trace) -> list[Window]:
    """Windows of a trace; none of one shorter than a second."""
    out, level = [], standing(trace)
    for first in range(0, len(trace.root) - WINDOW + 1, HOP):
        rows = slice(first, first + WINDOW)
        cell = cell_of(trace, rows)
        if cell is not None:
            feet, above = trace.feet[rows], trace.above[rows]
            out.append(Window(trace.clip, cell, (
                foot_slide(feet, above - level), foot_slide(feet, above),
                foot_slide(feet, feet[..., 2]),
                float(derivative(trace.points[rows], FPS, 3).mean()))))
    return out


def held_out_takes(library: MotionLibrary, splits: tuple[str, ...] = ('val', 'test')
                   ) -> list[tuple[str, HumanMotion]]:
    """Performance and motion of the held-out takes of calm actions (CALM) on a flat floor."""
    found = [(take.performance, take.motion) for split in splits
             for take in library.takes(split=split) if take.action in CALM]
    if not found:
        raise ValueError(f'{library.folder}: the splits {", ".join(splits)} hold no take of '
                         f'{", ".join(CALM)}')
    return found


def _tables(found: list[Window], cells: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sums (clips, cells, figures) and counts (clips, cells) of windows."""
    clips = sorted({w.clip for w in found})
    sums, counts = np.zeros((len(clips), len(cells), len(FIGURES))), np.zeros(
        (len(clips), len(cells)))
    for w in found:
        at = clips.index(w.clip), cells.index(w.cell)
        sums[at] += w.figures
        counts[at] += 1
    return sums, counts


def _ratio(made: tuple[np.ndarray, np.ndarray], real: tuple[np.ndarray, np.ndarray]
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Ratio and both means, (..., figures) each, over the cells both sides have.

    Sides are sums (..., cells, figures) and counts (..., cells); cells are weighted as ``made``
    fills them; not a number where no cell is on both sides.
    """
    (sums, counts), (true_sums, true_counts) = made, real
    weight = counts * ((counts > 0) & (true_counts > 0))
    weight = weight / np.where(weight.any(axis=-1), weight.sum(axis=-1), np.nan)[..., None]
    ours, theirs = (np.einsum('...c,...cf->...f', weight, s / np.maximum(c, 1)[..., None])
                    for s, c in ((sums, counts), (true_sums, true_counts)))
    return ours / np.maximum(theirs, 1e-9), ours, theirs


def _redrawn(table: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
             ) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of RESAMPLES sides whose clips are drawn with replacement."""
    sums, counts = table
    times = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), RESAMPLES)
    return np.tensordot(times, sums, 1), times @ counts


def compare(made: list[Window], real: list[Window], seed: int = 0) -> dict[str, object]:
    """
    Ratios of generated to recorded windows, by cell, by action and over all matched cells.

    Each ratio comes with its bootstrap 95 % interval and both means; ``matched`` is the share of
    generated windows whose cell the recordings hold at least LEAST times; without any there are
    no groups.  ValueError when there is nothing to compare.
    """
    if not made or not real:
        raise ValueError('expected windows of generated and of recorded motion: a motion must '
                         f'have at least {WINDOW} frames')
    names = sorted({w.cell for w in made})
    enough = {name: sum(w.cell == name for w in real) for name in names}
    cells = [name for name in names if enough[name] >= LEAST]
    kept = [w for w in made if w.cell in cells]
    groups: dict[str, list[str]] = {'all': cells} if cells else {}
    for action in sorted({name.split()[0] for name in cells}):
        groups[action] = [name for name in cells if name.split()[0] == action]
    groups |= {name: [name] for name in cells if name.startswith('walk')}
    out: dict[str, object] = {
        'matched': len(kept) / len(made), 'windows': len(kept),
        'not matched': sorted({w.cell for w in made} - set(cells)), 'groups': {}}
    for name, part in groups.items():
        ours = [w for w in kept if w.cell in part]
        theirs = [w for w in real if w.cell in part]
        out['groups'][name] = _group(ours, theirs, part, seed)
    return out


def _group(made: list[Window], real: list[Window], cells: list[str], seed: int
           ) -> dict[str, object]:
    ours, theirs = _tables(made, cells), _tables(real, cells)
    rng = np.random.default_rng(seed)
    draws = _ratio(_redrawn(ours, rng), _redrawn(theirs, rng))[0]
    low, high = np.nanquantile(draws, [0.025, 0.975], axis=0)
    ratio, mine, recorded = _ratio(*((s.sum(axis=0), c.sum(axis=0)) for s, c in (ours, theirs)))
    row: dict[str, object] = {
        'windows': len(made), 'motions': len(ours[1]),
        'recorded windows': len(real), 'performances': len(theirs[1])}
    for k, figure in enumerate(FIGURES):
        row[figure] = {'ratio': float(ratio[k]), 'interval': (float(low[k]), float(high[k])),
                       'made': float(mine[k]), 'recorded': float(recorded[k])}
    return row


def pose_diversity(samples: list[HumanMotion]) -> dict[str, float]:
    """
    How different the answers to one instruction are, over all pairs of samples.

    ``joints m`` mean distance of joints (average pairwise distance), ``end m`` and ``end deg``
    of the pelvis in the last frame.
    """
    if len(samples) < 2:
        raise ValueError(f'diversity needs two samples or more, got {len(samples)}')
    joints = np.stack([forward_kinematics(m.root_position, m.rotations, m.scale)
                       for m in samples])
    yaw = np.array([float(heading(m.rotations[-1, 0])) for m in samples])
    a, b = np.triu_indices(len(samples), 1)
    apart = np.linalg.norm(joints[a, -1, 0, :2] - joints[b, -1, 0, :2], axis=-1)
    return {'joints m': float(np.linalg.norm(joints[a] - joints[b], axis=-1).mean()),
            'end m': float(apart.mean()),
            'end deg': float(np.degrees(np.abs(wrap_angle(yaw[a] - yaw[b])).mean()))}
