# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Importer and library: traps are found, copies share a performance, splits never leak."""

from dataclasses import replace
import itertools
import json
from pathlib import Path
import shutil

import numpy as np
import pytest
from readers_support import mapping_text, walk, write_asf_amc, write_bvh, write_expmap

from egomotion_ros.body.edits import ground_pose, mirror, resample, slice_frames
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import geodesic_angle, yaw_matrix
from egomotion_ros.body.skeleton import FOOT_HEIGHTS, FOOT_JOINTS, JOINT_INDEX
from egomotion_ros.body.smplx_io import write_npz
from egomotion_ros.cli import main
from egomotion_ros.data import importer_checks as checks
from egomotion_ros.data.importer import import_folder
from egomotion_ros.data.importer_labels import action_of, cmu_take, read_labels, take_name
from egomotion_ros.data.importer_match import SAME, find_copies, same_performance, signature
from egomotion_ros.data.library import SPLITS, MotionLibrary, save_library, split_of
from egomotion_ros.data.mapping import load_mapping, shipped_mappings


@pytest.fixture
def mappings(tmp_path):
    path = tmp_path / 'own.yaml'
    path.write_text(mapping_text())
    return [load_mapping(path), *shipped_mappings()]


@pytest.fixture(scope='module')
def recorded(tmp_path_factory):
    """Eight performances; two of them also in other formats, rates and cuts, one broken file."""
    folder = tmp_path_factory.mktemp('recorded')
    for name in ('amc', 'bvh', 'clips/gait'):
        (folder / name).mkdir(parents=True)
    takes = [walk(4.0, 120.0, turn=0.2 * i - 0.5, seed=i) for i in range(8)]
    write_asf_amc(folder / 'amc', '07_01', takes[0])
    write_bvh(folder / 'bvh/007_01.bvh', resample(takes[0], 60.0))
    write_expmap(folder / 'clips/gait/gait_1.txt', slice_frames(takes[0], 40, 400))
    write_bvh(folder / 'bvh/007_02.bvh', resample(takes[1], 60.0))
    write_npz(folder / 'clips/second.npz', takes[1], fps=60.0)
    for i in range(2, 8):
        write_bvh(folder / f'bvh/007_{i + 1:02d}.bvh', resample(takes[i], 60.0))
    (folder / 'bvh/broken.bvh').write_text('HIERARCHY')
    (folder / 'readme.txt').write_text('no motion here\n')
    return folder


@pytest.fixture
def recordings(recorded, tmp_path):
    return Path(shutil.copytree(recorded, tmp_path / 'mocap'))


def test_import_reads_all_formats_and_says_what_became_of_every_file(recordings, mappings):
    takes, report = import_folder(recordings, mappings, {'07_01': 'swordplay'}, progress=False)
    status = {o.source: o.status for o in report.outcomes}
    assert status['amc/07_01.amc'] == 'read'
    assert status['bvh/007_01.bvh'] == status['clips/gait/gait_1.txt'] == 'copy'
    assert status['clips/second.npz'] == 'read' and status['bvh/007_02.bvh'] == 'copy'
    assert status['bvh/broken.bvh'] == 'refused' and 'readme.txt' not in status
    assert len(takes) == report.count('read') == 8
    assert next(o.notes for o in report.outcomes if o.status == 'refused')
    by_source = {t.source: t for t in takes}
    assert by_source['amc/07_01.amc'].performance == '07_01'
    assert by_source['amc/07_01.amc'].label == 'swordplay'
    assert by_source['amc/07_01.amc'].action == 'martial'
    # The copy on another skeleton lends its name to the take that is kept.
    assert by_source['clips/second.npz'].performance == '07_02'


