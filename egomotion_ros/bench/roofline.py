# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
How near every graph comes to what this machine's matrix product reaches (roofline model).

Williams, Waterman, Patterson 2009, its compute roof only: the roof is the runtime's own fp32
matrix product of 512 x 512 matrices with the same number of threads, timed in the same rounds as
the graphs.  Rates come from the 10th percentile of the times, of roof and graphs alike: what the
machine does when nothing else has the core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from egomotion_ros.bench.cpu import part_action
from egomotion_ros.bench.flops import count_flops, head_part, read_graph
from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.base import Runtime
from egomotion_ros.runtimes.timing import Timing, made_up_inputs, rounds

_SIZE = 512
_ROOF = 'matrix product'


@dataclass(frozen=True)
class GraphCost:
    """
    One graph, or a part cut out of one (``of``), run on its own.

    ``flops`` of one run, ``milliseconds``, ``gflops`` per second and ``share`` of the roof.
    """

    name: str
    of: str
    flops: int
    milliseconds: Timing
    gflops: float
    share: float

    def as_dict(self) -> dict[str, object]:
        """Return the figures for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Roofline:
    """``roof`` in GFLOP/s, and the cost of every graph under it."""

    roof: float
    graphs: tuple[GraphCost, ...]

    def together(self, calls: dict[str, int]) -> float:
        """Share of the roof of several graphs run one after another, ``calls`` times each."""
        costs = {cost.name: cost for cost in self.graphs}
        flops = sum(count * costs[name].flops for name, count in calls.items())
        seconds = sum(count * costs[name].flops / (1e9 * costs[name].gflops)
                      for name, count in calls.items())
        return flops / seconds / (1e9 * self.roof)

    def as_dict(self) -> dict[str, object]:
        """Return the figures for JSON."""
        return {'gemm_gflops': self.roof, 'gemm': f'{_SIZE}x{_SIZE}x{_SIZE} float32',
                'graphs': [cost.as_dict() for cost in self.graphs]}


def measure(runtime: Runtime, bundle: Bundle, threads: int, runs: int,
            label: str = 'graphs') -> Roofline:
    """
    Time every graph of a bundle, the heads cut out of ``decode``, and the roof, in turn.

    ``runtime`` runs on the CPU with ``threads`` threads.
    """
    inputs = made_up_inputs(runtime)
    actions: dict[str, Callable[[], object]] = {
        name: lambda name=name: runtime.run(name, **inputs[name]) for name in runtime.specs}
    flops = {name: count_flops(read_graph(bundle.graphs[name].path)) for name in runtime.specs}
    whole = dict.fromkeys(runtime.specs, '')
    heads = head_part(read_graph(bundle.graphs['decode'].path, weights=True), ('state', 'rows'))
    if heads is not None:
        actions['heads'] = part_action(heads, threads, runtime.name)
        flops['heads'], whole['heads'] = count_flops(heads), 'decode'
    roof = matrix_product(_SIZE)
    actions[_ROOF] = part_action(roof, threads, runtime.name)
    spent = rounds(actions, runs, label)
    rate = count_flops(roof) / float(np.percentile(spent[_ROOF], 10)) / 1e9
    costs = []
    for name, count in flops.items():
        speed = count / float(np.percentile(spent[name], 10)) / 1e9
        costs.append(GraphCost(name, whole[name], count, Timing.of(spent[name]), speed,
                               speed / rate))
    return Roofline(rate, tuple(costs))


def matrix_product(size: int) -> ModelProto:
    """Return a graph of one ``size`` x ``size`` product with a constant right-hand side."""
    weights = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node('MatMul', ['x', 'w'], ['y'])], 'roof',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [size, size])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [size, size])],
        [numpy_helper.from_array(weights, 'w')])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
