# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks count and report."""

from __future__ import annotations

import argparse
from dataclasses import replace
import json
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
import psutil
import pytest

from egomotion_ros.bench import flops, path, report, roofline, scaling
from egomotion_ros.bench.cpu import CPU_BACKENDS
from egomotion_ros.bench.lengths import export_images
from egomotion_ros.bundle import Bundle
from egomotion_ros.commands import bench
from egomotion_ros.runtimes.ort import OrtRuntime
from egomotion_ros.runtimes.timing import Ratio, Timing, made_up_inputs, rounds


@pytest.fixture(scope='module')
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope='module')
def runtime(bundle: Bundle):
    runtime = OrtRuntime(bundle.graphs, threads=1)
    yield runtime
    runtime.close()


def graph(nodes, inputs: dict[str, tuple], outputs: dict[str, tuple],
          weights: dict[str, tuple]) -> ModelProto:
    """Graph of float tensors; the weights are ones."""
    from onnx.shape_inference import infer_shapes

    def tensors(shapes: dict[str, tuple]):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in shapes.items()]

    return infer_shapes(helper.make_model(
        helper.make_graph(nodes, 'g', tensors(inputs), tensors(outputs), [
            numpy_helper.from_array(np.ones(shape, np.float32), name)
            for name, shape in weights.items()]),
        opset_imports=[helper.make_opsetid('', 20), helper.make_opsetid('com.microsoft', 1)],
        ir_version=10))


@pytest.mark.parametrize(('node', 'left', 'right', 'out', 'expected'), [
    # 2 * rows * columns * inner, once for each of the 3 * 4 matrices.
    (('MatMul', {}), (3, 4, 5, 6), (3, 4, 6, 7), (3, 4, 5, 7), 2 * 12 * 5 * 6 * 7),
    (('MatMul', {}), (1, 5, 6), (6, 7), (1, 5, 7), 2 * 5 * 6 * 7),
    (('Gemm', {'transA': 1, 'transB': 1}), (6, 5), (7, 6), (5, 7), 2 * 5 * 6 * 7),
    # 8 channels of 10 x 10, each from 3 channels under a 3 x 3 window.
    (('Conv', {'pads': [1, 1, 1, 1]}), (1, 3, 10, 10), (8, 3, 3, 3), (1, 8, 10, 10),
     2 * 800 * 27),
    # Two groups: each output sees half of the inputs.
    (('Conv', {'group': 2, 'strides': [2]}), (1, 4, 9), (6, 2, 3), (1, 6, 4), 2 * 24 * 6),
    # Every one of 4 * 5 inputs meets 3 outputs under a window of 2.
    (('ConvTranspose', {'strides': [2]}), (1, 4, 5), (4, 3, 2), (1, 3, 10), 2 * 20 * 6),
    (('Add', {}), (5, 6), (5, 6), (5, 6), 0),
])
def test_operations_are_counted_as_by_hand(node, left, right, out, expected: int) -> None:
    kind, attributes = node
    model = graph([helper.make_node(kind, ['x', 'w'], ['y'], **attributes)],
                  {'x': left}, {'y': out}, {'w': right})
    assert flops.count_flops(model) == expected


def test_products_with_packed_weights_count_as_products() -> None:
    model = graph([helper.make_node('MatMulNBits', ['x', 'w'], ['y'], domain='com.microsoft',
                                    K=6, N=7, bits=8, block_size=32)],
                  {'x': (3, 5, 6)}, {'y': (3, 5, 7)}, {'w': (7, 1, 6)})
    assert flops.count_flops(model) == 2 * 15 * 6 * 7


def test_an_operation_of_unknown_shape_is_refused() -> None:
    model = graph([helper.make_node('MatMul', ['x', 'w'], ['y'])],
                  {'x': ('n', 6)}, {'y': ('n', 7)}, {'w': (6, 7)})
    with pytest.raises(ValueError, match='no static shape'):
        flops.count_flops(model)


def test_heads_are_what_the_trunk_does_not_need() -> None:
    model = graph(
        [helper.make_node('MatMul', ['x', 'w'], ['state']),
         helper.make_node('MatMul', ['state', 'v'], ['logits'])],
        {'x': (1, 4)}, {'state': (1, 4), 'logits': (1, 9)}, {'w': (4, 4), 'v': (4, 9)})
    part = flops.head_part(model, ['state'])
    assert flops.count_flops(part) == 2 * 4 * 9
    assert [value.name for value in part.graph.input] == ['state']
    assert flops.head_part(model, ['other']) is None


