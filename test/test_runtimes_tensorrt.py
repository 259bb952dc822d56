# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every graph builds with TensorRT-RTX, which needs no GPU for it; without one running refuses."""

import dataclasses
from pathlib import Path

from google.protobuf.message import EncodeError
import numpy as np
import onnx
import pytest

from egomotion_ros.bundle import BATCH_GRAPH, GRAPHS, Bundle
from egomotion_ros.cli import main
from egomotion_ros.runtimes.base import GPU_BACKENDS, open_runtime
from egomotion_ros.runtimes.engine_build import build_engine
from egomotion_ros.runtimes.engine_cache import EngineCache
from egomotion_ros.runtimes.gpu import NO_GPU, Gpu, probe_gpu
from egomotion_ros.runtimes.parity import GraphParity, ParityReport
from egomotion_ros.runtimes.proof import Verdict, remember, verdict
from egomotion_ros.runtimes.tensorrt import HALF_GRAPHS, cached_engine, check_free, half_graphs
from egomotion_ros.runtimes.timing import made_up_inputs

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


@pytest.mark.parametrize('graph', [name for name in HALF_GRAPHS
                                   if name in (*GRAPHS, BATCH_GRAPH)])
def test_graph_builds_in_float16_and_answers_alike(tiny_bundle_of_four: Path, graph: str
                                                   ) -> None:
    import onnxruntime

    from egomotion_ros.runtimes.flavours import half_precision
    from egomotion_ros.runtimes.ort import OrtRuntime, session_options
    spec = Bundle.open(tiny_bundle_of_four).graphs[graph]
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


@pytest.mark.parametrize('graph', ['prefill', 'step', 'condition'])
def test_bfloat16_answers_nearly_alike(bundle: Bundle, graph: str, tmp_path: Path) -> None:
    # Torch counts in bfloat16 on a CPU too; ONNX Runtime does not.
    torch = pytest.importorskip('torch')
    from egomotion_ros.runtimes.flavours import write_half_precision
    from egomotion_ros.runtimes.torch_graphs import BundleTorchRuntime
    spec = bundle.graphs[graph]
    path = write_half_precision(spec.path, tmp_path, 'bfloat16')
    exact = BundleTorchRuntime({graph: spec}, 1)
    brain = BundleTorchRuntime({graph: dataclasses.replace(spec, path=path)}, 1)
    assert any(value.dtype == torch.bfloat16 for value in brain._graphs[graph].buffers())
    inputs = made_up_inputs(exact)[graph]
    expected, found = exact.run(graph, **inputs), brain.run(graph, **inputs)
    for name, array in expected.items():
        if array.dtype != np.float32 or not np.abs(array).max():
            continue
        a, b = array.ravel().astype(float), found[name].ravel().astype(float)
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.999, name
        assert np.abs(a - b).max() > 0, name
    exact.close(), brain.close()


def test_large_graphs_of_both_decoders_are_tried_in_float16(bundle: Bundle) -> None:
    graphs = {**bundle.graphs, 'query': bundle.graphs['decode'],
              'refine': bundle.graphs['decode']}
    assert set(half_graphs(dataclasses.replace(bundle, graphs=graphs))) == (
        set(graphs) - {'time', 'encode', 'decode_motion'})
    one = {name: graphs[name] for name in GRAPHS}
    assert set(half_graphs(dataclasses.replace(bundle, graphs=one))) <= set(GRAPHS)


def test_float16_weights_lie_beside_the_graph_and_the_build_reads_them(
        bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from egomotion_ros.runtimes.flavours import half_precision, write_half_precision
    from egomotion_ros.runtimes.ort import OrtRuntime
    path = bundle.graphs['step'].path
    written = write_half_precision(path, tmp_path)
    whole = half_precision(path).ByteSize()
    # What is in the message must not grow with the weights: a message ends at 2 GB.
    assert written.stat().st_size < whole / 2
    assert (tmp_path / 'step.weights').stat().st_size > whole / 3
    OrtRuntime({'step': dataclasses.replace(bundle.graphs['step'], path=written)}, 1).close()
    # As with weights that do not fit into a message.
    serialise = onnx.ModelProto.SerializeToString

    def limited(message: onnx.ModelProto, **settings: bool) -> bytes:
        if message.ByteSize() > whole / 2:
            raise EncodeError('Failed to serialize proto')
        return serialise(message, **settings)

    monkeypatch.setattr(onnx.ModelProto, 'SerializeToString', limited)
    cache = EngineCache(tmp_path / 'engines')
    for precision in ('fp16', 'bf16'):
        engine, built = cached_engine(bundle, 'step', 'tensorrt-rtx', NO_GPU, precision, cache)
        assert built and len(engine) > 10_000
    with pytest.raises(ValueError, match='fp8'):
        cached_engine(bundle, 'step', 'tensorrt-rtx', NO_GPU, 'fp8', cache)
    assert not list(cache.folder.glob('.half-*'))


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
    with caplog.at_level('INFO'):
        runtime = open_runtime('auto', bundle, 1)
    assert runtime.name not in GPU_BACKENDS
    assert 'no usable NVIDIA GPU' in runtime.fallback_reason
    assert runtime.fallback_reason in caplog.text
    assert open_runtime('onnxruntime', bundle, 1).fallback_reason == ''
    runtime.close()


def test_engines_that_a_gpu_has_no_room_for_are_refused_before_they_are_loaded() -> None:
    check_free(Gpu('A', 89, '570.1'), 'tensorrt', 10 ** 12)  # nobody knows
    check_free(Gpu('A', 89, '570.1', 3_000_000_000), 'tensorrt', 3_000_000_000)
    with pytest.raises(RuntimeError, match=r'tensorrt: .* 3.10 GB .* A 3.00 GB are free'):
        check_free(Gpu('A', 89, '570.1', 3_000_000_000), 'tensorrt', 3_100_000_000)


def test_a_verdict_holds_for_one_bundle_library_gpu_and_driver(bundle: Bundle,
                                                               tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    gpu, other = Gpu('A', 89, '570.1'), Gpu('A', 89, '570.2')
    graphs = {'step': GraphParity(0.0, 1.0)}
    good = ParityReport('onnxruntime', 'tensorrt', 1, 1.0, 0.001, graphs)
    bad = ParityReport('onnxruntime', 'tensorrt', 1, 1.0, 0.1, graphs)
    assert verdict(cache, bundle, 'tensorrt', '10.3', gpu) is None
    half = {'step': 'fp16', 'condition': 'bf16'}
    remember(cache, bundle, 'tensorrt', '10.3', gpu, half, good, {'step': 'aa'})
    assert verdict(cache, bundle, 'tensorrt', '10.3', gpu) == Verdict(True, half, {'step': 'aa'})
    for backend, version, device in (('tensorrt', '10.3', other), ('tensorrt', '11.0', gpu),
                                     ('tensorrt-rtx', '10.3', gpu)):
        assert verdict(cache, bundle, backend, version, device) is None
    remember(cache, bundle, 'tensorrt', '10.3', gpu, {}, bad, {})
    assert verdict(cache, bundle, 'tensorrt', '10.3', gpu) == Verdict(False, {}, {})
    for text in ('{broken', '[]', '{"passed": 1, "half": {}}', '{"passed": true}',
                 '{"passed": true, "half": {}}', '{"passed": true, "half": [], "engines": {}}'):
        for path in tmp_path.glob('verdict-*.json'):
            path.write_text(text)
        assert verdict(cache, bundle, 'tensorrt', '10.3', gpu) is None
