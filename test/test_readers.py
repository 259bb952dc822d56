# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Readers: what they read is the motion that was written, and broken files are refused."""

import zipfile

import numpy as np
import pytest
from readers_support import mapping_text, walk, write_asf_amc, write_bvh, write_expmap
from scipy.spatial.transform import Rotation

from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import geodesic_angle
from egomotion_ros.body.skeleton import JOINT_INDEX, JOINT_NAMES
from egomotion_ros.body.smplx_io import model_shape, read_npz, write_npz
from egomotion_ros.data.asf_amc import find_asf, read_amc, read_asf
from egomotion_ros.data.bvh import read_bvh
from egomotion_ros.data.expmap import read_expmap
from egomotion_ros.data.mapping import find_mapping, load_mapping, shipped_mappings, to_body


def positions(motion):
    return forward_kinematics(motion.root_position, motion.rotations)


def shipped(name):
    return next(m for m in shipped_mappings() if m.name == name)


@pytest.fixture
def own_mapping(tmp_path):
    path = tmp_path / 'own.yaml'
    path.write_text(mapping_text())
    return load_mapping(path)


@pytest.mark.parametrize('order', ['ZYX', 'XYZ', 'YXZ'])
def test_bvh_gives_back_the_motion_in_any_channel_order(tmp_path, own_mapping, order):
    motion = walk(1.0, 60.0, turn=2.0)
    write_bvh(tmp_path / 'a.bvh', motion, order=order)
    read = to_body(read_bvh(tmp_path / 'a.bvh'), own_mapping)
    assert read.fps == pytest.approx(60.0, abs=1e-4)
    np.testing.assert_allclose(positions(read), positions(motion), atol=1e-5)
    assert geodesic_angle(read.rotations, motion.rotations).max() < 1e-4


def test_bvh_with_axes_along_the_bones_gives_the_same_motion(tmp_path):
    """The zero pose is then no T pose at all; the mapping's axes put that right."""
    motion = walk(1.0, 60.0)
    frames = np.tile(np.eye(3), (22, 1, 1))
    # Columns: the joint's own X, Y, Z axes in body axes (left, up, forward).
    leg = np.array([[-1, 0, 0], [0, -1, 0], [0, 0, 1.0]]).T
    arm = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]).T
    axes = {}
    for name in JOINT_NAMES:
        if name.endswith(('_hip', '_knee')):
            frames[JOINT_INDEX[name]] = leg
            axes[name] = '{left: -x, up: -y, forward: z}'
        if name.startswith('left_') and name.endswith(('_shoulder', '_elbow', '_wrist')):
            frames[JOINT_INDEX[name]] = arm
            axes[name] = '{left: y, up: -x, forward: z}'
    write_bvh(tmp_path / 'a.bvh', motion, frames=frames)
    (tmp_path / 'turned.yaml').write_text(mapping_text(axes, bones=True))
    read = to_body(read_bvh(tmp_path / 'a.bvh'), load_mapping(tmp_path / 'turned.yaml'))
    np.testing.assert_allclose(positions(read), positions(motion), atol=1e-5)


def test_another_rest_pose_gives_the_same_limb_directions(tmp_path):
    """A rest pose with arms hanging and legs astride: bones are aligned, angles are not copied."""
    motion = walk(1.0, 60.0)
    source_file = tmp_path / 'a.bvh'
    frames = np.tile(np.eye(3), (22, 1, 1))
    hang = Rotation.from_euler('z', -60, degrees=True).as_matrix()
    for name in ('left_shoulder', 'left_elbow', 'left_wrist'):
        # Axes that stay level while the bone hangs: the offset is seen turned in them.
        frames[JOINT_INDEX[name]] = hang.T
    write_bvh(source_file, motion, frames=frames)
    (tmp_path / 'aligned.yaml').write_text(mapping_text(bones=True))
    read = to_body(read_bvh(source_file), load_mapping(tmp_path / 'aligned.yaml'))
    np.testing.assert_allclose(positions(read)[:, :21], positions(motion)[:, :21], atol=1e-5)


