# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
From a task to its plans, and from a plan to the motion that is played.

The planning thread calls in here, with what it has begun, finished or failed at; whoever holds
the lock decides whether that is still wanted, and how it joins what is under way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
import threading
from typing import TYPE_CHECKING

from egomotion_ros.body.edits import ground_pose
from egomotion_ros.msg import Status
from egomotion_ros.nodes.conversions import PlanInfo
from egomotion_ros.nodes.diagnostics import Health
from egomotion_ros.nodes.errors import ErrorCode, NodeError
from egomotion_ros.nodes.goals import Goal
from egomotion_ros.nodes.observer import Observer
from egomotion_ros.nodes.outputs import Outputs
from egomotion_ros.nodes.parameters import Parameters
from egomotion_ros.nodes.planning import Planned, PlanRequest, PlanWorker, Start
from egomotion_ros.nodes.player import Measured, Player, Playing
from egomotion_ros.nodes.status import StatusBoard
from egomotion_ros.pursuit import Pursuit
from egomotion_ros.retarget.beginning import MARGIN
from egomotion_ros.types import HumanMotion, PrimitivePlan

if TYPE_CHECKING:
    from egomotion_ros.nodes.lifecycle import ManagedNode
    from egomotion_ros.pipeline import EgoMotionPipeline

#: What is said where nothing was found, and where a plan is not followed.
NOWHERE = 'looked for it and did not find it'
NOTHING_NEW = 'the newest look changes nothing'
_STAGES = {
    'reason': Status.REASONING, 'generate': Status.GENERATING, 'retarget': Status.RETARGETING
}


@dataclass
class Task:
    """
    What was asked: ``goal`` None for the topic.

    ``next_plan`` (ns, ROS clock) when to plan again, None for never; ``published`` True once a
    whole plan of it was sent; ``plan_id`` and base ``tokens`` of its newest plan, ``first_ms``
    from its image to its first points where they were sent ahead of the rest, 0 elsewhere;
    ``given`` (ns) when it was asked; ``looks`` left, None for no end of them; ``pursuit`` where
    its plans have led so far, None before the first; ``followed`` plan and tokens of the newest
    one that something was published of.
    """

    instruction: str
    goal: Goal | None = None
    next_plan: int | None = None
    published: bool = False
    plan_id: str = ''
    tokens: tuple[int, ...] = ()
    given: int = 0
    first_ms: float = 0.0
    looks: int | None = None
    pursuit: Pursuit | None = None
    followed: tuple[str, tuple[int, ...]] = ('', ())


