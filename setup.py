# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The library and the command line for hosts without ROS (training, export, evaluation).

With ROS, build with colcon instead: only that makes the messages (docs/how-to/install.md).
"""

from pathlib import Path
import re

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def requirements(name: str) -> list[str]:
    """Lower bounds from the pins of ``requirements/<name>.txt``."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line.replace('==', '>=') for line in lines if line and not line.startswith('#')]


version = re.search(
    r"__version__ = '(.+)'", (ROOT / 'egomotion_ros' / '__init__.py').read_text(encoding='utf-8'))

setup(
    name='egomotion_ros',
    version=version.group(1),
    description='Egocentric image + instruction -> whole-body humanoid motion',
    license='Apache-2.0',
    python_requires='>=3.11,<3.13',
    packages=find_packages(include=['egomotion_ros', 'egomotion_ros.*']),
    package_data={'egomotion_ros': ['bundles/**/*', 'robots/*', 'data/mappings/*']},
    install_requires=requirements('runtime'),
    extras_require={'train': requirements('train')},
    entry_points={'console_scripts': ['egomotion = egomotion_ros.cli:main']},
    zip_safe=False,
)
