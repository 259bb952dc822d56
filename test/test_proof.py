# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A backend is used once its very engines are proven; what fails before a verdict loses none.

The stand-in for a GPU is ONNX Runtime on the CPU with made-up engines in a real cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
import sys

import pytest

from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes import base, gpu, proof
from egomotion_ros.runtimes.base import PROVEN_BACKENDS, open_runtime
from egomotion_ros.runtimes.engine_build import BuiltEngine
from egomotion_ros.runtimes.engine_cache import EngineCache, EngineKey
from egomotion_ros.runtimes.gpu import Gpu
from egomotion_ros.runtimes.ort import OrtRuntime

GPU = Gpu('A', 89, '570.1')
BACKEND = 'tensorrt'
#: What opens the real ones; tests put a stand-in in its place.
UNPROVEN = proof.open_unproven


class Device:
    """Opens stand-ins whose engine of ``encode`` comes from the cache; counts comparisons."""

    def __init__(self, bundle: Bundle) -> None:
        self.key = EngineKey.of(bundle, 'encode', BACKEND, '1', GPU, 'fp32')
        self.opened: list[OrtRuntime] = []
        self.compared = 0
        self.content = b'first'

    def get(self, rebuild: bool = False) -> bytes:
        return EngineCache().get(self.key, lambda timing: BuiltEngine(self.content, b''),
                                 rebuild=rebuild)[0]

    def open(self, backend: str, bundle: Bundle, half: dict[str, str],
             threads: int) -> OrtRuntime:
        runtime = OrtRuntime(bundle.graphs, 1)
        runtime.name = backend
        runtime.engine_hashes = {'encode': hashlib.sha256(self.get()).hexdigest()}
        self.opened.append(runtime)
        return runtime

    def all_closed(self) -> bool:
        return not any(runtime._sessions for runtime in self.opened)


