# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The ONNX operators of a bundle's graphs in torch: each turns a node into a function of tensors.

What a node takes as constants (shapes, axes, bounds) is read when the graph is loaded, so that
the function holds plain numbers and ``torch.compile`` sees static shapes.  Semantics follow the
ONNX operator reference, opset 20.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import math
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper
import torch
from torch import Tensor
import torch.nn.functional as F

#: A function of the node's inputs; a missing optional input is ``None``.
Operator = Callable[..., Tensor | tuple[Tensor, ...]]

_DTYPES = {TensorProto.FLOAT: torch.float32, TensorProto.INT64: torch.int64,
           TensorProto.BOOL: torch.bool, TensorProto.INT32: torch.int32,
           TensorProto.UINT8: torch.uint8, TensorProto.FLOAT16: torch.float16,
           TensorProto.BFLOAT16: torch.bfloat16}

_PLAIN: dict[str, Operator] = {
    'Add': torch.add, 'Sub': torch.sub, 'Mul': torch.mul, 'Div': torch.div, 'Pow': torch.pow,
    'MatMul': torch.matmul, 'Where': torch.where, 'Greater': torch.gt, 'Less': torch.lt,
    'Equal': torch.eq, 'And': torch.logical_and, 'Or': torch.logical_or, 'Not': torch.logical_not,
    'Neg': torch.neg, 'Sqrt': torch.sqrt, 'Exp': torch.exp, 'Sin': torch.sin, 'Cos': torch.cos,
    'Sigmoid': torch.sigmoid, 'Tanh': torch.tanh, 'Erf': torch.erf, 'Reciprocal': torch.reciprocal,
    'Log': torch.log, 'Clip': lambda x, low=None, high=None: torch.clamp(x, low, high),
}


class _Node:
    """Attributes and constant inputs of a node."""

    def __init__(self, node: NodeProto, constants: Mapping[str, np.ndarray]) -> None:
        self.node = node
        self.attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        self._constants = constants

    def get(self, name: str, default: Any) -> Any:
        return self.attributes.get(name, default)

    def numbers(self, index: int) -> list[int] | None:
        """Input ``index`` as integers; ``None`` when it is not given."""
        names = self.node.input
        if index >= len(names) or not names[index]:
            return None
        if names[index] not in self._constants:
            raise ValueError(f'{self.node.op_type} ({self.node.name}): input {index} must be '
                             'constant')
        return [int(value) for value in np.atleast_1d(self._constants[names[index]])]


def _cast(node: _Node) -> Operator:
    dtype = _DTYPES.get(node.get('to', 0))
    if dtype is None:
        raise ValueError(f'Cast ({node.node.name}) to type {node.get("to", 0)}')
    return lambda x: x.to(dtype)


def _concat(node: _Node) -> Operator:
    axis = node.get('axis', 0)
    return lambda *xs: torch.cat(xs, axis)


def _conv(node: _Node) -> Operator:
    strides, dilations, pads = (node.get(name, None) for name in ('strides', 'dilations', 'pads'))
    if node.get('auto_pad', b'NOTSET') != b'NOTSET':
        raise ValueError(f'Conv ({node.node.name}): auto_pad')
    group = node.get('group', 1)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = x.dim() - 2
        around = pads or [0] * 2 * rank
        sides = [value for axis in reversed(range(rank))
                 for value in (around[axis], around[axis + rank])]
        convolve = {1: F.conv1d, 2: F.conv2d}[rank]
        return convolve(F.pad(x, sides), weight, bias, strides or [1] * rank, 0,
                        dilations or [1] * rank, group)

    return run


def _expand(node: _Node) -> Operator:
    shape = node.numbers(1)
    return lambda x, _: x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))


