# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What ``egomotion bench`` measures, as one dictionary, and the tables it prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
import os
from pathlib import Path
import platform
from typing import Any

from egomotion_ros.bench import memory, path, roofline, scaling
from egomotion_ros.bench.cpu import CPU_BACKENDS
from egomotion_ros.bundle import BATCH_GRAPH, DECODERS, PARALLEL_GRAPHS, Bundle
from egomotion_ros.runtimes.base import Runtime, open_runtime
from egomotion_ros.runtimes.loops import batches
from egomotion_ros.runtimes.timing import Ratio, Timing, plan_actions, rounds

#: What can be measured, in the order it is.
SECTIONS = ('path', 'graphs', 'backends', 'scaling', 'peers')
#: Name of the side that is not exported at all.
EAGER = 'eager torch'
#: The same where candidates that the bundle draws at once are drawn one after the other.
EAGER_SINGLE = 'eager torch, one by one'
_TRAIN = 'pip install -r requirements/train.txt'


@dataclass(frozen=True)
class Settings:
    """
    What to measure and how.

    ``bundles`` folders, the first of which is the one that counts; ``backends`` to compare, the
    first of which runs all else; ``runs`` plans and rounds.
    """

    bundles: tuple[Bundle, ...]
    backends: tuple[str, ...] = ('onnxruntime',)
    threads: int = 2
    runs: int = 40
    robot: str = 'unitree_g1'
    sections: tuple[str, ...] = SECTIONS


def make(settings: Settings) -> dict[str, Any]:
    """
    Measure and return the report; ``notes`` in it says what could not be measured and why.

    Raises ValueError when a backend cannot run here or a count is below one.
    """
    if settings.runs < 1:
        raise ValueError(f'runs must be at least 1, got {settings.runs}')
    bundle, backend = settings.bundles[0], settings.backends[0]
    runtime = _open(backend, bundle, settings.threads)
    report: dict[str, Any] = {
        'bundle': bundle.hash, 'backend': backend, 'threads': settings.threads,
        'runs': settings.runs, 'machine': machine(), 'notes': {}}
    try:
        for name in settings.sections:
            try:
                _SECTIONS[name](settings, runtime, report)
            except ImportError as error:
                report['notes'][name] = f'not measured: {error}; {_TRAIN}'
    finally:
        runtime.close()
    report['machine']['load_after'] = os.getloadavg()[0]
    return report


def _measure_path(settings: Settings, runtime: Runtime, report: dict[str, Any]) -> None:
    times = path.measure(runtime, settings.bundles[0], settings.robot, settings.runs)
    report['path'] = times.as_dict()
    if times.missing:
        report['notes']['path'] = times.missing


def _measure_graphs(settings: Settings, runtime: Runtime, report: dict[str, Any]) -> None:
    if runtime.name not in CPU_BACKENDS:
        report['notes']['graphs'] = f'the roof is measured on the CPU; {runtime.name} is not there'
        return
    bundle = settings.bundles[0]
    costs = roofline.measure(runtime, bundle, settings.threads, settings.runs)
    runs = batches(bundle.candidates, bundle.batch)
    generator = costs.together({
        'condition': 1, 'decode_motion': bundle.candidates} | {
        graph: bundle.steps * sum((size > 1) == (graph == BATCH_GRAPH) for size in runs)
        for graph in ('step', BATCH_GRAPH) if graph in bundle.graphs})
    report['roofline'] = costs.as_dict() | {'generator_share': generator}
    report['memory_mb'] = memory.measure(bundle.directory, settings.threads, runtime.name)


