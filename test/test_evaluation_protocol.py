# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Looking again on the way, and scores of reaching computed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fixtures_bundle import standing
import numpy as np
import pytest

from egomotion_ros.body.edits import place
from egomotion_ros.body.hands import hand_points
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import axis_angle_to_matrix
from egomotion_ros.data.instructions import SHAPE_WORDS, templates
from egomotion_ros.data.instructions_furnished import PARAMETERS
from egomotion_ros.data.looks import head_camera, middle_of_approach, seen_from
from egomotion_ros.data.render import SceneRenderer
from egomotion_ros.data.scenes import COLOUR_NAMES, OBJECT_COLUMNS, SHAPE_NAMES, SceneObject
from egomotion_ros.data.scenes_view import AWAY
from egomotion_ros.data.synthesis_reach import synthesise_reach
from egomotion_ros.evaluation.chance import constant_hands, touches
from egomotion_ros.evaluation.closed_loop import (
    LATENCY,
    answer_twice,
    join_motions,
    keep_looking,
    turned_away,
)
from egomotion_ros.evaluation.goals import share
from egomotion_ros.evaluation.protocol import (
    CONTINUOUS,
    evaluate_free,
    free_rows,
    protocol_rows,
)
from egomotion_ros.evaluation.questions import FREE, asked_for_nothing, free_questions
from egomotion_ros.evaluation.reach import score_reach, surface_distance, touching
from egomotion_ros.evaluation.scenes import held_out_questions, observe
from egomotion_ros.pipeline import CameraPoseError, EgoMotionPipeline
from egomotion_ros.pursuit import Pursuit
from egomotion_ros.types import CameraPose, PlanarPose

VISIBLE = OBJECT_COLUMNS.index('visible')


@pytest.fixture(scope='module')
def pipeline() -> Iterator[EgoMotionPipeline]:
    opened = EgoMotionPipeline.load(threads=1)
    yield opened
    opened.close()


def walking(metres: float, frames: int = 91):
    """Stand, glide ``metres`` ahead at even speed in the middle third, stand."""
    way = np.clip((np.arange(frames) - 30) / 30, 0, 1) * metres
    motion = standing(frames)
    return replace(motion, root_position=motion.root_position + way[:, None] * [1, 0, 0])


def thing(shape: str, position=(1.0, 0.5, 0.8), width=0.4, height=0.6, yaw=0.0) -> SceneObject:
    return SceneObject(0, SHAPE_NAMES.index(shape), (1.0, 0.0, 0.0), width, height, position, yaw)


def test_the_middle_of_the_way_is_where_half_of_it_is_done():
    assert middle_of_approach(walking(2.0)) == 45
    turning = standing(61)
    angle = np.clip((np.arange(61) - 20) / 20, 0, 1)
    turn = axis_angle_to_matrix(np.stack([0 * angle, 0 * angle, angle], axis=1))
    turning.rotations[:, 0] = turn @ turning.rotations[:, 0]
    assert middle_of_approach(turning) == 30


def test_a_scene_seen_from_elsewhere_keeps_its_places():
    question = held_out_questions(1)[0]
    pose = PlanarPose(0.7, -0.3, 0.4)
    moved = seen_from(question.scene, pose, question.camera)
    for before, after in zip(question.scene.objects, moved.objects, strict=True):
        x, y = np.array(before.position[:2]) - [pose.x, pose.y]
        assert after.distance == pytest.approx(np.hypot(x, y))
        assert after.bearing == pytest.approx(np.arctan2(y, x) - pose.yaw)
        assert after.position[2] == before.position[2]
    same = seen_from(question.scene, PlanarPose(), question.camera)
    with SceneRenderer() as renderer:
        np.testing.assert_array_equal(renderer.render(same), question.image)
        # A step of 1 m to an object is a look from 1 m nearer, walls, floor and light included.
        ahead = seen_from(question.scene, PlanarPose(1.0, 0.0, 0.0), question.camera)
        back = seen_from(ahead, PlanarPose(-1.0, 0.0, 0.0), question.camera)
        np.testing.assert_array_equal(renderer.render(back), question.image)
        assert (renderer.render(ahead) != question.image).mean() > 0.2


