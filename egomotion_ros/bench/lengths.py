# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Graphs of the generator and the motion decoder for motions of another length (needs torch)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import torch

from egomotion_ros.bundle import Bundle, GraphSpec
from egomotion_ros.models.checkpoints import build
from egomotion_ros.runtimes.export import to_onnx
from egomotion_ros.runtimes.export_graphs import DecodeMotion, Step
from egomotion_ros.runtimes.export_lean import lean_graphs
from egomotion_ros.runtimes.torch_runtime import graph_spec


def export_length(bundle: Bundle, windows: int, folder: Path) -> dict[str, GraphSpec]:
    """
    Write ``step`` and ``decode_motion`` for ``windows`` windows, random weights, to ``folder``.

    The number of states the generator attends to grows with the windows, as the primitives do.
    Raises ValueError when the manifest does not tell the sizes of the models.
    """
    try:
        sizes = {kind: dict(bundle.manifest['models'][kind])
                 for kind in ('generator', 'autoencoder')}
    except (KeyError, TypeError) as error:
        raise ValueError(f'{bundle.directory}: the manifest does not tell the sizes of the '
                         f'models ({error})') from None
    rows = bundle.graphs['condition'].inputs[0].shape[1] - bundle.windows + windows
    generator = build('generator', sizes['generator'] | {'windows': windows}).eval()
    graphs = {'step': Step(generator, rows).eval(),
              'decode_motion': DecodeMotion(build('autoencoder', sizes['autoencoder']),
                                            windows).eval()}
    folder.mkdir(parents=True)
    specs = {}
    for name, graph in lean_graphs(graphs).items():
        path = folder / f'{name}.onnx'
        with torch.inference_mode():
            onnx.save(to_onnx(graph), path)
        specs[name] = replace(graph_spec(name, graph), path=path)
    return specs
