# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Export writes a bundle that answers as torch does, or nothing; verify and bench work on it."""

from dataclasses import replace
import json
from pathlib import Path
from types import SimpleNamespace

from fixtures_bundle import TINY_CAMERA, tiny_models
import numpy as np
import onnx
from onnx import TensorProto, helper
import pytest
import torch

from egomotion_ros.bundle import GRAPHS, Bundle
from egomotion_ros.cli import main
from egomotion_ros.models.checkpoints import save_model
from egomotion_ros.runtimes.export import Models, export_bundle
from egomotion_ros.runtimes.export_graphs import graph_modules
from egomotion_ros.runtimes.export_lint import lint
from egomotion_ros.runtimes.loops import decode_primitives
from egomotion_ros.runtimes.parity import GraphParity, ParityReport, check_parity
from egomotion_ros.runtimes.torch_runtime import TorchRuntime, modules_of
from egomotion_ros.text import TextEncoder


def test_parity_figures_hold_the_gate(tiny_bundle: Path) -> None:
    parity = json.loads((tiny_bundle / 'manifest.json').read_text())['parity']
    assert parity['tokens_equal'] >= 0.99
    assert parity['joints_m'] <= 0.005
    assert all(item['max_abs'] < 1e-3 and item['cosine'] > 0.9999
               for item in parity['graphs'].values())


def test_shared_weights_are_stored_once_and_nothing_else_is_big(tiny_bundle: Path) -> None:
    models = tiny_models()
    # The grounding heads are for training; the position table of the null branch is expanded.
    exported = sum(p.numel() for model in (models.reasoner, models.generator, models.autoencoder)
                   for p in model.parameters())
    stored = (tiny_bundle / 'weights.safetensors').stat().st_size
    assert stored < 4 * exported + 400_000
    for name in GRAPHS:
        assert (tiny_bundle / f'{name}.onnx').stat().st_size < 60_000


def test_graphs_carry_no_trace_of_the_machine(tiny_bundle: Path) -> None:
    here = str(Path(__file__).parent.parent).encode()
    for path in tiny_bundle.iterdir():
        data = path.read_bytes()
        assert here not in data
        assert b'site-packages' not in data


def graph(*nodes: onnx.NodeProto, kind: int = TensorProto.FLOAT,
          shape: tuple[int | str, ...] = (2,)) -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(name, kind, shape) for name in ('a', 'b')]
    return helper.make_model(helper.make_graph(list(nodes), 'g', value[:1], value[1:]))


