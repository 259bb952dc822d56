# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Export writes a bundle that answers as torch does, or nothing; verify and bench work on it."""

from collections import Counter
from dataclasses import replace
import json
from pathlib import Path
import shutil

from fixtures_bundle import TINY_CAMERA, tiny_models
import onnx
from onnx import TensorProto, helper
import pytest
import torch

from egomotion_ros.bundle import GRAPHS, Bundle, write_manifest
from egomotion_ros.cli import main
from egomotion_ros.models.checkpoints import save_model
from egomotion_ros.runtimes.export import Models, export_bundle, write_graphs
from egomotion_ros.runtimes.export_graphs import Graph, graph_modules
from egomotion_ros.runtimes.export_lean import lean_graphs
from egomotion_ros.runtimes.export_lint import lint
from egomotion_ros.runtimes.ort import OrtRuntime, session_options
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


def branch(operator: str) -> onnx.GraphProto:
    value = helper.make_tensor_value_info('b', TensorProto.FLOAT, (2,))
    return helper.make_graph([helper.make_node(operator, ['a'], ['b'])], operator, [], [value])


@pytest.mark.parametrize(('proto', 'words'), [
    (graph(helper.make_node('NonZero', ['a'], ['b'])), 'NonZero'),
    (graph(helper.make_node('Loop', ['a'], ['b'])), 'Loop'),
    (graph(helper.make_node('Gelu', ['a'], ['b'], domain='com.microsoft')), 'no standard'),
    (graph(helper.make_node('Cast', ['a'], ['b'], to=TensorProto.DOUBLE)), 'cast to float64'),
    (graph(helper.make_node('Neg', ['a'], ['b']), kind=TensorProto.DOUBLE), 'a is float64'),
    (graph(helper.make_node('Neg', ['a'], ['b']), shape=('batch',)), 'no static shape'),
    (graph(helper.make_node('Det', ['a'], ['b'])), r'Det is not expected'),
    (graph(helper.make_node('Constant', [], ['c'], value=helper.make_tensor(
        'c', TensorProto.DOUBLE, [1], [1.0])), helper.make_node('Neg', ['a'], ['b'])),
     'float64 constant'),
    (graph(helper.make_node('Constant', [], ['yes'], value=helper.make_tensor(
        'yes', TensorProto.BOOL, [], [True])), helper.make_node(
            'If', ['yes'], ['b'], name='choose', then_branch=branch('Softmax'),
            else_branch=branch('Neg'))), r'If around attention \(choose\)'),
])
def test_lint_refuses_what_a_runtime_cannot_run(proto: onnx.ModelProto, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lint('g', proto)


class Doubled(Graph):
    """Counts in float64 on the way."""

    inputs, outputs = ('a',), ('b',)

    def example(self) -> tuple[torch.Tensor, ...]:
        return (torch.ones(2),)

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return (a.double() * 3).float()


def test_lint_names_node_and_source_line_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'cast to float64 \(node_\S+, test/test_export\.py:\d+ '
                                         r'in forward\)'):
        write_graphs({'g': Doubled()}, tmp_path, progress=False)
    assert not (tmp_path / 'g.onnx').exists()


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


@pytest.mark.parametrize('cosine', [0.9998, float('nan')])
def test_float32_graphs_must_agree_one_by_one(cosine: float) -> None:
    report = ParityReport('torch', 'onnxruntime', 1, 1.0, 0.0,
                          {'step': GraphParity(0.1, 0.99999), 'encode': GraphParity(0.1, cosine)})
    report.require()
    with pytest.raises(ValueError, match='cosine below 0.9999 in encode;'):
        report.require(exact=True)


@pytest.mark.parametrize(('asked', 'refinements'), [('parallel', 0), (None, 1), ('guess', 0)])
def test_a_decoder_the_reasoner_was_not_trained_for_is_refused(asked: str | None,
                                                               refinements: int,
                                                               tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='trained for'):
        export_bundle(tiny_models(), tmp_path / 'out', TINY_CAMERA, decoder=asked,
                      refinements=refinements, progress=False)
    assert not (tmp_path / 'out').exists()


