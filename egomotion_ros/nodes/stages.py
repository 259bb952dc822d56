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
        #: Instructions given until then (ns) move nothing any more.
        self._ended = 0
        self._next: PrimitivePlan | None = None

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
            now = self._clock.now().nanoseconds
            if self._ended > now:  # the clock was set back while nothing moved
                self._ended = 0
            latest = now + round(1e9 * self._parameters['future_tolerance'])
            if not self._ended < info.instruction_stamp <= latest:
                self._health.ignored += 1
                self._log.warning(
                    'motion_primitives ignored: their instruction was given before this node was '
                    'activated or last stopped; give it again',
                    throttle_duration_sec=5.0,
                )
                return
            self._next = plan
            task = self._task
            if task is None or task.given != info.instruction_stamp:
                self._begin(Task(plan.instruction, given=info.instruction_stamp))
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
        if plan is not None:
            p = self._parameters
            self._submit(
                task,
                PlanRequest(
                    plan.instruction,
                    plan.seed,
                    p['guidance'] or None,
                    p['steps'] or None,
                    plan,
                    plan.plan_id,
                ),
            )

    def _is_standing(self, task: Task | None) -> bool:
        return task is not None

    def _end(self) -> None:
        self._ended, self._next = self._clock.now().nanoseconds, None
