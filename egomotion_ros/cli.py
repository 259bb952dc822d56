# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The ``egomotion`` command: one verb per file of :mod:`egomotion_ros.commands`."""

from __future__ import annotations

import argparse
from importlib import import_module
import os
import sys

#: Verb -> what it does. A verb's module is imported only when the verb is called, so that
#: ``egomotion doctor`` works where torch or ROS are missing.
VERBS = {
    'demo': 'run simulation and node, follow instructions, write table, video and contact sheet',
    'generate': 'send one instruction to a running node and wait for the motion',
    'doctor': 'say what is installed, what is missing and what that disables',
    'data': 'fetch and import motion capture, make simulated egocentric episodes',
    'train': 'train one stage of the models, or all of them',
    'evaluate': 'score a bundle on held-out scenes and performances',
    'metrics': 'measure the motion of a bundle by published protocols and against recordings',
    'export': 'turn checkpoints into a bundle of ONNX graphs',
    'restore': 'turn a bundle back into checkpoints, to train on from them',
    'build': 'build TensorRT engines, or the int8 flavour, of a bundle',
    'verify': 'build, check parity and time a backend on this machine',
    'bench': 'time the parts of a bundle',
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not os.environ.get('DISPLAY'):
        # MuJoCo reads this when it is first imported; its own default needs a screen.
        os.environ.setdefault('MUJOCO_GL', 'egl')
    parser = argparse.ArgumentParser(
        prog='egomotion', description='Egocentric image + instruction -> humanoid motion.')
    verbs = parser.add_subparsers(dest='verb', required=True, metavar='VERB')
    wanted = next((word for word in argv if not word.startswith('-')), None)
    module = None
    for name, text in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        if name == wanted:
            module = import_module(f'egomotion_ros.commands.{name}')
            module.configure(verb)
    args = parser.parse_args(argv)
    try:
        return int(module.run(args) or 0)
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError) as error:
        print(f'egomotion {args.verb}: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