def test_a_larger_skeleton_is_scaled_by_its_legs(tmp_path, own_mapping):
    motion = walk(1.0, 60.0)
    write_bvh(tmp_path / 'a.bvh', motion, scale=130.0)
    read = to_body(read_bvh(tmp_path / 'a.bvh'), own_mapping)
    np.testing.assert_allclose(positions(read), positions(motion), atol=1e-5)


def test_other_leg_proportions_keep_the_ankles_on_their_paths(tmp_path, own_mapping):
    """A thigh that is longer and a shank that is shorter must not make standing feet slide."""
    motion = walk(1.0, 60.0)
    source_file = tmp_path / 'a.bvh'
    write_bvh(source_file, motion)
    source = read_bvh(source_file)
    offsets = source.offsets.copy()
    for side in ('left', 'right'):
        offsets[source.names.index(f'{side}_knee')] *= 1.10
        offsets[source.names.index(f'{side}_ankle')] *= (0.85 - 0.451) / 0.44
    source = type(source)(source.names, source.parents, offsets, source.rotations,
                          source.root_position, source.fps)  # fmt: skip
    read = to_body(source, own_mapping)
    ankles = [JOINT_INDEX['left_ankle'], JOINT_INDEX['right_ankle']]
    wanted = source.positions()[:, [source.names.index(JOINT_NAMES[a]) for a in ankles]]
    np.testing.assert_allclose(
        positions(read)[:, ankles], wanted @ own_mapping.world.T / 100, atol=2e-3
    )


def test_amc_gives_back_the_motion(tmp_path):
    motion = walk(1.0, 120.0, turn=1.0)
    write_asf_amc(tmp_path, '07_01', motion)
    skeleton = read_asf(find_asf(tmp_path / '07_01.amc'))
    source = read_amc(tmp_path / '07_01.amc', skeleton, 120.0)
    read = to_body(source, find_mapping(source.names, shipped_mappings()))
    np.testing.assert_allclose(positions(read), positions(motion), atol=1e-4)


@pytest.mark.parametrize('turn', [0.0, 2.5, -2.5])
def test_expmap_root_comes_back_upright_through_a_whole_turn(tmp_path, turn):
    motion = walk(3.0, 120.0, turn=turn)
    write_expmap(tmp_path / 'a.txt', motion)
    read = to_body(read_expmap(tmp_path / 'a.txt'), shipped('cmu_asf'))
    assert read.frames == motion.frames  # the reference row is gone
    assert geodesic_angle(read.rotations[:, 0], motion.rotations[:, 0]).max() < 1e-4


def test_npz_goes_out_and_in_without_loss(tmp_path):
    motion = walk(1.0, 30.0)
    write_npz(tmp_path / 'a.npz', motion)
    read = read_npz(tmp_path / 'a.npz')
    assert read.fps == 30.0
    np.testing.assert_allclose(positions(read), positions(motion), atol=1e-6)
    with np.load(tmp_path / 'a.npz', allow_pickle=False) as data:
        assert data['poses'].shape == (30, 165) and data['trans'].shape == (30, 3)
        assert str(data['surface_model_type']) == 'smplx'
        smplx = {k: data[k] for k in ('root_orient', 'pose_body', 'trans', 'mocap_frame_rate')}
    np.savez(tmp_path / 'smplx.npz', **smplx)
    again = read_npz(tmp_path / 'smplx.npz')
    np.testing.assert_allclose(again.rotations, read.rotations, atol=1e-9)


