# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Episode sets: pictures, instructions and motions that answer them, on disk.

A set is a folder of plain ``.npy`` files, read by memory mapping and never unpickled::

    motions.npy            (M, 152, 140) float16  motion features of the bank (absent: grounding)
    motion_goal.npy ...                           end pose, action, parameter of every motion
    shard-00000/images.npy (S, 128, 128, 3) uint8 pictures, one a scene
    shard-00000/camera.npy (S, 3) float32         camera height (m), pitch, yaw (rad)
    shard-00000/objects.npy (S, 6, 10) float32    object table (scenes.OBJECT_COLUMNS)
    shard-00000/height.npy (S, 6) float32         height of the objects' centres (m)
    shard-00000/view.npy (S, 2) float32           field of the camera across and down (rad)
    shard-00000/depth.npy (S, 32, 32) float16     metres along the optical axis, every 4th pixel
    shard-00000/scene_seed.npy (S,) int64
    shard-00000/{scene,action,target,motion}.npy (E,) int32, goal.npy (E, 3), instruction.npy
    shard-00000/hands.npy (E, 2, 3) float32       targets of left and right hand, NaN when idle
    shard-recorded-00000/...                      the same of real recordings (data.recorded)

The motion bank is made first; every scene is then built *around* motions of the bank: an object
is placed where the end of a recorded walk is its stop point, so that picture and motion agree
exactly and a bank of some thousand motions serves any number of scenes.
"""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
from tqdm import tqdm

from egomotion_ros.data.episodes_commands import scene_episodes, way_episodes
from egomotion_ros.data.instructions import ACTIONS
from egomotion_ros.data.looks import look_on_the_way
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.data.scenes import KINDS, MAX_OBJECTS, OBJECT_COLUMNS, SPLITS, scene_seed
from egomotion_ros.data.scenes_furnished import draw_scene
from egomotion_ros.data.scenes_view import CAMERA

#: Scenes of one shard.
SHARD = 500
#: Longest instruction of a simulated scene (bytes of UTF-8).
TEXT_BYTES = 96
#: In place of an action: somebody's words about a recording, which the grammar does not know.
RECORDED = -1
#: Pixels from one stored depth to the next; the first is that of pixel DEPTH_STEP // 2.
DEPTH_STEP = 4
_SPARSE = slice(DEPTH_STEP // 2, None, DEPTH_STEP)
#: Version that is written, and those that are read.
_VERSION, _READ = 2, (1, 2)
_PER_SHARD = ('camera', 'objects', 'scene_seed')
_PER_EPISODE = ('scene', 'action', 'target', 'motion', 'goal', 'instruction')
#: Arrays the first version lacks, and what they are there: nothing to reach, the full view.
_SINCE_2 = {'height': ('camera', (MAX_OBJECTS,), np.nan), 'view': ('camera', (2,), CAMERA.hfov),
            'hands': ('action', (2, 3), np.nan)}


class ShardedArray:
    """Memory-mapped arrays of several shards, indexed as one along the first axis."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0] + [len(p) for p in parts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array the shards make up."""
        return (len(self), *self._parts[0].shape[1:])

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        if np.ndim(index) == 0:
            index = int(index) + (len(self) if index < 0 else 0)
            if not 0 <= index < len(self):
                raise IndexError(index)
            part = int(np.searchsorted(self._starts, index, 'right')) - 1
            return self._parts[part][index - self._starts[part]]
        return np.stack([self[int(i)] for i in np.asarray(index)])


