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

from egomotion_ros.bundle import Bundle
from egomotion_ros.cli import main
from egomotion_ros.runtimes.ort import OrtRuntime
from egomotion_ros.runtimes.proof import compare, passed, settle


@pytest.fixture(scope='module')
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture
def broken(bundle: Bundle, tmp_path: Path):
    """Open the bundle with a motion decoder whose largest weights changed their sign."""
    proto = onnx.load(bundle.graphs['decode_motion'].path)
    largest = max(proto.graph.initializer, key=lambda item: int(np.prod(item.dims)))
    largest.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(largest), largest.name))
    onnx.save(proto, tmp_path / 'bad.onnx')
    bad = dataclasses.replace(bundle.graphs['decode_motion'], path=tmp_path / 'bad.onnx')

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
