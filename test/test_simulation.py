# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated world without ROS: what is drawn, and how references are followed."""

from __future__ import annotations

from dataclasses import replace
import threading
import time

import numpy as np
import pytest

from egomotion_ros.data.render import SceneRenderer
from egomotion_ros.data.scenes import COLOUR_NAMES, COLOURS, sample_scene, scene_seed
from egomotion_ros.retarget.beginning import stop_after
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.joining import sample
from egomotion_ros.simulation.camera_thread import CameraThread
from egomotion_ros.simulation.follower import CATCH_UP, Follower
from egomotion_ros.simulation.world import View, World
from egomotion_ros.types import CameraIntrinsics, CameraPose, RobotMotion

SECOND = 1_000_000_000
CAMERA = CameraIntrinsics(128, 128, 1.4)


@pytest.fixture(scope='module')
def robot() -> RobotDescription:
    return RobotDescription.load('unitree_g1')


@pytest.fixture(scope='module')
def world(robot) -> World:
    return World(robot, sample_scene(scene_seed('test', 3)), CAMERA)


@pytest.fixture(scope='module')
def view(world):
    view = View(world, CAMERA.width, CAMERA.height)
    yield view
    view.close()


def walk(robot: RobotDescription, seconds: float = 2.0, speed: float = 0.4) -> RobotMotion:
    """From standing forward along X, a knee bending, at rest at both ends."""
    rows = round(30 * seconds) + 1
    time = np.linspace(0.0, seconds, rows)
    ramp = 0.5 - 0.5 * np.cos(np.pi * time / seconds)
    rate = 0.5 * np.pi / seconds * np.sin(np.pi * time / seconds)
    knee = robot.joint_names.index('left_knee_joint')
    positions = np.tile(robot.standing, (rows, 1))
    velocities = np.zeros_like(positions)
    positions[:, knee] += 0.6 * ramp
    velocities[:, knee] = 0.6 * rate
    length = speed * seconds
    place = np.stack([length * ramp, 0 * ramp, robot.home_height + 0 * ramp], axis=1)
    twist = np.zeros((rows, 6))
    twist[:, 0] = length * rate
    return RobotMotion(robot.joint_names, 1 / 30, positions, velocities, place,
                       np.tile([0.0, 0, 0, 1], (rows, 1)), twist, np.ones((rows, 2)))


def follower(robot: RobotDescription, world: World) -> Follower:
    return Follower(robot.joint_names, robot.limits.lower, robot.limits.upper, world.home())


def test_objects_are_where_the_head_camera_sees_them(world, view, robot):
    picture = view.first_person(world.configuration(world.home()))
    place, rotation = world.head(world.home())
    checked = 0
    for item, (visible,) in zip(world.scene.objects, world.scene.table()[:, 8:9]):
        local = rotation.T @ (robot.scale * np.array(item.position) - place)
        u, v = CAMERA.focal * local[:2] / local[2] + 64
        if not visible or local[2] < 0 or not (2 < u < 126 and 2 < v < 126):
            continue
        seen = picture[int(v), int(u)].astype(float)
        painted = np.array(COLOURS[COLOUR_NAMES[item.colour]])
        # The same hue under whatever light: the direction of the colour, not its brightness.
        cosine = seen @ painted / (np.linalg.norm(seen) * np.linalg.norm(painted))
        assert cosine > 0.93, item.name
        checked += 1
    assert checked >= 2


def test_the_room_is_as_large_to_the_robot_as_to_a_person(world, robot):
    for i, item in enumerate(world.scene.objects):
        geom = world.model.geom(f'room/object{i}')
        assert np.allclose(geom.pos[:2], robot.scale * np.array(item.position[:2]), atol=1e-6)


def test_the_head_camera_does_not_see_the_robot_and_the_other_one_does(world, view):
    home = world.configuration(world.home())
    away = home.copy()
    away[world._base] += 100.0
    eye, target = np.array([-1.5, 1.5, 1.2]), np.array([0.3, 0.0, 0.6])
    assert (view.third_person(home, eye, target) != view.third_person(away, eye, target)).mean() \
        > 0.02
    raised = home.copy()
    raised[world._joints[world.robot.joint_names.index('left_shoulder_pitch_joint')]] = -1.5
    assert (view.first_person(home) == view.first_person(raised)).all()


