# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Rows of the figures table: what was measured, what was to be reached, whether it was.

One list of rows feeds both the table for people and the JSON, so that the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
import math
from typing import Any


@dataclass(frozen=True)
class Goal:
    """What a figure must keep: ``kind`` is 'at least', 'at most' or 'below' the ``bound``."""

    kind: str
    bound: float

    def __post_init__(self) -> None:
        if self.kind not in ('at least', 'at most', 'below'):
            raise ValueError(f"a goal is 'at least', 'at most' or 'below', got {self.kind!r}")

    def met(self, value: float) -> bool:
        """Whether ``value`` keeps the goal; a value that is not a number keeps none."""
        if self.kind == 'at least':
            return value >= self.bound
        return value < self.bound if self.kind == 'below' else value <= self.bound


@dataclass(frozen=True)
class Row:
    """
    One line of the table.

    ``value`` None: not measured, and ``note`` says why.  ``unit`` '%' shows a share in per cent;
    ``interval`` bounds of the 95 % interval in the unit of the value; ``goal`` None: the figure
    is stated, nothing is asked of it.
    """

    section: str
    figure: str
    value: float | None
    unit: str = ''
    goal: Goal | None = None
    interval: tuple[float, float] | None = None
    note: str = ''

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal or a value."""
        if self.goal is None or self.value is None:
            return None
        return self.goal.met(self.value)

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON; what is not finite becomes null."""
        goal = None
        if self.goal is not None:
            goal = {'kind': self.goal.kind, 'bound': self.goal.bound}
        finite = self.value is not None and math.isfinite(self.value)
        return {'section': self.section, 'figure': self.figure,
                'value': self.value if finite else None, 'unit': self.unit, 'goal': goal,
                'interval': None if self.interval is None else list(self.interval),
                'met': self.met, 'note': self.note}


def absent(section: str, figures: Mapping[str, tuple[str, Goal | None]], why: str) -> list[Row]:
    """Rows of ``figures`` (name -> unit and goal) that were not measured, and why."""
    return [Row(section, name, None, unit, goal, note=why)
            for name, (unit, goal) in figures.items()]


def measured(section: str, figures: Mapping[str, tuple[str, Goal | None]],
             values: Mapping[str, float], note: str = '') -> list[Row]:
    """Rows of the same ``figures`` with their ``values``; KeyError names one that is missing."""
    return [Row(section, name, float(values[name]), unit, goal, note=note)
            for name, (unit, goal) in figures.items()]


def rate(section: str, figure: str, summary: Mapping[str, Any], goal: Goal | None = None,
         key: str = 'reached') -> Row:
    """Row of a share of :func:`egomotion_ros.evaluation.goals.summarise`."""
    return Row(section, figure, summary[key], '%', goal, tuple(summary[f'{key}_interval']),
               f'{summary["count"]} scenes')


def format_rows(rows: Iterable[Row]) -> str:
    """Table for people: figure, value with interval, goal, met or not."""
    rows = list(rows)
    lines, section = [], None
    width = max((len(row.figure) for row in rows), default=0)
    for row in rows:
        if row.section != section:
            lines += ['', row.section] if lines else [row.section]
            section = row.section
        asked = '' if row.goal is None else f'{row.goal.kind} {_number(row.goal.bound, row.unit)}'
        verdict = {None: '', True: 'met', False: 'NOT MET'}[row.met]
        value = '-' if row.value is None else _number(row.value, row.unit)
        if row.interval is not None:
            low, high = (_number(bound, row.unit) for bound in row.interval)
            value += f' [{low}, {high}]'
        line = f'  {row.figure:{width}} {value:26} {asked:18} {verdict:8} {row.note}'
        lines.append(line.rstrip())
    return '\n'.join(lines)


def _number(value: float, unit: str) -> str:
    if unit == '%':
        return f'{100 * value:.1f} %'
    return f'{value:.4g} {unit}'.rstrip()
