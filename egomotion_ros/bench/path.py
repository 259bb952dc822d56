# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Where the time of whole plans goes: image message in, motion messages out.

Every plan re-plans the one before, as the node does: it gets its first half second as the
executed prefix and starts from its joints.  What is measured is what the node's planning thread
and its publishers do, in their order, in one thread; waiting for messages is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import time
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from egomotion_ros.body.edits import slice_frames
from egomotion_ros.bundle import PARALLEL_GRAPHS, Bundle
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.retarget.beginning import MARGIN, stop_after
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.retargeter import Retargeter
from egomotion_ros.runtimes.base import Runtime
from egomotion_ros.runtimes.parity import reference_cases
from egomotion_ros.runtimes.timing import Timing
from egomotion_ros.text import TextEncoder
from egomotion_ros.types import (
    CameraPose,
    HumanMotion,
    Observation,
    Plan,
    RobotMotion,
)

if TYPE_CHECKING:
    from egomotion_ros.bench.messages import Messages

_INSTRUCTIONS = ('walk to the red ball', 'turn left', 'walk forward', 'stand still')
_PREFIX = 15
#: Seconds of a plan that are solved before its first points go out: what the node asks for by
#: default for an image 0.2 s old (0.1 lead, 0.5 first_part, and the margin).
_FIRST = 0.8 + MARGIN
#: Parts that are retargeting, and the part with which the first points are on their way.
RETARGETING = ('retargeting, first part', 'stop of the first part', 'retargeting, the rest')
FIRST_POINTS = 'first points'
#: Parts of a plan that are neither graphs nor retargeting.
AROUND = ('image message', 'rectification', 'around the reasoner', 'around the generator',
          FIRST_POINTS, 'limit check', 'motion messages')


