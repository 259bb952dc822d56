# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The one thread that thinks: observe -> reason -> generate -> retarget, cancelled between stages.

Nothing that stops motion waits for this thread.  There is one request at a time; a newer one
replaces a waiting one and cancels the one being worked on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
import secrets
import threading
import time
import traceback
from typing import TYPE_CHECKING
import uuid

import numpy as np

from egomotion_ros.nodes.errors import ErrorCode, NodeError
from egomotion_ros.nodes.observer import Observer, View
from egomotion_ros.nodes.player import Measured, check_motion
from egomotion_ros.text import InstructionTooLongError
from egomotion_ros.types import HumanMotion, PrimitivePlan, RobotMotion

if TYPE_CHECKING:
    from egomotion_ros.pipeline import EgoMotionPipeline


@dataclass(frozen=True)
class PlanRequest:
    """
    One plan to make; ``seed`` 0 draws one.  ``cancelled`` is looked at between stages.

    ``primitives`` are those that came from another node, None where this one looks and reasons.
    """

    instruction: str
    seed: int = 0
    guidance: float | None = None
    steps: int | None = None
    primitives: PrimitivePlan | None = None
    plan_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    cancelled: threading.Event = field(default_factory=threading.Event)
    started: float = field(default_factory=time.monotonic)
    candidates: int | None = None

    @property
    def drawn_seed(self) -> int:
        """The seed that counts: the given one, or one drawn from the plan's identity."""
        return self.seed or int(self.plan_id[:15], 16) or secrets.randbits(60) | 1


@dataclass(frozen=True)
class Start:
    """
    Where a plan starts from.

    ``prefix`` human motion under way, ``positions``, ``velocities`` (J,) and ``root`` (position,
    quaternion) of the robot; None where unknown.  ``continues`` True where the plan will join a
    running one.
    """

    prefix: HumanMotion | None = None
    positions: np.ndarray | None = None
    velocities: np.ndarray | None = None
    root: tuple[np.ndarray, np.ndarray] | None = None
    continues: bool = False


@dataclass(frozen=True)
class Planned:
    """
    A plan; ``milliseconds`` by stage: observe, reason, generate, retarget.

    Finished, or, where ``solved`` is given, its beginning: the rows of ``robot`` are those of the
    plan up to ``solved`` seconds, then it brakes to rest.  ``human`` and
    ``robot`` are None where the node only reasons.
    """

    request: PlanRequest
    view: View
    primitives: PrimitivePlan
    human: HumanMotion | None
    robot: RobotMotion | None
    continues: bool
    milliseconds: dict[str, float]
    solved: float | None = None

    def is_too_late(self, begun: int | None, now: int, lead: float) -> bool:
        """
        Return True where the plan is over before it could be joined: ``lead`` (s) after ``now``.

        Dated by its image, or by ``begun`` (ns) where its beginning is being executed; a plan
        that joins nothing is never late, nor is a beginning, which is worth nothing then.
        """
        if self.solved is not None or (begun is None and not self.continues):
            return False
        since = self.primitives.stamp if begun is None else begun
        gone = 1e-9 * (now - since) + lead
        return gone + self.robot.step_dt >= self.robot.duration


class _CancelledError(Exception):
    """Nobody wants the plan any more."""


