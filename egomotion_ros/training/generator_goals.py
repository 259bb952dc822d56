# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where the generator's motions end, and whether that depends on what the reasoner says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from egomotion_ros.body.features import integrate_root
from egomotion_ros.data.episodes import EpisodeSet
from egomotion_ros.data.instructions import ACTIONS
from egomotion_ros.models.autoencoder import MotionAutoencoder
from egomotion_ros.types import PLAN_WINDOWS

#: After this many steps validation's walks must miss their goals by more with swapped conditions.
#: After 400 steps from random weights the least ratio ever seen was 2.7 (condition ablation in
#: docs/explanation/models-and-training.md), so a run that is merely young is not stopped.
GOALS_AFTER = 1000
#: Ratio of swapped to right, of loss and goal error, below which conditions are not used.
INSENSITIVE = 1.02
#: Fewer walks than this to validate with say nothing: their median is chance.
FEWEST_WALKS = 20


@torch.no_grad()
def validate_generator(network: torch.nn.Module, autoencoder: MotionAutoencoder,
                       episodes: EpisodeSet, rows: np.ndarray,
                       conditions: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Share of walks that end at their goal, and how far off, for every set of states; the aim."""
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(rows), PLAN_WINDOWS, autoencoder.config.channels,
                        generator=generator).to(device)
    goal = torch.from_numpy(np.asarray(episodes.goal[rows], np.float32)).to(device)
    action = torch.from_numpy(episodes.action[rows].astype(np.int64)).to(device)
    figures = {}
    for name, (states, mask) in conditions.items():
        answer = network.sample(noise, states.to(device), mask.to(device),
                                torch.zeros_like(noise), torch.zeros_like(noise[..., 0]))
        share, away = goal_share(end_pose(autoencoder.decode(answer)), goal, action)
        figures |= {f'{name}_within': share, f'{name}_metres': away}
    if network.aim is not None:
        told = network.aim(conditions['told'][0].to(device))
        pose = torch.cat([told[:, :2], torch.atan2(told[:, 2:3], told[:, 3:4])], dim=1)
        figures['aim_within'], figures['aim_metres'] = goal_share(pose, goal, action)
    return figures


def end_pose(features: Tensor) -> Tensor:
    """Pelvis x, y, heading (B, 3) in the start frame at the last frame of (B, T, 140)."""
    return torch.stack([part[:, -1] for part in integrate_root(features)], -1)


def goal_share(pose: Tensor, goal: Tensor, action: Tensor) -> tuple[float, float]:
    """Share of walks that end within 0.5 m and 20 degrees, and their median distance (m)."""
    walk = walks(action)
    away = (pose[walk, :2] - goal[walk, :2]).norm(dim=-1)
    turn = pose[walk, 2] - goal[walk, 2]
    turn = torch.atan2(turn.sin(), turn.cos()).abs()
    good = (away < 0.5) & (turn < np.radians(20))
    return good.float().mean().item(), away.median().item()


def walks(action: Tensor) -> Tensor:
    """Which actions (B,) walk to a goal, (B,) bool."""
    return (action == ACTIONS.index('walk_to')) | (action == ACTIONS.index('stop_at'))


def check_goals(figures: dict[str, float], count: int, step: int) -> None:
    """
    Raise ValueError when walks end as near to their goals with states of other questions.

    ``figures`` are those of :func:`validate_generator` after ``step`` steps, over ``count`` walks;
    before :data:`GOALS_AFTER` steps, or with too few walks, nothing is said.
    """
    told, swapped = figures['told_metres'], figures['swapped_metres']
    if step >= GOALS_AFTER and count >= FEWEST_WALKS and swapped < INSENSITIVE * told:
        raise ValueError(f'generator: after {step} steps walks end {told:.2f} m from their goals '
                         f'and with swapped conditions {swapped:.2f} m, less than {INSENSITIVE} '
                         'times as far; it does not use the reasoner')