@pytest.mark.parametrize(
    'change, message',
    [
        ({'trans': None}, 'trans'),
        ({'poses': None}, 'poses'),
        ({'poses': np.zeros((30, 60))}, r'\(30, 60\)'),
        ({'poses': np.zeros((29, 165))}, r'\(29, 165\)'),
        ({'trans': np.full((30, 3), np.inf)}, 'finite'),
        ({'mocap_framerate': None}, 'frame rate'),
        ({'mocap_framerate': np.float64(0)}, 'mocap_framerate'),
        ({'trans': np.array([{}], dtype=object)}, 'allow_pickle|object'),
        ({'trans': np.float64(1.0)}, 'expected poses'),
        ({'trans': np.full((30, 3), 'x')}, 'numbers'),
    ],
)
def test_broken_npz_is_refused(tmp_path, change, message):
    arrays = {'poses': np.zeros((30, 165)), 'trans': np.zeros((30, 3)),
              'mocap_framerate': np.float64(60), **change}  # fmt: skip
    np.savez(tmp_path / 'a.npz', **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(ValueError, match=message):
        read_npz(tmp_path / 'a.npz')


def test_what_is_no_npz_is_refused(tmp_path):
    (tmp_path / 'a.npz').write_bytes(b'PK\x03\x04 no archive')
    with pytest.raises(ValueError, match='npz'):
        read_npz(tmp_path / 'a.npz')


def damaged(whole, kind):
    """Bytes of an archive with its compressed streams, or every byte in turn, damaged."""
    if kind == 'streams':
        # Behind the local header of the first member: the deflated array itself.
        start = 30 + sum(int.from_bytes(whole[n:n + 2], 'little') for n in (26, 28))
        for n in range(start, start + 60):
            yield whole[:n] + bytes([whole[n] ^ 0xFF]) + whole[n + 1:]
        return
    rng = np.random.default_rng(0)
    for n in rng.choice(len(whole), 400, replace=False):
        yield whole[:n] + bytes([whole[n] ^ int(rng.integers(1, 256))]) + whole[n + 1:]


@pytest.mark.parametrize('save', [np.savez_compressed, np.savez])
@pytest.mark.parametrize('kind', ['streams', 'anywhere'])
def test_flipped_bytes_of_an_npz_are_a_refusal(tmp_path, save, kind):
    path, rng = tmp_path / 'a.npz', np.random.default_rng(1)
    save(path, poses=rng.normal(size=(4, 66)), trans=rng.normal(size=(4, 3)),
         mocap_framerate=np.float64(60))
    refused = 0
    for broken in damaged(path.read_bytes(), kind):
        path.write_bytes(broken)
        try:
            read_npz(path)
        except ValueError as error:
            assert str(error).startswith('a.npz: ')
            refused += 1
    assert refused > 30


def test_array_headers_are_not_trusted(tmp_path):
    path = tmp_path / 'a.npz'
    for header, message in [
        # An unclosed bracket: neither Python's parser nor its tokenizer gets to an end.
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (4, 3", 'damaged'),
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (4, 3)}}", 'damaged|parse'),
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000, 10000000)}", 'a.npz'),
        (b"{'descr': '<U4', 'fortran_order': False, 'shape': ()}", 'a.npz'),
    ]:
        header = header.ljust(117) + b'\n'
        member = b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header + bytes(96)
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('trans.npy', member)
        with pytest.raises(ValueError, match=message):
            read_npz(path)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('trans.npy', 'text')
    with pytest.raises(ValueError, match='trans is no array'):
        read_npz(path)


def test_missing_smplx_model_is_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match='SMPLX_NEUTRAL') as error:
        model_shape(tmp_path)
    assert '\n' not in str(error.value)


def _smplx_file(folder, rng):
    """A made-up body in the layout of SMPLX_NEUTRAL.npz, a pickle among its arrays."""
    vertices, joints = 10475, 55
    arrays = {
        'v_template': rng.normal(size=(vertices, 3)), 'f': np.array([[0, 1, 2]], np.uint32),
        'shapedirs': 0.1 * rng.normal(size=(vertices, 3, 20)),
        'posedirs': np.zeros((vertices, 3, 486), np.float16),
        'J_regressor': rng.dirichlet(np.ones(vertices), joints),
        'weights': np.full((vertices, joints), 1 / joints),
        'kintree_table': np.array([[2**32 - 1, *range(joints - 1)], range(joints)], np.uint32),
        'lmk_faces_idx': np.zeros(51, np.int64), 'lmk_bary_coords': np.full((51, 3), 1 / 3),
        'dynamic_lmk_faces_idx': np.zeros((79, 17), np.int64),
        'dynamic_lmk_bary_coords': np.full((79, 17, 3), 1 / 3),
        'joint2num': np.array(_Touch(str(folder / 'touched')), dtype=object),
    }
    for side in 'lr':
        arrays[f'hands_components{side}'] = np.eye(45)
        arrays[f'hands_mean{side}'] = np.zeros(45)
    np.savez(folder / 'SMPLX_NEUTRAL.npz', **arrays)
    return arrays


