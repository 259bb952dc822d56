# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every graph builds with TensorRT-RTX, which needs no GPU for it; without one running refuses."""

from pathlib import Path

import numpy as np
import pytest

from egomotion_ros.bundle import GRAPHS, Bundle
from egomotion_ros.runtimes import tensorrt
from egomotion_ros.runtimes.base import open_runtime

trt = pytest.importorskip('tensorrt_rtx', exc_type=ImportError)


@pytest.fixture(scope='module')
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.mark.parametrize('graph', GRAPHS)
def test_graph_builds_in_float32(bundle: Bundle, graph: str) -> None:
    assert len(tensorrt.build_engine(trt, bundle.graphs[graph].path)) > 10000


@pytest.mark.parametrize('graph', tensorrt.HALF_GRAPHS)
def test_graph_builds_in_float16_and_answers_alike(bundle: Bundle, graph: str) -> None:
    import onnxruntime

    from egomotion_ros.runtimes.flavours import half_precision
    from egomotion_ros.runtimes.ort import OrtRuntime, session_options
    spec = bundle.graphs[graph]
    proto = half_precision(spec.path)
    assert len(tensorrt.build_engine(trt, proto.SerializeToString())) > 10000
    random = np.random.default_rng(0)
    arrays = {item.name: random.random(item.shape).astype(item.dtype) for item in spec.inputs}
    exact = OrtRuntime({graph: spec}, 1).run(graph, **arrays)
    half = onnxruntime.InferenceSession(proto.SerializeToString(), session_options(1)).run(
        list(exact), arrays)
    for expected, found in zip(exact.values(), half, strict=True):
        assert found.dtype == expected.dtype
        a, b = expected.astype(float).ravel(), found.astype(float).ravel()
        assert a @ b >= 0.9999 * np.linalg.norm(a) * np.linalg.norm(b)


def test_an_unreadable_graph_is_refused_with_the_parsers_words(tmp_path: Path) -> None:
    (tmp_path / 'bad.onnx').write_bytes(b'no graph')
    with pytest.raises(RuntimeError, match='cannot read the graph'):
        tensorrt.build_engine(trt, tmp_path / 'bad.onnx')


def test_without_a_gpu_the_backend_refuses_with_the_reason(bundle: Bundle) -> None:
    try:
        gpu = tensorrt.probe_gpu()
    except RuntimeError as error:
        assert 'no usable NVIDIA GPU' in str(error)
        with pytest.raises(RuntimeError, match='no usable NVIDIA GPU'):
            open_runtime('tensorrt', bundle)
    else:
        assert gpu.sm >= 50


def test_half_precision_needs_a_verdict_of_this_machine(bundle: Bundle, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    gpu, other = tensorrt.Gpu('A', 89, 13000), tensorrt.Gpu('A', 89, 13010)
    assert tensorrt.verified_half(bundle, gpu, '10.3') == ()
    tensorrt.remember_half(bundle, gpu, '10.3', ('step',))
    assert tensorrt.verified_half(bundle, gpu, '10.3') == ('step',)
    assert tensorrt.verified_half(bundle, other, '10.3') == ()
    assert tensorrt.verified_half(bundle, gpu, '11.0') == ()
    for path in tensorrt.cache_directory().glob('verdict-*.json'):
        path.write_text('{broken')
    assert tensorrt.verified_half(bundle, gpu, '10.3') == ()


def test_engines_are_built_once_per_bundle_gpu_and_driver(bundle: Bundle, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    gpu = tensorrt.Gpu('A', 89, 13000)
    first = tensorrt.cached_engine(trt, bundle, gpu, 'encode', False)
    files = list(tensorrt.cache_directory().glob('*.engine'))
    assert [path.read_bytes() for path in files] == [first]
    files[0].write_bytes(b'kept')
    assert tensorrt.cached_engine(trt, bundle, gpu, 'encode', False) == b'kept'
    newer = tensorrt.Gpu('A', 89, 13010)
    assert tensorrt.cached_engine(trt, bundle, newer, 'encode', False) != b'kept'
