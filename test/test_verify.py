# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What answers wrongly is found and refused; what is only imprecise goes back graph by graph."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
import pytest

from egomotion_ros.bundle import Bundle, GraphSpec
from egomotion_ros.cli import main
from egomotion_ros.runtimes import proof, tensorrt
from egomotion_ros.runtimes.cpu import probe_cpu
from egomotion_ros.runtimes.engine_build import BuiltEngine
from egomotion_ros.runtimes.engine_cache import EngineCache, EngineKey
from egomotion_ros.runtimes.gpu import Gpu
from egomotion_ros.runtimes.ort import OrtRuntime
from egomotion_ros.runtimes.proof import compare, passed, settle


@pytest.fixture(scope='module')
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def spoilt(bundle: Bundle, graph: str, folder: Path) -> GraphSpec:
    """Give a graph whose largest weights changed their sign."""
    proto = onnx.load(bundle.graphs[graph].path)
    largest = max(proto.graph.initializer, key=lambda item: int(np.prod(item.dims)))
    largest.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(largest), largest.name))
    onnx.save(proto, folder / 'bad.onnx')
    return dataclasses.replace(bundle.graphs[graph], path=folder / 'bad.onnx')


@pytest.fixture
def broken(bundle: Bundle, tmp_path: Path):
    """Open the bundle with a motion decoder whose largest weights changed their sign."""
    bad = spoilt(bundle, 'decode_motion', tmp_path)

    def make(graphs: tuple[str, ...]) -> OrtRuntime:
        changed = {'decode_motion': bad} if 'decode_motion' in graphs else {}
        return OrtRuntime({**bundle.graphs, **changed}, 1)

    return make


def test_the_graph_that_follows_worst_goes_back_until_the_gate_is_passed(bundle: Bundle, broken,
                                                                         caplog) -> None:
    reference = OrtRuntime(bundle.graphs, 1)
    runtime, report, graphs = settle(bundle, reference, broken, ('decode_motion', 'encode'), 1)
    assert graphs == {'encode': 'fp16'} and passed(report)
    assert 'decode_motion is not precise enough in fp16 and is tried in bf16' in caplog.text
    assert 'decode_motion is not precise enough in bf16 and is tried in float32' in caplog.text
    runtime.close()


def test_what_float16_cannot_hold_is_tried_in_bfloat16(bundle: Bundle, broken) -> None:
    tried = []

    def make(half: dict[str, str]) -> OrtRuntime:
        tried.append(half)
        return broken([name for name, kind in half.items() if kind == 'fp16'])

    runtime, report, graphs = settle(bundle, OrtRuntime(bundle.graphs, 1), make,
                                     ('decode_motion', 'encode'), 1)
    assert graphs == {'decode_motion': 'bf16', 'encode': 'fp16'} and passed(report)
    assert tried == [{'decode_motion': 'fp16', 'encode': 'fp16'}, graphs]
    runtime.close()


@pytest.mark.parametrize('graph', ['step', 'step_batch'])
def test_what_draws_one_candidate_goes_back_with_what_draws_several(
        tiny_bundle_of_four: Path, tmp_path: Path, graph: str) -> None:
    bundle = Bundle.open(tiny_bundle_of_four)
    bad = spoilt(bundle, graph, tmp_path)
    runtime, report, graphs = settle(
        bundle, OrtRuntime(bundle.graphs, 1),
        lambda names: OrtRuntime(bundle.graphs | ({graph: bad} if graph in names else {}), 1),
        ('step', 'step_batch', 'encode'), 1)
    assert graphs == {'encode': 'fp16'} and passed(report)
    runtime.close()


