# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The data that travels between the boxes of the package.

Every arrow of the pipeline is one frozen dataclass of this file.  Units are metres, radians,
seconds; world frames are Z up, X forward, Y left (REP-103); quaternions are ``xyzw`` (the order
of ``geometry_msgs``); stamps are integer nanoseconds.  Arrays are NumPy; nothing here needs
torch or ROS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

#: Frame rate of every human motion inside the package.
FPS = 30
#: Frames of one plan (5 s).
PLAN_FRAMES = 150
#: Frames one motion primitive (one token window, one latent) spans.
WINDOW = 8
#: Windows of one plan; the last one is padded by two frames.
PLAN_WINDOWS = 19


@dataclass(frozen=True)
class CameraIntrinsics:
    """
    Pinhole camera without distortion.

    ``width``, ``height`` in pixels, ``hfov`` horizontal field of view in radians; square pixels,
    principal point in the image centre.
    """

    width: int
    height: int
    hfov: float

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return 0.5 * self.width / float(np.tan(0.5 * self.hfov))


@dataclass(frozen=True)
class CameraPose:
    """
    Where the head camera is, relative to the ground point under the pelvis.

    ``height`` of the optical centre above the floor (m), ``pitch`` downwards (rad, positive looks
    at the floor), ``yaw`` of the optical axis relative to the pelvis heading (rad, positive left).
    """

    height: float
    pitch: float
    yaw: float = 0.0


@dataclass(frozen=True)
class PlanarPose:
    """Ground pose of the pelvis in ``odom``: ``x``, ``y`` (m) and heading ``yaw`` (rad)."""

    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0


@dataclass(frozen=True)
class Observation:
    """
    One look at the world, and what was asked.

    ``image`` (H, W, 3) uint8 RGB, already rectified to the bundle's canonical camera;
    ``stamp`` nanoseconds of the image; ``root`` the pelvis pose in ``odom`` at that stamp.
    """

    image: np.ndarray
    instruction: str
    stamp: int
    camera: CameraPose
    root: PlanarPose = field(default_factory=PlanarPose)


class Target(IntEnum):
    """Whether an instruction names a thing to look at; ``UNKNOWN`` where nothing tells."""

    UNKNOWN = 0
    NONE = 1
    NAMED = 2


@dataclass(frozen=True)
class PrimitivePlan:
    """
    What the reasoner answers.

    ``tokens`` (PLAN_WINDOWS, levels) int64 RVQ codes, ``confidence`` (PLAN_WINDOWS,) probability
    of the base code, ``states`` (N, D) float32 frozen hidden states of layer ``layer`` (prompt
    rows first, then one row per primitive), ``states_mask`` (N,) bool, True where a row is real;
    ``target`` says whether the instruction names a thing.
    """

    plan_id: str
    seed: int
    bundle_hash: str
    stamp: int
    root: PlanarPose
    instruction: str
    tokens: np.ndarray
    confidence: np.ndarray
    states: np.ndarray
    states_mask: np.ndarray
    layer: int
    window_frames: int = WINDOW
    fps: float = FPS
    target: Target = Target.UNKNOWN


@dataclass(frozen=True)
class HumanMotion:
    """
    Motion of the 22-joint SMPL-X body.

    ``root_position`` (T, 3) pelvis in the frame ``frame_id`` (m); ``rotations`` (T, 22, 3, 3)
    rotation matrices, joint 0 in ``frame_id``, the others relative to their parent;
    ``contacts`` (T, 4) in [0, 1] for left ankle, right ankle, left toe, right toe;
    ``scale`` of the skeleton's bones (1 = the package's own 1.7 m skeleton).
    """

    root_position: np.ndarray
    rotations: np.ndarray
    contacts: np.ndarray
    fps: float = FPS
    frame_id: str = 'odom'
    scale: float = 1.0

    @property
    def frames(self) -> int:
        """Count of frames T."""
        return len(self.root_position)


@dataclass(frozen=True)
class RobotMotion:
    """
    Full reference for a humanoid with a floating base.

    ``positions``, ``velocities`` (T, J) in the order of ``joint_names`` (rad, rad/s);
    ``root_position`` (T, 3) and ``root_quaternion`` (T, 4) xyzw of the robot's base link in
    ``frame_id``; ``root_twist`` (T, 6) linear then angular, expressed in ``frame_id``;
    ``contacts`` (T, 2) in [0, 1] for the left and right foot; ``step_dt`` seconds between rows.
    """

    joint_names: tuple[str, ...]
    step_dt: float
    positions: np.ndarray
    velocities: np.ndarray
    root_position: np.ndarray
    root_quaternion: np.ndarray
    root_twist: np.ndarray
    contacts: np.ndarray
    frame_id: str = 'odom'

    @property
    def steps(self) -> int:
        """Count of rows T."""
        return len(self.positions)

    @property
    def duration(self) -> float:
        """Seconds from the first to the last row."""
        return (self.steps - 1) * self.step_dt


@dataclass(frozen=True)
class Plan:
    """One answer of the pipeline, with the milliseconds each stage took."""

    primitives: PrimitivePlan
    human: HumanMotion
    robot: RobotMotion
    milliseconds: dict[str, float]
