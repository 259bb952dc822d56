# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Half-precision flavours of a bundle's graphs, made where they are needed, without torch.

A bundle stores its weights once, in float32.  For a GPU the large graphs are converted to
float16 with float32 inputs and outputs; what float16 cannot hold stays float32: norms (squares
overflow), and everything that leads into a sine or cosine (positions and times up to 1000 leave
float16 steps of half a radian).
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

_KEEP = ['Pow', 'ReduceMean', 'Sqrt', 'Reciprocal', 'Div', 'Softmax', 'InstanceNormalization',
         'GroupNormalization', 'Sin', 'Cos', 'Exp']


def half_precision(path: Path) -> onnx.ModelProto:
    """
    Return the float16 flavour of a graph file, weights inside.

    Inputs and outputs stay float32.  Raises ValueError for a file that is no ONNX graph.
    """
    try:
        proto = onnx.load(path)
    except Exception as error:  # protobuf, onnx and the file system raise unrelated classes
        raise ValueError(f'{path}: no readable ONNX graph ({error})') from None
    return convert_float_to_float16(
        proto, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_KEEP],
        node_block_list=sorted(_angle_nodes(proto.graph)))


def _angle_nodes(graph: onnx.GraphProto) -> set[str]:
    """Names of all nodes that sines and cosines depend on."""
    maker = {name: node for node in graph.node for name in node.output}
    waiting = [name for node in graph.node if node.op_type in ('Sin', 'Cos')
               for name in node.input]
    found: set[str] = set()
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting.extend(node.input)
    return found
