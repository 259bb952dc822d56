# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
``egomotion doctor``: what this machine has, what is missing, and what that disables.

Whatever can take a process down with it (a GPU driver, an OpenGL context) is tried in a process of
its own; TensorRT is never imported here, because its runtime crashes on a host without a driver.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys

HELP = 'say what is installed, what is missing and what that disables'

#: Module -> distribution, of what every plan needs.
LIBRARIES = {
    'numpy': 'numpy', 'scipy': 'scipy', 'onnxruntime': 'onnxruntime', 'mujoco': 'mujoco',
    'mink': 'mink', 'daqp': 'daqp', 'cv2': 'opencv-python-headless', 'tokenizers': 'tokenizers',
    'safetensors': 'safetensors', 'yaml': 'PyYAML', 'tqdm': 'tqdm',
    'array_api_compat': 'array-api-compat',
}
#: Module -> distribution, of what training and export need.
TRAINING = {
    'torch': 'torch', 'transformers': 'transformers', 'accelerate': 'accelerate',
    'tensorboard': 'tensorboard', 'onnxscript': 'onnxscript',
}
#: The camera's images of a few seconds, twice, besides what others keep there (bytes).
SHARED_MEMORY = 256 * 2**20
#: Seconds that a probe in a process of its own may take.
PATIENCE = 60.0


@dataclass(frozen=True)
class Finding:
    """
    One line of the report.

    ``found`` whether ``what`` is there; ``detail`` version, path or reason; ``disables`` what its
    absence takes away; ``required`` True where the main job cannot run without it.
    """

    what: str
    found: bool
    detail: str
    disables: str = ''
    required: bool = False


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument('--bundle', type=Path, metavar='DIR',
                        help='the bundle; default: the one that ships')
    parser.add_argument('--robot', default='unitree_g1',
                        help='name of a robot description, or path of its YAML (unitree_g1)')
    parser.add_argument('--smplx', type=Path, metavar='DIR',
                        help='folder of the SMPL-X model files')
    parser.add_argument('--json', action='store_true', help='print the findings as JSON')


def run(args: argparse.Namespace) -> int:
    """Print the findings; 0 unless the main job cannot run on this machine."""
    findings = []
    for check in CHECKS:
        try:
            findings += check(args)
        except Exception as error:
            # A broken installation raises anything; the report must come all the same.
            name = check.__name__.strip('_')
            findings.append(Finding(name, False, f'check failed: {error!r}', name))
    missing = [finding.what for finding in findings if finding.required and not finding.found]
    if args.json:
        print(json.dumps({'findings': [asdict(finding) for finding in findings],
                          'can_run': not missing}, indent=1))
        return 1 if missing else 0
    for finding in findings:
        mark = 'ok' if finding.found else 'MISSING' if finding.required else 'missing'
        print(f'{mark:8} {finding.what:22} {finding.detail}')
        if not finding.found:
            print(f'{"":8} {"":22} -> disables {finding.disables}')
    if missing:
        print(f'The main job, camera and instruction to published motion, cannot run here: '
              f'{", ".join(missing)}.')
        return 1
    print('The main job, camera and instruction to published motion, can run here.')
    return 0


def _python(args: argparse.Namespace) -> Iterator[Finding]:
    fits = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield Finding('Python', fits, f'{sys.version.split()[0]} ({sys.executable})',
                  'everything: 3.11 or 3.12 is needed', required=True)


def _libraries(args: argparse.Namespace) -> Iterator[Finding]:
    problems = [problem for module, name in LIBRARIES.items()
                if (problem := _broken(module, name))]
    yield Finding('libraries', not problems,
                  '; '.join(problems) or _versions(LIBRARIES),
                  'planning; pip install -r requirements/runtime.txt', required=True)


def _bundle(args: argparse.Namespace) -> Iterator[Finding]:
    from egomotion_ros.bundle import Bundle
    try:
        bundle = Bundle.open(args.bundle)
    except (ValueError, OSError) as error:
        yield Finding('bundle', False, str(error), 'every plan', required=True)
    else:
        yield Finding('bundle', True, f'{bundle.directory}, hash {bundle.hash[:12]}')


