# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What a robot loads: one folder of graphs, their weights and the text tokenizer.

``manifest.json`` names every other file with its size and SHA-256 and states what the models
need to know about each other (camera, windows, code book, layer).  Opening a bundle checks all of
it before anything is run; ``Bundle.hash``, the SHA-256 of the manifest, therefore names the whole
content and travels in every plan message.  The format is described in docs/reference/bundle.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
import errno
import hashlib
import json
import math
import os
from pathlib import Path
import re
import shutil
import tempfile
from typing import Any

from egomotion_ros.aim import AIM
from egomotion_ros.types import CameraIntrinsics

#: Version of the bundle format; a reader refuses every other one.
FORMAT = 2
MANIFEST = 'manifest.json'
#: The graphs a bundle must hold, in the order the pipeline runs them.
GRAPHS = ('vision', 'prefill', 'decode', 'condition', 'time', 'step', 'encode', 'decode_motion')
#: Graphs of parallel decoding, which a bundle holds when its reasoner was trained for it.
PARALLEL_GRAPHS = ('query', 'refine')
#: ``step`` for several candidates at once, which a bundle holds when it draws several.
BATCH_GRAPH = 'step_batch'
#: What a node that does one half of the work needs of them, by its parameter ``stages``.
STAGE_GRAPHS = {
    'all': (*GRAPHS, *PARALLEL_GRAPHS, BATCH_GRAPH),
    'reason': ('vision', 'prefill', 'decode', *PARALLEL_GRAPHS),
    'generate': ('condition', 'time', 'step', BATCH_GRAPH, 'encode', 'decode_motion'),
}
#: How a runtime decodes the primitives of a bundle.
DECODERS = ('autoregressive', 'parallel')
#: Files a bundle must hold beside the graphs: role -> file name.
FILES = {'text': 'text.json', 'weights': 'weights.safetensors'}
#: Most candidates of a plan.
MAX_CANDIDATES = 64
#: Most steps of the flow and the strongest guidance that may be asked for.
MAX_STEPS, MAX_GUIDANCE = 100, 20.0
#: Where the bundle that ships with the package lies.
DEFAULT_BUNDLE = Path(__file__).parent / 'bundles' / 'default'

_MANIFEST_LIMIT = 1 << 20
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]{0,99}')
_DTYPES = ('float32', 'int64', 'uint8', 'bool')


