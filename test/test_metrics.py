# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every definition of the published protocols against a number worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from egomotion_ros.body.rotations import yaw_matrix
from egomotion_ros.body.skeleton import BODY_TO_WORLD, FOOT_HEIGHTS, REST_PELVIS_HEIGHT
from egomotion_ros.evaluation import hml3d, physics, uniegomotion
from egomotion_ros.types import HumanMotion


def standing(frames: int = 10, height: float = 0.0) -> HumanMotion:
    """A body in the rest pose whose soles are ``height`` above the floor."""
    rotations = np.tile(np.eye(3), (frames, 22, 1, 1))
    rotations[:, 0] = BODY_TO_WORLD
    root = np.tile([0.0, 0.0, REST_PELVIS_HEIGHT + height], (frames, 1))
    return HumanMotion(root, rotations, np.ones((frames, 4)))


def test_r_precision_counts_ranks_in_whole_groups_and_drops_the_rest() -> None:
    # Motions on a line at 0, 1, 2, 10; texts at 0 (rank 1), 1.9 (rank 2), -9 (rank 3), 10 (1).
    motion = np.array([[0.0], [1.0], [2.0], [10.0]])
    text = np.array([[0.0], [1.9], [-9.0], [10.0]])
    assert hml3d.r_precision(text, motion, group=4) == pytest.approx([0.5, 0.75, 1.0])
    # A fifth pair makes no group of its own, however bad it is.
    more = np.array([[1e6]])
    assert hml3d.r_precision(np.concatenate([text, more]), np.concatenate([motion, -more]),
                             group=4) == pytest.approx([0.5, 0.75, 1.0])
    # Ranks are within the group: in groups of two, what stood nearer is in the other one.
    assert hml3d.r_precision(text, motion, group=2, top=1) == pytest.approx([1.0])


def test_r_precision_gives_nothing_to_motions_that_are_all_alike() -> None:
    assert hml3d.r_precision(np.zeros((32, 2)), np.ones((32, 2)))[2] == 0.0


def test_less_than_one_group_is_refused() -> None:
    with pytest.raises(ValueError, match='at least 32'):
        hml3d.r_precision(np.zeros((31, 2)), np.zeros((31, 2)))


def test_matching_distance_is_the_mean_of_matched_distances() -> None:
    assert hml3d.matching_distance(np.array([[0.0, 0.0], [1.0, 1.0]]),
                                   np.array([[3.0, 4.0], [1.0, 2.0]])) == pytest.approx(3.0)


def test_frechet_distance_of_two_lines() -> None:
    # Means 0 and 3; variances (n - 1) 1 and 4: 9 + 1 + 4 - 2 * sqrt(1 * 4) = 10.
    a = np.array([[-1.0], [1.0], [0.0]])
    b = np.array([[1.0], [5.0], [3.0]])
    assert hml3d.frechet_distance(a, b) == pytest.approx(10.0)


def test_frechet_distance_of_gaussians_along_crossed_axes() -> None:
    # Variance 2 along x against variance 2 along y: A B = 0, so tr A + tr B = 4.
    a = np.array([[-1.0, 0.0], [1.0, 0.0]])
    assert hml3d.frechet_distance(a, a[:, ::-1]) == pytest.approx(4.0)
    assert hml3d.frechet_distance(a, a) == pytest.approx(0.0, abs=1e-12)


def test_frechet_distance_is_the_textbook_one_for_few_and_for_many_rows() -> None:
    from scipy.linalg import sqrtm
    rng = np.random.default_rng(0)
    for rows in (40, 7):
        a, b = rng.normal(size=(rows, 12)), 0.5 + 2.0 * rng.normal(size=(rows + 3, 12))
        covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
        root = sqrtm(covariances[0] @ covariances[1]).real
        by_hand = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(
            covariances[0] + covariances[1] - 2 * root)
        assert hml3d.frechet_distance(a, b) == pytest.approx(by_hand, rel=1e-4)


def test_diversity_of_two_points_is_half_their_distance() -> None:
    # Subsets of many rows at 0 or 6, half and half: expected distance 3.
    rows = np.repeat([[0.0], [6.0]], 5000, axis=0)
    assert hml3d.diversity(rows, np.random.default_rng(0)) == pytest.approx(3.0, abs=0.5)
    # All rows alike: none.
    assert hml3d.diversity(np.ones((400, 3)), np.random.default_rng(0)) == 0.0


