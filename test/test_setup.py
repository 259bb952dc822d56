# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The package as it is installed: one package with its messages, honest pins, nothing heavy."""

from __future__ import annotations

import ast
from importlib.metadata import PackageNotFoundError, distribution, distributions
import os
from pathlib import Path
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile

import pytest

import egomotion_ros

INSTALLED = Path(egomotion_ros.__file__).parent
PINS = ('runtime', 'train', 'test', 'ros', 'nodeps', 'nodeps-test', 'constraints')
#: Distributions that carry the CUDA build of torch in.
CUDA = re.compile(r'^(nvidia|cuda|cupy|triton)')


def pins(checkout: Path, name: str) -> dict[str, str]:
    """Return distribution -> version of one requirements file; every line must be a pin."""
    found = {}
    for line in (checkout / 'requirements' / f'{name}.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            match = re.fullmatch(r'([A-Za-z0-9._-]+)(?:\[[a-z]+\])?==([A-Za-z0-9.]+)', line)
            assert match, f'{name}.txt: expected NAME==VERSION, got {line!r}'
            found[re.sub('[-_.]+', '-', match[1]).lower()] = match[2]
    return found


def needs(name: str) -> set[str]:
    """Return everything that ``name`` pulls in by its metadata, ``name`` included."""
    seen, waiting = set(), [name]
    while waiting:
        current = re.sub('[-_.]+', '-', waiting.pop()).lower()
        if current in seen:
            continue
        seen.add(current)
        try:
            requires = distribution(current).requires or []
        except PackageNotFoundError:
            continue
        waiting += [re.match(r'[A-Za-z0-9._-]+', requirement)[0]
                    for requirement in requires if 'extra ==' not in requirement]
    return seen


def declared(checkout: Path, *tags: str) -> set[str]:
    """Return the packages that package.xml names under ``tags``."""
    package = ElementTree.parse(checkout / 'package.xml').getroot()
    return {entry.text for tag in tags for entry in package.findall(tag)}


def imported(folder: Path) -> set[str]:
    """Return the top-level names that the Python files of ``folder`` import."""
    names = set()
    for path in folder.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split('.')[0])
    return names


@pytest.mark.smoke
def test_tests_see_the_installed_package_with_its_messages(checkout: Path) -> None:
    assert checkout / 'egomotion_ros' != INSTALLED
    assert (INSTALLED / 'msg' / '__init__.py').is_file()
    assert (INSTALLED / 'action' / '__init__.py').is_file()


