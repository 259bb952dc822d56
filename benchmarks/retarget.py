# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What retargeting five seconds of motion costs and how good it is, robot by robot.

Times a walk made from formulas, or any motion in AMASS layout (``--motion take.npz``), from the
standing robot: wall and CPU milliseconds, of the whole and until the part that can be sent ahead
is solved (``--first`` seconds); foot slide next to the human's, violations on the 1 kHz curve,
rows with self-collision.  The settings are timed in turn, so that other load hits all alike.
"""

import argparse
import json
from pathlib import Path
import sys
import time

import numpy as np
from tqdm import tqdm

from egomotion_ros.body.contacts import detect_contacts
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.smplx_io import read_npz
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.limits import check
from egomotion_ros.retarget.quality import human_feet, robot_feet, self_collisions
from egomotion_ros.retarget.retargeter import Retargeter
from egomotion_ros.types import HumanMotion

FRAMES = 150


def human_motion(path: Path | None, scale: float) -> HumanMotion:
    """At most five seconds of motion in the robot's measures."""
    if path is None:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'test'))
        from retarget_motions import walk

        return walk(frames=FRAMES, scale=scale)
    motion = read_npz(path)
    points = forward_kinematics(motion.root_position, motion.rotations, motion.scale)
    contacts = detect_contacts(points, motion.fps, motion.scale)
    return HumanMotion(
        motion.root_position[:FRAMES] * scale,
        motion.rotations[:FRAMES],
        contacts[:FRAMES],
        motion.fps,
        motion.frame_id,
        scale,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('robots', nargs='*', default=['unitree_g1', 'booster_t1'])
    parser.add_argument('--motion', type=Path, default=None, help='SMPL-X npz; default: a walk')
    parser.add_argument('--solves', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--first', type=float, default=1.1,
                        help='seconds; default: what the node solves first for a robot at rest')
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--json', action='store_true')
    arguments = parser.parse_args()
    cases = []
    for name in arguments.robots:
        robot = RobotDescription.load(name)
        human = human_motion(arguments.motion, robot.scale)
        cases += [(robot, human, Retargeter(robot, n), n, [], [], []) for n in arguments.solves]
    for _ in tqdm(range(arguments.repeats), file=sys.stderr):
        for robot, human, retargeter, _, first, wall, cpu in cases:
            marks = time.perf_counter(), time.process_time()
            retargeter.retarget(
                human,
                robot.standing,
                first=arguments.first,
                on_first=lambda _, to=first, marks=marks: to.append(
                    (time.perf_counter() - marks[0], time.process_time() - marks[1])
                ),
            )
            wall.append(1e3 * (time.perf_counter() - marks[0]))
            cpu.append(1e3 * (time.process_time() - marks[1]))
    rows = []
    for robot, human, retargeter, solves, first, wall, cpu in cases:
        motion = retargeter.retarget(human)
        # Nothing is handed over first where --first is all of the motion.
        half = np.round(1e3 * np.median(first or [(np.nan, np.nan)], axis=0), 1).tolist()
        rows.append(
            {
                'robot': robot.name,
                'frames': human.frames,
                'solves': solves,
                'first_ms_p50': half[0],
                'first_cpu_ms_p50': half[1],
                'wall_ms_p50': round(float(np.median(wall)), 1),
                'wall_ms_p95': round(float(np.percentile(wall, 95)), 1),
                'cpu_ms_p50': round(float(np.median(cpu)), 1),
                'violations': check(motion, robot.limits).total,
                'slide_human': round(human_feet(human).slide, 2),
                'slide_robot': round(robot_feet(robot, motion).slide, 2),
                'self_collisions': self_collisions(robot, motion),
            }
        )
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print('  '.join(f'{key:>16}' for key in rows[0]))
    for row in rows:
        print('  '.join(f'{value!s:>16}' for value in row.values()))


if __name__ == '__main__':
    main()
