# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every graph of every family is exported, answers as torch does, and builds with TensorRT-RTX."""

from __future__ import annotations

from types import SimpleNamespace

from families_support import FAMILIES, IMAGE, tiny_reasoner
import numpy as np
import onnx
from onnx import shape_inference
import pytest
import torch

from egomotion_ros.runtimes.export import write_graphs
from egomotion_ros.runtimes.export_graphs import cache_shape, reasoner_graphs
from egomotion_ros.runtimes.export_lean import lean_graphs
from egomotion_ros.runtimes.flavours import half_precision
from egomotion_ros.runtimes.loops import PromptMemory, decode_primitives
from egomotion_ros.runtimes.ort import OrtRuntime
from egomotion_ros.runtimes.tensorrt import HALF_GRAPHS
from egomotion_ros.runtimes.torch_graphs import BundleTorchRuntime
from egomotion_ros.runtimes.torch_runtime import graph_spec

LAYER = 1


@pytest.fixture(scope='module', params=FAMILIES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
             ) -> SimpleNamespace:
    """A family's tiny reasoner, one layer of three, and its five graphs on disk."""
    reasoner = tiny_reasoner(request.param, LAYER, decoder='both')
    if request.param == 'paligemma2':
        # Scores of a tiny model are small: larger ones, and a lower cap, let them meet.
        attention = reasoner.vlm.model.language_model.layers[0].self_attn
        attention.attn_logit_softcapping = 2.0
        with torch.no_grad():
            attention.q_proj.weight.mul_(60.0)
    folder = tmp_path_factory.mktemp(request.param)
    graphs = lean_graphs(reasoner_graphs(reasoner, IMAGE))
    write_graphs(graphs, folder, progress=False)
    specs = {name: graph_spec(name, graph, folder / f'{name}.onnx')
             for name, graph in graphs.items()}
    return SimpleNamespace(family=request.param, reasoner=reasoner, folder=folder, specs=specs)


