# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Floating-point operations of ONNX graphs, and parts cut out of them.

Counted are matrix products and convolutions (a multiply and an add are two operations): that is
what the rate of a matrix product can be compared with.  Norms, softmax and copies count as
nothing, so that a graph's share of that rate says how much of its time is arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, helper, shape_inference

Shape = tuple[int, ...]


def read_graph(path: Path, weights: bool = False) -> ModelProto:
    """
    Read a graph file with the shapes of all its tensors; ``weights`` reads those beside it too.

    Raises ValueError for a file that is no ONNX graph.
    """
    try:
        model = onnx.load(path, load_external_data=weights)
        return shape_inference.infer_shapes(model)
    except Exception as error:  # protobuf, onnx and the file system raise unrelated classes
        raise ValueError(f'{path}: no readable ONNX graph ({error})') from None


def shapes_of(model: ModelProto) -> dict[str, Shape]:
    """Return the static shape of every tensor whose shape is known."""
    graph = model.graph
    shapes = {item.name: tuple(item.dims) for item in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        sizes = value.type.tensor_type.shape.dim
        if all(size.HasField('dim_value') for size in sizes):
            shapes[value.name] = tuple(size.dim_value for size in sizes)
    return shapes


def count_flops(model: ModelProto) -> int:
    """
    Operations of one run of a graph with static shapes.

    Raises ValueError where the shape that an operation is counted by is unknown.
    """
    shapes = shapes_of(model)
    return sum(_node_flops(node, shapes) for node in model.graph.node)


def _node_flops(node: NodeProto, shapes: dict[str, Shape]) -> int:
    if node.op_type not in ('MatMul', 'Gemm', 'Conv', 'ConvTranspose', 'MatMulNBits'):
        return 0
    try:
        if node.op_type == 'MatMulNBits':
            # ONNX Runtime's product with packed weights (the int8 flavour): only attributes tell.
            sizes = {item.name: item.i for item in node.attribute}
            return 2 * prod(shapes[node.input[0]][:-1]) * sizes['K'] * sizes['N']
        left, right = shapes[node.input[0]], shapes[node.input[1]]
        out = shapes[node.output[0]]
    except KeyError as error:
        raise ValueError(f'{node.op_type} {node.name!r}: no static shape of {error}') from None
    if node.op_type == 'MatMul':
        return 2 * prod(out) * left[-1]
    if node.op_type == 'Gemm':
        turned = any(item.name == 'transA' and item.i for item in node.attribute)
        return 2 * prod(out) * left[0 if turned else 1]
    # A kernel holds (out, in / groups, *size), a transposed one (in, out / groups, *size): either
    # way every output, or input, meets all of it but the first axis.
    return 2 * prod(out if node.op_type == 'Conv' else left) * prod(right[1:])


def part_before(model: ModelProto, kept: Iterable[str]) -> list[NodeProto]:
    """Return the nodes that the outputs ``kept`` need."""
    wanted, nodes = set(kept), []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            nodes.append(node)
    return nodes[::-1]


def head_part(model: ModelProto, trunk: Iterable[str]) -> ModelProto | None:
    """
    Cut out what the outputs ``trunk`` do not need: the heads on top of it.

    None where a name of ``trunk`` is no output or nothing is left.
    """
    trunk = set(trunk)
    if not trunk <= {value.name for value in model.graph.output}:
        return None
    below = {node.output[0] for node in part_before(model, trunk)}
    chosen = [node for node in model.graph.node if node.output[0] not in below]
    return _cut(model, chosen) if 0 < len(chosen) < len(model.graph.node) else None


def _cut(model: ModelProto, nodes: list[NodeProto]) -> ModelProto:
    """Make a graph of ``nodes``, whose inputs and outputs are the tensors that cross the cut."""
    graph = model.graph
    stored = {item.name: item for item in graph.initializer}
    made = {name for node in nodes for name in node.output}
    used = {name for node in nodes for name in node.input if name}
    rest = {node.output[0] for node in nodes}
    outside = {name for node in graph.node if node.output[0] not in rest for name in node.input}
    outside |= {value.name for value in graph.output}
    types = {value.name: value
             for value in (*graph.input, *graph.output, *graph.value_info)}
    part = helper.make_graph(
        nodes, 'part', [types[name] for name in sorted(used - made - set(stored))],
        [types[name] for name in sorted(made & outside)],
        [stored[name] for name in sorted(used & set(stored))],
        value_info=[types[name] for name in sorted(made - outside) if name in types])
    return helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
