# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Engines built with TensorRT-RTX: cached, locked, checked, cancelled, and never half written."""

import dataclasses
from importlib.util import find_spec
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading

import pytest

from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.engine_build import BuiltEngine, build_engine, import_tensorrt
from egomotion_ros.runtimes.engine_cache import EngineCache, EngineKey, check_room
from egomotion_ros.runtimes.gpu import NO_GPU

trt = pytest.importorskip('tensorrt_rtx', exc_type=ImportError)


@pytest.fixture(scope='module')
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / 'engines')


@pytest.fixture
def key(bundle: Bundle) -> EngineKey:
    return EngineKey.of(bundle, 'encode', 'tensorrt-rtx', str(trt.__version__), NO_GPU, 'fp32')


def made(data: bytes):
    return lambda timing: BuiltEngine(data, b'')


def files(cache: EngineCache) -> list[str]:
    """What lies in the cache beside locks: suffixes, sorted."""
    return sorted(path.suffix or path.name[:6] for path in cache.folder.iterdir()
                  if path.suffix != '.lock')


def test_a_real_engine_is_built_once(bundle: Bundle, cache: EngineCache, key: EngineKey) -> None:
    def build(timing: bytes) -> BuiltEngine:
        return build_engine(trt, bundle.graphs['encode'].path, timing=timing)

    first, built = cache.get(key, build)
    assert built and len(first) > 10000
    assert cache.get(key, build) == (first, False)
    assert cache.load(key) == first
    assert files(cache) == ['.engine']
    assert cache.folder.stat().st_mode & 0o077 == 0


def test_timings_go_from_build_to_build_on_one_device(cache: EngineCache, key: EngineKey) -> None:
    seen = []

    def build(timing: bytes) -> BuiltEngine:
        seen.append(timing)
        return BuiltEngine(b'engine', timing + b't')

    for changed in ({}, {'graph': 'decode'}, {'driver': '570.2'}, {'sm': 89}, {'version': '99'}):
        cache.get(dataclasses.replace(key, **changed), build)
    assert seen == [b'', b't', b'tt', b'', b'']
    cache.get(key, build, rebuild=True)
    assert seen[-1] == b'ttt'
    assert '.last' in files(cache)


@pytest.mark.parametrize('change', [
    {'version': '99.0'}, {'backend': 'tensorrt'}, {'graph': 'decode'}, {'content': 'other'},
    {'profile': 'x:float32[2]'}, {'precision': 'fp16'}, {'gpu': 'A'}, {'sm': 89},
    {'driver': '570.2'}])
def test_another_value_of_any_part_of_the_key_is_another_engine(
        cache: EngineCache, key: EngineKey, change: dict[str, object]) -> None:
    cache.get(key, made(b'one'))
    other = dataclasses.replace(key, **change)
    assert cache.load(other) is None
    # Even a file that was renamed to fit is not taken for the other's.
    os.replace(cache.path(key), cache.path(other))
    assert cache.load(other) is None


def test_the_key_follows_graph_and_weights_not_the_rest_of_the_manifest(bundle: Bundle,
                                                                        key: EngineKey) -> None:
    def of(changed: Bundle) -> EngineKey:
        return EngineKey.of(changed, 'encode', key.backend, key.version, NO_GPU, 'fp32')

    assert of(dataclasses.replace(bundle, hash='0' * 64)) == key
    graphs = dict(bundle.graphs)
    graphs['encode'] = dataclasses.replace(graphs['encode'], sha256='0' * 64)
    assert of(dataclasses.replace(bundle, graphs=graphs)) != key
    weights = {**bundle.manifest['files']['weights'], 'sha256': '0' * 64}
    manifest = {**bundle.manifest, 'files': {**bundle.manifest['files'], 'weights': weights}}
    assert of(dataclasses.replace(bundle, manifest=manifest)) != key


@pytest.mark.parametrize('damage', [
    lambda data: data[:-1],
    lambda data: data + b'0',
    lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    lambda data: data.replace(b'"format": 1', b'"format": 2'),
    lambda data: b'\x00' * 100,
    lambda data: b'[' * 70000,
    lambda data: b''])
def test_a_damaged_engine_is_never_loaded_but_built_again(cache: EngineCache, key: EngineKey,
                                                          damage, caplog) -> None:
    cache.get(key, made(b'engine'))
    path = cache.path(key)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.load(key) is None
    assert 'is not used' in caplog.text
    assert cache.get(key, made(b'new')) == (b'new', True)
    assert cache.load(key) == b'new'


def test_the_last_good_engine_stands_in_for_a_damaged_or_refused_one(cache: EngineCache,
                                                                     key: EngineKey) -> None:
    cache.get(key, made(b'good'))
    cache.get(key, made(b'newer'), rebuild=True)
    path = cache.path(key)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert cache.load(key) == b'good'
    path.write_bytes(whole)
    assert cache.refuse(key)
    assert cache.load(key) == b'good'
    assert not cache.refuse(key)
    assert cache.load(key) is None


