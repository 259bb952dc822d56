# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Furnished scenes: held-out things stay out, things in reach can be reached, ways are free."""

import numpy as np
import pytest

from egomotion_ros.body.hands import HANDS
from egomotion_ros.data.instructions import (
    ACTIONS,
    NAMING_ACTIONS,
    free_command,
    free_parameters,
    object_command,
    templates,
)
from egomotion_ros.data.instructions_furnished import (
    HELD_OUT_VERBS,
    PARAMETERS,
    UNMEASURED,
    has_held_out_verb,
)
from egomotion_ros.data.render import SceneRenderer, add_scene, mujoco
from egomotion_ros.data.scenes import (
    HELD_OUT,
    MAX_BOXES,
    OBJECT_COLUMNS,
    SHAPE_NAMES,
    SceneObject,
    sample_scene,
    scene_seed,
)
from egomotion_ros.data.scenes_furnished import (
    REACH_DISTANCES,
    REACH_HEIGHTS,
    Ends,
    approach,
    draw_scene,
    reach_targets,
    sample_furnished,
)
from egomotion_ros.data.scenes_view import CAMERA, clear_of_boxes, project, view_window

COUNT = 60
VISIBLE = OBJECT_COLUMNS.index('visible')


@pytest.fixture(scope='module')
def scenes():
    return {split: [sample_furnished(scene_seed(split, i)) for i in range(COUNT)]
            for split in ('train', 'test')}


@pytest.fixture(scope='module')
def renderer():
    with SceneRenderer() as made:
        yield made


def test_same_seed_gives_same_scene_and_picture(scenes, renderer):
    scene = scenes['train'][3]
    assert draw_scene(scene.seed, 'furnished') == scene
    first = renderer.render(scene)
    renderer.render(sample_scene(0))
    np.testing.assert_array_equal(renderer.render(draw_scene(scene.seed, 'furnished')), first)
    assert draw_scene(scene.seed, 'simple') == sample_scene(scene.seed)
    with pytest.raises(ValueError, match='kind'):
        draw_scene(scene.seed, 'empty')
    with pytest.raises(ValueError, match='seed'):
        sample_furnished(-1)


def test_furniture_does_not_stay_in_simple_pictures(scenes, renderer):
    simple = sample_scene(scene_seed('train', 1))
    before = renderer.render(simple)
    assert (renderer.render(scenes['train'][0]) != before).any()
    np.testing.assert_array_equal(renderer.render(simple), before)


def test_held_out_combinations_are_seen_in_test_scenes_only(scenes):
    kinds = {split: {(o.colour, o.shape) for s in drawn for o in s.objects}
             for split, drawn in scenes.items()}
    assert not kinds['train'] & HELD_OUT
    assert len(kinds['test'] & HELD_OUT) > len(HELD_OUT) // 2


def test_main_target_is_in_view_and_shares_colour_and_shape_with_others(scenes):
    alike = 0
    for scene in scenes['train']:
        table = scene.table()
        assert table[0, VISIBLE] == 1
        colours, shapes = ([getattr(o, n) for o in scene.objects[1:]]
                           for n in ('colour', 'shape'))
        alike += scene.objects[0].colour in colours and scene.objects[0].shape in shapes
        assert len(scene.boxes) <= MAX_BOXES
    assert alike > 0.5 * COUNT


def test_things_in_reach_are_on_furniture_and_where_hands_get(scenes):
    near = [(s, o) for drawn in scenes.values() for s in drawn for o in s.objects if o.side]
    assert len(near) > 0.5 * COUNT
    assert {o.side for _, o in near} == set(HANDS)
    for scene, item in near:
        targets = item.hand_targets(item.side)
        used = targets[list(HANDS[item.side])]
        middle = used.mean(0)
        assert REACH_DISTANCES[0] - 1e-6 <= np.hypot(*middle[:2]) <= REACH_DISTANCES[1] + 1e-6
        assert REACH_HEIGHTS[0] <= middle[2] <= REACH_HEIGHTS[1]
        # Some box carries it: its top is the bottom of the thing, right below.
        tops = [b.position[2] + b.half[2] for b in scene.boxes
                if np.hypot(b.position[0] - item.position[0],
                            b.position[1] - item.position[1]) < np.hypot(*b.half[:2])]
        assert np.abs(np.array(tops) - item.bottom).min() < 1e-6


def test_table_says_whose_way_is_free(scenes):
    clear = OBJECT_COLUMNS.index('clear')
    for scene in scenes['train'][:20]:
        for item, row in zip(scene.objects, scene.table(), strict=False):
            if row[clear]:
                assert clear_of_boxes(item.stop_pose(), scene.boxes, 0.3)
    walls = scenes['train'][0].boxes
    assert not clear_of_boxes(np.array(walls[0].position[:2]) * 1.2, walls, 0.3)


def test_hidden_things_are_in_the_table_and_out_of_view(scenes):
    hidden = [(s, i) for s in scenes['train'] for i, o in enumerate(s.objects)
              if abs(o.bearing) > 1.39]
    assert len(hidden) > 0.2 * COUNT
    for scene, i in hidden:
        assert scene.table()[i, VISIBLE] == 0