def test_the_camera_nods_rises_and_turns_with_the_head():
    start = CameraPose(1.5, 0.3, 0.1)
    motion = standing(2)
    motion.root_position[1, 2] -= 0.2
    motion.rotations[1, 15] = axis_angle_to_matrix(np.array([0.25, 0.0, 0.0]))
    bent = head_camera(start, motion, 1)
    assert bent.height == pytest.approx(1.3) and bent.yaw == pytest.approx(0.1)
    assert bent.pitch == pytest.approx(0.55)
    motion = standing(2)
    motion.rotations[1, 15] = axis_angle_to_matrix(np.array([0.0, 0.25, 0.0]))
    assert head_camera(start, motion, 1).yaw == pytest.approx(0.35)
    # Turning the whole body turns the heading with it.
    turned = place(standing(2), PlanarPose(1.0, 2.0, 0.8))
    seen = head_camera(start, turned, 1)
    assert (seen.height, seen.pitch, seen.yaw) == pytest.approx((1.5, 0.3, 0.1))


def test_the_second_look_goes_on_from_what_is_executed(pipeline):
    question = held_out_questions(1)[0]
    with SceneRenderer() as renderer:
        motion = answer_twice(pipeline, question, 0, renderer)
    first = pipeline.generate(pipeline.reason(
        observe(pipeline, question), 'evaluation-0', 0))
    look = motion.frames - 150
    windows = round(LATENCY * 30) // 8 * 8
    np.testing.assert_allclose(motion.root_position[:look + windows] * first.scale,
                               first.root_position[:look + windows], atol=1e-6)
    steps = np.linalg.norm(np.diff(motion.root_position, axis=0), axis=1)
    assert 10 < look < 130
    # The seam is a step like the others, not a jump.
    assert steps[look + windows - 1] < 0.03 + steps[look:look + windows - 1].max()


def test_a_body_that_was_turned_away_does_not_see_what_it_is_asked_for():
    with SceneRenderer() as renderer:
        for action in ('walk_to', 'turn_to', 'reach'):
            for question in held_out_questions(4, action, kind='furnished'):
                away = turned_away(question, renderer)
                before, after = (q.scene.objects[q.target] for q in (question, away))
                off = np.arctan2(*(f(after.bearing - away.camera.yaw) for f in (np.sin, np.cos)))
                assert AWAY - 1e-9 <= abs(off) and not away.objects[away.target, VISIBLE]
                assert after.distance == pytest.approx(before.distance)
                assert np.abs(away.image.astype(int) - question.image).mean() > 1.0
                # The goal is turned with the scene about the body.
                assert np.hypot(*away.goal[:2]) == pytest.approx(np.hypot(*question.goal[:2]))
                assert np.cos(away.goal[2] - after.bearing) == pytest.approx(1.0)
                assert away.instruction == question.instruction


class Refuses(Pursuit):
    def follows(self, *plan, **more) -> bool:
        return False


def test_looks_go_on_from_the_motion_unless_their_plans_are_not_followed(pipeline):
    question = held_out_questions(1)[0]
    with SceneRenderer() as renderer:
        followed = keep_looking(pipeline, question, 0, renderer, 3)
        refused = keep_looking(pipeline, question, 0, renderer, 3, pursuit=Refuses())
        late = keep_looking(pipeline, question, 0, renderer, 2, period=8.0)
    # Plans of five seconds, seen after 0, 2 and 4 seconds; nothing changes; from rest after 8.
    assert (followed.frames, refused.frames, late.frames) == (270, 150, 240 + 1 + 150)
    np.testing.assert_allclose(followed.root_position[:60], refused.root_position[:60], atol=1e-9)
    assert not np.diff(late.root_position[150:241], axis=0).any()


def test_a_look_from_where_no_camera_can_be_ends_the_looking(pipeline, monkeypatch):
    question, reason, asked = held_out_questions(1)[0], pipeline.reason, []

    def once(*observed):
        asked.append(observed)
        if len(asked) > 1:
            raise CameraPoseError('over the shoulder')
        return reason(*observed)

    monkeypatch.setattr(pipeline, 'reason', once)
    with SceneRenderer() as renderer:
        stopped = keep_looking(pipeline, question, 0, renderer, 5)
    assert len(asked) == 2 and stopped.frames == 61


