# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO answers as ONNX Runtime does, keeps what it answered, and says why it cannot run."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys

import numpy as np
import pytest

from egomotion_ros.bundle import DEFAULT_BUNDLE, Bundle
from egomotion_ros.cli import main
from egomotion_ros.runtimes.base import AbsentError, open_runtime
from egomotion_ros.runtimes.ort import OrtRuntime
from egomotion_ros.runtimes.parity import MIN_COSINE
from egomotion_ros.runtimes.proof import compare
from egomotion_ros.runtimes.timing import made_up_inputs

openvino = pytest.importorskip('egomotion_ros.runtimes.openvino')
library = pytest.importorskip('openvino')


@pytest.fixture(scope='module')
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope='module')
def runtime(bundle: Bundle):
    runtime = openvino.OpenVinoRuntime(bundle.graphs, 2)
    yield runtime
    runtime.close()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'egomotion_ros' / 'engines'


@pytest.mark.parametrize('folder', [None, DEFAULT_BUNDLE], ids=['tiny', 'default'])
def test_answers_as_onnx_runtime_does(bundle: Bundle, folder: Path | None) -> None:
    bundle = bundle if folder is None else Bundle.open(folder)
    found, reference = openvino.OpenVinoRuntime(bundle.graphs, 2), OrtRuntime(bundle.graphs, 1)
    report = compare(bundle, reference, found, 2, progress=False)
    report.require(exact=True)
    assert report.tokens_equal == 1.0 and report.joints_m < 1e-4
    assert all(item.cosine >= MIN_COSINE for item in report.graphs.values())
    found.close()


def test_what_was_returned_outlives_later_runs_and_the_runtime(bundle: Bundle) -> None:
    runtime = openvino.OpenVinoRuntime(bundle.graphs, 1)
    reference = OrtRuntime(bundle.graphs, 1)
    first, second = made_up_inputs(runtime, 1), made_up_inputs(runtime, 2)
    kept = {name: runtime.run(name, **first[name]) for name in runtime.specs}
    for name in runtime.specs:
        runtime.run(name, **second[name])
    runtime.close()
    for name, outputs in kept.items():
        for key, value in reference.run(name, **first[name]).items():
            assert np.allclose(outputs[key], value, atol=1e-4), (name, key)


def test_arrays_are_read_as_they_are_at_the_call(runtime, bundle: Bundle) -> None:
    """Changed in place, another object, read-only, not contiguous: all the same."""
    shape = bundle.graphs['encode'].inputs[0].shape
    features = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = runtime.run('encode', features=features)['latents']
    work = np.zeros_like(features)
    assert not np.allclose(runtime.run('encode', features=work)['latents'], expected, atol=1e-3)
    work[:] = features
    frozen = features.copy()
    frozen.flags.writeable = False
    for array in (work, features.copy(), frozen, np.asfortranarray(features), frozen):
        assert np.array_equal(runtime.run('encode', features=array)['latents'], expected)


def test_runs_where_the_bundle_is_a_folder_of_links(bundle: Bundle, tmp_path: Path) -> None:
    for path in bundle.directory.iterdir():
        (tmp_path / path.name).symlink_to(path)
    linked = openvino.OpenVinoRuntime({'encode': Bundle.open(tmp_path).graphs['encode']}, 1)
    shape = bundle.graphs['encode'].inputs[0].shape
    assert np.isfinite(linked.run('encode', features=np.zeros(shape, np.float32))['latents']).all()
    linked.close()