def _robots(args: argparse.Namespace) -> Iterator[Finding]:
    from egomotion_ros.retarget.description import ROBOTS, RobotDescription
    others = sorted(path.stem for path in ROBOTS.glob('*.yaml'))
    for name in [args.robot, *(other for other in others if other != args.robot)]:
        required = name == args.robot
        try:
            robot = RobotDescription.load(name)
        except (ValueError, OSError) as error:
            yield Finding(f'robot {name}', False, str(error), f'robot:={name}', required)
        else:
            yield Finding(f'robot {name}', True, f'{len(robot.joint_names)} joints')


def _rendering(args: argparse.Namespace) -> Iterator[Finding]:
    program = 'import mujoco; mujoco.GLContext(16, 16).free()'
    asked = os.environ.get('MUJOCO_GL', '')
    reasons = []
    for backend in [asked] if asked else ['egl', 'osmesa']:
        done, words = _probe([sys.executable, '-c', program], MUJOCO_GL=backend)
        if done:
            hint = '' if asked else f'; set MUJOCO_GL={backend}'
            yield Finding('offscreen rendering', True, f'{backend}{hint}')
            return
        reasons.append(f'{backend}: {words}')
    yield Finding('offscreen rendering', False, '; '.join(reasons),
                  "simulation_node, the demo's film, simulated episodes; "
                  'apt-get install libegl1 libopengl0 libgl1-mesa-dri')