class _Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


@pytest.mark.parametrize('below', ['', 'models/smplx'])
def test_the_shape_of_a_body_comes_from_the_model_file_without_unpickling(tmp_path, below):
    pytest.importorskip('smplx')
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    arrays = _smplx_file(folder, np.random.default_rng(0))
    betas = np.array([0.5, -1.0, 2.0])
    pelvis, leg = model_shape(tmp_path, betas)
    shaped = arrays['v_template'] + arrays['shapedirs'][:, :, :3] @ betas
    joints = arrays['J_regressor'] @ shaped
    assert np.allclose(pelvis, joints[0], atol=1e-5)
    assert leg == pytest.approx(sum(np.linalg.norm(joints[a] - joints[b])
                                    for a, b in ((4, 1), (7, 4))), abs=1e-5)
    assert not (folder / 'touched').exists()


@pytest.mark.parametrize('what', [b'', b'no archive', 'empty archive'])
def test_a_damaged_smplx_model_is_one_clear_line(tmp_path, what):
    pytest.importorskip('smplx')
    if what == 'empty archive':
        np.savez(tmp_path / 'SMPLX_NEUTRAL.npz', other=np.zeros(3))
    else:
        (tmp_path / 'SMPLX_NEUTRAL.npz').write_bytes(what)
    with pytest.raises(ValueError, match='not a readable SMPL-X model') as error:
        model_shape(tmp_path)
    assert '\n' not in str(error.value)


def _edit_bvh(text, what):
    head, motion = text.split('MOTION')
    lines = motion.strip().split('\n')
    edits = {
        'missing channels': lambda: head.replace('    CHANNELS 3 Zrotation Yrotation Xrotation\n',
                                                 '', 1) + 'MOTION' + motion,
        'two rotations': lambda: head.replace('3 Zrotation Yrotation Xrotation',
                                              '2 Zrotation Yrotation', 1) + 'MOTION' + motion,
        'root without position': lambda: head.replace(
            '6 Xposition Yposition Zposition Z', '3 Z', 1) + 'MOTION' + motion,
        'unknown channel': lambda: head.replace('Yrotation', 'Wrotation', 1) + 'MOTION' + motion,
        'more frames than rows': lambda: text.replace('Frames: 30', 'Frames: 31'),
        'fewer frames than rows': lambda: text.replace('Frames: 30', 'Frames: 29'),
        'huge frame count': lambda: text.replace('Frames: 30', 'Frames: 99999999999'),
        'negative frame count': lambda: text.replace('Frames: 30', 'Frames: -3'),
        'frame count no number': lambda: text.replace('Frames: 30', 'Frames: many'),
        'zero frame time': lambda: text.replace('Frame Time: 0.0', 'Frame Time: 0.0 #'),
        'truncated': lambda: text[: int(len(text) * 0.8)],
        'truncated in the hierarchy': lambda: head[: len(head) // 2],
        'no motion': lambda: head,
        'nan': lambda: text.replace(lines[2].split()[5], 'nan', 1),
        'letters': lambda: text.replace(lines[2].split()[5], 'x1', 1),
        'offset no number': lambda: text.replace('OFFSET 0', 'OFFSET inf', 1),
        'twice the same joint': lambda: text.replace('right_hip', 'left_hip'),
        'binary': lambda: '\x00\x01',
        'empty': lambda: '',
    }  # fmt: skip
    return edits[what]()


@pytest.mark.parametrize(
    'what',
    [
        'missing channels', 'two rotations', 'root without position', 'unknown channel',
        'more frames than rows', 'fewer frames than rows', 'huge frame count',
        'negative frame count', 'frame count no number', 'zero frame time', 'truncated',
        'truncated in the hierarchy', 'no motion', 'nan', 'letters', 'offset no number',
        'twice the same joint', 'binary', 'empty',
    ],
)  # fmt: skip
def test_broken_bvh_is_refused_with_the_file_named(tmp_path, what):
    path = tmp_path / 'broken.bvh'
    write_bvh(path, walk(0.5, 60.0))
    good = path.read_text()
    bad = _edit_bvh(good, what)
    assert bad != good
    path.write_text(bad)
    with pytest.raises(ValueError, match='broken.bvh'):
        read_bvh(path)


def test_bvh_bones_that_change_length_are_refused(tmp_path):
    path = tmp_path / 'a.bvh'
    path.write_text(
        'HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\n'
        'CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation\n'
        'JOINT b\n{\nOFFSET 0 1 0\n'
        'CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation\n'
        'End Site\n{\nOFFSET 0 1 0\n}\n}\n}\nMOTION\nFrames: 2\nFrame Time: 0.1\n'
        '0 0 0 0 0 0 0 1 0 0 0 0\n0 0 0 0 0 0 0 2 0 0 0 0\n'
    )
    with pytest.raises(ValueError, match='changes its length'):
        read_bvh(path)


@pytest.mark.parametrize(
    'old, new, message',
    [
        ('lfemur ', 'xfemur ', 'no moving bone'),
        ('\n7\n', '\n7\nroot 0 0 0 0 0 0\n', 'once a frame'),
        ('root ', 'root 1 ', 'numbers'),
        ('thorax ', '# thorax ', 'lacks'),
        (':DEGREES', ':RADIANS', 'radians'),
    ],
)
def test_broken_amc_is_refused(tmp_path, old, new, message):
    write_asf_amc(tmp_path, '07_01', walk(0.2, 120.0))
    path = tmp_path / '07_01.amc'
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_amc(path, read_asf(tmp_path / '07.asf'), 120.0)


@pytest.mark.parametrize('cut', [0.3, 0.6, 0.95])
def test_truncated_amc_or_asf_is_refused(tmp_path, cut):
    write_asf_amc(tmp_path, '07_01', walk(0.2, 120.0))
    skeleton = read_asf(tmp_path / '07.asf')
    for name, read in (
        ('07.asf', read_asf),
        ('07_01.amc', lambda path: read_amc(path, skeleton, 120.0)),
    ):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text[: int(len(text) * cut)])
        with pytest.raises(ValueError):
            read(tmp_path / name)


