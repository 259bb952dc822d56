# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One picture of a benchmark report (needs matplotlib)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_CURVES = ('primitives', 'steps', 'images', 'frames', 'threads')


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw what ``report`` (:func:`egomotion_ros.bench.report.make`) holds as a PNG file."""
    panels: list[tuple[Callable[..., None], Any]] = []
    if 'path' in report:
        panels.append((_path, report['path']))
    if 'roofline' in report:
        panels.append((_roofline, report['roofline']))
    if 'backends' in report:
        panels.append((_backends, report['backends']))
    if 'scaling' in report:
        panels += [(_curve(name), report['scaling'][name]) for name in _CURVES
                   if name in report['scaling']]
    if 'peers' in report:
        panels.append((_peers, report['peers']))
    if not panels:
        raise ValueError('the report holds nothing to draw')
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.6 * rows), layout='constrained')
    machine = report['machine']
    figure.suptitle(f'{machine["processor"]}, {report["threads"]} threads, bundle '
                    f'{report["bundle"][:12]}', fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (panel, figures) in zip(axes, panels, strict=False):
        panel(axis, figures)
        axis.tick_params(labelsize=7)
    for axis in axes[len(panels):]:
        axis.set_axis_off()
    figure.savefig(path, dpi=110)


def _bars(axis: Axes, names: list[str], values: list[float], title: str, label: str,
          text: str) -> None:
    axis.barh(names, values, color='tab:blue')
    for n, value in enumerate(values):
        axis.text(value, n, f' {text.format(value)}', va='center', fontsize=7)
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(label, fontsize=8)


def _path(axis: Axes, figures: dict[str, Any]) -> None:
    times = {name: value for name, value in figures['mean_milliseconds'].items()
             if name != 'whole'}
    share = figures['share']
    _bars(axis, list(times), list(times.values()),
          f'One plan: graphs {share["graphs"]:.0%}, retargeting {share["retargeting"]:.0%}, '
          f'everything else {share["everything else"]:.0%}', 'ms, mean', '{:.1f}')


def _roofline(axis: Axes, figures: dict[str, Any]) -> None:
    graphs = figures['graphs']
    _bars(axis, [f'{item["name"]} (in {item["of"]})' if item['of'] else item['name']
                 for item in graphs], [100 * item['share'] for item in graphs],
          f'Share of the matrix product, {figures["gemm_gflops"]:.0f} GFLOP/s', '%', '{:.0f}')


def _backends(axis: Axes, figures: dict[str, Any]) -> None:
    plan = figures['milliseconds']['plan']
    _bars(axis, list(plan), [item['p50'] for item in plan.values()],
          'All graphs of a plan', 'ms, p50', '{:.1f}')


def _curve(name: str) -> Callable[[Axes, dict[str, Any]], None]:
    def panel(axis: Axes, figures: dict[str, Any]) -> None:
        sizes = [int(size) for size in figures]
        axis.plot(sizes, [item['p50'] for item in figures.values()], 'o-')
        axis.fill_between(sizes, [item['p50'] for item in figures.values()],
                          [item['p95'] for item in figures.values()], alpha=0.2)
        axis.set_ylim(bottom=0)
        axis.set_xlabel(name, fontsize=8)
        axis.set_ylabel('ms, p50 to p95', fontsize=8)
        axis.set_title(f'Cost against {name}', fontsize=9)

    return panel


def _peers(axis: Axes, figures: dict[str, Any]) -> None:
    names = [f'this bundle, {figures["own_steps"]}']
    values = [figures['own_milliseconds']['p50']]
    for item in figures['peers']:
        names.append(f'{item["name"]}, {item["steps"]}')
        values.append(item['milliseconds'])
    _bars(axis, names, values, 'Generator alone, steps as stated', 'ms, p50', '{:.0f}')
    axis.set_xscale('log')