def test_a_runtime_that_answers_wrongly_does_not_pass(bundle: Bundle, broken) -> None:
    runtime, report, graphs = settle(bundle, OrtRuntime(bundle.graphs, 1),
                                     lambda _: broken(('decode_motion',)), (), 1)
    assert graphs == {} and not passed(report)
    with pytest.raises(ValueError, match='does not follow'):
        report.require()
    assert passed(compare(bundle, OrtRuntime(bundle.graphs, 1), OrtRuntime(bundle.graphs, 1), 1,
                          progress=False))
    runtime.close()


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[OrtRuntime]:
    """ONNX Runtime's runtimes that were opened; what is remembered goes to a folder of its own."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    opened: list[OrtRuntime] = []
    make = OrtRuntime.__init__

    def noted(self: OrtRuntime, *args, **settings) -> None:
        opened.append(self)
        make(self, *args, **settings)

    monkeypatch.setattr(OrtRuntime, '__init__', noted)
    return opened


def verify(bundle: Bundle, backend: str, out: Path) -> tuple[int, dict]:
    """Exit status and report of one prompt and one run."""
    status = main(['verify', str(bundle.directory), '--backend', backend, '--threads', '1',
                   '--cases', '1', '--runs', '1', '--json', str(out)])
    return status, json.loads(out.read_text())


@pytest.mark.parametrize('backend', ['onnxruntime', 'torch', 'openvino'])
def test_verify_reports_parity_and_times_as_json(
        bundle: Bundle, tmp_path: Path, backend: str, sessions: list[OrtRuntime],
        capsys: pytest.CaptureFixture[str]) -> None:
    if backend != 'onnxruntime':
        pytest.importorskip(backend)
    status, report = verify(bundle, backend, tmp_path / 'report.json')
    assert status == 0 and json.loads(capsys.readouterr().out) == report
    assert report['passed'] and report['refused'] is None and report['engines'] == {}
    assert report['backend'] == backend and report['bundle'] == bundle.hash
    assert report['parity']['runtime'] == backend and report['parity']['tokens_equal'] == 1.0
    assert set(bundle.graphs) <= set(report['milliseconds'])
    # The reference as well as what is measured.
    assert len(sessions) == (2 if backend == 'onnxruntime' else 1)
    assert not any(runtime._sessions for runtime in sessions)


class Noisy(OrtRuntime):
    """Answers as ONNX Runtime does, but for noise on the motion."""

    def _run(self, graph: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = super()._run(graph, arrays)
        if graph == 'decode_motion':
            noise = np.random.default_rng(0).standard_normal(outputs['features'].shape)
            outputs['features'] = outputs['features'] + noise.astype(np.float32)
        return outputs


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_what_is_refused_is_reported_too_with_the_reason(
        bundle: Bundle, tmp_path: Path, backend: str, sessions: list[OrtRuntime],
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:

    def noisy(*_) -> OrtRuntime:
        runtime = Noisy(bundle.graphs, 1)
        runtime.name = backend
        return runtime

    for place in ('egomotion_ros.runtimes.proof.open_unproven',
                  'egomotion_ros.runtimes.base.open_runtime'):
        monkeypatch.setattr(place, noisy)
    monkeypatch.setattr(proof, 'backend_version', lambda backend: '1')
    status, report = verify(bundle, backend, tmp_path / 'report.json')
    said = capsys.readouterr()
    assert status == 1 and json.loads(said.out) == report
    assert report['passed'] is False and report['milliseconds'] == {}
    assert report['refused'].startswith(f'{backend} does not follow') and (
        report['refused'] in said.err)
    assert report['parity']['joints_m'] > 0.1 and report['parity']['cases'] == 1
    assert len(sessions) == 2 and not any(runtime._sessions for runtime in sessions)
    # At the next start the verdict stands, where there is one.
    verdict = proof.verdict(EngineCache(), bundle, backend, '1', probe_cpu())
    assert verdict == (None if backend == 'onnxruntime' else proof.Verdict(False, {}, {}))


@pytest.mark.parametrize('works', [True, False])
def test_the_report_says_which_engines_were_built_for_a_gpu(
        bundle: Bundle, broken, tmp_path: Path, works: bool, sessions: list[OrtRuntime],
        monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in for a GPU is ONNX Runtime; its engines are words in a real cache."""
    gpu, half = Gpu('A', 89, '570.1'), []

    def words(graph: str, precision: str) -> bytes:
        return f'{graph} in {precision}'.encode()

    def cached(bundle: Bundle, graph: str, backend: str, gpu: Gpu, precision: str,
               cache: EngineCache) -> tuple[bytes, bool]:
        return cache.get(EngineKey.of(bundle, graph, backend, '1', gpu, precision),
                         lambda timing: BuiltEngine(words(graph, precision), b''))

    def opened(backend: str, bundle: Bundle, graphs: dict[str, str], threads: int) -> OrtRuntime:
        half.append(graphs)
        return broken(graphs) if works else broken(('decode_motion',))

    monkeypatch.setattr(proof, 'probe_gpu', lambda: gpu)
    monkeypatch.setattr(proof, 'backend_version', lambda backend: '1')
    monkeypatch.setattr(proof, 'open_unproven', opened)
    monkeypatch.setattr(tensorrt, 'cached_engine', cached)
    tried = ('encode', 'decode_motion')
    monkeypatch.setattr(tensorrt, 'half_graphs', lambda bundle: tried)
    status, report = verify(bundle, 'tensorrt', tmp_path / 'report.json')
    assert status == (0 if works else 1) and report['passed'] is works
    kept = {'encode': 'fp16'} if works else {}
    assert half[0] == dict.fromkeys(tried, 'fp16') and half[-1] == kept
    assert report['device']['half'] == kept and report['device']['sm'] == 89
    assert list(report['engines']) == list(bundle.graphs)
    for graph, engine in report['engines'].items():
        right = words(graph, kept.get(graph, 'fp32'))
        assert engine['precision'] == right.decode().split()[-1]
        assert engine['bytes'] == len(right)
        assert engine['sha256'] == hashlib.sha256(right).hexdigest()
        assert isinstance(engine['seconds'], float)
    assert not any(runtime._sessions for runtime in sessions)
    # Found in the cache: nothing is known of how long they took.
    _, again = verify(bundle, 'tensorrt', tmp_path / 'report.json')
    assert again['engines'] == {graph: engine | {'seconds': None}
                                for graph, engine in report['engines'].items()}


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_a_comparison_that_breaks_off_closes_both(
        bundle: Bundle, backend: str, sessions: list[OrtRuntime],
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(proof, 'open_unproven', lambda *_: OrtRuntime(bundle.graphs, 1))
    monkeypatch.setattr(proof, 'backend_version', lambda backend: '1')

    def broken_off(*_) -> None:
        raise RuntimeError('the device fell off the bus')

    monkeypatch.setattr(proof, 'compare', broken_off)
    assert main(['verify', str(bundle.directory), '--backend', backend]) == 1
    assert 'fell off' in capsys.readouterr().err
    assert len(sessions) == 2 and not any(runtime._sessions for runtime in sessions)
