# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The two halves of the node on two hosts: one reasons, one generates and moves.

The half that reasons takes the instruction and sends primitives with their states, again and
again; the half that generates turns each into motion and owns everything that stops it.  An
instruction that was given before that half was activated or last stopped moves nothing: what
was stopped stays stopped until somebody gives an instruction anew.
"""

from __future__ import annotations

from egomotion_ros.msg import Status
from egomotion_ros.nodes.controller import Controller, Task
from egomotion_ros.nodes.errors import ErrorCode, NodeError
from egomotion_ros.nodes.goals import Goal
from egomotion_ros.nodes.inputs import Sample
from egomotion_ros.nodes.planning import Planned, PlanRequest
from egomotion_ros.types import PrimitivePlan


class ReasonController(Controller):
    """Sends primitives with states instead of motion."""

    def _on_planned(self, planned: Planned) -> None:
        with self._lock:
            if not self._is_wanted(planned.request):
                return
            # Dated by the image: when the first row is due is for the other half to say.
            info = self._describe(planned, planned.primitives.stamp)
            self._outputs.primitives(planned, info, with_states=True)
            self._task.published = True
            latency = 1e-6 * (self._node.steady_clock.now().nanoseconds - planned.view.arrived)
            self._health.planned(latency, latency, planned.milliseconds)
            self.status.times(latency, latency, planned.milliseconds)
            self.status.show(Status.IDLE, text='sent on motion_primitives')


class GenerateController(Controller):
    """Turns primitives that come into motion."""

    def __init__(self, *parts) -> None:
        super().__init__(*parts)
        #: Instructions given until then (ns), and the one that was stopped last, move nothing.
        self._ended = self._stopped = 0
        self._next: PrimitivePlan | None = None
        #: The newest task, also once its motion is over: the same instruction goes on with it.
        self._newest: Task | None = None

    def start(self) -> None:
        """Publish that nothing is going on; what was asked for before does not count."""
        with self._lock:
            self._end()
            super().start()

    def halt(
        self, code: ErrorCode, text: str, at: int | None = None, is_fault: bool = False
    ) -> bool:
        """End the task, see :meth:`Controller.halt`, and the instruction with all its plans."""
        with self._lock:
            self._end()
            return super().halt(code, text, at, is_fault)

    def accept(self, goal: Goal) -> None:
        """Refuse: what a goal asks for is for the half that reasons."""
        error = NodeError(
            ErrorCode.WRONG_STAGE,
            'this node only generates (stages: generate): publish the instruction on the topic '
            'instruction of the node that reasons',
        )
        with self._lock:
            self._refuse(error)
        goal.finish(error.code, error.message)

    def receive(self, sample: Sample) -> None:
        """Take primitives from the network; bad ones are refused and change nothing."""
        try:
            plan, info = self._observer.accept(sample)
        except NodeError as error:
            with self._lock:
                self._refuse(error)
            return
        with self._lock:
            given = info.instruction_stamp
            if not self._is_active:  # it was on its way while the node was deactivated
                return
            if not self._counts(given):
                self._ignore(
                    'their instruction was given before this node was activated or last stopped, '
                    'or before the one that counts now; give it again'
                )
                return
            self._observer.keep(plan)
            self._next = plan
            task = self._task
            if task is None or task.given != given:
                # Whoever still sends plans of an older one is too late.
                self._ended = given - 1
                before = self._newest
                self._newest = Task(plan.instruction, given=given)
                if before is not None and before.given == given:
                    self._newest.pursuit, self._newest.followed = before.pursuit, before.followed
                    self._newest.published = before.published
                self._begin(self._newest)
            elif self._worker.current is None:
                self._request(task)

    def tick(self) -> bool:
        """Look after what is going on; primitives that came during a plan are next."""
        with self._lock:
            task = self._task
            if task is not None and self._next is not None and self._worker.current is None:
                self._request(task)
            return super().tick()

    def _request(self, task: Task) -> None:
        """Plan from the newest primitives; without any, the next ones are waited for."""
        plan, self._next = self._next, None
        p = self._parameters
        if plan is None:
            return
        age = 1e-9 * (self._clock.now().nanoseconds - plan.stamp)
        if age > p['primitives.max_age']:
            self._ignore(f'they waited for the plan before until they were {age:.2f} s old')
        else:
            self._submit(
                task,
                PlanRequest(
                    plan.instruction,
                    plan.seed,
                    p['guidance'] or None,
                    p['steps'] or None,
                    plan,
                    plan.plan_id,
                    candidates=p['candidates'] or None,
                ),
            )

    def _is_standing(self, task: Task | None) -> bool:
        return task is not None

    def _counts(self, given: int) -> bool:
        """Return True for an instruction, by when it was ``given`` (ns), that may move."""
        latest = self._clock.now().nanoseconds + round(
            1e9 * self._parameters['future_tolerance']
        )
        if self._ended > latest:  # the clock was set back while nothing moved
            self._ended = 0
        # The other host's clock may be ahead: a stop must not look older than what it stopped.
        return self._ended < given <= latest and given != self._stopped

    def _ignore(self, why: str) -> None:
        self._health.ignored += 1
        self._log.warning(f'motion_primitives ignored: {why}', throttle_duration_sec=5.0)

    def _end(self) -> None:
        self._ended, self._next = self._clock.now().nanoseconds, None
        self._newest = None
        if self._task is not None:
            self._stopped = self._task.given