def _gather(node: _Node) -> Operator:
    axis = node.get('axis', 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        at = axis % x.dim()
        index = torch.where(index < 0, index + x.shape[at], index)
        return x.index_select(at, index.reshape(-1)).reshape(
            *x.shape[:at], *index.shape, *x.shape[at + 1:])

    return run


def _gather_nd(node: _Node) -> Operator:
    if node.get('batch_dims', 0):
        raise ValueError(f'GatherND ({node.node.name}): batch_dims')
    return lambda x, index: x[tuple(index.unbind(-1))]


def _gemm(node: _Node) -> Operator:
    alpha, beta = node.get('alpha', 1.0), node.get('beta', 1.0)
    turn_a, turn_b = node.get('transA', 0), node.get('transB', 0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = alpha * ((a.T if turn_a else a) @ (b.T if turn_b else b))
        return product if c is None else product + beta * c

    return run


def _gelu(node: _Node) -> Operator:
    form = node.get('approximate', b'none').decode()
    return lambda x: F.gelu(x, approximate=form)


def _layer_norm(node: _Node) -> Operator:
    axis, epsilon = node.get('axis', -1), node.get('epsilon', 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.layer_norm(x, x.shape[axis % x.dim():], scale, bias, epsilon)

    return run


def _instance_norm(node: _Node) -> Operator:
    epsilon = node.get('epsilon', 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def _pad(node: _Node) -> Operator:
    if node.get('mode', b'constant') != b'constant':
        raise ValueError(f'Pad ({node.node.name}): mode {node.get("mode", b"")!r}')
    pads, axes = node.numbers(1), node.numbers(3)

    def run(x: Tensor, _: Tensor, value: Tensor | None = None, *__: Tensor) -> Tensor:
        sides = [(0, 0)] * x.dim()
        for n, axis in enumerate(axes or range(x.dim())):
            sides[axis] = (pads[n], pads[n + len(pads) // 2])
        flat = [size for pair in reversed(sides) for size in pair]
        return F.pad(x, flat, value=0.0 if value is None else value.item())

    return run


def _reduce_mean(node: _Node) -> Operator:
    axes, keep = node.numbers(1), bool(node.get('keepdims', 1))
    return lambda x, *_: x.mean(axes, keepdim=keep)


def _reshape(node: _Node) -> Operator:
    shape = node.numbers(1)

    def run(x: Tensor, _: Tensor) -> Tensor:
        return x.reshape([x.shape[n] if size == 0 else size for n, size in enumerate(shape)])

    return run


def _slice(node: _Node) -> Operator:
    starts, ends, axes, steps = (node.numbers(index) for index in (1, 2, 3, 4))
    if steps is not None and min(steps) < 1:
        raise ValueError(f'Slice ({node.node.name}): steps {steps}')

    def run(x: Tensor, *_: Tensor) -> Tensor:
        where = [slice(None)] * x.dim()
        for n, axis in enumerate(axes or range(len(starts))):
            where[axis] = slice(starts[n], ends[n], 1 if steps is None else steps[n])
        return x[tuple(where)]

    return run


def _softmax(node: _Node) -> Operator:
    axis = node.get('axis', -1)
    return lambda x: x.softmax(axis)


def _split(node: _Node) -> Operator:
    axis, sizes, count = node.get('axis', 0), node.numbers(1), len(node.node.output)

    def run(x: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        return x.split(sizes or math.ceil(x.shape[axis] / count), axis)

    return run


def _squeeze(node: _Node) -> Operator:
    axes = node.numbers(1)
    return lambda x, *_: x.squeeze() if axes is None else x.squeeze(axes)


def _transpose(node: _Node) -> Operator:
    order = node.get('perm', None)
    return lambda x: x.permute(order or tuple(reversed(range(x.dim()))))


def _unsqueeze(node: _Node) -> Operator:
    axes = node.numbers(1)

    def run(x: Tensor, _: Tensor) -> Tensor:
        rank = x.dim() + len(axes)
        for axis in sorted(value % rank for value in axes):
            x = x.unsqueeze(axis)
        return x

    return run


_MAKERS: dict[str, Callable[[_Node], Operator]] = {
    'Cast': _cast, 'Concat': _concat, 'Conv': _conv, 'Expand': _expand, 'Gather': _gather,
    'GatherND': _gather_nd, 'Gelu': _gelu, 'Gemm': _gemm, 'InstanceNormalization': _instance_norm,
    'LayerNormalization': _layer_norm, 'Pad': _pad, 'ReduceMean': _reduce_mean,
    'Reshape': _reshape, 'Slice': _slice,
    'Softmax': _softmax, 'Split': _split, 'Squeeze': _squeeze, 'Transpose': _transpose,
    'Unsqueeze': _unsqueeze,
}


def operator(node: NodeProto, constants: Mapping[str, np.ndarray]) -> Operator:
    """
    Return what a node does, given the graph's ``constants`` by name.

    Raises ValueError for an operator that is not known here.
    """
    if node.domain not in ('', 'ai.onnx'):
        raise ValueError(f'operator {node.domain}.{node.op_type} has no torch form')
    if node.op_type in _PLAIN:
        return _PLAIN[node.op_type]
    maker = _MAKERS.get(node.op_type)
    if maker is None:
        raise ValueError(f'operator {node.op_type} has no torch form')
    return maker(_Node(node, constants))
