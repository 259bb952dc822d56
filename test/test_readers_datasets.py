# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Readers of published data sets: small files in their layouts give back the motion."""

from __future__ import annotations

from dataclasses import replace
import json

import numpy as np
import pytest
from readers_support import walk
from scipy.spatial.transform import Rotation
import torch

from egomotion_ros.body.edits import heading, resample
from egomotion_ros.body.kinematics import forward_kinematics, global_pose
from egomotion_ros.body.rotations import geodesic_angle, matrix_to_6d, yaw_matrix
from egomotion_ros.body.skeleton import BODY_TO_WORLD, JOINT_INDEX, OFFSETS
from egomotion_ros.data import ee4d, humanml3d, nymeria
from egomotion_ros.data.importer import import_folder
from egomotion_ros.data.mapping import find_mapping, shipped_mappings, to_body

#: XSens segment -> our joint that turns with it.
SEGMENTS = {
    'Pelvis': 'pelvis', 'L5': 'spine1', 'L3': 'spine2', 'T12': 'spine2', 'T8': 'spine3',
    'Neck': 'neck', 'Head': 'head', 'Shoulder': 'collar', 'UpperArm': 'shoulder',
    'Forearm': 'elbow', 'Hand': 'wrist', 'UpperLeg': 'hip', 'LowerLeg': 'knee', 'Foot': 'ankle',
    'Toe': 'foot',
}  # fmt: skip


def joint_of(segment: str) -> int:
    side, _, part = segment.rpartition('_')
    prefix = {'L': 'left_', 'R': 'right_', '': ''}[side]
    return JOINT_INDEX[prefix + SEGMENTS[part]]


def write_nymeria(folder, motion, facing=0.0, **changes):
    """Write a sequence; every segment's axes and the T pose's heading are arbitrary."""
    index = [joint_of(n) for n in nymeria.NAMES]
    t12 = nymeria.NAMES.index('T12')
    axes = Rotation.random(len(index), rng=np.random.default_rng(0)).as_matrix()
    places, turned = global_pose(motion.root_position, motion.rotations)
    stand = yaw_matrix(np.asarray(facing)) @ BODY_TO_WORLD
    rest = forward_kinematics(np.zeros(3), np.concatenate(
        [stand[None], np.tile(np.eye(3), (21, 1, 1))]))[index]
    rest[t12] = rest[t12] + 0.5 * stand @ OFFSETS[JOINT_INDEX['spine3']]
    now = places[:, index]
    now[:, t12] += 0.5 * turned[:, JOINT_INDEX['spine2']] @ OFFSETS[JOINT_INDEX['spine3']]

    def quaternion(matrix):
        flat = Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_quat(scalar_first=True)
        return flat.reshape(*matrix.shape[:-2], 4)

    turns = quaternion(turned[:, index] @ axes)
    turns[50, 4] = 0.0  # a gap, as the recordings have them
    arrays = {
        'segment_tXYZ': now.reshape(len(now), -1), 'segment_qWXYZ': turns.reshape(len(now), -1),
        'tpose_segment_tXYZ': rest.reshape(-1),
        'tpose_segment_qWXYZ': quaternion(stand @ axes).reshape(-1),
        'frameRate': np.array(motion.fps), 'frameCount': np.array(len(now)),
        'timestamps_us': np.arange(len(now)) * 4167,
    } | changes  # fmt: skip
    (folder / 'body').mkdir(parents=True, exist_ok=True)
    np.savez(folder / 'body/xdata.npz', **{k: v for k, v in arrays.items() if v is not None})
    (folder / 'metadata.json').write_text(json.dumps({'script': 'S14-By_my_desk'}))
    return folder / 'body/xdata.npz'


def write_vectors(joints: np.ndarray) -> np.ndarray:
    """HumanML3D's vectors of joints (T + 1, 22, 3), Y up; velocities and rotations left at 0."""
    across = joints[:, 1] - joints[:, 2] + joints[:, 16] - joints[:, 17]
    yaw = -np.unwrap(np.arctan2(-across[:, 2], across[:, 0]))  # left is +X when facing +Z

    def turn(v, angle):
        c, s = np.cos(angle), np.sin(angle)
        x, z = v[..., 0], v[..., 2]
        return np.stack([c * x + s * z, v[..., 1], -s * x + c * z], axis=-1)

    local = joints - joints[:, :1] * [1, 0, 1]
    step = turn(np.diff(joints[:, 0], axis=0), yaw[1:])
    out = np.zeros((len(joints) - 1, 263))
    # The rotation that makes the body face +Z, half the angle of every step.
    out[:, 0] = 0.5 * np.diff(yaw)
    out[:, 1:3], out[:, 3] = step[:, [0, 2]], joints[:-1, 0, 1]
    out[:, 4:67] = turn(local[:-1, 1:], yaw[:-1, None]).reshape(len(out), -1)
    return out


