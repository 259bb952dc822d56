# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which plans of a standing instruction are followed."""

from __future__ import annotations

import math

import pytest

from egomotion_ros.pursuit import Pursuit
from egomotion_ros.types import PlanarPose, Target

START = PlanarPose()
GOAL = PlanarPose(3.0, 0.5, 0.2)
HALF = PlanarPose(1.5, 0.25, 0.1)


def pose(x: float, y: float = 0.0, degrees: float = 0.0) -> PlanarPose:
    return PlanarPose(x, y, math.radians(degrees))


class Follower(Pursuit):
    """Executes every plan it follows."""

    def follows(self, *plan, **more) -> bool:
        answer = super().follows(*plan, **more)
        if answer:
            self.commit()
        return answer


@pytest.fixture
def walking() -> Follower:
    pursuit = Follower()
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


def test_two_looks_with_another_between_them_are_not_two_in_a_row(walking):
    assert not walking.follows(pose(1.0), pose(1.5, 3.0, 90), at_rest=False)
    assert not walking.follows(pose(1.5), pose(1.5, 0.0, 90), at_rest=False)  # a search
    assert not walking.follows(pose(2.0), pose(1.5, 3.0, 90), at_rest=False)


def test_nothing_turns_it_away_from_where_it_arrived(walking):
    for _ in range(3):
        assert not walking.follows(GOAL, pose(3.0, 0.5, 101), at_rest=False)   # a search
        assert not walking.follows(GOAL, pose(3.1, 0.5, 12), at_rest=True)     # a shuffle
        assert not walking.follows(GOAL, pose(5.0, 0.8, 12), at_rest=True)     # another walk
        assert walking.is_there and not walking.is_lost and not walking.is_searching


@pytest.mark.parametrize('step', [0.2, 0.4, 0.8])
def test_two_metres_are_about_two_metres_however_often_it_looks(step):
    pursuit, x, end = Follower(), 0.0, 0.0
    for _ in range(60):
        if pursuit.follows(pose(x), pose(x + 2.0), at_rest=x == end):
            end = x + 2.0
        x = min(x + step, end)
    assert 2.0 <= x < 2.71


@pytest.mark.parametrize('pushed', [pose(2.2, 0.5, 0), pose(3.2, 0.5, 45), pose(3.0, 0.4, -20)])
def test_who_was_pushed_or_turned_away_comes_back(walking, pushed):
    assert walking.follows(pushed, pose(3.1, 0.5, 10), at_rest=True)


def test_a_plan_that_was_never_executed_leads_nowhere():
    pursuit = Pursuit()
    assert pursuit.follows(START, GOAL, at_rest=True)
    # It came too late; the next may lead anywhere.
    assert pursuit.follows(START, pose(-2.0, 0.0, 180), at_rest=True)
    pursuit.commit()
    assert not pursuit.follows(pose(-1.0, 0.0, 180), GOAL, at_rest=False)
    pursuit.commit()  # of nothing that was followed: a whole plan after its beginning, say
    assert not pursuit.follows(pose(-2.0, 0.0, 180), pose(3.0, 2.0, 0), at_rest=True)


def test_a_search_is_finished_before_it_goes_on_and_gives_way_to_what_is_found():
    pursuit = Follower()
    assert pursuit.follows(START, pose(0.0, 0.0, 90), at_rest=True) and pursuit.is_searching
    assert not pursuit.follows(pose(0.0, 0.0, 45), pose(0.0, 0.0, 135), at_rest=False)
    # Half-way round a thing at the edge of the picture is not walked to yet.
    assert not pursuit.follows(pose(0.0, 0.0, 60), pose(-1.0, 2.0, 115), at_rest=False)
    # It is there, though its motion is not over.
    assert pursuit.follows(pose(0.02, 0.0, 86), pose(0.0, 0.0, 178), at_rest=False)
    assert pursuit.follows(pose(0.0, 0.0, 178), pose(-2.0, 0.5, 165), at_rest=True)
    assert not pursuit.is_searching
    assert not pursuit.follows(pose(-1.0, 0.2, 165), pose(-1.0, 0.2, 255), at_rest=False)