def _measure_backends(settings: Settings, runtime: Runtime, report: dict[str, Any]) -> None:
    bundle = settings.bundles[0]
    sides = {settings.backends[0]: plan_actions(runtime, bundle)}
    opened = []
    try:
        for other in settings.bundles:
            for backend in settings.backends:
                name = backend if other is bundle else f'{backend} {other.directory.name}'
                if name not in sides:
                    opened.append(_open(backend, other, settings.threads))
                    sides[name] = plan_actions(opened[-1], other)
        for decoder in other_decoders(bundle):
            sides[f'{settings.backends[0]}, {decoder}'] = plan_actions(
                runtime, replace(bundle, decoder=decoder))
        try:
            for name, batched in ((EAGER, True), (EAGER_SINGLE, False)):
                if batched or bundle.batch > 1:
                    opened.append(_eager(bundle, settings.threads, batched))
                    sides[name] = plan_actions(opened[-1], bundle)
        except ImportError as error:
            report['notes'][EAGER] = f'not measured: {error}; {_TRAIN}'
        figures: dict[str, Any] = {'milliseconds': {}, 'ratio': {}}
        first = settings.backends[0]
        for part in sides[first]:
            spent = rounds({side: actions[part] for side, actions in sides.items()
                            if part in actions}, settings.runs, part)
            figures['milliseconds'][part] = {
                side: Timing.of(seconds).as_dict() for side, seconds in spent.items()}
            figures['ratio'][part] = {
                side: Ratio.of(seconds, spent[first]).as_dict()
                for side, seconds in spent.items() if side != first}
        report['backends'] = figures | {'reference': first}
    finally:
        for other in opened:
            other.close()


