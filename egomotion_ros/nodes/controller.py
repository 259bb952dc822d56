# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What the robot shall do, what is being done about it, and when that must end.

The controller owns the state: the task (a goal, or a standing instruction), the plan being made
and the motion being played.  Its lock is held for milliseconds, never while a model runs, so that
``stop`` gets through at any time.  Failures of whatever kind end in :meth:`Controller.halt`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
import threading
from typing import TYPE_CHECKING

from egomotion_ros.msg import Status
from egomotion_ros.nodes.conversions import PlanInfo
from egomotion_ros.nodes.diagnostics import Health
from egomotion_ros.nodes.errors import ErrorCode, NodeError
from egomotion_ros.nodes.goals import Goal
from egomotion_ros.nodes.instructions import check_instruction, check_numbers
from egomotion_ros.nodes.observer import Observer
from egomotion_ros.nodes.outputs import Outputs
from egomotion_ros.nodes.parameters import Parameters
from egomotion_ros.nodes.planning import Planned, PlanRequest, PlanWorker, Start
from egomotion_ros.nodes.player import Measured, Player, Playing
from egomotion_ros.nodes.status import StatusBoard
from egomotion_ros.nodes.watch import Watch, is_harmless
from egomotion_ros.retarget.beginning import MARGIN
from egomotion_ros.types import PrimitivePlan

