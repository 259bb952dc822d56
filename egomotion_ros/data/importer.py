# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
From a folder of recordings to a motion library.

Reads ``.amc`` (with its ``.asf``), ``.bvh``, exponential maps (``.txt``), SMPL-X / AMASS and
Nymeria ``.npz``, HumanML3D ``.npy`` and EE4D-Motion ``.pt``; puts them on our skeleton; checks
and mends; finds copies of one performance.  Nothing is left out silently: the report says for
every file what became of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
import re

import numpy as np
from tqdm import tqdm

from egomotion_ros.body import smplx_io
from egomotion_ros.body.edits import canonicalize, resample
from egomotion_ros.data import ee4d, humanml3d, nymeria
from egomotion_ros.data import importer_checks as checks
from egomotion_ros.data.asf_amc import find_asf, read_amc, read_asf
from egomotion_ros.data.bvh import read_bvh
from egomotion_ros.data.expmap import COLUMNS, read_expmap
from egomotion_ros.data.importer_labels import action_of, cmu_take, label_of, take_name
from egomotion_ros.data.importer_match import find_copies, join, signature
from egomotion_ros.data.library import Take, TakeInfo, split_of
from egomotion_ros.data.mapping import Mapping, SourceMotion, find_mapping, to_body
from egomotion_ros.types import FPS, HumanMotion

#: Which source is kept where several hold one performance, best first.
FORMATS = ('amc', 'npz', 'pt', 'txt', 'bvh', 'npy')
#: Share of the better source's length above which the other one is left out.
_COVERED = 0.8
#: Takes of one folder with exactly the same count of frames, above this, are partners.
_PARTNERS = 1000


@dataclass(frozen=True)
class Outcome:
    """What became of one file: 'read', 'refused' or 'copy', and why or what was mended."""

    source: str
    status: str
    notes: str
    seconds: float


@dataclass
class Report:
    """Outcomes of all files, and what the import was asked to do."""

    outcomes: list[Outcome] = field(default_factory=list)

    def count(self, status: str) -> int:
        """Files with a status."""
        return sum(o.status == status for o in self.outcomes)


@dataclass(frozen=True)
class _Candidate:
    path: Path
    name: str
    label: str
    action: str
    motion: HumanMotion
    notes: str
    frames_in_file: int
    source: str
    group: str | None


@dataclass(frozen=True)
class Recording:
    """
    One motion of a file, as read: at the file's frame rate, unchecked, or why it is broken.

    ``name`` tells the motions of a file apart ('' where it has one), ``label`` is what the data
    set says of it, motions of one ``group`` share a performance.
    """

    motion: HumanMotion | ValueError
    name: str = ''
    label: str | None = None
    group: str | None = None


def find_files(folder: Path) -> list[Path]:
    """All files below a folder that may be recordings, sorted by path."""
    return sorted(p for p in folder.rglob('*') if p.is_file() and _kind(p) is not None)


def _kind(path: Path) -> str | None:
    kind = path.suffix.lower().removeprefix('.')
    if kind == 'txt':
        # Folders hold read-me files too: only what looks like the columns is taken for motion.
        with path.open('rb') as file:
            first = file.readline(64 * COLUMNS)
        return 'txt' if first.count(b',') == COLUMNS - 1 else None
    if kind == 'npy' and not humanml3d.is_clip(path):
        return None
    return kind if kind in FORMATS else None


def _fps_for(path: Path, root: Path, rates: dict[str, float]) -> float | None:
    name = path.relative_to(root).as_posix()
    return next((rate for glob, rate in rates.items() if fnmatch(name, glob)), None)