def test_picture_of_a_narrow_camera_is_black_around_it(scenes, renderer):
    narrow = [s for s in scenes['train'] if s.view is not None]
    assert 0 < len(narrow) < COUNT
    low, _ = view_window(CAMERA, narrow[0].view)
    picture = renderer.render(narrow[0])
    rows, columns = int(round(low[1])), int(round(low[0]))
    assert not picture[:rows].any() and not picture[:, :columns].any()
    assert picture[64, 64].any()


def test_objects_stand_where_recorded_motions_end():
    rng = np.random.default_rng(0)
    stops = np.stack([rng.uniform(0.5, 3, 300), rng.uniform(-1, 1, 300)], axis=1)
    reaches = np.stack([reach_targets(rng.uniform(0.45, 1.2), rng.uniform(-0.5, 0.5),
                                      rng.uniform(0.7, 1.3), side)
                        for side in ('left', 'right', 'both') * 100])
    seen = 0
    for i in range(12):
        for item in sample_furnished(scene_seed('train', i), Ends(stops, reaches)).objects:
            if item.reach >= 0:
                np.testing.assert_allclose(item.hand_targets(item.side), reaches[item.reach],
                                           atol=1e-9)
                seen += 1
            elif item.stop >= 0:
                np.testing.assert_allclose(item.stop_pose()[:2], stops[item.stop], atol=1e-9)
    assert seen > 3


@pytest.mark.parametrize('shape', range(len(SHAPE_NAMES)))
def test_hands_touch_the_surface(shape):
    item = SceneObject(0, shape, (1, 0, 0), 0.2, 0.2, (0.9, 0.3, 1.0), 0.4)
    for side in HANDS:
        for hand in HANDS[side]:
            point = item.hand_targets(side)[hand] - item.position
            assert point[2] == 0
            cy, sy = np.cos(-0.4), np.sin(-0.4)
            inside = np.abs([cy * point[0] - sy * point[1], sy * point[0] + cy * point[1]])
            name = SHAPE_NAMES[shape]
            size = inside.max() if name == 'box' else np.hypot(*inside)
            assert size == pytest.approx(0.05 if name == 'cone' else 0.1)
    left, right = item.hand_targets('both')
    bearing = np.arctan2(0.3, 0.9)
    assert (left - right) @ [-np.sin(bearing), np.cos(bearing), 0] > 0
    assert approach(item).shape == (2,)


def test_world_of_the_simulation_shows_the_furniture(scenes):
    spec = mujoco.MjSpec()
    scene = scenes['train'][0]
    add_scene(spec, scene)
    model = spec.compile()
    place = model.geom('box0').pos
    np.testing.assert_allclose(place, scene.boxes[0].position)
    pixel, depth = project(place, scene.camera)
    assert np.isfinite(pixel).all() and np.isfinite(depth)


def test_test_sentences_are_new_and_held_out_verbs_are_never_trained():
    trained = {p for a in ACTIONS for p in templates(a, 'train', 'furnished')}
    words = {w for pattern in trained for w in pattern.lower().split()}
    assert not words & HELD_OUT_VERBS
    for action in ACTIONS:
        test = set(templates(action, 'test', 'furnished'))
        assert len(test) >= 3 and not test & trained
        assert templates(action, 'val', 'furnished') == templates(action, 'train', 'furnished')
        assert any(has_held_out_verb(p) for p in test)
    with pytest.raises(ValueError, match='not asked for'):
        templates('reach', 'test')


def test_a_sentence_without_a_measure_means_one():
    meant = {'walk forward': 2.0, 'take a few steps': 1.5, 'take a step forward': 0.5, 'run': 3.0}
    rng, drawn = np.random.default_rng(2), {}
    for action in ('walk_forward', 'run_forward'):
        for _ in range(600):
            command = free_command(action, rng, 'train', 'furnished')
            drawn.setdefault(command.text, set()).add(command.params['distance'])
    assert {text: drawn[text] for text in meant} == {t: {m} for t, m in meant.items()}
    measured = [found for text, found in drawn.items() if text.endswith(' two metres')]
    assert measured and all(found == {2.0} for found in measured)
    # Everything that is said without a measure has one, of those that motions are made for.
    for split in ('train', 'test'):
        for action in ('walk_forward', 'run_forward'):
            bare = [p for p in templates(action, split, 'furnished') if '{p}' not in p]
            assert len(bare) >= 3
            assert {UNMEASURED[p] for p in bare} <= set(PARAMETERS[action][1])


def test_commands_of_furnished_scenes_carry_what_they_say():
    for split in ('train', 'test'):
        rng = np.random.default_rng(1)
        for action in free_parameters('furnished'):
            for _ in range(20):
                command = free_command(action, rng, split, 'furnished')
                assert '{' not in command.text and '  ' not in command.text
                assert command.params in free_parameters('furnished')[action]
                if action == 'turn' and 'right' in command.text:
                    assert command.params['angle'] < 0
                if action in ('wave', 'kick') and 'left' in command.text:
                    assert command.params['side'] == 'left'
        for action in NAMING_ACTIONS:
            text = object_command(action, 0, 0, 0, rng, split, 'furnished', 'both').text
            assert 'red' in text and '{' not in text
            assert ('both' in text or 'two' in text) == (action == 'reach')
    with pytest.raises(ValueError, match='action'):
        object_command('reach', 0, 0, 0, rng, 'train')
