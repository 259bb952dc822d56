# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The UniEgoMotion protocol: a motion against the one that was recorded, Z up, metres.

Patel et al., UniEgoMotion, ICCV 2025.  Where the protocol asks for the vertices of a body mesh
(contact), the package, which has no mesh, uses the points of the soles under ankles and toes
(:func:`sole_points`); such figures compare among themselves, not with published ones.
"""

from __future__ import annotations

import numpy as np

from egomotion_ros.body.kinematics import global_pose
from egomotion_ros.body.skeleton import FOOT_HEIGHTS, FOOT_JOINTS, JOINT_INDEX
from egomotion_ros.evaluation.hml3d import embeddings, frechet_distance
from egomotion_ros.retarget.quality import foot_slide, human_feet
from egomotion_ros.types import HumanMotion

_HEAD = JOINT_INDEX['head']


def head_rotation_error(answer: np.ndarray, truth: np.ndarray) -> float:
    """Mean Frobenius norm of R_answer^-1 R_truth - I over global head rotations (T, 3, 3)."""
    answer, truth = _alike(answer, truth, (3, 3))
    turn = np.swapaxes(answer, -1, -2) @ truth - np.eye(3)
    return float(np.linalg.norm(turn, axis=(-2, -1)).mean())


def head_translation_error(answer: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance (m) of head positions (T, 3)."""
    answer, truth = _alike(answer, truth, (3,))
    return float(np.linalg.norm(answer - truth, axis=-1).mean())


def mpjpe(answer: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance (m) of joints (T, J, 3), as they are: nothing is aligned."""
    answer, truth = _alike(answer, truth, (None, 3))
    return float(np.linalg.norm(answer - truth, axis=-1).mean())


def pa_mpjpe(answer: np.ndarray, truth: np.ndarray) -> float:
    """As :func:`mpjpe` after the best rotation, scale and shift of every frame (Procrustes)."""
    answer, truth = _alike(answer, truth, (None, 3))
    x = answer - answer.mean(axis=1, keepdims=True)
    y = truth - truth.mean(axis=1, keepdims=True)
    # Umeyama 1991: the rotation that takes x to y, without reflection.
    u, s, vt = np.linalg.svd(np.swapaxes(x, -1, -2) @ y)
    sign = np.sign(np.linalg.det(u @ vt))
    s[:, -1] *= sign
    u[:, :, -1] *= sign[:, None]
    scale = s.sum(axis=-1) / np.maximum(np.square(x).sum(axis=(-2, -1)), 1e-12)
    return float(np.linalg.norm(scale[:, None, None] * (x @ (u @ vt)) - y, axis=-1).mean())


def slide(positions: np.ndarray) -> float:
    """
    Foot slide (mm a frame) of joints (T, 22, 3) exactly as the protocol has it.

    Mean over ankles and toes of 1000 sum(d_xy (2 - 2^(h / H))) / T, over steps that start below
    H = 0.08 m (ankle), 0.04 m (toe); h is the height of the *joint* above the floor.  On the
    package's skeleton a standing ankle is at 0.085 m and never counts; the slide that counts it
    takes h above flat standing (:func:`egomotion_ros.retarget.quality.human_feet`).
    """
    feet = np.asarray(positions)[:, list(FOOT_JOINTS)]
    return foot_slide(feet, feet[..., 2])


def sole_points(motion: HumanMotion) -> np.ndarray:
    """Points (T, 4, 3) of the soles under left, right ankle and left, right toe joint (m)."""
    joints, turns = global_pose(np.asarray(motion.root_position, np.float64),
                                np.asarray(motion.rotations, np.float64), motion.scale)
    feet = list(FOOT_JOINTS)
    down = np.zeros((4, 3))
    down[:, 1] = -np.array(FOOT_HEIGHTS) * motion.scale
    return joints[:, feet] + (turns[:, feet] @ down[..., None])[..., 0]


def contact(soles: np.ndarray) -> float:
    """Mean height or depth (m) of the lowest of the points (T, N, 3): mean |lowest z|."""
    return float(np.abs(np.asarray(soles)[..., 2].min(axis=-1)).mean())


def semantic_similarity(answer: np.ndarray, truth: np.ndarray) -> float:
    """Mean over rows of cos / 2 + 0.5 of motion embeddings (N, D): 0 opposite, 1 the same way."""
    a, b = embeddings(answer, 'answer'), embeddings(truth, 'truth')
    if a.shape != b.shape:
        raise ValueError(f'answer and truth must pair up, got {a.shape} and {b.shape}')
    return float((0.5 * (normalised(a) * normalised(b)).sum(axis=1) + 0.5).mean())


def normalised_fid(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of L2-normalised embeddings: this protocol's FID, not HumanML3D's."""
    return frechet_distance(normalised(embeddings(a, 'a')), normalised(embeddings(b, 'b')))


def normalised(rows: np.ndarray) -> np.ndarray:
    """Rows (N, D) at length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def compare(answer: HumanMotion, truth: HumanMotion) -> dict[str, float]:
    """
    Figures of one motion against the recorded one, in one frame and at scale 1.

    The longer one is cut.  ValueError where scales or frame rates differ.
    """
    if answer.scale != truth.scale or answer.fps != truth.fps:
        raise ValueError(f'expected one scale and rate, got {answer.scale:g}, {truth.scale:g} and '
                         f'{answer.fps:g}, {truth.fps:g}')
    frames = min(answer.frames, truth.frames)
    (a, a_turn), (b, b_turn) = (global_pose(np.asarray(m.root_position[:frames], np.float64),
                                            np.asarray(m.rotations[:frames], np.float64), m.scale)
                                for m in (answer, truth))
    return {'head rotation': head_rotation_error(a_turn[:, _HEAD], b_turn[:, _HEAD]),
            'head translation m': head_translation_error(a[:, _HEAD], b[:, _HEAD]),
            'MPJPE m': mpjpe(a, b), 'PA-MPJPE m': pa_mpjpe(a, b),
            'foot slide mm': human_feet(answer).slide,
            'foot slide mm, recorded': human_feet(truth).slide,
            'foot slide of joint heights mm': slide(a),
            'foot slide of joint heights mm, recorded': slide(b),
            'contact m (soles)': contact(sole_points(answer)),
            'contact m (soles), recorded': contact(sole_points(truth))}


def _alike(answer: np.ndarray, truth: np.ndarray, tail: tuple[int | None, ...]
           ) -> tuple[np.ndarray, np.ndarray]:
    answer, truth = np.asarray(answer, np.float64), np.asarray(truth, np.float64)
    fits = answer.ndim == len(tail) + 1 and all(
        want in (None, have) for want, have in zip(tail, answer.shape[1:], strict=True))
    if not fits or answer.shape != truth.shape or not answer.size:
        raise ValueError(f'expected two arrays (T, {", ".join(str(n or "J") for n in tail)}), '
                         f'got {answer.shape} and {truth.shape}')
    return answer, truth
