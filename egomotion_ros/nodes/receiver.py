# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The eyes of a node that only generates: motion primitives from the node that reasons.

Whatever the network brings is checked here, in this order: a message at all, the bundle, shapes
and numbers, age and order.  What fails leaves as a :class:`NodeError` and changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from egomotion_ros.msg import MotionPrimitives
from egomotion_ros.nodes.conversions import (
    PlanInfo,
    plan_from_msg,
    primitives_from_msg,
    refuse_foreign,
)
from egomotion_ros.nodes.errors import ErrorCode, NodeError
from egomotion_ros.nodes.inputs import Channel, Inputs, Sample
from egomotion_ros.nodes.instructions import check_instruction
from egomotion_ros.nodes.observer import LATE_CLOCK, Observer, View, content
from egomotion_ros.nodes.parameters import Parameters
from egomotion_ros.nodes.player import Measured
from egomotion_ros.nodes.qos import profile
from egomotion_ros.nodes.robot_state import check_frame
from egomotion_ros.types import PrimitivePlan

if TYPE_CHECKING:
    from egomotion_ros.nodes.egomotion_node import EgoMotionNode
    from egomotion_ros.pipeline import EgoMotionPipeline

#: Plans whose names are kept, to know one that comes twice.
KEPT = 8
#: Longest name of a plan (characters).
MOST_NAME = 100
#: Two nodes that read the same odometry agree on where the robot was, to within (m).
MOST_APART = 0.5
#: Fastest way (m/s) that a robot goes while its odometry is not known.
FASTEST = 4.0