@pytest.fixture(scope='module')
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture
def device(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    device, compare = Device(bundle), proof.compare

    def counted(*args, **settings):
        device.compared += 1
        return compare(*args, **settings)

    for module in (proof, gpu):
        monkeypatch.setattr(module, 'probe_gpu', lambda: GPU)
    monkeypatch.setattr(proof, 'backend_version', lambda backend: '1')
    monkeypatch.setattr(proof, 'open_unproven', device.open)
    monkeypatch.setattr(proof, 'compare', counted)
    monkeypatch.setattr(proof, 'FIRST_LOAD_CASES', 1)
    return device


def test_proven_engines_are_compared_once_and_others_again(device: Device,
                                                           bundle: Bundle) -> None:
    for content, rebuild, compared in ((b'first', False, 1), (b'first', False, 1),
                                       (b'rebuilt', True, 2), (b'rebuilt', False, 2)):
        device.content = content
        device.get(rebuild)
        open_runtime(BACKEND, bundle, 1).close()
        assert device.compared == compared
    # Damaged: the engine from before the rebuild stands in for it.
    path = EngineCache().path(device.key)
    path.write_bytes(path.read_bytes()[:-1])
    open_runtime(BACKEND, bundle, 1).close()
    assert device.compared == 3
    for path in EngineCache().folder.glob('encode-*'):
        path.unlink()
    device.content = b'cleared'
    open_runtime(BACKEND, bundle, 1).close()
    assert device.compared == 4


def test_a_comparison_that_fails_closes_the_runtime_and_keeps_the_engines(
        device: Device, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match='at least 1') as caught:
        open_runtime(BACKEND, bundle, 0)
    assert 'refused' not in str(caught.value) and device.all_closed()
    (tmp_path / 'text.json').write_text('{}')
    with pytest.raises(ValueError):
        open_runtime(BACKEND, dataclasses.replace(bundle, text_path=tmp_path / 'text.json'), 1)
    assert device.all_closed()
    with monkeypatch.context() as patch:
        patch.setattr(OrtRuntime, '_run', failing(RuntimeError('the device fell off the bus')))
        with pytest.raises(RuntimeError, match='fell off'):
            open_runtime(BACKEND, bundle, 1)
    assert len(device.opened) == 3 and device.all_closed()
    assert EngineCache().load(device.key) == b'first'
    assert proof.verdict(EngineCache(), bundle, BACKEND, '1', GPU) is None


def failing(error: Exception):
    def fail(*_args, **_settings):
        raise error
    return fail


@pytest.mark.parametrize('error', [
    RuntimeError('no room'), ValueError('cannot load it'), PermissionError('read-only')])
def test_auto_goes_on_to_the_next_backend_whatever_fails(
        device: Device, bundle: Bundle, error: Exception,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, 'open_unproven', failing(error))
    runtime = open_runtime('auto', bundle, 1)
    assert runtime.name == 'onnxruntime'
    for name in PROVEN_BACKENDS:
        assert f'{name}: {error}' in runtime.fallback_reason
    runtime.close()


def test_auto_runs_where_no_engine_can_be_kept(device: Device, bundle: Bundle, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    runtime = open_runtime('auto', bundle, 1)
    assert runtime.name == 'onnxruntime' and 'Not a directory' in runtime.fallback_reason
    runtime.close()


def test_auto_still_refuses_what_no_backend_can_read(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / 'bad.onnx').write_bytes(b'no graph')
    bad = dataclasses.replace(bundle.graphs['encode'], path=tmp_path / 'bad.onnx')
    with pytest.raises(ValueError, match='cannot load.*no readable'):
        base.open_runtime('auto', dataclasses.replace(bundle, graphs={'encode': bad}), 1)
    with pytest.raises(ValueError, match='threads must be at least 1'):
        open_runtime('auto', bundle, 0)


@pytest.mark.parametrize('gpu', [True, False])
def test_torch_is_proven_where_it_runs_on_a_gpu(device: Device, bundle: Bundle, gpu: bool,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip('torch')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    assert base.is_proven('torch') is gpu
    if not gpu:
        open_runtime('torch', bundle, 1).close()
        assert device.compared == 0 and not device.opened
        return
    for _ in range(2):
        open_runtime('torch', bundle, 1).close()
        # Once: the verdict is kept.
        assert device.compared == 1
    assert [runtime.name for runtime in device.opened] == ['torch', 'torch']


def test_torch_that_answers_wrongly_on_a_gpu_is_refused_at_once_and_after(
        device: Device, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip('torch')
    from egomotion_ros.runtimes.torch_graphs import BundleTorchRuntime
    run = BundleTorchRuntime._run

    def wrong(self, graph, arrays):
        return {name: value + 1 if name == 'features' else value
                for name, value in run(self, graph, arrays).items()}

    opened = []

    def real(backend: str, bundle: Bundle, half: dict[str, str], threads: int):
        # As it is on a GPU but for the device, which is not here.
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, 'is_available', lambda: False)
            opened.append(UNPROVEN(backend, bundle, half, threads))
        return opened[-1]

    monkeypatch.setattr(proof, 'open_unproven', real)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(BundleTorchRuntime, '_run', wrong)
    with pytest.raises(RuntimeError, match='torch 1 is refused on A: torch does not follow'):
        open_runtime('torch', bundle, 1)
    with pytest.raises(RuntimeError, match='was refused on A'):
        open_runtime('torch', bundle, 1)
    assert len(opened) == 1 and not opened[0]._graphs


def test_without_onnx_runtime_nothing_is_proven_and_the_next_is_tried(
        bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('proof', 'ort'):
        monkeypatch.setitem(sys.modules, f'egomotion_ros.runtimes.{name}', None)
    with pytest.raises(RuntimeError, match='nothing to compare it with'):
        open_runtime('openvino', bundle, 1)
    pytest.importorskip('torch')
    runtime = open_runtime('auto', bundle, 1)
    assert runtime.name == 'torch' and 'nothing to compare it with' in runtime.fallback_reason
    runtime.close()
