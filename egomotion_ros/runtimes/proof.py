# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A backend is used only after it has answered as ONNX Runtime on the CPU does, on that device.

That goes for every GPU backend, torch on a GPU among them, and for OpenVINO, whose kernels follow
the CPU's instruction sets.  The verdict (which graphs may run in half precision, or that it is
refused) is kept beside the engines, for this bundle, library, device (with the driver of a GPU)
and these very engines; another of any of them, also a rebuilt one, is proven anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import hashlib
import logging
from typing import TYPE_CHECKING

from egomotion_ros.bundle import BATCH_GRAPH, Bundle
from egomotion_ros.runtimes.base import Runtime, open_torch
from egomotion_ros.runtimes.cpu import Cpu, probe_cpu
from egomotion_ros.runtimes.engine_cache import EngineCache
from egomotion_ros.runtimes.gpu import Gpu, probe_gpu
from egomotion_ros.runtimes.ort import CUDA, OrtRuntime, ort_version

if TYPE_CHECKING:
    from egomotion_ros.runtimes.parity import ParityReport

_log = logging.getLogger(__name__)
Device = Gpu | Cpu
#: Prompts compared when a robot starts; `egomotion verify` compares more.
FIRST_LOAD_CASES = 4
#: Precisions of a graph on a GPU, tried one after the other before float32: bfloat16 has the range
#: that the states of some models (Gemma 2) need, and fewer digits.
HALVES = ('fp16', 'bf16')


@dataclass(frozen=True)
class Verdict:
    """
    Whether a backend ``passed``, and the SHA-256 of its ``engines``.

    ``half`` has the graphs that are less precise than float32, and which of HALVES they take.
    """

    passed: bool
    half: dict[str, str]
    engines: dict[str, str]


def objection(report: ParityReport) -> str:
    """Why a report does not pass the gate; empty when it does."""
    try:
        report.require()
    except ValueError as error:
        return str(error)
    return ''


def passed(report: ParityReport) -> bool:
    """Whether a report passes the gate."""
    return not objection(report)


def compare(bundle: Bundle, reference: Runtime, candidate: Runtime, cases: int,
            progress: bool = True) -> ParityReport:
    """Compare two runtimes of a bundle over made-up prompts."""
    from egomotion_ros.runtimes.parity import check_parity
    from egomotion_ros.text import TextEncoder
    text = TextEncoder.open(bundle.text_path, bundle.text_length)
    return check_parity(bundle, text, reference, candidate, cases, progress)


def settle(bundle: Bundle, reference: Runtime, make: Callable[[Mapping[str, str]], Runtime],
           graphs: tuple[str, ...], cases: int, ladder: tuple[str, ...] = HALVES) \
        -> tuple[Runtime, ParityReport, dict[str, str]]:
    """
    Find the largest part of ``graphs`` that may be less precise and still passes the gate.

    ``make`` opens a runtime with the graphs named in the precision told of each.  All begin with
    the first of ``ladder``; the graph that follows worst takes the next one, after the last one
    float32, until the gate is passed or none is left.  Returns runtime, report and the graphs
    that stay less precise; whether the report passes is for the caller to look at.
    """
    chosen = dict.fromkeys(graphs, ladder[0])
    while True:
        runtime = make(dict(chosen))
        try:
            report = compare(bundle, reference, runtime, cases)
        except BaseException:
            runtime.close()
            raise
        if passed(report) or not chosen:
            return runtime, report, chosen
        worst = min(chosen, key=lambda name: report.graphs[name].cosine)
        # Candidates drawn at once and one by one are the same: so is what they are drawn with.
        back = {worst} if worst not in ('step', BATCH_GRAPH) else {'step', BATCH_GRAPH}
        rest = ladder[ladder.index(chosen[worst]) + 1:]
        _log.warning('%s is not precise enough in %s and is tried in %s', worst, chosen[worst],
                     rest[0] if rest else 'float32')
        runtime.close()
        for name in back & chosen.keys():
            if rest:
                chosen[name] = rest[0]
            else:
                del chosen[name]


def note_name(bundle: Bundle, backend: str, version: str, device: Device) -> str:
    """Name of the verdict on a backend of this version on this device."""
    parts = f'{bundle.hash} {backend} {version} {device.key}'
    return f'verdict-{hashlib.sha256(parts.encode()).hexdigest()[:32]}'


