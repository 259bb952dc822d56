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
    shard-00000/scene_seed.npy (S,) int64
    shard-00000/{scene,action,target,motion}.npy (E,) int32, goal.npy (E, 3), instruction.npy

The motion bank is made first; every scene is then built *around* motions of the bank: an object
is placed where the end of a recorded walk is its stop point, so that picture and motion agree
exactly and a bank of some thousand motions serves any number of scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
import json
import multiprocessing
from pathlib import Path

import numpy as np
from tqdm import tqdm

from egomotion_ros.data.instructions import (
    ACTIONS,
    OBJECT_ACTIONS,
    Command,
    free_command,
    object_command,
)
from egomotion_ros.data.scenes import (
    OBJECT_COLUMNS,
    SPLITS,
    Scene,
    sample_scene,
    scene_seed,
)

#: Scenes of one shard.
SHARD = 500
#: Longest instruction (bytes of UTF-8).
TEXT_BYTES = 96
_VERSION = 1
_PER_SHARD = ('camera', 'objects', 'scene_seed')
_PER_EPISODE = ('scene', 'action', 'target', 'motion', 'goal', 'instruction')


@dataclass(frozen=True)
class MotionBank:
    """
    Motions to build scenes around.

    ``features`` (M, 152, 140) float16; ``action`` (M,) index of ACTIONS; ``goal`` (M, 3) true end
    pose (x, y, yaw) in the start frame; ``parameter`` (M,) what was asked: metres of
    ``walk_forward``, radians of ``turn``, 1 for a right-handed ``wave``, else 0; ``performance``
    (M,) index of the source performance, ``oracle`` (M, 3) the goal that was asked for.
    """

    features: np.ndarray
    action: np.ndarray
    goal: np.ndarray
    parameter: np.ndarray
    performance: np.ndarray
    oracle: np.ndarray

    def of(self, action: str) -> np.ndarray:
        """Indices of the motions of an action (``stop_at`` shares those of ``walk_to``)."""
        action = 'walk_to' if action == 'stop_at' else action
        return np.flatnonzero(self.action == ACTIONS.index(action))

    def under_way(self) -> np.ndarray:
        """(M,) True for motions that do not start at rest: only a prefix makes them definite."""
        return np.abs(np.asarray(self.features[:, :8, 1], np.float32)).mean(1) > 0.3

    def save(self, folder: Path) -> None:
        """Write ``motions.npy`` and ``motion_*.npy`` into an existing folder."""
        np.save(folder / 'motions.npy', self.features.astype(np.float16))
        for name in ('action', 'goal', 'parameter', 'performance', 'oracle'):
            np.save(folder / f'motion_{name}.npy', getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> MotionBank:
        """Memory-map a saved bank."""
        rest = {name: np.load(folder / f'motion_{name}.npy', allow_pickle=False)
                for name in ('action', 'goal', 'parameter', 'performance', 'oracle')}
        features = np.load(folder / 'motions.npy', mmap_mode='r', allow_pickle=False)
        if features.ndim != 3 or any(len(v) != len(features) for v in rest.values()):
            raise ValueError(f'{folder}: motion arrays disagree in length')
        return cls(features, **rest)


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
    ``scene_seed`` (S,).  Episodes E: ``scene`` (E,) index of the scene, ``action``, ``target``
    (-1: none), ``goal`` (E, 3) pelvis x, y, yaw in the start frame, ``motion`` (E,) index into
    the bank (-1: none); :meth:`instruction` and :meth:`motion_features` by episode.
    """

    def __init__(self, folder: Path, shards: list[Path]) -> None:
        self.folder = folder
        columns: dict[str, list[np.ndarray]] = {k: [] for k in (*_PER_SHARD, *_PER_EPISODE)}
        images = []
        scenes = 0
        for shard in shards:
            images.append(np.load(shard / 'images.npy', mmap_mode='r', allow_pickle=False))
            for name, parts in columns.items():
                parts.append(np.load(shard / f'{name}.npy', allow_pickle=False))
            columns['scene'][-1] = columns['scene'][-1] + scenes
            scenes += len(images[-1])
            if len(columns['objects'][-1]) != len(images[-1]):
                raise ValueError(f'{shard}: {len(images[-1])} pictures, '
                                 f'{len(columns["objects"][-1])} object tables')
        joined = {name: np.concatenate(parts) for name, parts in columns.items()}
        self.images = ShardedArray(images)
        self.camera: np.ndarray = joined['camera']
        self.objects: np.ndarray = joined['objects']
        self.scene_seed: np.ndarray = joined['scene_seed']
        self.scene: np.ndarray = joined['scene']
        self.action: np.ndarray = joined['action']
        self.target: np.ndarray = joined['target']
        self.goal: np.ndarray = joined['goal']
        self.motion: np.ndarray = joined['motion']
        self._instructions = joined['instruction']
        self.bank = MotionBank.load(folder) if (folder / 'motions.npy').exists() else None
        if self.bank is not None and self.motion.max(initial=-1) >= len(self.bank.features):
            raise ValueError(f'{folder}: episodes name motions the bank does not have')

    @classmethod
    def open(cls, folder: str | Path) -> EpisodeSet:
        """Open a folder written by :func:`write_episodes`; ValueError when it is not one."""
        folder = Path(folder)
        info = folder / 'episodes.json'
        if not info.is_file():
            raise ValueError(f'{folder} is not an episode set: episodes.json is missing')
        version = json.loads(info.read_text()).get('version')
        if version != _VERSION:
            raise ValueError(f'{folder}: version {version} of the format, expected {_VERSION}')
        shards = sorted(p.parent for p in folder.glob('shard-*/done'))
        if not shards:
            raise ValueError(f'{folder}: no finished shard')
        return cls(folder, shards)

    def __len__(self) -> int:
        return len(self.action)

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


def scene_episodes(scene: Scene, table: np.ndarray,
                   bank: MotionBank | None) -> list[tuple[Command, int, np.ndarray]]:
    """
    Commands for a scene, with the motion's index in the bank (-1) and the goal (x, y, yaw).

    Every visible object is asked for.  Without a bank each gets two object actions; with one,
    actions whose straight way is blocked become turns, and one or two commands name no object.
    """
    rng = np.random.default_rng([scene.seed, 1])
    result = []
    for i, item in enumerate(scene.objects):
        row = dict(zip(OBJECT_COLUMNS, table[i], strict=True))
        if not row['visible']:
            continue
        if bank is None:
            actions = rng.choice(OBJECT_ACTIONS, 2, replace=False, p=(0.5, 0.25, 0.25))
        else:
            actions = [rng.choice(OBJECT_ACTIONS, p=(0.65, 0.15, 0.2))]
            if not row['clear']:
                actions = ['turn_to']
        for action in map(str, actions):
            command = object_command(action, i, item.colour, item.shape, rng, scene.split)
            goal = item.stop_pose()
            if action == 'turn_to':
                goal = np.array([0.0, 0.0, item.bearing])
            motion = -1
            if bank is not None:
                motion = item.stop
                if action == 'turn_to':
                    turns = bank.of('turn_to')
                    near = np.argsort(np.abs(bank.goal[turns, 2] - item.bearing))[:3]
                    motion = int(turns[rng.choice(near)])
            result.append((command, motion, goal))
    if bank is not None:
        for _ in range(1 + int(rng.random() < 0.5)):
            action = str(rng.choice(('walk_forward', 'turn', 'stand_still', 'wave'),
                                    p=(0.3, 0.4, 0.15, 0.15)))
            command = free_command(action, rng, scene.split)
            wanted = parameter_of(command.params)
            fitting = bank.of(action)
            fitting = fitting[np.abs(bank.parameter[fitting] - wanted) < 1e-3]
            motion = int(rng.choice(fitting))
            result.append((command, motion, bank.oracle[motion]))
    return result


def parameter_of(params: dict[str, float | str]) -> float:
    """The one number of a command's parameters, as :class:`MotionBank` stores it."""
    if 'side' in params:
        return float(params['side'] == 'right')
    return float(params.get('distance', params.get('angle', 0.0)))


def write_episodes(folder: str | Path, split: str, scenes: int, seed: int = 0, workers: int = 1,
                   bank: MotionBank | None = None) -> None:
    """
    Write an episode set of ``scenes`` scenes into ``folder``; finished shards are kept.

    ``seed`` 0..9 picks the range of scenes; ``workers`` processes render.  A bank found in the
    folder is used when none is given.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
    if scenes < 1 or workers < 1 or not 0 <= seed <= 9:
        raise ValueError(f'scenes and workers must be >= 1 and seed in 0..9, got {scenes}, '
                         f'{workers}, {seed}')
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if bank is not None:
        bank.save(folder)
    (folder / 'episodes.json').write_text(json.dumps(
        {'version': _VERSION, 'split': split, 'seed': seed, 'actions': ACTIONS,
         'object_columns': OBJECT_COLUMNS}, indent=1))
    jobs = [(folder, split, seed * 1_000_000 + start, min(SHARD, scenes - start), start // SHARD)
            for start in range(0, scenes, SHARD)]
    jobs = [job for job in jobs if not (_shard_path(folder, job[4]) / 'done').exists()]
    progress = tqdm(total=sum(job[3] for job in jobs), unit='scene', desc=f'{split} scenes')
    if workers == 1:
        for job in jobs:
            progress.update(_write_shard(job))
    else:
        with multiprocessing.get_context('spawn').Pool(workers) as pool:
            for count in pool.imap_unordered(_write_shard, jobs):
                progress.update(count)
    progress.close()


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f'shard-{number:05d}'


def _write_shard(job: tuple[Path, str, int, int, int]) -> int:
    """Draw, render and store the scenes of one shard; returns their count."""
    from egomotion_ros.data.render import SceneRenderer
    folder, split, first, count, number = job
    bank = MotionBank.load(folder) if (folder / 'motions.npy').exists() else None
    walks = bank.of('walk_to') if bank is not None else None
    stops = bank.goal[walks, :2] if bank is not None else None
    arrays: dict[str, list] = {name: [] for name in ('images', *_PER_SHARD, *_PER_EPISODE)}
    with SceneRenderer() as renderer:
        for k in range(count):
            scene = sample_scene(scene_seed(split, first + k), stops)
            table = scene.table()
            arrays['images'].append(renderer.render(scene))
            arrays['camera'].append((scene.camera.height, scene.camera.pitch, scene.camera.yaw))
            arrays['objects'].append(table)
            arrays['scene_seed'].append(scene.seed)
            for command, motion, goal in scene_episodes(scene, table, bank):
                if bank is not None and command.action in ('walk_to', 'stop_at'):
                    motion = int(walks[motion])
                arrays['scene'].append(k)
                arrays['action'].append(command.action_id)
                arrays['target'].append(command.target)
                arrays['motion'].append(motion)
                arrays['goal'].append(goal)
                text = command.text.encode('utf-8')
                if len(text) > TEXT_BYTES:
                    raise ValueError(f'instruction longer than {TEXT_BYTES} bytes: {text!r}')
                arrays['instruction'].append(text)
    types = {'images': np.uint8, 'camera': np.float32, 'objects': np.float32,
             'scene_seed': np.int64, 'goal': np.float32, 'instruction': f'S{TEXT_BYTES}'}
    path = _shard_path(folder, number)
    path.mkdir(exist_ok=True)
    for name, values in arrays.items():
        np.save(path / f'{name}.npy', np.array(values, types.get(name, np.int32)))
    (path / 'done').touch()
    return count


