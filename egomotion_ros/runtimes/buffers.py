# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Where every tensor of every graph lies in one block of memory, decided before anything runs.

What one graph gives and another takes shares its place (vision's features are prefill's, its cache
is decode's, condition's context is step's), so that nothing is copied between graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import math

import numpy as np

from egomotion_ros.bundle import BATCH_GRAPH, GraphSpec, TensorSpec

#: (graph, input) -> (graph, output) it continues: same bytes, written by one, read by the other.
ALIASES = {
    ('prefill', 'features'): ('vision', 'features'),
    ('decode', 'cache'): ('prefill', 'cache'),
    ('query', 'cache'): ('prefill', 'cache'),
    ('refine', 'cache'): ('prefill', 'cache'),
    ('step', 'context'): ('condition', 'context'),
    ('step', 'context_mask'): ('condition', 'context_mask'),
    (BATCH_GRAPH, 'context'): ('condition', 'context'),
    (BATCH_GRAPH, 'context_mask'): ('condition', 'context_mask'),
}
#: (graph, input) -> (graph, output) that a loop feeds back: copied on the device, since an engine
#: may still read the one when it writes the other.
FEEDBACK = {
    ('step', 'x'): ('step', 'x_next'),
    (BATCH_GRAPH, 'x'): (BATCH_GRAPH, 'x_next'),
}
#: Alignment of every tensor: what CUDA's own allocator gives.
ALIGNMENT = 256


@dataclass(frozen=True)
class BufferPlan:
    """``offsets`` (graph, tensor) -> byte in a block of ``size`` bytes."""

    offsets: dict[tuple[str, str], int]
    size: int


def tensor_bytes(item: TensorSpec) -> int:
    """Size of a tensor in bytes."""
    return math.prod(item.shape) * np.dtype(item.dtype).itemsize


def plan_buffers(specs: Mapping[str, GraphSpec],
                 aliases: Mapping[tuple[str, str], tuple[str, str]] = ALIASES) -> BufferPlan:
    """
    Lay out all inputs and outputs of ``specs``; an alias counts when both its ends are there.

    Raises ValueError when the ends of an alias differ in type or shape.
    """
    items = {(name, item.name): item for name, spec in specs.items()
             for item in (*spec.inputs, *spec.outputs)}
    used = {target: source for target, source in aliases.items()
            if target in items and source in items}
    offsets: dict[tuple[str, str], int] = {}
    size = 0
    for place, item in items.items():
        if place in used:
            other = items[used[place]]
            if (other.dtype, other.shape) != (item.dtype, item.shape):
                raise ValueError(f'{place} is {item.dtype} {item.shape}, but {used[place]} is '
                                 f'{other.dtype} {other.shape}')
            continue
        offsets[place] = size
        size += -(-max(tensor_bytes(item), 1) // ALIGNMENT) * ALIGNMENT
    offsets |= {target: offsets[source] for target, source in used.items()}
    return BufferPlan(offsets, size)