def test_a_failed_build_leaves_the_engine_at_hand_alone(bundle: Bundle, cache: EngineCache,
                                                        key: EngineKey) -> None:
    cache.get(key, made(b'good'))
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(RuntimeError, match='cancelled'):
        cache.get(key, lambda timing: build_engine(trt, bundle.graphs['encode'].path,
                                                   cancel=cancel), rebuild=True)
    assert cache.load(key) == b'good'
    assert files(cache) == ['.engine']


def test_a_build_that_does_not_fit_is_refused_before_it_starts(cache: EngineCache,
                                                               key: EngineKey) -> None:
    with pytest.raises(RuntimeError, match='free disk'):
        cache.get(key, made(b'never'), weight_bytes=1 << 60)
    assert files(cache) == []
    with pytest.raises(RuntimeError, match='free (disk|memory)'):
        check_room(Path('/'), 1 << 40)


_BUILD = """
import logging, sys
from pathlib import Path
from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.engine_build import build_engine, import_tensorrt
from egomotion_ros.runtimes.engine_cache import EngineCache, EngineKey
from egomotion_ros.runtimes.gpu import NO_GPU
trt = import_tensorrt('tensorrt-rtx')
bundle = Bundle.open(sys.argv[1])
key = EngineKey.of(bundle, 'encode', 'tensorrt-rtx', str(trt.__version__), NO_GPU, 'fp32')
def build(timing):
    print('building', flush=True)
    {inside}
    return build_engine(trt, bundle.graphs['encode'].path, timing=timing)
try:
    data, built = EngineCache(Path(sys.argv[2])).get(key, build)
except KeyboardInterrupt:
    sys.exit(130)
except OSError as error:
    sys.exit(f'refused: {{error}}')
print('built' if built else 'found', len(data))
"""


def builder(bundle: Bundle, cache: EngineCache, inside: str = 'pass') -> subprocess.Popen[str]:
    """Start a process that gets the engine of one graph; ``inside`` runs while it builds."""
    return subprocess.Popen(
        [sys.executable, '-c', _BUILD.format(inside=inside), str(bundle.directory),
         str(cache.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)


def test_of_two_builders_at_once_one_builds_and_one_waits(bundle: Bundle,
                                                          cache: EngineCache) -> None:
    first = builder(bundle, cache, 'sys.stdin.readline()')
    assert first.stdout.readline() == 'building\n'
    second = builder(bundle, cache)
    # The second says that it waits; only then the first may go on.
    assert 'waiting' in second.stderr.readline()
    done, _ = first.communicate('go\n')
    assert done.startswith('built')
    found, _ = second.communicate()
    assert found.startswith('found')
    assert first.returncode == second.returncode == 0


def test_ctrl_c_leaves_no_partial_file_and_no_lock(bundle: Bundle, cache: EngineCache) -> None:
    process = builder(bundle, cache, 'import os, signal; os.kill(os.getpid(), signal.SIGINT)')
    process.communicate()
    assert process.returncode == 130
    assert files(cache) == []
    assert builder(bundle, cache).communicate()[0].startswith('building\nbuilt')


def test_ctrl_c_within_the_builder_cancels_it(bundle: Bundle) -> None:
    # The signal is due before the builder's first step; the main thread gets it while it waits.
    code = ('import os, signal, sys, threading\n'
            'from pathlib import Path\n'
            'from egomotion_ros.runtimes.engine_build import build_engine, import_tensorrt\n'
            'trt = import_tensorrt("tensorrt-rtx")\n'
            'threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()\n'
            'try:\n'
            '    while True:\n'
            '        build_engine(trt, Path(sys.argv[1]))\n'
            'except KeyboardInterrupt:\n'
            '    sys.exit(130)\n')
    done = subprocess.run([sys.executable, '-c', code, str(bundle.graphs['step'].path)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr


def test_a_disk_that_fills_up_leaves_nothing_behind(bundle: Bundle, cache: EngineCache) -> None:
    process = builder(bundle, cache, 'import resource; '
                      'resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))')
    _, words = process.communicate()
    assert process.returncode == 1 and 'refused' in words
    assert files(cache) == []


def test_a_builder_that_is_killed_leaves_nothing_that_blocks_the_next(
        bundle: Bundle, cache: EngineCache) -> None:
    process = builder(bundle, cache, 'import os; os.kill(os.getpid(), 9)')
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert builder(bundle, cache).communicate()[0].startswith('building\nbuilt')


def test_an_unreadable_graph_is_refused_with_the_parsers_words(tmp_path: Path) -> None:
    (tmp_path / 'bad.onnx').write_bytes(b'no graph')
    with pytest.raises(RuntimeError, match='cannot read the graph'):
        build_engine(trt, tmp_path / 'bad.onnx')


def test_a_missing_package_and_an_unknown_backend_are_told_apart() -> None:
    with pytest.raises(ValueError, match="'openvino'"):
        import_tensorrt('openvino')
    if find_spec('tensorrt') is None:
        with pytest.raises(RuntimeError, match='tensorrt is not installed'):
            import_tensorrt('tensorrt')
