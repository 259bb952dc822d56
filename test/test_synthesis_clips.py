# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded actions are cut where a person nearly stands, and led from rest to rest."""

from dataclasses import replace

from fixtures_gait import walking_motion
import numpy as np
import pytest

from egomotion_ros.body.contacts import detect_contacts
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import axis_angle_to_matrix
from egomotion_ros.data.clips import Clip, extract_clips
from egomotion_ros.data.episodes_bank import plan_bank
from egomotion_ros.data.episodes_table import mark, sources
from egomotion_ros.data.gait import GaitLibrary
from egomotion_ros.data.library import Take
from egomotion_ros.data.quality import motion_quality
from egomotion_ros.data.synthesis import synthesise
from egomotion_ros.data.synthesis_clips import choose_clip, mirrored, stretched, synthesise_clip
from egomotion_ros.data.synthesis_legs import pin_legs
from egomotion_ros.data.synthesis_steps import FeetPlan
from egomotion_ros.types import HumanMotion


def _take(motion, action, label='', performance='someone', split='train'):
    return Take('take', performance, label, action, split, 'file', motion.frames, 1.0, 0.0, False,
                False, motion)


def squat_and_hop(rise=0.35, flight=12):
    """Standing, going down, flying ``rise`` metres high for ``flight`` frames, standing."""
    still = walking_motion(0.0, 3.4)
    frames = still.frames
    root = still.root_position.copy()
    time = np.arange(frames)
    dip = np.exp(-0.5 * ((time - 38) / 5.0) ** 2) + np.exp(
        -0.5 * ((time - 62 - flight + 12) / 5.0) ** 2)
    root[:, 2] -= 0.22 * dip
    up = np.clip((time - 44) / flight, 0, 1)
    height = rise * 4 * up * (1 - up)
    root[:, 2] += height
    joints = forward_kinematics(still.root_position, still.rotations)
    ankle = joints[:, [7, 8]].copy()
    ankle[..., 2] += height[:, None]
    rotations = pin_legs(root, still.rotations,
                         FeetPlan(ankle, np.zeros((frames, 2)), np.zeros((frames, 2))))
    contacts = detect_contacts(forward_kinematics(root, rotations), 30)
    return HumanMotion(root, rotations, contacts)


def bow():
    """Standing, bending the trunk far forward, standing."""
    still = walking_motion(0.0, 3.4)
    time = np.arange(still.frames) / 30
    angle = 1.9 * np.exp(-0.5 * ((time - 1.7) / 0.3) ** 2)
    rotations = still.rotations.copy()
    zero = np.zeros_like(angle)
    for joint in (3, 6):
        rotations[:, joint] = axis_angle_to_matrix(np.stack([0.5 * angle, zero, zero], axis=1))
    return replace(still, rotations=rotations)


@pytest.fixture(scope='module')
def clips():
    walk = walking_motion(1.4, 4.0)
    kick = Clip('kick', walk.root_position[20:60], walk.rotations[20:60], walk.contacts[20:60], 1,
                'kicker', 'train')
    run = extract_clips(_take(walk, 'run'))[:3]
    return (kick, *run, *extract_clips(_take(squat_and_hop(), 'jump')),
            *extract_clips(_take(bow(), 'bend')))


@pytest.fixture(scope='module')
def library(clips, gait_library):
    return GaitLibrary(gait_library.strides, gait_library.postures, gait_library.gestures, clips)


def test_actions_are_cut_from_takes_of_theirs_only(clips):
    assert {c.action for c in clips} == {'kick', 'run_forward', 'jump', 'bend'}
    for action in ('walk', 'dance'):
        assert extract_clips(_take(squat_and_hop(), action)) == []
    assert extract_clips(_take(walking_motion(0.0), 'jump')) == []
    for clip in clips:  # the pelvis is over a foot that stands, at both ends
        joints = forward_kinematics(clip.root, clip.rotations)[[0, -1]]
        if clip.action != 'kick':
            away = np.linalg.norm(joints[:, [7, 8], :2] - joints[:, :1, :2], axis=-1).min(1)
            assert away.max() < 0.25


def test_a_jolt_in_the_recording_is_not_cut():
    motion = squat_and_hop()
    root = motion.root_position.copy()
    root[46, 2] += 0.5
    assert extract_clips(_take(replace(motion, root_position=root), 'jump')) == []


@pytest.mark.parametrize('action', ['kick', 'run_forward', 'jump', 'bend'])
def test_clip_is_played_from_rest_to_rest_with_planted_feet(action, clips, library):
    params = {'side': 'right', 'distance': 2.0}
    motion = synthesise(action, params, np.random.default_rng(3), library, 'train')
    quality = motion_quality(motion)
    assert quality.faults == ()
    joints = forward_kinematics(motion.root_position, motion.rotations)
    for ends in (joints[:4], joints[-4:]):
        assert np.linalg.norm(np.diff(ends, axis=0), axis=-1).max() * 30 < 0.2
    assert joints[..., 2].min() > 0.015
    assert (motion.contacts[[0, -1]] > 0.5).all()
    if action == 'run_forward':
        assert motion.root_position[-1, 0] == pytest.approx(2.0, abs=0.15)
        assert abs(motion.root_position[-1, 1]) < 0.4
    if action == 'jump':
        assert joints[:, [7, 8, 10, 11], 2].min(1).max() > 0.15
    if action == 'bend':
        assert joints[:, 15, 2].min() < 0.85 * joints[0, 15, 2]


