# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The body: skeleton, rotations, kinematics, features, edits and contacts."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from egomotion_ros.body import edits, features
from egomotion_ros.body import rotations as rot
from egomotion_ros.body.contacts import detect_contacts
from egomotion_ros.body.kinematics import forward_kinematics, global_pose, to_local
from egomotion_ros.body.skeleton import (
    BODY_TO_WORLD,
    CROWN_HEIGHT,
    FOOT_HEIGHTS,
    FOOT_JOINTS,
    JOINT_INDEX,
    JOINT_NAMES,
    LEVELS,
    MIRROR,
    OFFSETS,
    PARENTS,
    REST_PELVIS_HEIGHT,
)
from egomotion_ros.types import HumanMotion, PlanarPose


def some_motion(frames=60, seed=0, fps=30.0, scale=1.0):
    """Give a smooth random motion that turns through more than a circle."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0.0, 1.0, frames)[:, None, None]
    a, b = rng.normal(size=(2, 1, 22, 3))
    vectors = 0.5 * a * np.sin(3 * t) + 0.5 * b * np.cos(2 * t)
    local = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(frames, 22, 3, 3)
    yaw = rot.yaw_matrix(8 * t[:, 0, 0] + rng.normal())
    local[:, 0] = yaw @ BODY_TO_WORLD @ Rotation.from_rotvec(0.3 * vectors[:, 0]).as_matrix()
    root = np.concatenate([np.sin(t[..., 0] * 3), t[..., 0] ** 2, 0.9 + 0.05 * t[..., 0]], 1)
    contacts = (rng.random((frames, 4)) > 0.5).astype(float)
    return HumanMotion(root + rng.normal(size=3) * [1, 1, 0], local, contacts, fps, scale=scale)


def standing(frames=1):
    """Give the rest pose, standing at the origin and facing +X."""
    local = np.tile(np.eye(3), (frames, 22, 1, 1))
    local[:, 0] = BODY_TO_WORLD
    root = np.tile([0.0, 0.0, REST_PELVIS_HEIGHT], (frames, 1))
    return HumanMotion(root, local, np.ones((frames, 4)))


def same(a, b, metres=1e-5, radians=1e-5):
    """Say whether two motions are equal to the stated bounds."""
    return (
        a.frames == b.frames
        and np.abs(a.root_position - b.root_position).max() < metres
        and rot.geodesic_angle(a.rotations, b.rotations).max() < radians
        and np.abs(a.contacts - b.contacts).max() < 1e-9
    )


def test_rest_skeleton_is_symmetric_and_stands_on_the_floor():
    assert len(JOINT_NAMES) == len(PARENTS) == len(OFFSETS) == 22
    assert all(parent < joint for joint, parent in enumerate(PARENTS))
    np.testing.assert_allclose(OFFSETS[list(MIRROR)] * [-1, 1, 1], OFFSETS)
    rest = standing()
    joints = forward_kinematics(rest.root_position, rest.rotations)[0]
    np.testing.assert_allclose(joints[list(FOOT_JOINTS), 2], FOOT_HEIGHTS, atol=1e-12)
    assert joints[JOINT_INDEX['left_wrist'], 1] > 0.5  # left is +Y
    assert joints[JOINT_INDEX['left_foot'], 0] > joints[JOINT_INDEX['left_ankle'], 0]
    assert 1.68 < joints[JOINT_INDEX['head'], 2] + CROWN_HEIGHT < 1.74


def test_levels_hold_every_joint_right_below_its_parent():
    level = {j: i for i, (a, b) in enumerate(LEVELS) for j in range(a, b)}
    assert sorted(level) == list(range(22))
    assert all(level[j] == level[PARENTS[j]] + 1 for j in range(1, 22))


def test_rotations_agree_with_scipy_at_every_angle():
    rng = np.random.default_rng(1)
    axes = rng.normal(size=(400, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angles = np.concatenate([np.geomspace(1e-12, 1, 200), np.linspace(1, np.pi, 200)])
    vectors = axes * angles[:, None]
    expected = Rotation.from_rotvec(vectors)
    matrices = rot.axis_angle_to_matrix(vectors)
    np.testing.assert_allclose(matrices, expected.as_matrix(), atol=1e-14)
    quaternions = rot.matrix_to_quaternion(matrices)
    np.testing.assert_allclose(quaternions, expected.as_quat(canonical=True), atol=1e-9)
    np.testing.assert_allclose(rot.quaternion_to_matrix(3 * quaternions), matrices, atol=1e-12)
    np.testing.assert_allclose(
        rot.matrix_from_6d(rot.matrix_to_6d(matrices)), matrices, atol=1e-12
    )
    back = rot.axis_angle_to_matrix(rot.matrix_to_axis_angle(matrices))
    np.testing.assert_allclose(back, matrices, atol=1e-9)
    np.testing.assert_allclose(rot.geodesic_angle(np.eye(3), matrices), angles, atol=1e-9)


def test_six_numbers_that_are_no_rotation_become_one():
    matrices = rot.matrix_from_6d(np.random.default_rng(2).normal(size=(500, 6)))
    np.testing.assert_allclose(
        matrices @ rot.transpose(matrices), np.broadcast_to(np.eye(3), (500, 3, 3)), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0, atol=1e-9)


def test_kinematics_agree_with_a_plain_walk_up_the_tree():
    motion = some_motion(5)
    joints, turned = global_pose(motion.root_position, motion.rotations, scale=1.2)
    for t in range(5):
        for j in range(22):
            k = j
            chain = []
            while k >= 0:
                chain.append(k)
                k = PARENTS[k]
            rotation, position = np.eye(3), motion.root_position[t]
            for k in reversed(chain):
                position = position + (rotation @ OFFSETS[k]) * 1.2
                rotation = rotation @ motion.rotations[t, k]
            np.testing.assert_allclose(joints[t, j], position, atol=1e-12)
            np.testing.assert_allclose(turned[t, j], rotation, atol=1e-12)
    np.testing.assert_allclose(to_local(turned), motion.rotations, atol=1e-12)


def test_kinematics_refuse_shapes_that_do_not_fit():
    motion = some_motion(5)
    with pytest.raises(ValueError, match='22, 3, 3'):
        forward_kinematics(motion.root_position, motion.rotations[:, :21])
    with pytest.raises(ValueError, match='root_position'):
        forward_kinematics(motion.root_position[:4], motion.rotations)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('scale', [1.0, 0.75])
def test_features_lose_nothing(seed, scale):
    motion = some_motion(80, seed, scale=scale)
    start = edits.ground_pose(motion)
    values = features.motion_to_features(motion)
    assert values.shape == (80, features.FEATURE_DIM) and values.dtype == np.float64
    placed = PlanarPose(start.x, start.y, start.yaw)
    assert same(motion, features.features_to_motion(values, placed, scale=scale))


@pytest.mark.parametrize('frames', [1, 2, 80])
def test_the_last_frame_by_itself_is_that_of_the_motion(frames):
    values = features.motion_to_features(some_motion(frames, 3))
    whole, last = features.features_to_motion(values, fps=20.0), features.last_frame(values, 20.0)
    assert same(last, edits.slice_frames(whole, frames - 1, frames))
    with pytest.raises(ValueError, match='not finite'):
        features.last_frame(np.full((frames, 140), np.nan))


def test_features_have_the_stated_order():
    motion = standing(30)
    motion.root_position[:, 0] = np.arange(30) * 0.05  # 1.5 m/s forward
    values = features.motion_to_features(edits.place(motion, PlanarPose(1, 2, 0.7)))
    np.testing.assert_allclose(values[:, features.VELOCITY], [[1.5, 0.0]] * 30, atol=1e-9)
    np.testing.assert_allclose(values[:, features.YAW_RATE], 0.0, atol=1e-9)
    np.testing.assert_allclose(values[:, features.HEIGHT], REST_PELVIS_HEIGHT)
    np.testing.assert_allclose(values[:, features.ROOT_TILT], [[1, 0, 0, 0, 1, 0]] * 30, atol=1e-9)
    np.testing.assert_allclose(values[:, features.CONTACTS], 1.0)
    assert features.FEATURE_DIM == 140


def test_a_feature_row_depends_on_the_past_only():
    motion = some_motion(40)
    whole = features.motion_to_features(motion)
    part = features.motion_to_features(edits.slice_frames(motion, 0, 25))
    np.testing.assert_allclose(whole[:25], part, atol=1e-12)


def test_one_frame_has_features_and_no_speed():
    values = features.motion_to_features(standing())
    np.testing.assert_allclose(values[:, :3], 0.0)
    assert same(features.features_to_motion(values), standing())


def test_feature_positions_are_those_of_the_motion():
    motion, _ = edits.canonicalize(some_motion(50))
    joints = forward_kinematics(motion.root_position, motion.rotations)
    values = features.motion_to_features(motion)
    np.testing.assert_allclose(features.feature_positions(values), joints, atol=1e-9)
    x, y, yaw = features.integrate_root(values[None])
    assert x.shape == (1, 50) and x[0, 0] == y[0, 0] == yaw[0, 0] == 0.0


def test_torch_gives_the_numbers_of_numpy_and_finite_gradients():
    torch = pytest.importorskip('torch')
    motions = [features.motion_to_features(some_motion(20, s)) for s in range(3)]
    values = np.stack(motions)
    values[0, :, features.ROOT_TILT] = [1, 0, 0, 0, 1, 0]
    values[0, :, :3] = 0.0
    tensor = torch.tensor(values, dtype=torch.float32, requires_grad=True)
    joints = features.feature_positions(tensor)
    assert joints.dtype == torch.float32
    np.testing.assert_allclose(
        joints.detach().numpy(), features.feature_positions(values), atol=2e-5
    )
    joints.square().sum().backward()
    assert torch.isfinite(tensor.grad).all() and tensor.grad.abs().sum() > 0
    for matrices in (torch.eye(3).repeat(2, 1, 1), torch.diag(torch.tensor([1.0, -1, -1]))[None]):
        matrices = matrices.clone().requires_grad_(True)
        (
            rot.matrix_to_axis_angle(matrices).sum()
            + rot.geodesic_angle(matrices, torch.eye(3)).sum()
        ).backward()
        assert torch.isfinite(matrices.grad).all()
    vector = torch.zeros(2, 3, requires_grad=True)
    rot.axis_angle_to_matrix(vector)[..., 2, 1].sum().backward()
    np.testing.assert_allclose(vector.grad.numpy(), [[1, 0, 0]] * 2, atol=1e-6)


@pytest.mark.parametrize(
    'damage, message',
    [
        (lambda m: replace(m, rotations=m.rotations[:, :21]), 'rotations'),
        (lambda m: replace(m, root_position=m.root_position * np.nan), 'finite'),
        (lambda m: replace(m, contacts=m.contacts[:-1]), 'contacts'),
        (lambda m: replace(m, fps=0.0), 'fps'),
        (lambda m: replace(m, scale=-1.0), 'scale'),
        (lambda m: replace(m, root_position=m.root_position[:0]), 'at least one'),
    ],
)
def test_a_broken_motion_is_refused(damage, message):
    with pytest.raises(ValueError, match=message):
        features.motion_to_features(damage(some_motion(5)))


def test_broken_features_are_refused():
    with pytest.raises(ValueError, match='140'):
        features.features_to_motion(np.zeros((5, 139)))
    with pytest.raises(ValueError, match='finite'):
        features.features_to_motion(np.full((5, 140), np.nan))


def test_canonical_motion_starts_at_the_origin_and_goes_back():
    motion = some_motion(30)
    canonical, start = edits.canonicalize(motion)
    pose = edits.ground_pose(canonical)
    np.testing.assert_allclose([pose.x, pose.y, pose.yaw], 0.0, atol=1e-12)
    assert same(edits.place(canonical, start), motion)


def test_mirrored_motion_is_the_reflected_one_and_mirrors_back():
    motion = some_motion(30)
    mirrored = edits.mirror(motion)
    joints = forward_kinematics(motion.root_position, motion.rotations)
    reflected = forward_kinematics(mirrored.root_position, mirrored.rotations)
    np.testing.assert_allclose(reflected, joints[:, list(MIRROR)] * [1, -1, 1], atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(mirrored.rotations), 1.0, atol=1e-9)
    assert same(edits.mirror(mirrored), motion)


def test_resampling_keeps_time_and_goes_the_shortest_way():
    motion = some_motion(121, fps=120.0)
    slow = edits.resample(motion, 30.0)
    assert slow.frames == 31 and slow.fps == 30.0
    np.testing.assert_allclose(slow.root_position, motion.root_position[::4], atol=1e-9)
    np.testing.assert_allclose(slow.rotations, motion.rotations[::4], atol=1e-9)
    odd = edits.resample(motion, 50.0)
    times = np.arange(odd.frames) / 50.0
    for j in (0, 5, 16):
        slerp = Slerp(np.arange(121) / 120.0, Rotation.from_matrix(motion.rotations[:, j]))
        np.testing.assert_allclose(odd.rotations[:, j], slerp(times).as_matrix(), atol=1e-9)
    with pytest.raises(ValueError, match='fps'):
        edits.resample(motion, 0.0)


def test_cutting_outside_the_motion_is_refused():
    motion = some_motion(10)
    assert edits.slice_frames(motion, 2, 7).frames == 5
    for first, last in ((-1, 5), (5, 5), (3, 11)):
        with pytest.raises(ValueError, match='10 frames'):
            edits.slice_frames(motion, first, last)


def test_contacts_are_low_and_slow_feet():
    motion = standing(90)
    joints = forward_kinematics(motion.root_position, motion.rotations)
    assert detect_contacts(joints, 30.0).all()
    lifted = joints.copy()
    lifted[30:60, [7, 10], 2] += 0.2  # the left foot is up for a second
    seen = detect_contacts(lifted, 30.0)
    assert not seen[31:59, [0, 2]].any() and seen[:, [1, 3]].all()
    assert seen[:28, 0].all() and seen[62:, 0].all()
    sliding = joints + np.arange(90)[:, None, None] * np.array([0.05, 0.0, 0.0])
    assert not detect_contacts(sliding, 30.0).any()
    noisy = joints + np.random.default_rng(0).normal(size=joints.shape) * 0.001
    assert detect_contacts(noisy, 30.0).all()  # noise does not make a contact flicker


def test_contacts_refuse_wrong_input():
    with pytest.raises(ValueError, match='positions'):
        detect_contacts(np.zeros((5, 21, 3)), 30.0)
    with pytest.raises(ValueError, match='fps'):
        detect_contacts(np.zeros((5, 22, 3)), 0.0)
