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
import hashlib
from importlib.metadata import version
import json
import logging
from pathlib import Path
from typing import Any
import warnings

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from safetensors.numpy import save_file
import torch
from tqdm import tqdm

from egomotion_ros import __version__
from egomotion_ros.bundle import (
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
from egomotion_ros.runtimes.ort import OrtRuntime
from egomotion_ros.runtimes.parity import ParityReport, check_parity
from egomotion_ros.runtimes.torch_runtime import TorchRuntime, graph_spec
from egomotion_ros.text import TextEncoder
from egomotion_ros.types import FPS, PLAN_FRAMES, WINDOW, CameraIntrinsics

#: Opset of every graph: the newest that ONNX Runtime and TensorRT both run in fp32 (from 23 on
#: attention becomes one node, which TensorRT builds in fp32 only with an attribute that ONNX
#: Runtime refuses).
OPSET = 20
#: Initializers smaller than this many bytes stay inside the graph.
_INLINE = 1024
_FORBIDDEN_OPS = {'If', 'Loop', 'Scan', 'NonZero', 'Unique', 'Compress', 'TopK', 'RandomNormal',
                  'RandomUniform', 'RandomNormalLike', 'RandomUniformLike', 'Multinomial'}


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

        Raises ValueError when a part is missing, corrupt or does not fit the others.
        """
        directory = Path(directory)
        reasoner = load_model(directory / 'reasoner', 'reasoner')
        text = TextEncoder.open(directory / 'reasoner' / FILES['text'],
                                reasoner.config.text_tokens)
        if text.size > reasoner.config.text_vocabulary:
            raise ValueError(f'{directory}: the text tokenizer has {text.size} tokens, the '
                             f'reasoner knows {reasoner.config.text_vocabulary}')
        provenance: dict[str, Any] = {}
        for part in ('tokenizer', 'autoencoder', 'reasoner', 'generator'):
            weights = directory / part / 'model.safetensors'
            if weights.is_file():
                provenance[part] = {'sha256': sha256(weights)}
        return Models(reasoner, load_model(directory / 'generator', 'generator'),
                      load_model(directory / 'autoencoder', 'autoencoder'), text, provenance)


def export_bundle(models: Models, out: Path, camera: CameraIntrinsics, *, steps: int = 8,
                  guidance: float = 1.5, temperature: float = 0.0, references: int = 16,
                  progress: bool = True) -> ParityReport:
    """
    Write the bundle ``out`` and return how closely it follows torch.

    ``steps``, ``guidance`` and ``temperature`` become the bundle's defaults.  Raises ValueError,
    and writes nothing, when a graph fails the lint or parity is below the gate.
    """
    if camera.width != camera.height:
        raise ValueError(f'the models take square images, the camera is {camera.width} x '
                         f'{camera.height}')
    graphs = graph_modules(models.reasoner, models.generator, models.autoencoder, camera.width)
    with staged_directory(out) as folder:
        protos = {}
        for name, graph in tqdm(graphs.items(), desc='export', disable=not progress):
            protos[name] = to_onnx(graph)
            lint(name, protos[name])
        _write_graphs(protos, folder)
        models.text.save(folder / FILES['text'])
        manifest = _manifest(models, graphs, folder, camera, steps, guidance, temperature)
        write_manifest(folder, manifest)
        bundle = Bundle.open(folder)
        exported, reference = OrtRuntime(bundle.graphs), TorchRuntime(graphs)
        report = check_parity(bundle, models.text, reference, exported, references,
                              progress=progress)
        exported.close()
        report.require()
        write_manifest(folder, manifest | {'parity': report.as_dict()})
        Bundle.open(folder)
    return report


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """Trace a graph module with the dynamo exporter; all shapes are static."""
    # The exporter reports packages it could also serve; its errors are raised, not logged.
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.onnx.export(
            graph, graph.example(), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=list(graph.inputs), output_names=list(graph.outputs), optimize=True)
    proto = program.model_proto
    # Traces of the exporting machine (file names, stack traces) do not belong in a bundle.
    for node in proto.graph.node:
        node.ClearField('metadata_props')
        node.ClearField('doc_string')
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info,
                  *proto.graph.initializer):
        value.ClearField('metadata_props')
    proto.graph.ClearField('metadata_props')
    proto.ClearField('metadata_props')
    _divide(proto.graph)
    return proto


def _divide(graph: onnx.GraphProto) -> None:
    """
    Write ``x * (1 / sqrt(...))`` as ``x / sqrt(...)``.

    That is the form in which ONNX Runtime recognises an RMS norm and runs it as one operator.
    """
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for node in [node for node in graph.node if node.op_type == 'Reciprocal']:
        using = users.get(node.output[0], [])
        if len(using) == 1 and using[0].op_type == 'Mul':
            other = [name for name in using[0].input if name != node.output[0]]
            using[0].op_type = 'Div'
            using[0].input[:] = [*other, node.input[0]]
            graph.node.remove(node)


def lint(name: str, proto: onnx.ModelProto) -> None:
    """
    Raise ValueError, listing every finding, unless the graph suits all runtimes.

    Refused: control flow, data-dependent shapes, chance inside a graph, float64, shapes that are
    not static, functions and operators outside the standard domain.
    """
    findings = []
    for node in proto.graph.node:
        if node.op_type in _FORBIDDEN_OPS:
            findings.append(f'{node.op_type} ({node.name})')
        if node.domain not in ('', 'ai.onnx'):
            findings.append(f'{node.domain}.{node.op_type} is no standard operator')
        if node.op_type == 'Cast' and any(item.name == 'to' and item.i == TensorProto.DOUBLE
                                          for item in node.attribute):
            findings.append(f'cast to float64 ({node.name})')
    findings += [f'function {item.name}' for item in proto.functions]
    findings += [f'float64 weights {item.name}' for item in proto.graph.initializer
                 if item.data_type == TensorProto.DOUBLE]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        tensor = value.type.tensor_type
        if tensor.elem_type == TensorProto.DOUBLE:
            findings.append(f'{value.name} is float64')
        if not all(size.HasField('dim_value') for size in tensor.shape.dim):
            findings.append(f'{value.name} has no static shape')
    if findings:
        raise ValueError(f'graph {name}: ' + '; '.join(findings))


def _write_graphs(protos: Mapping[str, onnx.ModelProto], folder: Path) -> None:
    """Write all graphs; equal weights of several graphs are stored once, in one safetensors."""
    weights: dict[str, np.ndarray] = {}
    users: list[tuple[TensorProto, str]] = []
    for proto in protos.values():
        for tensor in proto.graph.initializer:
            array = np.ascontiguousarray(numpy_helper.to_array(tensor))
            if array.nbytes < _INLINE:
                continue
            digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
            key = f'{array.dtype}.{"x".join(map(str, array.shape))}.{digest}'
            weights[key] = array
            users.append((tensor, key))
    path = folder / FILES['weights']
    save_file(weights, path)
    path.chmod(0o644)
    with open(path, 'rb') as file:
        length = int.from_bytes(file.read(8), 'little')
        header = json.loads(file.read(length))
    for tensor, key in users:
        start, end = header[key]['data_offsets']
        for field in ('raw_data', 'float_data', 'int64_data', 'int32_data'):
            tensor.ClearField(field)
        tensor.data_location = TensorProto.EXTERNAL
        for label, value in (('location', path.name), ('offset', start + 8 + length),
                             ('length', end - start)):
            tensor.external_data.add(key=label, value=str(value))
    for name, proto in protos.items():
        (folder / f'{name}.onnx').write_bytes(proto.SerializeToString(deterministic=True))


def _manifest(models: Models, graphs: Mapping[str, Graph], folder: Path,
              camera: CameraIntrinsics, steps: int, guidance: float,
              temperature: float) -> dict[str, Any]:
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
                      ('torch', 'onnx', 'onnxscript', 'onnxruntime', 'transformers',
                       'tokenizers', 'numpy')},
        'camera': {'width': camera.width, 'height': camera.height, 'hfov': camera.hfov},
        'motion': {'fps': FPS, 'frames': PLAN_FRAMES, 'window': WINDOW,
                   'windows': config.windows,
                   'features': models.autoencoder.config.features},
        'primitives': {'codebook': config.codes, 'levels': config.levels, 'layer': config.layer,
                       'temperature': temperature},
        'text': {'length': config.text_tokens, 'size': models.text.size},
        'generator': {'channels': models.generator.config.channels, 'steps': steps,
                      'guidance': guidance},
        'files': {role: describe_file(folder / name) for role, name in FILES.items()},
        'graphs': {name: describe_graph(name, graph) for name, graph in graphs.items()},
        'models': {kind: asdict(getattr(models, kind).config)
                   for kind in ('reasoner', 'generator', 'autoencoder')},
        'provenance': models.provenance,
    }
