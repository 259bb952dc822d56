# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Torch runs the bundle's own graphs as ONNX Runtime does; the int8 flavour passes its gate."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
import pytest

from egomotion_ros.bundle import Bundle, GraphSpec, TensorSpec
from egomotion_ros.runtimes.base import open_runtime
from egomotion_ros.runtimes.int8 import build_int8
from egomotion_ros.runtimes.ort import OrtRuntime

torch_graphs = pytest.importorskip('egomotion_ros.runtimes.torch_graphs', exc_type=ImportError)


@pytest.fixture(scope='module')
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def inputs(bundle: Bundle, graph: str, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {item.name: random.standard_normal(item.shape).astype(item.dtype)
            if item.dtype == 'float32' else np.ones(item.shape, item.dtype)
            for item in bundle.graphs[graph].inputs}


def test_every_graph_answers_in_torch_as_in_onnx_runtime(bundle: Bundle) -> None:
    torch, plain = open_runtime('torch', bundle, 1), OrtRuntime(bundle.graphs, 1)
    for graph in bundle.graphs:
        for seed in (0, 1):
            arrays = inputs(bundle, graph, seed)
            found, expected = torch.run(graph, **arrays), plain.run(graph, **arrays)
            assert found.keys() == expected.keys()
            for name, array in expected.items():
                assert found[name].dtype == array.dtype and found[name].shape == array.shape
                assert np.allclose(found[name], array, rtol=1e-4, atol=1e-4), (graph, name)
    torch.close()
    with pytest.raises(RuntimeError, match='closed'):
        torch.run('encode', **inputs(bundle, 'encode'))


@pytest.mark.timeout(900)
def test_compiled_graphs_answer_alike_or_say_what_is_missing(tmp_path: Path) -> None:
    # Two nodes: what takes time is the compiler of the host, not the graph.
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in 'xyz']
    onnx.save(helper.make_model(helper.make_graph(
        [helper.make_node('Exp', ['x'], ['y']), helper.make_node('Neg', ['y'], ['z'])], 'g',
        values[:1], values[2:])), tmp_path / 'graph.onnx')
    spec = GraphSpec('g', tmp_path / 'graph.onnx', '', 20, (TensorSpec('x', 'float32', (3,)),),
                     (TensorSpec('z', 'float32', (3,)),))
    runtime = torch_graphs.BundleTorchRuntime({'g': spec}, 1, compiled=True)
    x = np.array([0.0, 1.0, -1.0], np.float32)
    try:
        found = runtime.run('g', x=x)['z']
    except RuntimeError as error:
        assert 'compiler' in str(error).lower()
    else:
        assert np.allclose(found, -np.exp(x))


def test_more_graphs_are_compiled_than_one_function_may_be(bundle: Bundle, monkeypatch) -> None:
    # As on a GPU, without the minutes that the compiler behind the tracer takes for every graph.
    compiler = torch_graphs.torch.compile
    monkeypatch.setattr(torch_graphs.torch, 'compile', lambda module, fullgraph, dynamic, mode:
                        compiler(module, fullgraph=fullgraph, dynamic=dynamic, backend='eager'))
    monkeypatch.setattr(torch_graphs.torch._dynamo.config, 'recompile_limit', 1)
    runtime = torch_graphs.BundleTorchRuntime(bundle.graphs, 1, compiled=True)
    plain = OrtRuntime(bundle.graphs, 1)
    for graph in bundle.graphs:
        for seed in (0, 1):
            arrays = inputs(bundle, graph, seed)
            found, expected = runtime.run(graph, **arrays), plain.run(graph, **arrays)
            for name, array in expected.items():
                assert np.allclose(found[name], array, rtol=1e-4, atol=1e-4), (graph, name)


def test_whatever_the_compiler_raises_is_one_error_of_the_runtime(bundle: Bundle, monkeypatch
                                                                  ) -> None:
    class StrangeError(Exception):
        pass

    def fails(*arrays):
        raise StrangeError('no such thing')
    monkeypatch.setattr(torch_graphs.torch, 'compile', lambda module, **options: fails)
    runtime = torch_graphs.BundleTorchRuntime(bundle.graphs, 1, compiled=True)
    with pytest.raises(RuntimeError, match='torch failed to run encode.*no such thing'):
        runtime.run('encode', **inputs(bundle, 'encode'))


@pytest.mark.parametrize(('kind', 'attributes', 'words'), [
    ('Hardmax', {}, 'Hardmax has no torch form'),
    ('Reshape', {}, 'must be constant'),
    ('Cast', {'to': TensorProto.STRING}, 'Cast'),
])
def test_graphs_that_torch_cannot_run_are_value_errors(bundle: Bundle, tmp_path: Path, kind: str,
                                                       attributes: dict[str, int],
                                                       words: str) -> None:
    names = ['x', 'shape'] if kind == 'Reshape' else ['x']
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])
              for name in [*names, 'y']]
    graph = helper.make_graph([helper.make_node(kind, names, ['y'], **attributes)], 'g',
                              values[:-1], values[-1:])
    onnx.save(helper.make_model(graph), tmp_path / 'graph.onnx')
    with pytest.raises(ValueError, match=words):
        torch_graphs.OnnxModule(tmp_path / 'graph.onnx')
    (tmp_path / 'bad.onnx').write_bytes(b'no graph')
    bad = dataclasses.replace(bundle.graphs['encode'], path=tmp_path / 'bad.onnx')
    with pytest.raises(ValueError, match='no readable'):
        torch_graphs.BundleTorchRuntime({'encode': bad})


def test_the_int8_flavour_passes_the_gate_or_nothing_is_written(bundle: Bundle,
                                                                tmp_path: Path) -> None:
    out = tmp_path / 'int8'
    try:
        result = build_int8(bundle, out, cases=2, threads=1, runs=2)
    except ValueError as error:
        assert 'nothing was written' in str(error) and not out.exists()
        return
    result.report.require()
    small = Bundle.open(out)
    assert small.manifest['int8']['graphs'] == list(result.graphs)
    assert small.hash != bundle.hash
    for name in bundle.graphs:
        assert (small.graphs[name].sha256 != bundle.graphs[name].sha256) == (
            name in result.graphs)
    arrays = inputs(bundle, 'encode')
    assert np.array_equal(OrtRuntime(small.graphs, 1).run('encode', **arrays)['latents'],
                          OrtRuntime(bundle.graphs, 1).run('encode', **arrays)['latents'])
    with pytest.raises(ValueError, match='already'):
        build_int8(small, tmp_path / 'twice')
