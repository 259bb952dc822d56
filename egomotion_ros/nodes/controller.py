# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What the robot shall do, what is being done about it, and when that must end.

Orders, stops and time meet here: what is asked, what ends it, and the look at the clock and the
inputs in between; :mod:`handover` makes motion of it.  Failures of whatever kind end in
:meth:`Controller.halt`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from egomotion_ros.msg import Status
from egomotion_ros.nodes.errors import ErrorCode, NodeError
from egomotion_ros.nodes.goals import Goal
from egomotion_ros.nodes.handover import Handover, Task
from egomotion_ros.nodes.instructions import check_instruction, check_numbers
from egomotion_ros.nodes.parameters import Parameters
from egomotion_ros.nodes.player import Measured
from egomotion_ros.nodes.watch import Watch, is_harmless

if TYPE_CHECKING:
    from egomotion_ros.nodes.lifecycle import ManagedNode


class Controller(Handover):
    """Decides; the node around it only listens."""

    def __init__(self, node: ManagedNode, parameters: Parameters, *parts) -> None:
        """Take the parts, as :class:`Handover` does."""
        super().__init__(node, parameters, *parts)
        self._is_active = self._is_jumping = False
        self._jumping_from = 0
        self._watch = Watch(node, parameters, self._observer)

    # What is asked ----------------------------------------------------------------------------
    def instruct(self, text: str) -> None:
        """Take an instruction from the topic; ignored while a goal is running."""
        with self._lock:
            if not self._is_active:  # it was on its way while the node was deactivated
                return
            if self._task is not None and self._task.goal is not None:
                self._health.ignored += 1
                self._log.info('instruction ignored: a goal is running')
                return
            try:
                instruction = check_instruction(text)
            except NodeError as error:
                self._refuse(error)
                return
            task = self._task
            if task is not None and task.instruction == instruction and not task.published \
                    and self._worker.current is not None:
                return  # said again while it is being thought about
            self._begin(Task(instruction, given=self._clock.now().nanoseconds))

    def accept(self, goal: Goal) -> None:
        """Take a goal; one that is running ends as preempted, a bad one changes nothing."""
        with self._lock:
            if not self._is_active:
                goal.finish(ErrorCode.DEACTIVATED, 'the node was deactivated')
                return
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
            given = self._clock.now().nanoseconds
            self._begin(Task(instruction, goal, given=given, looks=max(request.looks, 1)))

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
            self._age(now)
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
        self._jumping_from = self._clock.now().nanoseconds
        self._is_jumping = True

    def on_clock_jump(self, jump: int | None) -> None:
        """
        After the clock jumped by ``jump`` ns: stop from where the motion was before it.

        None where another clock took its place, by as much as :meth:`before_clock_jump` will tell.
        """
        with self._lock:
            now = self._clock.now().nanoseconds
            jump = now - self._jumping_from if jump is None else jump
            before = now - jump
            self._latencies.clear()
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
            self._is_active = True
            self._player.forget()
            self.status.output(self._parameters['output_enabled'])
            self.status.about('', '')
            self.status.show(Status.IDLE, anew=True)

    def end(self) -> bool:
        """Take no more orders, and :meth:`halt`; returns what that returns."""
        with self._lock:
            self._is_active = False
            return self.halt(ErrorCode.DEACTIVATED, 'the node was deactivated')

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
                due = task.next_plan is not None and now >= task.next_plan
                # Who may look again does so at the end of a motion at the latest.
                again = task.looks is not None and task.looks > 0 and task.published
                if due or (again and not moving):
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

    # Small things -----------------------------------------------------------------------------
    def _begin(self, task: Task) -> None:
        before, self._task = self._task, task
        if before is not None and before.goal is not None:
            before.goal.result.plan_id = before.plan_id
            before.goal.finish(ErrorCode.PREEMPTED, 'a newer goal came')
        if not self._observer.is_open:
            self._age(self._clock.now().nanoseconds)
            self._watch.begin()
        self._observer.open()
        self._request(task)
        self._on_busy()

    def _age(self, now: int) -> None:
        """
        Let what is over be over at ``now`` (ns), whatever the clock says.

        While there is nothing to do nobody looks whether the system clock is set; what the robot
        did last is still known, for where it stands.
        """
        if not self._observer.is_open and self._player.is_moving(now):
            self._player.shift(now - self._player.playing.end)

    def _refuse(self, error: NodeError) -> None:
        """Say no to something new; what is going on goes on."""
        self._complain(False, str(error))
        self._health.failed(error.code, error.message)
        state = self.status.state if self.is_busy else Status.REFUSED
        self.status.show(state, error.code, error.message)

    def _measured(self) -> Measured | None:
        """Measure the robot as far as that is possible without waiting."""
        try:
            return self._observer.measure(patient=False)
        except NodeError:
            return None
