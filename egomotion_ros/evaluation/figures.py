# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The figures that are to be reached, and the rows made of what was measured."""

from __future__ import annotations

from collections.abc import Mapping
import math
from pathlib import Path
from typing import Any

from egomotion_ros.evaluation.table import Goal, Row, absent, measured, rate

GOALS = 'Goals on held-out scenes: {action}, one image, one plan'
RECONSTRUCTION = 'Reconstruction of held-out performances'
ROBOT = 'Retargeting'
SPEED = 'Speed of the model graphs'
CAMERA_PATH = 'Node with a 1280x720 camera at 30 Hz'

#: Least share of reached goals by action, and how far it must stand above a score without looking
#: or without listening.
REACHED = {'walk_to': 0.45, 'stop_at': 0.45}
TIMES = 3.0

#: Most aligned error (mm) of autoencoder and tokenizer: of any bundle, under the protocol.
MPJPE = {False: (40.0, 60.0), True: (30.0, 50.0)}
#: Most bytes of all files of a bundle.
BUNDLE_BYTES = 40e6
ROBOT_FIGURES: dict[str, tuple[str, Goal | None]] = {
    'limit violations on the 1 kHz curve': ('', Goal('at most', 0.0)),
    'steps in self-collision': ('', None),
    'foot slide, robot to human motion': ('x', Goal('at most', 1.5)),
    'retargeting 150 frames, p50': ('ms', Goal('at most', 150.0)),
}
SPEED_FIGURES: dict[str, tuple[str, Goal | None]] = {
    'graphs of a plan, p50': ('ms', None),
    'the same modules in eager torch, one motion at a time, p50': ('ms', None),
    'eager torch to graphs': ('x', Goal('at least', 2.0)),
}
CAMERA_FIGURES: dict[str, tuple[str, Goal | None]] = {
    'newest image to first points published, p50': ('ms', Goal('at most', 200.0)),
    'newest image to motion published, p50': ('ms', Goal('at most', 400.0)),
    'newest image to motion published, p95': ('ms', Goal('at most', 700.0)),
    'frames delivered with an instruction standing': ('fps', Goal('at least', 29.0)),
    'CPU of the camera path': ('%', Goal('below', 0.25)),
    'CPU when idle': ('%', Goal('below', 0.03)),
    'memory, growth over the second half': ('MB', Goal('at most', 1.0)),
    'length of the measurement': ('min', Goal('at least', 10.0)),
}


def goal_rows(figures: Mapping[str, Any], action: str) -> list[Row]:
    """Rows of :func:`egomotion_ros.evaluation.scenes.evaluate_scenes`."""
    section = GOALS.format(action=action.replace('_', ' '))
    least = Goal('at least', REACHED[action]) if action in REACHED else None
    times = Goal('at least', TIMES) if action in REACHED else None
    told, blank, mixed = (figures[m] for m in ('told', 'image blanked', 'instruction shuffled'))
    rows = [
        rate(section, 'goal reached', told, least),
        rate(section, 'the same with the image blanked', blank),
        rate(section, 'the same with instructions shuffled among scenes', mixed),
        Row(section, 'reached, against the image blanked',
            told['reached'] / max(blank['reached'], 1.0 / blank['count']), 'x', times),
        Row(section, 'reached, against instructions shuffled',
            told['reached'] / max(mixed['reached'], 1.0 / mixed['count']), 'x', times),
        rate(section, 'the same motions scored against another object',
             figures['scored against another object']),
        rate(section, 'best constant motion', figures['best constant motion']),
        Row(section, 'distance from the goal, median', told['median_distance_m'], 'm'),
        Row(section, 'angle from the goal, median', told['median_angle_deg'], 'deg'),
        rate(section, 'at rest in the last frame', told, key='at_rest'),
    ]
    return rows


def reconstruction_rows(figures: Mapping[str, Any] | None, why: str = '',
                        strict: bool = False) -> list[Row]:
    """Rows of ``evaluate_reconstruction``, or why there are none; ``strict``: by the protocol."""
    wanted: dict[str, tuple[str, Goal | None]] = {}
    values: dict[str, float] = {}
    for key, unit, label in (('mpjpe_mm', 'mm', 'pelvis- and heading-aligned MPJPE'),
                             ('drift_m', 'm', 'drift of the path over 5 s')):
        for kind, bound in zip(('autoencoder', 'tokenizer'), MPJPE[strict], strict=True):
            goal = Goal('at most', bound) if key == 'mpjpe_mm' else None
            wanted[f'{kind}, {label}'] = (unit, goal)
            if figures is not None:
                values[f'{kind}, {label}'] = figures[kind][key]
    if figures is None:
        return absent(RECONSTRUCTION, wanted, why)
    return measured(RECONSTRUCTION, wanted, values,
                    f'{figures["performances"]} performances, {figures["windows"]} windows')


def size_row(folder: Path) -> Row:
    """Row of the size of all files of a bundle."""
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return Row('Bundle', 'size of all files', size / 1e6, 'MB',
               Goal('at most', BUNDLE_BYTES / 1e6))


def robot_rows(figures: Mapping[str, Any]) -> list[Row]:
    """Rows of ``evaluate_robot``."""
    values = [figures[key] for key in ('limit violations', 'self-collision steps',
                                       'foot slide ratio', 'ms per 150 frames p50')]
    return measured(ROBOT, ROBOT_FIGURES, dict(zip(ROBOT_FIGURES, values, strict=True)),
                    f'{figures["robot"]}, {figures["motions"]} plans')


def speed_rows(figures: Mapping[str, Any]) -> list[Row]:
    """Rows of :func:`egomotion_ros.evaluation.speed.measure`."""
    note = f'{figures["backend"]}, {figures["threads"]} threads, {figures["runs"]} rounds'
    graphs, torch, ratio = SPEED_FIGURES
    rows = [Row(SPEED, graphs, figures['graphs_p50_ms'], 'ms', note=note)]
    if figures['ratio'] is None:
        rest = {name: SPEED_FIGURES[name] for name in (torch, ratio)}
        return rows + absent(SPEED, rest, figures['why'])
    times = figures['ratio']
    return [*rows, Row(SPEED, torch, figures['torch_p50_ms'], 'ms', note=note),
            Row(SPEED, ratio, times['value'], *SPEED_FIGURES[ratio], (times['low'],
                                                                      times['high']), note)]


def camera_rows(report: Mapping[str, Any] | None, why: str = '') -> list[Row]:
    """Rows of :func:`egomotion_ros.evaluation.camera_path.measure`, or why there are none."""
    if report is None:
        return absent(CAMERA_PATH, CAMERA_FIGURES, why)
    soak = report['soak']
    values = (*(soak.get(name, math.nan)
                for name in ('first_p50_ms', 'latency_p50_ms', 'latency_p95_ms')),
              soak['frames_per_second'], report['camera_path']['cpu_percent'] / 100.0,
              report['idle']['cpu_percent'] / 100.0,
              soak['memory_last_mb'] - soak['memory_half_mb'], soak['minutes'])
    return measured(CAMERA_PATH, CAMERA_FIGURES, dict(zip(CAMERA_FIGURES, values, strict=True)),
                    f'{soak["plans"]} plans')
