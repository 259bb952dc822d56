# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every graph builds with TensorRT-RTX, which needs no GPU for it; without one running refuses."""

from pathlib import Path

import numpy as np
import pytest

from egomotion_ros.bundle import GRAPHS, Bundle
from egomotion_ros.cli import main
from egomotion_ros.runtimes.base import GPU_BACKENDS, open_runtime
from egomotion_ros.runtimes.engine_build import build_engine
from egomotion_ros.runtimes.engine_cache import EngineCache
from egomotion_ros.runtimes.gpu import Gpu, probe_gpu
from egomotion_ros.runtimes.parity import GraphParity, ParityReport
from egomotion_ros.runtimes.proof import remember, verdict
from egomotion_ros.runtimes.tensorrt import HALF_GRAPHS

trt = pytest.importorskip('tensorrt_rtx', exc_type=ImportError)


@pytest.fixture(scope='module')
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope='module')
def no_gpu() -> None:
    """Skip what is about machines without a GPU on one that has one."""
    try:
        probe_gpu()
    except RuntimeError as error:
        assert 'no usable NVIDIA GPU' in str(error)
    else:
        pytest.skip('there is a GPU')


@pytest.mark.parametrize('graph', HALF_GRAPHS)
def test_graph_builds_in_float16_and_answers_alike(bundle: Bundle, graph: str) -> None:
    import onnxruntime

    from egomotion_ros.runtimes.flavours import half_precision
    from egomotion_ros.runtimes.ort import OrtRuntime, session_options
    spec = bundle.graphs[graph]
    proto = half_precision(spec.path)
    assert len(build_engine(trt, proto.SerializeToString()).engine) > 10000
    random = np.random.default_rng(0)
    arrays = {item.name: random.random(item.shape).astype(item.dtype) for item in spec.inputs}
    exact = OrtRuntime({graph: spec}, 1).run(graph, **arrays)
    half = onnxruntime.InferenceSession(proto.SerializeToString(), session_options(1)).run(
        list(exact), arrays)
    for expected, found in zip(exact.values(), half, strict=True):
        assert found.dtype == expected.dtype
        a, b = expected.astype(float).ravel(), found.astype(float).ravel()
        assert a @ b >= 0.9999 * np.linalg.norm(a) * np.linalg.norm(b)


def test_build_builds_every_graph_once(bundle: Bundle, tmp_path: Path, no_gpu: None,
                                       monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    arguments = ['build', str(bundle.directory), '--backend', 'tensorrt-rtx']
    assert main(arguments) == 0
    assert capsys.readouterr().out.count('built in') == len(GRAPHS)
    assert len(list(tmp_path.rglob('*.engine'))) == len(GRAPHS)
    assert main(arguments) == 0
    assert capsys.readouterr().out.count('in the cache') == len(GRAPHS)


@pytest.mark.parametrize(('arguments', 'words'), [
    (['--backend', 'tensorrt'], 'no usable NVIDIA GPU'),
    (['--backend', 'tensorrt-rtx', '--precision', 'int8'], 'belong to --backend onnxruntime'),
    (['--backend', 'tensorrt-rtx', '--out', 'x'], 'belong to --backend onnxruntime'),
    (['--backend', 'onnxruntime'], '--out says where'),
    (['--backend', 'onnxruntime', '--precision', 'fp16', '--out', 'x'], 'only --precision int8'),
])
def test_build_refuses_what_it_cannot_do(bundle: Bundle, no_gpu: None, arguments: list[str],
                                         words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['build', str(bundle.directory), *arguments]) == 1
    assert words in capsys.readouterr().err


def test_without_a_gpu_the_named_backend_refuses_with_the_reason(
        bundle: Bundle, no_gpu: None, capsys: pytest.CaptureFixture[str]) -> None:
    for backend in GPU_BACKENDS:
        with pytest.raises(RuntimeError, match='no usable NVIDIA GPU'):
            open_runtime(backend, bundle)
    assert main(['verify', str(bundle.directory), '--backend', 'tensorrt']) == 1
    assert 'no usable NVIDIA GPU' in capsys.readouterr().err


def test_auto_takes_the_cpu_and_says_why(bundle: Bundle, no_gpu: None, caplog) -> None:
    runtime = open_runtime('auto', bundle, 1)
    assert runtime.name == 'onnxruntime'
    assert 'no usable NVIDIA GPU' in runtime.fallback_reason
    assert runtime.fallback_reason in caplog.text
    assert open_runtime('onnxruntime', bundle, 1).fallback_reason == ''
    runtime.close()


def test_a_verdict_holds_for_one_bundle_library_gpu_and_driver(bundle: Bundle,
                                                               tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    gpu, other = Gpu('A', 89, 13000), Gpu('A', 89, 13010)
    graphs = {'step': GraphParity(0.0, 1.0)}
    good = ParityReport('onnxruntime', 'tensorrt', 1, 1.0, 0.001, graphs)
    bad = ParityReport('onnxruntime', 'tensorrt', 1, 1.0, 0.1, graphs)
    assert verdict(cache, bundle, 'tensorrt', '10.3', gpu) is None
    remember(cache, bundle, 'tensorrt', '10.3', gpu, ('step',), good)
    assert verdict(cache, bundle, 'tensorrt', '10.3', gpu) == (True, ('step',))
    for backend, version, device in (('tensorrt', '10.3', other), ('tensorrt', '11.0', gpu),
                                     ('tensorrt-rtx', '10.3', gpu)):
        assert verdict(cache, bundle, backend, version, device) is None
    remember(cache, bundle, 'tensorrt', '10.3', gpu, (), bad)
    assert verdict(cache, bundle, 'tensorrt', '10.3', gpu) == (False, ())
    for text in ('{broken', '[]', '{"passed": 1, "float16": []}', '{"passed": true}'):
        for path in tmp_path.glob('verdict-*.json'):
            path.write_text(text)
        assert verdict(cache, bundle, 'tensorrt', '10.3', gpu) is None