class Handover(ABC):
    """
    Holds the task and the motion; asks for plans and hands them over.

    The lock is held for milliseconds, never while a model runs, so that :meth:`halt` gets through
    at any time.
    """

    def __init__(
        self,
        node: ManagedNode,
        parameters: Parameters,
        pipeline: EgoMotionPipeline,
        observer: Observer,
        outputs: Outputs,
        health: Health,
        on_busy: Callable[[], None],
    ) -> None:
        """Take the parts; ``on_busy`` is called when :meth:`tick` is wanted from now on."""
        self._node, self._parameters, self._pipeline = node, parameters, pipeline
        self._observer, self._outputs, self._health = observer, outputs, health
        self._clock, self._log, self._on_busy = node.get_clock(), node.get_logger(), on_busy
        self._lock = threading.RLock()
        self._player = Player(pipeline.robot.limits, pipeline.robot.root_limits)
        observer.commanded = self._player.state
        self._task: Task | None = None
        self._info: PlanInfo | None = None
        self.status = StatusBoard(self._clock, outputs.status)
        # Seconds of the ROS clock, which may be a simulation's, from image to plan.
        self._latencies: deque[float] = deque(maxlen=3)
        self._worker = PlanWorker(
            pipeline,
            observer,
            self._start_of,
            self._on_stage,
            self._follows,
            self._first_of,
            self._on_planned,
            self._on_failed,
            lambda text: self._log.error(text),
            only_reasons=parameters['stages'] == 'reason',
        )

    @abstractmethod
    def halt(
        self, code: ErrorCode, text: str, at: int | None = None, is_fault: bool = False
    ) -> bool:
        """End the task and come to rest; see the controller."""

    # Plans are asked for ----------------------------------------------------------------------
    def _request(self, task: Task) -> None:
        p = self._parameters
        seed, guidance, steps, period = 0, p['guidance'], p['steps'], p['replan_period']
        if task.looks is not None:
            task.looks -= 1
            period = period if task.looks > 0 else 0.0
        if task.goal is not None:
            goal = task.goal.request
            seed, guidance, steps = goal.seed, goal.guidance or guidance, goal.steps or steps
        request = PlanRequest(
            task.instruction,
            seed,
            guidance or None,
            steps or None,
            candidates=p['candidates'] or None,
        )
        now = self._clock.now().nanoseconds
        task.next_plan = now + round(1e9 * period) if period > 0 else None
        self._submit(task, request)

    def _submit(self, task: Task, request: PlanRequest) -> None:
        task.plan_id, task.first_ms = request.plan_id, 0.0
        self.status.about(task.instruction, task.plan_id)
        self._worker.submit(request)

    # The planning thread calls ----------------------------------------------------------------
    def _start_of(self, stamp: int, measured: Measured | None) -> Start:
        """Where a plan of what was seen at ``stamp`` starts (called by the planning thread)."""
        with self._lock:
            if self._player.is_moving(max(stamp, self._clock.now().nanoseconds)):
                state = self._player.state(stamp)
                prefix = self._player.prefix(stamp, self._latency_budget())
                root = (state.root_position, state.root_quaternion)
                return Start(prefix, state.positions, state.velocities, root, continues=True)
        if measured is None:
            return Start()
        return Start(positions=measured.positions, root=measured.root)

    def _on_stage(
        self, request: PlanRequest, stage: str, primitives: PrimitivePlan | None
    ) -> None:
        with self._lock:
            if not self._is_wanted(request):
                return
            if primitives is not None:
                self._task.tokens = tuple(int(x) for x in primitives.tokens[:, 0])
            self.status.show(_STAGES[stage])

    def _follows(
        self, request: PlanRequest, primitives: PrimitivePlan, human: HumanMotion, start: Start
    ) -> bool:
        """Whether a motion goes where the instruction has led so far (the planning thread)."""
        with self._lock:
            task = self._task
            if not self._is_wanted(request):
                return True
            # What is only shown leads nowhere.
            if not self._parameters['goal_memory'] or self._is_held_back(task):
                task.pursuit = None
                return True
            pursuit = task.pursuit = task.pursuit or Pursuit(self._pipeline.scale)
            here, begins = primitives.root, None
            if start.prefix is not None:
                # Where it is meant to be: the motion to come is laid on that, not on what a robot
                # that lags behind measures.
                here = ground_pose(start.prefix, 0)
                begins = ground_pose(human, min(start.prefix.frames, human.frames) - 1)
            end = ground_pose(human, -1)
            follows = pursuit.follows(here, end, not start.continues, begins,
                                      primitives.target)
            if follows or not task.published:
                return True
            self._stay(task, start)
            return False

    def _stay(self, task: Task, start: Start) -> None:
        """Go on as before the newest plan, which is not followed."""
        pursuit = task.pursuit
        self._health.unfollowed += 1
        task.plan_id, task.tokens = task.followed
        self.status.about(task.instruction, task.plan_id)
        if start.continues or self._player.is_moving(self._clock.now().nanoseconds):
            # A look that came too early to count costs none.
            task.looks = None if task.looks is None else task.looks + 1
            self.status.show(Status.EXECUTING, text=NOTHING_NEW)
        elif task.goal is not None and (pursuit.is_lost or pursuit.is_there):
            self._complete()
        elif pursuit.is_lost:
            self.status.show(Status.HOLDING, ErrorCode.NOT_FOUND, NOWHERE)
        else:
            where = 'at rest where the instruction has led'
            self.status.show(Status.HOLDING, text=where if pursuit.is_there else NOTHING_NEW)

    def _on_planned(self, planned: Planned) -> None:
        with self._lock:
            task, now = self._task, self._clock.now().nanoseconds
            begun = self._player.begun(planned.request.plan_id)
            late = planned.is_too_late(begun, now, self._parameters['lead'])
            if not self._is_wanted(planned.request):
                # Replaced while it was begun: what moves goes on until the newer plan joins it.
                if begun is not None and self._player.is_moving(now) and task and not late:
                    playing = self._play(planned, True, now)
                    self._outputs.play(playing, replace(self._info, stamp=playing.start))
                return
            enabled = self._parameters['output_enabled']
            goal = task.goal
            held_back = self._is_held_back(task)
            if not held_back and late:
                self._complain(False, 'the plan took longer than it lasts; planning again')
                self._request(task)
                return
            if held_back:
                info = self._describe(planned, now)
                message = self._outputs.preview(planned, info)
            else:
                playing = self._play(planned, begun is not None, now)
                if playing is None:
                    return
                if task.pursuit is not None:
                    task.pursuit.commit()
                task.followed = task.plan_id, task.tokens
                info = self._info = self._describe(planned, playing.start)
                message = self._outputs.play(playing, info)
            latency = 1e-6 * (self._node.steady_clock.now().nanoseconds - planned.view.arrived)
            if planned.solved is not None:
                task.first_ms = latency
                return
            first = task.first_ms or latency
            primitives = self._outputs.explain(planned, info)
            task.published = True
            self._latencies.append(1e-9 * (now - planned.primitives.stamp))
            self._health.planned(first, latency, planned.milliseconds)
            self.status.times(first, latency, planned.milliseconds)
            if goal is not None:
                goal.result.plan_id, goal.result.seed = info.plan_id, info.seed
                goal.result.robot_motion, goal.result.primitives = message, primitives
                goal.result.reason_ms = planned.milliseconds['reason']
                goal.result.generate_ms = planned.milliseconds['generate']
                goal.result.retarget_ms = planned.milliseconds['retarget']
            moving = self._player.is_moving(now)
            self.status.show(
                Status.EXECUTING if moving else Status.IDLE,
                text='' if enabled else 'output disabled: shown on robot_motion_preview only',
            )
            if held_back and goal is not None:
                self._complete()

    def _first_of(self, request: PlanRequest, stamp: int, start: Start) -> float:
        """
        Seconds of a plan of what was seen at ``stamp`` to solve before it begins to move.

        0: all of them first.  Called by the planning thread.
        """
        p = self._parameters
        with self._lock:
            if p['first_part'] == 0.0 or not self._is_wanted(request):
                return 0.0
            if self._is_held_back(self._task):
                return 0.0
            gone = 0.0
            if start.continues:
                now = self._clock.now().nanoseconds
                gone = max(1e-9 * (now - stamp), 0.0) + p['lead']
            return gone + p['first_part'] + MARGIN

    def _is_held_back(self, task: Task) -> bool:
        """Return True where nothing may move: plans of ``task`` are for looking at."""
        shown_only = task.goal is not None and not task.goal.request.execute
        return shown_only or not self._parameters['output_enabled']

    def _play(self, planned: Planned, is_begun: bool, now: int) -> Playing | None:
        """Let the plan begin, or join what is under way; None where that can wait."""
        player, robot, human = self._player, planned.robot, planned.human
        seam = (self._parameters['lead'], self._parameters['blend'])
        if is_begun:
            return player.complete(robot, human, now, *seam)
        observed = planned.primitives.stamp if planned.continues else now
        joins = planned.continues or player.is_moving(now)
        if planned.solved is not None:
            name, since = planned.request.plan_id, observed if joins else None
            return player.open(name, robot, planned.solved, human, since, now, *seam)
        if joins:
            return player.follow(robot, human, observed, now, *seam)
        return player.begin(robot, human, now)

    def _on_failed(self, request: PlanRequest, error: NodeError) -> None:
        with self._lock:
            if self._is_wanted(request):
                self.halt(error.code, error.message, is_fault=True)

    def _is_wanted(self, request: PlanRequest) -> bool:
        """
        Return True where ``request`` is still the newest one of what is being done.

        It may have been replaced without being cancelled: while it was handed over.
        """
        task = self._task
        wanted = task is not None and task.plan_id == request.plan_id
        return wanted and not request.cancelled.is_set()

    def _complete(self) -> None:
        """Let the task end: its motion is over, or was held back, and no look is left."""
        task, self._task = self._task, None
        pursuit = task.pursuit
        if task.goal is not None and task.goal.request.looks > 1 and pursuit is not None \
                and pursuit.is_searching:
            self._health.failed(ErrorCode.NOT_FOUND, NOWHERE)
            self._complain(False, f'NOT_FOUND: {NOWHERE}')
            self.status.show(Status.HOLDING, ErrorCode.NOT_FOUND, NOWHERE)
            task.goal.finish(ErrorCode.NOT_FOUND, NOWHERE)
            return
        if task.goal is not None:
            task.goal.finish()
        if not self._player.is_moving(self._clock.now().nanoseconds):
            self.status.about('', '')
            self.status.show(Status.IDLE)

    # Small things -----------------------------------------------------------------------------
    def _complain(self, is_fault: bool, text: str) -> None:
        # rclpy ties one severity to one line of code.
        if is_fault:
            self._log.error(text)
        else:
            self._log.warning(text)

    def _latency_budget(self) -> float:
        """Seconds from an image until the plan made of it takes over, as far as can be told."""
        p = self._parameters
        return max(p['latency_budget'], max(self._latencies, default=0.0) + p['lead'])

    def _describe(self, planned: Planned, stamp: int) -> PlanInfo:
        return PlanInfo(
            plan_id=planned.request.plan_id,
            seed=planned.primitives.seed,
            bundle_hash=self._pipeline.bundle.hash,
            stamp=stamp,
            observation_stamp=planned.primitives.stamp,
            observation_root=planned.primitives.root,
            frame_id=self._parameters['odom.frame'],
            instruction_stamp=self._task.given,
        )
