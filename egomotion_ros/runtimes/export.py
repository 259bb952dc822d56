# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints -> bundle: ONNX graphs that share one weights file, and a manifest.

Nothing is written unless every graph passes the lint and the exported bundle answers as torch
does (:mod:`egomotion_ros.runtimes.parity`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
import logging
from pathlib import Path
from typing import Any
import warnings

import onnx
import onnx_ir as ir
import torch
from tqdm import tqdm

from egomotion_ros import __version__
from egomotion_ros.bundle import (
    DECODERS,
    FILES,
    FORMAT,
    Bundle,
    describe_file,
    sha256,
    staged_directory,
    write_manifest,
)
from egomotion_ros.models.autoencoder import MotionAutoencoder
from egomotion_ros.models.checkpoints import load_model
from egomotion_ros.models.generator import MotionGenerator
from egomotion_ros.models.reasoner import Reasoner
from egomotion_ros.runtimes.export_graphs import Graph, graph_modules
from egomotion_ros.runtimes.export_lean import lean_graphs
from egomotion_ros.runtimes.export_lint import lint
from egomotion_ros.runtimes.export_weights import strip, write_graph, write_weights
from egomotion_ros.runtimes.ort import OrtRuntime
from egomotion_ros.runtimes.parity import ParityReport, check_parity
from egomotion_ros.runtimes.torch_runtime import TorchRuntime, graph_spec
from egomotion_ros.text import TextEncoder
from egomotion_ros.types import FPS, PLAN_FRAMES, WINDOW, CameraIntrinsics

#: Opset of every graph: the newest that ONNX Runtime and TensorRT both run in fp32 (from 23 on
#: attention becomes one node, which TensorRT builds in fp32 only with an attribute that ONNX
#: Runtime refuses).
OPSET = 20


@dataclass
class Models:
    """The trained parts of a bundle, in evaluation mode."""

    reasoner: Reasoner
    generator: MotionGenerator
    autoencoder: MotionAutoencoder
    text: TextEncoder
    provenance: dict[str, Any]

    @staticmethod
    def load(directory: Path) -> Models:
        """
        Read ``reasoner`` (with ``text.json``), ``generator`` and ``autoencoder`` of a run.

        Where ``queries`` were trained, it is that reasoner: the same with a parallel decoder.
        With ``naming`` it tells whether a sentence names a thing.  Raises ValueError when a part
        is missing, corrupt or does not fit the others.
        """
        directory = Path(directory)
        reasoner = load_model(directory / 'reasoner', 'reasoner').merge()
        if (directory / 'queries').is_dir():
            reasoner = _taught(reasoner, directory / 'queries')
        if (directory / 'naming').is_dir():
            head = load_model(directory / 'naming', 'naming')
            if head.config.reasoner != sha256(directory / 'reasoner' / 'model.safetensors'):
                raise ValueError(f'{directory / "naming"}: was fitted to another reasoner; '
                                 'train it again')
            reasoner = reasoner.tell_naming(head)
        text = TextEncoder.open(directory / 'reasoner' / FILES['text'],
                                reasoner.config.text_tokens)
        if text.size > reasoner.config.text_vocabulary:
            raise ValueError(f'{directory}: the text tokenizer has {text.size} tokens, the '
                             f'reasoner knows {reasoner.config.text_vocabulary}')
        provenance: dict[str, Any] = {}
        for part in ('tokenizer', 'autoencoder', 'reasoner', 'queries', 'naming', 'generator'):
            weights = directory / part / 'model.safetensors'
            if weights.is_file():
                provenance[part] = {'sha256': sha256(weights)}
        return Models(reasoner, load_model(directory / 'generator', 'generator'),
                      load_model(directory / 'autoencoder', 'autoencoder'), text, provenance)


def _taught(reasoner: Reasoner, folder: Path) -> Reasoner:
    """The reasoner of ``folder``; ValueError unless it is ``reasoner`` with other queries."""
    taught = load_model(folder, 'reasoner')
    weights = taught.state_dict()
    for name, value in reasoner.state_dict().items():
        same = name in weights and torch.equal(weights[name], value)
        if not same and not name.startswith('queries.'):
            raise ValueError(f'{folder}: the queries were taught to another reasoner ({name} '
                             'differs); train them again')
    return taught


def export_bundle(models: Models, out: Path, camera: CameraIntrinsics, *, steps: int = 8,
                  guidance: float = 1.0, candidates: int = 1, temperature: float = 0.0,
                  decoder: str | None = None, refinements: int = 0, references: int = 16,
                  progress: bool = True) -> ParityReport:
    """
    Write the bundle ``out`` and return how closely it follows torch.

    ``steps``, ``guidance``, ``candidates``, ``temperature``, ``decoder`` (None:
    autoregressive where the reasoner was trained for it) and ``refinements`` of the parallel
    one become the bundle's defaults.
    Raises ValueError, and writes nothing, when the reasoner was not trained for the decoder or
    is shown the rays of another camera, a graph fails the lint or parity is below the gate.
    """
    if camera.width != camera.height:
        raise ValueError(f'the models take square images, the camera is {camera.width} x '
                         f'{camera.height}')
    hfov = getattr(models.reasoner.vlm.config, 'hfov', camera.hfov)
    if abs(hfov - camera.hfov) > 1e-3:
        raise ValueError(f'the reasoner was made for pictures {hfov:.3f} rad wide, the camera is '
                         f'{camera.hfov:.3f}')
    defaults = {'decoder': _decoder(models.reasoner, decoder, refinements),
                'refinements': refinements, 'temperature': temperature}
    graphs = graph_modules(models.reasoner, models.generator, models.autoencoder, camera.width,
                           candidates)
    with staged_directory(out) as folder:
        # Compared below with the models as they are, not with the form that is written.
        write_graphs(lean_graphs(graphs), folder, progress)
        models.text.save(folder / FILES['text'])
        manifest = _manifest(models, graphs, folder, camera, defaults,
                             {'steps': steps, 'guidance': guidance, 'candidates': candidates})
        write_manifest(folder, manifest)
        bundle = Bundle.open(folder)
        exported, reference = OrtRuntime(bundle.graphs), TorchRuntime(graphs)
        report = check_parity(bundle, models.text, reference, exported, references,
                              progress=progress)
        exported.close()
        report.require(exact=True)
        write_manifest(folder, manifest | {'parity': report.as_dict()})
        Bundle.open(folder)
    return report


def _decoder(reasoner: Reasoner, asked: str | None, refinements: int) -> str:
    trained = reasoner.config.decoder
    decoder = asked or ('parallel' if trained == 'parallel' else 'autoregressive')
    if decoder not in DECODERS or trained not in (decoder, 'both'):
        raise ValueError(f'decoder {decoder!r}: the reasoner was trained for {trained}')
    if refinements < 0 or refinements and (decoder, trained) != ('parallel', 'both'):
        raise ValueError(f'{refinements} refinements: they need the parallel decoder of a '
                         'reasoner that was trained for both')
    return decoder


def write_graphs(graphs: Mapping[str, Graph], folder: Path, progress: bool = True) -> None:
    """
    Trace all graphs, check them and write them with one weights file to ``folder``.

    Raises ValueError, naming node and source line, when a graph fails the lint.
    """
    traced = {}
    for name, graph in tqdm(graphs.items(), desc='export', disable=not progress):
        traced[name] = trace(graph)
    write_weights(traced, folder / FILES['weights'], progress)
    for name, model in traced.items():
        lint(name, ir.to_proto(model))
        write_graph(model, folder / f'{name}.onnx')


def trace(graph: Graph) -> ir.Model:
    """Trace a graph module with the dynamo exporter; all shapes are static."""
    # The exporter reports packages it could also serve; its errors are raised, not logged.
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.onnx.export(
            graph, graph.example(), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=list(graph.inputs), output_names=list(graph.outputs), optimize=True)
    _divide(program.model.graph)
    return program.model


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """Trace a graph module into one self-contained model (below 2 GB)."""
    return strip(ir.to_proto(trace(graph)))


def _divide(graph: ir.Graph) -> None:
    """
    Write ``x * (1 / sqrt(...))`` as ``x / sqrt(...)``.

    That is the form in which ONNX Runtime recognises an RMS norm and runs it as one operator.
    """
    for node in [node for node in graph if node.op_type == 'Reciprocal']:
        using = list(node.outputs[0].uses())
        if len(using) != 1 or using[0].node.op_type != 'Mul':
            continue
        product = using[0].node
        other = product.inputs[1 - using[0].idx]
        product.replace_input_with(0, other)
        product.replace_input_with(1, node.inputs[0])
        product.op_type = 'Div'
        graph.remove(node, safe=True)


def _manifest(models: Models, graphs: Mapping[str, Graph], folder: Path,
              camera: CameraIntrinsics, decoding: dict[str, Any], sampling: dict[str, Any]
              ) -> dict[str, Any]:
    config = models.reasoner.config

    def describe_graph(name: str, graph: Graph) -> dict[str, Any]:
        spec = graph_spec(name, graph)
        tensors = {
            side: [{'name': item.name, 'dtype': item.dtype, 'shape': list(item.shape)}
                   for item in getattr(spec, side)] for side in ('inputs', 'outputs')}
        return {**describe_file(folder / f'{name}.onnx'), 'opset': OPSET, **tensors}

    return {
        'format': FORMAT, 'package': __version__,
        'libraries': {name: version(name) for name in
                      ('torch', 'onnx', 'onnx-ir', 'onnxscript', 'onnxruntime', 'transformers',
                       'tokenizers', 'numpy')},
        'camera': {'width': camera.width, 'height': camera.height, 'hfov': camera.hfov},
        'motion': {'fps': FPS, 'frames': PLAN_FRAMES, 'window': WINDOW,
                   'windows': config.windows,
                   'features': models.autoencoder.config.features},
        'primitives': {'codebook': config.codes, 'levels': config.levels, 'layer': config.layer,
                       **decoding},
        # What the graphs do with a picture themselves, for the record.
        'processor': {'image_size': models.reasoner.family.size, 'resize': 'bilinear',
                      'mean': config.image_mean or (0.5, 0.5, 0.5),
                      'std': config.image_std or (0.5, 0.5, 0.5)},
        'text': {'length': config.text_tokens, 'size': models.text.size},
        'generator': {'channels': models.generator.config.channels, **sampling},
        'files': {role: describe_file(folder / name) for role, name in FILES.items()},
        'graphs': {name: describe_graph(name, graph) for name, graph in graphs.items()},
        'models': {kind: asdict(getattr(models, kind).config)
                   for kind in ('reasoner', 'generator', 'autoencoder')},
        'provenance': models.provenance,
    }