def test_a_search_that_begins_in_motion_is_one_too():
    pursuit = Follower()
    # The body walks on for 0.7 m while the plan is made.
    assert pursuit.follows(START, pose(0.8, 0.0, 95), at_rest=True, begins=pose(0.7))
    assert pursuit.is_searching
    assert pursuit.follows(pose(0.8, 0.0, 95), pose(0.8, 0.0, 180), at_rest=True)


def test_a_turn_to_something_is_a_place_of_its_own_unless_it_is_not_there():
    pursuit = Follower()
    assert pursuit.follows(START, pose(0.0, 0.0, -70), at_rest=True) and not pursuit.is_searching
    assert not pursuit.follows(pose(0.0, 0.0, -30), pose(0.0, 0.0, -80), at_rest=False)
    assert not pursuit.follows(pose(0.0, 0.0, -70), pose(0.0, 0.0, 20), at_rest=True)
    # A body that had to search would see from there what it has turned to: twice and no more.
    pursuit = Follower()
    assert pursuit.follows(START, pose(0.0, 0.0, 90), at_rest=True)
    assert pursuit.follows(pose(0.0, 0.0, 90), pose(0.0, 0.0, 120), at_rest=True)
    for heading in (120, 240):
        assert pursuit.follows(pose(0, 0, heading), pose(0, 0, heading + 90), at_rest=True)
        assert pursuit.is_searching
        assert pursuit.follows(pose(0, 0, heading + 90), pose(0, 0, heading + 120), at_rest=True)
    assert not pursuit.follows(pose(0, 0, 360), pose(0, 0, 450), at_rest=True)


def test_what_names_nothing_is_done_once():
    turning = Follower()
    assert turning.follows(START, pose(0, 0, 90), at_rest=True, target=Target.NONE)
    assert not turning.is_searching
    for heading in (40, 90):
        assert not turning.follows(pose(0, 0, heading), pose(0, 0, heading + 90),
                                   at_rest=heading == 90, target=Target.NONE)
        assert turning.is_there == (heading == 90) and not turning.is_lost
    walking = Follower()
    assert walking.follows(START, pose(2.0), at_rest=True, target=Target.NONE)
    assert not walking.follows(pose(0.3), pose(2.3), at_rest=False, target=Target.NONE)
    # The same turn is a search where something is looked for.
    looking = Follower()
    assert looking.follows(START, pose(0, 0, 90), at_rest=True, target=Target.NAMED)
    assert looking.is_searching
    assert looking.follows(pose(0, 0, 90), pose(0, 0, 180), at_rest=True, target=Target.NAMED)


def test_it_looks_all_around_once_and_goes_to_what_it_sees_then():
    pursuit, angle, turns = Follower(), 0.0, 0
    while pursuit.follows(pose(0, 0, angle), pose(0, 0, angle + 90), at_rest=True):
        assert not pursuit.is_lost
        angle, turns = angle + 90, turns + 1
        assert turns < 10
    assert turns == 4 and pursuit.is_lost
    assert pursuit.follows(pose(0, 0, angle), pose(2.0, 0.5, angle + 10), at_rest=True)
    assert not pursuit.is_lost


def test_places_are_measured_in_the_size_of_the_robot():
    small = Follower(scale=0.5)
    assert small.follows(START, pose(2.0), at_rest=True)
    assert not small.follows(pose(1.0), pose(2.5), at_rest=False)
    tall = Follower(scale=1.0)
    assert tall.follows(START, pose(2.0), at_rest=True)
    assert tall.follows(pose(1.0), pose(2.5), at_rest=False)


def test_hands_may_take_two_more_steps_where_they_arrived_and_a_walk_none():
    near, far = Follower(), Follower()
    assert near.follows(START, pose(0.3, 0.1, 10), at_rest=True)
    assert far.follows(START, pose(1.3, 0.1, 10), at_rest=True)
    assert not far.follows(pose(1.3, 0.1, 10), pose(1.6, 0.2, 10), at_rest=True)
    assert not near.follows(pose(0.3, 0.1, 10), pose(0.4, 0.1, 10), at_rest=True)  # not worth it
    assert near.follows(pose(0.3, 0.1, 10), pose(0.5, 0.1, 10), at_rest=True)
    assert near.follows(pose(0.5, 0.1, 10), pose(0.7, 0.1, 10), at_rest=True)
    assert not near.follows(pose(0.7, 0.1, 10), pose(0.9, 0.1, 10), at_rest=True)