def test_weights_outside_the_bundle_are_not_read(bundle: Bundle, tmp_path: Path) -> None:
    import onnx
    (tmp_path / 'bundle').mkdir()
    proto = onnx.load(bundle.graphs['encode'].path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == 'location':
                entry.value = '../weights.safetensors'
    (tmp_path / 'bundle' / 'encode.onnx').write_bytes(proto.SerializeToString())
    shutil.copyfile(bundle.weights_path, tmp_path / 'weights.safetensors')
    bad = dataclasses.replace(bundle.graphs['encode'], path=tmp_path / 'bundle' / 'encode.onnx')
    with pytest.raises(RuntimeError, match='does not take it'):
        openvino.OpenVinoRuntime({'encode': bad})


def test_refuses_what_it_cannot_do(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='threads must be at least 1'):
        openvino.OpenVinoRuntime(bundle.graphs, 0)
    (tmp_path / 'bad.onnx').write_bytes(b'no graph')
    bad = dataclasses.replace(bundle.graphs['encode'], path=tmp_path / 'bad.onnx')
    with pytest.raises(RuntimeError, match='does not take it') as caught:
        openvino.OpenVinoRuntime({'encode': bad})
    assert '\n' not in str(caught.value)
    closed = openvino.OpenVinoRuntime({'encode': bundle.graphs['encode']}, 1)
    closed.close()
    shape = bundle.graphs['encode'].inputs[0].shape
    with pytest.raises(RuntimeError, match='closed'):
        closed.run('encode', features=np.zeros(shape, np.float32))


@pytest.mark.parametrize('folder', [None, DEFAULT_BUNDLE], ids=['tiny', 'default'])
def test_its_count_of_operations_is_that_of_the_onnx_graphs(bundle: Bundle,
                                                            folder: Path | None) -> None:
    from egomotion_ros.bench.flops import count_flops, read_graph
    bundle, core = bundle if folder is None else Bundle.open(folder), library.Core()
    for name, spec in bundle.graphs.items():
        model = core.read_model(os.path.realpath(spec.path))
        assert openvino.operations(model) == count_flops(read_graph(spec.path)), name


def test_memory_does_not_grow_with_use(runtime) -> None:
    def resident() -> int:
        return int(Path('/proc/self/statm').read_text().split()[1]) * 4096

    def all_graphs() -> None:
        for name, arrays in made_up_inputs(runtime).items():
            runtime.run(name, **arrays)

    for _ in range(30):
        all_graphs()
    before = resident()
    for _ in range(100):
        all_graphs()
    assert resident() - before < 4e6


def test_without_the_package_one_line_says_what_to_install(
        bundle: Bundle, own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog,
        capsys: pytest.CaptureFixture) -> None:
    monkeypatch.delitem(sys.modules, 'openvino')
    monkeypatch.setattr(sys, 'meta_path', [_Hidden(), *sys.meta_path])
    with pytest.raises(AbsentError, match='pip install --no-deps openvino') as caught:
        open_runtime('openvino', bundle, 1)
    assert '\n' not in str(caught.value)
    assert main(['verify', str(bundle.directory), '--backend', 'openvino']) == 1
    assert 'OpenVINO is not installed' in capsys.readouterr().err
    fallback = open_runtime('auto', bundle, 1)
    assert 'openvino: OpenVINO is not installed' in fallback.fallback_reason
    # Nothing is broken: a missing optional package is no warning.
    assert 'OpenVINO' not in caplog.text
    fallback.close()


class _Hidden:
    """Hides the library from the import system, as if it were not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == 'openvino':
            raise ModuleNotFoundError("No module named 'openvino'", name=name)


def test_the_first_load_is_proven_and_remembered(bundle: Bundle, own_cache: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    from egomotion_ros.runtimes import proof
    monkeypatch.setattr(proof, 'FIRST_LOAD_CASES', 1)
    open_runtime('openvino', bundle, 1).close()
    (note,) = own_cache.glob('verdict-*.json')
    assert json.loads(note.read_text())['passed'] is True
    monkeypatch.setattr(proof, 'compare', lambda *_, **__: pytest.fail('compared again'))
    open_runtime('openvino', bundle, 1).close()
    # What was refused here stays refused, and `auto` goes on.
    note.write_text(json.dumps({'passed': False, 'half': {}, 'engines': {}}))
    with pytest.raises(RuntimeError, match='was refused on'):
        open_runtime('openvino', bundle, 1)
    fallback = open_runtime('auto', bundle, 1)
    assert fallback.name != 'openvino' and 'was refused on' in fallback.fallback_reason
    fallback.close()


def test_what_answers_otherwise_is_refused_and_remembered(
        bundle: Bundle, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from egomotion_ros.runtimes import proof
    monkeypatch.setattr(proof, 'FIRST_LOAD_CASES', 1)
    run = openvino.OpenVinoRuntime._run

    def wrong(self, graph: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: -value if value.dtype == np.float32 else value
                for name, value in run(self, graph, arrays).items()}

    monkeypatch.setattr(openvino.OpenVinoRuntime, '_run', wrong)
    with pytest.raises(RuntimeError, match='is refused on'):
        open_runtime('openvino', bundle, 1)
    with pytest.raises(RuntimeError, match='was refused on'):
        open_runtime('openvino', bundle, 1)


def test_runs_where_no_verdict_can_be_kept(bundle: Bundle, tmp_path: Path, caplog,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    from egomotion_ros.runtimes import proof
    monkeypatch.setattr(proof, 'FIRST_LOAD_CASES', 1)
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    runtime = open_runtime('openvino', bundle, 1)
    assert runtime.name == 'openvino' and 'proven again at the next start' in caplog.text
    runtime.close()


def test_runs_without_its_telemetry_package(bundle: Bundle, tmp_path: Path) -> None:
    code = ('import sys\n'
            'sys.modules["openvino_telemetry"] = None\n'
            'from egomotion_ros.bundle import Bundle\n'
            'from egomotion_ros.runtimes.openvino import OpenVinoRuntime\n'
            'from egomotion_ros.runtimes.timing import made_up_inputs\n'
            'def hook(event, values):\n'
            '    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen"):\n'
            '        raise SystemExit(f"{event} {values}")\n'
            'sys.addaudithook(hook)\n'
            'runtime = OpenVinoRuntime(Bundle.open(sys.argv[1]).graphs, 1)\n'
            'runtime.run("encode", **made_up_inputs(runtime)["encode"])\n'
            'heavy = {"torch", "onnx"} & set(sys.modules)\n'
            'sys.exit(f"imported {heavy}" if heavy else 0)\n')
    done = subprocess.run([sys.executable, '-c', code, str(bundle.directory)], text=True,
                          capture_output=True, env={**os.environ, 'HOME': str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir()), 'it left something in the home folder'