def hml_joints(motion, fps=20.0):
    """Joints (T, 22, 3) of a motion as the data set has them: Y up, Z forward."""
    motion = resample(motion, fps)
    return forward_kinematics(motion.root_position, motion.rotations) @ BODY_TO_WORLD


def write_ee4d(path, motions, **extra):
    data = {}
    for name, motion in motions.items():
        rows = matrix_to_6d(np.swapaxes(motion.rotations, -1, -2))
        six = torch.tensor(np.ascontiguousarray(rows), dtype=torch.float32)
        root = torch.tensor(motion.root_position, dtype=torch.float32)
        offset = torch.tensor([0.0, -0.3, 0.1])
        joints = forward_kinematics(motion.root_position, motion.rotations)
        body = {'global_orient': six[:, 0], 'body_pose': six[:, 1:], 'transl': root - offset,
                'betas': torch.zeros(1, 10)}
        data[name] = {
            'smpl_params': body, 'body_root_offset': offset, 'num_frames': len(root),
            'kp3d': torch.tensor(np.pad(joints, ((0, 0), (0, 54), (0, 0)))),
            'floor_height': np.float64(0.1), 'start_idx': 0, 'end_idx': 3 * len(root),
            'aria_traj': torch.zeros(len(root), 9)} | extra  # fmt: skip
    torch.save(data, path)


@pytest.mark.parametrize('facing', [0.0, 2.0])
def test_nymeria_segments_give_back_the_motion(tmp_path, facing):
    truth = walk(2.0, 240.0, turn=0.4)
    source = nymeria.read_nymeria(write_nymeria(tmp_path / 'seq', truth, facing))
    assert source.fps == 60.0
    motion = to_body(source, find_mapping(source.names, shipped_mappings()))
    truth = replace(truth, fps=60.0, root_position=truth.root_position[::4],
                    rotations=truth.rotations[::4])
    np.testing.assert_allclose(motion.root_position, truth.root_position, atol=1e-6)
    error = geodesic_angle(motion.rotations, truth.rotations)
    bridged = np.ones(len(error), bool)
    bridged[11:14] = False  # around the gap the neighbour stands in
    assert error[bridged].max() < 1e-3 and error.max() < 0.2


@pytest.mark.parametrize('changes, message', [
    ({'tpose_segment_qWXYZ': None}, 'no array'),
    ({'frameRate': np.array(0.0)}, 'frameRate'),
    ({'segment_qWXYZ': np.zeros((480, 92))}, 'gaps'),
    ({'segment_tXYZ': np.full((480, 69), np.nan)}, 'finite'),
    ({'segment_qWXYZ': np.ones((480, 88))}, 'shape'),
    ({'tpose_segment_tXYZ': np.zeros(69)}, 'no width'),
])  # fmt: skip
def test_broken_nymeria_files_are_refused(tmp_path, changes, message):
    path = write_nymeria(tmp_path / 'seq', walk(2.0, 240.0), **changes)
    with pytest.raises(ValueError, match=message):
        nymeria.read_nymeria(path)


