# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Engines on disk: found again by everything they depend on, checked before they are used.

One file an engine: a line of JSON (what it was built from and for, its size and SHA-256), then
the engine.  Files appear whole or not at all, under a lock, so that two builders at once build
once.  An engine that is replaced stays as ``.last`` until the next one: when the new one turns
out bad (:meth:`EngineCache.refuse`) or damaged, the last good one takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from dataclasses import asdict, dataclass
import fcntl
import hashlib
import json
import logging
import os
from pathlib import Path
import shutil
import tempfile

import psutil

from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes.engine_build import BuiltEngine
from egomotion_ros.runtimes.gpu import Gpu

_log = logging.getLogger(__name__)
_FORMAT = 1
_HEADER_LIMIT = 1 << 16
#: Beside the weights, what a builder itself takes (bytes): measured with TensorRT-RTX on the
#: shipped bundle, rounded up.
_BUILDER_MEMORY = 1 << 30
#: Copies of the weights a build holds in memory, and leaves on disk, at its peak.
_COPIES = 4


@dataclass(frozen=True)
class EngineKey:
    """
    All that an engine depends on; another value of any of them is another engine.

    ``backend`` and its ``version``; ``graph`` name and ``content``, the SHA-256 of graph and
    weights; ``profile``, the shapes it is built for; ``precision``; the device: ``gpu`` name,
    ``sm``, ``driver``.
    """

    backend: str
    version: str
    graph: str
    content: str
    profile: str
    precision: str
    gpu: str
    sm: int
    driver: str

    @staticmethod
    def of(bundle: Bundle, graph: str, backend: str, version: str, gpu: Gpu,
           precision: str) -> EngineKey:
        """Return the key of a graph of a bundle."""
        spec = bundle.graphs[graph]
        weights = bundle.manifest['files']['weights']['sha256']
        shapes = ' '.join(f'{item.name}:{item.dtype}{list(item.shape)}'
                          for item in (*spec.inputs, *spec.outputs))
        return EngineKey(backend, version, graph,
                         hashlib.sha256(f'{spec.sha256} {weights}'.encode()).hexdigest(), shapes,
                         precision, gpu.name, gpu.sm, gpu.driver)

    @property
    def name(self) -> str:
        """File name without suffix."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f'{self.graph}-{hashlib.sha256(text.encode()).hexdigest()[:32]}'


def cache_directory() -> Path:
    """Where engines are kept: ``$XDG_CACHE_HOME/egomotion_ros/engines``."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'egomotion_ros' / 'engines'


class EngineCache:
    """Engines of one folder, which is made on first use and readable by its owner alone."""

    def __init__(self, folder: Path | None = None) -> None:
        """Take ``folder`` instead of :func:`cache_directory`."""
        self.folder = cache_directory() if folder is None else folder

    def path(self, key: EngineKey) -> Path:
        """Where the engine of a key lies, or will."""
        return self.folder / f'{key.name}.engine'

    def load(self, key: EngineKey) -> bytes | None:
        """
        Return the engine of a key, or the last good one of the same key; ``None`` without.

        A file that is damaged or of another key is never returned; the reason is logged.
        """
        for path in (self.path(key), _last(self.path(key))):
            try:
                return _read(path, key)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                _log.warning('engine %s is not used: %s', path, error)
        return None

    def get(self, key: EngineKey, build: Callable[[bytes], BuiltEngine], weight_bytes: int = 0,
            rebuild: bool = False) -> tuple[bytes, bool]:
        """
        Return the engine of a key and whether it was built now.

        ``build`` gets the timing cache of earlier builds on the same device and is called while
        no other process builds this key.  With ``rebuild`` an engine at hand does not count; it
        stays in place until the new one is whole.  ``weight_bytes`` sets the memory and disk
        that must be free first.

        Raises RuntimeError when they are not or the build fails, OSError when the folder cannot
        be written.
        """
        with self._locked(key.name):
            found = None if rebuild else self.load(key)
            if found is not None:
                return found, False
            check_room(self.folder, weight_bytes)
            timing = self._timing(key)
            built = build(timing.read_bytes() if timing.is_file() else b'')
            path = self.path(key)
            header = {'format': _FORMAT, 'bytes': len(built.engine), 'key': asdict(key),
                      'sha256': hashlib.sha256(built.engine).hexdigest()}
            data = json.dumps(header, sort_keys=True).encode() + b'\n' + built.engine
            staged = _stage(self.folder, data)
            if path.is_file():
                with contextlib.suppress(OSError, ValueError):
                    _read(path, key)
                    os.replace(path, _last(path))
            os.replace(staged, path)
            if built.timing:
                os.replace(_stage(self.folder, built.timing), timing)
            return built.engine, True

    def refuse(self, key: EngineKey) -> bool:
        """Drop a bad engine; the last good one, if there is one, takes its place (True)."""
        with self._locked(key.name):
            path = self.path(key)
            path.unlink(missing_ok=True)
            if _last(path).is_file():
                os.replace(_last(path), path)
                return True
            return False

    def read_note(self, name: str) -> dict[str, object]:
        """Return a JSON note kept beside the engines; empty when missing or unreadable."""
        try:
            found = json.loads((self.folder / f'{name}.json').read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_note(self, name: str, note: dict[str, object]) -> None:
        """Keep a JSON note beside the engines."""
        self._make()
        os.replace(_stage(self.folder, json.dumps(note, indent=1).encode()),
                   self.folder / f'{name}.json')

    def _make(self) -> None:
        # Whoever can write here decides what the GPU and the host run.
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _timing(self, key: EngineKey) -> Path:
        device = f'{key.backend} {key.version} {key.gpu} {key.sm}'
        return self.folder / f'timing-{hashlib.sha256(device.encode()).hexdigest()[:32]}.cache'

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock of a key; the kernel lets go of it however the process ends."""
        self._make()
        with open(self.folder / f'{name}.lock', 'w') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.warning('another process builds %s; waiting for it', name)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def check_room(folder: Path, weight_bytes: int) -> None:
    """Raise RuntimeError unless disk and memory suffice to build from that many weights."""
    disk = _COPIES * weight_bytes
    free = shutil.disk_usage(folder).free
    if free < disk:
        raise RuntimeError(f'{folder}: building needs {disk >> 20} MiB of free disk, there are '
                           f'{free >> 20}')
    memory = _BUILDER_MEMORY + _COPIES * weight_bytes
    available = psutil.virtual_memory().available
    if available < memory:
        raise RuntimeError(f'building needs {memory >> 20} MiB of free memory, there are '
                           f'{available >> 20}')


def _last(path: Path) -> Path:
    return path.with_suffix('.last')


def _read(path: Path, key: EngineKey) -> bytes:
    """Return the engine in a file; ValueError says what is wrong with it."""
    with open(path, 'rb') as file:
        line = file.readline(_HEADER_LIMIT)
        try:
            header = json.loads(line)
            version, found, size, digest = (header[name] for name in
                                            ('format', 'key', 'bytes', 'sha256'))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError('no header') from None
        if version != _FORMAT:
            raise ValueError(f'format {version}, expected {_FORMAT}')
        if found != asdict(key):
            raise ValueError(f'it was built for {found}')
        if os.fstat(file.fileno()).st_size != len(line) + size:
            raise ValueError('truncated')
        data = file.read()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError('its SHA-256 differs: damaged')
    return data


def _stage(folder: Path, data: bytes) -> str:
    """Write a file beside its place, flushed; nothing is left when that fails."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix='.part-', delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.unlink(file.name)
            raise
    return file.name
