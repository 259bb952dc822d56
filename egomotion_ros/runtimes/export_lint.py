# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an exported graph may hold, so that every runtime builds it and answers alike."""

from __future__ import annotations

from pathlib import PurePath
import re

import onnx
from onnx import TensorProto

#: Control flow, shapes that depend on data, and chance.
FORBIDDEN_OPS = frozenset((
    'If', 'Loop', 'Scan', 'NonZero', 'Unique', 'Compress', 'TopK', 'NonMaxSuppression',
    'RandomNormal', 'RandomUniform', 'RandomNormalLike', 'RandomUniformLike', 'Multinomial',
    'Bernoulli', 'SequenceAt', 'SequenceConstruct', 'SequenceInsert', 'SplitToSequence'))
#: The operators that exported models are made of; another one is looked at before it is added.
EXPECTED_OPS = frozenset((
    'Add', 'And', 'ArgMax', 'Cast', 'Clip', 'Concat', 'Constant', 'ConstantOfShape', 'Conv',
    'ConvTranspose', 'Cos', 'Div', 'Einsum', 'Elu', 'Equal', 'Erf', 'Exp', 'Expand', 'Flatten',
    'Gather', 'GatherElements', 'GatherND', 'Gelu', 'Gemm', 'Greater', 'GreaterOrEqual',
    'GroupNormalization', 'Identity', 'InstanceNormalization', 'LayerNormalization', 'Less',
    'LessOrEqual', 'Log', 'MatMul', 'Max', 'Min', 'Mod', 'Mul', 'Neg', 'Not', 'Or', 'Pad', 'Pow',
    'Range', 'Reciprocal', 'ReduceMax', 'ReduceMean', 'ReduceSum', 'Relu', 'Reshape', 'Resize',
    'ScatterND', 'Shape', 'Sigmoid', 'Sin', 'Slice', 'Softmax', 'Split', 'Sqrt', 'Squeeze', 'Sub',
    'Tanh', 'Tile', 'Transpose', 'Trilu', 'Unsqueeze', 'Where', 'Xor'))

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')


def lint(name: str, proto: onnx.ModelProto) -> None:
    """
    Raise ValueError, listing every finding, unless the graph suits all runtimes.

    Refused: control flow (above all around attention, which TensorRT cannot fuse then),
    data-dependent shapes, chance inside a graph, float64, shapes that are not static, functions
    and operators outside the standard domain, and operators that no model had so far.  A finding
    names the node and, where the exporter recorded it, the line of the source it comes from.
    """
    findings = []
    for node in proto.graph.node:
        where = _where(node)
        if node.domain not in ('', 'ai.onnx'):
            findings.append(f'{node.domain}.{node.op_type} is no standard operator{where}')
        elif node.op_type in FORBIDDEN_OPS:
            findings.append(f'{node.op_type}{_inside(node)}{where}')
        elif node.op_type not in EXPECTED_OPS:
            findings.append(f'{node.op_type} is not expected{where}')
        if node.op_type == 'Cast' and any(item.name == 'to' and item.i == TensorProto.DOUBLE
                                          for item in node.attribute):
            findings.append(f'cast to float64{where}')
        if any(item.type == onnx.AttributeProto.TENSOR
               and item.t.data_type == TensorProto.DOUBLE for item in node.attribute):
            findings.append(f'float64 constant{where}')
    makers = {output: node for node in proto.graph.node for output in node.output}
    findings += [f'function {item.name}' for item in proto.functions]
    findings += [f'float64 weights {item.name}' for item in proto.graph.initializer
                 if item.data_type == TensorProto.DOUBLE]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        tensor = value.type.tensor_type
        where = _where(makers[value.name]) if value.name in makers else ''
        if tensor.elem_type == TensorProto.DOUBLE:
            findings.append(f'{value.name} is float64{where}')
        if not all(size.HasField('dim_value') for size in tensor.shape.dim):
            findings.append(f'{value.name} has no static shape{where}')
    if findings:
        raise ValueError(f'graph {name}: ' + '; '.join(findings))


def _inside(node: onnx.NodeProto) -> str:
    """Say that a branch or loop holds attention."""
    bodies = [item.g for item in node.attribute if item.type == onnx.AttributeProto.GRAPH]
    found = {inner.op_type for body in bodies for inner in body.node}
    return ' around attention' if found & {'Attention', 'Softmax'} else ''


def _where(node: onnx.NodeProto) -> str:
    """Return name and source line: the innermost frame that the exporter noted."""
    noted = {item.key: item.value for item in node.metadata_props}
    frames = _FRAME.findall(noted.get('pkg.torch.onnx.stack_trace', ''))
    if not frames:
        return f' ({node.name})'
    path, line, function = frames[-1]
    # The last parts of the path suffice to find it, and say nothing about the machine.
    short = '/'.join(PurePath(path).parts[-2:])
    return f' ({node.name}, {short}:{line} in {function})'