@dataclass(frozen=True)
class TensorSpec:
    """Name, NumPy dtype name and static shape of one input or output of a graph."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GraphSpec:
    """One ONNX graph of a bundle: its file, opset and the tensors it takes and gives."""

    name: str
    path: Path
    sha256: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Bundle:
    """
    An opened, checked bundle.

    ``camera`` is the canonical camera images must be rectified to; ``codebook`` codes per level,
    ``levels`` residual levels, ``layer`` of the reasoner the states come from; ``text_length``
    text tokens of the prompt; ``channels`` of one motion latent; ``steps``, ``guidance``,
    ``candidates`` and ``temperature`` the defaults of sampling; ``decoder`` one of ``DECODERS``,
    ``refinements`` further passes of the parallel one; ``manifest`` is the parsed file, for
    reading only.
    """

    directory: Path
    hash: str
    manifest: dict[str, Any]
    camera: CameraIntrinsics
    fps: int
    frames: int
    window: int
    windows: int
    codebook: int
    levels: int
    layer: int
    text_length: int
    text_size: int
    features: int
    channels: int
    steps: int
    guidance: float
    candidates: int
    temperature: float
    graphs: dict[str, GraphSpec]
    text_path: Path
    weights_path: Path
    decoder: str
    refinements: int

    @staticmethod
    def open(directory: str | Path | None = None) -> Bundle:
        """
        Read and check a bundle; ``None`` opens the default that ships with the package.

        Raises ValueError, naming file and reason, when the folder is no bundle, a file is missing,
        truncated or altered, a name leaves the folder, the version is another one, or the parts
        do not fit each other.
        """
        directory = DEFAULT_BUNDLE if directory is None else Path(directory)
        raw = _read_manifest(directory)
        try:
            manifest = json.loads(raw.decode('utf-8'), parse_constant=_no_constant)
        except (UnicodeDecodeError, RecursionError, ValueError) as error:
            raise ValueError(f'{directory / MANIFEST}: not valid JSON ({error})') from None
        top = _Section(directory / MANIFEST, '', manifest)
        version = top.get('format', int)
        if version != FORMAT:
            raise ValueError(f'{directory}: bundle format {version}, this package reads {FORMAT}; '
                             'export the bundle again')
        paths = {role: _checked_file(directory, top.section('files').section(role))
                 for role in FILES}
        graphs = {}
        held = top.section('graphs')
        parallel = any(name in held.data for name in PARALLEL_GRAPHS)
        names = [*GRAPHS, *(PARALLEL_GRAPHS if parallel else ())]
        if BATCH_GRAPH in held.data:
            names.insert(names.index('step') + 1, BATCH_GRAPH)
        for name in names:
            section = held.section(name)
            graphs[name] = GraphSpec(
                name, _followed(_checked_file(directory, section), paths['weights']),
                section.get('sha256', str),
                section.integer('opset', 18, 99), _tensors(section, 'inputs'),
                _tensors(section, 'outputs'))
        camera, motion = top.section('camera'), top.section('motion')
        codes, generator = top.section('primitives'), top.section('generator')
        decoder = codes.get('decoder', str)
        if decoder not in (DECODERS if parallel else DECODERS[:1]):
            raise ValueError(f'{directory}: decoder {decoder!r}, expected one of '
                             f'{", ".join(DECODERS)}, with its graphs')
        bundle = Bundle(
            directory=directory, hash=hashlib.sha256(raw).hexdigest(), manifest=manifest,
            camera=CameraIntrinsics(camera.integer('width', 8, 4096),
                                    camera.integer('height', 8, 4096),
                                    camera.real('hfov', 0.05, 3.1)),
            fps=motion.integer('fps', 1, 240), frames=motion.integer('frames', 1, 10000),
            window=motion.integer('window', 1, 1000), windows=motion.integer('windows', 1, 1000),
            codebook=codes.integer('codebook', 2, 65536), levels=codes.integer('levels', 1, 16),
            layer=codes.integer('layer', -1, 1000),
            text_length=top.section('text').integer('length', 1, 1024),
            text_size=top.section('text').integer('size', 2, 1 << 20),
            features=motion.integer('features', 1, 4096),
            channels=generator.integer('channels', 1, 4096),
            steps=generator.integer('steps', 1, MAX_STEPS),
            guidance=generator.real('guidance', 0.0, MAX_GUIDANCE),
            # Not in manifests of bundles that do not say where a motion ends.
            candidates=(generator.integer('candidates', 1, MAX_CANDIDATES)
                        if 'candidates' in generator.data else 1),
            temperature=codes.real('temperature', 0.0, 10.0), graphs=graphs,
            text_path=paths['text'], weights_path=paths['weights'], decoder=decoder,
            refinements=codes.integer('refinements', 0, 100))
        bundle._check_fit()
        return bundle

    @property
    def aims(self) -> bool:
        """Whether the states are read for where a motion is to end."""
        return any(item.name == 'aim' for item in self.graphs['condition'].outputs)

    @property
    def tells_naming(self) -> bool:
        """Whether the reasoner tells if a sentence names a thing."""
        return any(item.name == 'named' for item in self.graphs['prefill'].outputs)

    @property
    def batch(self) -> int:
        """Candidates that are drawn at once."""
        return batch_of(self.graphs)

    def _check_fit(self) -> None:
        """Raise ValueError when the graphs do not fit each other or the manifest's figures."""
        try:
            layers, _, heads, _, depth = self._shape('prefill', 'cache')
            _, prompt, width = self._shape('prefill', 'states')
        except ValueError:
            raise ValueError(f'{self.directory}: prefill must give states of 3 and a cache of 5 '
                             'dimensions') from None
        rows = prompt + self.windows
        latent = (1, self.windows, self.channels)
        padded = (1, self.windows * self.window, self.features)
        context = self._shape('condition', 'context')
        context_mask = self._shape('condition', 'context_mask')
        features, modulation = self._shape('vision', 'features'), self._shape('time', 'modulation')
        cache = (layers, 2, heads, rows, depth)
        expected = {
            'vision': {'image': (1, self.camera.height, self.camera.width, 3),
                       'features': features},
            'prefill': {'features': features, 'text': (1, self.text_length),
                        'text_mask': (1, self.text_length),
                        'camera': (1, 3), 'states': (1, prompt, width), 'mask': (1, prompt),
                        'cache': cache, 'logits': (1, self.codebook)},
            'decode': {'token': (1,), 'index': (1,), 'cache': cache, 'mask': (1, rows),
                       'logits': (1, self.codebook), 'state': (1, width),
                       'rows': (layers, 2, heads, depth),
                       'residual': (1, self.levels - 1, self.codebook)},
            'condition': {'states': (1, rows, width), 'mask': (1, rows), 'context': context,
                          'context_mask': context_mask},
            'time': {'t': (1,), 'modulation': modulation},
            'step': {'x': latent, 'modulation': modulation, 'dt': (1,), 'guidance': (1,),
                     'context': context, 'context_mask': context_mask, 'known': latent,
                     'known_mask': (1, self.windows), 'x_next': latent},
            'encode': {'features': padded, 'latents': latent},
            'decode_motion': {'latents': latent, 'features': padded},
        }
        if any(item.name == 'camera' for item in self.graphs['vision'].inputs):
            # Families that look at how the camera is held.
            expected['vision']['camera'] = (1, 3)
        if self.tells_naming:
            expected['prefill']['named'] = (1, 2)
        if self.aims:
            expected['condition']['aim'] = (1, AIM)
        elif self.candidates > 1:
            raise ValueError(f'{self.directory}: {self.candidates} candidates, but nothing that '
                             'chooses among them: condition gives no aim')
        if PARALLEL_GRAPHS[0] in self.graphs:
            residual = (1, self.windows, self.levels - 1, self.codebook)
            logits = (1, self.windows, self.codebook)
            expected |= {
                'query': {'begin': (1, width), 'cache': cache, 'mask': (1, rows),
                          'logits': logits},
                'refine': {'tokens': (1, self.windows), 'cache': cache, 'mask': (1, rows),
                           'logits': logits, 'states': (1, self.windows, width),
                           'residual': residual}}
        if BATCH_GRAPH in self.graphs:
            several = (max(2, min(self.batch, MAX_CANDIDATES)), self.windows, self.channels)
            expected[BATCH_GRAPH] = expected['step'] | {'x': several, 'x_next': several}
        for name, shapes in expected.items():
            graph = self.graphs[name]
            found = {spec.name: spec.shape for spec in (*graph.inputs, *graph.outputs)}
            for tensor in sorted(found.keys() | shapes.keys()):
                if found.get(tensor) != shapes.get(tensor):
                    raise ValueError(f'{graph.path}: {tensor} has shape {found.get(tensor)}, '
                                     f'the manifest asks for {shapes.get(tensor)}')
        if self.frames > self.windows * self.window:
            raise ValueError(f'{self.directory}: {self.frames} frames do not fit {self.windows} '
                             f'windows of {self.window}')

    def _shape(self, graph: str, output: str) -> tuple[int, ...]:
        for spec in self.graphs[graph].outputs:
            if spec.name == output:
                return spec.shape
        raise ValueError(f'{self.graphs[graph].path}: output {output} is missing')


