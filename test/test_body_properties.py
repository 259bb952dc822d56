# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Laws of the motion representation, tried on many random motions."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from egomotion_ros.body import edits, features
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import geodesic_angle
from egomotion_ros.body.skeleton import OFFSETS, PARENTS
from egomotion_ros.types import HumanMotion, PlanarPose

SEEDS = range(25)


def any_motion(seed):
    """Rotations of any size, upside-down and lying bodies included, steps of any size."""
    rng = np.random.default_rng(seed)
    frames = int(rng.integers(2, 40))
    rotations = Rotation.random(frames * 22, rng=rng).as_matrix().reshape(frames, 22, 3, 3)
    root = rng.normal(size=(frames, 3)) * rng.choice([0.01, 1.0, 10.0])
    return HumanMotion(root, rotations, rng.random((frames, 4)), float(rng.choice([20, 30, 50])))


@pytest.mark.parametrize('seed', SEEDS)
def test_any_motion_survives_the_features(seed):
    motion = any_motion(seed)
    back = features.features_to_motion(
        features.motion_to_features(motion), edits.ground_pose(motion), fps=motion.fps
    )
    assert np.abs(back.root_position - motion.root_position).max() < 1e-5
    assert geodesic_angle(back.rotations, motion.rotations).max() < 1e-5
    np.testing.assert_allclose(back.contacts, motion.contacts)


@pytest.mark.parametrize('seed', SEEDS)
def test_any_numbers_are_some_motion_and_decoding_is_stable(seed):
    """What a model gives is no rotation; after one decoding it is, and stays the same."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(30, features.FEATURE_DIM))
    motion = features.features_to_motion(raw)
    eye = np.broadcast_to(np.eye(3), motion.rotations.shape)
    products = motion.rotations @ np.swapaxes(motion.rotations, -1, -2)
    np.testing.assert_allclose(products, eye, atol=1e-9)
    again = features.features_to_motion(
        features.motion_to_features(motion), edits.ground_pose(motion)
    )
    np.testing.assert_allclose(again.root_position, motion.root_position, atol=1e-8)
    np.testing.assert_allclose(again.rotations, motion.rotations, atol=1e-8)


@pytest.mark.parametrize('seed', SEEDS)
def test_features_do_not_see_where_a_motion_stands(seed):
    rng = np.random.default_rng(seed)
    motion = any_motion(seed)
    moved = edits.place(motion, PlanarPose(*rng.normal(size=2) * 5, rng.uniform(-4, 4)), 'map')
    assert moved.frame_id == 'map'
    a, b = features.motion_to_features(motion), features.motion_to_features(moved)
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize('seed', SEEDS)
def test_features_of_the_mirror_image_turn_the_other_way(seed):
    motion = any_motion(seed)
    a = features.motion_to_features(motion)
    b = features.motion_to_features(edits.mirror(motion))
    sign = np.array([-1.0, 1.0, -1.0, 1.0])
    # A heading of exactly half a turn may go either way round.
    safe = np.abs(np.abs(a[:, 0]) - np.pi * motion.fps) > 1e-3
    np.testing.assert_allclose(b[safe, :4], a[safe, :4] * sign, atol=1e-6)
    np.testing.assert_allclose(b[:, features.CONTACTS], a[:, features.CONTACTS][:, [1, 0, 3, 2]])


@pytest.mark.parametrize('seed', SEEDS)
def test_bones_keep_their_length_in_every_pose(seed):
    motion = any_motion(seed)
    joints = forward_kinematics(motion.root_position, motion.rotations, scale=1.3)
    for joint, parent in enumerate(PARENTS[1:], 1):
        length = np.linalg.norm(joints[:, joint] - joints[:, parent], axis=-1)
        np.testing.assert_allclose(length, 1.3 * np.linalg.norm(OFFSETS[joint]), atol=1e-9)