class TimedRuntime(Runtime):
    """Passes calls on; ``seconds`` holds what every graph took since :meth:`reset`."""

    def __init__(self, inner: Runtime) -> None:
        super().__init__(inner.specs)
        self.name, self._inner = inner.name, inner
        self.seconds = dict.fromkeys(inner.specs, 0.0)

    def reset(self) -> None:
        """Start again from zero."""
        self.seconds = dict.fromkeys(self.specs, 0.0)

    def _run(self, graph: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        start = time.perf_counter()
        outputs = self._inner.run(graph, **arrays)
        self.seconds[graph] += time.perf_counter() - start
        return outputs

    def _run_keeping(self, graph: str, arrays: dict[str, np.ndarray],
                     keep: frozenset[str]) -> dict[str, np.ndarray]:
        start = time.perf_counter()
        outputs = self._inner.run(graph, keep=keep, **arrays)
        self.seconds[graph] += time.perf_counter() - start
        return outputs

    def write_row(self, cache: np.ndarray, rows: np.ndarray, slot: int) -> None:
        """Let the runtime inside write into what it holds."""
        self._inner.write_row(cache, rows, slot)

    def close(self) -> None:
        """Close the runtime inside."""
        self._inner.close()


@dataclass(frozen=True)
class PathTimes:
    """
    Seconds (plans,) of every part of a plan by name; their sum is the whole.

    ``graphs`` names the parts that are graphs; ``missing`` says what could not be measured here,
    or is empty.
    """

    parts: dict[str, np.ndarray]
    graphs: tuple[str, ...]
    missing: str

    @property
    def whole(self) -> np.ndarray:
        """Seconds (plans,) from image message to motion messages."""
        return np.sum(list(self.parts.values()), axis=0)

    @property
    def first(self) -> np.ndarray:
        """Seconds (plans,) from image message to the messages with the first points."""
        names = list(self.parts)
        return np.sum([self.parts[name] for name in names[:names.index(FIRST_POINTS) + 1]], axis=0)

    def share(self, *names: str) -> float:
        """Share of the parts ``names`` in the time of all plans together."""
        part = sum(float(self.parts[name].sum()) for name in names if name in self.parts)
        return part / float(self.whole.sum())

    def as_dict(self) -> dict[str, object]:
        """Return the figures for JSON."""
        return {
            'milliseconds': {name: Timing.of(value).as_dict() for name, value in {
                **self.parts, 'to the first points': self.first, 'whole': self.whole}.items()},
            'mean_milliseconds': {name: float(1000 * value.mean())
                                  for name, value in {**self.parts, 'whole': self.whole}.items()},
            'share': {'graphs': self.share(*self.graphs),
                      'retargeting': self.share(*RETARGETING),
                      'everything else': self.share(*AROUND)},
            'missing': self.missing}


def measure(runtime: Runtime, bundle: Bundle, robot: str, runs: int) -> PathTimes:
    """
    Make ``runs`` plans and time their parts.

    Raises ValueError for fewer than one run or an unknown robot, and where a plan cannot be made.
    """
    if runs < 1:
        raise ValueError(f'runs must be at least 1, got {runs}')
    timed = TimedRuntime(runtime)
    retargeter = Retargeter(RobotDescription.load(robot))
    pipeline = EgoMotionPipeline(bundle, timed, retargeter)
    text = TextEncoder.open(bundle.text_path, bundle.text_length)
    images = [case.image for case in reference_cases(bundle, text, 8)]
    messages, missing = _messages(bundle, retargeter.description)
    clock = _Clock()
    rows: list[dict[str, float]] = []
    last: Plan | None = None
    for n in tqdm(range(-2, runs), desc='plans', leave=False):
        clock.spent, before = {}, last
        timed.reset()
        image = images[n % len(images)]
        if messages is not None:
            pixels = clock('image message', messages.decode)
            image = clock('rectification', lambda p=pixels: messages.rectify(p)).copy()
            # The message is the same; a robot that moves never sees the same picture twice.
            image[0, 0] = n % 256
        observation = Observation(image, _INSTRUCTIONS[n % len(_INSTRUCTIONS)], n,
                                  CameraPose(1.2, 0.5))
        with clock.around('around the reasoner', timed):
            primitives = pipeline.reason(observation, f'plan {n}', n + 2)
        prefix = None if before is None else slice_frames(before.human, 0, _PREFIX)
        with clock.around('around the generator', timed):
            human = pipeline.generate(primitives, prefix)
        joints = None if before is None else before.robot.positions[_PREFIX]
        motion = _retarget(pipeline, human, joints, clock,
                           lambda part, p=primitives: messages and messages.first(part, p))
        last = Plan(primitives, human, motion, {})
        if messages is not None:
            clock('limit check', lambda m=motion: messages.check(m))
            clock('motion messages', lambda plan=last: messages.build(plan))
        if n >= 0:
            rows.append(dict(clock.spent))
    # A graph that no plan ran, as `time` after the first one, is no part of them.
    names = [name for name in _order(bundle) if any(row.get(name) for row in rows)]
    return PathTimes({name: np.array([row[name] for row in rows]) for name in names},
                     tuple(name for name in names if name in timed.specs), missing)


def _retarget(pipeline: EgoMotionPipeline, human: HumanMotion, joints: np.ndarray | None,
              clock: _Clock, send: Callable[[RobotMotion], None]) -> RobotMotion:
    """Retarget, and make of the rows solved first what the node sends ahead; time it in parts."""
    marks = [time.perf_counter()]
    robot = pipeline.robot

    def on_first(part: RobotMotion) -> None:
        marks.append(time.perf_counter())
        row = round((_FIRST - MARGIN) / part.step_dt)
        stopped = stop_after(part, row, robot.limits, robot.root_limits)
        marks.append(time.perf_counter())
        send(stopped)
        marks.append(time.perf_counter())

    motion = pipeline.retarget(human, joints, first=_FIRST, on_first=on_first)
    marks.append(time.perf_counter())
    names = (*RETARGETING[:2], FIRST_POINTS, RETARGETING[2])
    clock.spent |= zip(names, map(float, np.diff(marks)), strict=True)
    return motion


class _Clock:
    """Seconds by part of the plan being made."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def __call__(self, name: str, action: Callable[[], object]) -> object:
        start = time.perf_counter()
        result = action()
        self.spent[name] = time.perf_counter() - start
        return result

    @contextmanager
    def around(self, name: str, runtime: TimedRuntime) -> Iterator[None]:
        """Tell the graphs of a block from what is around them."""
        before, start = dict(runtime.seconds), time.perf_counter()
        yield
        whole = time.perf_counter() - start
        inside = {graph: runtime.seconds[graph] - before[graph] for graph in before}
        for graph, seconds in inside.items():
            self.spent[graph] = self.spent.get(graph, 0.0) + seconds
        self.spent[name] = whole - sum(inside.values())


def _order(bundle: Bundle) -> list[str]:
    """All parts in the order a plan runs them."""
    graphs = list(bundle.graphs)
    reasoner = [name for name in graphs
                if name in ('vision', 'prefill', 'decode', *PARALLEL_GRAPHS)]
    return ['image message', 'rectification', *reasoner, 'around the reasoner',
            *(name for name in graphs if name not in reasoner), 'around the generator',
            *RETARGETING[:2], FIRST_POINTS, RETARGETING[2], 'limit check', 'motion messages']


def _messages(bundle: Bundle, robot: RobotDescription) -> tuple[Messages | None, str]:
    try:
        from egomotion_ros.bench.messages import Messages
    except ImportError as error:
        return None, f'image and motion messages need ROS 2 ({error})'
    return Messages(bundle.camera, bundle.hash, robot), ''
