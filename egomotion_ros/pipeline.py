# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Observe -> reason -> generate -> retarget, on any runtime, without ROS and without torch.

A robot whose skeleton is ``k`` times the human one sees a world 1/k times larger in human units:
the camera height is divided by k, motion is generated in human units, and root positions are
multiplied by k.  Everything that goes in and comes out is in the robot's metres, in ``odom``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
import time
from typing import TYPE_CHECKING
import uuid

import numpy as np

from egomotion_ros.aim import Aim
from egomotion_ros.body.edits import ground_pose
from egomotion_ros.body.features import (
    check_motion,
    features_to_motion,
    last_frame,
    motion_to_features,
)
from egomotion_ros.bundle import (
    MAX_CANDIDATES,
    MAX_GUIDANCE,
    MAX_STEPS,
    STAGE_GRAPHS,
    Bundle,
)
from egomotion_ros.runtimes.base import Runtime, is_proven, open_runtime
from egomotion_ros.runtimes.loops import (
    PromptMemory,
    TimeMemory,
    both_ways,
    decode_primitives,
    sample_candidates,
)
from egomotion_ros.text import TextEncoder, clean_instruction
from egomotion_ros.types import (
    CameraIntrinsics,
    CameraPose,
    HumanMotion,
    Observation,
    Plan,
    PlanarPose,
    PrimitivePlan,
    RobotMotion,
)

if TYPE_CHECKING:
    from egomotion_ros.retarget.retargeter import Retargeter

#: What a generated motion may do, in human metres; beyond it is a fault, not a motion.
PELVIS_HEIGHT = (0.1, 1.6)
MAX_ROOT_SPEED = 6.0
MAX_YAW_RATE = 15.0