def with_parallel_graphs(source: Path, out: Path, **primitives: object) -> Path:
    """Copy a bundle and describe graphs of parallel decoding in it; their content is not run."""
    shutil.copytree(source, out)
    manifest = json.loads((out / 'manifest.json').read_text())
    decode = manifest['graphs']['decode']
    shared = [item for item in decode['inputs'] if item['name'] in ('cache', 'mask')]
    state = next(item['shape'] for item in decode['outputs'] if item['name'] == 'state')

    def tensor(name: str, *shape: int, dtype: str = 'float32') -> dict:
        return {'name': name, 'dtype': dtype, 'shape': list(shape)}

    logits = tensor('logits', 1, 19, manifest['primitives']['codebook'])
    residual = tensor('residual', 1, 19, manifest['primitives']['levels'] - 1,
                      manifest['primitives']['codebook'])
    manifest['graphs'] |= {
        'query': {**decode, 'inputs': [tensor('begin', 1, state[-1]), *shared],
                  'outputs': [logits]},
        'refine': {**decode, 'inputs': [tensor('tokens', 1, 19, dtype='int64'), *shared],
                   'outputs': [logits, tensor('states', 1, 19, state[-1]), residual]}}
    manifest['primitives'] |= primitives
    write_manifest(out, manifest)
    return out


def test_the_manifest_says_how_primitives_are_decoded(tiny_bundle: Path, tmp_path: Path) -> None:
    assert Bundle.open(tiny_bundle).decoder == 'autoregressive'
    bundle = Bundle.open(with_parallel_graphs(tiny_bundle, tmp_path / 'a', decoder='parallel',
                                              refinements=2))
    assert (bundle.decoder, bundle.refinements) == ('parallel', 2)
    assert set(bundle.graphs) == {*GRAPHS, 'query', 'refine'}
    with pytest.raises(ValueError, match="decoder 'guess'"):
        Bundle.open(with_parallel_graphs(tiny_bundle, tmp_path / 'b', decoder='guess'))
    with pytest.raises(ValueError, match='refinements is -1'):
        Bundle.open(with_parallel_graphs(tiny_bundle, tmp_path / 'c', refinements=-1))
    shutil.copytree(tiny_bundle, tmp_path / 'd')
    manifest = json.loads((tmp_path / 'd' / 'manifest.json').read_text())
    manifest['primitives']['decoder'] = 'parallel'
    write_manifest(tmp_path / 'd', manifest)
    with pytest.raises(ValueError, match='with its graphs'):
        Bundle.open(tmp_path / 'd')


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


def test_lean_graphs_answer_as_the_plain_modules_do() -> None:
    models = tiny_models(layers=3)
    with torch.no_grad():
        for parameter in models.generator.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    plain = graph_modules(models.reasoner, models.generator, models.autoencoder, 128)
    lean = lean_graphs(plain)
    changed = {name for name in plain if lean[name] is not plain[name]}
    assert changed == {'prefill', 'decode', 'step'}
    cache = torch.randn(plain['decode'].cache)
    inputs = {name: plain[name].example() for name in changed}
    inputs['decode'] = (torch.tensor([3]), torch.tensor([5]), cache, inputs['decode'][3])
    with torch.inference_mode():
        for name in changed:
            expected, found = (graphs[name](*inputs[name]) for graphs in (plain, lean))
            if name == 'step':
                moved = (expected - inputs[name][0]).abs().max()
                assert moved > 0.01
                expected, found = (expected,), (found,)
            for left, right in zip(expected, found, strict=True):
                torch.testing.assert_close(right, left, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', ['prefill', 'decode', 'step'])
def test_every_norm_is_one_operator_of_onnx_runtime(tiny_bundle: Path, tmp_path: Path,
                                                    name: str) -> None:
    path = tmp_path / 'optimised.onnx'
    options = session_options(1)
    options.optimized_model_filepath = str(path)
    OrtRuntime({name: Bundle.open(tiny_bundle).graphs[name]}, options=options).close()
    made = Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)
    assert made['SimplifiedLayerNormalization'] > 0
    assert made['ReduceMean'] == made['Pow'] == 0


def test_models_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    from egomotion_ros.models.generator import GeneratorConfig, MotionGenerator
    models = tiny_models()
    models.generator = MotionGenerator(GeneratorConfig(
        channels=8, state_width=48, width=32, heads=2, layers=1, hidden=64))
    with pytest.raises(ValueError, match='state width: the models disagree'):
        export_bundle(models, tmp_path / 'out', TINY_CAMERA, progress=False)
    narrow = replace(TINY_CAMERA, hfov=1.2)
    with pytest.raises(ValueError, match='1.396 rad wide, the camera is 1.200'):
        export_bundle(tiny_models(), tmp_path / 'out', narrow, progress=False)
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


def test_a_folder_that_is_no_bundle_is_one_line(tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ('bench', 'verify'):
        assert main([verb, str(tmp_path)]) == 1
        assert 'is no bundle' in capsys.readouterr().err