def test_multimodality_is_within_texts_never_across() -> None:
    far_texts = np.array([0.0, 1e6])[:, None, None] + np.zeros((2, 12, 1))
    assert hml3d.multimodality(far_texts, np.random.default_rng(0)) == 0.0
    # Samples at +-1 alternating: expected distance 1.
    samples = np.tile([[-1.0], [1.0]], (500, 15, 1))
    found = hml3d.multimodality(samples, np.random.default_rng(0))
    assert found == pytest.approx(1.0, abs=0.05)
    with pytest.raises(ValueError, match='10 samples'):
        hml3d.multimodality(far_texts[:, :9], np.random.default_rng(0))


def test_replications_give_mean_and_interval() -> None:
    values = iter([1.0, 3.0, 1.0, 3.0])
    out = hml3d.replicate(lambda rng: {'x': next(values)}, replications=4)
    assert out['x']['mean'] == pytest.approx(2.0)
    assert out['x']['interval'] == pytest.approx(1.96 * 1.0 / 2.0)


def test_skating_needs_a_low_and_fast_toe_in_both_frames() -> None:
    positions = np.zeros((5, 22, 3))
    positions[:, :, 2] = 1.0
    # Right toe: low in frames 1 to 4; steps of 0, 0.01, 0.02, 0.02 m; at 30 fps the limit is
    # 0.0167 m.  Steps 2-3 and 3-4 skate.
    positions[1:, 11, 2] = 0.049
    positions[:, 11, 0] = [0.0, 0.0, 0.01, 0.03, 0.05]
    assert hml3d.skating_ratio(positions, 30) == pytest.approx(2 / 4)
    positions[3, 11, 2] = 0.051
    assert hml3d.skating_ratio(positions, 30) == 0.0


def test_head_rotation_error_is_the_frobenius_norm() -> None:
    # A quarter turn differs from the identity by [[-1, -1], [1, -1]]: norm 2.
    quarter = np.tile(yaw_matrix(np.asarray(np.pi / 2)), (3, 1, 1))
    still = np.tile(np.eye(3), (3, 1, 1))
    assert uniegomotion.head_rotation_error(quarter, still) == pytest.approx(2.0)
    assert uniegomotion.head_rotation_error(quarter, quarter) == pytest.approx(0.0, abs=1e-12)


def test_head_translation_and_mpjpe_align_nothing() -> None:
    a, b = np.zeros((2, 22, 3)), np.zeros((2, 22, 3))
    b[0] = [3.0, 4.0, 0.0]
    assert uniegomotion.head_translation_error(a[:, 15], b[:, 15]) == pytest.approx(2.5)
    assert uniegomotion.mpjpe(a, b) == pytest.approx(2.5)


