# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fill a motion bank: motions for every action, dense over the goals scenes can ask for."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
from tqdm import tqdm

from egomotion_ros.aim import SWEEP
from egomotion_ros.body.edits import ground_pose
from egomotion_ros.body.features import (
    FEATURE_DIM,
    features_to_motion,
    integrate_root,
    motion_to_features,
)
from egomotion_ros.body.hands import HANDS, hand_points
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import yaw_matrix
from egomotion_ros.data.clips import CLIP_ACTIONS
from egomotion_ros.data.episodes_commands import parameter_of
from egomotion_ros.data.gait import GaitLibrary
from egomotion_ros.data.instructions import ACTIONS, free_parameters
from egomotion_ros.data.looks import middle_of_approach
from egomotion_ros.data.motion_bank import MotionBank, bank_folder
from egomotion_ros.data.quality import motion_quality
from egomotion_ros.data.scenes import SPLITS
from egomotion_ros.data.scenes_furnished import APART, REACH_DISTANCES, REACH_HEIGHTS
from egomotion_ros.data.synthesis import FRAMES, action_goal, end_pose, synthesise
from egomotion_ros.data.synthesis_clips import choose_clip
from egomotion_ros.types import HumanMotion

#: Shares of a bank by action; stop_at uses the motions of walk_to.
SHARES = {
    'simple': {'walk_to': 0.64, 'turn_to': 0.13, 'walk_forward': 0.06, 'turn': 0.1,
               'stand_still': 0.03, 'wave': 0.04},
    'furnished': {'walk_to': 0.36, 'reach': 0.26, 'turn_to': 0.08, 'walk_forward': 0.05,
                  'run_forward': 0.04, 'turn': 0.07, 'kick': 0.03, 'jump': 0.03, 'bend': 0.02,
                  'stand_still': 0.02, 'wave': 0.02, 'search': 0.02},
}
#: Metres from the start to a stop point, and bearings (rad), that objects in view can have.
STOP_DISTANCES, BEARINGS = (0.25, 3.8), (-np.radians(50), np.radians(50))
#: Way over the ground (m) that a motion needs to be cut on the way.
_LEAST_WAY = 0.15
_CHUNK = 50
#: Times a motion is drawn anew until it is within the bounds of recorded ones.
_ATTEMPTS = 40


def plan_bank(library: GaitLibrary, count: int, split: str, seed: int = 0,
              kind: str = 'simple') -> list[tuple[str, dict]]:
    """
    Actions and parameters of about ``count`` motions, by action in the proportions of SHARES.

    Actions that only recordings can give are left out where ``library`` has none.
    """
    if split not in SPLITS or count < 100:
        raise ValueError(f'expected a split of {SPLITS} and at least 100 motions, '
                         f'got {split!r}, {count}')
    if not library.gestures:
        raise ValueError(f'split {split!r} of the motion library has no waving hand (a take '
                         'labelled wave, signal or traffic in which a hand is raised); every '
                         'split needs walking, standing and waving')
    rng = np.random.default_rng([SPLITS.index(split), seed, 2])
    wanted: list[tuple[str, dict]] = []
    for action, share in SHARES[kind].items():
        number = max(round(share * count), 12)
        if action == 'walk_to':
            # Stratified: two low-discrepancy sequences leave no hole among the stop points.
            k = np.arange(number)
            radius = STOP_DISTANCES[0] + np.ptp(STOP_DISTANCES) * (
                (k * 0.7548776662 + rng.random()) % 1)
            angle = BEARINGS[0] + np.ptp(BEARINGS) * ((k * 0.5698402910 + rng.random()) % 1)
            wanted += [(action, {'x': r * np.cos(a), 'y': r * np.sin(a)})
                       for r, a in zip(radius, angle, strict=True)]
        elif action == 'turn_to':
            wanted += [(action, {'angle': a}) for a in np.linspace(*BEARINGS, number)]
        elif action == 'reach':
            wanted += _reaches(number, rng)
        elif action == 'search':
            wanted += [(action, {'angle': SWEEP})] * number
        else:
            options = free_parameters(kind)[action]
            if action in CLIP_ACTIONS and not any(c.action == action for c in library.clips):
                continue  # nothing recorded to make it of: not asked for either
            wanted += [(action, options[k % len(options)]) for k in range(number)]
    return wanted