@pytest.mark.parametrize('value, message', [('nan', 'finite'), ('x', 'x'), ('1,2', '117')])
def test_broken_expmap_is_refused(tmp_path, value, message):
    path = tmp_path / 'a.txt'
    write_expmap(path, walk(0.2, 120.0))
    rows = path.read_text().split('\n')
    rows[4] = ','.join([value, *rows[4].split(',')[1:]])
    path.write_text('\n'.join(rows))
    with pytest.raises(ValueError, match=message):
        read_expmap(path)


@pytest.mark.parametrize(
    'old, new, message',
    [
        ('metres_per_unit: 0.01', 'metres_per_unit: -1', 'metres_per_unit'),
        ('left: x', 'left: w', 'axes need'),
        ('left: x', 'left: y', 'right-handed'),
        ('  head: {source: head}\n', '', 'head'),
        ('{source: neck}', '{bone: neck}', 'neck'),
        ('{source: neck}', '{source: neck, turn: [1, 2]}', 'turn'),
        ('{source: neck}', '{source: neck', 'YAML'),
        ('joints:', 'colour: red\njoints:', 'colour'),
    ],
)
def test_broken_mapping_says_which_entry(tmp_path, old, new, message):
    path = tmp_path / 'own.yaml'
    path.write_text(mapping_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        load_mapping(path)


def test_unknown_skeleton_names_the_nearest_mapping():
    with pytest.raises(ValueError, match='nearest: poser_bvh'):
        find_mapping(('hip', 'lThigh', 'rThigh', 'lShin', 'chest'), shipped_mappings())


def test_wrong_unit_is_seen_at_the_legs(tmp_path):
    write_bvh(tmp_path / 'a.bvh', walk(0.5, 60.0))
    path = tmp_path / 'own.yaml'
    path.write_text(mapping_text().replace('0.01', '1.0'))
    with pytest.raises(ValueError, match='metres_per_unit'):
        to_body(read_bvh(tmp_path / 'a.bvh'), load_mapping(path))