def test_motions_of_different_rate_are_not_joined():
    with pytest.raises(ValueError, match='cannot be joined'):
        join_motions(standing(5), replace(standing(5), fps=60))
    assert join_motions(standing(5), standing(3)).frames == 8


@pytest.mark.parametrize(('shape', 'offset', 'distance'), [
    ('ball', (0.5, 0.0, 0.0), 0.3), ('ball', (0.0, 0.0, 0.1), -0.1),
    ('box', (0.5, 0.0, 0.0), 0.3), ('box', (0.0, 0.1, 0.0), -0.1), ('box', (0.5, 0.6, 0.3), 0.5),
    ('box', (0.0, 0.0, 0.0), -0.2), ('box', (0.0, 0.0, -0.25), -0.05),
    ('cylinder', (0.3, 0.4, 0.0), 0.3), ('cylinder', (0.0, 0.0, 0.5), 0.2),
    ('pillar', (0.0, 0.1, 0.0), -0.1), ('cylinder', (0.5, 0.0, 0.7), 0.5),
    ('cylinder', (0.0, 0.0, 0.29), -0.01), ('cylinder', (0.0, 0.0, 0.31), 0.01),
    ('cone', (0.0, 0.0, 0.4), 0.1), ('cone', (0.0, 0.0, -0.5), 0.2),
    # On the axis at half height: the slope is 0.1 away along the same normal.
    ('cone', (0.0, 0.0, 0.0), -0.3 / 10 ** 0.5), ('cone', (0.0, 0.0, -0.29), -0.01),
    # Half-way up the slope, along its normal (3, 1) / sqrt(10).
    ('cone', (0.1 + 0.3 * 3 / 10 ** 0.5, 0.0, 0.3 / 10 ** 0.5), 0.3)])
def test_distances_from_surfaces(shape, offset, distance):
    item = thing(shape)
    point = np.array(item.position) + offset
    assert surface_distance(point, item) == pytest.approx(distance, abs=1e-9)


def test_a_turned_box_is_farther_at_its_edge():
    item = thing('box', yaw=np.pi / 4)
    point = np.array(item.position) + [0.5, 0.0, 0.0]
    assert surface_distance(point, item) == pytest.approx(0.5 - 0.2 * np.sqrt(2))


@pytest.mark.parametrize(('gap', 'frames', 'reached'), [
    (0.119, 9, True), (0.121, 9, False), (0.0, 8, False), (0.05, 40, True)])
def test_a_reach_counts_when_the_named_hand_stays(gap, frames, reached):
    motion = standing(60)
    palm = hand_points(forward_kinematics(motion.root_position, motion.rotations))[0, 0]
    # A ball whose surface is ``gap`` beyond the left palm, further away for the other frames.
    item = thing('ball', tuple(palm + [0.0, 0.2 + gap, 0.0]))
    motion.root_position[frames:, 0] -= 1.0
    score = score_reach(motion, 'left', item)
    assert score.reached is reached
    assert not score_reach(motion, 'right', item).reached
    assert not score_reach(motion, 'both', item).reached
    if frames >= 9:
        assert score.distance == pytest.approx(gap, abs=1e-6)


@pytest.mark.parametrize(('inside', 'reached'), [
    (0.0, True), (0.019, True), (0.021, False), (0.1, False)])
def test_a_palm_may_press_but_not_enter(inside, reached):
    motion = standing(60)
    palm = hand_points(forward_kinematics(motion.root_position, motion.rotations))[0, 0]
    # The left palm is ``inside`` behind the near face of a box of 20 cm; 0.1 is its centre.
    item = thing('box', tuple(palm + [0.0, 0.1 - inside, 0.0]), 0.2, 0.2)
    score = score_reach(motion, 'left', item)
    assert score.reached is reached
    assert score.distance == pytest.approx(inside, abs=1e-6)
    assert bool(touching(palm[None], item)) is reached


