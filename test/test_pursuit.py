# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which plans of a standing instruction are followed."""

from __future__ import annotations

import math

import pytest

from egomotion_ros.pursuit import Pursuit
from egomotion_ros.types import PlanarPose

START = PlanarPose()
GOAL = PlanarPose(3.0, 0.5, 0.2)
HALF = PlanarPose(1.5, 0.25, 0.1)


def pose(x: float, y: float = 0.0, degrees: float = 0.0) -> PlanarPose:
    return PlanarPose(x, y, math.radians(degrees))


@pytest.fixture
def walking() -> Pursuit:
    pursuit = Pursuit()
    assert pursuit.follows(START, GOAL, at_rest=True)
    return pursuit


def test_a_look_on_the_way_corrects_a_little(walking):
    assert walking.follows(HALF, pose(3.3, 0.7, 20), at_rest=False)
    # Corrections do not add up.
    assert not walking.follows(pose(2.0, 0.4, 15), pose(3.9, 0.7, 20), at_rest=False)


@pytest.mark.parametrize('end', [pose(3.9, 0.5, 12), pose(3.0, -0.3, 12), pose(3.0, 0.5, 60)])
def test_one_look_alone_does_not_change_where_it_goes(walking, end):
    assert not walking.follows(HALF, end, at_rest=False)
    # The next agrees with the first again.
    assert walking.follows(pose(2.0, 0.3, 10), GOAL, at_rest=False)


def test_two_looks_from_different_places_do(walking):
    assert not walking.follows(HALF, pose(1.5, 3.0, 90), at_rest=False)
    assert not walking.follows(pose(1.6, 0.25, 5), pose(1.5, 3.1, 90), at_rest=False)
    assert walking.follows(pose(2.0, 0.3, 10), pose(1.6, 3.0, 80), at_rest=False)
    assert walking.follows(pose(1.8, 1.5, 80), pose(1.6, 3.0, 80), at_rest=False)


def test_nothing_turns_it_away_from_where_it_arrived(walking):
    for _ in range(3):
        assert not walking.follows(GOAL, pose(3.0, 0.5, 101), at_rest=False)   # a search
        assert not walking.follows(GOAL, pose(3.1, 0.5, 12), at_rest=True)     # a shuffle
        assert not walking.follows(GOAL, pose(5.0, 0.8, 12), at_rest=True)     # another walk


@pytest.mark.parametrize('step', [0.2, 0.4, 0.8])
def test_two_metres_are_about_two_metres_however_often_it_looks(step):
    pursuit, x, end = Pursuit(), 0.0, 0.0
    for _ in range(60):
        if pursuit.follows(pose(x), pose(x + 2.0), at_rest=x == end):
            end = x + 2.0
        x = min(x + step, end)
    assert 2.0 <= x < 2.7


def test_who_was_pushed_away_comes_back(walking):
    assert walking.follows(pose(2.2, 0.5, 0), pose(3.1, 0.5, 10), at_rest=True)


def test_a_search_is_finished_before_it_goes_on_and_gives_way_to_what_is_found():
    pursuit = Pursuit()
    assert pursuit.follows(START, pose(0.0, 0.0, 90), at_rest=True)
    assert not pursuit.follows(pose(0.0, 0.0, 45), pose(0.0, 0.0, 135), at_rest=False)
    # Half-way round a thing at the edge of the picture is not walked to yet.
    assert not pursuit.follows(pose(0.0, 0.0, 60), pose(-1.0, 2.0, 115), at_rest=False)
    # It is there, though its motion is not over.
    assert pursuit.follows(pose(0.02, 0.0, 86), pose(0.0, 0.0, 178), at_rest=False)
    assert pursuit.follows(pose(0.0, 0.0, 178), pose(-2.0, 0.5, 165), at_rest=True)
    assert not pursuit.follows(pose(-1.0, 0.2, 165), pose(-1.0, 0.2, 255), at_rest=False)


def test_it_looks_all_around_once():
    pursuit, angle, turns = Pursuit(), 0.0, 0
    while pursuit.follows(pose(0, 0, angle), pose(0, 0, angle + 90), at_rest=True):
        angle, turns = angle + 90, turns + 1
        assert turns < 10
    assert turns == 4


def test_places_are_measured_in_the_size_of_the_robot():
    small = Pursuit(scale=0.5)
    assert small.follows(START, pose(2.0), at_rest=True)
    assert not small.follows(pose(1.0), pose(2.5), at_rest=False)
    tall = Pursuit(scale=1.0)
    assert tall.follows(START, pose(2.0), at_rest=True)
    assert tall.follows(pose(1.0), pose(2.5), at_rest=False)