def _measure_scaling(settings: Settings, runtime: Runtime, report: dict[str, Any]) -> None:
    report['scaling'] = scaling.measure(
        runtime, settings.bundles[0], settings.threads, max(settings.runs // 2, 1))
    report['notes'] |= {f'scaling, {name}': note
                        for name, note in report['scaling'].pop('notes').items()}


def _measure_peers(settings: Settings, runtime: Runtime, report: dict[str, Any]) -> None:
    if runtime.name not in CPU_BACKENDS:
        report['notes']['peers'] = f'peers are compared on the CPU, in {" or ".join(CPU_BACKENDS)}'
        return
    from egomotion_ros.bench import versus
    report['peers'] = versus.measure(runtime, settings.bundles[0], settings.threads,
                                     max(settings.runs // 2, 1)).as_dict()


_SECTIONS = {'path': _measure_path, 'graphs': _measure_graphs, 'backends': _measure_backends,
             'scaling': _measure_scaling, 'peers': _measure_peers}


def other_decoders(bundle: Bundle) -> tuple[str, ...]:
    """Ways to decode primitives that a bundle has the graphs for, but its own."""
    if PARALLEL_GRAPHS[0] not in bundle.graphs:
        return ()
    return tuple(decoder for decoder in DECODERS if decoder != bundle.decoder)


def _open(backend: str, bundle: Bundle, threads: int) -> Runtime:
    try:
        return open_runtime(backend, bundle, threads)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def _eager(bundle: Bundle, threads: int, batched: bool) -> Runtime:
    """Open the modules the graphs were made of, in eager torch; random weights take as long."""
    import torch

    from egomotion_ros.runtimes.torch_runtime import TorchRuntime, modules_of
    torch.set_num_threads(threads)
    return TorchRuntime(modules_of(bundle, batched))


def machine() -> dict[str, Any]:
    """Name processor, cores, libraries and how busy the machine is."""
    found: dict[str, Any] = {'processor': _processor(), 'cores': os.cpu_count(),
                             'load_before': os.getloadavg()[0],
                             'python': platform.python_version()}
    for name in ('onnxruntime', 'openvino', 'numpy', 'torch'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the tables of a report as text."""
    busy = report['machine']
    yield (f'{busy["processor"]}, {busy["cores"]} cores, load {busy["load_before"]:.1f} to '
           f'{busy["load_after"]:.1f}; {report["backend"]}, {report["threads"]} threads')
    for name, table in (('path', _path_lines), ('roofline', _graph_lines),
                        ('backends', _backend_lines), ('scaling', _scaling_lines),
                        ('peers', _peer_lines)):
        if name in report:
            yield ''
            yield from table(report)
    for name, note in report['notes'].items():
        yield f'{name}: {note}'


def _path_lines(report: dict[str, Any]) -> Iterator[str]:
    figures = report['path']
    yield f'{"one plan":24} {"p50":>8} {"p95":>8} {"p99":>8}  ms'
    for name, item in figures['milliseconds'].items():
        yield f'{name:24} {item["p50"]:8.2f} {item["p95"]:8.2f} {item["p99"]:8.2f}'
    yield ', '.join(f'{name} {share:.1%}' for name, share in figures['share'].items())


def _graph_lines(report: dict[str, Any]) -> Iterator[str]:
    figures, used = report['roofline'], report['memory_mb']
    yield (f'{"graph, run once":24} {"p50":>8} {"p95":>8} {"p99":>8}  ms {"MFLOP":>9} '
           f'{"GFLOP/s":>8} {"share":>6} {"MB":>6}')
    for item in figures['graphs']:
        name = f'{item["name"]} (in {item["of"]})' if item['of'] else item['name']
        spent = item['milliseconds']
        memory_used = f'{used[item["name"]]:6.1f}' if item['name'] in used else ''
        yield (f'{name:24} {spent["p50"]:8.2f} {spent["p95"]:8.2f} {spent["p99"]:8.2f}     '
               f'{item["flops"] / 1e6:9.1f} {item["gflops"]:8.1f} {item["share"]:6.1%} '
               f'{memory_used}')
    yield (f'matrix product {figures["gemm"]}: {figures["gemm_gflops"]:.1f} GFLOP/s; generator '
           f'(condition, all steps, motion decoder): {figures["generator_share"]:.1%} of it; '
           f'process {used["process"]:.0f} MB')


def _backend_lines(report: dict[str, Any]) -> Iterator[str]:
    figures = report['backends']
    sides = list(figures['milliseconds']['plan'])
    first = figures['reference']
    yield f'{"p50, ms":16}' + ''.join(f'{side:>28}' for side in sides)
    for part, row in figures['milliseconds'].items():
        ratios = figures['ratio'][part]
        cells = []
        for side in sides:
            text = f'{row[side]["p50"]:.2f}' if side in row else ''
            if side in ratios:
                item = ratios[side]
                text += f' {item["value"]:.2f}x [{item["low"]:.2f}, {item["high"]:.2f}]'
            cells.append(f'{text:>28}')
        yield f'{part:16}' + ''.join(cells)
    if len(sides) > 1:
        yield f'x: times the time of {first}, with the 95 % interval over rounds'


def _scaling_lines(report: dict[str, Any]) -> Iterator[str]:
    for name, curve in report['scaling'].items():
        yield f'{name:12}' + ''.join(f'{size:>9}' for size in curve)
        yield f'{"p50, ms":12}' + ''.join(f'{item["p50"]:9.1f}' for item in curve.values())


def _peer_lines(report: dict[str, Any]) -> Iterator[str]:
    figures = report['peers']
    yield (f'{"generator":14} {"steps":>5} {"frames":>6} {"M weights":>9} {"GFLOP":>8} '
           f'{"ms":>9}  times the time of this bundle')
    yield (f'{"this bundle":14} {figures["own_steps"]:5} {"":6} {"":9} {"":8} '
           f'{figures["own_milliseconds"]["p50"]:9.1f}')
    for item in figures['peers']:
        slower, equal = (Ratio(**item[key]) for key in ('slower', 'slower_at_equal_steps'))
        yield (f'{item["name"]:14} {item["steps"]:5} {item["frames"]:6} '
               f'{item["parameters"] / 1e6:9.1f} {item["gflops"]:8.1f} '
               f'{item["milliseconds"]:9.1f}  {slower}; at {figures["own_steps"]} steps {equal}')