def batch_of(graphs: Mapping[str, GraphSpec]) -> int:
    """Candidates that ``graphs`` draw at once."""
    if BATCH_GRAPH not in graphs:
        return 1
    shapes = [item.shape for item in graphs[BATCH_GRAPH].outputs if item.name == 'x_next']
    return shapes[0][0] if shapes and shapes[0] else 0


class _Section:
    """One object of the manifest, whose getters name the field when it is missing or wrong."""

    def __init__(self, path: Path, name: str, data: Any) -> None:
        if not isinstance(data, dict):
            raise ValueError(f'{path}: {name or "the whole"} must be an object')
        self.path, self.name, self.data = path, name, data

    def get(self, key: str, kind: type | tuple[type, ...]) -> Any:
        label = f'{self.name}.{key}'.lstrip('.')
        if key not in self.data:
            raise ValueError(f'{self.path}: {label} is missing')
        value = self.data[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f'{self.path}: {label} has the wrong type {type(value).__name__}')
        return value

    def section(self, key: str) -> _Section:
        return _Section(self.path, f'{self.name}.{key}'.lstrip('.'), self.get(key, dict))

    def integer(self, key: str, low: int, high: int) -> int:
        return self._within(key, self.get(key, int), low, high)

    def real(self, key: str, low: float, high: float) -> float:
        return float(self._within(key, self.get(key, (int, float)), low, high))

    def _within(self, key: str, value: Any, low: float, high: float) -> Any:
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f'{self.path}: {self.name}.{key} is {value}, '
                             f'expected {low} to {high}')
        return value


