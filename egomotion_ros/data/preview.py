# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Look at a motion: a contact sheet of stick figures (PNG) or a video (MP4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.skeleton import FOOT_JOINTS, JOINT_NAMES, PARENTS
from egomotion_ros.types import HumanMotion

_COLORS = {'left': 'tab:red', 'right': 'tab:blue'}


def _bone_color(joint: int) -> str:
    return _COLORS.get(JOINT_NAMES[joint].split('_')[0], 'black')


def _positions(motion: HumanMotion) -> np.ndarray:
    return forward_kinematics(motion.root_position, motion.rotations, motion.scale)


def _draw(axes, joints: np.ndarray, contacts: np.ndarray, across: int, up: int = 2) -> None:
    """One figure, seen along the third axis: bones, and green dots at the feet in contact."""
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            ends = joints[[parent, joint]]
            axes.plot(ends[:, across], ends[:, up], color=_bone_color(joint), lw=1.4)
    for joint, contact in zip(FOOT_JOINTS, contacts):
        if contact > 0.5:
            axes.plot(joints[joint, across], joints[joint, up], 'o', color='tab:green', ms=3)


def save_picture(
    path: str | Path, motion: HumanMotion, title: str = '', figures: int = 16
) -> None:
    """
    Write a contact sheet: the path from above, then figures from the side and from the front.

    Every figure is centred on its pelvis and seen in its own start frame (red left, blue right).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    joints = _positions(motion)
    rows = np.unique(np.linspace(0, motion.frames - 1, figures).round().astype(int))
    sheet = Figure(figsize=(1.3 * len(rows), 7.5), dpi=90, layout='constrained')
    FigureCanvasAgg(sheet)
    grid = sheet.add_gridspec(3, len(rows))
    above = sheet.add_subplot(grid[0, :])
    above.plot(motion.root_position[:, 0], motion.root_position[:, 1], color='gray', lw=1)
    for row in rows:
        _draw(above, joints[row], motion.contacts[row], across=0, up=1)
    above.set_aspect('equal')
    above.set_title(f'{title}  {motion.frames / motion.fps:.1f} s, from above (m)', fontsize=9)
    for line, across in ((1, 0), (2, 1)):
        for column, row in enumerate(rows):
            axes = sheet.add_subplot(grid[line, column])
            centred = joints[row] - np.append(motion.root_position[row, :2], 0.0)
            _draw(axes, centred, motion.contacts[row], across)
            axes.axhline(0.0, color='gray', lw=0.6)
            axes.set(xlim=(-0.9, 0.9), ylim=(-0.1, 2.0), xticks=[], yticks=[])
            axes.set_aspect('equal')
            axes.set_title(f'{row / motion.fps:.2f} s', fontsize=7)
    sheet.savefig(path, format='png')


def save_video(path: str | Path, motion: HumanMotion, title: str = '', height: int = 480) -> None:
    """Write an MP4 at the motion's frame rate: from the side and from the front, side by side."""
    from fractions import Fraction

    import av
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    joints = _positions(motion)
    sheet = Figure(figsize=(2 * height / 100, height / 100), dpi=100)
    canvas = FigureCanvasAgg(sheet)
    views = [
        (sheet.add_axes((0.0, 0.0, 0.5, 0.95)), 0),
        (sheet.add_axes((0.5, 0.0, 0.5, 0.95)), 1),
    ]
    sheet.suptitle(title, fontsize=9)
    with av.open(str(path), 'w', format='mp4') as file:
        stream = file.add_stream('libx264', rate=Fraction(motion.fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = 2 * height, height, 'yuv420p'
        for row in tqdm(range(motion.frames), desc='video', unit='frame'):
            for axes, across in views:
                axes.clear()
                middle = motion.root_position[row, across]
                _draw(axes, joints[row], motion.contacts[row], across)
                axes.axhline(0.0, color='gray', lw=0.6)
                for tick in np.arange(np.floor(middle) - 2, middle + 2, 0.5):
                    axes.plot([tick, tick], [-0.03, 0.0], color='gray', lw=0.6)
                axes.set(xlim=(middle - 1.05, middle + 1.05), ylim=(-0.1, 2.0))
                axes.set_aspect('equal')
                axes.set_axis_off()
            canvas.draw()
            pixels = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