def verdict(cache: EngineCache, bundle: Bundle, backend: str, version: str,
            device: Device) -> Verdict | None:
    """Return the verdict on a backend; ``None`` when it was never proven."""
    note = cache.read_note(note_name(bundle, backend, version, device))
    half, engines = note.get('half'), note.get('engines')
    if type(note.get('passed')) is not bool or not isinstance(half, dict) \
            or not isinstance(engines, dict):
        return None
    return Verdict(bool(note['passed']), {name: half[name] for name in bundle.graphs
                                          if half.get(name) in HALVES}, engines)


def remember(cache: EngineCache, bundle: Bundle, backend: str, version: str, device: Device,
             half: Mapping[str, str], report: ParityReport, engines: Mapping[str, str]) -> None:
    """Keep a verdict on ``engines``, the ``engine_hashes`` of the runtime that was compared."""
    cache.write_note(note_name(bundle, backend, version, device), {
        'passed': passed(report), 'half': dict(half), 'engines': dict(engines),
        'parity': report.as_dict()})


def open_proven(backend: str, bundle: Bundle, threads: int) -> Runtime:
    """
    Open a backend that ``is_proven``, proven on this device.

    Half precision is used on a GPU where ``egomotion verify`` found it good; a first load proves
    float32.  Engines other than those that were proven (rebuilt, or after damage an older one)
    are proven before they are used.  Raises RuntimeError when it cannot run here, or answers
    otherwise than ONNX Runtime on the CPU; ValueError for fewer than one thread or a bundle that
    cannot be read; OSError when the cache of a GPU backend cannot be written.
    """
    device, cache = probe_device(backend), EngineCache()
    version = backend_version(backend)
    known = verdict(cache, bundle, backend, version, device)
    if known is not None and not known.passed:
        raise RuntimeError(f'{backend} {version} was refused on {device.name}: it answers '
                           'otherwise than ONNX Runtime on the CPU; `egomotion verify --backend '
                           f'{backend}` tries again')
    half = {} if known is None else known.half
    runtime = open_unproven(backend, bundle, half, threads)
    if known is not None and known.engines == dict(runtime.engine_hashes):
        return runtime
    try:
        reference = OrtRuntime(bundle.graphs, threads)
        try:
            report = compare(bundle, reference, runtime, FIRST_LOAD_CASES, progress=False)
        finally:
            reference.close()
        try:
            remember(cache, bundle, backend, version, device, half, report,
                     runtime.engine_hashes)
        except OSError as error:
            # A CPU has no engines to lose: it can be proven at every start.
            if not isinstance(device, Cpu):
                raise
            _log.warning('%s is proven again at the next start: %s', backend, error)
    except BaseException:
        # No verdict: the engines may be good, and stay.
        runtime.close()
        raise
    try:
        report.require()
    except ValueError as error:
        refuse(cache, bundle, runtime, backend, version, device)
        raise RuntimeError(f'{backend} {version} is refused on {device.name}: {error}') from None
    return runtime


def probe_device(backend: str) -> Device:
    """Return the device a backend would run on; RuntimeError when there is none."""
    return probe_cpu() if backend == 'openvino' else probe_gpu()


def open_unproven(backend: str, bundle: Bundle, half: Mapping[str, str],
                  threads: int) -> Runtime:
    """Open a backend that ``is_proven`` unproven; RuntimeError when it cannot run here."""
    if backend == 'openvino':
        from egomotion_ros.runtimes.openvino import OpenVinoRuntime
        return OpenVinoRuntime(bundle.graphs, threads)
    if backend == 'onnxruntime-cuda':
        return OrtRuntime(bundle.graphs, provider=CUDA)
    if backend == 'torch':
        return open_torch(bundle, threads)
    from egomotion_ros.runtimes.tensorrt import TensorRtRuntime
    return TensorRtRuntime(bundle, backend, half)


def backend_version(backend: str) -> str:
    """Version of the library of a backend; AbsentError when it is not installed."""
    if backend == 'openvino':
        from egomotion_ros.runtimes.openvino import openvino_version
        return openvino_version()
    if backend == 'onnxruntime-cuda':
        return ort_version()
    if backend == 'torch':
        import torch
        return str(torch.__version__)
    from egomotion_ros.runtimes.engine_build import import_tensorrt
    return str(import_tensorrt(backend).__version__)


def refuse(cache: EngineCache, bundle: Bundle, runtime: Runtime, backend: str, version: str,
           device: Device) -> None:
    """
    Close a runtime that answers wrongly and drop its engines, if it has any, from the cache.

    Where engines from before a rebuild take their place, the next load proves those.
    """
    from egomotion_ros.runtimes.tensorrt import TensorRtRuntime
    runtime.close()
    if isinstance(runtime, TensorRtRuntime) and runtime.refuse(bundle):
        cache.write_note(note_name(bundle, backend, version, device), {})