def _reaches(number: int, rng: np.random.Generator) -> list[tuple[str, dict]]:
    """Reaches spread over distance, bearing, height and hands: an additive recurrence."""
    # Powers of the root of x^5 = x + 1 (Roberts' R4 sequence).
    share = (np.arange(number)[:, None] * 1.1673039782614187 ** -np.arange(1.0, 5.0)
             + rng.random(4)) % 1
    wanted = []
    for row in share:
        away = REACH_DISTANCES[0] + np.ptp(REACH_DISTANCES) * row[0]
        bearing = BEARINGS[0] + np.ptp(BEARINGS) * row[1]
        side = 'left' if row[3] < 0.37 else 'right' if row[3] < 0.74 else 'both'
        wanted.append(('reach', {
            'side': side, 'distance': float(away), 'bearing': float(bearing),
            'height': float(REACH_HEIGHTS[0] + np.ptp(REACH_HEIGHTS) * row[2]),
            'apart': float(rng.uniform(*APART))}))
    return wanted


def make_bank(library: GaitLibrary, split: str, count: int, seed: int = 0,
              workers: int = 1, kind: str = 'simple') -> MotionBank:
    """
    Synthesise about ``count`` motions from the performances of ``split``.

    The result depends on the arguments only, not on ``workers``.
    """
    part = library.of(split)
    wanted = plan_bank(part, count, split, seed, kind)
    jobs = [(part, split, seed, first, wanted[first:first + _CHUNK])
            for first in range(0, len(wanted), _CHUNK)]
    progress = tqdm(total=len(wanted), unit='motion', desc=f'{split} motions')
    chunks = []
    if workers == 1:
        for job in jobs:
            chunks.append(_make_chunk(job))
            progress.update(len(job[-1]))
    else:
        with multiprocessing.get_context('spawn').Pool(workers) as pool:
            for chunk in pool.imap(_make_chunk, jobs):
                chunks.append(chunk)
                progress.update(len(chunk[0]))
    progress.close()
    names = sorted({s.performance for s in (*part.strides, *part.clips)})
    performance = np.array([names.index(p) for chunk in chunks for p in chunk[2]], np.int32)
    return MotionBank(
        features=np.concatenate([c[0] for c in chunks]),
        action=np.array([ACTIONS.index(a) for a, _ in wanted], np.int32),
        goal=np.concatenate([c[1] for c in chunks]),
        parameter=np.array([parameter_of(p) for _, p in wanted]),
        performance=performance,
        oracle=np.array([action_goal(a, p) for a, p in wanted]),
        hands=np.concatenate([c[3] for c in chunks]),
        cut=np.full((len(wanted), 2), -1))


def _make_chunk(job: tuple) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """Features, end poses, performances and final hand points of some motions."""
    library, split, seed, first, wanted = job
    features = np.empty((len(wanted), FRAMES, FEATURE_DIM), np.float16)
    goals = np.empty((len(wanted), 3))
    hands = np.full((len(wanted), 2, 3), np.nan)
    performances = []
    for k, (action, params) in enumerate(wanted):
        motion, source = _make_clean(library, split, action, params,
                                     [SPLITS.index(split), seed, 3, first + k])
        features[k] = motion_to_features(motion)
        goals[k] = end_pose(motion)
        if action == 'reach':
            points = hand_points(forward_kinematics(motion.root_position[-1],
                                                    motion.rotations[-1]))
            used = list(HANDS[str(params['side'])])
            hands[k, used] = points[used]
        performances.append(source)
    return features, goals, performances, hands


