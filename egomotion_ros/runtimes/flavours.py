# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Half-precision flavours of a bundle's graphs, made where they are needed, without torch.

A bundle stores its weights once, in float32.  For a GPU the large graphs are converted to
float16 or bfloat16 with float32 inputs and outputs; every tensor then has the type that it is
computed in, as TensorRT's strongly typed networks ask.  What float16 cannot hold stays float32:
norms (squares overflow), and everything that leads into a sine or cosine (positions and times up
to 1000 leave float16 steps of half a radian).  bfloat16 has the range of float32, for models
whose states overflow float16 (Gemma 2), and fewer digits.
"""

from __future__ import annotations

from pathlib import Path
import tempfile

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

_KEEP = ['Pow', 'ReduceMean', 'Sqrt', 'Reciprocal', 'Div', 'Softmax', 'InstanceNormalization',
         'GroupNormalization', 'Sin', 'Cos', 'Exp']


#: Operators without bfloat16 in the opset of the graphs.
_NO_BFLOAT16 = ['Conv', 'ConvTranspose']


def half_precision(path: Path, kind: str = 'float16') -> onnx.ModelProto:
    """
    Return the ``'float16'`` or ``'bfloat16'`` flavour of a graph file, weights inside.

    Inputs and outputs stay float32.  Raises ValueError for a file that is no ONNX graph, or
    another kind.
    """
    if kind not in ('float16', 'bfloat16'):
        raise ValueError(f"kind {kind!r}: expected 'float16' or 'bfloat16'")
    try:
        with tempfile.TemporaryDirectory() as folder:
            # Through files: no message of protobuf, which a graph in memory would have to be
            # for this, holds 2 GB of weights.
            typed = Path(folder) / 'typed.onnx'
            onnx.shape_inference.infer_shapes_path(path, typed)
            proto = onnx.load(typed, load_external_data=False)
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:  # protobuf, onnx and the file system raise unrelated classes
        raise ValueError(f'{path}: no readable ONNX graph ({error})') from None
    brain = kind == 'bfloat16'
    exact = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer
             if brain and item.data_type == TensorProto.FLOAT}
    proto = convert_float_to_float16(
        proto, keep_io_types=True, disable_shape_infer=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_KEEP, *(_NO_BFLOAT16 if brain else ())],
        node_block_list=sorted(_angle_nodes(proto.graph)))
    if brain:
        _to_bfloat16(proto.graph, exact)
    # Casts were put at the end, which ONNX does not allow.
    OnnxModel(proto).topological_sort()
    return proto


def write_half_precision(path: Path, folder: Path, kind: str = 'float16') -> Path:
    """
    Write :func:`half_precision` of a graph file to ``folder``, weights in a file beside it.

    Graph and weights may be larger than the 2 GB a message of protobuf holds.  Returns where the
    graph is.
    """
    target = folder / path.name
    onnx.save(half_precision(path, kind), target, save_as_external_data=True,
              location=f'{path.stem}.weights')
    return target


def _to_bfloat16(graph: onnx.GraphProto, exact: dict[str, np.ndarray]) -> None:
    """Let everything that is float16 be bfloat16, weights taken from their ``exact`` values."""

    def change(tensor: TensorProto) -> None:
        if tensor.data_type == TensorProto.FLOAT16:
            value = exact.get(tensor.name, None)
            value = numpy_helper.to_array(tensor) if value is None else value
            raw = value.astype(np.float32).astype(ml_dtypes.bfloat16).tobytes()
            tensor.ClearField('int32_data')
            tensor.data_type, tensor.raw_data = TensorProto.BFLOAT16, raw

    for tensor in graph.initializer:
        change(tensor)
    for node in graph.node:
        for item in node.attribute:
            if item.name == 'to' and item.i == TensorProto.FLOAT16:
                item.i = TensorProto.BFLOAT16
            elif item.type == onnx.AttributeProto.TENSOR:
                change(item.t)
    for value in graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16


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