def test_one_damaged_archive_does_not_end_the_import(tmp_path, mappings):
    write_npz(tmp_path / 'good.npz', walk(4.0, 120.0), fps=60.0)
    whole = (tmp_path / 'good.npz').read_bytes()
    # The deflated bytes of the first array, and a byte of every later part of the file.
    for n in (60, 100, *range(200, len(whole), len(whole) // 20)):
        name = tmp_path / f'damaged_{n}.npz'
        name.write_bytes(whole[:n] + bytes(b ^ 0xFF for b in whole[n:n + 8]) + whole[n + 8:])
    (tmp_path / 'header.npy').write_bytes(
        b'\x93NUMPY\x01\x00\x76\x00' + b"{'descr': '<f4', 'shape': (4".ljust(118) + bytes(64))
    takes, report = import_folder(tmp_path, mappings, progress=False)
    status = {o.source: o for o in report.outcomes}
    assert len(takes) == 1 and status['good.npz'].status in ('read', 'copy')
    refused = [o for o in report.outcomes if o.status == 'refused']
    assert len(refused) > 5 and all(o.notes.startswith(o.source) for o in refused)
    assert status['header.npy'].status == 'refused'


def test_imported_motion_is_canonical_on_the_floor_and_true(recordings, mappings):
    takes, _ = import_folder(recordings, mappings, progress=False)
    take = next(t for t in takes if t.performance == '07_01')
    pose = ground_pose(take.motion)
    np.testing.assert_allclose([pose.x, pose.y, pose.yaw], 0.0, atol=1e-6)
    assert take.motion.fps == 30.0 and take.motion.rotations.dtype == np.float32
    truth = resample(walk(4.0, 120.0, turn=-0.5, seed=0), 30.0)
    assert take.frames == truth.frames
    local = geodesic_angle(take.motion.rotations[:, 1:], truth.rotations[:, 1:])
    assert local.max() < 0.01
    moved = np.diff(take.motion.root_position[:, :2], axis=0)
    wanted = np.diff(truth.root_position[:, :2], axis=0)
    np.testing.assert_allclose(
        np.linalg.norm(moved, axis=1), np.linalg.norm(wanted, axis=1), atol=1e-3
    )


def test_no_performance_is_in_two_splits_and_no_trace_matches_across_them(recordings, mappings):
    """With copies of every performance under names that hash into other splits."""
    for i in range(2, 8):
        copy = slice_frames(walk(4.0, 120.0, turn=0.2 * i - 0.5, seed=i), 30, 450)
        write_npz(recordings / f'clips/again_{"abcdefgh"[i]}.npz', copy, fps=50.0)
    takes, report = import_folder(recordings, mappings, progress=False)
    assert report.count('read') + report.count('copy') == len(report.outcomes) - 1
    splits = {}
    for take in takes:
        splits.setdefault(take.performance, set()).add(take.split)
        assert take.split == split_of(take.performance)
    assert all(len(s) == 1 for s in splits.values())
    # Whatever the hash does with eight names: two different performances never match, and what
    # stands in different splits is of different performances.
    signs = [signature(t.motion) for t in takes]
    for a, b in itertools.permutations(range(len(takes)), 2):
        same = takes[a].performance == takes[b].performance
        assert same or same_performance(signs[a], signs[b])[0] > SAME
        assert same <= (takes[a].split == takes[b].split)


def test_copies_in_different_cuts_are_found_and_different_walks_are_not():
    one = resample(walk(6.0, 120.0, seed=1), 30.0)
    cut = resample(slice_frames(walk(6.0, 120.0, seed=1), 203, 560), 30.0)
    difference, start = same_performance(signature(cut), signature(one))
    assert difference < SAME and start in (50, 51)
    for seed in range(2, 6):
        other = resample(walk(6.0, 120.0, seed=seed), 30.0)
        assert same_performance(signature(other), signature(one))[0] > SAME


def test_search_for_copies_loses_no_pair_and_slides_few(monkeypatch):
    """Against comparing every pair; long, middle and short takes, half of them cut from others."""
    rng, signs = np.random.default_rng(0), []
    for seed in range(30):
        take = signature(resample(walk(rng.uniform(5, 9), 120.0, seed=seed), 30.0))
        length = int(rng.choice([29, 31, 50, 70, 110, 140]))
        first = int(rng.integers(len(take) - length + 1))
        signs += [take, take[first:first + length] + rng.normal(size=(length, 5)) * 0.01]
    every = [
        (a, b, start, difference)
        for a, b in itertools.permutations(range(len(signs)), 2)
        for difference, start in [same_performance(signs[a], signs[b])]
        if difference < SAME and (len(signs[a]), a) < (len(signs[b]), b)
    ]
    slid = []
    monkeypatch.setattr('egomotion_ros.data.importer_match.same_performance',
                        lambda a, b: slid.append(1) or same_performance(a, b))
    assert len(every) >= 30 and sorted(find_copies(signs)) == sorted(every)
    assert len(slid) < 0.7 * len(signs) * (len(signs) - 1) / 2


def test_partners_of_one_recording_share_a_performance(tmp_path, mappings):
    """Long takes of a folder with exactly as many frames are two people dancing together."""
    for i, name in enumerate(('01', '16')):
        write_bvh(tmp_path / f'{name}.bvh', walk(10.0, 120.0, turn=0.3, seed=i))
    write_bvh(tmp_path / '02.bvh', walk(10.5, 120.0, seed=7))
    takes, _ = import_folder(tmp_path, mappings, progress=False)
    performance = {t.source: t.performance for t in takes}
    assert performance['01.bvh'] == performance['16.bvh'] != performance['02.bvh']


def test_split_is_the_same_everywhere_and_about_80_10_10():
    assert [split_of(f'{i:02d}_01') for i in range(1, 6)] == [
        split_of(f'{i:02d}_01') for i in range(1, 6)
    ]
    counts = {s: sum(split_of(f'p{i}') == s for i in range(2000)) for s in SPLITS}
    assert 1500 < counts['train'] < 1700 and 150 < counts['val'] < 250
    assert sum(counts.values()) == 2000


def test_first_frame_that_jumps_is_dropped():
    motion = walk(2.0, 60.0)
    root = motion.root_position.copy()
    root[0] += [2.3, 0.0, 0.0]
    mended, said = checks.drop_first_jump(replace(motion, root_position=root))
    assert mended.frames == motion.frames - 1 and 'first frame dropped' in said
    rotations = motion.rotations.copy()
    rotations[0] = np.eye(3)
    mended, said = checks.drop_first_jump(replace(motion, rotations=rotations))
    assert mended.frames == motion.frames - 1 and 'degrees' in said
    same, said = checks.drop_first_jump(motion)
    assert same.frames == motion.frames and said == ''


def test_constant_hip_height_is_refused_but_standing_still_is_not():
    motion = walk(2.0, 60.0)
    root = motion.root_position.copy()
    root[:, 2] = 0.95
    with pytest.raises(ValueError, match='hip height is constant'):
        checks.check_hip_height(replace(motion, root_position=root))
    still = replace(motion, root_position=root, rotations=motion.rotations[:1].repeat(120, axis=0))
    checks.check_hip_height(still)


def test_impossible_root_steps_leave_the_longest_good_stretch():
    motion = walk(4.0, 60.0)
    root = motion.root_position.copy()
    root[60:] += [0.13, 0.0, 0.0]  # 13 cm more within 1/60 s
    kept, said = checks.cut_jumps(replace(motion, root_position=root))
    assert kept.frames == 180 and '1 impossible steps' in said
    root[150:] += [0.13, 0.0, 0.0]
    root[100:] += [0.13, 0.0, 0.0]
    root[195:] += [0.13, 0.0, 0.0]
    with pytest.raises(ValueError, match='impossible'):
        checks.cut_jumps(slice_frames(replace(motion, root_position=root), 55, 110))


def test_glitches_of_single_joints_are_bridged():
    motion = walk(2.0, 120.0)
    rotations = motion.rotations.copy()
    elbow, wrist = JOINT_INDEX['left_elbow'], JOINT_INDEX['right_wrist']
    rotations[100:103, elbow] = yaw_matrix(np.asarray(2.0))
    rotations[50:90, wrist] = yaw_matrix(np.asarray(3.0))
    mended, said = checks.mend_glitches(replace(motion, rotations=rotations))
    assert '3 joint glitches' in said or '2 joint glitches' in said
    assert geodesic_angle(mended.rotations[:, elbow], motion.rotations[:, elbow]).max() < 0.1
    assert checks.cut_jumps(mended)[1] == ''


def test_walking_that_lies_down_or_slides_is_refused_and_dancing_may():
    motion = resample(walk(2.0, 60.0), 30.0)
    lying = motion.rotations.copy()
    lying[:, 0] = np.eye(3)  # body Y along world Y: on its side
    lying = replace(motion, rotations=lying)
    with pytest.raises(ValueError, match='tilts by 90 degrees'):
        checks.check_tilt(lying, 'walk')
    checks.check_tilt(lying, 'dance')
    sliding = replace(motion, contacts=np.ones((motion.frames, 4)))
    with pytest.raises(ValueError, match='slide'):
        checks.check_slide(sliding, 'walk')
    with pytest.raises(ValueError, match='high'):
        raised = replace(motion, root_position=motion.root_position + [0, 0, 1.0])
        checks.check_upright(raised, 'walk')


@pytest.mark.parametrize('offset', [-1.052, 0.0, 0.7])
def test_floor_is_found_whatever_the_height_of_the_file(offset):
    motion = resample(walk(3.0, 60.0, travel=0.0), 30.0)
    still = replace(
        motion,
        root_position=motion.root_position[:1].repeat(90, axis=0) + [0.0, 0.0, offset],
        rotations=motion.rotations[:1].repeat(90, axis=0),
    )
    moved, said = checks.set_floor(still)
    joints = forward_kinematics(moved.root_position, moved.rotations)
    lowest = (joints[:, list(FOOT_JOINTS), 2] - FOOT_HEIGHTS).min(axis=1)
    np.testing.assert_allclose(lowest, 0.0, atol=1e-6)
    assert moved.contacts.any() and ('floor moved' in said) == (abs(offset) > 0.5)
    rest = checks.describe(moved)
    assert rest['starts_at_rest'] and rest['ends_at_rest'] and rest['speed'] < 1e-6


def test_path_of_unknown_bones_is_scaled_until_the_feet_stand():
    motion = resample(walk(4.0, 120.0), 30.0)
    toes = [JOINT_INDEX['left_foot'], JOINT_INDEX['right_foot']]
    joints = forward_kinematics(motion.root_position, motion.rotations)
    stance = np.gradient(joints[:, toes, 0] - motion.root_position[:, :1], axis=0).argmin(axis=1)
    contacts = np.zeros((motion.frames, 4))
    contacts[np.arange(motion.frames), 2 + stance] = 1.0
    root = motion.root_position
    stands = replace(motion, contacts=contacts)
    same, said = checks.fit_path(stands)
    assert said == '' and same is stands
    fitted, said = checks.fit_path(replace(stands, root_position=root * [1.08, 1.08, 1.0]))
    assert 'path scaled' in said
    np.testing.assert_allclose(fitted.root_position[-1], root[-1], rtol=0.02, atol=0.02)


def test_turn_and_speed_of_a_take_are_measured():
    motion = resample(walk(4.0, 120.0, turn=0.5), 30.0)
    facts = checks.describe(motion)
    path = np.linalg.norm(np.diff(motion.root_position[:, :2], axis=0), axis=1).sum()
    assert facts['speed'] == pytest.approx(path / (119 / 30), rel=1e-6) and path > 2.0
    assert facts['turn'] == pytest.approx(2.0, abs=0.1)
    assert not facts['starts_at_rest']


@pytest.mark.parametrize(
    'label, speed, action',
    [
        ('walk', 1.2, 'walk'), ('walking', 2.9, 'run'), ('run/jog', 3.0, 'run'),
        ('running', 1.0, 'walk'), ('basketball signal', 0.0, 'signal'),
        ('basketball - forward dribble', 1.0, 'sport'), ('salsa', 0.5, 'dance'),
        ('playground - climb, hang, swing', 0.5, 'climb'), ('bend over, scoop up', 0.1, 'bend'),
        ('walk on uneven terrain', 0.8, 'uneven'), ('punch/strike', 0.1, 'martial'),
        ('something else', 0.2, 'other'),
    ],
)  # fmt: skip
def test_action_is_one_word_of_the_label_and_the_speed(label, speed, action):
    assert action_of(label, speed) == action


def test_names_are_safe_and_cmu_takes_are_recognised(tmp_path):
    assert cmu_take('002_01') == cmu_take('02_01') == '02_01'
    assert cmu_take('walking_1') is None
    assert take_name(tmp_path / 'a b' / '..x' / 'ü.bvh', tmp_path).isascii()
    assert take_name(tmp_path / 'x/x/02_01.amc', tmp_path) == 'x_02_01'


def test_broken_label_table_is_refused(tmp_path):
    path = tmp_path / 'labels.tsv'
    path.write_text('take\tdescription\n02_01\twalk\n')
    assert read_labels(path) == {'02_01': 'walk'}
    path.write_text('02_01 walk\n')
    with pytest.raises(ValueError, match='labels.tsv:1'):
        read_labels(path)


def test_cli_imports_prints_the_table_and_writes_picture_and_video(recordings, tmp_path, capsys):
    out = tmp_path / 'library'
    assert main(['data', 'import', str(recordings), '--out', str(out), '--mapping', 'none']) == 1
    assert capsys.readouterr().err.count('\n') == 1  # one line, no traceback
    (tmp_path / 'own.yaml').write_text(mapping_text())
    (tmp_path / 'labels.tsv').write_text('07_04\tsomething\n99_99\twalk\n')
    code = main(
        ['data', 'import', str(recordings), '--out', str(out), '--mapping',
         str(tmp_path / 'own.yaml'), '--fps', 'bvh/007_03*=50', '--fps', 'salsa/*=60',
         '--labels', str(tmp_path / 'labels.tsv'), '--picture', 'amc_07_01']
    )  # fmt: skip
    printed = capsys.readouterr().out
    # Neither a label nor a rate is dropped silently.
    assert '1 of 2 rows of --labels name no file, such as 99_99' in printed
    assert '--fps salsa/*: no such file' in printed and '007_03*: no' not in printed
    assert code == 0 and 'broken.bvh' in printed and 'same performance as' in printed
    assert (out / 'amc_07_01.png').read_bytes().startswith(b'\x89PNG')
    library = MotionLibrary.open(out)
    assert len(library) == 8 and sum(1 for _ in library) == 8
    slow = next(i for i in library.infos if i.source.endswith('007_03.bvh'))
    normal = next(i for i in library.infos if i.source.endswith('007_04.bvh'))
    assert slow.frames == pytest.approx(normal.frames * 60 / 50, abs=2)
    assert {t.split for t in library.takes(split='train')} <= {'train'}
    assert all(t.action == 'walk' for t in library.takes(action='walk'))


def test_a_picture_of_a_take_that_is_not_there_names_those_that_are(recordings, tmp_path, capsys):
    (tmp_path / 'own.yaml').write_text(mapping_text())
    assert main(['data', 'import', str(recordings), '--out', str(tmp_path / 'library'),
                 '--mapping', str(tmp_path / 'own.yaml'), '--picture', '07_01']) == 1
    assert 'amc_07_01' in capsys.readouterr().err


def test_video_shows_every_frame(tmp_path):
    av = pytest.importorskip('av')
    from egomotion_ros.data.preview import save_video

    save_video(tmp_path / 'a.mp4', resample(walk(1.0, 30.0), 10.0), 'walk', height=160)
    with av.open(str(tmp_path / 'a.mp4')) as file:
        assert sum(1 for _ in file.decode(video=0)) == 10


@pytest.fixture
def library(tmp_path, mappings):
    folder = tmp_path / 'mocap'
    folder.mkdir()
    write_npz(folder / '07_01.npz', walk(2.0, 60.0))
    takes, _ = import_folder(folder, mappings, progress=False)
    save_library(tmp_path / 'library', takes)
    return tmp_path / 'library'


def test_saving_again_replaces_the_library(library, mappings, tmp_path):
    takes = list(MotionLibrary.open(library))
    mirrored = [replace(t, name='other', motion=mirror(t.motion)) for t in takes]
    save_library(library, mirrored)
    assert sorted(p.name for p in library.iterdir()) == ['index.json', 'other.npz']


@pytest.mark.parametrize(
    'change, message',
    [
        ({'name': '../../etc/passwd'}, 'no take name'),
        ({'name': '/abs'}, 'no take name'),
        ({'split': 'all'}, 'split'),
        ({'frames': 10**9}, 'frames'),
        ({'frames': '12'}, 'wrong type'),
        ({'speed': None}, 'wrong type'),
        ({'extra': 1}, 'broken index'),
    ],
)
def test_index_that_was_tampered_with_is_refused(library, change, message):
    index = json.loads((library / 'index.json').read_text())
    index['takes'][0].update(change)
    (library / 'index.json').write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        MotionLibrary.open(library)


def test_broken_take_and_absent_library_are_refused(library, tmp_path):
    path = library / '07_01.npz'
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match='07_01.npz'):
        MotionLibrary.open(library).load('07_01')
    with pytest.raises(ValueError, match='no take'):
        MotionLibrary.open(library).load('nobody')
    with pytest.raises(ValueError, match='split'):
        list(MotionLibrary.open(library).takes(split='everything'))
    with pytest.raises(ValueError, match='egomotion data import'):
        MotionLibrary.open(tmp_path / 'nowhere')


def test_empty_folder_and_unknown_folder_are_refused(tmp_path, mappings):
    with pytest.raises(ValueError, match='not a folder'):
        import_folder(tmp_path / 'nowhere', mappings, progress=False)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='below it'):
        import_folder(tmp_path / 'empty', mappings, progress=False)
