# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What the robot shall do, what is being done about it, and when that must end.

The controller owns the state: the task (a goal, or a standing instruction), the plan being made
and the motion being played.  Its lock is held for milliseconds, never while a model runs, so that
``stop`` gets through at any time.  Failures of whatever kind end in :meth:`Controller.halt`.
"""

from __future__ import annotations

from dataclasses import dataclass
import threading
import time
from typing import TYPE_CHECKING

from egomotion_ros.msg import Status
from egomotion_ros.nodes.conversions import PlanInfo
from egomotion_ros.nodes.diagnostics import Health
from egomotion_ros.nodes.errors import ErrorCode, NodeError
from egomotion_ros.nodes.goals import Goal
from egomotion_ros.nodes.observer import Observer, View
from egomotion_ros.nodes.outputs import Outputs
from egomotion_ros.nodes.parameters import Parameters
from egomotion_ros.nodes.planning import Planned, PlanRequest, PlanWorker, Start
from egomotion_ros.nodes.player import Player
from egomotion_ros.text import InstructionTooLongError, clean_instruction
from egomotion_ros.types import PlanarPose, PrimitivePlan

if TYPE_CHECKING:
    from egomotion_ros.nodes.lifecycle import ManagedNode
    from egomotion_ros.pipeline import EgoMotionPipeline

_STAGES = {
    'reason': Status.REASONING,
    'generate': Status.GENERATING,
    'retarget': Status.RETARGETING,
}
#: Seconds between two ticks while there is something to do.
TICK = 0.05


@dataclass
class Task:
    """
    What was asked: ``goal`` None for the topic.

    ``next_plan`` (ns, ROS clock) when to plan again, None for never; ``published`` True once a
    plan of it was sent.
    """

    instruction: str
    goal: Goal | None = None
    next_plan: int | None = None
    published: bool = False
    plan_id: str = ''
    tokens: tuple[int, ...] = ()


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
    ) -> None:
        self._node, self._parameters, self._pipeline = node, parameters, pipeline
        self._observer, self._outputs, self.health = observer, outputs, health
        self._clock, self._log = node.get_clock(), node.get_logger()
        self._lock = threading.RLock()
        self._player = Player(pipeline.robot.limits, pipeline.robot.root_limits)
        self._task: Task | None = None
        self._status = Status()
        self._last_info: PlanInfo | None = None
        #: Called when there is something to do, so that ticking begins.
        self.on_busy = lambda: None
        self._worker = PlanWorker(
            pipeline,
            observer,
            self._start_of,
            self._on_stage,
            self._on_planned,
            self._on_failed,
            self._log.error,
        )

    # What is asked ----------------------------------------------------------------------------
    def instruct(self, text: str) -> None:
        """Take an instruction from the topic; ignored while a goal is running."""
        with self._lock:
            if self._task is not None and self._task.goal is not None:
                self._log.info('instruction ignored: a goal is running')
                return
            try:
                instruction = check_instruction(text)
            except NodeError as error:
                self._refuse(error)
                return
            self._begin(Task(instruction))

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
            self._begin(Task(instruction, goal))

    def cancel(self, goal: Goal) -> None:
        """Cancel a goal: stop, if it is the one running."""
        with self._lock:
            if self._task is not None and self._task.goal is goal:
                self.halt(ErrorCode.CANCELED, 'canceled by the client')
            else:
                goal.finish(ErrorCode.CANCELED, 'canceled by the client')

    # Stop -------------------------------------------------------------------------------------
    def halt(
        self, code: ErrorCode, message: str, at: int | None = None, error: bool = False
    ) -> bool:
        """
        End the task and come to rest: the one way everything ends that does not end well.

        ``at`` (ns) is where on its clock the running motion is taken up, now if None.  Returns
        whether a deceleration was published.
        """
        with self._lock:
            self._worker.cancel()
            task, self._task = self._task, None
            now = self._clock.now().nanoseconds
            stopping = self._player.stop(now if at is None else at, self._measured())
            if stopping is not None:
                if at is not None:
                    self._player.restamp(now)
                    stopping = self._player.playing
                self._outputs.play(stopping, self._info(stopping.start))
                self.health.stops += 1
            if task is not None or stopping is not None:
                self.health.failed(code, message)
                # rclpy wants one severity a line of source.
                if error:
                    self._log.error(f'{code.name}: {message}')
                else:
                    self._log.warning(f'{code.name}: {message}')
            if task is not None and task.goal is not None:
                self._fill(task)
                task.goal.finish(code, message)
            moving = self._player.is_moving(now)
            refused = error and not moving
            state = Status.STOPPING if moving else Status.REFUSED if refused else Status.HOLDING
            if task is not None or stopping is not None:
                self._set_status(state, code, message)
            self.on_busy()
            return stopping is not None

    def on_clock_jump(self, jump_ns: int) -> None:
        """After the clock jumped by ``jump_ns``: stop from where the motion was before it."""
        with self._lock:
            now = self._clock.now().nanoseconds
            self._observer.clear()
            if self._task is not None or self._player.is_moving(now - jump_ns):
                self.halt(
                    ErrorCode.CLOCK_JUMPED,
                    f'the clock jumped by {1e-9 * jump_ns:.3f} s',
                    at=now - jump_ns,
                )
            if not self._player.is_stopping(now):
                self._player.forget()

    def on_output_switched(self, enabled: bool) -> None:
        """Parameter output_enabled: off stops; on waits for a new instruction."""
        self.halt(ErrorCode.STOPPED, f'output {"enabled" if enabled else "disabled"}')
        with self._lock:
            self._status.output_enabled = enabled
            self._outputs.status(self._status)

    # Life -------------------------------------------------------------------------------------
    def start(self) -> None:
        """Publish that nothing is going on."""
        with self._lock:
            self._player.forget()
            self._set_status(Status.IDLE, ErrorCode.NONE, '')

    def close(self) -> None:
        """End the planning thread; waits for the stage under way."""
        self._worker.close()

    @property
    def state_name(self) -> str:
        """Name of the status constant."""
        return _NAMES[self._status.state]

    @property
    def is_busy(self) -> bool:
        """True while there is a task, a plan being made or a motion under way."""
        with self._lock:
            now = self._clock.now().nanoseconds
            return (
                self._task is not None
                or self._worker.current is not None
                or self._player.is_moving(now)
            )

    def tick(self) -> bool:
        """Look after what is going on; returns False when there is nothing left to do."""
        with self._lock:
            now = self._clock.now().nanoseconds
            moving = self._player.is_moving(now)
            self._watch(now, moving)
            moving = self._player.is_moving(now)
            task = self._task
            if task is not None and self._worker.current is None:
                if task.next_plan is not None and now >= task.next_plan:
                    self._request(task)
                elif not moving and task.published and task.next_plan is None:
                    self._complete(task)
            if task is not None and task.goal is not None:
                progress = self._player.progress(now) if task.published else 0.0
                task.goal.feedback(self._status.state, progress, list(task.tokens))
            if not moving and self._status.state == Status.STOPPING:
                self._set_status(Status.HOLDING, self._status.code, self._status.message)
            elif not moving and self._task is None and self._status.state == Status.EXECUTING:
                self._set_status(Status.IDLE, ErrorCode.NONE, '')
            if not self.is_busy:
                self._observer.close()
                return False
            return True

    def _watch(self, now: int, moving: bool) -> None:
        """Halt where an input went silent or planning takes too long."""
        request = self._worker.current
        if request is not None:
            most = self._parameters['planning_timeout']
            if time.monotonic() - request.started > most:
                self.halt(ErrorCode.TIMEOUT, f'no plan within {most} s', error=True)
                return
        if moving and not self._player.playing.hold:
            most = self._parameters['joint_states.timeout']
            silence = self._observer.joint_states.silence()
            if self._parameters['joint_states.required'] and silence > most:
                self.halt(
                    ErrorCode.STALE_JOINT_STATES,
                    f'no joint states for {silence:.2f} s',
                    error=True,
                )
                return
        task = self._task
        if task is not None and task.goal is None and task.next_plan is not None:
            most = self._parameters['image.timeout']
            silence = self._observer.image.silence()
            if task.published and silence > most:
                self.halt(ErrorCode.STALE_IMAGE, f'no image for {silence:.2f} s', error=True)

    # Planning ---------------------------------------------------------------------------------
    def _begin(self, task: Task) -> None:
        before, self._task = self._task, task
        if before is not None and before.goal is not None:
            self._fill(before)
            before.goal.finish(ErrorCode.PREEMPTED, 'a newer goal came')
        self._observer.open()
        self._request(task)
        self.on_busy()

    def _request(self, task: Task) -> None:
        goal = task.goal.request if task.goal is not None else None
        guidance = goal.guidance if goal is not None else 0.0
        steps = goal.steps if goal is not None else 0
        request = PlanRequest(
            instruction=task.instruction,
            seed=goal.seed if goal is not None else 0,
            guidance=(guidance or self._parameters['guidance']) or None,
            steps=(steps or self._parameters['steps']) or None,
        )
        task.plan_id = request.plan_id
        period = self._parameters['replan_period']
        task.next_plan = None
        if goal is None and period > 0:
            task.next_plan = self._clock.now().nanoseconds + round(1e9 * period)
        self._worker.submit(request)

    def _start_of(self, view: View) -> Start:
        """Where a plan made from ``view`` starts (called by the planning thread)."""
        stamp = view.observation.stamp
        with self._lock:
            if self._player.is_moving(stamp) and self._player.is_moving(
                self._clock.now().nanoseconds
            ):
                state = self._player.state(stamp)
                prefix = self._player.prefix(stamp, self._parameters['latency_budget'])
                root = (state.root_position, state.root_quaternion)
                return Start(prefix, state.positions, state.velocities, root, continues=True)
        if view.state is None:
            return Start()
        root = None
        if view.has_root:
            root = (view.state.root_position, view.state.root_quaternion)
        return Start(positions=view.state.positions, root=root)

    def _on_stage(
        self, request: PlanRequest, stage: str, primitives: PrimitivePlan | None
    ) -> None:
        with self._lock:
            if request.cancelled.is_set() or self._task is None:
                return
            if primitives is not None:
                self._task.tokens = tuple(int(x) for x in primitives.tokens[:, 0])
            self._set_status(_STAGES[stage], ErrorCode.NONE, '')

    def _on_planned(self, planned: Planned) -> None:
        with self._lock:
            if planned.request.cancelled.is_set() or self._task is None:
                return
            task = self._task
            now = self._clock.now().nanoseconds
            enabled = self._parameters['output_enabled']
            held_back = not enabled or (task.goal is not None and not task.goal.request.execute)
            if held_back:
                info = self._describe(planned, now)
                message = self._outputs.preview(planned, info)
            else:
                playing = self._play(planned, now)
                info = self._describe(planned, playing.start)
                self._last_info = info
                message = self._outputs.play(playing, info)
            latency = 1e-6 * (self._node.steady_clock.now().nanoseconds - planned.view.arrived)
            primitives = self._outputs.explain(planned, info)
            task.published = True
            self.health.planned(latency, planned.milliseconds)
            self._status.latency_ms = latency
            self._status.reason_ms = planned.milliseconds['reason']
            self._status.generate_ms = planned.milliseconds['generate']
            self._status.retarget_ms = planned.milliseconds['retarget']
            if task.goal is not None:
                self._fill(task, planned)
                task.goal.result.robot_motion = message
                task.goal.result.primitives = primitives
            moving = self._player.is_moving(now)
            self._set_status(
                Status.EXECUTING if moving else Status.IDLE,
                ErrorCode.NONE,
                '' if enabled else 'output disabled: shown on robot_motion_preview only',
            )
            if held_back and task.goal is not None:
                self._complete(task)

    def _play(self, planned: Planned, now: int):
        if not self._player.is_moving(now) and not planned.continues:
            return self._player.begin(planned.robot, planned.human, now)
        observed = planned.view.observation.stamp if planned.continues else now
        try:
            return self._player.follow(
                planned.robot,
                planned.human,
                observed,
                now,
                self._parameters['lead'],
                self._parameters['blend'],
            )
        except ValueError as error:
            raise NodeError(ErrorCode.PLAN_INVALID, str(error)) from error

    def _on_failed(self, request: PlanRequest, error: NodeError) -> None:
        with self._lock:
            if not request.cancelled.is_set():
                self.halt(error.code, error.message, error=True)

    def _complete(self, task: Task) -> None:
        """Let the task end well: its motion is over, or was held back."""
        self._task = None
        if task.goal is not None:
            task.goal.finish()
        if not self._player.is_moving(self._clock.now().nanoseconds):
            self._set_status(Status.IDLE, ErrorCode.NONE, '')

    # Words ------------------------------------------------------------------------------------
    def _refuse(self, error: NodeError) -> None:
        """Say no to something new; what is going on goes on."""
        self._log.error(str(error))
        self.health.failed(error.code, error.message)
        if self.is_busy:
            self._set_status(self._status.state, error.code, error.message)
        else:
            self._set_status(Status.REFUSED, error.code, error.message)

    def _measured(self):
        try:
            state, has_root = self._observer.measure()
        except NodeError:
            return None
        commanded = self._player.state(self._clock.now().nanoseconds)
        if state is None or has_root or commanded is None:
            return state
        # Without odometry the base is where it was told to be.
        return type(state)(
            state.positions,
            state.velocities,
            commanded.root_position,
            commanded.root_quaternion,
            commanded.root_twist,
            commanded.contacts,
        )

    def _describe(self, planned: Planned, stamp: int) -> PlanInfo:
        observation = planned.view.observation
        return PlanInfo(
            plan_id=planned.request.plan_id,
            seed=planned.primitives.seed,
            bundle_hash=self._pipeline.bundle.hash,
            stamp=stamp,
            observation_stamp=observation.stamp,
            observation_root=observation.root,
            frame_id=self._parameters['odom.frame'],
        )

    def _info(self, stamp: int) -> PlanInfo:
        """Header of a stop: the plan it ends, if there is one."""
        last = self._last_info
        return PlanInfo(
            plan_id=last.plan_id if last else '',
            seed=last.seed if last else 0,
            bundle_hash=self._pipeline.bundle.hash,
            stamp=stamp,
            observation_stamp=last.observation_stamp if last else 0,
            observation_root=last.observation_root if last else PlanarPose(),
            frame_id=self._parameters['odom.frame'],
        )

    def _fill(self, task: Task, planned: Planned | None = None) -> None:
        result = task.goal.result
        result.plan_id = task.plan_id
        if planned is not None:
            result.seed = planned.primitives.seed
            result.reason_ms = planned.milliseconds['reason']
            result.generate_ms = planned.milliseconds['generate']
            result.retarget_ms = planned.milliseconds['retarget']

    def _set_status(self, state: int, code: int, message: str) -> None:
        status = self._status
        before = (status.state, status.code, status.message, status.plan_id, status.instruction)
        status.state, status.code, status.message = state, int(code), message
        if self._task is not None:
            status.instruction, status.plan_id = self._task.instruction, self._task.plan_id
        elif state == Status.IDLE:
            status.instruction = status.plan_id = ''
        status.output_enabled = self._parameters['output_enabled']
        now = (status.state, status.code, status.message, status.plan_id, status.instruction)
        if now != before or not status.header.stamp.sec:
            status.header.stamp = self._clock.now().to_msg()
            self._outputs.status(status)


_NAMES = {
    getattr(Status, name): name.lower()
    for name in 'IDLE REASONING GENERATING RETARGETING EXECUTING STOPPING HOLDING REFUSED'.split()
}


def check_instruction(text: str) -> str:
    """Return the instruction as the models see it; raises NodeError for one that is none."""
    if not text.strip():
        raise NodeError(ErrorCode.EMPTY_INSTRUCTION, 'the instruction is empty')
    try:
        return clean_instruction(text)
    except InstructionTooLongError as error:
        raise NodeError(ErrorCode.INSTRUCTION_TOO_LONG, str(error)) from error
    except ValueError as error:
        raise NodeError(ErrorCode.BAD_INSTRUCTION, str(error)) from error


def check_numbers(guidance: float, steps: int) -> None:
    """Raise NodeError for a guidance or a count of steps that no bundle takes."""
    if not 0.0 <= guidance <= 20.0 or steps > 100:
        raise NodeError(
            ErrorCode.PLAN_INVALID,
            f'expected guidance 0..20 and steps 0..100, got {guidance} and {steps}',
        )