def test_mirrored_kicks_use_the_other_foot(clips):
    kick = clips[0]
    other = mirrored(kick)
    assert (kick.side, other.side) == (1, 0)
    np.testing.assert_allclose(mirrored(other).rotations, kick.rotations, atol=1e-12)
    rng = np.random.default_rng(0)
    for side, number in (('left', 0), ('right', 1)):
        assert choose_clip(clips, 'kick', {'side': side}, rng).side == number
    with pytest.raises(ValueError, match='no recording of kick'):
        choose_clip((), 'kick', {'side': 'left'}, rng)


def test_stretched_clips_cover_the_asked_way(clips):
    run = next(c for c in clips if c.action == 'run_forward')
    for distance in (1.5, 2.5):
        long = stretched(run, distance)
        assert np.hypot(*(long.root[-1] - long.root[0])[:2]) == pytest.approx(distance)
    too_long = Clip('bend', np.repeat(run.root, 8, 0), np.repeat(run.rotations, 8, 0),
                    np.repeat(run.contacts, 8, 0), -1, 'x', 'train')
    with pytest.raises(ValueError, match='does not fit'):
        synthesise_clip(too_long, None, (), np.random.default_rng(0))


def test_splits_share_recordings_only_where_they_have_none(library, clips):
    assert {c.performance for c in library.of('val').clips} == {c.performance for c in clips}
    own = replace(clips[0], performance='other kicker', split='val')
    more = GaitLibrary(library.strides, library.postures, library.gestures, (*clips, own))
    kickers = {c.performance for c in more.of('val').clips if c.action == 'kick'}
    assert kickers == {'other kicker'}
    assert {c.performance for c in more.of('train').clips if c.action == 'kick'} == {'kicker'}


def test_training_and_test_share_no_recording(library, clips):
    def of(split, blocks):
        return tuple(replace(b, split=split, performance=f'{split} {b.performance}')
                     for b in blocks if b.split == 'train')
    jumps = tuple(replace(c, split='test', performance='tester') for c in clips
                  if c.action == 'jump')
    bends = tuple(replace(c, split='val') for c in clips if c.action == 'bend')
    others = tuple(c for c in clips if c.action not in ('jump', 'bend'))
    whole = GaitLibrary(library.strides + of('test', library.strides),
                        library.postures + of('test', library.postures),
                        library.gestures + of('test', library.gestures), others + jumps + bends)
    train, val, test = (whole.of(split) for split in ('train', 'val', 'test'))
    assert {c.action for c in train.clips} == {'kick', 'run_forward', 'bend'}
    assert {c.action for c in val.clips} == {'kick', 'run_forward', 'bend', 'jump'}
    assert test.clips == jumps
    assert {kind: {b.split for b in blocks} for kind, blocks in vars(test).items() if blocks} == {
        kind: {'test'} for kind in ('strides', 'postures', 'gestures', 'clips')}
    # What the test split has none of is not asked for in it; a part of a part stays what it is.
    wanted = {a for a, _ in plan_bank(test, 100, 'test', 0, 'furnished')}
    assert {'walk_to', 'reach', 'jump'} < wanted
    assert wanted.isdisjoint({'kick', 'run_forward', 'bend'})
    assert test.of('test').clips == test.clips and train.of('train').clips == train.clips


def test_few_and_borrowed_sources_are_marked(library, clips):
    assert mark(library, 'kick', 'train') == mark(library, 'kick', 'val') == 'one-source'
    many = tuple(replace(clips[0], performance=f'kicker {n}') for n in range(3))
    more = GaitLibrary(library.strides, library.postures, library.gestures, many)
    assert mark(more, 'kick', 'train') == ''
    assert mark(more, 'kick', 'val') == 'shared'
    assert sources(more, 'walk_to') == {'train': {'train walker'}, 'val': {'val walker'}}


def test_furnished_bank_has_every_action_the_library_can_give(library, gait_library):
    wanted = {a for a, _ in plan_bank(library, 100, 'train', 0, 'furnished')}
    assert {'reach', 'run_forward', 'kick', 'jump', 'bend', 'search'} < wanted
    without = {a for a, _ in plan_bank(gait_library, 100, 'train', 0, 'furnished')}
    assert wanted - without == {'run_forward', 'kick', 'jump', 'bend'}


def test_clips_survive_the_file_of_the_library(library, tmp_path):
    library.save(tmp_path / 'gait.npz')
    again = GaitLibrary.load(tmp_path / 'gait.npz')
    assert [c.action for c in again.clips] == [c.action for c in library.clips]
    np.testing.assert_array_equal(again.clips[0].rotations, library.clips[0].rotations)
    assert again.clips[0].side == 1


def test_faults_are_named():
    motion = walking_motion(1.2)
    assert motion_quality(motion).jerk < 1000
    sliding = replace(motion, root_position=motion.root_position
                      + np.linspace(0, 3, motion.frames)[:, None] * [0, 1, 0])
    assert any('slide' in fault for fault in motion_quality(sliding).faults)
    sunk = replace(motion, root_position=motion.root_position - [0, 0, 0.05])
    assert any('sinking' in fault for fault in motion_quality(sunk).faults)
    turned = motion.rotations.copy()
    turned[50:, 4] = axis_angle_to_matrix(np.array([-1.0, 0, 0]))
    faults = motion_quality(replace(motion, rotations=turned)).faults
    assert any('knee bent backwards' in fault for fault in faults)
    turned[50:, 20] = axis_angle_to_matrix(np.array([0, 2.5, 0]))
    faults = motion_quality(replace(motion, rotations=turned)).faults
    assert 'left_wrist beyond its limit' in faults
    with pytest.raises(ValueError, match='4 frames'):
        motion_quality(HumanMotion(motion.root_position[:2], motion.rotations[:2],
                                   motion.contacts[:2]))
