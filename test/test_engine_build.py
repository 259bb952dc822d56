# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What is asked of TensorRT 10, which builds on a GPU only, on a stand-in for its module.

The stand-in has what the adapter calls of the Python API of TensorRT 10, and notes the calls.
With TensorRT-RTX, which is real, graphs are built in test_runtimes_tensorrt.py.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.engine_build import build_engine, import_tensorrt
from egomotion_ros.runtimes.engine_cache import EngineCache
from egomotion_ros.runtimes.gpu import Gpu
from egomotion_ros.runtimes.tensorrt import cached_engine

GPU = Gpu('A', 89, '570.1')
#: The flags of 10.0 and later, and of a version that takes types from the graph anyway.
TOLD = IntEnum('NetworkDefinitionCreationFlag', {'EXPLICIT_BATCH': 0, 'STRONGLY_TYPED': 1})
SILENT = IntEnum('NetworkDefinitionCreationFlag', {'EXPLICIT_BATCH': 0})


class TimingCache:
    """Times of kernels: what was given, and one more by every build."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> memoryview:
        return memoryview(self.data)


class Config:
    """The settings of one build."""

    def __init__(self) -> None:
        self.progress_monitor: Any = None
        self.timing: TimingCache | None = None
        self.ignores_mismatch: bool | None = None

    def create_timing_cache(self, data: bytes) -> TimingCache:
        assert isinstance(data, bytes)
        return TimingCache(data)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        self.timing, self.ignores_mismatch = cache, ignore_mismatch
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self.timing


class Trt(ModuleType):
    """Stands for the module; ``flags`` and ``configs`` are those of all builds so far."""

    def __init__(self, name: str, flag: type[IntEnum]) -> None:
        super().__init__(name)
        self.__version__ = '10.9.0'
        self.NetworkDefinitionCreationFlag = flag
        self.IProgressMonitor = type('IProgressMonitor', (), {})
        self.Logger = type('Logger', (), {'ERROR': 1, '__init__': lambda *_: None})
        self.flags: list[int] = []
        self.configs: list[Config] = []
        #: What the parser objects to, and what the builder says of a step.
        self.objections: list[str] = []
        self.answers: list[bool] = []
        self.fails = False

    def Builder(self, logger: Any) -> SimpleNamespace:  # noqa: N802  (the name in TensorRT)
        def create_network(flags: int) -> SimpleNamespace:
            self.flags.append(flags)
            return SimpleNamespace(graph=None)

        def create_builder_config() -> Config:
            self.configs.append(Config())
            return self.configs[-1]

        def build(network: SimpleNamespace, config: Config) -> memoryview | None:
            monitor = config.progress_monitor
            monitor.phase_start('tactics', None, 1)
            self.answers.append(monitor.step_complete('tactics', 0))
            if not self.answers[-1] or self.fails:
                return None
            monitor.phase_finish('tactics')
            if config.timing is not None:
                config.timing.data += b'+' + network.graph
            return memoryview(b'engine of ' + network.graph)

        return SimpleNamespace(create_network=create_network,
                               create_builder_config=create_builder_config,
                               build_serialized_network=build)

    def OnnxParser(self, network: SimpleNamespace,  # noqa: N802
                   logger: Any) -> SimpleNamespace:
        def parse(data: bytes) -> bool:
            network.graph = data
            return not self.objections

        return SimpleNamespace(
            parse=parse, parse_from_file=lambda path: parse(Path(path).stem.encode()),
            num_errors=len(self.objections),
            get_error=lambda n: SimpleNamespace(desc=lambda: self.objections[n]))


@pytest.fixture
def ten(monkeypatch: pytest.MonkeyPatch) -> Trt:
    """TensorRT 10, found as the real one would be."""
    monkeypatch.setitem(sys.modules, 'tensorrt', Trt('tensorrt', TOLD))
    return import_tensorrt('tensorrt')


@pytest.mark.parametrize(('flag', 'flags'), [(TOLD, 0b10), (SILENT, 0)])
def test_types_come_from_the_graph_where_that_must_be_said(flag: type[IntEnum],
                                                           flags: int) -> None:
    trt = Trt('tensorrt', flag)
    assert build_engine(trt, b'graph').engine == b'engine of graph'
    assert trt.flags == [flags]


def test_the_timing_cache_goes_in_and_comes_out(ten: Trt) -> None:
    first = build_engine(ten, b'one')
    assert first.timing == b'+one' and type(first.timing) is type(first.engine) is bytes
    again = build_engine(ten, b'two', timing=first.timing)
    assert again.timing == b'+one+two'
    # Times of another device would choose wrong kernels: a cache that does not fit is not taken.
    assert [config.ignores_mismatch for config in ten.configs] == [False, False]


def test_rtx_is_given_no_timing_cache() -> None:
    rtx = Trt('tensorrt_rtx', SILENT)
    built = build_engine(rtx, b'graph', timing=b'of another library')
    assert built.timing == b'' and rtx.configs[0].timing is None


def test_builds_of_one_device_share_their_times_by_the_cache(
        ten: Trt, tiny_bundle: Path, tmp_path: Path) -> None:
    bundle, cache = Bundle.open(tiny_bundle), EngineCache(tmp_path)

    def build(graph: str, gpu: Gpu = GPU) -> tuple[bytes, bool]:
        return cached_engine(bundle, graph, 'tensorrt', gpu, 'fp32', cache)

    assert build('encode') == (b'engine of encode', True)
    assert build('time') == (b'engine of time', True)
    assert build('encode') == (b'engine of encode', False)
    assert [config.timing.data for config in ten.configs] == [b'+encode', b'+encode+time']
    # Another device has times of its own; so has another version.
    build('encode', Gpu('B', 90, '570.1'))
    ten.__version__ = '10.10.0'
    build('encode')
    assert [config.timing.data for config in ten.configs[2:]] == [b'+encode'] * 2


def test_what_the_parser_says_is_passed_on(ten: Trt) -> None:
    ten.objections = ['no operator Abacus', 'no input']
    with pytest.raises(RuntimeError,
                       match='10.9.0 cannot read the graph: no operator Abacus; no input'):
        build_engine(ten, b'graph')
    assert not ten.answers


def test_a_build_that_fails_or_is_cancelled_leaves_no_engine(ten: Trt, tiny_bundle: Path,
                                                             tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(RuntimeError, match='cancelled'):
        build_engine(ten, b'graph', cancel=cancel)
    ten.fails = True
    cache = EngineCache(tmp_path)
    with pytest.raises(RuntimeError, match='10.9.0 cannot build the graph'):
        cached_engine(Bundle.open(tiny_bundle), 'encode', 'tensorrt', GPU, 'fp32', cache)
    assert ten.answers == [False, True]
    assert not list(tmp_path.glob('*.engine')) and not list(tmp_path.glob('timing-*'))