@pytest.mark.parametrize(('proto', 'words'), [
    (graph(helper.make_node('NonZero', ['a'], ['b'])), 'NonZero'),
    (graph(helper.make_node('Loop', ['a'], ['b'])), 'Loop'),
    (graph(helper.make_node('Gelu', ['a'], ['b'], domain='com.microsoft')), 'no standard'),
    (graph(helper.make_node('Cast', ['a'], ['b'], to=TensorProto.DOUBLE)), 'cast to float64'),
    (graph(helper.make_node('Neg', ['a'], ['b']), kind=TensorProto.DOUBLE), 'a is float64'),
    (graph(helper.make_node('Neg', ['a'], ['b']), shape=('batch',)), 'no static shape'),
])
def test_lint_refuses_what_a_runtime_cannot_run(proto: onnx.ModelProto, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lint('g', proto)


def test_lint_passes_every_exported_graph(tiny_bundle: Path) -> None:
    for name in GRAPHS:
        lint(name, onnx.load(tiny_bundle / f'{name}.onnx', load_external_data=False))


@pytest.mark.parametrize(('tokens', 'joints'), [(0.98, 0.0), (1.0, 0.006), (1.0, float('nan'))])
def test_parity_below_the_gate_is_refused(tokens: float, joints: float) -> None:
    report = ParityReport('torch', 'onnxruntime', 1, tokens, joints,
                          {'step': GraphParity(0.1, 0.9)})
    with pytest.raises(ValueError, match='does not follow torch'):
        report.require()
    ParityReport('torch', 'onnxruntime', 1, 0.995, 0.004, {}).require()


def test_parity_notices_a_wrong_graph(tiny_bundle: Path) -> None:
    bundle, models = Bundle.open(tiny_bundle), tiny_models()
    parts = (models.reasoner, models.generator, models.autoencoder)
    right = TorchRuntime(graph_modules(*parts, 128))
    wrong = tiny_models()
    with torch.no_grad():
        wrong.generator.outward.bias += 0.5
    other = TorchRuntime(graph_modules(wrong.reasoner, wrong.generator, wrong.autoencoder, 128))
    report = check_parity(bundle, models.text, right, other, 1, progress=False)
    assert report.tokens_equal == 1.0
    assert report.graphs['step'].max_abs > 1e-2
    assert report.graphs['prefill'].max_abs == 0.0
    with pytest.raises(ValueError, match='step: max abs'):
        report.require()


def test_models_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    from egomotion_ros.models.generator import GeneratorConfig, MotionGenerator
    models = tiny_models()
    models.generator = MotionGenerator(GeneratorConfig(
        channels=8, state_width=48, width=32, heads=2, layers=1, hidden=64))
    with pytest.raises(ValueError, match='state width: the models disagree'):
        export_bundle(models, tmp_path / 'out', TINY_CAMERA, progress=False)
    wide = replace(TINY_CAMERA, width=256)
    with pytest.raises(ValueError, match='square'):
        export_bundle(tiny_models(), tmp_path / 'out', wide, progress=False)
    assert not (tmp_path / 'out').exists()


def save_checkpoints(models: Models, folder: Path) -> None:
    for kind in ('reasoner', 'generator', 'autoencoder'):
        save_model(getattr(models, kind), kind, folder / kind)
    models.text.save(folder / 'reasoner' / 'text.json')


def test_checkpoints_load_and_bad_ones_are_refused(tmp_path: Path) -> None:
    save_checkpoints(tiny_models(), tmp_path)
    loaded = Models.load(tmp_path)
    assert set(loaded.provenance) == {'reasoner', 'generator', 'autoencoder'}
    TextEncoder.train([' '.join(f'word{n} text{n}' for n in range(a, a + 20))
                       for a in range(0, 200, 20)], 400, 24).save(
        tmp_path / 'reasoner' / 'text.json')
    with pytest.raises(ValueError, match='the reasoner knows 300'):
        Models.load(tmp_path)
    (tmp_path / 'generator' / 'model.safetensors').unlink()
    with pytest.raises(ValueError):
        Models.load(tmp_path)


def test_modules_of_a_bundle_have_its_shapes(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    specs = TorchRuntime(modules_of(bundle)).specs
    for name in GRAPHS:
        assert specs[name].inputs == bundle.graphs[name].inputs
        assert specs[name].outputs == bundle.graphs[name].outputs


def test_verify_writes_a_report(tiny_bundle: Path, tmp_path: Path,
                                capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / 'report.json'
    assert main(['verify', str(tiny_bundle), '--cases', '2', '--runs', '2', '--threads', '1',
                 '--json', str(report)]) == 0
    found = json.loads(report.read_text())
    assert found['passed'] and found['bundle'] == Bundle.open(tiny_bundle).hash
    assert set(GRAPHS) <= set(found['milliseconds'])
    assert found['milliseconds']['plan']['p95'] >= found['milliseconds']['plan']['p50'] > 0
    assert '"passed": true' in capsys.readouterr().out


def test_verify_says_why_a_backend_cannot_run(tiny_bundle: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    from egomotion_ros.runtimes.tensorrt import probe_gpu
    try:
        probe_gpu()
    except RuntimeError:
        assert main(['verify', str(tiny_bundle), '--backend', 'tensorrt', '--cases', '1',
                     '--runs', '1']) == 1
        assert 'no usable NVIDIA GPU' in capsys.readouterr().err
    else:
        assert main(['verify', str(tiny_bundle), '--backend', 'tensorrt']) == 0


def test_bench_puts_torch_beside_the_runtime(tiny_bundle: Path, tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / 'bench.json'
    assert main(['bench', str(tiny_bundle), '--runs', '3', '--torch', '--threads', '1',
                 '--json', str(figures)]) == 0
    found = json.loads(figures.read_text())['milliseconds']
    for part in (*GRAPHS, 'reason', 'generate', 'plan'):
        assert {'torch', 'onnxruntime'} == set(found[part])
        assert np.isfinite(found[part]['torch']['p99'])
    assert 'torch / onnxruntime' in capsys.readouterr().out


def test_a_folder_that_is_no_bundle_is_one_line(tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ('bench', 'verify'):
        assert main([verb, str(tmp_path)]) == 1
        assert 'is no bundle' in capsys.readouterr().err


PALIGEMMA2 = {
    'model_type': 'paligemma', 'projection_dim': 32, 'image_token_id': 63,
    'vision_config': {'model_type': 'siglip_vision_model', 'hidden_size': 16,
                      'intermediate_size': 32, 'num_hidden_layers': 1, 'num_attention_heads': 2,
                      'image_size': 32, 'patch_size': 8, 'projection_dim': 32},
    'text_config': {'model_type': 'gemma2', 'hidden_size': 32, 'intermediate_size': 48,
                    'num_hidden_layers': 2, 'num_attention_heads': 2, 'num_key_value_heads': 1,
                    'head_dim': 16, 'vocab_size': 64}}


def test_a_hugging_face_family_exports_with_the_same_code(tmp_path: Path) -> None:
    from egomotion_ros.models.reasoner import Reasoner, ReasonerConfig
    from egomotion_ros.runtimes.export import to_onnx
    from egomotion_ros.runtimes.export_graphs import Decode, Prefill
    from egomotion_ros.runtimes.ort import OrtRuntime
    from egomotion_ros.runtimes.torch_runtime import graph_spec
    torch.manual_seed(0)
    reasoner = Reasoner(ReasonerConfig(vlm=PALIGEMMA2, layer=2, codes=16, levels=3, text_tokens=6,
                                       text_vocabulary=64)).eval()
    prefill = Prefill(reasoner, 32).eval()
    with torch.inference_mode():
        cache = prefill(*prefill.example())[2]
    specs = {}
    for name, module in (('prefill', prefill), ('decode', Decode(reasoner, tuple(cache.shape)))):
        proto = to_onnx(module.eval())
        lint(name, proto)
        onnx.save(proto, tmp_path / f'{name}.onnx')
        specs[name] = graph_spec(name, module, tmp_path / f'{name}.onnx')
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    text, mask = np.arange(6) + 3, np.arange(6) < 4
    # Only these figures of a bundle matter to decoding.
    figures = SimpleNamespace(windows=19, levels=3, temperature=0.0, decoder='autoregressive')
    found = decode_primitives(OrtRuntime(specs, 1), figures, image, text, mask,
                              np.array([1.5, 0.4, 0.0]), 0)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    tokens, _, out = reasoner.generate(pixels, torch.from_numpy(text)[None],
                                       torch.from_numpy(mask)[None],
                                       torch.tensor([[1.5, 0.4, 0.0]]))
    assert np.array_equal(found.tokens, tokens[0].numpy())
    assert np.allclose(found.states, out.states[0].numpy(), atol=1e-4)
