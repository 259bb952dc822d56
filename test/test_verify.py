# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What answers wrongly is found and refused; what is only imprecise goes back graph by graph."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
import pytest

from egomotion_ros.bundle import Bundle, GraphSpec
from egomotion_ros.cli import main
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
    assert graphs == ('encode',) and passed(report)
    assert 'decode_motion is not precise enough' in caplog.text
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
    assert graphs == ('encode',) and passed(report)
    runtime.close()


def test_a_runtime_that_answers_wrongly_does_not_pass(bundle: Bundle, broken) -> None:
    runtime, report, graphs = settle(bundle, OrtRuntime(bundle.graphs, 1),
                                     lambda _: broken(('decode_motion',)), (), 1)
    assert graphs == () and not passed(report)
    with pytest.raises(ValueError, match='does not follow'):
        report.require()
    assert passed(compare(bundle, OrtRuntime(bundle.graphs, 1), OrtRuntime(bundle.graphs, 1), 1,
                          progress=False))
    runtime.close()


@pytest.mark.parametrize('backend', ['onnxruntime', 'torch'])
def test_verify_reports_parity_and_times_as_json(bundle: Bundle, tmp_path: Path,
                                                 backend: str) -> None:
    if backend == 'torch':
        pytest.importorskip('torch')
    out = tmp_path / 'report.json'
    assert main(['verify', str(bundle.directory), '--backend', backend, '--threads', '1',
                 '--cases', '1', '--runs', '1', '--json', str(out)]) == 0
    report = json.loads(out.read_text())
    assert report['passed'] and report['backend'] == backend and report['bundle'] == bundle.hash
    assert report['parity']['runtime'] == backend and report['parity']['tokens_equal'] == 1.0
    assert set(bundle.graphs) <= set(report['milliseconds'])
