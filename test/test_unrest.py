# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is composed moves as recorded people do who stand, and gets nowhere by it."""

from dataclasses import replace

from fixtures_gait import walking_motion
import numpy as np
import pytest
import torch

from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import axis_angle_to_matrix
from egomotion_ros.body.skeleton import FOOT_JOINTS
from egomotion_ros.data.gait import GaitLibrary
from egomotion_ros.data.looks import middle_of_approach
from egomotion_ros.data.synthesis import end_pose, synthesise
from egomotion_ros.data.unrest import Unrest, chain, extract_unrest
from egomotion_ros.evaluation.physics import jerk
from egomotion_ros.training.motions import stillness


def trembling(frames: int = 90, size: float = 0.004):
    """A standing body whose spine trembles."""
    motion = walking_motion(0.0)
    rotations = np.repeat(motion.rotations[:1], frames, axis=0)
    turns = size * np.random.default_rng(0).normal(size=(frames, 3))
    rotations[:, 3] = rotations[:, 3] @ axis_angle_to_matrix(turns)
    return replace(motion, rotations=rotations, contacts=np.ones((frames, 4)),
                   root_position=np.repeat(motion.root_position[:1], frames, axis=0))


def test_quiet_standing_is_cut_with_its_mirror_image_and_walking_is_not():
    found = extract_unrest(trembling(), 'one', 'train')
    assert [len(cut.turns) for cut in found] == [90, 90]
    assert all((cut.performance, cut.split) == ('one', 'train') for cut in found)
    for cut in found:
        assert np.abs(cut.turns.mean(axis=0)).max() < 3e-4
        assert 0.002 < cut.turns[:, 3].std() < 0.006
        assert np.abs(np.delete(cut.turns, 3, axis=1)).max() < 1e-6
    # Mirrored, a turn about the vertical axis goes the other way.
    np.testing.assert_allclose(found[0].turns[:, 3, 1], -found[1].turns[:, 3, 1], atol=1e-9)
    assert extract_unrest(walking_motion(1.2), 'one', 'train') == []
    assert extract_unrest(trembling(20), 'one', 'train') == []


def test_a_chain_keeps_the_size_of_its_links_and_has_no_seam():
    rng = np.random.default_rng(1)
    blocks = tuple(Unrest(rng.normal(size=(40, 22, 3)), rng.normal(size=(40, 3)), 'a', 'train')
                   for _ in range(5))
    turns, sway = chain(blocks, 2000, np.random.default_rng(0))
    assert turns.shape == (2000, 22, 3) and sway.shape == (2000, 3)
    power = turns.reshape(2000, -1).std(axis=1)
    # 66 numbers a frame: a tenth of chance, nothing of the eight frames that overlap.
    assert 0.6 < power.min() and power.max() < 1.4
    assert power.mean() == pytest.approx(1.0, abs=0.05)
    still = chain((), 50, np.random.default_rng(0))
    assert not still[0].any() and not still[1].any()


@pytest.fixture(scope='module')
def restless(gait_library: GaitLibrary) -> GaitLibrary:
    cuts = extract_unrest(trembling(), 'train walker', 'train')
    other = extract_unrest(trembling(size=0.003), 'val walker', 'val')
    return replace(gait_library, unrest=(*cuts, *other))


@pytest.mark.parametrize(('action', 'params'), [
    ('stand_still', {}), ('walk_to', {'x': 2.0, 'y': 0.5}), ('turn_to', {'angle': 0.8})])
def test_motions_take_it_on_and_end_where_they_did(gait_library, restless, action, params):
    calm, lively = (synthesise(action, params, np.random.default_rng(5), library, 'train', 0)
                    for library in (gait_library, restless))
    joints = [forward_kinematics(m.root_position, m.rotations) for m in (calm, lively)]
    assert jerk(joints[1][-45:]) > 3 * jerk(joints[0][-45:])
    assert np.abs(end_pose(calm) - end_pose(lively)).max() < 0.01
    # The feet stand all the same.
    feet = joints[1][-45:, list(FOOT_JOINTS)]
    assert np.linalg.norm(np.diff(feet, axis=0), axis=-1).max() < 1e-3


def test_unrest_of_another_split_stays_there(restless, tmp_path):
    assert {cut.split for cut in restless.of('train').unrest} == {'train'}
    restless.save(tmp_path / 'blocks.npz')
    again = GaitLibrary.load(tmp_path / 'blocks.npz')
    assert len(again.unrest) == 4
    np.testing.assert_array_equal(again.unrest[1].turns, restless.unrest[1].turns)


def test_swaying_at_the_goal_does_not_move_the_middle_of_the_way(gait_library):
    motion = synthesise('walk_to', {'x': 1.0, 'y': 0.0}, np.random.default_rng(5), gait_library,
                        'train', 0)
    swaying = replace(motion, root_position=motion.root_position.copy())
    swaying.root_position[:, :2] += 0.002 * np.random.default_rng(0).normal(size=(152, 2))
    way = np.linalg.norm(np.diff(swaying.root_position[:, :2], axis=0), axis=1).sum()
    assert way > 1.3  # what one would count without smoothing
    assert abs(middle_of_approach(swaying) - middle_of_approach(motion)) <= 2


def test_stillness_is_the_logarithm_of_how_much_jerk_is_missing():
    joints = 0.01 * torch.randn(2, 33, 22, 3, generator=torch.Generator().manual_seed(0))
    assert stillness(joints, joints).item() == 0.0
    # Jerk is linear in the movement, and thousands of m/s^3 here: 2 of calm do not count.
    for factor in (0.5, 2.0):
        assert stillness(factor * joints, joints).item() == pytest.approx(np.log(2), abs=2e-3)
    assert stillness(2.0 * joints, joints, gain=2.0).item() == pytest.approx(0.0, abs=1e-5)
    assert stillness(joints, joints, gain=2.0).item() == pytest.approx(np.log(2), abs=2e-3)
    still = torch.zeros_like(joints)
    assert stillness(still, still).item() == 0.0
    # Motions count as much as they are weighed.
    mixed = torch.stack([joints[0], 0.5 * joints[1]])
    one, other = (stillness(mixed, joints, torch.tensor(w)).item() for w in ((1., 0.), (0., 1.)))
    assert one == 0.0 and other == pytest.approx(np.log(2) / 2, abs=2e-3)
