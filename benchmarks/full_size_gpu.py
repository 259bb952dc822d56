# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A plan of the size of the paper's models on a GPU: compiled against eager torch.

    python benchmarks/full_size_gpu.py --json FILE

PaliGemma2-3B with the parallel decoder, a generator of 12 layers 1024 wide and the motion decoder,
all with random weights in bfloat16, from a picture on the GPU to motion features on the GPU.
Compiled: every repeated layer by torch.compile, the whole plan one CUDA graph.  The compiled
reasoner is timed alone as well, with its primitives in parallel and one by one.  ``--tiny`` runs
the same code with small models, on the CPU as well (there without a graph).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
import json
from pathlib import Path
import shutil
import subprocess
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from egomotion_ros.bench.published import MODELS
from egomotion_ros.models.autoencoder import AutoencoderConfig, MotionAutoencoder
from egomotion_ros.models.generator import GeneratorConfig, MotionGenerator
from egomotion_ros.models.reasoner import FORBIDDEN, Reasoner, ReasonerConfig
from egomotion_ros.runtimes.export_graphs import Graph, graph_modules
from egomotion_ros.runtimes.timing import Timing
from egomotion_ros.types import PLAN_WINDOWS

#: A little sister of PaliGemma2-3B.
TINY: dict[str, Any] = {
    'layer': 2, 'text_vocabulary': 300, 'vlm': {
        'model_type': 'paligemma', 'projection_dim': 32, 'image_token_id': 300,
        'vision_config': {
            'model_type': 'siglip_vision_model', 'hidden_size': 32, 'intermediate_size': 48,
            'num_hidden_layers': 2, 'num_attention_heads': 2, 'image_size': 224,
            'patch_size': 14, 'vision_use_head': False},
        'text_config': {
            'model_type': 'gemma2', 'vocab_size': 320, 'hidden_size': 32,
            'intermediate_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 2,
            'num_key_value_heads': 1, 'head_dim': 16, 'query_pre_attn_scalar': 16}}}
GENERATOR = {'width': 1024, 'heads': 16, 'layers': 12, 'hidden': 2816}
TINY_GENERATOR = {'width': 32, 'heads': 2, 'layers': 2, 'hidden': 48}
IMAGE = 128


class FullPlan(nn.Module):
    """Picture, instruction, camera and noise -> base codes and motion features."""

    def __init__(self, graphs: dict[str, Graph], windows: int, modulations: Tensor,
                 guidance: float) -> None:
        """``modulations`` (steps, 1, 6, width) are those of the steps, as a bundle has them."""
        super().__init__()
        self.graphs = nn.ModuleDict(graphs)
        self.windows, self.modulations = windows, modulations
        self.dt = torch.full_like(modulations[0, :, 0, 0], 1.0 / len(modulations))
        self.guidance = torch.full_like(self.dt, guidance)
        self.behind = torch.full((1, windows), FORBIDDEN, device=modulations.device)

    def reason(self, image: Tensor, text: Tensor, text_mask: Tensor, camera: Tensor,
               one_by_one: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Base codes, states of all rows and their mask, decoded at once or one by one."""
        graphs = self.graphs
        features = graphs['vision'](image)
        states, mask, cache, logits = graphs['prefill'](features, text, text_mask, camera)
        bias = torch.cat([torch.where(mask, 0.0, FORBIDDEN), self.behind], dim=1)
        if one_by_one:
            codes, own = self._one_by_one(logits, cache, bias)
        else:
            codes = graphs['query'](states[:, -1], cache, bias).argmax(-1)
            own = graphs['refine'](codes, cache, bias)[1]
        return (codes, torch.cat([states, own], dim=1),
                torch.cat([mask, mask.new_ones(1, self.windows)], dim=1))

    def _one_by_one(self, logits: Tensor, cache: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Base codes (1, W), each the likeliest after those before it, and their states."""
        prompt, codes, own = bias.shape[1] - self.windows, [], []
        for n in range(self.windows):
            codes.append(logits.argmax(-1))
            logits, state, _, rows = self.graphs['decode'](
                codes[-1], torch.full_like(codes[-1], n), cache, bias)
            cache[:, :, :, prompt + n] = rows
            bias[:, prompt + n] = 0.0
            own.append(state)
        return torch.stack(codes, 1), torch.stack(own, 1)

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor, camera: Tensor,
                noise: Tensor) -> tuple[Tensor, Tensor]:
        """Run the graphs of a plan with the parallel decoder, as the pipeline does."""
        graphs = self.graphs
        codes, states, mask = self.reason(image, text, text_mask, camera)
        context, context_mask = graphs['condition'](states.to(noise.dtype), mask)[:2]
        context_mask = context_mask.to(noise.dtype)
        known, none = torch.zeros_like(noise), torch.zeros_like(noise[..., 0])
        x = noise
        for modulation in self.modulations:
            x = graphs['step'](x, modulation, self.dt, self.guidance, context, context_mask,
                               known, none)
        return codes, graphs['decode_motion'](x).float()


