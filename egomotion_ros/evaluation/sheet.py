# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Contact sheet of an evaluation: pictures, instructions, and paths seen from above."""

from __future__ import annotations

from pathlib import Path
import textwrap

from matplotlib.figure import Figure
import numpy as np

from egomotion_ros.body.features import heading
from egomotion_ros.data.scenes import COLOURS, OBJECT_COLUMNS
from egomotion_ros.evaluation.scenes import Question
from egomotion_ros.types import HumanMotion


def draw_sheet(questions: list[Question], motions: list[HumanMotion], path: Path,
               count: int = 12, seed: int = 0) -> None:
    """Draw ``count`` questions, chosen by ``seed`` and not by hand, to a PNG."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(questions))[:count])
    rows = (len(chosen) + 3) // 4
    figure = Figure(figsize=(16, 3.0 * rows), layout='constrained')
    grid = figure.subplots(rows, 8, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for n, index in enumerate(chosen):
        question, motion = questions[index], motions[index]
        picture, above = grid[n // 4][2 * (n % 4)], grid[n // 4][2 * (n % 4) + 1]
        picture.imshow(question.image)
        score = question.score(motion)
        picture.set_title(textwrap.fill(question.instruction, 26), fontsize=9)
        _draw_path(above, question, motion)
        above.set_title(f'{"reached" if score.reached else "missed"}: {score.distance:.2f} m, '
                        f'{np.degrees(score.angle):.0f} deg', fontsize=9,
                        color='tab:green' if score.reached else 'tab:red')
    figure.savefig(path, dpi=80, format='png')


def _draw_path(axes: object, question: Question, motion: HumanMotion) -> None:
    column = {name: k for k, name in enumerate(OBJECT_COLUMNS)}
    colours = list(COLOURS.values())
    for row in question.objects[question.objects[:, column['valid']] > 0]:
        x = row[column['distance']] * np.cos(row[column['bearing']])
        y = row[column['distance']] * np.sin(row[column['bearing']])
        axes.scatter(-y, x, s=80, color=colours[int(row[column['colour']])], edgecolor='gray')
    goal = question.goal
    axes.add_patch(_circle(-goal[1], goal[0]))
    axes.plot(-motion.root_position[:, 1], motion.root_position[:, 0], color='black')
    end, yaw = motion.root_position[-1], float(heading(motion.rotations[-1, 0]))
    axes.arrow(-end[1], end[0], -0.35 * np.sin(yaw), 0.35 * np.cos(yaw), head_width=0.12,
               color='black')
    # What is ahead of the start, and the goal where it is elsewhere.
    axes.set_xlim(min(-3, -goal[1] - 1), max(3, -goal[1] + 1))
    axes.set_ylim(min(-0.5, goal[0] - 1), max(5, goal[0] + 1))
    axes.set_aspect('equal')


def _circle(x: float, y: float) -> object:
    from matplotlib.patches import Circle
    return Circle((x, y), 0.5, fill=False, color='tab:green', linestyle='--')