def _no_constant(text: str) -> None:
    raise ValueError(f'{text} is no JSON number')


def _read_manifest(directory: Path) -> bytes:
    path = directory / MANIFEST
    try:
        if path.stat().st_size > _MANIFEST_LIMIT:
            raise ValueError(f'{path}: larger than {_MANIFEST_LIMIT} bytes, not a manifest')
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f'{directory} is no bundle: {MANIFEST}: {error.strerror}') from None


def _checked_file(directory: Path, section: _Section) -> Path:
    """Return the path of a file the manifest names, after checking name, size and hash."""
    name, size = section.get('file', str), section.get('bytes', int)
    digest = section.get('sha256', str)
    if not _NAME.fullmatch(name):
        raise ValueError(f'{section.path}: {section.name}.file {name!r} must be a plain file '
                         'name inside the bundle')
    path = directory / name
    if not path.is_file():
        raise ValueError(f'{path}: named by the manifest, but missing')
    found = path.stat().st_size
    if found != size:
        raise ValueError(f'{path}: {found} bytes, the manifest says {size} (truncated copy?)')
    if sha256(path) != digest:
        raise ValueError(f'{path}: SHA-256 differs from the manifest (corrupt or altered)')
    return path


def _followed(graph: Path, weights: Path) -> Path:
    """
    Follow the link to a graph where its weights lie beside it; elsewhere return it as it is.

    A workspace installed by links (colcon's --symlink-install) is such a place, and of the
    libraries that read graphs some take no weights from behind a link.
    """
    real = graph.resolve()
    beside = real.parent / weights.name
    return real if beside.is_file() and beside.samefile(weights) else graph


def _tensors(section: _Section, key: str) -> tuple[TensorSpec, ...]:
    specs = []
    for index, item in enumerate(section.get(key, list)):
        entry = _Section(section.path, f'{section.name}.{key}[{index}]', item)
        dtype, shape = entry.get('dtype', str), entry.get('shape', list)
        if dtype not in _DTYPES:
            raise ValueError(f'{section.path}: {entry.name}.dtype {dtype!r}, expected one of '
                             f'{", ".join(_DTYPES)}')
        if len(shape) > 8 or not all(type(size) is int and 0 <= size <= 1 << 20
                                     for size in shape):
            raise ValueError(f'{section.path}: {entry.name}.shape {shape} is no static shape')
        specs.append(TensorSpec(entry.get('name', str), dtype, tuple(shape)))
    return tuple(specs)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def describe_file(path: Path) -> dict[str, Any]:
    """Return the manifest entry (name, size, SHA-256) of a file."""
    return {'file': path.name, 'bytes': path.stat().st_size, 'sha256': sha256(path)}


def write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    """Write ``manifest.json`` with sorted keys, so that equal content has an equal hash."""
    text = json.dumps({'format': FORMAT, **manifest}, indent=1, sort_keys=True, allow_nan=False)
    (directory / MANIFEST).write_text(text + '\n', encoding='utf-8')


def check_replaceable(out: str | Path) -> None:
    """Raise ValueError where ``out`` is something else than a bundle or an empty folder."""
    out = Path(out).absolute()
    if out.exists() and not (out / MANIFEST).is_file() \
            and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f'{out} exists and is no bundle; it is not overwritten')


@contextmanager
def staged_directory(out: str | Path) -> Iterator[Path]:
    """
    Yield an empty folder that becomes ``out`` when the block ends without an error.

    The content appears at once or not at all: it is written beside ``out``, flushed, and renamed.
    An earlier folder is replaced only if it is a bundle or empty (ValueError otherwise).  Raises
    OSError with the reason when the place cannot be written or the disk is full.
    """
    check_replaceable(out)
    out = Path(out).absolute()
    staging = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f'.{out.name}-', dir=out.parent))
        staging.chmod(0o755)
        yield staging
        for path in staging.iterdir():
            with open(path, 'rb') as file:
                os.fsync(file.fileno())
        if out.exists():
            old = staging.with_name(staging.name + '-old')
            out.rename(old)
            staging.rename(out)
            shutil.rmtree(old)
        else:
            staging.rename(out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, f'no space left while writing {out}; nothing was '
                          'changed') from error
        raise
    finally:
        if staging is not None and staging.exists():
            shutil.rmtree(staging, ignore_errors=True)