class PlanWorker:
    """
    Runs :class:`PlanRequest` s in a thread of its own and reports by callbacks.

    ``follows`` says whether a motion is wanted at all; where it is not, nothing more comes of it.
    ``first_of`` says how many seconds of a plan, if any, are handed to ``on_planned`` as soon as
    they are solved, before the whole is.
    """

    def __init__(
        self,
        pipeline: EgoMotionPipeline,
        observer: Observer,
        start_of: Callable[[int, Measured | None], Start],
        on_stage: Callable[[PlanRequest, str, PrimitivePlan | None], None],
        follows: Callable[[PlanRequest, PrimitivePlan, HumanMotion, Start], bool],
        first_of: Callable[[PlanRequest, int, Start], float],
        on_planned: Callable[[Planned], None],
        on_failed: Callable[[PlanRequest, NodeError], None],
        log: Callable[[str], None],
        only_reasons: bool = False,
    ) -> None:
        self._pipeline, self._observer = pipeline, observer
        self._start_of, self._on_stage, self._first_of = start_of, on_stage, first_of
        self._on_planned, self._on_failed, self._log = on_planned, on_failed, log
        self._follows = follows
        self._only_reasons = only_reasons
        self._news = threading.Condition()
        self._waiting: PlanRequest | None = None
        self._current: PlanRequest | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name='planning', daemon=True)
        self._thread.start()

    @property
    def current(self) -> PlanRequest | None:
        """The request that is waiting or being worked on, unless it was cancelled."""
        with self._news:
            for request in (self._waiting, self._current):
                if request is not None and not request.cancelled.is_set():
                    return request
            return None

    @property
    def is_busy(self) -> bool:
        """True while a request, cancelled or not, still occupies the thread."""
        with self._news:
            return self._waiting is not None or self._current is not None

    def submit(self, request: PlanRequest) -> None:
        """Make a plan; whatever was asked for before is cancelled."""
        with self._news:
            self._cancel()
            self._waiting = request
            self._news.notify_all()

    def cancel(self) -> None:
        """Give up what is being planned; returns at once."""
        with self._news:
            self._cancel()

    def close(self) -> None:
        """Cancel, and wait for the stage under way to end."""
        with self._news:
            self._cancel()
            self._ended = True
            self._news.notify_all()
        self._thread.join()

    def _cancel(self) -> None:
        for request in (self._waiting, self._current):
            if request is not None:
                request.cancelled.set()
        self._waiting = None

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting is not None or self._ended)
                if self._ended:
                    return
                request, self._waiting = self._waiting, None
                self._current = request
            try:
                planned = self._plan(request)
            except _CancelledError:
                planned = None
            except NodeError as error:
                planned = error
            except InstructionTooLongError as error:
                planned = NodeError(ErrorCode.INSTRUCTION_TOO_LONG, str(error))
            except ValueError as error:
                planned = NodeError(ErrorCode.PLAN_INVALID, str(error))
            except Exception as error:
                self._log(f'planning failed:\n{traceback.format_exc()}')
                planned = NodeError(ErrorCode.BACKEND_FAILED, f'{type(error).__name__}: {error}')
            try:
                if isinstance(planned, NodeError):
                    self._on_failed(request, planned)
                elif planned is not None:
                    self._on_planned(planned)
            except NodeError as error:
                self._on_failed(request, error)
            except Exception:
                self._log(f'a plan could not be handed over:\n{traceback.format_exc()}')
                self._on_failed(request, NodeError(ErrorCode.UNKNOWN, 'internal error, see log'))
            with self._news:  # until here it could be cancelled, and nobody asked for another
                self._current = None

    def _plan(self, request: PlanRequest) -> Planned | None:
        marks, begun = [time.perf_counter()], False

        def stage(name: str, primitives: PrimitivePlan | None = None) -> None:
            # The rest of what is already moving is handed over in any case.
            if request.cancelled.is_set() and not begun:
                raise _CancelledError
            if name:
                self._on_stage(request, name, primitives)
            marks.append(time.perf_counter())

        @contextmanager
        def observing() -> Iterator[None]:
            try:
                yield
            except NodeError:
                stage('')  # what was missing is of no interest where waiting was given up
                raise

        def milliseconds() -> dict[str, float]:
            names = ('observe', 'reason', 'generate', 'retarget')
            spent = 1000.0 * np.diff(marks[1:])
            return dict.fromkeys(names, 0.0) | dict(zip(names, map(float, spent), strict=False))

        if request.primitives is None:
            stage('reason')
            with observing():
                view = self._observer.look(request.instruction, request.cancelled)
            stage('')
            primitives = self._pipeline.reason(
                view.observation, request.plan_id, request.drawn_seed
            )
        else:
            stage('')
            with observing():
                view, primitives = self._observer.place(request.primitives, request.cancelled)
            stage('')
        if self._only_reasons:
            stage('')
            return Planned(request, view, primitives, None, None, False, milliseconds())
        stage('generate', primitives)
        start = self._start_of(primitives.stamp, view.measured)
        human = self._pipeline.generate(
            primitives,
            start.prefix,
            primitives.seed,
            request.guidance,
            request.steps,
            request.candidates,
        )
        if not self._follows(request, primitives, human, start):
            return None
        stage('retarget', primitives)

        def planned(robot: RobotMotion, solved: float | None = None) -> Planned:
            check_motion(robot, self._pipeline.robot.limits)
            stage('')
            return Planned(
                request,
                view,
                primitives,
                human,
                robot,
                start.continues,
                milliseconds(),
                solved,
            )

        def begin(robot: RobotMotion) -> None:
            nonlocal begun
            self._on_planned(planned(robot, first))
            begun = True
            marks.pop()  # the time of the stage counts from its start to its end

        first = self._first_of(request, primitives.stamp, start)
        return planned(
            self._pipeline.retarget(
                human,
                start.positions,
                start.root,
                start.velocities,
                first,
                begin if first > 0.0 else None,
            )
        )