def test_a_palm_does_not_get_behind_by_going_through():
    motion = standing(60)
    palm = hand_points(forward_kinematics(motion.root_position, motion.rotations))[0, 0]
    behind = thing('box', tuple(palm + [0.0, -0.15, 0.0]), 0.2, 0.2)
    # From 0.5 m before the box straight through it within half a second, then 5 cm behind it.
    way = np.clip(np.arange(60) / 15, 0, 1)
    motion.root_position[:, 1] += 0.75 * (way - 1)
    assert not score_reach(motion, 'left', behind).reached
    # Over the top, 20 cm higher while on the way, the back is reached.
    motion.root_position[:, 2] += 0.25 * (way < 1)
    assert score_reach(motion, 'left', behind).reached
    # What was held before the palm went in counts.
    back = standing(60)
    back.root_position[20:, 1] -= 0.15
    assert score_reach(back, 'left', behind).reached
    back.root_position[:20, 1] -= 0.15
    assert not score_reach(back, 'left', behind).reached


def test_a_reach_is_of_one_stretch_of_time():
    motion = standing(60)
    palm = hand_points(forward_kinematics(motion.root_position, motion.rotations))[0, 0]
    item = thing('ball', tuple(palm + [0.0, 0.2, 0.0]))
    # Touched for 0.2 s, let go, touched again: never 0.3 s.
    motion.root_position[6:20, 0] -= 1.0
    motion.root_position[26:, 0] -= 1.0
    assert not score_reach(motion, 'left', item).reached
    with pytest.raises(ValueError, match='side'):
        score_reach(motion, 'left foot', item)
    with pytest.raises(ValueError, match='scale'):
        score_reach(replace(motion, scale=0.7), 'left', item)
    with pytest.raises(ValueError, match='shorter'):
        score_reach(standing(5), 'left', item)


@pytest.fixture(scope='module')
def reaches() -> list:
    return held_out_questions(4, 'reach', kind='furnished')


def test_what_stands_within_reach_is_reached_for(reaches):
    for question in reaches:
        item = question.scene.objects[question.target]
        assert item.side == question.side and question.scene.boxes
        palms = item.hand_targets(item.side)
        away = np.hypot(*np.nanmean(palms, axis=0)[:2])
        assert 0.35 <= away <= 1.35
        assert touches(palms, item.side, item)
        hand = 'hands' if item.side == 'both' else f'{item.side} hand'
        assert hand in question.instruction and hand in question.known


def test_a_reaching_motion_reaches_its_target_and_no_other(reaches, gait_library):
    hits = []
    for question in reaches:
        item = question.scene.objects[question.target]
        motion = synthesise_reach(item.hand_targets(item.side), np.random.default_rng(0),
                                  gait_library, 'train')
        score = question.score(motion)
        hits.append(score.reached)
        others = [n for n in range(len(question.scene.objects)) if n != question.target]
        assert not any(question.score(motion, other).reached for other in others)
        idle = synthesise_reach(np.array([[0.5, 0.2, 1.2], [0.5, -0.2, 1.2]]),
                                np.random.default_rng(0), gait_library, 'train')
        assert score.distance < question.score(idle).distance
    assert sum(hits) >= 3


def test_furnished_walks_keep_the_distractors():
    column = {name: k for k, name in enumerate(OBJECT_COLUMNS)}
    for question in held_out_questions(3, 'walk_to', kind='furnished'):
        item, table = question.scene.objects[question.target], question.objects
        others = [other for other in question.scene.objects if other is not item]
        assert any(other.colour == item.colour for other in others)
        assert any(other.shape == item.shape for other in others)
        assert not item.side and table[question.target, column['visible']]
        moved = seen_from(question.scene, PlanarPose(0.3, 0.0, 0.2), question.camera)
        for before, after in zip(question.scene.boxes, moved.boxes, strict=True):
            x, y = np.array(before.position[:2]) - [0.3, 0.0]
            assert np.hypot(*after.position[:2]) == pytest.approx(np.hypot(x, y))
            assert after.yaw == pytest.approx(before.yaw - 0.2)


def test_constant_hands_touch_more_than_nothing_and_far_from_all():
    hands = constant_hands('right', scenes=30)
    assert np.isnan(hands[0]).all() and 0.4 <= np.hypot(*hands[1, :2]) <= 1.3


