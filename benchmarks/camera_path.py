#!/usr/bin/env python3
# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What a 1280x720 camera at 30 Hz costs ``egomotion_node``: frames, CPU, latency, memory.

    scripts/env python benchmarks/camera_path.py [--minutes 10] [--bundle DIR] [--json]

The camera is ``camera_node`` playing a video of simulated rooms (or ``--recording``); see
:mod:`egomotion_ros.evaluation.camera_path`, which measures.
"""

from __future__ import annotations

import argparse
import json
import math
import sys

from egomotion_ros.evaluation.camera_path import measure


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--minutes', type=float, default=1.0, help='length of the soak')
    parser.add_argument('--seconds', type=float, default=20.0, help='of the other two')
    parser.add_argument('--bundle', default='', help='folder; default: the one that ships')
    parser.add_argument('--robot', default='unitree_g1')
    parser.add_argument('--recording', default='', help='video, folder of pictures or .vrs file')
    parser.add_argument('--hfov', type=float, default=0.0, metavar='DEG',
                        help='horizontal field of view of a --recording without calibration')
    parser.add_argument('--json', action='store_true')
    args = parser.parse_args()
    report = measure(args.bundle, args.minutes, robot=args.robot, recording=args.recording,
                     hfov=math.radians(args.hfov), seconds=args.seconds, progress=not args.json)
    if args.json:
        print(json.dumps(report))
    else:
        for name, figures in report.items():
            print(f'{name:>12}: {figures}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