def answers(exported: SimpleNamespace, decoder: str, refinements: int
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tokens and states of the graphs in the loops, and of torch."""
    image = np.random.default_rng(0).integers(0, 256, (IMAGE, IMAGE, 3)).astype(np.uint8)
    text, mask, camera = np.arange(6) + 3, np.arange(6) < 4, np.array([1.5, 0.4, 0.0])
    # Only these figures of a bundle matter to decoding.
    figures = SimpleNamespace(windows=19, levels=3, codebook=16, temperature=0.0,
                              decoder=decoder, refinements=refinements)
    found = decode_primitives(OrtRuntime(exported.specs, 1), figures, image, text, mask, camera, 0)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    tokens, _, out = exported.reasoner.generate(
        pixels, torch.from_numpy(text)[None], torch.from_numpy(mask)[None],
        torch.from_numpy(camera).float()[None], decoder, refinements)
    return found.tokens, found.states, tokens[0].numpy(), out.states[0].numpy()


@pytest.mark.parametrize(('decoder', 'refinements'),
                         [('autoregressive', 0), ('parallel', 0), ('parallel', 2)])
def test_graphs_answer_as_torch_does(exported: SimpleNamespace, decoder: str,
                                     refinements: int) -> None:
    tokens, states, right_tokens, right_states = answers(exported, decoder, refinements)
    assert np.array_equal(tokens, right_tokens)
    np.testing.assert_allclose(states, right_states, atol=2e-3)


def test_a_picture_that_stands_is_not_read_again_by_a_causal_family(
        exported: SimpleNamespace) -> None:
    config, family = exported.reasoner.config, exported.reasoner.family
    features = exported.specs['vision'].outputs[0].shape
    rows, wide = exported.reasoner.prompt_rows, exported.reasoner.width
    layers, pair, heads, _, depth = cache_shape(exported.reasoner)
    kept = (family.deep * wide if family.bidirectional else layers * pair * heads * depth)
    assert features == (1, family.grid ** 2, wide + kept)
    # Products of the feed-forward part tell how many rows go through the layers.
    graph = shape_inference.infer_shapes(
        onnx.load(exported.folder / 'prefill.onnx', load_external_data=False)).graph
    shapes = {item.name: [size.dim_value for size in item.type.tensor_type.shape.dim]
              for item in graph.value_info}
    counts = {shapes[node.output[0]][-2] for node in graph.node
              if node.op_type in ('MatMul', 'Gemm') and shapes.get(node.output[0], [0])[-1] == 48}
    assert counts == {rows if family.bidirectional else rows - family.grid ** 2}
    # The same picture under other words: what is known of it leads to the same answer.
    runtime, memory = OrtRuntime(exported.specs, 1), PromptMemory()
    image = np.random.default_rng(1).integers(0, 256, (IMAGE, IMAGE, 3)).astype(np.uint8)
    figures = SimpleNamespace(windows=19, levels=config.levels, codebook=config.codes,
                              temperature=0.0, decoder='autoregressive', refinements=0)
    for words in (np.arange(6), np.arange(6) + 9):
        prompt = image, words, np.arange(6) < 5, np.array([1.4, 0.3, 0.1])
        found = decode_primitives(runtime, figures, *prompt, 0, memory)
        fresh = decode_primitives(runtime, figures, *prompt, 0)
        assert np.array_equal(found.tokens, fresh.tokens)
        assert np.array_equal(found.states, fresh.states)
    assert (memory.pictures, memory.prompts) == (1, 0)


def test_layers_above_the_stated_one_are_not_in_the_graphs(exported: SimpleNamespace) -> None:
    for name in ('decode', 'query', 'refine'):
        graph = onnx.load(exported.folder / f'{name}.onnx', load_external_data=False).graph
        assert sum(node.op_type == 'Softmax' for node in graph.node) == LAYER


def test_soft_capping_is_in_the_graph_and_changes_its_answer(exported: SimpleNamespace) -> None:
    graph = onnx.load(exported.folder / 'decode.onnx', load_external_data=False).graph
    capped = any(node.op_type == 'Tanh' for node in graph.node)
    assert capped == (exported.family == 'paligemma2')
    if capped:
        attention = exported.reasoner.vlm.model.language_model.layers[0].self_attn
        cap, attention.attn_logit_softcapping = attention.attn_logit_softcapping, None
        try:
            _, states, _, uncapped = answers(exported, 'parallel', 0)
        finally:
            attention.attn_logit_softcapping = cap
        assert np.abs(states - uncapped).max() > 1e-2


def test_weights_of_all_graphs_are_in_one_file_once(exported: SimpleNamespace) -> None:
    files = {path.name for path in exported.folder.iterdir()}
    assert files == {'weights.safetensors', *(f'{name}.onnx' for name in exported.specs)}
    stored = (exported.folder / 'weights.safetensors').stat().st_size
    weights = sum(p.numel() for name, p in exported.reasoner.named_parameters()
                  if 'grounding' not in name)
    # Masks and rotary tables, each once; the weights themselves four bytes each.
    assert stored < 4 * weights + 60_000


def test_every_graph_runs_in_torch_from_its_file(exported: SimpleNamespace) -> None:
    plain, torch_runtime = OrtRuntime(exported.specs, 1), BundleTorchRuntime(exported.specs, 1)
    random = np.random.default_rng(0)
    for name, spec in exported.specs.items():
        arrays = {item.name: random.random(item.shape).astype(item.dtype)
                  if item.dtype == 'float32' else np.ones(item.shape, item.dtype)
                  for item in spec.inputs}
        expected = plain.run(name, **arrays)
        for key, array in torch_runtime.run(name, **arrays).items():
            np.testing.assert_allclose(array, expected[key], rtol=1e-3, atol=1e-3,
                                       err_msg=f'{name} {key}')


def test_every_graph_builds_with_tensorrt(exported: SimpleNamespace) -> None:
    trt = pytest.importorskip('tensorrt_rtx', exc_type=ImportError)
    from egomotion_ros.runtimes.engine_build import build_engine
    for name in exported.specs:
        path = exported.folder / f'{name}.onnx'
        assert len(build_engine(trt, path).engine) > 10_000, name
    for kind in ('float16', 'bfloat16'):
        for name in set(HALF_GRAPHS) & set(exported.specs):
            proto = half_precision(exported.folder / f'{name}.onnx', kind)
            assert len(build_engine(trt, proto.SerializeToString()).engine) > 10_000, (name, kind)
