# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demo: its script, its judgement, its pictures, its processes, and all of it at once."""

from __future__ import annotations

import argparse
from dataclasses import replace
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import threading
import time

import av
import mujoco
import numpy as np
from PIL import Image
import pytest
import rclpy
from rclpy.action import ActionServer
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger
from test_simulation import walk

from egomotion_ros.action import GenerateMotion
from egomotion_ros.bundle import Bundle
from egomotion_ros.commands import demo
from egomotion_ros.data.instructions import Command
from egomotion_ros.data.scenes import (
    COLOUR_NAMES,
    OBJECT_COLUMNS,
    SHAPE_NAMES,
    STAND_OFF,
    SceneObject,
    scene_seed,
)
from egomotion_ros.data.scenes_furnished import draw_scene
from egomotion_ros.data.scenes_view import CAMERA
from egomotion_ros.demo.film import FRAME_RATE, write_pictures
from egomotion_ros.demo.processes import Children, DemoError
from egomotion_ros.demo.record import Attempt, Sent, Visit
from egomotion_ros.demo.scores import Score, score, table, verdict
from egomotion_ros.demo.script import (
    Ask,
    Stop,
    camera_script,
    default_script,
    eye_of,
    goal_of,
    read_script,
    room,
)
from egomotion_ros.demo.session import Session
from egomotion_ros.nodes.egomotion_node import spin
from egomotion_ros.nodes.errors import ErrorCode
from egomotion_ros.nodes.process import end, leave
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.joining import sample
from egomotion_ros.retarget.quality import configurations
from egomotion_ros.simulation.world import View, World
from egomotion_ros.types import CameraPose

SECOND = 1_000_000_000


@pytest.fixture(scope='module')
def robot() -> RobotDescription:
    return RobotDescription.load('unitree_g1')


@pytest.fixture(scope='module')
def eye(robot: RobotDescription) -> CameraPose:
    return eye_of(robot)


# What is asked -----------------------------------------------------------------------------------
@pytest.mark.parametrize('seed', [0, 1, 17])
def test_the_script_asks_enough_in_rooms_and_words_of_the_test_split(seed, eye):
    stops = default_script(seed, eye)
    asks = [ask for stop in stops for ask in stop.asks]
    assert len(asks) >= 6 and len({stop.seed for stop in stops}) == len(stops)
    assert [ask.then for ask in asks].count('change') == 1
    assert [ask.then for ask in asks].count('stop') == 1
    assert [ask.then for ask in asks].count('look') == 1
    for stop in stops:
        scene = room(stop.seed)
        assert scene.split == 'test'
        scene = replace(scene, camera=eye, view=None)  # as the robot sees it
        for ask in stop.asks:
            if ask.command.action == 'reach':
                assert scene.objects[ask.command.target].side == ask.command.params['side']
                assert scene.table()[ask.command.target, 8]  # visible
            elif ask.then == 'look':
                assert scene.table()[ask.command.target, 8:].tolist() == [0, 1]  # only clear
            elif ask.command.target >= 0:
                assert scene.table()[ask.command.target, 8:].all()  # visible, clear
    assert [ask.command.action for ask in asks].count('reach') == 1
    assert room(-1) is None


def test_the_same_seed_gives_the_same_script_and_another_seed_another(eye):
    assert default_script(3, eye) == default_script(3, eye)
    assert {s.seed for s in default_script(3, eye)}.isdisjoint(
        s.seed for s in default_script(4, eye))
    with pytest.raises(ValueError, match='seed must be'):
        default_script(-1, eye)


