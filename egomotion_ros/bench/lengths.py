# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Graphs of a bundle's sizes for motions of another length or more pictures (needs torch)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import torch

from egomotion_ros.bundle import Bundle, GraphSpec
from egomotion_ros.models.checkpoints import build
from egomotion_ros.runtimes.export import to_onnx
from egomotion_ros.runtimes.export_graphs import DecodeMotion, Graph, Prefill, Step
from egomotion_ros.runtimes.export_lean import lean_graphs
from egomotion_ros.runtimes.torch_runtime import graph_spec


def export_length(bundle: Bundle, windows: int, folder: Path) -> dict[str, GraphSpec]:
    """
    Write ``step`` and ``decode_motion`` for ``windows`` windows, random weights, to ``folder``.

    The number of states the generator attends to grows with the windows, as the primitives do.
    Raises ValueError when the manifest does not tell the sizes of the models.
    """
    sizes = _sizes(bundle, 'generator', 'autoencoder')
    rows = bundle.graphs['condition'].inputs[0].shape[1] - bundle.windows + windows
    generator = build('generator', sizes['generator'] | {'windows': windows}).eval()
    graphs = {'step': Step(generator, rows).eval(),
              'decode_motion': DecodeMotion(build('autoencoder', sizes['autoencoder']),
                                            windows).eval()}
    return _write(graphs, folder)


def export_images(bundle: Bundle, images: int, folder: Path) -> dict[str, GraphSpec]:
    """
    Write ``prefill`` for the image tokens of ``images`` pictures, random weights, to ``folder``.

    Raises ValueError when the manifest does not tell the sizes of the reasoner.
    """
    sizes = _sizes(bundle, 'reasoner')['reasoner']
    length = sizes['text_tokens']
    more = (images - 1) * bundle.graphs['prefill'].inputs[0].shape[1]

    class Wider(Prefill):
        def example(self) -> tuple[torch.Tensor, ...]:
            features, text, mask, camera = super().example()
            return features.repeat(1, images, 1), text[:, :length], mask[:, :length], camera

    # As many more rows of text make its tables of positions long enough for the pictures' rows.
    reasoner = build('reasoner', sizes | {'text_tokens': length + more}).eval()
    return _write({'prefill': Wider(reasoner).eval()}, folder)


def _sizes(bundle: Bundle, *kinds: str) -> dict[str, dict[str, object]]:
    try:
        return {kind: dict(bundle.manifest['models'][kind]) for kind in kinds}
    except (KeyError, TypeError) as error:
        raise ValueError(f'{bundle.directory}: the manifest does not tell the sizes of the '
                         f'models ({error})') from None


def _write(graphs: dict[str, Graph], folder: Path) -> dict[str, GraphSpec]:
    folder.mkdir(parents=True)
    specs = {}
    for name, graph in lean_graphs(graphs).items():
        path = folder / f'{name}.onnx'
        with torch.inference_mode():
            onnx.save(to_onnx(graph), path)
        specs[name] = replace(graph_spec(name, graph), path=path)
    return specs
