# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of motion: reconstruction on held-out performances, and what the robot makes of it."""

from __future__ import annotations

from pathlib import Path
import time

import numpy as np

from egomotion_ros.retarget.limits import check
from egomotion_ros.retarget.quality import human_feet, robot_feet, self_collisions
from egomotion_ros.retarget.retargeter import Retargeter
from egomotion_ros.types import PLAN_FRAMES, HumanMotion


def evaluate_reconstruction(checkpoints: Path, library: Path, split: str) -> dict[str, object]:
    """
    MPJPE (mm, pelvis- and heading-aligned) of autoencoder and tokenizer on held-out takes.

    Needs torch, the checkpoints and a motion library.
    """
    from egomotion_ros.data.library import MotionLibrary
    from egomotion_ros.models.checkpoints import load_model
    from egomotion_ros.training.autoencoder import held_out_error
    from egomotion_ros.training.motions import held_out_windows
    takes = MotionLibrary.open(library)
    windows = held_out_windows(takes, split)
    if not windows:
        raise ValueError(f'{library}: no take of split {split!r}')
    performances = {take.performance for take in takes.takes(split=split)}
    return {'split': split, 'performances': len(performances), 'windows': len(windows),
            **{kind: held_out_error(load_model(checkpoints / kind, kind), windows)
               for kind in ('autoencoder', 'tokenizer')}}


def evaluate_robot(retargeter: Retargeter, motions: list[HumanMotion], scale: float
                   ) -> dict[str, object]:
    """
    Retarget human motions (scale 1) and count what must not happen.

    Limits are checked on the 1 kHz interpolated curve; foot slide is the UniEgoMotion measure, of
    the robot's soles and of the human motion at the robot's scale.
    """
    description = retargeter.description
    violations, collisions, milliseconds = 0, 0, []
    slides: list[tuple[float, float]] = []
    speeds: list[tuple[float, float]] = []
    for motion in motions:
        scaled = HumanMotion(motion.root_position * scale, motion.rotations, motion.contacts,
                             motion.fps, motion.frame_id, scale)
        began = time.perf_counter()
        robot = retargeter.retarget(scaled)
        milliseconds.append(1000 * (time.perf_counter() - began) * PLAN_FRAMES / motion.frames)
        violations += check(robot, description.limits).total
        collisions += self_collisions(description, robot)
        ours, theirs = robot_feet(description, robot), human_feet(scaled)
        slides.append((ours.slide, theirs.slide))
        speeds.append((ours.stance_speed, theirs.stance_speed))
    slide, speed = np.mean(slides, axis=0), np.mean(speeds, axis=0)
    return {'robot': description.name, 'motions': len(motions), 'limit violations': violations,
            'self-collision steps': collisions,
            'foot slide robot': float(slide[0]), 'foot slide human': float(slide[1]),
            'foot slide ratio': float(slide[0] / max(slide[1], 1e-6)),
            'stance speed robot m/s': float(speed[0]), 'stance speed human m/s': float(speed[1]),
            'ms per 150 frames p50': float(np.median(milliseconds))}