def _make_clean(library: GaitLibrary, split: str, action: str, params: dict,
                seeds: list[int]) -> tuple[HumanMotion, str]:
    """A motion within the bounds of recorded ones and the performance it is made of."""
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng(seeds + [attempt] * (attempt > 0))
        stride = int(rng.integers(len(library.strides)))
        clip = None
        if action in CLIP_ACTIONS:
            clip = choose_clip(library.clips, action, params, rng)
        motion = synthesise(action, params, rng, library, split, stride, clip)
        faults = motion_quality(motion).faults
        if not faults:
            return motion, (library.strides[stride] if clip is None else clip).performance
    raise ValueError(f'{action} {params}: no clean motion in {_ATTEMPTS} attempts: '
                     f'{", ".join(faults)}')


def load_or_make_bank(folder: str | Path, library: GaitLibrary, split: str, count: int,
                      seed: int = 0, workers: int = 1, kind: str = 'simple') -> MotionBank:
    """
    Return the bank in ``folder``; made and saved first when there is none.

    Raises ValueError where all of it was recorded: scenes are built around motions that were made
    for them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if bank_folder(folder) is None:
        make_bank(library, split, count, seed, workers, kind).save(folder)
    bank = MotionBank.load(folder)
    if (bank.action < 0).all():
        raise ValueError(f'{folder} holds recordings alone: draw the scenes first, into a folder '
                         'of their own, and append the recordings to them')
    return bank


def with_moving_starts(bank: MotionBank, count: int, seed: int = 0) -> MotionBank:
    """
    Append ``count`` walks and reaches that are already under way in their first frame.

    Each is the rest of a motion of the bank from a frame around the middle of its approach,
    followed by its last pose; goal and hands are seen from that frame.  They teach the generator
    to go on from a prefix when a new plan joins a running one.
    """
    rng = np.random.default_rng([seed, 4])
    moving = np.concatenate([bank.of('walk_to'), bank.of('reach')])
    moving = moving[np.linalg.norm(bank.goal[moving, :2], axis=1) > _LEAST_WAY]
    if not len(moving):
        raise ValueError('the bank has no walk or reach with a way to cut a moving start from')
    # Every motion once before any comes again.
    chosen = np.concatenate([rng.permutation(moving)
                             for _ in range(-(-count // len(moving)))])[:count]
    features = np.empty((count, FRAMES, FEATURE_DIM), np.float16)
    goals, hands = np.empty((count, 3)), np.empty((count, 2, 3))
    frames = np.empty(count, int)
    for k, n in enumerate(chosen):
        whole = np.asarray(bank.features[n], np.float64)
        motion = features_to_motion(whole)
        middle = middle_of_approach(motion)
        frames[k] = np.clip(round(middle * rng.uniform(0.5, 1.3)), 8, FRAMES - 16)
        rest = whole[frames[k]:]
        still = np.repeat(rest[-1:], FRAMES - len(rest), axis=0)
        still[:, :3] = 0.0
        features[k] = np.concatenate([rest, still])
        goals[k] = [part[-1] for part in integrate_root(rest)]
        pose = ground_pose(motion, frames[k])
        hands[k] = (bank.hands[n] - [pose.x, pose.y, 0.0]) @ yaw_matrix(np.asarray(pose.yaw))
    return MotionBank(
        features=np.concatenate([bank.features, features]),
        action=np.concatenate([bank.action, bank.action[chosen]]),
        goal=np.concatenate([bank.goal, goals]),
        parameter=np.concatenate([bank.parameter, bank.parameter[chosen]]),
        performance=np.concatenate([bank.performance, bank.performance[chosen]]),
        oracle=np.concatenate([bank.oracle, goals]),
        hands=np.concatenate([bank.hands, hands]),
        cut=np.concatenate([bank.cut, np.stack([chosen, frames], axis=1)]))