def test_a_wall_between_the_viewer_and_the_robot_is_hidden(world):
    world.open_towards(np.array([-20.0, 0.0, 1.0]))
    hidden = [i for i in world._walls if world.model.geom_group[i] == 5]
    world.open_towards(np.array([0.0, 0.0, 1.0]))
    assert len(hidden) in (1, 2) and len(world._walls) == 5
    assert not [i for i in world._walls if world.model.geom_group[i] == 5]


def test_the_camera_thread_delivers_the_newest_request(world):
    got = []
    camera = CameraThread(world, lambda image, stamp: got.append((stamp, image.shape)))
    home = world.configuration(world.home())
    for stamp in range(5):
        camera.request(home, stamp)
    assert camera.wait()
    camera.close()
    assert got[-1] == (4, (128, 128, 3))


def test_a_camera_whose_pictures_go_nowhere_says_so(world):
    def deliver(image, stamp):
        raise ValueError('nobody is there')

    camera = CameraThread(world, deliver)
    camera.request(world.configuration(world.home()), 1)
    assert not camera.wait()
    with pytest.raises(RuntimeError, match='nobody is there'):
        camera.request(world.configuration(world.home()), 2)
    camera.close()


def test_a_camera_that_is_closed_while_it_delivers_ends_quietly(world, monkeypatch):
    delivering, closing, loud = threading.Event(), threading.Event(), []
    monkeypatch.setattr(threading, 'excepthook', loud.append)

    def deliver(image, stamp):
        delivering.set()
        assert closing.wait(20.0)
        raise RuntimeError('the publisher is gone')

    camera = CameraThread(world, deliver)
    camera.request(world.configuration(world.home()), 1)
    assert delivering.wait(20.0)
    ending = threading.Thread(target=camera.close)
    ending.start()
    while not camera._closed:
        time.sleep(0.001)
    closing.set()
    ending.join(20.0)
    assert not ending.is_alive() and loud == []
    camera.request(world.configuration(world.home()), 2)  # nothing happens any more


def test_a_reference_is_followed_exactly_and_its_end_is_held(robot, world):
    motion, robot_now = walk(robot), follower(robot, world)
    robot_now.offer(motion, SECOND, SECOND)
    for tick in range(0, 2000, 10):
        state = robot_now.sample(SECOND + tick * 1_000_000)
        wanted = sample(motion, tick * 1e-3)
        assert np.abs(state.positions - wanted.positions).max() < 1e-9
        assert np.abs(state.root_position - wanted.root_position).max() < 1e-9
    end = robot_now.sample(10 * SECOND)
    assert np.allclose(end.root_position, motion.root_position[-1])
    assert not robot_now.moving and not end.velocities.any()


