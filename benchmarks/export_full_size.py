# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Export a reasoner of full size with random weights: time, peak memory, file sizes.

    python benchmarks/export_full_size.py qwen3_vl_2b --out OUT --json FILE

Weights are made in half precision and written straight from the model, so that about twice their
size is needed in memory.  ``--build`` also builds every graph with TensorRT-RTX.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import resource
import time
from typing import Any

import torch
from transformers.initialization import no_init_weights

from egomotion_ros.bench.published import MODELS
from egomotion_ros.models.reasoner import Reasoner, ReasonerConfig
from egomotion_ros.runtimes.export import write_graphs
from egomotion_ros.runtimes.export_graphs import reasoner_graphs


def peak() -> float:
    """Return the largest resident memory so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20


def random_reasoner(model: str, layer: int | None, dtype: torch.dtype) -> Reasoner:
    """Make a full-size reasoner in half precision with small random weights."""
    settings = dict(MODELS[model])
    if layer is not None:
        settings['layer'] = layer
    # Hugging Face's own initialisation of billions of numbers takes minutes; any numbers do.
    with no_init_weights():
        reasoner = Reasoner(ReasonerConfig(**settings, levels=6, decoder='both'), dtype=dtype)
    reasoner = reasoner.to(dtype).eval()
    with torch.no_grad():
        for weight in reasoner.parameters():
            flat = weight.view(-1)
            noise = torch.randn(min(flat.numel(), 1 << 20)).to(dtype) * 0.02
            for start in range(0, flat.numel(), len(noise)):
                part = flat[start:start + len(noise)]
                part.copy_(noise[:len(part)])
                # Blocks of noise differ, so that no two tensors are stored as one.
                part.mul_(1 + torch.rand(1, dtype=torch.float32).item())
    return reasoner


def main() -> None:
    """Export, and print or write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('model', choices=MODELS)
    parser.add_argument('--out', type=Path, required=True, help='folder of the graphs')
    parser.add_argument('--dtype', choices=('float16', 'bfloat16'), default='bfloat16')
    parser.add_argument('--layer', type=int, help='hidden layer of the states (default: the last)')
    parser.add_argument('--image', type=int, default=128, help='side of the camera picture')
    parser.add_argument('--build', action='store_true', help='build with TensorRT-RTX too')
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    figures: dict[str, Any] = {'model': args.model, 'dtype': args.dtype}
    start = time.monotonic()
    reasoner = random_reasoner(args.model, args.layer, getattr(torch, args.dtype))
    figures |= {'parameters': sum(p.numel() for p in reasoner.parameters()),
                'layer': reasoner.config.layer, 'prompt_rows': reasoner.prompt_rows,
                'made_s': time.monotonic() - start, 'made_peak_gib': peak()}
    start = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    write_graphs(reasoner_graphs(reasoner, args.image), args.out)
    figures |= {'export_s': time.monotonic() - start, 'export_peak_gib': peak(),
                'bytes': {path.name: path.stat().st_size for path in sorted(args.out.iterdir())}}
    if args.build:
        from egomotion_ros.runtimes.engine_build import build_engine, import_tensorrt
        del reasoner
        trt = import_tensorrt('tensorrt-rtx')
        figures['engines'] = {}
        for path in sorted(args.out.glob('*.onnx')):
            start = time.monotonic()
            try:
                size = len(build_engine(trt, path, label=path.stem).engine)
                figures['engines'][path.stem] = {'bytes': size, 's': time.monotonic() - start}
            except RuntimeError as error:
                figures['engines'][path.stem] = {'refused': str(error)}
        figures['build_peak_gib'] = peak()
    text = json.dumps(figures, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + '\n')


if __name__ == '__main__':
    main()
