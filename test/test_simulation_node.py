# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""simulation_node over real DDS: its topics, its clock, and whom it follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import itertools
import os
import signal
import subprocess
import sys
import threading
import time

from nav_msgs.msg import Odometry
import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_srvs.srv import Trigger
from test_simulation import walk

from egomotion_ros.data.scenes import scene_seed
from egomotion_ros.msg import RobotMotion
from egomotion_ros.nodes.conversions import PlanInfo, robot_to_msg, time_from_msg
from egomotion_ros.nodes.process import leave
from egomotion_ros.nodes.qos import profile
from egomotion_ros.nodes.simulation_node import SimulationNode
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.types import PlanarPose

_COUNT = itertools.count()
HASH = 'ab' * 32


class Bench:
    """A simulation_node under test and a listener, in a namespace of their own."""

    def __init__(self, **parameters) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.namespace = f'/s{os.getpid()}_{next(_COUNT)}'
        values = {'image_width': 64, 'image_height': 48, 'camera_rate': 5.0, **parameters}
        self.sim = SimulationNode(
            context=self.context, namespace=self.namespace,
            cli_args=['--ros-args', '-r', f'/clock:={self.namespace}/clock'],
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()])
        self.node = rclpy.create_node('bench', namespace=self.namespace, context=self.context)
        self.heard: dict[str, list] = {}
        for kind, topic in ((Image, 'image'), (CameraInfo, 'camera_info'), (Odometry, 'odom'),
                            (JointState, 'joint_states'), (Clock, 'clock')):
            self.heard[topic] = []
            self.node.create_subscription(kind, topic, self.heard[topic].append, 50)
        self.motions = self.node.create_publisher(RobotMotion, 'robot_motion', profile('motion'))
        self.step = self.node.create_client(Trigger, 'simulation_node/step')
        self.reset = self.node.create_client(Trigger, 'simulation_node/reset')
        # One thread, as the process has: with the clock's 1,000 messages a second several would
        # wait for each other more than they work.
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.sim)
        self.executor.add_node(self.node)
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()

    def _spin(self) -> None:
        while not self.closing.is_set():
            self.executor.spin_once(timeout_sec=0.2)

    def until(self, done: Callable[[], object], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, 'it did not happen'
            time.sleep(0.005)

    def call(self, client) -> Trigger.Response:
        assert client.wait_for_service(20.0)
        future = client.call_async(Trigger.Request())
        self.until(future.done)
        return future.result()

    def now(self) -> int:
        return time_from_msg(self.heard['clock'][-1].clock)

    def place(self) -> np.ndarray:
        p = self.heard['odom'][-1].pose.pose.position
        return np.array([p.x, p.y, p.z])

    def send(self, start: int, bundle_hash: str = HASH, robot: str = 'unitree_g1', **changes):
        description = RobotDescription.load('unitree_g1')
        info = PlanInfo('plan', 1, bundle_hash, start, start, PlanarPose())
        message = robot_to_msg(walk(description), info, robot, 'pelvis')
        for name, value in changes.items():
            setattr(message, name, value)
        self.until(lambda: self.motions.get_subscription_count() == 1)
        self.motions.publish(message)

    def close(self) -> None:
        self.closing.set()
        leave(self.executor, self.sim, self.node, thread=self.thread)


@pytest.fixture(scope='module')
def bench() -> Iterator[Bench]:
    bench = Bench(bundle_hash=HASH, scene_seed=scene_seed('test', 3))
    yield bench
    bench.close()


@pytest.fixture(scope='module')
def lockstep() -> Iterator[Bench]:
    bench = Bench(realtime_factor=0.0)
    yield bench
    bench.close()


@pytest.fixture(autouse=True)
def at_the_start(request) -> None:
    """Put the robot of the shared node back before each test."""
    if 'bench' in request.fixturenames:
        bench = request.getfixturevalue('bench')
        assert bench.call(bench.reset).success
        seen = len(bench.heard['odom'])
        bench.until(lambda: len(bench.heard['odom']) > seen + 5)


def test_image_and_calibration_belong_together(bench):
    seen = len(bench.heard['image'])
    bench.until(lambda: len(bench.heard['image']) > seen + 1)
    image = bench.heard['image'][-1]
    infos = {time_from_msg(m.header.stamp): m for m in bench.heard['camera_info']}
    bench.until(lambda: time_from_msg(image.header.stamp) in {
        time_from_msg(m.header.stamp) for m in bench.heard['camera_info']})
    infos = {time_from_msg(m.header.stamp): m for m in bench.heard['camera_info']}
    info = infos[time_from_msg(image.header.stamp)]
    assert (image.encoding, image.width, image.height) == ('rgb8', 64, 48)
    assert (info.width, info.height, info.header.frame_id) == (64, 48, image.header.frame_id)
    camera = RobotDescription.load('unitree_g1').camera
    assert info.k[0] == pytest.approx(32 / np.tan(camera.hfov / 2))
    assert np.frombuffer(image.data, np.uint8).std() > 5


def test_states_say_where_the_robot_stands(bench):
    joints, odometry = bench.heard['joint_states'][-1], bench.heard['odom'][-1]
    robot = RobotDescription.load('unitree_g1')
    assert tuple(joints.name) == robot.joint_names
    assert np.allclose(joints.position, robot.standing)
    assert (odometry.header.frame_id, odometry.child_frame_id) == ('odom', 'pelvis')
    assert np.allclose(bench.place(), [0, 0, robot.home_height])


def test_stamps_are_of_the_clock_that_is_published_and_run_forward(bench):
    stamps = [time_from_msg(m.header.stamp) for m in bench.heard['odom'][-40:]]
    clock = [time_from_msg(m.clock) for m in bench.heard['clock'][-200:]]
    assert (np.diff(stamps) > 0).all() and (np.diff(clock) > 0).all()
    assert set(stamps[:20]) <= set(clock)


def test_the_root_follows_the_planned_root_motion(bench):
    bench.send(bench.now())
    bench.until(lambda: bench.place()[0] > 0.3)
    moving = bench.heard['odom'][-1]
    assert moving.twist.twist.linear.x > 0.05
    bench.until(lambda: bench.place()[0] > 0.8 - 1e-6)
    assert abs(bench.place()[0] - 0.8) < 1e-6
    knee = RobotDescription.load('unitree_g1').joint_names.index('left_knee_joint')
    assert bench.heard['joint_states'][-1].position[knee] == pytest.approx(0.9, abs=0.3)


@pytest.mark.parametrize('wrong', [
    {'bundle_hash': 'cd' * 32}, {'robot': 'another'}, {'base_link': 'torso_link'},
    {'positions': [float('nan')] * (61 * 29)}, {'steps': 3}, {'joint_names': ['a']},
    {'start': 'stale'}, {'start': 'future'}])
def test_the_robot_holds_when_told_something_it_must_not_follow(bench, wrong):
    wrong = dict(wrong)
    shift = {'stale': -60, 'future': 60, 'now': 0}[wrong.pop('start', 'now')]
    start = bench.now() + shift * 1_000_000_000
    logged = len(bench.heard['odom'])
    bench.send(max(start, 1), **wrong)
    bench.until(lambda: len(bench.heard['odom']) > logged + 20)
    assert np.allclose(bench.place()[:2], 0.0)
    # Messages keep their order: once this good one moves the robot, the bad one was looked at.
    bench.send(bench.now())
    bench.until(lambda: bench.place()[0] > 0.05)


def test_a_scene_can_be_changed_and_puts_the_robot_at_its_start(bench):
    bench.send(bench.now())
    bench.until(lambda: bench.place()[0] > 0.1)
    before = np.frombuffer(bench.heard['image'][-1].data, np.uint8).astype(int)
    when = bench.now()
    results = bench.sim.set_parameters([Parameter('scene_seed', value=scene_seed('test', 4))])
    assert results[0].successful
    bench.until(lambda: bench.heard['image']
                and time_from_msg(bench.heard['image'][-1].header.stamp) > when)
    after = np.frombuffer(bench.heard['image'][-1].data, np.uint8).astype(int)
    assert np.abs(after - before).mean() > 3
    bench.until(lambda: np.allclose(bench.place()[:2], 0.0))
    assert bench.now() >= when


def test_in_lockstep_time_stands_until_it_is_asked_to_go(lockstep):
    lockstep.until(lambda: lockstep.heard['odom'] or lockstep.call(lockstep.step))
    lockstep.call(lockstep.step)
    first = int(lockstep.call(lockstep.step).message.split()[0])
    images = len(lockstep.heard['image'])
    answers = [int(lockstep.call(lockstep.step).message.split()[0]) for _ in range(3)]
    # Five images a second: each step is 0.2 s to the nanosecond, and brings one image.
    assert np.array_equal(np.diff([first, *answers]), [200_000_000] * 3)
    lockstep.until(lambda: len(lockstep.heard['image']) >= images + 3)
    lockstep.until(lambda: lockstep.now() == answers[-1])


def test_the_same_steps_give_the_same_pictures(lockstep):
    """Deterministic: what stands still looks the same in every step."""
    for _ in range(2):
        lockstep.call(lockstep.step)
    lockstep.until(lambda: len(lockstep.heard['image']) >= 2)
    a, b = (np.frombuffer(m.data, np.uint8) for m in lockstep.heard['image'][-2:])
    assert np.array_equal(a, b)


def test_the_process_ends_cleanly_when_told():
    process = subprocess.Popen([sys.executable, '-m', 'egomotion_ros.nodes.simulation_node'],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = process.stdout.readline()  # it is up
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert 'Kinematic' in line
    assert (process.returncode, rest) == (0, '')


def test_the_process_says_why_it_cannot_start():
    done = subprocess.run(
        [sys.executable, '-m', 'egomotion_ros.nodes.simulation_node', '--ros-args', '-p',
         'robot:=nobody'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert 'nobody' in done.stderr and 'Traceback' not in done.stderr