def test_the_ratio_of_a_variant_to_its_double_is_two() -> None:
    random = np.random.default_rng(0)
    load = random.uniform(1, 5, 40)
    ratio = Ratio.of(2 * load, load)
    assert ratio.value == ratio.low == ratio.high == 2
    noisy = Ratio.of(2 * load * random.uniform(0.9, 1.1, 40), load)
    assert noisy.low < noisy.value < noisy.high
    assert noisy.low < 2 < noisy.high
    with pytest.raises(ValueError, match='as many rounds'):
        Ratio.of(load, load[:-1])


def test_rounds_run_everything_equally_often_in_changing_order() -> None:
    calls: list[str] = []
    spent = rounds({name: lambda name=name: calls.append(name) for name in 'abc'}, 20, warm=1)
    order = [''.join(calls[n:n + 3]) for n in range(3, len(calls), 3)]
    assert all(sorted(turn) == ['a', 'b', 'c'] for turn in order)
    assert len(order) == 20
    assert len(set(order)) > 3
    assert {name: seconds.shape for name, seconds in spent.items()} == dict.fromkeys('abc', (20,))
    with pytest.raises(ValueError, match='at least 1'):
        rounds({}, 0)


def test_the_parts_of_a_plan_add_up(runtime, bundle: Bundle) -> None:
    times = path.measure(runtime, bundle, 'unitree_g1', 3)
    # Times are told once, in the first plan, which is not timed.
    assert set(times.graphs) == set(bundle.graphs) - {'time'}
    figures = times.as_dict()
    assert sum(figures['share'].values()) == pytest.approx(1)
    means = figures['mean_milliseconds']
    assert sum(value for name, value in means.items() if name != 'whole') == pytest.approx(
        means['whole'])
    assert {*times.graphs, *path.RETARGETING} <= set(times.parts)
    rest = (path.RETARGETING[2], 'limit check', 'motion messages')
    assert times.whole - times.first == pytest.approx(sum(times.parts[name] for name in rest))
    assert all((seconds > 0).all() for seconds in times.parts.values())
    assert times.missing == '' and set(path.AROUND) <= set(times.parts)
    with pytest.raises(ValueError, match='at least 1'):
        path.measure(runtime, bundle, 'unitree_g1', 0)


def test_every_graph_has_its_share_and_parts_are_smaller_than_wholes(
        runtime, bundle: Bundle) -> None:
    costs = roofline.measure(runtime, bundle, 1, 3, '')
    by_name = {cost.name: cost for cost in costs.graphs}
    assert set(by_name) == {*bundle.graphs, 'heads'}
    assert 0 < by_name['heads'].flops < by_name['decode'].flops
    for cost in costs.graphs:
        assert cost.share == pytest.approx(cost.gflops / costs.roof)
    step = by_name['step']
    assert costs.together({'step': 7}) == pytest.approx(step.share)


def test_more_steps_and_primitives_run_more_graphs(runtime, bundle: Bundle) -> None:
    timed = path.TimedRuntime(runtime)
    assert list(scaling.primitive_actions(timed, bundle)) == ['0', '1', '4', '9', '19']
    scaling.primitive_actions(timed, bundle)['0']()
    assert timed.seconds['decode'] == 0 < min(timed.seconds['vision'], timed.seconds['prefill'])
    scaling.step_actions(timed, bundle)['4']()
    assert timed.seconds['step'] > 0
    timed.reset()
    assert not any(timed.seconds.values())


def test_the_other_way_to_decode_is_compared_where_its_graphs_are(bundle: Bundle) -> None:
    without = {name: spec for name, spec in bundle.graphs.items() if name != 'query'}
    assert report.other_decoders(replace(bundle, graphs=without)) == ()
    both = replace(bundle, graphs=without | {'query': bundle.graphs['decode']})
    assert report.other_decoders(both) == ('parallel',)
    assert report.other_decoders(replace(both, decoder='parallel')) == ('autoregressive',)