def test_damaged_nymeria_files_are_refused(tmp_path):
    path = write_nymeria(tmp_path / 'seq', walk(1.0, 240.0))
    with np.load(path) as data:
        np.savez_compressed(path, **dict(data))
    whole = path.read_bytes()
    for n in (60, 80, len(whole) // 2, *range(len(whole) - 500, len(whole), 25)):
        path.write_bytes(whole[:n] + bytes(b ^ 0xFF for b in whole[n:n + 8]) + whole[n + 8:])
        nymeria.is_nymeria(path)
        try:
            nymeria.read_nymeria(path)
        except ValueError as error:
            assert str(error).startswith('xdata.npz: ')
        else:
            assert n >= len(whole) - 500  # dates and attributes of the directory say nothing


@pytest.mark.parametrize('turn', [0.0, 0.7])
def test_humanml3d_joints_and_vectors_are_the_same_body(tmp_path, turn):
    truth = walk(4.0, 120.0, turn=turn)
    joints = hml_joints(truth)
    np.save(tmp_path / 'joints.npy', joints.astype(np.float32))
    motion = humanml3d.read_humanml3d(tmp_path / 'joints.npy')
    again = forward_kinematics(motion.root_position, motion.rotations)
    assert np.linalg.norm(again - joints @ BODY_TO_WORLD.T, axis=-1).max() < 0.01
    same = resample(truth, 20.0)
    facing = heading(motion.rotations[:, 0]) - heading(same.rotations[:, 0])
    assert np.abs(facing).max() < 0.1
    vectors = write_vectors(joints)
    back = humanml3d.joints_of_vectors(vectors)
    # Their first frame stands over the origin and faces +Z.
    start = Rotation.from_euler('y', -heading(same.rotations[0, 0])).as_matrix()
    moved = (joints - joints[:1, :1] * [1, 0, 1]) @ start.T
    np.testing.assert_allclose(back, moved[:-1], atol=0.02)


def test_ee4d_segments_give_back_the_motion(tmp_path):
    truth = resample(walk(3.0, 120.0, turn=0.3), 10.0)
    write_ee4d(tmp_path / 'ee_val.pt', {'cmu_bike02_4___0___90': truth})
    (name, motion), = ee4d.read_ee4d(tmp_path / 'ee_val.pt')
    assert name == 'cmu_bike02_4___0___90' and motion.fps == 10.0
    np.testing.assert_allclose(motion.root_position, truth.root_position, atol=1e-5)
    assert geodesic_angle(motion.rotations, truth.rotations).max() < 2e-3


class Evil:
    """Opening a pickle of this would write a file."""

    def __reduce__(self):
        return (open, ('opened', 'w'))


def test_ee4d_files_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'a___0___3': {'smpl_params': Evil()}}, tmp_path / 'ee_val.pt')
    with pytest.raises(ValueError, match='loaded safely'):
        list(ee4d.read_ee4d(tmp_path / 'ee_val.pt'))
    assert not (tmp_path / 'opened').exists()
    for value in ({'mean': torch.zeros(3)}, [1], {}):
        torch.save(value, tmp_path / 'stats.pt')
        with pytest.raises(ValueError, match='segments'):
            list(ee4d.read_ee4d(tmp_path / 'stats.pt'))


def test_import_reads_the_layouts_side_by_side(tmp_path):
    for i in range(2):
        write_nymeria(tmp_path / f'nymeria/2023_s{i}', walk(3.0, 240.0, seed=i))
    hml = tmp_path / 'HumanML3D'
    for name in ('new_joints', 'new_joint_vecs', 'texts'):
        (hml / name).mkdir(parents=True)
    for i, name in enumerate(('000001', '000002')):
        joints = hml_joints(walk(4.0, 120.0, seed=10 + i))
        np.save(hml / f'new_joints/{name}.npy', joints[:-1].astype(np.float32))
        np.save(hml / f'new_joint_vecs/{name}.npy', write_vectors(joints))
    np.save(hml / 'new_joints/M000001.npy', joints)
    np.save(hml / 'Mean.npy', np.zeros(263))
    np.save(hml / 'kit.npy', np.zeros((40, 251)))
    (hml / 'texts/000001.txt').write_text(
        'a part of it#a/DET#1.0#2.5\na man walks  on.#a/DET man/NOUN#0.0#0.0\n')
    segments = {f'iiith_cooking_5{k // 2}_2___{90 * k}___{90 * k + 90}': resample(
        walk(4.0, 120.0, seed=20 + k), 10.0) for k in range(3)}
    write_ee4d(tmp_path / 'ee_train.pt', segments)
    takes, report = import_folder(tmp_path, shipped_mappings(), progress=False)
    status = {o.source: (o.status, o.notes) for o in report.outcomes}
    by_source = {t.source: t for t in takes}
    assert by_source['nymeria/2023_s0/body/xdata.npz'].label == 'by my desk'
    assert by_source['HumanML3D/new_joints/000001.npy'].label == 'a man walks on.'
    assert status['HumanML3D/new_joints/M000001.npy'][0] == 'copy'
    assert 'new_joints' in status['HumanML3D/new_joint_vecs/000002.npy'][1]
    assert status['HumanML3D/kit.npy'][0] == 'refused' and 'HumanML3D/Mean.npy' not in status
    cut = [by_source[f'ee_train.pt#{name}'] for name in segments]
    assert len({t.name for t in takes}) == len(takes) == 7
    assert cut[0].performance == cut[1].performance != cut[2].performance
    assert cut[0].label == 'iiith cooking' and len({t.split for t in cut[:2]}) == 1
