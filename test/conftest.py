# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What all tests share: they run against the installed package, never against the source folder.

``make test`` sets the environment (scripts/env).  A plain ``.venv/bin/pytest test/test_x.py`` does
for tests without ROS.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import importlib.util
import os
from pathlib import Path
from types import ModuleType

from fixtures_bundle import tiny_bundle, tiny_bundle_of_four
from fixtures_gait import gait_bank, gait_library
import pytest

__all__ = ['gait_bank', 'gait_library', 'tiny_bundle', 'tiny_bundle_of_four']

#: Root of the checkout; the folder test/ lies in.
ROOT = Path(__file__).resolve().parent.parent


#: Tests of processes that talk to each other over DDS against the clock on the wall.
LIVE = ('test_node_', 'test_camera_node', 'test_simulation_node', 'test_demo')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Give live tests one more try, which the summary tells.

    A shared machine may stand still for a second, which no patience of a test about impatience can
    tell from a fault; a fault fails twice.
    """
    for item in items:
        if item.path.name.startswith(LIVE):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope='session', autouse=True)
def one_table_of_translations() -> None:
    """Let torch read its table of ONNX translations once, not for each of the many graphs."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # no torch, or one that keeps it elsewhere: exports take longer
        return
    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))


def pytest_report_header() -> list[str]:
    """Say which package and which ROS environment the tests see."""
    import egomotion_ros
    return [
        f'egomotion_ros: {Path(egomotion_ros.__file__).parent}',
        'ROS domain {}, discovery {}, MUJOCO_GL {}'.format(
            os.environ.get('ROS_DOMAIN_ID', 'unset'),
            os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE', 'unset'),
            os.environ.get('MUJOCO_GL', 'unset')),
    ]


@pytest.fixture(scope='session')
def checkout() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope='session')
def benchmark_script() -> Callable[[str], ModuleType]:
    """Give a function that loads a script of ``benchmarks/`` as a module."""
    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, ROOT / 'benchmarks' / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return load
