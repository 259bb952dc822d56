#!/usr/bin/env python3
# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What a 1280x720 camera at 30 Hz costs ``egomotion_node``: frames, CPU, memory.

    scripts/env python benchmarks/camera_path.py [--minutes 10] [--bundle DIR] [--json]

A publisher process sends the camera (raw rgb8, best effort), joint states and odometry of a robot
that stands; the node, another process, is brought up and given an instruction.  Measured, in this
order, on the node's process:

* idle: active, no instruction.  Nothing is subscribed.
* camera path: an instruction stands, no plan is being made.  All of the node's CPU counts.
* soak: for ``--minutes``, planning every two seconds: frames delivered, latency, memory.
"""

from __future__ import annotations

import argparse
import array
import json
import os
from pathlib import Path
import subprocess
import sys
import time

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Quaternion
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
import numpy as np
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from egomotion_ros.msg import Status
from egomotion_ros.nodes.qos import profile
from egomotion_ros.retarget.description import RobotDescription

WIDTH, HEIGHT, RATE = 1280, 720, 30
RCLError = rclpy_implementation.RCLError
TICKS = os.sysconf('SC_CLK_TCK')


def publish(robot: str) -> None:
    """Camera at 30 Hz, joint states and odometry at 60 Hz, until killed."""
    rclpy.init()
    node = rclpy.create_node('camera_path_publisher')
    description = RobotDescription.load(robot)
    images = node.create_publisher(Image, 'image', profile('sensor'))
    joints = node.create_publisher(JointState, 'joint_states', profile('state_reliable'))
    odom = node.create_publisher(Odometry, 'odom', profile('state_reliable'))
    image = Image(width=WIDTH, height=HEIGHT, encoding='rgb8', step=3 * WIDTH)
    noise = np.random.default_rng(0).integers(0, 255, WIDTH * HEIGHT * 3, dtype=np.uint8)
    image.data = array.array('B', noise.tobytes())
    state = JointState(name=list(description.joint_names), position=description.standing.tolist())
    base = Odometry()
    base.header.frame_id = 'odom'
    base.pose.pose.position.z = description.home_height
    base.pose.pose.orientation = Quaternion(w=1.0)
    start, count = time.monotonic(), 0
    while True:
        now = node.get_clock().now().to_msg()
        state.header.stamp = base.header.stamp = now
        joints.publish(state)
        odom.publish(base)
        if count % 2 == 0:
            image.header.stamp = now
            images.publish(image)
        count += 1
        time.sleep(max(0.0, start + count / (2 * RATE) - time.monotonic()))


class Probe:
    """Brings the node up, gives it work and reads what it says and costs."""

    def __init__(self, bundle: str, robot: str) -> None:
        command = [sys.executable, '-m', 'egomotion_ros.nodes.egomotion_node', '--ros-args']
        values = {'bundle': bundle, 'robot': robot, 'camera.hfov': 1.6}
        # The publisher may starve on a busy machine; that is not what is measured here.
        values |= {'joint_states.timeout': 10.0, 'odom.timeout': 10.0, 'image.timeout': 10.0}
        for name, value in values.items():
            if value:
                command += ['-p', f'{name}:={value}']
        self.process = subprocess.Popen(command)
        self.node = rclpy.create_node('camera_path_probe')
        self.values: dict[str, str] = {}
        self.latencies: list[float] = []
        self.codes: set[int] = set()
        self.node.create_subscription(
            DiagnosticArray, 'diagnostics', self._on_diagnostics, profile('default')
        )
        self.node.create_subscription(Status, 'status', self._on_status, profile('latched'))
        self.speaker = self.node.create_publisher(String, 'instruction', profile('command'))
        self.setter = self.node.create_client(SetParameters, 'egomotion_node/set_parameters')

    def bring_up(self) -> None:
        """Configure and activate."""
        change = self.node.create_client(ChangeState, 'egomotion_node/change_state')
        if not change.wait_for_service(timeout_sec=20.0):
            raise SystemExit('the node did not come up')
        for step in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            answer = self._call(change, ChangeState.Request(transition=Transition(id=step)))
            if not answer.success:
                raise SystemExit('the node could not be activated')

    def say(self, text: str) -> None:
        """Send an instruction once the node listens."""
        while not self.speaker.get_subscription_count():
            self.spin(0.1)
        self.speaker.publish(String(data=text))

    def set(self, **values) -> None:
        """Set parameters of the node."""
        parameters = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        self._call(self.setter, SetParameters.Request(parameters=parameters))

    def spin(self, seconds: float) -> None:
        """Listen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def frames(self) -> int:
        """Count of images the node took so far."""
        return int(self.values.get('image received', 0))

    def cpu(self) -> float:
        """CPU seconds of the node's process so far."""
        fields = Path(f'/proc/{self.process.pid}/stat').read_text().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> float:
        """Resident megabytes of the node's process."""
        pages = Path(f'/proc/{self.process.pid}/statm').read_text().split()[1]
        return int(pages) * os.sysconf('SC_PAGE_SIZE') / 1e6

    def measure(self, seconds: float) -> dict[str, float]:
        """Frames per second and share of a core over ``seconds``."""
        self.spin(1.2)  # the next diagnostics
        frames, cpu, start = self.frames(), self.cpu(), time.monotonic()
        self.spin(seconds)
        spent = time.monotonic() - start
        return {
            'seconds': round(spent, 1),
            'frames_per_second': round((self.frames() - frames) / round(spent), 1),
            'cpu_percent': round(100.0 * (self.cpu() - cpu) / spent, 1),
        }

    def _call(self, client, request):
        client.wait_for_service(timeout_sec=10.0)
        future = client.call_async(request)
        rclpy.spin_until_future_complete(self.node, future, timeout_sec=120.0)
        return future.result()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.values = {item.key: item.value for item in message.status[0].values}

    def _on_status(self, message: Status) -> None:
        self.codes.add(message.code)
        if message.state == Status.EXECUTING and message.latency_ms > 0:
            self.latencies.append(message.latency_ms)


