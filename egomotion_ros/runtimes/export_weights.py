# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The one weights file of a bundle: every tensor once, written one after the other.

A safetensors file that all graphs point into as ONNX external data.  Nothing of it is held in
memory beside the models themselves, so that models of many gigabytes can be exported.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from tqdm import tqdm

#: Tensors smaller than this many bytes stay inside the graph.
INLINE = 1024
_TYPES = {ir.DataType.FLOAT: 'F32', ir.DataType.FLOAT16: 'F16', ir.DataType.BFLOAT16: 'BF16',
          ir.DataType.INT64: 'I64', ir.DataType.INT32: 'I32', ir.DataType.INT8: 'I8',
          ir.DataType.UINT8: 'U8', ir.DataType.BOOL: 'BOOL'}


def write_weights(models: Mapping[str, ir.Model], path: Path, progress: bool = True) -> None:
    """
    Write the large tensors of all graphs to ``path`` and let the graphs point there.

    Equal tensors are stored once.  Raises ValueError for a type that safetensors does not know.
    """
    users: dict[str, list[ir.Value]] = {}
    for name, model in models.items():
        for value in tqdm(list(model.graph.initializers.values()), desc=f'weights of {name}',
                          disable=not progress, leave=False):
            tensor = value.const_value
            if tensor is None or tensor.nbytes < INLINE:
                continue
            if tensor.dtype not in _TYPES:
                raise ValueError(f'graph {name}: {value.name} is {tensor.dtype.name}')
            digest = hashlib.sha256(_data(tensor)).hexdigest()[:16]
            shape = 'x'.join(str(size) for size in tensor.shape)
            users.setdefault(f'{_TYPES[tensor.dtype]}.{shape}.{digest}', []).append(value)
    # Wide types first keeps every tensor aligned; equal content gives an equal file.
    order = sorted(users, key=lambda key: (-users[key][0].const_value.dtype.itemsize, key))
    header, end = {}, 0
    for key in order:
        tensor = users[key][0].const_value
        header[key] = {'dtype': _TYPES[tensor.dtype], 'shape': list(tensor.shape.numpy()),
                       'data_offsets': [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as file:
        file.write(len(text).to_bytes(8, 'little') + text)
        for key in tqdm(order, desc='write weights', disable=not progress):
            file.write(_data(users[key][0].const_value))
    for key in order:
        start = header[key]['data_offsets'][0] + 8 + len(text)
        for value in users[key]:
            old = value.const_value
            value.const_value = ir.ExternalTensor(
                path.name, start, old.nbytes, old.dtype, shape=old.shape, name=value.name,
                base_dir=path.parent)


def write_graph(model: ir.Model, path: Path) -> None:
    """Write a graph whose weights are in the weights file, without traces of this machine."""
    proto = strip(ir.to_proto(model))
    path.write_bytes(proto.SerializeToString(deterministic=True))


def strip(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Remove file names and stack traces of the exporting machine."""
    for node in proto.graph.node:
        node.ClearField('metadata_props')
        node.ClearField('doc_string')
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info,
                  *proto.graph.initializer):
        value.ClearField('metadata_props')
    proto.graph.ClearField('metadata_props')
    proto.ClearField('metadata_props')
    return proto


def _data(tensor: ir.TensorProtocol) -> memoryview:
    """Bytes of a tensor in memory order, without a copy where it is contiguous."""
    array = np.ascontiguousarray(tensor.numpy())
    return memoryview(array.reshape(-1).view(np.uint8))