class EpisodeSet:
    """
    An episode set on disk; open one with :meth:`open`.

    Scenes S: ``images`` (S, 128, 128, 3) uint8, ``camera`` (S, 3), ``objects`` (S, 6, 10),
    ``scene_seed`` (S,), ``height`` (S, 6) of the objects' centres (m), ``view`` (S, 2) field of
    the camera across and down (rad), ``depth`` (S, 32, 32) float16 along the optical axis (m;
    NaN: nothing seen, or a set drawn without); ``kind`` of all scenes.  Episodes E: ``scene``
    (E,) index of the scene, ``action`` (of a recording described in somebody's words
    :data:`RECORDED`), ``target`` (-1: none), ``goal`` (E, 3) pelvis x, y, yaw in the start
    frame, ``hands`` (E, 2, 3) targets of the left and the right hand there (NaN: idle),
    ``motion`` (E,) index into the bank (-1: none); :meth:`instruction` and
    :meth:`motion_features` by episode.
    """

    def __init__(self, folder: Path, shards: list[Path], kind: str = 'simple') -> None:
        self.folder, self.kind = folder, kind
        columns: dict[str, list[np.ndarray]] = {
            k: [] for k in (*_PER_SHARD, *_PER_EPISODE, *_SINCE_2)}
        images, depth = [], []
        scenes = 0
        for shard in shards:
            images.append(np.load(shard / 'images.npy', mmap_mode='r', allow_pickle=False))
            depth.append(_open_depth(shard / 'depth.npy', len(images[-1])))
            for name, parts in columns.items():
                path = shard / f'{name}.npy'
                if name in _SINCE_2 and not path.exists():
                    like, shape, value = _SINCE_2[name]
                    parts.append(np.full((len(columns[like][-1]), *shape), value, np.float32))
                else:
                    parts.append(np.load(path, allow_pickle=False))
            columns['scene'][-1] = columns['scene'][-1] + scenes
            scenes += len(images[-1])
            if len(columns['objects'][-1]) != len(images[-1]):
                raise ValueError(f'{shard}: {len(images[-1])} pictures, '
                                 f'{len(columns["objects"][-1])} object tables')
        joined = {name: np.concatenate(parts) for name, parts in columns.items()}
        self.images, self.depth = ShardedArray(images), ShardedArray(depth)
        self.camera: np.ndarray = joined['camera']
        self.objects: np.ndarray = joined['objects']
        self.scene_seed: np.ndarray = joined['scene_seed']
        self.scene: np.ndarray = joined['scene']
        self.action: np.ndarray = joined['action']
        self.target: np.ndarray = joined['target']
        self.goal: np.ndarray = joined['goal']
        self.motion: np.ndarray = joined['motion']
        self.hands: np.ndarray = joined['hands']
        self.height: np.ndarray = joined['height']
        self.view: np.ndarray = joined['view']
        self._instructions = joined['instruction']
        self.bank = MotionBank.find(folder)
        if self.bank is not None and self.motion.max(initial=-1) >= len(self.bank.features):
            raise ValueError(f'{folder}: episodes name motions the bank does not have')

    @classmethod
    def open(cls, folder: str | Path) -> EpisodeSet:
        """Open a folder written by :func:`write_episodes`; ValueError when it is not one."""
        folder = Path(folder)
        info = folder / 'episodes.json'
        if not info.is_file():
            raise ValueError(f'{folder} is not an episode set: episodes.json is missing')
        facts = json.loads(info.read_text())
        version, kind = facts.get('version'), facts.get('kind', 'simple')
        if version not in _READ or kind not in KINDS:
            raise ValueError(f'{folder}: version {version} of the format with {kind} scenes, '
                             f'expected version {_READ} with scenes of {KINDS}')
        shards = sorted(p.parent for p in folder.glob('shard-*/done'))
        if not shards:
            raise ValueError(f'{folder}: no finished shard')
        return cls(folder, shards, kind)

    def __len__(self) -> int:
        return len(self.action)

    def shared_out(self, share: float) -> tuple[np.ndarray, np.ndarray]:
        """
        Divide the scenes between stage 1, which gets ``share`` of them, and stage 2.

        Simulated scenes are divided in their order, recorded ones by whole recordings in theirs:
        each stage sees both kinds.
        """
        recorded = np.zeros(len(self.images), bool)
        recorded[self.scene[self.action == RECORDED]] = True
        simulated, border = np.flatnonzero(~recorded), int((~recorded).sum() * share)
        first, rest = simulated[:border], simulated[border:]
        if recorded.any() and self.bank is not None:
            rows = np.flatnonzero(self.action == RECORDED)
            owner = self.bank.performance[self.motion[rows]]
            owners, counts = np.unique(owner, return_counts=True)
            # A single recording is cut: better than a stage without words of people.
            early = owners[np.cumsum(counts) <= share * counts.sum()]
            is_first = (np.isin(owner, early) if len(early) else
                        np.arange(len(rows)) < int(share * len(rows)))
            first = np.concatenate([first, self.scene[rows[is_first]]])
            rest = np.concatenate([rest, self.scene[rows[~is_first]]])
        return first, rest

    def instruction(self, episode: int) -> str:
        """Instruction of an episode."""
        return bytes(self._instructions[episode]).decode('utf-8')

    @property
    def instructions(self) -> list[str]:
        """Instructions of all episodes."""
        return [bytes(text).decode('utf-8') for text in self._instructions]

    def image(self, episode: int) -> np.ndarray:
        """Picture (128, 128, 3) uint8 of an episode."""
        return self.images[int(self.scene[episode])]

    def motion_features(self, episode: int) -> np.ndarray:
        """Motion of an episode, (152, 140) float32 features; ValueError when it has none."""
        if self.bank is None or self.motion[episode] < 0:
            raise ValueError(f'episode {episode} of {self.folder} has no motion')
        return np.asarray(self.bank.features[int(self.motion[episode])], np.float32)


