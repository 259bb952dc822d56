# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
How many 1280x720 rgb8 images reach another process at 30 Hz, best effort.

``scripts/env python benchmarks/image_transport.py [--seconds 10] [--json]`` measures twice, with
Fast DDS as it comes and with ``config/fastdds.xml``; each time a publisher and a subscriber are
two real processes on a domain of their own.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
import subprocess
import sys
import time

WIDTH, HEIGHT, RATE = 1280, 720, 30.0
PROFILE = Path(__file__).resolve().parent.parent / 'config' / 'fastdds.xml'
VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE'


def _node(name: str):
    import rclpy
    from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
    rclpy.init()
    qos = QoSProfile(
        depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
    return rclpy.create_node(name), qos


def publish(seconds: float) -> None:
    """Wait for the subscriber, publish at :data:`RATE`, print the count of images sent."""
    import numpy as np
    from sensor_msgs.msg import Image
    node, qos = _node('image_writer')
    publisher = node.create_publisher(Image, 'image', qos)
    message = Image(width=WIDTH, height=HEIGHT, encoding='rgb8', step=3 * WIDTH)
    pixels = np.random.default_rng(0).integers(0, 256, HEIGHT * WIDTH * 3, np.uint8)
    message.data.frombytes(pixels.tobytes())
    deadline = time.monotonic() + 20.0
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > deadline:
            raise RuntimeError('no subscriber within 20 s')
        time.sleep(0.05)
    start = time.monotonic()
    count = round(seconds * RATE)
    for index in range(count):
        time.sleep(max(0.0, start + index / RATE - time.monotonic()))
        stamp = time.time_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        publisher.publish(message)
    took = time.monotonic() - start
    time.sleep(0.5)
    print(json.dumps({'sent': count, 'seconds': took}))


def subscribe() -> None:
    """Take images until standard input is closed; print how many came and how late."""
    import threading

    import numpy as np
    import rclpy
    from sensor_msgs.msg import Image
    ages: list[float] = []

    def take(message: Image) -> None:
        stamp = message.header.stamp
        ages.append(time.time_ns() * 1e-6 - stamp.sec * 1e3 - stamp.nanosec * 1e-6)

    node, qos = _node('image_reader')
    node.create_subscription(Image, 'image', take, qos)
    ending = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ending.set()), daemon=True).start()
    used = time.process_time()
    while not ending.is_set():
        rclpy.spin_once(node, timeout_sec=0.2)
    print(json.dumps({
        'received': len(ages),
        'latency_ms_p50': round(float(np.median(ages)), 1) if ages else None,
        'latency_ms_p95': round(float(np.percentile(ages, 95)), 1) if ages else None,
        'reader_cpu_seconds': round(time.process_time() - used, 2)}))


def measure(profile: Path | None, seconds: float) -> dict:
    """Run both processes with ``profile`` (None: Fast DDS as it comes) and return the figures."""
    environment = dict(os.environ)
    environment.pop(VARIABLE, None)
    if profile:
        environment[VARIABLE] = str(profile)
    me = [sys.executable, __file__]
    with subprocess.Popen([*me, 'subscribe'], env=environment, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        sent = subprocess.run([*me, 'publish', '--seconds', str(seconds)], env=environment,
                              text=True, stdout=subprocess.PIPE, check=True,
                              timeout=seconds * 3 + 60)
        received, _ = reader.communicate(timeout=30)
    figures = {**json.loads(sent.stdout), **json.loads(received)}
    figures['hz'] = round(figures['received'] / figures['seconds'], 1)
    return figures


def main() -> int:
    """Measure, or be one of the two processes."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('role', nargs='?', choices=('publish', 'subscribe'))
    parser.add_argument('--seconds', type=float, default=10.0)
    parser.add_argument('--json', action='store_true')
    args = parser.parse_args()
    if args.role == 'publish':
        publish(args.seconds)
    elif args.role == 'subscribe':
        subscribe()
    else:
        table = {'default': measure(None, args.seconds),
                 'config/fastdds.xml': measure(PROFILE, args.seconds)}
        if args.json:
            print(json.dumps(table, indent=2))
        else:
            for name, row in table.items():
                print(f'{name:20} {row["received"]:4} of {row["sent"]} images, {row["hz"]:5} Hz, '
                      f'latency p50 {row["latency_ms_p50"]} ms, p95 {row["latency_ms_p95"]} ms')
    return 0


if __name__ == '__main__':
    sys.exit(main())