def main() -> int:
    """Run the three measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--minutes', type=float, default=1.0, help='length of the soak')
    parser.add_argument('--seconds', type=float, default=20.0, help='of the other two')
    parser.add_argument('--bundle', default='', help='folder; default: the one that ships')
    parser.add_argument('--robot', default='unitree_g1')
    parser.add_argument('--json', action='store_true')
    parser.add_argument('--publish', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.publish:
        try:
            publish(args.robot)
        except (ExternalShutdownException, RCLError):
            return 0  # told to end
    camera = subprocess.Popen([sys.executable, __file__, '--publish', '--robot', args.robot])
    rclpy.init()
    probe = Probe(args.bundle, args.robot)
    report: dict[str, dict | list] = {}
    try:
        probe.bring_up()
        probe.spin(2.0)
        report['idle'] = probe.measure(args.seconds)
        # One plan now, the next one when the measurement is over.
        probe.set(replan_period=min(args.seconds + 15.0, 60.0))
        probe.say('stand still')
        probe.spin(8.0)
        report['camera_path'] = probe.measure(args.seconds)
        probe.set(replan_period=2.0)
        probe.say('stand still')
        probe.spin(5.0)
        probe.latencies.clear()
        memory = [probe.memory()]
        soak = None
        for minute in range(max(int(args.minutes * 6), 1)):
            part = probe.measure(10.0)
            memory.append(probe.memory())
            soak = part if soak is None else {k: soak[k] + part[k] for k in part}
            if not args.json and minute % 6 == 0:
                print(f'soak: {part} memory {memory[-1]:.0f} MB', flush=True)
        parts = max(int(args.minutes * 6), 1)
        report['soak'] = {
            'minutes': round(soak['seconds'] / 60.0, 1),
            'frames_per_second': round(soak['frames_per_second'] / parts, 1),
            'cpu_percent': round(soak['cpu_percent'] / parts, 1),
            'plans': len(probe.latencies),
            'latency_p50_ms': round(float(np.percentile(probe.latencies, 50))),
            'latency_p95_ms': round(float(np.percentile(probe.latencies, 95))),
            'memory_first_mb': round(memory[0], 1),
            'memory_half_mb': round(memory[len(memory) // 2], 1),
            'memory_last_mb': round(memory[-1], 1),
            'codes': sorted(probe.codes),
        }
    finally:
        for process in (probe.process, camera):
            process.terminate()
            process.wait(10.0)
    if args.json:
        print(json.dumps(report))
    else:
        for name, figures in report.items():
            print(f'{name:>12}: {figures}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
