# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Motions that begin with the end of another: what comes before says nothing of what is asked."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from egomotion_ros.body.features import features_to_motion, integrate_root
from egomotion_ros.data.instructions import ACTIONS
from egomotion_ros.data.quality import motion_quality
from egomotion_ros.models.checkpoints import build
from egomotion_ros.training.generator import bank_latents
from egomotion_ros.training.settling import BEFORE, Settled, joined, settled_starts


@pytest.fixture(scope='module')
def starts(gait_bank):
    return settled_starts(gait_bank, 100)


def test_they_end_where_the_motions_of_the_bank_end(gait_bank, starts) -> None:
    features, of = starts
    assert len(features) == len(of) == len(np.unique(of)) > 30
    x, y, yaw = (part[:, -1] for part in integrate_root(features.astype(np.float64)))
    goal = gait_bank.goal[of]
    assert np.hypot(x - goal[:, 0], y - goal[:, 1]).max() < 0.2
    assert np.abs((yaw - goal[:, 2] + np.pi) % (2 * np.pi) - np.pi).max() < 0.1
    # What goes on is any action, what went before is not known by it.
    assert {ACTIONS[a] for a in gait_bank.action[of]} >= {'walk_to', 'turn_to', 'turn'}
    turned = np.abs(integrate_root(features[:, :BEFORE].astype(np.float64))[2][:, -1])
    assert 0.02 < turned.max() < 0.35


def test_they_are_as_clean_as_what_they_are_made_of(starts) -> None:
    clean = [not motion_quality(features_to_motion(row.astype(np.float64))).faults
             for row in starts[0][:40]]
    assert np.mean(clean) >= 0.85


def test_two_postures_are_blended(gait_bank) -> None:
    end, motion = (np.asarray(gait_bank.features[n], np.float32) for n in (0, 40))
    whole = joined(end[-BEFORE:], motion)
    assert whole.shape == motion.shape
    np.testing.assert_array_equal(whole[:BEFORE], end[-BEFORE:])
    jumps = np.abs(np.diff(whole[:, 3:136], axis=0)).max(axis=1)
    assert jumps[BEFORE - 1:BEFORE + 12].max() <= jumps.max()
    assert jumps[BEFORE - 1] < 0.3 * np.abs(motion[0, 3:136] - end[-1, 3:136]).max() + 0.02


def test_the_same_seed_gives_the_same_and_another_seed_others(gait_bank, starts) -> None:
    again, other = settled_starts(gait_bank, 100), settled_starts(gait_bank, 100, seed=1)
    np.testing.assert_array_equal(starts[0], again[0])
    assert (starts[1] != other[1]).any()


def test_motions_under_way_are_left_aside(gait_bank) -> None:
    cut = gait_bank.cut.copy()
    cut[gait_bank.of('walk_to')] = 0
    features, of = settled_starts(replace(gait_bank, cut=cut), 1000)
    assert len(of) and not np.isin(of, gait_bank.of('walk_to')).any()
    with pytest.raises(ValueError, match='no motions from rest'):
        settled_starts(replace(gait_bank, cut=np.zeros_like(cut)), 10)


def test_a_share_of_what_is_drawn_is_put_in_their_place(gait_bank) -> None:
    torch.manual_seed(0)
    autoencoder = build('autoencoder', {'width': 32, 'blocks': 1, 'channels': 8,
                                        'frame_width': 16, 'frame_blocks': 1}).eval()
    latents = bank_latents(autoencoder, gait_bank.features)
    index = np.random.default_rng(0).integers(len(gait_bank.action), size=400)

    def drawn(share: float) -> tuple[torch.Tensor, ...]:
        target, truth = latents[index], torch.from_numpy(gait_bank.features[index])
        begun = Settled(gait_bank, partial(bank_latents, autoencoder), share).put(
            np.random.default_rng(1), index, target, truth)
        return target, truth, begun

    target, truth, begun = drawn(0.5)
    plain, plain_truth, none = drawn(0.0)
    assert not none.any() and 0.2 < begun.float().mean() < 0.6
    torch.testing.assert_close(target[~begun], plain[~begun])
    assert ((target - plain)[begun].abs().amax((1, 2)) > 1e-3).all()
    # The latents are those of the features they stand beside.
    torch.testing.assert_close(target[begun], bank_latents(autoencoder, truth[begun].numpy()))
    assert (truth[begun] != plain_truth[begun]).any(-1).any(-1).all()
    with pytest.raises(ValueError, match='settled'):
        Settled(gait_bank, partial(bank_latents, autoencoder), 1.0)