class OneLayer:
    """Keys and values of one layer, behind those of ``past`` (K, V), each (1, H, N, d)."""

    def __init__(self, past: tuple[Tensor, Tensor] | None) -> None:
        self.past = self.fresh = past

    def update(self, keys: Tensor, values: Tensor, *unused: Any) -> tuple[Tensor, Tensor]:
        """Take the keys and values of new rows; gives those to attend to."""
        self.fresh = keys, values
        if self.past is None:
            return keys, values
        return (torch.cat([self.past[0], keys], dim=2), torch.cat([self.past[1], values], dim=2))


class SharedLayers(nn.Module):
    """
    The decoder with a cache a layer: what is compiled for one layer then serves them all.

    Called as :class:`egomotion_ros.runtimes.export_graphs.ModelLayers` is.
    """

    def __init__(self, reasoner: Reasoner) -> None:
        super().__init__()
        self.reasoner = reasoner

    def forward(self, tokens: Tensor, bias: Tensor, rows: Tensor,
                cache: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """States (1, M, D) and K and V of the tokens."""
        reasoner = self.reasoner
        language, hidden, pairs = reasoner.family.language(reasoner.vlm), tokens, []
        where = reasoner.cos[rows].to(hidden.dtype), reasoner.sin[rows].to(hidden.dtype)
        for n, layer in enumerate(language.layers):
            past = OneLayer(None if cache is None else (cache[n, 0][None], cache[n, 1][None]))
            hidden = layer(hidden, attention_mask=bias, position_embeddings=where,
                           past_key_values=past)
            pairs.append(torch.cat(past.fresh))
        return reasoner.norm(language.norm(hidden)), torch.stack(pairs)


def fill(model: nn.Module) -> None:
    """Small random weights, made where they lie: no initialisation of billions of numbers."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.02)
        for name, buffer in model.named_buffers():
            if name.endswith('std'):
                buffer.fill_(1.0)


def make(tiny: bool, device: torch.device, dtype: torch.dtype, steps: int,
         guidance: float) -> FullPlan:
    """Make the models on ``device`` and the plan of them."""
    sizes = TINY if tiny else MODELS['paligemma2_3b']
    with device:
        reasoner = Reasoner(ReasonerConfig(**sizes, levels=6, decoder='both'), dtype=dtype)
        autoencoder = MotionAutoencoder(AutoencoderConfig())
        generator = MotionGenerator(GeneratorConfig(
            **(TINY_GENERATOR if tiny else GENERATOR), windows=PLAN_WINDOWS,
            channels=autoencoder.config.channels, state_width=reasoner.width))
        for model in (reasoner, autoencoder, generator):
            model.eval().requires_grad_(False)
            fill(model)
        with torch.inference_mode():
            modulations = torch.stack([generator.modulation(torch.tensor([n / steps]))
                                       for n in range(steps)]).to(dtype)
            for model in (reasoner, autoencoder, generator):
                model.to(dtype)
            graphs = graph_modules(reasoner, generator, autoencoder, IMAGE)
            graphs = {name: graph.eval().to(device) for name, graph in graphs.items()}
            return FullPlan(graphs, reasoner.config.windows, modulations, guidance)


def inputs(plan: FullPlan, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """One picture, one instruction, noise."""
    reasoner = plan.graphs['prefill'].reasoner
    generator = torch.Generator().manual_seed(0)
    length = reasoner.config.text_tokens
    return tuple(part.to(device) for part in (
        torch.randint(0, 256, (1, IMAGE, IMAGE, 3), generator=generator, dtype=torch.uint8),
        torch.randint(0, reasoner.config.text_vocabulary, (1, length), generator=generator),
        torch.arange(length)[None] < 12, torch.tensor([[1.5, 0.4, 0.0]]),
        torch.randn(1, plan.windows, plan.graphs['step'].generator.config.channels,
                    generator=generator).to(dtype)))


def share_layers(plan: FullPlan) -> None:
    """Give every layer of the decoder a cache of its own, so that none knows its number."""
    reasoner = plan.graphs['prefill'].reasoner
    shared = SharedLayers(reasoner)
    for name in ('prefill', 'decode', 'query', 'refine'):
        plan.graphs[name] = plan.graphs[name].with_layers(shared)
    for layer in reasoner.family.language(reasoner.vlm).layers:
        layer.self_attn.layer_idx = 0


def compile_layers(plan: FullPlan) -> None:
    """Compile every layer that repeats; the layers of one kind share what is compiled."""
    reasoner = plan.graphs['prefill'].reasoner
    vision = reasoner.vlm.model.vision_tower
    vision = getattr(vision, 'vision_model', vision)
    for layer in (*vision.encoder.layers, *reasoner.family.language(reasoner.vlm).layers,
                  *plan.graphs['step'].generator.blocks):
        layer.compile(dynamic=False)


def as_graph(run: Callable[..., tuple[Tensor, ...]], given: tuple[Tensor, ...]
             ) -> Callable[[], tuple[Tensor, ...]]:
    """Record ``run(*given)`` as one CUDA graph; the result replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run(*given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run(*given)

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return found
    return replay


def measure(run: Callable[[], Any], runs: int, device: torch.device) -> Timing:
    """Seconds of single plans, each waited for, after five that do not count."""
    seconds = []
    for n in range(runs + 5):
        started = time.perf_counter()
        run()
        if device.type == 'cuda':
            torch.cuda.synchronize()
        if n >= 5:
            seconds.append(time.perf_counter() - started)
    return Timing.of(seconds)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--tiny', action='store_true', help='small models: tries the code out')
    parser.add_argument('--steps', type=int, default=4)
    parser.add_argument('--guidance', type=float, default=1.2)
    parser.add_argument('--runs', type=int, default=50)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    cuda = torch.cuda.is_available()
    if not cuda and not args.tiny:
        parser.error('models of this size need a GPU; --tiny runs anywhere')
    device, dtype = torch.device('cuda' if cuda else 'cpu'), torch.bfloat16
    torch.manual_seed(0)
    plan = make(args.tiny, device, dtype, args.steps, args.guidance)
    given = inputs(plan, device, dtype)
    figures: dict[str, Any] = {
        'device': torch.cuda.get_device_name() if cuda else 'cpu', 'torch': torch.__version__,
        'steps': args.steps, 'prompt_rows': plan.graphs['prefill'].reasoner.prompt_rows,
        'parameters': {name: sum(p.numel() for p in model.parameters()) for name, model in (
            ('reasoner', plan.graphs['prefill'].reasoner),
            ('generator', plan.graphs['step'].generator))}}
    if cuda:
        if shutil.which('nvidia-smi'):
            figures['driver'] = subprocess.run(
                ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'],
                capture_output=True, text=True, check=False).stdout.strip()
        torch.cuda.reset_peak_memory_stats()

    def timed(name: str, run: Callable[[], Any]) -> None:
        timing = measure(run, args.runs, device)
        figures[name] = {'p50_ms': timing.p50, 'p95_ms': timing.p95}
        print(f'{name:10} p50 {timing.p50:8.2f} ms, p95 {timing.p95:8.2f} ms', flush=True)

    with torch.inference_mode():
        wanted = [part.clone() for part in plan(*given)]
        timed('eager', lambda: plan(*given))
        if cuda:
            timed('eager, graph', as_graph(plan, given))
        started = time.perf_counter()
        share_layers(plan)
        compile_layers(plan)
        plan(*given)
        print(f'compiled in {time.perf_counter() - started:.0f} s', flush=True)
        figures['compile_s'] = time.perf_counter() - started
        run = as_graph(plan, given) if cuda else (lambda: plan(*given))
        timed('compiled', run)
        codes, motion = run()
        figures['same_codes'] = (codes == wanted[0]).float().mean().item()
        figures['feature_gap'] = float((motion - wanted[1]).abs().max())
        figures['feature_size'] = float(wanted[1].abs().max())
        for name, one_by_one in (('reasoner', False), ('one by one', True)):
            reason = partial(plan.reason, one_by_one=one_by_one)
            reason(*given[:4])
            timed(name, as_graph(reason, given[:4]) if cuda else partial(reason, *given[:4]))
    if cuda:
        figures['memory_gib'] = torch.cuda.max_memory_allocated() / 2 ** 30
    figures['parallel_faster'] = figures['one by one']['p50_ms'] / figures['reasoner']['p50_ms']
    figures['faster'] = figures['eager']['p50_ms'] / figures['compiled']['p50_ms']
    text = json.dumps(figures, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + '\n')
    if not np.isfinite(figures['feature_gap']):
        raise SystemExit('the motion is not finite')


if __name__ == '__main__':
    main()