def test_pa_mpjpe_forgives_turn_size_and_place_but_no_mirror() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4, 22, 3))
    moved = 1.7 * truth @ yaw_matrix(np.asarray(0.8)).T + [5.0, -2.0, 1.0]
    assert uniegomotion.pa_mpjpe(moved, truth) == pytest.approx(0.0, abs=1e-9)
    assert uniegomotion.mpjpe(moved, truth) > 1.0
    assert uniegomotion.pa_mpjpe(truth * [-1.0, 1.0, 1.0], truth) > 0.1
    # Two points 2 apart against two 2 apart with one pushed by 1 sideways in a plane: the
    # centred pairs are (-+1, 0) and (-+1, -+0.5); after turning and scaling they meet.
    pair = np.array([[[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    assert uniegomotion.pa_mpjpe(pair, pair + [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]) == (
        pytest.approx(0.0, abs=1e-9))


def test_foot_slide_weighs_steps_by_the_height_they_start_at() -> None:
    positions = np.zeros((4, 22, 3))
    positions[:, [7, 8, 10, 11], 2] = 1.0
    # Left ankle slides 10 mm a step at the floor: weight 2 - 2^0 = 1, three steps, T = 4.
    positions[:, 7, 0] = [0.0, 0.01, 0.02, 0.03]
    positions[:, 7, 2] = 0.0
    assert uniegomotion.slide(positions) == pytest.approx(1000 * 0.03 / 4 / 4)
    # At 0.04 m an ankle weighs 2 - 2^(1/2); from H = 0.08 m on nothing.
    positions[:, 7, 2] = 0.04
    assert uniegomotion.slide(positions) == pytest.approx(1000 * 0.03 / 4 / 4 * (2 - 2**0.5))
    positions[:, 7, 2] = 0.08
    assert uniegomotion.slide(positions) == 0.0
    # A toe's H is 0.04 m.
    positions[:, 10] = positions[:, 7] * [1.0, 1.0, 0.25]
    assert uniegomotion.slide(positions) == pytest.approx(1000 * 0.03 / 4 / 4 * (2 - 2**0.5))


def test_contact_and_penetration_are_of_the_lowest_sole_point() -> None:
    level = uniegomotion.sole_points(standing())
    assert level[..., 2] == pytest.approx(0.0, abs=1e-9)
    assert uniegomotion.contact(level) == pytest.approx(0.0, abs=1e-9)
    half = np.concatenate([uniegomotion.sole_points(standing(2, 0.03)),
                           uniegomotion.sole_points(standing(2, -0.01))])
    assert uniegomotion.contact(half) == pytest.approx(0.02)
    assert physics.penetration(half) == pytest.approx(0.005)
    assert FOOT_HEIGHTS[0] > FOOT_HEIGHTS[2]


def test_semantic_similarity_goes_from_zero_to_one() -> None:
    east, north = np.array([[2.0, 0.0]]), np.array([[0.0, 0.1]])
    assert uniegomotion.semantic_similarity(east, east) == pytest.approx(1.0)
    assert uniegomotion.semantic_similarity(east, north) == pytest.approx(0.5)
    assert uniegomotion.semantic_similarity(east, -east) == pytest.approx(0.0)


def test_the_two_fids_differ_by_the_normalisation_alone() -> None:
    a = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert uniegomotion.normalised_fid(a, 5.0 * a) == pytest.approx(0.0, abs=1e-9)
    assert hml3d.frechet_distance(a, 5.0 * a) > 1.0


def test_acceleration_and_jerk_of_known_curves() -> None:
    time = np.arange(12) / 30.0
    points = np.zeros((12, 2, 3))
    points[:, 0, 0] = 0.5 * 3.0 * time**2
    assert physics.acceleration(points) == pytest.approx(1.5)
    assert physics.jerk(points) == pytest.approx(0.0, abs=1e-6)
    # x = t^3 has jerk 6 everywhere, forward differences included; the other point rests.
    points[:, 0, 0] = time**3
    assert physics.jerk(points) == pytest.approx(3.0)


def test_figures_of_a_body_that_stands() -> None:
    figures = physics.human_physics(standing(40))
    assert all(value == pytest.approx(0.0, abs=1e-9) for value in figures.values())


def test_a_motion_against_itself_and_against_one_half_a_metre_aside() -> None:
    still = standing(20)
    aside = HumanMotion(still.root_position + [0.3, 0.4, 0.0], still.rotations, still.contacts)
    same, off = uniegomotion.compare(still, still), uniegomotion.compare(aside, still)
    assert same['MPJPE m'] == same['head rotation'] == 0.0
    assert off['MPJPE m'] == off['head translation m'] == pytest.approx(0.5)
    assert off['PA-MPJPE m'] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize('call', [
    lambda: hml3d.frechet_distance(np.zeros((1, 3)), np.zeros((4, 3))),
    lambda: hml3d.frechet_distance(np.zeros((4, 3)), np.zeros((4, 2))),
    lambda: hml3d.matching_distance(np.zeros((4, 3)), np.zeros((5, 3))),
    lambda: hml3d.diversity(np.full((4, 3), np.nan), np.random.default_rng(0)),
    lambda: hml3d.replicate(lambda rng: {'x': 0.0}, replications=1),
    lambda: uniegomotion.mpjpe(np.zeros((4, 22, 3)), np.zeros((5, 22, 3))),
    lambda: uniegomotion.head_rotation_error(np.zeros((4, 3)), np.zeros((4, 3))),
    lambda: uniegomotion.semantic_similarity(np.zeros((4, 3)), np.zeros((3, 3))),
    lambda: physics.jerk(np.zeros((3, 22, 3))),
    lambda: physics.mean_of([]),
])
def test_what_cannot_be_measured_is_refused(call) -> None:
    with pytest.raises(ValueError):
        call()