@pytest.mark.parametrize('name', ['unitree_g1', 'booster_t1'])
def test_the_eye_is_where_the_robot_draws_from(name):
    robot = RobotDescription.load(name)
    eye = eye_of(robot)
    assert 1.2 < eye.height < 1.8 and abs(eye.yaw) < 1e-3
    # What the scene's geometry says of the eye is what MuJoCo draws: a ball where it is projected.
    scene = replace(room(scene_seed('test', 2)), camera=eye, view=None, boxes=())
    row = next(i for i, seen in enumerate(scene.table()[:, 8]) if seen)
    world = World(robot, replace(scene, objects=scene.objects[row:row + 1]), CAMERA)
    bare = World(robot, replace(scene, objects=()), CAMERA)
    pictures = []
    for each in (world, bare):
        view = View(each, CAMERA.width, CAMERA.height)
        pictures.append(view.first_person(each.configuration(each.home())).astype(int))
        view.close()
    rows, columns = np.nonzero(np.abs(pictures[0] - pictures[1]).sum(-1) > 30)
    assert abs(columns.mean() - scene.table()[row, 3]) < 6
    assert abs(rows.mean() - scene.table()[row, 4]) < 8


def test_a_file_of_instructions_finds_rooms_that_show_what_it_names(tmp_path, eye):
    path = tmp_path / 'asks.txt'
    path.write_text('# comment\n\nwalk to the green box\nturn to the purple column\nwave\n'
                    'touch the red ball with your left hand\ngrab the blue box\n')
    stops = read_script(path, 0, eye)
    assert [ask.command.text for stop in stops for ask in stop.asks] == [
        'walk to the green box', 'turn to the purple column', 'wave',
        'touch the red ball with your left hand', 'grab the blue box']
    for stop, name in zip(stops, ('green box', 'purple pillar')):
        assert room(stop.seed).objects[stop.asks[0].command.target].name == name
    assert stops[1].asks[0].command.action == 'turn_to'
    for stop, side in zip(stops[3:], ('left', None)):
        command = stop.asks[0].command
        item = room(stop.seed).objects[command.target]
        assert command.action == 'reach' and item.side
        assert command.params['side'] == (side or item.side)
    assert [stop.seed for stop in read_script(path, 0, None)] == [-1] * 5
    path.write_text('# nothing\n')
    with pytest.raises(ValueError, match='no instruction'):
        read_script(path, 0, eye)
    path.write_bytes(b'\xff\xfe\x00walk')
    with pytest.raises(ValueError, match='not a text file'):
        read_script(path, 0, eye)


def test_goals_lie_where_the_words_say_from_wherever_the_robot_stands():
    scene = room(scene_seed('test', 2))
    item, scale = scene.objects[0], 0.75
    goal = goal_of(Command('walk_to', '', 0), scene, np.zeros(3), scale)
    assert np.allclose(goal, item.stop_pose() * [scale, scale, 1.0])
    start = np.array([0.4, -0.3, 1.0])
    goal = goal_of(Command('walk_to', '', 0), scene, start, scale)
    away = scale * np.array(item.position[:2]) - goal[:2]
    assert np.hypot(*away) == pytest.approx(scale * (item.radius + STAND_OFF))
    assert np.arctan2(*away[::-1]) == pytest.approx(goal[2])
    turned = goal_of(Command('turn', '', params={'angle': 0.5}), scene, start, scale)
    assert np.allclose(turned, start + [0, 0, 0.5])
    ahead = goal_of(Command('walk_forward', '', params={'distance': 2.0}), scene, start, scale)
    assert np.hypot(*(ahead - start)[:2]) == pytest.approx(1.5)
    assert goal_of(Command('', 'sing'), scene, start, scale) is None


