# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Simulated scenes: deterministic, split cleanly, and drawn where the object table says."""

import numpy as np
import pytest

from egomotion_ros.data.instructions import (
    ACTIONS,
    OBJECT_ACTIONS,
    free_command,
    object_command,
    templates,
)
from egomotion_ros.data.render import SceneRenderer, add_scene, mujoco
from egomotion_ros.data.scenes import (
    CAMERA,
    COLOUR_NAMES,
    COLOURS,
    HELD_OUT,
    OBJECT_COLUMNS,
    SEPARATION,
    SHAPE_NAMES,
    sample_scene,
    scene_seed,
)
from egomotion_ros.data.scenes_view import camera_rotation, project
from egomotion_ros.types import CameraPose


@pytest.fixture(scope='module')
def renderer():
    with SceneRenderer() as made:
        yield made


@pytest.fixture(scope='module')
def train_scenes():
    return [sample_scene(scene_seed('train', i)) for i in range(60)]


def test_same_seed_gives_same_scene_and_picture(renderer):
    seed = scene_seed('train', 11)
    one, two = sample_scene(seed), sample_scene(seed)
    assert one == two
    first = renderer.render(one)
    renderer.render(sample_scene(seed + 1))  # what was drawn before must not matter
    np.testing.assert_array_equal(first, renderer.render(two))


def test_different_seeds_give_different_pictures(renderer, train_scenes):
    one, two = (renderer.render(s).astype(int) for s in train_scenes[:2])
    assert np.abs(one - two).mean() > 5


def test_seed_ranges_of_splits_are_disjoint_and_checked():
    last, first = scene_seed('train', 9_999_999), scene_seed('val', 0)
    assert last < first
    assert sample_scene(first).split == 'val'
    with pytest.raises(ValueError, match='split'):
        scene_seed('dev', 0)
    with pytest.raises(ValueError, match='index'):
        scene_seed('train', 10_000_000)


def test_held_out_combinations_occur_in_test_scenes_only(train_scenes):
    shown = {(o.colour, o.shape) for s in train_scenes for o in s.objects}
    assert not shown & HELD_OUT
    assert {c for c, _ in shown} == set(range(len(COLOUR_NAMES)))
    assert {s for _, s in shown} == set(range(len(SHAPE_NAMES)))
    test = {(o.colour, o.shape) for i in range(60)
            for o in sample_scene(scene_seed('test', i)).objects}
    assert test & HELD_OUT


def test_scenes_are_fit_to_ask_about(train_scenes):
    for scene in train_scenes:
        target = scene.objects[0]
        assert 3 <= len(scene.objects) <= 6
        assert len({(o.colour, o.shape) for o in scene.objects}) == len(scene.objects)
        assert 1.2 <= target.distance <= 4.5
        places = np.array([o.position[:2] for o in scene.objects])
        gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)
        assert gaps[~np.eye(len(places), dtype=bool)].min() >= SEPARATION
    same_colour = np.mean([any(o.colour == s.objects[0].colour for o in s.objects[1:])
                           for s in train_scenes])
    same_shape = np.mean([any(o.shape == s.objects[0].shape for o in s.objects[1:])
                          for s in train_scenes])
    assert same_colour > 0.8 and same_shape > 0.8


def test_scene_added_to_another_world_looks_the_same(renderer, train_scenes):
    scene = train_scenes[4]
    spec = mujoco.MjSpec()
    add_scene(spec, scene)
    pose = scene.camera
    forward = camera_rotation(pose)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, (forward * [1, -1, -1]).ravel())
    spec.worldbody.add_camera(name='head', pos=[0, 0, pose.height], quat=quat, fovy=80)
    spec.visual.map.znear = 0.005
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    view = mujoco.Renderer(model, 128, 128)
    view.update_scene(data, camera='head')
    other = view.render().astype(int)
    view.close()
    close = np.abs(other - renderer.render(scene)).max(-1) < 40
    assert close.mean() > 0.9