@pytest.mark.parametrize('action', ['walk_to', 'reach'])
def test_what_is_asked_for_in_vain_is_nowhere_and_is_to_be_searched_for(action):
    for question in held_out_questions(6, action, kind='furnished'):
        asked = asked_for_nothing(question)
        assert asked.instruction == asked_for_nothing(question).instruction
        words = set(asked.instruction.split())
        named = [item for item in question.scene.objects
                 if COLOUR_NAMES[item.colour] in words
                 and any(word in words for word in SHAPE_WORDS[SHAPE_NAMES[item.shape]])]
        assert not named and asked.instruction != question.instruction
        assert ('hand' in asked.instruction) == (action == 'reach')
        assert asked.image is question.image and asked.scene is question.scene
        assert not asked.score(standing(60)).reached
        left = axis_angle_to_matrix(np.array([0.0, 0.0, np.radians(85.0)]))
        for motion, right in ((standing(60), True), (walking(2.0), False)):
            motion.rotations[:, 0] = left @ motion.rotations[:, 0]
            assert asked.score(motion).reached is right


def _summary(hits) -> dict:
    return share(hits) | share(hits, 'settled')


def test_what_names_no_object_is_told_in_held_out_sentences_and_scored_by_its_words():
    asked = free_questions(12, 'walk_forward')
    assert {q.scene.split for q in asked} == {'test'} and {q.target for q in asked} == {-1}
    measures = [words for several in PARAMETERS['walk_forward'][1].values() for words in several]
    learned = {pattern.format(p=words).strip() for words in measures
               for pattern in templates('walk_forward', 'train', 'furnished')}
    assert 'walk two metres' in learned and not learned & {q.instruction for q in asked}
    metres = {float(q.goal[0]) for q in asked}
    assert len(metres) > 1 and not any(q.goal[1:].any() for q in asked)
    for question in asked:
        assert question.score(walking(question.goal[0])).reached
        assert not question.score(standing(60)).reached
    assert free_questions(1, 'stand_still')[0].score(standing(60)).reached
    assert not free_questions(1, 'turn')[0].score(standing(60)).reached
    with pytest.raises(ValueError, match='jump'):
        free_questions(1, 'jump')
    with pytest.raises(ValueError, match='run_forward'):
        free_questions(1, 'run_forward', kind='simple')


def test_the_default_does_what_names_no_object(pipeline):
    figures = evaluate_free(pipeline, 8, 'furnished')
    assert tuple(figures) == FREE
    assert figures['stand_still']['reached'] == 1.0
    assert figures['turn']['reached'] > figures['turn']['constant']
    rows = free_rows(figures)
    assert [row.figure for row in rows] == [name.replace('_', ' ') for name in FREE]
    assert ['constant end' in row.note for row in rows] == [True, True, True, False, False]


def test_protocol_rows_compare_with_chance():
    good, rare = _summary([1, 1, 1, 1, 0]), _summary([0, 0, 0, 0, 1])
    figures = {'told': good, 'image blanked': rare, 'instruction shuffled': good,
               'scored against another object': rare, 'best constant motion': _summary([0] * 5),
               'known sentences': good, 'one more look': good,
               'known less unseen': share(np.array([0.0, 1, 0, 0, 0]), 'gap'),
               'known less unseen verbs': share(np.array([0.0, 0.0]), 'gap')}
    rows = {row.figure: row for row in protocol_rows(figures, 'walk_to')}
    assert rows['image blanked'].met and rows['image blanked'].goal.bound == pytest.approx(0.25)
    assert rows['instruction shuffled'].met is False
    assert rows['goal reached, one look'].met
    assert rows['goal reached, one more look on the way'].met is False
    assert rows['sentences of training less unseen ones'].met is False
    assert rows['the same where the verb is unseen'].met
    assert rows['scenes'].met is False
    row = 'asked for what is nowhere: turns to look for it'
    assert row not in rows
    told = {row.figure: row for row in protocol_rows(figures | {'nowhere': rare}, 'walk_to')}
    assert told[row].value == pytest.approx(0.2) and told[row].goal is None
    looked = protocol_rows(figures | dict.fromkeys(CONTINUOUS, good), 'walk_to')
    looked = {row.figure: row.value for row in looked}
    assert [looked[label] for label in CONTINUOUS.values()] == [pytest.approx(0.8)] * 3

