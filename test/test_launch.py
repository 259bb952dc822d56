# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The launch files fit the nodes they start.

Launch comes with ROS 2 from apt only, so what can be checked without it is checked without it;
the rest runs the real ``ros2 launch`` where there is one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import time

import pytest

NAMES = ('bringup', 'simulation', 'camera_replay')


def tree(checkout: Path, name: str) -> ast.Module:
    """Parse one launch file."""
    return ast.parse((checkout / 'launch' / f'{name}.launch.py').read_text(encoding='utf-8'))


def arguments(checkout: Path, name: str) -> dict[str, tuple[str | None, str]]:
    """Return ARGUMENTS of a launch file: name -> (default, description)."""
    for node in tree(checkout, name).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == 'ARGUMENTS':
            return ast.literal_eval(node.value)
    raise AssertionError(f'{name}.launch.py has no ARGUMENTS')


def keywords(checkout: Path, name: str, keyword: str) -> list[ast.expr]:
    """Return what is passed as ``keyword`` to any call of a launch file."""
    return [entry.value for node in ast.walk(tree(checkout, name)) if isinstance(node, ast.Call)
            for entry in node.keywords if entry.arg == keyword]


def parameters(checkout: Path, name: str) -> set[str]:
    """Return the names of the node parameters that a launch file sets itself."""
    return {key.value for value in keywords(checkout, name, 'parameters')
            for entry in ast.walk(value) if isinstance(entry, ast.Dict) for key in entry.keys}


@pytest.mark.parametrize('name', NAMES)
def test_every_argument_is_used_and_every_use_is_declared(checkout: Path, name: str) -> None:
    text = (checkout / 'launch' / f'{name}.launch.py').read_text(encoding='utf-8')
    used = set(re.findall(r"value\('([a-z_]+)'\)", text))
    passed = re.search(r'passed_on = (\(.*?\))', text)
    used |= set(ast.literal_eval(passed[1])) if passed else set()
    # Its default is a path, known only where the package is installed.
    declared = set(arguments(checkout, name)) | ({'params_file'} if name == 'bringup' else set())
    assert used == declared


@pytest.mark.parametrize('name', ['simulation', 'camera_replay'])
def test_what_is_passed_to_bringup_is_an_argument_of_it(checkout: Path, name: str) -> None:
    passed = {node.value for value in keywords(checkout, name, 'launch_arguments')
              for entry in ast.walk(value) if isinstance(entry, ast.Dict)
              for node in entry.keys if node is not None}
    text = (checkout / 'launch' / f'{name}.launch.py').read_text(encoding='utf-8')
    passed |= set(ast.literal_eval(re.search(r'passed_on = (\(.*?\))', text)[1]))
    assert passed <= set(arguments(checkout, 'bringup'))


def test_bringup_sets_parameters_that_the_node_has(checkout: Path) -> None:
    from egomotion_ros.nodes.parameters import SPECS
    assert parameters(checkout, 'bringup') <= {spec.name for spec in SPECS} | {'use_sim_time'}


@pytest.mark.parametrize('name, module', [
    ('simulation', 'simulation_node'), ('camera_replay', 'camera_node')])
def test_launch_sets_parameters_that_the_node_declares(
        checkout: Path, name: str, module: str) -> None:
    source = (checkout / 'egomotion_ros' / 'nodes' / f'{module}.py').read_text(encoding='utf-8')
    declared = set(re.findall(r"declare\(\s*'([a-z_.]+)'", source))
    assert declared
    assert parameters(checkout, name) <= declared


def test_hardware_starts_without_output(checkout: Path) -> None:
    assert arguments(checkout, 'bringup')['output_enabled'][0] == 'false'
    assert arguments(checkout, 'camera_replay')['output_enabled'][0] == 'false'


# Where launch is there ------------------------------------------------------------------------
@contextmanager
def launched(*words: str) -> Iterator[subprocess.Popen]:
    """Run ``ros2 launch egomotion_ros WORDS``; end it as Ctrl-C does."""
    pytest.importorskip('launch_ros')
    ros2 = shutil.which('ros2')
    assert ros2, 'launch_ros is here, but not the command ros2'
    process = subprocess.Popen([ros2, 'launch', 'egomotion_ros', *words], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=40)
        assert process.returncode == 0, output
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def asking(service: type, name: str) -> Iterator:
    """Yield a function that sends a request to a service, waiting for both."""
    import rclpy

    from egomotion_ros.nodes.process import leave
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('launch_test', context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    client = node.create_client(service, name)

    def ask(request):
        assert client.wait_for_service(timeout_sec=40.0), f'no service {name}'
        future = client.call_async(request)
        executor.spin_until_future_complete(future, timeout_sec=20.0)
        assert future.done(), f'{name} does not answer'
        return future.result()

    try:
        yield ask
    finally:
        leave(executor, node)


def state_of(name: str, expected: str, patience: float = 60.0) -> str:
    """Return the lifecycle state of a node, at the latest when it is ``expected``."""
    from lifecycle_msgs.srv import GetState
    deadline = time.monotonic() + patience
    with asking(GetState, f'{name}/get_state') as ask:
        while True:
            label = ask(GetState.Request()).current_state.label
            if label == expected or time.monotonic() > deadline:
                return label


def test_simulation_comes_up_active(tiny_bundle: Path) -> None:
    with launched('simulation.launch.py', f'bundle:={tiny_bundle}', 'namespace:=/one'):
        assert state_of('/one/egomotion_node', 'active') == 'active'


def test_bringup_without_autostart_waits_and_holds_its_output(tiny_bundle: Path) -> None:
    from rcl_interfaces.srv import GetParameters
    with launched('bringup.launch.py', f'bundle:={tiny_bundle}', 'autostart:=false',
                  'namespace:=/two'):
        with asking(GetParameters, '/two/egomotion_node/get_parameters') as ask:
            answer = ask(GetParameters.Request(names=['output_enabled', 'backend']))
        assert answer.values[0].bool_value is False
        assert answer.values[1].string_value == 'auto'
        assert state_of('/two/egomotion_node', 'unconfigured') == 'unconfigured'


def test_camera_replay_comes_up_active(tiny_bundle: Path, tmp_path: Path) -> None:
    from PIL import Image
    for index in range(5):
        Image.new('RGB', (320, 240), (40 * index, 90, 120)).save(tmp_path / f'{index:03}.png')
    with launched('camera_replay.launch.py', f'bundle:={tiny_bundle}', f'path:={tmp_path}',
                  'horizontal_fov:=1.4', 'namespace:=/three'):
        assert state_of('/three/egomotion_node', 'active') == 'active'