def _ros(args: argparse.Namespace) -> Iterator[Finding]:
    problem = _broken('rclpy', 'ros-jazzy-rclpy')
    if problem:
        yield Finding('ROS 2', False, problem, 'the nodes, the demo, `egomotion generate`',
                      required=True)
        return
    from rclpy.utilities import get_rmw_implementation_identifier
    yield Finding('ROS 2', True, '{}, {}, domain {}, discovery {}'.format(
        os.environ.get('ROS_DISTRO', 'distribution not set'),
        get_rmw_implementation_identifier(), os.environ.get('ROS_DOMAIN_ID', '0'),
        os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE', 'SUBNET')))
    # Loading the type support, not only the Python module: it is what a stale build breaks.
    program = ('from egomotion_ros.msg import RobotMotion\n'
               'from egomotion_ros.action import GenerateMotion\n'
               'RobotMotion.__class__.__import_type_support__()\n'
               'GenerateMotion.__class__.__import_type_support__()\n'
               'assert RobotMotion.__class__._TYPE_SUPPORT is not None\n'
               'assert GenerateMotion.__class__._TYPE_SUPPORT is not None\n')
    done, words = _probe([sys.executable, '-c', program])
    yield Finding('messages', done, 'built, type support loads' if done else words,
                  'the nodes; colcon build, or make build', required=True)
    image = next((name for name in ('cv_bridge', 'rosbags.image') if _has(name)), '')
    yield Finding('image conversion', bool(image), image or 'neither cv_bridge nor rosbags-image',
                  'camera images; pip install --no-deps -r requirements/nodeps.txt',
                  required=True)
    profile = os.environ.get('FASTRTPS_DEFAULT_PROFILES_FILE', '')
    yield Finding('DDS profile', Path(profile).is_file() if profile else False,
                  profile or 'FASTRTPS_DEFAULT_PROFILES_FILE is not set',
                  'full-rate large images: most of 1280x720 at 30 Hz is lost without one '
                  '(share/egomotion_ros/config/fastdds.xml)')
    yield from _shared_memory()
    yield Finding('ros2 launch', _has('launch_ros'),
                  'found' if _has('launch_ros') else 'launch_ros is not installed',
                  'launch files; comes with ROS 2 from apt only, the nodes run without it')


def _shared_memory() -> Iterator[Finding]:
    try:
        free = shutil.disk_usage('/dev/shm').free
    except OSError as error:
        yield Finding('shared memory', False, str(error), 'large images between processes')
        return
    yield Finding('shared memory', free >= SHARED_MEMORY,
                  f'{free / 2**20:.0f} MB free in /dev/shm',
                  'large images between processes; docker run --shm-size=1g')


def _openvino(args: argparse.Namespace) -> Iterator[Finding]:
    problem = _broken('openvino', 'openvino')
    yield Finding('OpenVINO', not problem, problem or _versions({'openvino': 'openvino'}),
                  'backend openvino, the fastest on a CPU; plans run on ONNX Runtime; '
                  'pip install --no-deps openvino')


def _gpu(args: argparse.Namespace) -> Iterator[Finding]:
    from egomotion_ros.runtimes.tensorrt import probe_gpu
    try:
        gpu = probe_gpu()
    except RuntimeError as error:
        gpu = None
        yield Finding('GPU', False, str(error), 'backend tensorrt; plans run on the CPU')
    else:
        yield Finding('GPU', True, f'{gpu.name}, compute capability {gpu.sm // 10}.{gpu.sm % 10}')
    names = {'tensorrt': 'tensorrt', 'tensorrt_rtx': 'tensorrt-rtx-cu13'}
    found = {module: name for module, name in names.items() if _has(module)}
    detail = _versions(found) or 'neither tensorrt nor tensorrt_rtx is installed'
    if found and gpu is None:
        detail += ' (without a GPU: builds engines, cannot run them)'
    yield Finding('TensorRT', bool(found), detail, 'backend tensorrt')


def _training(args: argparse.Namespace) -> Iterator[Finding]:
    absent = [name for module, name in TRAINING.items() if not _has(module)]
    yield Finding('training and export', not absent,
                  f'not installed: {", ".join(absent)}' if absent else _versions(TRAINING),
                  '`egomotion train`, `egomotion export`, backend torch; '
                  'pip install -r requirements/train.txt')


def _smplx(args: argparse.Namespace) -> Iterator[Finding]:
    disables = ('shapes of SMPL-X recordings (the mean pelvis is used); register at '
                'smpl-x.is.tue.mpg.de for the model files')
    if not _has('smplx'):
        yield Finding('SMPL-X', False, 'the package smplx is not installed', disables)
    elif args.smplx is None:
        yield Finding('SMPL-X', False, 'package found; no --smplx DIR given', disables)
    else:
        folder = args.smplx
        files = sorted(path.name for path in folder.rglob('SMPLX_NEUTRAL.*'))
        yield Finding('SMPL-X', bool(files),
                      f'{folder}: {", ".join(files) or "no SMPLX_NEUTRAL file"}', disables)


def _recordings(args: argparse.Namespace) -> Iterator[Finding]:
    for what, module, name, disables in (
            ('Aria recordings', 'projectaria_tools', 'projectaria-tools', '.vrs files'),
            ('video', 'av', 'av', "video files and the demo's film")):
        problem = _broken(module, name)
        yield Finding(what, not problem, problem or _versions({module: name}), disables)


CHECKS: tuple[Callable[[argparse.Namespace], Iterator[Finding]], ...] = (
    _python, _libraries, _bundle, _robots, _ros, _rendering, _recordings, _openvino, _gpu,
    _training, _smplx)


def _has(module: str) -> bool:
    """Whether ``module`` could be imported, without importing it (but for its parents)."""
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


def _broken(module: str, name: str) -> str:
    """Import ``module``; return why that fails, or an empty string."""
    try:
        import_module(module)
    except Exception as error:
        return f'{name}: {error}'
    return ''


def _versions(modules: dict[str, str]) -> str:
    words = []
    for module, name in modules.items():
        try:
            words.append(f'{name} {version(name)}')
        except PackageNotFoundError:
            # From apt, under another name.
            words.append(str(module))
    return ', '.join(words)


def _probe(command: list[str], **environment: str) -> tuple[bool, str]:
    """Run ``command`` in a process of its own; return whether it succeeded, and its last line."""
    try:
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True,
                              text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return False, f'no answer within {PATIENCE:.0f} s'
    lines = done.stderr.strip().splitlines() or [f'exit status {done.returncode}']
    return done.returncode == 0, lines[-1]