class Receiver(Observer):
    """Listens to ``motion_primitives`` instead of a camera, while the node is active."""

    def __init__(
        self, node: EgoMotionNode, parameters: Parameters, pipeline: EgoMotionPipeline
    ) -> None:
        super().__init__(node, parameters, pipeline)
        self._pipeline = pipeline
        self._steady = node.steady_clock
        self._primitives = Channel(node, MotionPrimitives, 'motion_primitives', profile('motion'))
        self._ears = Inputs(node, [self._primitives])
        self.channels = [*self.channels, self._primitives]
        self._seen: deque[str] = deque(maxlen=KEPT)
        #: Newest observation that was accepted, and since when its age counts (ns).
        self._newest = self._since = 0
        self._is_new = False

    def listen(self, receive: Callable[[Sample], None]) -> None:
        """
        Subscribe; ``receive`` is called with each message, by a thread of its own.

        Who waits for that thread (:meth:`deafen`, the age of the channel) must hold no lock that
        ``receive`` takes.
        """
        self._primitives.on_news = receive
        self._ears.open()

    def deafen(self) -> None:
        """Unsubscribe; ``receive`` is not called any more when this returns."""
        self._ears.close()

    def destroy(self) -> None:
        """Close for good."""
        self.deafen()
        super().destroy()

    def clear(self) -> None:
        """Forget everything that came, the order of the stamps too."""
        super().clear()
        self._newest, self._since = 0, self._clock.now().nanoseconds

    def excuse(self) -> None:
        """Let ages count from now on, after a jump of the clock; see :meth:`Channel.excuse`."""
        super().excuse()
        if self._is_new:
            self._since, self._is_new = self._clock.now().nanoseconds, False

    def lapse(self) -> NodeError | None:
        """Say for how long nothing new was heard; None where that is not too long."""
        age = 1e-9 * (self._clock.now().nanoseconds - max(self._newest, self._since))
        if age <= self._parameters['primitives.timeout']:
            return None
        return NodeError(
            ErrorCode.STALE_PRIMITIVES, f'no newer motion_primitives for {age:.2f} s'
        )

    def accept(self, sample: Sample) -> tuple[PrimitivePlan, PlanInfo]:
        """
        Read and check a message; what is returned may be turned into motion, see :meth:`keep`.

        Raises NodeError BAD_PRIMITIVES, FOREIGN_BUNDLE or STALE_PRIMITIVES.
        """
        channel, bad = self._primitives, ErrorCode.BAD_PRIMITIVES
        with content(channel, sample, bad):
            message = channel.read(sample)
        with content(channel, sample, ErrorCode.FOREIGN_BUNDLE):
            refuse_foreign(message.plan, self._pipeline.bundle.hash)
        with content(channel, sample, bad):
            plan, info = primitives_from_msg(message), plan_from_msg(message.plan)
            self._check(plan, info)
            try:
                plan = replace(plan, instruction=check_instruction(plan.instruction))
            except NodeError as error:
                raise ValueError(str(error)) from error
        # From here on the message is as old as what it tells of.
        sample.stamp = plan.stamp
        self.check_fresh(
            channel,
            sample,
            'observation of the primitives',
            self._parameters['primitives.max_age'],
            ErrorCode.STALE_PRIMITIVES,
        )
        # A newest one that lies in the future is from before the clock was set back.
        latest = self._clock.now().nanoseconds + round(1e9 * self._parameters['future_tolerance'])
        if plan.plan_id in self._seen or plan.stamp < self._newest <= latest:
            channel.refuse(sample, 'stamp')
            why = 'came already' if plan.plan_id in self._seen else 'is older than the one before'
            raise NodeError(ErrorCode.STALE_PRIMITIVES, f'plan {plan.plan_id!r} {why}')
        return plan, info

    def keep(self, plan: PrimitivePlan) -> None:
        """Note that ``plan`` counts: it must not come twice, and the next must be newer."""
        self._seen.append(plan.plan_id)
        self._newest, self._is_new = plan.stamp, True

    def place(
        self, plan: PrimitivePlan, unwanted: threading.Event
    ) -> tuple[View, PrimitivePlan]:
        """
        Measure the robot for a plan that another node reasoned; waits until ``unwanted`` is set.

        Without odometry the plan starts where the motion under way has brought the robot.  Raises
        NodeError for states that are required and missing, stale or bad, and BAD_PRIMITIVES where
        the robot was elsewhere.
        """
        p = self._parameters
        self._unwanted = unwanted
        self._patience_ends = time.monotonic() + LATE_CLOCK
        for channel, name in ((self.joint_states, 'joint_states'), (self.odom, 'odom')):
            # Where nothing moved, this was subscribed a moment ago, and no image is waited for.
            if p[f'{name}.required']:
                channel.wait(p['primitives.timeout'], unwanted)
        joints, base = self._joints(patient=True), self._base(plan.stamp, patient=True)
        if base is not None:
            here = self.stand(base, plan.stamp)[0]
            way = float(np.hypot(plan.root.x - here.x, plan.root.y - here.y))
            # Odometry that was listened to later only tells where the robot is by now.
            known = min((sample.stamp for sample in self.odom.all()), default=plan.stamp)
            unknown = max(1e-9 * (known - plan.stamp), 0.0)
            if way > MOST_APART + FASTEST * unknown:
                raise NodeError(
                    ErrorCode.BAD_PRIMITIVES,
                    f'what the primitives tell of was seen {way:.2f} m from where the robot was',
                )
        elif self.commanded(plan.stamp) is not None:
            plan = replace(plan, root=self.stand(None, plan.stamp)[0])
        measured = None if joints is None else Measured(*joints, base)
        age = max(self._clock.now().nanoseconds - plan.stamp, 0)
        return View(None, measured, self._steady.now().nanoseconds - age), plan

    def _check(self, plan: PrimitivePlan, info: PlanInfo) -> None:
        """Raise ValueError for primitives that no reasoner of this bundle can have made."""
        bundle = self._pipeline.bundle
        check_frame(info.frame_id, self._parameters['odom.frame'], 'motion_primitives')
        if not 0 < len(plan.plan_id) <= MOST_NAME:
            raise ValueError(f'plan_id: expected 1..{MOST_NAME} characters')
        if not plan.states.size:
            raise ValueError('states: there are none; the sender must run with stages: reason')
        if plan.tokens.shape != (bundle.windows, bundle.levels):
            raise ValueError(
                f'tokens: expected {bundle.windows} x {bundle.levels}, got {plan.tokens.shape}'
            )
        if not np.isfinite(plan.confidence).all():
            raise ValueError('confidence: expected finite numbers')
        if plan.tokens.max() >= bundle.codebook:
            raise ValueError(f'tokens: expected codes below {bundle.codebook}')
        if plan.layer != bundle.layer or plan.window_frames != bundle.window:
            raise ValueError(
                f'expected states of layer {bundle.layer} and windows of {bundle.window} frames, '
                f'got layer {plan.layer} and {plan.window_frames} frames'
            )
        if not plan.states_mask.any():
            raise ValueError('states_mask: no row is real')
        self._pipeline.check_primitives(plan)