def read_recordings(
    path: Path,
    mappings: list[Mapping],
    fps: float | None = None,
    smplx_models: Path | None = None,
) -> Iterator[Recording]:
    """
    Read the recordings of a file of any supported kind onto our skeleton, at its frame rate.

    ``fps`` overrules the rate of the file; ``smplx_models`` is the folder of the SMPL-X model
    files, used for the body shapes of ``.npz`` files.  Raises ValueError for a broken file or a
    skeleton that no mapping fits.
    """
    kind, label = _kind(path), None
    if kind == 'pt':
        for name, motion in ee4d.read_ee4d(path):
            take = ee4d.take_of(name)
            yield Recording(_at(motion, fps), name, re.sub(r'[_\d]+', ' ', take).strip(), take)
        return
    if kind == 'npy':
        motion = humanml3d.read_humanml3d(path)
        yield Recording(_at(motion, fps), label=humanml3d.describe_clip(path))
        return
    source: SourceMotion
    if kind == 'npz':
        if not nymeria.is_nymeria(path):
            yield Recording(_at(smplx_io.read_npz(path, smplx_models), fps))
            return
        source = nymeria.read_nymeria(path)
        mapping = find_mapping(source.names, mappings)
        label = nymeria.describe_sequence(path)
    elif kind == 'amc':
        skeleton = read_asf(find_asf(path))
        mapping = find_mapping(('root', *skeleton.bones), mappings)
        if fps is None and mapping.fps is None:
            raise ValueError('AMC files carry no frame rate: give one with --fps')
        source = read_amc(path, skeleton, fps or mapping.fps)
    elif kind == 'txt':
        source = read_expmap(path)
        mapping = find_mapping(source.names, mappings)
    elif kind == 'bvh':
        source = read_bvh(path)
        mapping = find_mapping(source.names, mappings)
        if mapping.root_offset:
            source = replace(source, root_position=source.root_position + source.offsets[0])
        if mapping.fps is not None:
            source = replace(source, fps=mapping.fps)
    else:
        raise ValueError(f'{path.name}: not a kind of file that is known')
    if fps is not None:
        source = replace(source, fps=fps)
    yield Recording(to_body(source, mapping), label=label)


def _at(motion: HumanMotion | ValueError, fps: float | None) -> HumanMotion | ValueError:
    """Give a motion with another frame rate in place of the file's."""
    if fps is None or isinstance(motion, ValueError):
        return motion
    return replace(motion, fps=fps)


def _prepare(path: Path, root: Path, one: Recording, labels: dict[str, str]) -> _Candidate:
    if isinstance(one.motion, ValueError):
        raise one.motion
    motion = one.motion
    frames = motion.frames
    notes = []
    checks.check_length(motion)
    motion, said = checks.drop_first_jump(motion)
    notes.append(said)
    checks.check_hip_height(motion)
    for step in (checks.mend_glitches, checks.cut_jumps):
        motion, said = step(motion)
        notes.append(said)
    checks.check_length(motion)
    motion = resample(motion, FPS)
    motion, said = checks.set_floor(motion)
    notes.append(said)
    label = label_of(path, root, labels, one.label)
    action = action_of(label, float(checks.describe(motion)['speed']))
    if _kind(path) == 'txt' and action in checks.LOCOMOTION:
        motion, said = checks.fit_path(motion)
        notes.append(said)
    checks.check_tilt(motion, action)
    checks.check_upright(motion, action)
    checks.check_slide(motion, action)
    motion, _ = canonicalize(motion)
    motion = replace(
        motion,
        root_position=motion.root_position.astype(np.float32),
        rotations=motion.rotations.astype(np.float32),
        contacts=motion.contacts.astype(np.float32),
    )
    text = '; '.join(note for note in notes if note)
    name = take_name(path.with_name(f'{one.name}{path.suffix}') if one.name else path, root)
    source = source_of(path, root, one.name)
    return _Candidate(path, name, label, action, motion, text, frames, source, one.group)


def source_of(path: Path, root: Path, name: str = '') -> str:
    """Give what a take came from: the path below the folder, '#' and the motion's name."""
    return path.relative_to(root).as_posix() + (f'#{name}' if name else '')