if TYPE_CHECKING:
    from egomotion_ros.nodes.lifecycle import ManagedNode
    from egomotion_ros.pipeline import EgoMotionPipeline

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
    ``given`` (ns) when it was asked.
    """

    instruction: str
    goal: Goal | None = None
    next_plan: int | None = None
    published: bool = False
    plan_id: str = ''
    tokens: tuple[int, ...] = ()
    given: int = 0
    first_ms: float = 0.0


class Controller:
    """Decides; the node around it only listens."""

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
        self._is_jumping = False
        self._watch = Watch(node, parameters, observer)
        self.status = StatusBoard(self._clock, outputs.status)
        self._worker = PlanWorker(
            pipeline,
            observer,
            self._start_of,
            self._on_stage,
            self._first_of,
            self._on_planned,
            self._on_failed,
            lambda text: self._log.error(text),
            only_reasons=parameters['stages'] == 'reason',
        )

    # What is asked ----------------------------------------------------------------------------
    def instruct(self, text: str) -> None:
        """Take an instruction from the topic; ignored while a goal is running."""
        with self._lock:
            if self._task is not None and self._task.goal is not None:
                self._health.ignored += 1
                self._log.info('instruction ignored: a goal is running')
                return
            try:
                instruction = check_instruction(text)
            except NodeError as error:
                self._refuse(error)
                return
            self._begin(Task(instruction, given=self._clock.now().nanoseconds))

    def accept(self, goal: Goal) -> None:
        """Take a goal; one that is running ends as preempted, a bad one changes nothing."""
        with self._lock:
            request = goal.request
            try:
                instruction = check_instruction(request.instruction)
                check_numbers(request.guidance, request.steps)
                if request.execute and not self._parameters['output_enabled']:
                    raise NodeError(
                        ErrorCode.OUTPUT_DISABLED,
                        'output_enabled is false: nothing may move; '
                        'execute=false makes a plan to look at',
                    )
            except NodeError as error:
                self._refuse(error)
                goal.finish(error.code, error.message)
                return
            self._begin(Task(instruction, goal, given=self._clock.now().nanoseconds))

    def cancel(self, goal: Goal) -> None:
        """Cancel a goal: stop, if it is the one running."""
        with self._lock:
            if self._task is not None and self._task.goal is goal:
                self.halt(ErrorCode.CANCELED, 'canceled by the client')
            else:
                goal.finish(ErrorCode.CANCELED, 'canceled by the client')

    # Stop -------------------------------------------------------------------------------------
    def halt(
        self, code: ErrorCode, text: str, at: int | None = None, is_fault: bool = False
    ) -> bool:
        """
        End the task and come to rest: the one way everything ends that does not end well.

        ``at`` (ns) is where on its clock the running motion is taken up, now if None;
        ``is_fault`` marks what nobody asked for.  Returns whether a deceleration was published.
        """
        with self._lock:
            self._worker.cancel()
            task, self._task = self._task, None
            now = self._clock.now().nanoseconds
            stopping = self._player.stop(now if at is None else at, self._measured())
            if stopping is not None:
                if at is not None:
                    stopping = self._player.shift(now - at)
                self._outputs.play(stopping, replace(self._info, stamp=stopping.start))
            if task is not None and task.goal is not None:
                task.goal.result.plan_id = task.plan_id
                task.goal.finish(code, text)
            if task is not None or stopping is not None:
                self._health.failed(code, text)
                self._complain(is_fault, f'{code.name}: {text}')
                moving = self._player.is_moving(now)
                resting = Status.REFUSED if is_fault else Status.HOLDING
                self.status.show(Status.STOPPING if moving else resting, code, text)
            self._on_busy()
            return stopping is not None

    def before_clock_jump(self) -> None:
        """Time is about to jump: ages mean nothing until :meth:`on_clock_jump`."""
        self._is_jumping = True

    def on_clock_jump(self, jump: int) -> None:
        """After the clock jumped by ``jump`` ns: stop from where the motion was before it."""
        with self._lock:
            now = self._clock.now().nanoseconds
            before = now - jump
            self._is_jumping = False
            if is_harmless(jump, now, self._player):
                if jump > 0:
                    self._observer.excuse()
                return
            self._observer.clear()
            if self._player.is_stopping(before):
                stopping = self._player.shift(jump)
                self._outputs.play(stopping, replace(self._info, stamp=stopping.start))
            text = f'the clock jumped by {1e-9 * jump:.3f} s'
            self.halt(ErrorCode.CLOCK_JUMPED, text, before, is_fault=True)
            if not self._player.is_stopping(now):
                self._player.forget()

    def on_output_switched(self, enabled: bool) -> None:
        """Parameter output_enabled: off stops; on waits for a new instruction."""
        with self._lock:
            self.status.output(enabled)
            self.halt(ErrorCode.STOPPED, f'output {"enabled" if enabled else "disabled"}')
            self.status.show(self.status.state, self.status.code, self.status.text)

    # Life -------------------------------------------------------------------------------------
    def start(self) -> None:
        """Publish that nothing is going on."""
        with self._lock:
            self._player.forget()
            self.status.output(self._parameters['output_enabled'])
            self.status.about('', '')
            self.status.show(Status.IDLE, anew=True)

    def close(self) -> None:
        """End the planning thread; waits for the stage under way."""
        self._worker.close()

    @property
    def is_busy(self) -> bool:
        """True while there is a task, a plan being made or a motion under way."""
        with self._lock:
            return (
                self._task is not None
                or self._worker.current is not None
                or self._player.is_moving(self._clock.now().nanoseconds)
            )

    def tick(self) -> bool:
        """Look after what is going on; returns False when there is nothing left to do."""
        with self._lock:
            if self._is_jumping:
                return True
            if slip := self._watch.slip():
                self.on_clock_jump(slip)
            now = self._clock.now().nanoseconds
            self._look_after(now)
            moving = self._player.is_moving(now)
            task = self._task
            if task is not None and self._worker.current is None:
                if task.next_plan is not None and now >= task.next_plan:
                    self._request(task)
                elif task.published and task.next_plan is None and not moving:
                    self._complete()
            if task is not None and task.goal is not None:
                progress = self._player.progress(now) if task.published else 0.0
                task.goal.feedback(self.status.state, progress, list(task.tokens))
            if not moving and self.status.state == Status.STOPPING:
                self.status.show(Status.HOLDING, self.status.code, self.status.text)
            if self.is_busy:
                return True
            self._observer.close()
            return False

    def _look_after(self, now: int) -> None:
        """Halt where the watch says so."""
        task = self._task
        moving = self._player.is_moving(now) and not self._player.is_stopping(now)
        problem = self._watch.problem(self._worker.current, moving, self._is_standing(task))
        if problem is not None:
            self.halt(problem.code, problem.message, is_fault=True)

    def _is_standing(self, task: Task | None) -> bool:
        """Return True where ``task`` waits for its next plan, and needs fresh inputs for it."""
        return task is not None and task.published and task.next_plan is not None

    # Planning ---------------------------------------------------------------------------------
    def _begin(self, task: Task) -> None:
        before, self._task = self._task, task
        if before is not None and before.goal is not None:
            before.goal.result.plan_id = before.plan_id
            before.goal.finish(ErrorCode.PREEMPTED, 'a newer goal came')
        if not self._observer.is_open:
            self._watch.begin()
        self._observer.open()
        self._request(task)
        self._on_busy()

    def _request(self, task: Task) -> None:
        p = self._parameters
        seed, guidance, steps, period = 0, p['guidance'], p['steps'], p['replan_period']
        if task.goal is not None:
            goal, period = task.goal.request, 0.0
            seed, guidance, steps = goal.seed, goal.guidance or guidance, goal.steps or steps
        request = PlanRequest(task.instruction, seed, guidance or None, steps or None)
        now = self._clock.now().nanoseconds
        task.next_plan = now + round(1e9 * period) if period > 0 else None
        self._submit(task, request)

    def _submit(self, task: Task, request: PlanRequest) -> None:
        task.plan_id, task.first_ms = request.plan_id, 0.0
        self.status.about(task.instruction, task.plan_id)
        self._worker.submit(request)

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
                info = self._info = self._describe(planned, playing.start)
                message = self._outputs.play(playing, info)
            latency = 1e-6 * (self._node.steady_clock.now().nanoseconds - planned.view.arrived)
            if planned.solved is not None:
                task.first_ms = latency
                return
            first = task.first_ms or latency
            primitives = self._outputs.explain(planned, info)
            task.published = True
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
        """Let the task end well: its motion is over, or was held back."""
        task, self._task = self._task, None
        if task.goal is not None:
            task.goal.finish()
        if not self._player.is_moving(self._clock.now().nanoseconds):
            self.status.about('', '')
            self.status.show(Status.IDLE)

    # Small things -----------------------------------------------------------------------------
    def _refuse(self, error: NodeError) -> None:
        """Say no to something new; what is going on goes on."""
        self._complain(False, str(error))
        self._health.failed(error.code, error.message)
        state = self.status.state if self.is_busy else Status.REFUSED
        self.status.show(state, error.code, error.message)

    def _complain(self, is_fault: bool, text: str) -> None:
        # rclpy ties one severity to one line of code.
        if is_fault:
            self._log.error(text)
        else:
            self._log.warning(text)

    def _measured(self) -> Measured | None:
        """Measure the robot as far as that is possible without waiting."""
        try:
            return self._observer.measure(patient=False)
        except NodeError:
            return None

    def _latency_budget(self) -> float:
        """Seconds from an image until the plan made of it takes over, as far as can be told."""
        p = self._parameters
        recent = list(self._health.latencies)[-3:]
        return max(p['latency_budget'], 1e-3 * max(recent, default=0.0) + p['lead'])

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