def test_a_plan_whose_beginning_came_first_is_followed_as_if_it_had_come_at_once(robot, world):
    motion = walk(robot)
    beginning = stop_after(motion, 30, robot.limits, robot.root_limits)
    at_once, in_two = follower(robot, world), follower(robot, world)
    for one, told in ((at_once, motion), (in_two, beginning)):
        one.sample(SECOND)
        one.offer(told, SECOND, SECOND + SECOND // 50)
    for now in range(SECOND + SECOND // 50, 4 * SECOND, SECOND // 60):
        if now > 1.1 * SECOND and motion is not None:
            in_two.offer(motion, SECOND, now)  # the rest comes while it moves
            motion = None
        one, other = at_once.sample(now), in_two.sample(now)
        # The robot that is still catching up does so anew: a little later.
        off = 0.01 if now < 1.6 * SECOND else 1e-6
        assert np.abs(one.positions - other.positions).max() < off
        assert np.abs(one.root_position - other.root_position).max() < off


def test_a_late_reference_is_caught_up_with_and_not_jumped_to(robot, world):
    motion, robot_now = walk(robot), follower(robot, world)
    late = round(0.8 * SECOND)
    robot_now.offer(motion, 0, late)
    ticks = np.arange(0, CATCH_UP + 0.1, 0.005)
    states = [robot_now.sample(late + round(t * SECOND)) for t in ticks]
    places = np.array([state.root_position[0] for state in states])
    assert places[0] < 1e-3
    # Never faster than the walk and the closing of the gap together ask for.
    gap = sample(motion, 0.8).root_position[0]
    assert np.abs(np.diff(places)).max() / 0.005 < 0.7 + 1.6 * gap / CATCH_UP
    assert abs(places[-1] - sample(motion, 0.8 + ticks[-1]).root_position[0]) < 1e-6


def test_a_reference_of_the_future_waits_for_its_time(robot, world):
    robot_now = follower(robot, world)
    robot_now.offer(walk(robot), SECOND, 0)
    assert np.allclose(robot_now.sample(SECOND // 2).root_position[0], 0.0)
    assert robot_now.sample(2 * SECOND).root_position[0] > 0.1


def bad_references(robot: RobotDescription):
    motion = walk(robot)
    positions = motion.positions.copy()
    positions[7, 3] = np.nan
    far = motion.positions.copy()
    far[20, 3] = 10.0
    yield 'not finite', replace(motion, positions=positions), 0
    yield 'beyond its limit', replace(motion, positions=far), 0
    yield 'frame', replace(motion, frame_id='map'), 0
    yield 'not for this robot', replace(motion, joint_names=('a', *motion.joint_names[1:])), 0
    yield 'unit length', replace(motion, root_quaternion=2 * motion.root_quaternion), 0
    yield 'stale', motion, -5 * SECOND
    yield 'starts', motion, 10 * SECOND
    yield 'begin where', replace(motion, root_position=motion.root_position + 1.0), 0
    yield 'shape', replace(motion, velocities=motion.velocities[:-1]), 0
    yield 'step_dt', replace(motion, step_dt=0.0), 0


def test_what_must_not_be_followed_is_refused_and_the_robot_holds(robot, world):
    for reason, motion, start in bad_references(robot):
        robot_now = follower(robot, world)
        with pytest.raises(ValueError, match=reason):
            robot_now.offer(motion, start, 0)
        assert np.array_equal(robot_now.sample(SECOND).positions, world.home().positions), reason


def test_a_refusal_leaves_the_running_motion_alone(robot, world):
    motion, robot_now = walk(robot), follower(robot, world)
    robot_now.offer(motion, 0, 0)
    robot_now.sample(SECOND)
    with pytest.raises(ValueError, match='frame'):
        robot_now.offer(replace(motion, frame_id='map'), SECOND, SECOND)
    assert np.allclose(robot_now.sample(3 * SECOND).root_position, motion.root_position[-1])


def test_joints_are_taken_by_name_whatever_their_order(robot, world):
    motion, robot_now = walk(robot), follower(robot, world)
    order = np.random.default_rng(0).permutation(len(motion.joint_names))
    robot_now.offer(replace(motion, joint_names=tuple(motion.joint_names[i] for i in order),
                            positions=motion.positions[:, order],
                            velocities=motion.velocities[:, order]), 0, 0)
    assert np.allclose(robot_now.sample(SECOND).positions, sample(motion, 1.0).positions)


@pytest.mark.parametrize('name', ['unitree_g1', 'booster_t1'])
def test_the_robot_sees_the_pictures_that_models_are_trained_on(name):
    """Same room, same eye, a person's scale there and the robot's here: the same picture."""
    robot = RobotDescription.load(name)
    place, _ = World(robot, None, CAMERA).head(World(robot, None, CAMERA).home())
    position = robot.camera.position - [place[0], place[1], 0.0]
    central = replace(robot, camera=replace(robot.camera, position=position))
    scene = sample_scene(scene_seed('test', 8))
    here = World(central, scene, CAMERA)
    eye, _ = here.head(here.home())
    view = View(here, CAMERA.width, CAMERA.height)
    seen = view.first_person(here.configuration(here.home()))
    view.close()
    with SceneRenderer(CAMERA) as renderer:
        trained = renderer.render(scene, CameraPose(float(eye[2]) / robot.scale,
                                                    float(robot.camera.rpy[1])))
    assert np.abs(seen.astype(int) - trained.astype(int)).mean() < 2.0