class EgoMotionPipeline:
    """
    One bundle on one runtime for one robot.

    ``bundle`` (its ``hash`` names the models), ``camera`` the intrinsics images must have,
    ``backend`` the runtime's name, ``fallback_reason`` why it is not a faster one, ``robot`` the
    robot's description, ``joint_names`` its joints, ``scale`` its k.  One thread at a time.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime, retargeter: Retargeter) -> None:
        """Take opened parts; ValueError when bundle and text tokenizer do not fit."""
        self.bundle = bundle
        self.camera: CameraIntrinsics = bundle.camera
        self.backend = runtime.name
        self.fallback_reason = runtime.fallback_reason
        self.robot = retargeter.description
        self.joint_names: tuple[str, ...] = tuple(self.robot.joint_names)
        self.scale = float(self.robot.scale)
        self._runtime = runtime
        self._memory, self._times = PromptMemory(), TimeMemory()
        self._retargeter = retargeter
        self._text = TextEncoder.open(bundle.text_path, bundle.text_length)
        if self._text.size != bundle.text_size:
            raise ValueError(f'{bundle.text_path}: {self._text.size} tokens, the manifest says '
                             f'{bundle.text_size}')

    @staticmethod
    def load(bundle_dir: str | Path | None = None, robot: str | Path = 'unitree_g1',
             backend: str = 'onnxruntime', threads: int = 2,
             stages: str = 'all') -> EgoMotionPipeline:
        """
        Open a bundle (``None``: the default that ships) for a robot (a name or a YAML file).

        With ``stages`` ``'reason'`` or ``'generate'`` only the graphs of that half are loaded,
        except on a GPU, whose backends are proven by whole plans.

        Raises ValueError for a bad bundle, robot, backend name or thread count, RuntimeError when
        the backend cannot run on this machine.
        """
        from egomotion_ros.retarget.description import RobotDescription
        from egomotion_ros.retarget.retargeter import Retargeter
        bundle = Bundle.open(bundle_dir)
        retargeter = Retargeter(RobotDescription.load(robot))
        loaded = bundle
        if backend != 'auto' and not is_proven(backend):
            loaded = replace(bundle, graphs={name: graph for name, graph in bundle.graphs.items()
                                             if name in STAGE_GRAPHS[stages]})
        return EgoMotionPipeline(bundle, open_runtime(backend, loaded, threads), retargeter)

    def warm_up(self) -> None:
        """Run every graph as a plan does, so that the first plan is as fast as the next."""
        bundle, blank = self.bundle, {
            name: {item.name: np.zeros(item.shape, item.dtype) for item in spec.inputs}
            for name, spec in self._runtime.specs.items()}
        for name, arrays in blank.items():
            self._runtime.run(name, **arrays)
        # The loops hand arrays from graph to graph, which a device sets up apart.
        if 'prefill' in blank:
            prompt = {name: blank['prefill'][name][0] for name in ('text', 'text_mask', 'camera')}
            decode_primitives(self._runtime, bundle, blank['vision']['image'][0], seed=0, **prompt)
        if 'condition' in blank:
            states, mask = (blank['condition'][name][0] for name in ('states', 'mask'))
            sample_candidates(self._runtime, bundle, states, mask,
                              np.zeros((0, bundle.channels), np.float32), 0, bundle.steps,
                              bundle.guidance, both_ways(bundle.batch), self._times)

    def reason(self, observation: Observation, plan_id: str, seed: int) -> PrimitivePlan:
        """
        Answer an observation in motion primitives.

        Raises ValueError for an image that is not (height, width, 3) uint8 of the bundle's camera,
        an implausible camera pose, or an empty instruction; InstructionTooLongError for one that
        does not fit the prompt.
        """
        camera = self.camera
        image = np.asarray(observation.image)
        if image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
            raise ValueError(f'the image must be uint8 ({camera.height}, {camera.width}, 3), '
                             f'got {image.dtype} {image.shape}')
        pose = _camera_array(observation.camera, self.scale)
        text, text_mask = self._text.encode(observation.instruction)
        decoded = decode_primitives(self._runtime, self.bundle, np.ascontiguousarray(image), text,
                                    text_mask, pose, seed, self._memory)
        if not np.isfinite(decoded.states).all():
            raise ValueError('the reasoner answered with states that are not finite')
        return PrimitivePlan(
            plan_id=plan_id, seed=seed, bundle_hash=self.bundle.hash, stamp=observation.stamp,
            root=observation.root, instruction=clean_instruction(observation.instruction),
            tokens=decoded.tokens, confidence=decoded.confidence, states=decoded.states,
            states_mask=decoded.mask, layer=self.bundle.layer, window_frames=self.bundle.window,
            fps=self.bundle.fps, target=decoded.target)

    def generate(self, primitives: PrimitivePlan, prefix: HumanMotion | None = None,
                 seed: int | None = None, guidance: float | None = None,
                 steps: int | None = None, candidates: int | None = None) -> HumanMotion:
        """
        Turn primitives into ``bundle.frames`` frames of motion in ``odom``, at the robot's scale.

        ``prefix`` holds the frames that were executed since the image stamp, in ``odom`` and at
        the robot's scale; its whole windows are kept (in-painting), and the new motion is placed
        so that it meets the last of them.  ``seed`` defaults to the plan's, ``guidance``,
        ``steps`` and ``candidates`` to the bundle's.  Of several candidates the plausible one
        that ends nearest to where the states tell is taken, or one that searches
        (:mod:`egomotion_ros.aim`).

        Raises ValueError for primitives of another bundle, a prefix that does not fit, values out
        of range, or when no candidate is plausible (the caller then holds).
        """
        seed = primitives.seed if seed is None else seed
        guidance = self.bundle.guidance if guidance is None else guidance
        steps = self.bundle.steps if steps is None else steps
        if not 0 <= guidance <= MAX_GUIDANCE:
            raise ValueError(f'guidance must be between 0 and {MAX_GUIDANCE:g}, got {guidance}')
        if not 1 <= steps <= MAX_STEPS:
            raise ValueError(f'steps must be between 1 and {MAX_STEPS}, got {steps}')
        candidates = self.bundle.candidates if candidates is None else candidates
        if not 1 <= candidates <= (MAX_CANDIDATES if self.bundle.aims else 1):
            raise ValueError(f'candidates must be between 1 and {MAX_CANDIDATES}, and 1 for a '
                             f'bundle that does not say where a motion ends; got {candidates}')
        self.check_primitives(primitives)
        known = self._encode_prefix(prefix)
        drawn, told = sample_candidates(self._runtime, self.bundle, primitives.states,
                                        primitives.states_mask, known, seed, steps, guidance,
                                        candidates, self._times)
        features = self._choose(drawn, told)
        start = primitives.root
        if prefix is not None:
            start = _meet(features, prefix, max(len(known) * self.bundle.window - 1, 0),
                          self.bundle.fps, self.scale)
        return features_to_motion(features, start, 'odom', self.bundle.fps, self.scale)

    def retarget(self, human: HumanMotion, joint_positions: np.ndarray | None = None,
                 root: tuple[np.ndarray, np.ndarray] | None = None,
                 joint_velocities: np.ndarray | None = None, first: float = 0.0,
                 on_first: Callable[[RobotMotion], None] | None = None) -> RobotMotion:
        """
        Fit a motion to the robot; arguments and errors as ``Retargeter.retarget``.

        ``joint_positions``, ``joint_velocities`` (J,) in the order of ``joint_names`` and
        ``root``, position (3,) and quaternion (4,) xyzw of the base in ``odom``, are the state
        the first waypoint starts from; ``None`` starts where the motion starts.  ``on_first``
        gets the rows up to ``first`` seconds, braked to rest, before the last are solved.
        """
        return self._retargeter.retarget(human, joint_positions, root, joint_velocities, first,
                                         on_first)

    def plan(self, observation: Observation, joint_positions: np.ndarray | None = None,
             prefix: HumanMotion | None = None, seed: int = 0, guidance: float | None = None,
             steps: int | None = None, plan_id: str | None = None,
             root: tuple[np.ndarray, np.ndarray] | None = None,
             joint_velocities: np.ndarray | None = None, candidates: int | None = None) -> Plan:
        """
        Do all of it; ``milliseconds`` tells reason, generate and retarget apart.

        Raises what :meth:`reason`, :meth:`generate` and :meth:`retarget` raise.
        """
        marks = [time.perf_counter()]
        primitives = self.reason(observation, plan_id or uuid.uuid4().hex, seed)
        marks.append(time.perf_counter())
        human = self.generate(primitives, prefix, seed, guidance, steps, candidates)
        marks.append(time.perf_counter())
        robot = self.retarget(human, joint_positions, root, joint_velocities)
        marks.append(time.perf_counter())
        spent = 1000.0 * np.diff(marks)
        return Plan(primitives, human, robot, dict(zip(
            ('reason', 'generate', 'retarget'), map(float, spent), strict=True)))

    def close(self) -> None:
        """Free the models; afterwards the pipeline only raises."""
        self._runtime.close()

    def check_primitives(self, primitives: PrimitivePlan) -> None:
        """Raise ValueError for primitives that this bundle's generator cannot take."""
        if primitives.bundle_hash != self.bundle.hash:
            raise ValueError(f'the primitives come from bundle {primitives.bundle_hash[:12]}, '
                             f'this one is {self.bundle.hash[:12]}')
        rows, width = self.bundle.graphs['condition'].inputs[0].shape[1:]
        if primitives.states.shape != (rows, width) or primitives.states_mask.shape != (rows,) \
                or primitives.states_mask.dtype != bool:
            raise ValueError(f'states must be ({rows}, {width}) with a bool mask, got '
                             f'{primitives.states.shape} and {primitives.states_mask.shape}')
        if not np.isfinite(primitives.states).all():
            raise ValueError('the states of the primitives are not finite')

    def _choose(self, drawn: list[np.ndarray], told: np.ndarray | None) -> np.ndarray:
        """Features (frames, F) of the plausible candidate that :meth:`Aim.choose` takes."""
        plausible = []
        for n, latents in enumerate(drawn):
            features = self._runtime.run('decode_motion', latents=latents[None])['features'][0]
            features = features[:self.bundle.frames]
            try:
                check_plausible(features, self.bundle.fps)
            except ValueError:
                if not plausible and n == len(drawn) - 1:
                    raise
                continue
            plausible.append(features)
        if told is None or len(plausible) == 1:
            return plausible[0]
        ends = [last_frame(features, self.bundle.fps) for features in plausible]
        return plausible[Aim.read(told).choose(ends)]

    def _encode_prefix(self, prefix: HumanMotion | None) -> np.ndarray:
        """Latents (K, channels) of the whole windows of a prefix."""
        bundle = self.bundle
        if prefix is None:
            return np.zeros((0, bundle.channels), np.float32)
        check_motion(prefix)
        if abs(prefix.scale - self.scale) > 1e-3 * self.scale or prefix.fps != bundle.fps:
            raise ValueError(f'the prefix must have scale {self.scale:.3f} and {bundle.fps} fps, '
                             f'got {prefix.scale:.3f} and {prefix.fps:g}')
        windows = min(prefix.frames // bundle.window, bundle.windows - 1)
        if windows == 0:
            return np.zeros((0, bundle.channels), np.float32)
        frames = windows * bundle.window
        features = motion_to_features(prefix)[:frames]
        # The encoder is causal: what follows the prefix does not matter, only that it is there.
        padded = np.concatenate([
            features, np.repeat(features[-1:], bundle.windows * bundle.window - frames, axis=0)])
        latents = self._runtime.run('encode', features=padded[None].astype(np.float32))
        return latents['latents'][0, :windows]


class CameraPoseError(ValueError):
    """A camera is where no standing body's can be, or looks far to the side or over it."""


def _camera_array(camera: CameraPose, scale: float) -> np.ndarray:
    """Camera pose (3,) float32 in human units."""
    pose = np.array([camera.height / scale, camera.pitch, camera.yaw])
    if not np.isfinite(pose).all() or not 0.2 <= pose[0] <= 4.0 or np.abs(pose[1:]).max() > 1.6:
        raise CameraPoseError(
            'camera pose: expected a height of 0.2 to 4 body-scaled metres and angles within 1.6 '
            f'rad, got height {camera.height}, pitch {camera.pitch}, yaw {camera.yaw}')
    return pose.astype(np.float32)


def check_plausible(features: np.ndarray, fps: float) -> None:
    """
    Raise ValueError when motion features (T, 140) cannot be a body's motion.

    Checked, in human metres: all finite, pelvis height, root speed, yaw rate.
    """
    if not np.isfinite(features).all():
        raise ValueError('the generated motion is not finite')
    speed = float(np.linalg.norm(features[:, 1:3], axis=1).max())
    fall = float(np.abs(np.diff(features[:, 3])).max(initial=0.0) * fps)
    rate = float(np.abs(features[:, 0]).max())
    low, high = float(features[:, 3].min()), float(features[:, 3].max())
    if low < PELVIS_HEIGHT[0] or high > PELVIS_HEIGHT[1]:
        raise ValueError(f'the generated motion has the pelvis between {low:.2f} and {high:.2f} '
                         f'm, plausible is {PELVIS_HEIGHT[0]} to {PELVIS_HEIGHT[1]}')
    if max(speed, fall) > MAX_ROOT_SPEED or rate > MAX_YAW_RATE:
        raise ValueError(f'the generated motion moves at {max(speed, fall):.1f} m/s and turns at '
                         f'{rate:.1f} rad/s, plausible is up to {MAX_ROOT_SPEED:g} and '
                         f'{MAX_YAW_RATE:g}')


def _meet(features: np.ndarray, prefix: HumanMotion, frame: int, fps: float,
          scale: float) -> PlanarPose:
    """Start pose for which the motion stands where the prefix stands at ``frame``."""
    here = ground_pose(features_to_motion(features, None, 'odom', fps, scale), frame)
    there = ground_pose(prefix, frame)
    yaw = there.yaw - here.yaw
    c, s = np.cos(yaw), np.sin(yaw)
    return PlanarPose(there.x - float(c * here.x - s * here.y),
                      there.y - float(s * here.x + c * here.y), float(yaw))