def test_primitives_have_a_curve_where_they_can_come_one_by_one(
        runtime, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # Under another name than ONNX Runtime's, images, frames and threads are left out.
    monkeypatch.setattr(scaling, '_STEPS', (1,))
    other = path.TimedRuntime(runtime)
    other.name = 'another runtime'
    one_by_one = scaling.measure(other, bundle, 1, 1)
    assert {'primitives', 'steps'} <= set(one_by_one)
    assert 'primitives' not in one_by_one['notes']
    both = scaling.measure(other, replace(bundle, decoder='parallel'), 1, 1)
    assert 'primitives' in both and 'at once' in both['notes']['primitives']
    other.reset()
    without = {name: spec for name, spec in bundle.graphs.items() if name != 'decode'}
    at_once = scaling.measure(other, replace(bundle, decoder='parallel', graphs=without), 1, 1)
    assert 'primitives' not in at_once and 'nothing grows' in at_once['notes']['primitives']
    assert 'steps' in at_once and other.seconds['decode'] == 0


def test_images_frames_and_threads_have_curves_on_the_cpu(
        runtime, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scaling, '_STEPS', (1,))
    monkeypatch.setattr(scaling, '_WINDOWS', (10, 19))
    monkeypatch.setattr(scaling, '_IMAGES', (1, 2))
    curves = scaling.measure(runtime, bundle, 1, 1)
    assert list(curves['images']) == ['1', '2'] and list(curves['frames']) == ['80', '152']
    assert list(curves['threads'])[:2] == ['1', '2'] and not curves['notes']
    assert all(point['p50'] > 0 for name in ('images', 'frames', 'threads')
               for point in curves[name].values())
    # The second picture's tokens are rows of the prompt, and are read.
    once = bundle.graphs['prefill'].inputs[0].shape
    spec = export_images(bundle, 2, tmp_path / 'two')['prefill']
    assert spec.inputs[0].shape == (1, 2 * once[1], once[2])
    assert spec.outputs[0].shape[1] == bundle.graphs['prefill'].outputs[0].shape[1] + once[1]
    wider = OrtRuntime({'prefill': spec}, 1)
    inputs = made_up_inputs(wider)['prefill']
    plain = wider.run('prefill', **inputs)['logits']
    changed = inputs['features'].copy()
    changed[:, once[1]:] += 1.0
    found = wider.run('prefill', **inputs | {'features': changed})['logits']
    assert np.abs(found - plain).max() > 0
    wider.close()


def test_graphs_of_either_decoder_belong_to_the_reasoner(bundle: Bundle) -> None:
    both = replace(bundle, graphs=dict.fromkeys(
        ['vision', 'prefill', 'decode', 'query', 'refine', 'condition', 'time', 'step',
         'decode_motion']))
    order = path._order(both)
    ends = order.index('around the reasoner')
    assert {'vision', 'prefill', 'decode', 'query', 'refine'} <= set(order[:ends])
    assert {'condition', 'time', 'step', 'decode_motion'} <= set(order[ends:])


@pytest.mark.parametrize('backend', CPU_BACKENDS)
def test_the_verb_writes_figures_and_a_chart(
        tiny_bundle_of_four: Path, tmp_path: Path, backend: str,
        capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(backend)
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    out = tmp_path / 'new' / 'figures.json'
    arguments = [str(tiny_bundle_of_four), '--backend', backend, '--runs', '2', '--threads', '1',
                 '--only', 'path', 'graphs', 'backends', '--json', str(out)]
    assert bench.run(parser.parse_args(arguments)) == 0
    found = json.loads(out.read_text())
    assert {'bundle', 'threads', 'machine', 'notes', 'path', 'roofline', 'memory_mb',
            'backends'} <= set(found)
    assert found['notes'] == {}
    assert set(found['backends']['milliseconds']['plan']) == {
        backend, 'eager torch', 'eager torch, one by one'}
    assert 'eager torch, one by one' not in found['backends']['milliseconds']['step_batch']
    # Two steps of four candidates at once, and none of one.
    costs = {item['name']: (item['flops'], item['flops'] / item['gflops'])
             for item in found['roofline']['graphs']}
    flops, times = (sum(calls * costs[name][n] for name, calls in (
        ('condition', 1), ('step_batch', 2), ('decode_motion', 4))) for n in (0, 1))
    assert found['roofline']['generator_share'] == pytest.approx(
        flops / times / found['roofline']['gemm_gflops'])
    assert found['backends']['ratio']['plan']['eager torch']['value'] > 0
    assert found['memory_mb']['process'] > max(
        found['memory_mb'][name] for name in Bundle.open(tiny_bundle_of_four).graphs)
    assert out.with_suffix('.png').stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert 'everything else' in printed and str(out.with_suffix('.png')) in printed


def test_growth_is_the_slope_of_the_second_half(benchmark_script) -> None:
    steady_state = benchmark_script('steady_state')
    plans = np.arange(200.0)
    # Filling a cache at first is no growth; 0.25 MB a plan is 250 MB per 1,000.
    filled = np.minimum(plans, 80.0)
    rows = np.stack([300 + 0.25 * plans, 40 + filled, np.full(200, 7.0)], axis=1)
    assert steady_state.growth(rows) == pytest.approx([250, 0, 0], abs=1e-6)
    with pytest.raises(ValueError, match='at least 4'):
        steady_state.growth(rows[:3])
    assert len(steady_state.held(psutil.Process())) == len(steady_state.QUANTITIES)


def test_timing_reports_percentiles_in_milliseconds() -> None:
    timing = Timing.of(np.arange(1, 101) / 1000)
    assert (timing.p50, timing.runs) == (pytest.approx(50.5), 100)
    assert timing.p50 < timing.p95 < timing.p99