# What is said of it ------------------------------------------------------------------------------
def recorded(robot: RobotDescription, then: str = '', goal=(0.8, 0.0, 0.0)) -> Visit:
    """A visit in which the robot walked 0.8 m forward."""
    motion = walk(robot)
    visit = Visit(scene_seed('test', 3))
    for tick in range(0, 2400, 20):
        state = sample(motion, tick * 1e-3)
        visit.states.append((tick * 1_000_000, state.positions, state.root_position,
                             state.root_quaternion))
    for tick in range(0, 2400, 100):
        visit.images.append((tick * 1_000_000, np.full((48, 64, 3), tick // 10, np.uint8)))
    visit.sent.append(Sent(motion, 0, 'p', hold=False))
    visit.captions.append((0, 'executing'))
    visit.attempts.append(Attempt(
        'walk forward', 0, 2 * SECOND, then, plan_id='p', tokens=tuple(range(19)),
        milliseconds={'reason': 12.0, 'generate': 34.0, 'retarget': 56.0},
        goal=np.array(goal)))
    return visit


@pytest.mark.parametrize(('goal', 'word'), [
    ((0.8, 0.0, 0.0), 'reached'), ((1.2, 0.2, 0.3), 'reached'),
    ((1.4, 0.0, 0.0), 'missed'), ((0.8, 0.0, 0.4), 'missed'), ((0.8, 0.0, 6.28), 'reached')])
def test_a_goal_is_reached_within_half_a_metre_and_twenty_degrees(robot, goal, word):
    visit = recorded(robot, goal=goal)
    found = score(visit, visit.attempts[0], robot)
    assert verdict(found) == word
    assert found.distance == pytest.approx(np.hypot(goal[0] - 0.8, goal[1]), abs=2e-3)
    assert found.violations == 0


def test_standing_still_is_no_answer_to_a_wave_or_a_turn(robot, eye):
    visit = recorded(robot)
    visit.attempts[0].action = 'wave'
    found = score(visit, visit.attempts[0], robot)
    assert found.distance < 0.01 and verdict(found) == 'missed'
    shoulder = robot.joint_names.index('right_shoulder_pitch_joint')
    elbow = robot.joint_names.index('right_elbow_joint')
    for _, positions, _, _ in visit.states[20:60]:
        positions[shoulder], positions[elbow] = -1.5, -0.3
    assert verdict(score(visit, visit.attempts[0], robot)) == 'reached'
    turning = [ask.command for seed in range(5) for stop in default_script(seed, eye)
               for ask in stop.asks if ask.command.action == 'turn_to']
    stops = [stop for seed in range(5) for stop in default_script(seed, eye)
             if stop.asks[0].command.action == 'turn_to']
    assert len(turning) == 5
    for command, stop in zip(turning, stops):
        bearing = room(stop.seed).objects[command.target].bearing
        assert abs(bearing) > np.radians(20.0)


def test_a_reach_is_judged_by_the_named_hand_at_the_surface(robot):
    visit = recorded(robot)
    attempt = visit.attempts[0]
    attempt.action, attempt.goal, attempt.side = 'reach', None, 'left'
    attempt.ended = 2_380_000_000  # it stands again
    model = robot.kinematics
    data = mujoco.MjData(model)
    done = visit.executed(0, attempt.ended, robot.joint_names, 30.0)
    data.qpos[:] = configurations(robot, done, model)[-1]
    mujoco.mj_kinematics(model, data)
    wrist, elbow = (data.body(f'left_{name}_link').xpos for name in ('wrist_yaw', 'elbow'))
    palm = (wrist + 0.1 * robot.scale * (wrist - elbow) / np.linalg.norm(wrist - elbow))
    ball = SceneObject(0, SHAPE_NAMES.index('ball'), (1, 0, 0), 0.2, 0.2,
                       tuple(palm / robot.scale + [0.1, 0.0, 0.0]), 0.0, side='left')
    attempt.item = ball
    found = score(visit, attempt, robot)
    assert found.distance < 0.02 and found.angle is None and verdict(found) == 'reached'
    assert 'deg' not in table([found], judged=True).splitlines()[-1]
    attempt.side = 'right'
    assert verdict(score(visit, attempt, robot)) == 'missed'
    attempt.side, attempt.item = 'left', replace(ball, position=(3.0, 0.0, 1.0))
    found = score(visit, attempt, robot)
    assert found.distance > 1.0 and verdict(found) == 'missed'


def test_violations_on_the_curve_are_counted(robot):
    visit = recorded(robot)
    motion = visit.sent[0].motion
    velocities = motion.velocities.copy()
    velocities[30, 3] = 200.0  # fine at no waypoint's position, far out between them
    visit.sent[0] = Sent(replace(motion, velocities=velocities), 0, 'p', hold=False)
    assert score(visit, visit.attempts[0], robot).violations > 0


def test_the_table_tells_what_was_asked_and_what_became_of_it(robot):
    visit = recorded(robot)
    good = score(visit, visit.attempts[0], robot)
    stopped = recorded(robot, 'stopped')
    refused = Attempt('x' * 60, 0, SECOND, error='NO_IMAGE: none')
    rows = [good, score(stopped, stopped.attempts[0], robot),
            Score(refused, None, None, 0.0, 0.0, None, 0)]
    text = table(rows, judged=True)
    assert 'walk forward' in text and '0 1 2 3 4 5 ..' in text and '12' in text and '56' in text
    assert 'reached' in text and 'stopped' in text and 'refused' in text
    assert 'xx..' in text and max(map(len, text.splitlines())) < 160
    assert 'goal' not in table(rows, judged=False)


@pytest.mark.parametrize('reach', [False, True])
def test_the_film_and_the_sheet_show_the_visit(robot, tmp_path, reach):
    visit = recorded(robot)
    if reach:
        attempt = visit.attempts[0]
        attempt.action, attempt.goal, attempt.side = 'reach', None, 'both'
        attempt.item = SceneObject(0, 0, (1, 0, 0), 0.2, 0.2, (0.8, 0.0, 1.0), 0.0, side='both')
    visit.states, visit.images = visit.states[:60], visit.images[:12]
    visit.attempts[0].ended = SECOND
    write_pictures(tmp_path, [visit], [score(visit, visit.attempts[0], robot)], robot)
    with av.open(str(tmp_path / 'demo.mp4')) as film:
        stream = film.streams.video[0]
        frames = [frame.to_ndarray(format='rgb24') for frame in film.decode(stream)]
        assert stream.codec_context.name == 'h264'
        assert stream.average_rate == FRAME_RATE
    assert len(frames) == pytest.approx(1.2 * FRAME_RATE, abs=2)
    first, last = frames[0][100:380], frames[-1][100:380]
    assert abs(int(first[:, :480].mean()) - int(last[:, :480].mean())) > 50  # the camera's side
    assert np.abs(first[:, 480:].astype(int) - last[:, 480:]).mean() > 0.5  # the robot's side
    assert frames[0][490:].std() > 10  # the caption
    sheet = np.asarray(Image.open(tmp_path / 'contact_sheet.png'))
    assert sheet.shape[1] > 1400 and sheet.std() > 20


# Processes ---------------------------------------------------------------------------------------
def alive(pid: int) -> bool:
    """Whether a process runs (one that has ended and was not waited for does not)."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def until(done, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, 'it did not happen'
        time.sleep(0.05)
    return found


def test_a_child_that_ends_is_an_error_with_its_last_words(tmp_path):
    with Children(tmp_path, dict(os.environ)) as children:
        children.start('clock', 'timeit', ['-n', '1', '-r', '1', 'raise SystemExit("worn out")'])

        def fails() -> bool:
            try:
                children.check()
            except DemoError as error:
                assert 'clock ended with code 1' in str(error) and 'worn out' in str(error)
                return True
            return False

        until(fails)


def test_a_child_that_ignores_every_request_is_ended_all_the_same(tmp_path):
    stubborn = ('import os, signal, time; signal.signal(2, signal.SIG_IGN); '
                'signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); '
                'time.sleep(600)')
    children = Children(tmp_path, dict(os.environ))
    children.FAREWELL = ((signal.SIGINT, 0.2), (signal.SIGTERM, 0.2), (signal.SIGKILL, 5.0))
    children.start('stubborn', 'timeit', ['-n', '1', '-r', '1', stubborn])
    pid = int(until(lambda: children.log('stubborn').read_text().strip()))
    assert alive(pid)
    children.stop()
    until(lambda: not alive(pid))


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_node_outlives_a_demo_that_is_interrupted(tmp_path, tiny_bundle, number):
    process = subprocess.Popen(
        [sys.executable, '-m', 'egomotion_ros.cli', 'demo', '--bundle', str(tiny_bundle), '--out',
         str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        def children() -> list[int]:
            listed = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
            return [int(pid) for pid in listed]

        pids = until(lambda: children() if len(children()) == 2 else None)
        process.send_signal(number)
        code = process.wait(60)
    finally:
        process.kill()
    assert code == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    until(lambda: not any(alive(pid) for pid in pids))


# All of it ---------------------------------------------------------------------------------------
def run_demo(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-m', 'egomotion_ros.cli', 'demo', *arguments],
                          capture_output=True, text=True, timeout=170)


def test_the_demo_follows_an_instruction_and_shows_it(tmp_path, tiny_bundle):
    (tmp_path / 'asks.txt').write_text('walk to the red ball\n')
    done = run_demo('--bundle', str(tiny_bundle), '--out', str(tmp_path / 'out'),
                    '--instructions', str(tmp_path / 'asks.txt'))
    assert done.returncode == 0, done.stderr + done.stdout
    line = next(row for row in done.stdout.splitlines() if row.startswith('walk to the red ball'))
    assert ('reached' in line or 'missed' in line) and line.endswith(' 0')
    assert (tmp_path / 'out' / 'contact_sheet.png').stat().st_size > 10_000
    with av.open(str(tmp_path / 'out' / 'demo.mp4')) as film:
        assert film.duration / av.time_base > 4.0


def test_an_instruction_is_changed_on_the_way_the_next_one_stopped_the_last_looks_again(
        tmp_path, tiny_bundle, robot):
    domain = 100 + os.getpid() % 100
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain)}
    args = argparse.Namespace(bundle=tiny_bundle, robot='unitree_g1', camera=None, seed=0)
    script = [Stop(scene_seed('test', 5), (Ask(Command('', 'walk forward'), 'change'),
                                           Ask(Command('', 'turn left'), 'stop'))),
              Stop(scene_seed('test', 6), (Ask(Command('', 'walk forward'), 'look'),))]
    with Children(tmp_path, environment) as children:
        visit, last = demo.perform(args, script, children, Bundle.open(tiny_bundle), robot, domain)
    first, second = visit.attempts
    assert (first.ending, second.ending) == ('changed', 'stopped')
    assert first.tokens and second.milliseconds['reason'] > 0
    assert visit.sent[-1].hold and not visit.sent[-1].motion.velocities[-1].any()
    # The robot never jumped: neither at the change nor at the stop, and it rests at the end.
    places = np.array([state[2] for state in visit.states])
    times = np.array([state[0] for state in visit.states]) * 1e-9
    speed = np.linalg.norm(np.diff(places, axis=0), axis=1) / np.diff(times)
    assert speed.max() < 4.0
    assert speed[-5:].max() < 1e-6
    standing, = last.attempts
    assert not standing.error and standing.tokens and standing.milliseconds['reason'] > 0
    # It ended by itself, at rest.
    assert not last.sent[-1].hold
    ends = last.sent[-1].start + last.sent[-1].motion.duration * SECOND
    assert standing.ended > ends - 0.1 * SECOND


def test_an_instruction_to_be_stopped_that_is_refused_before_any_motion_is_an_error_in_the_table(
        tmp_path, robot):
    domain = 100 + os.getpid() % 100
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node('egomotion_node', context=context)

    def refuse(goal):
        goal.abort()
        return GenerateMotion.Result(error_code=ErrorCode.NO_IMAGE, error_msg='no image')

    def stop(request, response):
        response.success = True
        return response

    server = ActionServer(node, GenerateMotion, 'generate_motion', refuse)
    node.create_service(Trigger, '~/stop', stop)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    done = threading.Event()
    thread = threading.Thread(target=spin, args=(executor, node, done), daemon=True)
    thread.start()
    try:
        with Session(Children(tmp_path, {}), domain, robot.joint_names) as session:
            session.wait(session._goals.server_is_ready, 60.0, 'the action')
            session.visit = Visit(-1)
            _, finish = session.ask('walk forward', 0, 'stop', 1.0)
            attempt = finish()
    finally:
        done.set()
        end(executor, thread)
        server.destroy()
        leave(executor, node)
    assert attempt.error == 'NO_IMAGE: no image'


def test_a_recorded_camera_takes_the_place_of_the_simulated_one(tmp_path, tiny_bundle, robot):
    (tmp_path / 'pictures').mkdir()
    for i in range(3):
        Image.new('RGB', (160, 120), (200, 60 * i, 0)).save(tmp_path / f'pictures/{i}.jpg')
    done = run_demo('--bundle', str(tiny_bundle), '--out', str(tmp_path), '--camera',
                    str(tmp_path / 'pictures'))
    assert done.returncode == 1 and '--hfov' in done.stderr
    domain = 100 + os.getpid() % 100
    args = argparse.Namespace(bundle=tiny_bundle, robot='unitree_g1', seed=0, hfov=80.0,
                              camera=tmp_path / 'pictures', calibration=None)
    script = [Stop(-1, (Ask(Command('', 'walk forward')),))]
    with Children(tmp_path, {**os.environ, 'ROS_DOMAIN_ID': str(domain)}) as children:
        visit, = demo.perform(args, script, children, Bundle.open(tiny_bundle), robot, domain)
    assert not visit.attempts[0].error and visit.attempts[0].goal is None
    assert {image.shape for _, image in visit.images} == {(120, 160, 3)}
    assert all(image[60, 80, 0] > 150 and image[60, 80, 2] < 60 for _, image in visit.images)
    assert 'goal' not in table([score(visit, visit.attempts[0], robot)], judged=False)


def test_a_missing_camera_is_named_before_anything_starts(tmp_path, tiny_bundle):
    done = run_demo('--bundle', str(tiny_bundle), '--out', str(tmp_path), '--camera',
                    str(tmp_path / 'none.vrs'))
    assert done.returncode == 1 and 'none.vrs' in done.stderr
    assert not list(tmp_path.glob('*.log'))


def test_a_node_that_cannot_start_is_shown_with_its_reason(tmp_path, tiny_bundle):
    (tmp_path / 'copy').mkdir()
    for file in tiny_bundle.iterdir():
        (tmp_path / 'copy' / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / 'copy' / 'prefill.onnx'
    weights.write_bytes(weights.read_bytes()[:-10])
    done = run_demo('--bundle', str(tmp_path / 'copy'), '--out', str(tmp_path / 'out'))
    assert done.returncode == 1 and 'prefill.onnx' in done.stderr
    assert 'Traceback' not in done.stderr


def test_the_camera_script_asks_for_a_change_and_a_stop_too():
    asks = [ask for stop in camera_script() for ask in stop.asks]
    assert len(asks) >= 6 and {'change', 'stop'} <= {ask.then for ask in asks}


def test_nothing_on_the_way_of_the_demo_imports_torch():
    modules = [f'egomotion_ros.{name}' for name in (
        'commands.demo', 'demo.film', 'demo.scores', 'demo.script', 'demo.session',
        'nodes.camera_node', 'nodes.egomotion_node', 'nodes.simulation_node', 'pipeline')]
    code = (f'import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n'
            'sys.exit("torch" in sys.modules or "mjlab" in sys.modules)')
    assert subprocess.run([sys.executable, '-c', code], timeout=120).returncode == 0


def test_the_tutorial_asks_for_something_that_its_room_shows(checkout, robot):
    text = (checkout / 'docs' / 'tutorial' / 'simulation.md').read_text()
    seed = int(re.search(r'scene_seed:=(\d+)', text).group(1))
    colour, shape = re.search(r"'walk to the (\w+) (\w+)'", text).groups()
    scene = replace(draw_scene(seed, 'furnished'), camera=eye_of(robot), view=None)
    seen = scene.table()[:len(scene.objects), OBJECT_COLUMNS.index('visible')] > 0
    shown = [(COLOUR_NAMES[item.colour], SHAPE_NAMES[item.shape])
             for item, visible in zip(scene.objects, seen, strict=True) if visible]
    assert (colour, shape) in shown
