# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Runtimes check what goes in, agree with torch, and the loops follow their seed."""

import dataclasses
import os
from pathlib import Path
import subprocess
import sys

from fixtures_bundle import TINY_CAMERA, tiny_models
import numpy as np
import pytest

from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.base import open_runtime
from egomotion_ros.runtimes.loops import decode_primitives, random_stream, sample_latents
from egomotion_ros.runtimes.ort import OrtRuntime


@pytest.fixture(scope='module')
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope='module')
def runtime(bundle: Bundle):
    runtime = OrtRuntime(bundle.graphs, threads=1)
    yield runtime
    runtime.close()


def prompt(bundle: Bundle, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = (bundle.camera.height, bundle.camera.width, 3)
    return {'image': random.integers(0, 256, shape).astype(np.uint8),
            'text': random.integers(0, bundle.text_size, bundle.text_length),
            'text_mask': np.arange(bundle.text_length) < 9,
            'camera': np.array([1.5, 0.4, 0.0])}


def sample(runtime, bundle: Bundle, seed: int = 0, known: int = 0, steps: int = 2,
           guidance: float = 1.5, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(5)
    rows, width = bundle.graphs['condition'].inputs[0].shape[1:]
    states = random.standard_normal((rows, width)).astype(np.float32) + np.float32(shift)
    latents = random.standard_normal((known, bundle.channels)).astype(np.float32)
    return sample_latents(runtime, bundle, states, np.ones(rows, bool), latents, seed, steps,
                          guidance)


def test_nothing_that_runs_a_bundle_imports_torch(tiny_bundle: Path) -> None:
    code = """
import sys
import numpy as np
from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.base import open_runtime
from egomotion_ros.runtimes.loops import decode_primitives
import egomotion_ros.pipeline, egomotion_ros.runtimes.tensorrt, egomotion_ros.runtimes.parity
import egomotion_ros.runtimes.timing, egomotion_ros.commands.verify
bundle = Bundle.open(sys.argv[1])
runtime = open_runtime('onnxruntime', bundle, 1)
decode_primitives(runtime, bundle, np.zeros((128, 128, 3), np.uint8), np.zeros(24, int),
                  np.ones(24, bool), np.array([1.5, 0.4, 0.0]), 0)
heavy = {'torch', 'transformers', 'onnx', 'rclpy', 'egomotion_ros.models',
         'egomotion_ros.training', 'egomotion_ros.data', 'egomotion_ros.evaluation'}
sys.exit(f'imported {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)
"""
    done = subprocess.run([sys.executable, '-c', code, str(tiny_bundle)], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr


def test_onnx_runtime_reports_nothing_to_its_maker(bundle: Bundle, tmp_path: Path) -> None:
    code = ('import sys\n'
            'from egomotion_ros.bundle import Bundle\n'
            'from egomotion_ros.runtimes.base import open_runtime\n'
            'open_runtime("onnxruntime", Bundle.open(sys.argv[1]), 1).close()\n')
    loud = {name: value for name, value in os.environ.items()
            if name not in ('ORT_DISABLE_TELEMETRY', 'ORT_RUNNING_UNIT_TESTS', 'CI')}
    done = subprocess.run([sys.executable, '-c', code, str(bundle.directory)], text=True,
                          capture_output=True, env={**loud, 'XDG_CACHE_HOME': str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir()), 'its database of reports and the identity of the machine'


@pytest.mark.parametrize(('change', 'words'), [
    ({'latents': np.zeros((1, 19, 9), np.float32)}, 'latents must be float32'),
    ({'latents': np.zeros((1, 19, 8))}, 'got float64'),
    ({'other': np.zeros((1, 19, 8), np.float32)}, 'takes .*, got'),
    ({}, 'takes'),
])
def test_refuses_arrays_that_do_not_fit(runtime, change: dict[str, np.ndarray],
                                        words: str) -> None:
    with pytest.raises(ValueError, match=words):
        runtime.run('decode_motion', **change)


def test_refuses_unknown_graphs_backends_and_threads(runtime, bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="no graph 'hearing'"):
        runtime.run('hearing')
    with pytest.raises(ValueError, match="backend 'tvm'"):
        open_runtime('tvm', bundle)
    with pytest.raises(ValueError, match='at least 1'):
        open_runtime('onnxruntime', bundle, threads=0)


def test_a_graph_file_that_is_no_graph_is_a_value_error(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / 'bad.onnx').write_bytes(b'no graph')
    bad = dataclasses.replace(bundle.graphs['encode'], path=tmp_path / 'bad.onnx')
    with pytest.raises(ValueError, match='cannot load'):
        OrtRuntime({'encode': bad})


def test_weights_outside_the_bundle_are_not_read(bundle: Bundle, tmp_path: Path) -> None:
    import onnx
    (tmp_path / 'bundle').mkdir()
    proto = onnx.load(bundle.graphs['encode'].path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == 'location':
                entry.value = '../weights.safetensors'
    (tmp_path / 'bundle' / 'encode.onnx').write_bytes(proto.SerializeToString())
    (tmp_path / 'weights.safetensors').write_bytes(bundle.weights_path.read_bytes())
    bad = dataclasses.replace(bundle.graphs['encode'], path=tmp_path / 'bundle' / 'encode.onnx')
    with pytest.raises(ValueError, match='cannot load'):
        OrtRuntime({'encode': bad})


def test_loads_through_symlinked_files(bundle: Bundle, tmp_path: Path) -> None:
    for path in bundle.directory.iterdir():
        (tmp_path / path.name).symlink_to(path)
    runtime = OrtRuntime({'encode': Bundle.open(tmp_path).graphs['encode']}, 1)
    shape = bundle.graphs['encode'].inputs[0].shape
    latents = runtime.run('encode', features=np.zeros(shape, np.float32))['latents']
    assert np.isfinite(latents).all()


def test_a_closed_runtime_only_raises(bundle: Bundle) -> None:
    runtime = OrtRuntime({'decode_motion': bundle.graphs['decode_motion']}, 1)
    runtime.close()
    with pytest.raises(RuntimeError, match='closed'):
        runtime.run('decode_motion', latents=np.zeros((1, 19, 8), np.float32))


def test_same_seed_same_primitives_and_motion(runtime, bundle: Bundle) -> None:
    warm = dataclasses.replace(bundle, temperature=1.0)
    one, two, other = (decode_primitives(runtime, warm, **prompt(bundle), seed=seed)
                       for seed in (7, 7, 8))
    assert (one.tokens == two.tokens).all()
    assert (one.states == two.states).all()
    assert (one.tokens != other.tokens).any()
    assert (sample(runtime, bundle, 7) == sample(runtime, bundle, 7)).all()
    assert (sample(runtime, bundle, 7) != sample(runtime, bundle, 8)).any()


def test_temperature_zero_does_not_depend_on_the_seed(runtime, bundle: Bundle) -> None:
    one, two = (decode_primitives(runtime, bundle, **prompt(bundle), seed=n) for n in (1, 2))
    assert (one.tokens == two.tokens).all()


def test_seeds_cover_64_bits_and_streams_differ() -> None:
    draw = {(seed, stream): random_stream(seed, stream).standard_normal()
            for seed in (0, 1, 2 ** 64 - 1) for stream in (0, 1)}
    assert len(set(draw.values())) == 6
    for bad in (-1, 2 ** 64):
        with pytest.raises(ValueError, match='seed'):
            random_stream(bad, 0)


def test_known_windows_come_out_as_they_went_in(runtime, bundle: Bundle) -> None:
    latents = np.random.default_rng(5)
    rows, width = bundle.graphs['condition'].inputs[0].shape[1:]
    latents.standard_normal((rows, width))
    expected = latents.standard_normal((3, bundle.channels)).astype(np.float32)
    result = sample(runtime, bundle, known=3)
    assert (result[:3] == expected).all()
    assert (result[3:] != sample(runtime, bundle)[3:]).any()


def test_guidance_steps_and_states_change_the_motion(runtime, bundle: Bundle) -> None:
    plain = sample(runtime, bundle)
    assert (plain != sample(runtime, bundle, guidance=3.0)).any()
    assert (plain != sample(runtime, bundle, steps=5)).any()
    assert (plain != sample(runtime, bundle, shift=1.0)).any()
    # Without guidance the condition must not matter.
    assert np.allclose(sample(runtime, bundle, guidance=0.0),
                       sample(runtime, bundle, guidance=0.0, shift=1.0))


def test_masked_text_does_not_matter(runtime, bundle: Bundle) -> None:
    one, two = prompt(bundle), prompt(bundle)
    two['text'] = np.where(one['text_mask'], one['text'], 1)
    assert (one['text'] != two['text']).any()
    a, b = (decode_primitives(runtime, bundle, **case, seed=0) for case in (one, two))
    assert np.array_equal(a.tokens, b.tokens)
    assert np.allclose(a.states[a.mask], b.states[a.mask], atol=1e-5)


def test_encoding_a_prefix_does_not_depend_on_what_follows(runtime, bundle: Bundle) -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((1, 152, 140)).astype(np.float32)
    other = features.copy()
    other[:, 24:] += 1.0
    a, b = (runtime.run('encode', features=item)['latents'][0] for item in (features, other))
    assert np.allclose(a[:3], b[:3], atol=1e-5)
    assert not np.allclose(a[3], b[3], atol=1e-3)


def test_onnx_loops_agree_with_the_models_own_methods(runtime, bundle: Bundle) -> None:
    import torch
    models, case = tiny_models(), prompt(bundle)
    pixels = torch.from_numpy(case['image']).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        tokens, confidence, out = models.reasoner.generate(
            pixels, torch.from_numpy(case['text'])[None],
            torch.from_numpy(case['text_mask'])[None],
            torch.from_numpy(case['camera'])[None].float())
        decoded = decode_primitives(runtime, bundle, **case, seed=0)
        assert np.array_equal(decoded.tokens, tokens[0].numpy())
        assert np.allclose(decoded.confidence, confidence[0].numpy(), atol=1e-4)
        assert np.array_equal(decoded.mask, out.mask[0].numpy())
        assert np.allclose(decoded.states, out.states[0].numpy(), atol=1e-4)
        noise = random_stream(3, 1).standard_normal((1, 19, bundle.channels)).astype(np.float32)
        known = np.zeros((1, 19), np.float32)
        known[0, :2] = 1
        prefix = np.random.default_rng(1).standard_normal(noise.shape).astype(np.float32)
        prefix *= known[..., None]
        expected = models.generator.sample(
            *(torch.from_numpy(array) for array in (noise, decoded.states[None],
                                                    decoded.mask[None], prefix, known)),
            steps=4, guidance=2.0)[0].numpy()
    found = sample_latents(runtime, bundle, decoded.states, decoded.mask, prefix[0, :2], 3, 4, 2.0)
    assert np.allclose(found, expected, atol=1e-4)
    assert TINY_CAMERA.width == case['image'].shape[1]


def test_memory_does_not_grow_with_use(runtime, bundle: Bundle) -> None:
    def resident() -> int:
        return int(Path('/proc/self/statm').read_text().split()[1]) * 4096

    def plan() -> None:
        decode_primitives(runtime, bundle, **prompt(bundle), seed=0)
        sample(runtime, bundle)

    for _ in range(30):
        plan()
    before = resident()
    for _ in range(100):
        plan()
    assert resident() - before < 4e6