def write_episodes(folder: str | Path, split: str, scenes: int, seed: int = 0, workers: int = 1,
                   bank: MotionBank | None = None, kind: str = 'simple') -> None:
    """
    Write an episode set of ``scenes`` scenes into ``folder``; finished shards are kept.

    ``kind`` of the scenes, one of :data:`egomotion_ros.data.scenes.KINDS`; ``seed`` 0..9 picks
    the range of scenes; ``workers`` processes render.  A bank found in the folder is used when
    none is given; it must have been made for scenes of that kind.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
    check_counts(scenes, workers, seed)
    if kind not in KINDS:
        raise ValueError(f'kind must be one of {KINDS}, got {kind!r}')
    folder = Path(folder)
    check_same(folder, kind, split)
    folder.mkdir(parents=True, exist_ok=True)
    if bank is not None:
        bank.save(folder)
    describe(folder, kind, split, seed)
    jobs = [(folder, split, kind, seed * 1_000_000 + start, min(SHARD, scenes - start),
             start // SHARD) for start in range(0, scenes, SHARD)]
    jobs = [job for job in jobs if not (_shard_path(folder, job[-1]) / 'done').exists()]
    progress = tqdm(total=sum(job[4] for job in jobs), unit='scene', desc=f'{split} scenes')
    if workers == 1:
        for job in jobs:
            progress.update(_write_shard(job))
    else:
        with multiprocessing.get_context('spawn').Pool(workers) as pool:
            for count in pool.imap_unordered(_write_shard, jobs):
                progress.update(count)
    progress.close()


def check_counts(scenes: int, workers: int, seed: int) -> None:
    """Raise ValueError where no set can be written with these."""
    if scenes < 1 or workers < 1 or not 0 <= seed <= 9:
        raise ValueError(f'scenes and workers must be >= 1 and seed in 0..9, got {scenes}, '
                         f'{workers}, {seed}')


def check_same(folder: Path, kind: str, split: str) -> None:
    """Raise ValueError where a set of other scenes or another split stands in ``folder``."""
    if (folder / 'episodes.json').exists():
        before = json.loads((folder / 'episodes.json').read_text())
        if (before.get('kind', 'simple'), before.get('split')) != (kind, split):
            raise ValueError(f'{folder} holds a {before.get("split")} set of '
                             f'{before.get("kind", "simple")} scenes already')


def describe(folder: Path, kind: str, split: str, seed: int) -> None:
    """Write what makes a folder an episode set."""
    (folder / 'episodes.json').write_text(json.dumps(
        {'version': _VERSION, 'kind': kind, 'split': split, 'seed': seed, 'actions': ACTIONS,
         'object_columns': OBJECT_COLUMNS}, indent=1))


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f'shard-{number:05d}'


def _open_depth(path: Path, scenes: int) -> np.ndarray:
    """Depths (S, 32, 32) of a shard, NaN where none were drawn."""
    shape = (scenes, CAMERA.height // DEPTH_STEP, CAMERA.width // DEPTH_STEP)
    if not path.exists():
        return np.broadcast_to(np.float16(np.nan), shape)
    depth = np.load(path, mmap_mode='r', allow_pickle=False)
    if depth.shape != shape:
        raise ValueError(f'{path}: depths of shape {depth.shape}, expected {shape}')
    return depth


def _write_shard(job: tuple[Path, str, str, int, int, int]) -> int:
    """Draw, render and store the scenes of one shard; returns their count."""
    from egomotion_ros.data.render import SceneRenderer
    folder, split, kind, first, count, number = job
    bank = MotionBank.find(folder)
    ends = bank.ends() if bank is not None else None
    arrays: dict[str, list] = {
        name: [] for name in ('images', 'depth', *_PER_SHARD, *_PER_EPISODE, *_SINCE_2)}
    with SceneRenderer() as renderer:
        for k in range(count):
            scene = draw_scene(scene_seed(split, first + k), kind, ends)
            look = None if bank is None else look_on_the_way(scene, bank)
            scene = scene if look is None else look.scene
            table = scene.table()
            arrays['images'].append(renderer.render(scene))
            arrays['depth'].append(renderer.depth(scene)[_SPARSE, _SPARSE])
            arrays['camera'].append((scene.camera.height, scene.camera.pitch, scene.camera.yaw))
            arrays['objects'].append(table)
            arrays['scene_seed'].append(scene.seed)
            height = np.full(MAX_OBJECTS, np.nan)
            height[:len(scene.objects)] = [item.position[2] for item in scene.objects]
            arrays['height'].append(height)
            arrays['view'].append(scene.view or (CAMERA.hfov, CAMERA.hfov))
            for episode in (scene_episodes(scene, table, bank) if look is None else
                            way_episodes(look, table, bank)):
                command = episode.command
                arrays['scene'].append(k)
                arrays['action'].append(command.action_id)
                arrays['target'].append(command.target)
                arrays['motion'].append(episode.motion)
                arrays['goal'].append(episode.goal)
                arrays['hands'].append(episode.hands)
                text = command.text.encode('utf-8')
                if len(text) > TEXT_BYTES:
                    raise ValueError(f'instruction longer than {TEXT_BYTES} bytes: {text!r}')
                arrays['instruction'].append(text)
    write_shard(_shard_path(folder, number), arrays)
    return count


def write_shard(path: Path, arrays: dict[str, list], text_bytes: int = TEXT_BYTES,
                done: bool = True) -> None:
    """Write the arrays of a shard to a folder, and last the mark that it is whole (``done``)."""
    types = {'images': np.uint8, 'depth': np.float16, 'camera': np.float32, 'objects': np.float32,
             'scene_seed': np.int64, 'goal': np.float32, 'hands': np.float32,
             'height': np.float32, 'view': np.float32, 'instruction': f'S{text_bytes}'}
    path.mkdir(exist_ok=True)
    for name, values in arrays.items():
        np.save(path / f'{name}.npy', np.array(values, types.get(name, np.int32)))
    if done:
        (path / 'done').touch()