def test_projection_of_known_points():
    level = CameraPose(height=1.5, pitch=0.0)
    pixels, depth = project(np.array([[2.0, 0.0, 1.5], [2.0, 2 * np.tan(np.radians(40)), 1.5]]),
                            level)
    np.testing.assert_allclose(pixels, [[64, 64], [0, 64]], atol=1e-9)
    np.testing.assert_allclose(depth, 2.0)
    down, _ = project(np.array([1.5, 0.0, 0.0]), CameraPose(height=1.5, pitch=np.pi / 4))
    np.testing.assert_allclose(down, [64, 64], atol=1e-9)
    left, _ = project(np.array([1.0, 1.0, 1.5]), CameraPose(1.5, 0.0, yaw=np.pi / 4))
    np.testing.assert_allclose(left, [64, 64], atol=1e-9)


def test_object_table_matches_the_picture(renderer, train_scenes):
    columns = {name: i for i, name in enumerate(OBJECT_COLUMNS)}
    hits, total = 0, 0
    names = [n for n in COLOUR_NAMES if n not in ('white', 'black')]
    hues = np.array([_hue(np.array(COLOURS[n])) for n in names])
    for scene in train_scenes:
        picture = renderer.render(scene)
        for row in scene.table():
            name = COLOUR_NAMES[int(row[columns['colour']])]
            if not row[columns['visible']] or name not in names:
                continue
            u, v = int(row[columns['u']]), int(row[columns['v']])
            pixel = picture[v, u].astype(float) / 255
            gap = np.abs(np.angle(np.exp(1j * (hues - _hue(pixel)))))
            hits += names[int(np.argmin(gap))] == name
            total += 1
    assert total > 100
    assert hits / total > 0.9  # the rest: centres hidden by a neighbour, orange against yellow


def _hue(rgb):
    red, green, blue = rgb
    return np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)


def test_table_geometry_agrees_with_the_objects(train_scenes):
    scene = train_scenes[3]
    table = scene.table()
    assert table.shape == (6, len(OBJECT_COLUMNS))
    assert not table[len(scene.objects):].any()
    for row, item in zip(table, scene.objects, strict=False):
        x, y = item.position[:2]
        np.testing.assert_allclose(row[5:7], [np.arctan2(y, x), np.hypot(x, y)], rtol=1e-6)
        stop = item.stop_pose()
        gap = np.hypot(x - stop[0], y - stop[1])
        assert gap == pytest.approx(0.6 + item.radius, abs=1e-6) or np.hypot(*stop[:2]) < 1e-9


def test_hidden_and_outside_objects_are_not_visible():
    scene = sample_scene(scene_seed('train', 5))
    away = CameraPose(scene.camera.height, scene.camera.pitch, scene.camera.yaw + np.pi)
    turned = type(scene)(scene.seed, scene.split, scene.objects, away, scene.room, scene.lights)
    assert not turned.table()[:, OBJECT_COLUMNS.index('visible')].any()


def test_objects_are_placed_at_given_stop_points():
    rng = np.random.default_rng(0)
    stops = np.stack([rng.uniform(0.5, 3, 400), rng.uniform(-1, 1, 400)], axis=1)
    scene = sample_scene(scene_seed('train', 2), stops)
    for item in scene.objects:
        np.testing.assert_allclose(item.stop_pose()[:2], stops[item.stop], atol=1e-9)


def test_test_sentences_are_never_training_sentences():
    for action in ACTIONS[:7]:
        train, test = set(templates(action, 'train')), set(templates(action, 'test'))
        assert len(train) >= 6 and len(test) >= 3 and not train & test
        assert templates(action, 'val') == templates(action, 'train')


def test_commands_are_deterministic_and_carry_their_parameters():
    for action in ACTIONS[:7]:
        assert _texts(action) == _texts(action)
        assert len(set(_texts(action))) > 2
    command = free_command('turn', np.random.default_rng(0), 'train')
    left = 'left' in command.text
    assert left == (0 < command.params['angle'] < 3)
    with pytest.raises(ValueError, match='action'):
        object_command('wave', 0, 0, 0, np.random.default_rng(0), 'train')


def _texts(action):
    rng = np.random.default_rng(4)
    if action in OBJECT_ACTIONS:
        return [object_command(action, 0, 0, 0, rng, 'train').text for _ in range(6)]
    return [free_command(action, rng, 'train').text for _ in range(6)]


def test_renderer_honours_another_camera():
    wide = type(CAMERA)(64, 48, 1.2)
    with SceneRenderer(wide) as other:
        assert other.render(sample_scene(0)).shape == (48, 64, 3)
