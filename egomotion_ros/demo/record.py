# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the demo keeps of a run, as plain data: pictures, states, answers, with their stamps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from egomotion_ros.data.scenes import SceneObject
from egomotion_ros.types import HumanMotion, RobotMotion


@dataclass(frozen=True)
class Sent:
    """A ``robot_motion`` as published: its first row is due at ``start`` (ns)."""

    motion: RobotMotion
    start: int
    plan_id: str
    hold: bool


@dataclass
class Attempt:
    """
    One instruction and what came of it.

    ``asked``, ``ended`` simulation time (ns); ``ending`` why it ended ('' = execution time over);
    ``tokens`` base codes; ``milliseconds`` by stage; ``goal`` (x, y, yaw) wanted in ``odom``,
    None where nothing can be judged; ``item`` what hands ``side`` are to touch, in human metres;
    ``error`` the node's refusal; ``action`` the kind of instruction, '' where the demo does not
    know it.
    """

    instruction: str
    asked: int
    ended: int = 0
    ending: str = ''
    error: str = ''
    action: str = ''
    plan_id: str = ''
    tokens: tuple[int, ...] = ()
    milliseconds: dict[str, float] = field(default_factory=dict)
    goal: np.ndarray | None = None
    item: SceneObject | None = None
    side: str = ''
    human: HumanMotion | None = None


@dataclass
class Visit:
    """
    One room and what happened in it.

    ``seed`` of the scene (-1: none); ``images`` [(stamp, (H, W, 3) uint8)]; ``states``
    [(stamp, positions (J,), root position (3,), quaternion (4,) xyzw)]; ``captions``
    [(stamp, state of the node)]; stamps in ns of simulation time.
    """

    seed: int
    attempts: list[Attempt] = field(default_factory=list)
    images: list[tuple[int, np.ndarray]] = field(default_factory=list)
    states: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    captions: list[tuple[int, str]] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)

    def at(self, stamp: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return positions, root position and quaternion recorded nearest to ``stamp``."""
        stamps = [state[0] for state in self.states]
        row = int(np.clip(np.searchsorted(stamps, stamp), 0, len(stamps) - 1))
        if row and abs(stamps[row - 1] - stamp) < abs(stamps[row] - stamp):
            row -= 1
        return self.states[row][1:]

    def executed(self, start: int, end: int, names: tuple[str, ...], fps: float) -> RobotMotion:
        """
        Return what the robot did between two stamps, ``fps`` rows a second.

        Contacts are those of the motion that was published last before each row.  Velocities
        and twists are left at zero: nothing here looks at them.
        """
        stamps = np.arange(start, end, 1e9 / fps)
        rows = [self.at(int(stamp)) for stamp in stamps] or [self.at(start)]
        contacts = np.array([self._contacts(int(stamp)) for stamp in stamps] or [(1.0, 1.0)])
        positions = np.array([row[0] for row in rows])
        return RobotMotion(
            names, 1.0 / fps, positions, np.zeros_like(positions),
            np.array([row[1] for row in rows]), np.array([row[2] for row in rows]),
            np.zeros((len(rows), 6)), contacts)

    def _contacts(self, stamp: int) -> np.ndarray:
        begun = [sent for sent in self.sent if sent.start <= stamp]
        if not begun:
            return np.ones(2)
        motion = begun[-1].motion
        row = round((stamp - begun[-1].start) * 1e-9 / motion.step_dt)
        return motion.contacts[min(row, motion.steps - 1)]
