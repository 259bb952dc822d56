# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
``egomotion demo``: the whole path in real processes, and what came of it.

Starts ``simulation_node`` and ``egomotion_node`` (and with ``--camera`` ``camera_node``) on a DDS
domain of their own on this machine, gives instructions in rooms that no training has seen, and
writes a table, a film and a contact sheet.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
import signal
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egomotion_ros.bundle import Bundle
    from egomotion_ros.demo.processes import Children
    from egomotion_ros.demo.record import Visit
    from egomotion_ros.demo.script import Stop
    from egomotion_ros.retarget.description import RobotDescription

HELP = 'run simulation and node, follow instructions, write table, video and contact sheet'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument('--out', type=Path, default=Path('out/demo'), metavar='DIR',
                        help='folder for film, contact sheet, table and logs (out/demo)')
    parser.add_argument('--camera', metavar='PATH',
                        help='an Aria .vrs, a video, a folder of pictures or the URL of a live '
                             "camera (rtsp, http, udp, ...) instead of the simulation's")
    parser.add_argument('--hfov', type=float, default=0.0, metavar='DEG',
                        help='horizontal field of view of --camera where it holds no calibration')
    parser.add_argument('--calibration', type=Path, metavar='YAML',
                        help="calibration of --camera, as ROS's camera_calibration writes it")
    parser.add_argument('--seed', type=int, default=0, metavar='N',
                        help='which rooms, sentences and noise (0..4999)')
    parser.add_argument('--instructions', type=Path, metavar='FILE',
                        help='text file with one instruction a line')
    parser.add_argument('--bundle', type=Path, metavar='DIR',
                        help='the bundle; default: the one that ships')
    parser.add_argument('--robot', default='unitree_g1', help='robot description')
    parser.add_argument('--domain', type=int, default=None, metavar='ID',
                        help='DDS domain; default: one that depends on the process')


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 where every instruction was answered and no limit was violated."""
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args.out.mkdir(parents=True, exist_ok=True)
    domain = 10 + os.getpid() % 50 if args.domain is None else args.domain
    # Before rclpy is imported: nothing of this leaves the machine.
    os.environ['ROS_DOMAIN_ID'] = str(domain)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'

    from egomotion_ros.bundle import Bundle
    from egomotion_ros.demo import script
    from egomotion_ros.demo.film import write_pictures
    from egomotion_ros.demo.processes import Children, DemoError
    from egomotion_ros.demo.scores import score, table
    from egomotion_ros.retarget.description import RobotDescription

    bundle = Bundle.open(args.bundle)
    robot = RobotDescription.load(args.robot)
    if args.camera is not None:
        _check_camera(args)
    eye = script.eye_of(robot) if args.camera is None else None
    if args.instructions is not None:
        stops = script.read_script(args.instructions, args.seed, eye)
    else:
        stops = script.camera_script() if eye is None else script.default_script(args.seed, eye)
    try:
        with Children(args.out, dict(os.environ)) as children:
            visits = perform(args, stops, children, bundle, robot, domain)
    except DemoError as error:
        print(f'egomotion demo: {error}', file=sys.stderr)
        return 1
    scores = [score(visit, attempt, robot) for visit in visits for attempt in visit.attempts]
    text = table(scores, judged=args.camera is None)
    print(f'\n{text}\n')
    (args.out / 'table.txt').write_text(text + '\n')
    write_pictures(args.out, visits, scores, robot)
    print(f'{args.out / "demo.mp4"}, {args.out / "contact_sheet.png"}, {args.out / "table.txt"} '
          f'after {time.monotonic() - begun:.0f} s')
    for item in scores:
        if item.attempt.error:
            print(f'{item.attempt.instruction!r}: {item.attempt.error}', file=sys.stderr)
    return int(any(item.attempt.error or item.violations for item in scores))


def _check_camera(args: argparse.Namespace) -> None:
    """Say what is wrong with the camera before anything is started."""
    if not 0.0 <= args.hfov < 180.0:
        raise ValueError(f'--hfov {args.hfov}: expected degrees below 180')
    from egomotion_ros.nodes.sources import load_calibration, open_source
    from egomotion_ros.nodes.sources_live import LiveStream, await_picture, is_live
    source = LiveStream(args.camera) if is_live(args.camera) else open_source(args.camera)
    if args.calibration is not None:
        load_calibration(args.calibration)
    elif source.calibration is None and not args.hfov:
        raise ValueError(f'{source.name} holds no calibration: say --hfov DEGREES (a phone held '
                         'upright has about 50) or --calibration FILE')
    if isinstance(source, LiveStream):
        await_picture(args.camera)
    else:
        next(iter(source.frames(lambda text: None))).read()


def perform(args: argparse.Namespace, stops: list[Stop], children: Children, bundle: Bundle,
            robot: RobotDescription, domain: int) -> list[Visit]:
    """Start the processes, visit every room, return what was recorded."""
    from tqdm import tqdm

    from egomotion_ros.demo.scores import planar
    from egomotion_ros.demo.script import INTERRUPT_AFTER, goal_of, room
    from egomotion_ros.demo.session import Session

    _start(args, children, bundle)
    visits = []
    count = sum(len(stop.asks) for stop in stops)
    with Session(children, domain, robot.joint_names) as session, \
            tqdm(total=count, desc='starting', unit='instruction') as bar:
        session.bring_up()
        for stop in stops:
            visit = session.enter(stop.seed)
            visits.append(visit)
            scene = room(stop.seed)
            unfinished = []
            for ask in stop.asks:
                bar.set_description(ask.command.text[:32].ljust(32))
                start = planar(*visit.at(session.now)[1:])
                attempt, finish = session.ask(ask.command.text, args.seed + 1, ask.then,
                                              INTERRUPT_AFTER)
                attempt.action = ask.command.action
                attempt.goal = goal_of(ask.command, scene, start, robot.scale)
                if ask.command.action == 'reach' and scene is not None:
                    attempt.item = scene.objects[ask.command.target]
                    attempt.side = str(ask.command.params['side'])
                unfinished.append(finish)
                if ask.then != 'change':
                    while unfinished:
                        unfinished.pop(0)()
                        bar.update()
            session.leave()
        bar.set_description('done')
    return visits


def _start(args: argparse.Namespace, children: Children, bundle: Bundle) -> None:
    """Start the nodes as processes."""
    from egomotion_ros.demo.film import FRAME_RATE
    from egomotion_ros.nodes.sources_live import is_live

    def parameters(**values) -> list[str]:
        words = ['--ros-args', '--disable-rosout-logs']
        for name, value in values.items():
            words += ['-p', f'{name}:={value}']
        return words

    simulation = parameters(robot=args.robot, bundle_hash=f"'{bundle.hash}'",
                            camera_rate=float(FRAME_RATE))
    if args.camera is not None:
        simulation += ['-r', 'image:=simulated/image', '-r', 'camera_info:=simulated/camera_info']
        path = args.camera if is_live(args.camera) else Path(args.camera).resolve()
        values = {'path': f"'{path}'", 'loop': 'true', 'use_sim_time': 'true',
                  'horizontal_fov': math.radians(args.hfov)}
        if args.calibration is not None:
            values['calibration'] = f"'{args.calibration.resolve()}'"
        children.start('camera_node', 'egomotion_ros.nodes.camera_node', parameters(**values))
    children.start('simulation_node', 'egomotion_ros.nodes.simulation_node', simulation)
    node = {'robot': args.robot, 'use_sim_time': 'true'}
    if args.bundle is not None:
        node['bundle'] = f"'{args.bundle.resolve()}'"
    children.start('egomotion_node', 'egomotion_ros.nodes.egomotion_node', parameters(**node))