def import_folder(
    folder: str | Path,
    mappings: list[Mapping],
    labels: dict[str, str] | None = None,
    rates: dict[str, float] | None = None,
    smplx_models: Path | None = None,
    progress: bool = True,
) -> tuple[list[Take], Report]:
    """
    Read every recording below a folder; give the takes and the report.

    ``labels`` take -> description; ``rates`` glob (relative path) -> frame rate that overrules
    the file's; ``smplx_models`` folder of the SMPL-X model files, if any.  Raises ValueError
    where the folder holds no recording, or the model files are asked for and absent.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f'{root}: not a folder')
    files = find_files(root)
    if not files:
        raise ValueError(
            f'{root}: no .amc, .bvh, .npz, .npy, .pt or exponential-map .txt below it'
        )
    if smplx_models is not None:
        smplx_io.model_shape(smplx_models)
    report, found = Report(), []
    for path in tqdm(files, desc='reading', unit='file', disable=not progress):
        why = humanml3d.left_out(path) if path.suffix.lower() == '.npy' else None
        if why:
            report.outcomes.append(Outcome(source_of(path, root), 'copy', why, 0.0))
            continue
        try:
            fps = _fps_for(path, root, rates or {})
            for one in read_recordings(path, mappings, fps, smplx_models):
                source = source_of(path, root, one.name)
                try:
                    found.append(_prepare(path, root, one, labels or {}))
                except ValueError as error:
                    report.outcomes.append(Outcome(source, 'refused', str(error), 0.0))
        except (ValueError, OSError) as error:
            report.outcomes.append(Outcome(source_of(path, root), 'refused', str(error), 0.0))
    takes, outcomes = _settle(root, found, progress)
    report.outcomes += outcomes
    report.outcomes.sort(key=lambda o: o.source)
    return takes, report


def _settle(
    root: Path, found: list[_Candidate], progress: bool
) -> tuple[list[Take], list[Outcome]]:
    """Find copies, name performances, give splits."""
    signatures = [signature(c.motion) for c in found]
    copies = find_copies(signatures, progress)
    performance = _performances(root, found, [(a, b) for a, b, _, _ in copies])
    left_out = _left_out(found, copies)
    takes, outcomes, names = [], [], set()
    for i, c in enumerate(found):
        source = c.source
        seconds = c.motion.frames / FPS
        if i in left_out:
            other = found[left_out[i]].source
            outcomes.append(Outcome(source, 'copy', f'same performance as {other}', seconds))
            continue
        name = c.name
        while name in names:
            name = f'{name}-{c.path.suffix.removeprefix(".")}'
        names.add(name)
        info = TakeInfo(
            name=name,
            performance=performance[i],
            label=c.label,
            action=c.action,
            split=split_of(performance[i]),
            source=source,
            frames=c.motion.frames,
            **checks.describe(c.motion),
        )
        takes.append(Take(**asdict(info), motion=c.motion))
        outcomes.append(Outcome(source, 'read', c.notes, seconds))
    return takes, outcomes


def _performances(root: Path, found: list[_Candidate], same: list[tuple[int, int]]) -> list[str]:
    """Name of the performance of every take: the CMU take where one of the copies has it."""
    ids = [cmu_take(c.path.stem) if c.path.suffix.lower() != '.npy' else None for c in found]
    keys: dict[tuple, list[int]] = defaultdict(list)
    for i, c in enumerate(found):
        if ids[i] is not None:
            keys[('cmu', ids[i])].append(i)
        if c.group is not None:
            keys[('group', c.path.parent, c.group)].append(i)
        if c.frames_in_file >= _PARTNERS:
            keys[('partners', c.path.parent, c.frames_in_file)].append(i)
    for members in keys.values():
        same = same + list(zip(members[:-1], members[1:]))
    group = join(len(found), same)
    names = {}
    for g in sorted(set(group)):
        members = [i for i in range(len(found)) if group[i] == g]
        names[g] = min((ids[i] for i in members if ids[i]), default=found[members[0]].name)
    return [names[g] for g in group]


def _left_out(
    found: list[_Candidate], copies: list[tuple[int, int, int, float]]
) -> dict[int, int]:
    """Copies that add nothing: index of the take left out -> index of the one kept."""
    out: dict[int, int] = {}
    for a, b, _, _ in sorted(copies, key=lambda pair: pair[3]):
        if a in out or b in out:
            continue
        rank = {i: FORMATS.index(_kind(found[i].path) or 'bvh') for i in (a, b)}
        long, short = found[b].motion.frames, found[a].motion.frames
        # The shorter one (a) is kept only where its source is better and it holds nearly all.
        keep_short = rank[a] < rank[b] and short >= _COVERED * long
        drop, keep = (b, a) if keep_short else (a, b)
        out[drop] = keep
    return out