@pytest.mark.parametrize('folder', ['.', 'egomotion_ros', 'test'])
def test_source_tree_does_not_shadow_the_messages(checkout: Path, folder: str) -> None:
    program = 'import egomotion_ros.msg, egomotion_ros.nodes; print(egomotion_ros.msg.RobotMotion)'
    done = subprocess.run([sys.executable, '-c', program], cwd=checkout / folder, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    assert 'RobotMotion' in done.stdout


def test_command_line_works_with_nothing_sourced(checkout: Path) -> None:
    script = checkout / '.venv' / 'bin' / 'egomotion'
    if not script.is_file():
        pytest.skip('no .venv: ROS 2 comes from apt here')
    bare = {'HOME': '/nonexistent', 'PATH': '/usr/bin:/bin'}
    done = subprocess.run([script, 'doctor', '--json'], cwd=checkout, text=True,
                          capture_output=True, env=bare)
    assert '"what": "messages",\n   "found": true' in done.stdout, done.stdout + done.stderr


def test_wrapper_keeps_ros_on_this_machine(checkout: Path) -> None:
    if not (checkout / '.venv').is_dir():
        pytest.skip('no .venv: ROS 2 comes from apt here')
    robot = {**os.environ, 'ROS_DOMAIN_ID': '0', 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET',
             'ROS_STATIC_PEERS': '192.168.0.1', 'ROS_LOCALHOST_ONLY': '0'}
    for name in ('EGOMOTION_DOMAIN_ID', 'EGOMOTION_DISCOVERY_RANGE'):
        robot.pop(name, None)

    def inside(environment: dict[str, str]) -> dict[str, str]:
        done = subprocess.run([checkout / 'scripts' / 'env', 'env'], env=environment, text=True,
                              capture_output=True, check=True)
        return dict(line.split('=', 1) for line in done.stdout.splitlines() if '=' in line)

    seen = inside(robot)
    assert 60 <= int(seen['ROS_DOMAIN_ID']) < 100
    assert seen['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    assert 'ROS_STATIC_PEERS' not in seen
    assert inside({**robot, 'EGOMOTION_DOMAIN_ID': '7'})['ROS_DOMAIN_ID'] == '7'


@pytest.mark.parametrize('name', ['egomotion_node', 'simulation_node', 'camera_node'])
def test_ros2_run_finds_the_executable(name: str) -> None:
    from ament_index_python.packages import get_package_prefix
    path = Path(get_package_prefix('egomotion_ros')) / 'lib' / 'egomotion_ros' / name
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith('#!/usr/bin/env python3')


def test_robots_mappings_and_bundles_are_installed(checkout: Path) -> None:
    for folder in ('robots', 'data/mappings', 'bundles'):
        source = checkout / 'egomotion_ros' / folder
        expected = {path.relative_to(source) for path in source.rglob('*') if path.is_file()}
        installed = INSTALLED / folder
        assert expected <= {path.relative_to(installed) for path in installed.rglob('*')}, folder


@pytest.mark.parametrize('name', PINS)
def test_every_requirement_is_pinned(checkout: Path, name: str) -> None:
    assert pins(checkout, name)


def test_this_environment_is_the_pinned_one(checkout: Path) -> None:
    if not (checkout / '.venv').is_dir():
        pytest.skip('no .venv: versions come from apt here')
    wrong = []
    for name in PINS:
        for package, version in pins(checkout, name).items():
            try:
                installed = distribution(package).version.split('+')[0]
            except PackageNotFoundError:
                installed = 'nothing'
            if installed != version:
                wrong.append(f'{name}.txt: {package}=={version}, installed {installed}')
    assert not wrong


def test_demo_needs_no_torch(checkout: Path) -> None:
    for name in ('runtime', 'ros'):
        for package in pins(checkout, name):
            heavy = {need for need in needs(package) if need == 'torch' or CUDA.match(need)}
            assert not heavy, f'{package} pulls in {heavy}'


def test_no_cuda_wheel_slipped_in() -> None:
    names = {entry.name.lower() for entry in distributions() if entry.name}
    assert not {name for name in names if CUDA.match(name)}
    import torch
    assert torch.version.cuda is None


def test_ros_names_carry_the_distribution(checkout: Path) -> None:
    names = [name for name in pins(checkout, 'ros') if name.startswith('ros-')]
    assert names
    assert all(name.startswith('ros-jazzy-') for name in names)


def test_package_xml_names_every_ros_package_the_nodes_import(checkout: Path) -> None:
    ros = {name for name in imported(checkout / 'egomotion_ros')
           if name.endswith(('_msgs', '_interfaces', '_srvs'))
           or name in ('rclpy', 'ament_index_python', 'rpyutils')}
    assert 'rclpy' in ros
    assert ros <= declared(checkout, 'depend', 'exec_depend')
    wheels = {name.removeprefix('ros-jazzy-').replace('-', '_') for name in pins(checkout, 'ros')}
    assert ros - {'ament_index_python'} <= wheels


def test_host_that_only_takes_the_messages_installs_nothing_heavy(checkout: Path) -> None:
    heavy = re.compile('torch|onnx|tensorrt|mujoco|opencv|scipy|transformers|cv_bridge')
    assert not [name for name in declared(checkout, 'depend', 'exec_depend', 'build_depend')
                if heavy.search(name)]


def test_versions_agree(checkout: Path) -> None:
    package = ElementTree.parse(checkout / 'package.xml').getroot()
    assert package.get('format') == '3'
    assert package.findtext('version') == egomotion_ros.__version__


def test_pip_install_gives_library_and_command_line_without_ros(
        checkout: Path, tmp_path: Path) -> None:
    source = tmp_path / 'source'
    source.mkdir()
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'requirements',
                 'egomotion_ros'):
        (source / name).symlink_to(checkout / name)
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation',
         '--no-index', '--wheel-dir', tmp_path, source],
        check=True, capture_output=True)
    (wheel,) = tmp_path.glob('egomotion_ros-*.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / 'site')
    assert 'egomotion_ros/robots/unitree_g1.yaml' in names
    assert any(name.startswith('egomotion_ros/data/mappings/') for name in names)
    assert not any(name.startswith('egomotion_ros/msg/') for name in names)
    # rclpy may not even be looked for.
    program = ('import sys; sys.modules["rclpy"] = None\n'
               'import egomotion_ros.pipeline, egomotion_ros.cli\n'
               'print(egomotion_ros.__file__)\n'
               'sys.exit(egomotion_ros.cli.main(["--help"]))')
    done = subprocess.run([sys.executable, '-c', program], text=True, capture_output=True,
                          env={**os.environ, 'PYTHONPATH': str(tmp_path / 'site')})
    assert str(tmp_path) in done.stdout, done.stderr
    assert 'doctor' in done.stdout


def test_pre_commit_runs_the_same_ruff_as_make_lint(checkout: Path) -> None:
    hooks = (checkout / '.pre-commit-config.yaml').read_text(encoding='utf-8')
    revision = re.search(r'ruff-pre-commit\n +rev: v([0-9.]+)\n', hooks)
    assert revision[1] == pins(checkout, 'test')['ruff']
