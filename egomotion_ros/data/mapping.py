# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Any skeleton onto ours: a source motion, a mapping file, and the transfer between them.

Every reader gives a :class:`SourceMotion`: global rotations of the source's joints.  A mapping
(YAML) names, for every SMPL-X joint, the source joint that drives it (``source``), which of its
axes point left, up and forward in a T pose (``axes``), how it is turned besides (``turn``, a
rotation vector in degrees about the body's left, up and forward), and the joint below it whose
direction must agree with ours (``bone``).  Global rotations are transferred, never local angles,
so the two rest poses may differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation
import yaml

from egomotion_ros.body.kinematics import forward_kinematics, to_local
from egomotion_ros.body.skeleton import (
    BODY_TO_WORLD,
    JOINT_INDEX,
    JOINT_NAMES,
    LEG_LENGTH,
    OFFSETS,
)
from egomotion_ros.data.mapping_legs import reach_ankles
from egomotion_ros.types import HumanMotion

_AXES = {
    'x': (1, 0, 0),
    'y': (0, 1, 0),
    'z': (0, 0, 1),
    '-x': (-1, 0, 0),
    '-y': (0, -1, 0),
    '-z': (0, 0, -1),
}
#: Direction of a limb in our rest pose where no child joint gives it.
_TIPS = {'left_wrist': (1.0, 0.0, 0.0), 'right_wrist': (-1.0, 0.0, 0.0)}
_CHILD = {
    'left_hip': 'left_knee',
    'right_hip': 'right_knee',
    'left_knee': 'left_ankle',
    'right_knee': 'right_ankle',
    'left_ankle': 'left_foot',
    'right_ankle': 'right_foot',
    'left_collar': 'left_shoulder',
    'right_collar': 'right_shoulder',
    'left_shoulder': 'left_elbow',
    'right_shoulder': 'right_elbow',
    'left_elbow': 'left_wrist',
    'right_elbow': 'right_wrist',
    'spine1': 'spine2',
    'spine2': 'spine3',
    'spine3': 'neck',
    'neck': 'head',
}


@dataclass(frozen=True)
class SourceMotion:
    """
    A recorded motion on the skeleton of its file.

    ``names`` and ``parents`` of J joints (end sites included, parents first), ``offsets`` (J, 3)
    relative to the parent in the parent's axes, ``rotations`` (T, J, 3, 3) global rotations in
    the file's world axes, ``root_position`` (T, 3); lengths in the file's unit; ``fps``.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    rotations: np.ndarray
    root_position: np.ndarray
    fps: float

    def positions(self) -> np.ndarray:
        """Global joint positions (T, J, 3) in the file's unit and axes."""
        out = np.empty((len(self.root_position), len(self.names), 3))
        for j, parent in enumerate(self.parents):
            if parent < 0:
                out[:, j] = self.root_position
            else:
                out[:, j] = out[:, parent] + self.rotations[:, parent] @ self.offsets[j]
        return out


@dataclass(frozen=True)
class JointMap:
    """Source joint of one of our joints, its axes (3, 3) body -> source, bone child if any."""

    source: str
    axes: np.ndarray
    bone: str | None


@dataclass(frozen=True)
class Mapping:
    """
    How one family of skeletons drives ours.

    ``metres`` per unit of the file, ``world`` (3, 3) from the file's world axes to Z up, X
    forward; ``fps`` overrules that of the file; ``root_offset``: the exporter stored the root's
    position relative to its OFFSET.
    """

    name: str
    metres: float
    world: np.ndarray
    joints: dict[str, JointMap]
    fps: float | None
    root_offset: bool

    def fits(self, names: tuple[str, ...]) -> bool:
        """Whether every joint the mapping needs is among ``names``."""
        return {j.source for j in self.joints.values()} <= set(names)


def _axes(spec: dict, where: str) -> np.ndarray:
    """Body -> source axes (3, 3) from the source axes that point left, up and forward."""
    try:
        left, up, forward = (_AXES[str(spec[k])] for k in ('left', 'up', 'forward'))
    except (KeyError, TypeError):
        raise ValueError(
            f'{where}: axes need left, up and forward, each one of {sorted(_AXES)}, got {spec}'
        ) from None
    out = np.array([left, up, forward], dtype=np.float64).T
    if not np.isclose(np.linalg.det(out), 1.0):
        raise ValueError(f'{where}: axes {spec} are not three different ones, right-handed')
    return out


def load_mapping(path: str | Path) -> Mapping:
    """Read a mapping file.  Raises ValueError that names the entry which is wrong."""
    path = Path(path)
    try:
        spec = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{path.name}: not a YAML file: {error}') from None
    if not isinstance(spec, dict) or not isinstance(spec.get('joints'), dict):
        raise ValueError(f'{path.name}: expected a mapping with the key "joints"')
    known = {'metres_per_unit', 'axes', 'joints', 'fps', 'root_offset', 'about'}
    if set(spec) - known:
        raise ValueError(f'{path.name}: unknown keys {sorted(set(spec) - known)}')
    metres = spec.get('metres_per_unit')
    if not isinstance(metres, (int, float)) or not 0 < metres < 1e3:
        raise ValueError(f'{path.name}: metres_per_unit must be a number > 0, got {metres!r}')
    default = _axes(spec.get('axes'), path.name)
    missing = set(JOINT_NAMES) - set(spec['joints'])
    if missing or set(spec['joints']) - set(JOINT_NAMES):
        wrong = sorted(missing | (set(spec['joints']) - set(JOINT_NAMES)))
        raise ValueError(f'{path.name}: joints must be the 22 SMPL-X names; wrong: {wrong}')
    joints = {}
    for name in JOINT_NAMES:
        entry = spec['joints'][name]
        entry = {'source': entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict) or not isinstance(entry.get('source'), str):
            raise ValueError(f'{path.name}: {name}: expected a joint name or a "source" entry')
        axes = _axes(entry['axes'], f'{path.name}: {name}') if 'axes' in entry else default
        if entry.get('bone') is not None and name not in {*_CHILD, *_TIPS}:
            raise ValueError(f'{path.name}: {name} has no bone to align')
        turn = entry.get('turn', (0.0, 0.0, 0.0))
        try:
            turn = Rotation.from_rotvec(np.asarray(turn, dtype=np.float64), degrees=True)
        except (TypeError, ValueError):
            raise ValueError(f'{path.name}: {name}: turn needs three angles, got {turn}') from None
        axes = axes @ turn.as_matrix().T
        joints[name] = JointMap(entry['source'], axes, entry.get('bone'))
    fps, root_offset = spec.get('fps'), spec.get('root_offset', False)
    if fps is not None and not (isinstance(fps, (int, float)) and 1 <= fps <= 1000):
        raise ValueError(f'{path.name}: fps must be within 1 to 1000, got {fps!r}')
    if not isinstance(root_offset, bool):
        raise ValueError(f'{path.name}: root_offset must be true or false, got {root_offset!r}')
    world = BODY_TO_WORLD @ default.T
    return Mapping(path.stem, float(metres), world, joints, fps, root_offset)


def shipped_mappings() -> list[Mapping]:
    """Give the mappings that come with the package, by name."""
    folder = resources.files('egomotion_ros.data') / 'mappings'
    with resources.as_file(folder) as path:
        return [load_mapping(p) for p in sorted(path.glob('*.yaml'))]


def find_mapping(names: tuple[str, ...], mappings: list[Mapping]) -> Mapping:
    """Give the first mapping that fits the joints.  Raises ValueError where none does."""
    for mapping in mappings:
        if mapping.fits(names):
            return mapping
    nearest = min(mappings, key=lambda m: len({j.source for j in m.joints.values()} - set(names)))
    lacking = sorted({j.source for j in nearest.joints.values()} - set(names))
    raise ValueError(
        f'no mapping file fits this skeleton (nearest: {nearest.name}, which lacks '
        f'{lacking[:5]}); write one and pass it with --mapping'
    )


def _swing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shortest rotation (3, 3) that turns direction ``a`` into direction ``b``."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    v, c = np.cross(a, b), float(a @ b)
    if c < -0.999:
        raise ValueError('a bone points against its axes: the joint needs an "axes" entry')
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1.0 + c)


def _corrections(source: SourceMotion, mapping: Mapping) -> np.ndarray:
    """Body -> source-joint rotations (22, 3, 3) of the rest pose."""
    index = {name: i for i, name in enumerate(source.names)}
    out = np.empty((len(JOINT_NAMES), 3, 3))
    for j, name in enumerate(JOINT_NAMES):
        entry = mapping.joints[name]
        out[j] = entry.axes
        if entry.bone is not None:
            if entry.bone not in index:
                raise ValueError(f'{mapping.name}: the skeleton has no joint {entry.bone!r}')
            bone, k = np.zeros(3), index[entry.bone]
            # The offsets of a chain add up: between the two joints nothing turns in the rest pose.
            while k >= 0 and source.names[k] != entry.source:
                bone, k = bone + source.offsets[k], source.parents[k]
            if k < 0 or np.linalg.norm(bone) < 1e-9:
                raise ValueError(f'{mapping.name}: {entry.bone!r} is not below {entry.source!r}')
            ours = _TIPS.get(name)
            ours = OFFSETS[JOINT_INDEX[_CHILD[name]]] if ours is None else np.array(ours)
            out[j] = _swing(entry.axes @ ours, bone) @ entry.axes
    return out


def to_body(source: SourceMotion, mapping: Mapping) -> HumanMotion:
    """
    Put a source motion on our skeleton (frame Z up, X forward; heights as the file has them).

    Limb directions are kept, root and ankle paths are scaled by the ratio of the leg lengths, and
    the ankles are brought exactly onto their scaled paths by turning hip and knee, so that a foot
    that stands in the source stands here.  Contacts are left at zero.  Raises ValueError where
    the skeleton lacks joints or has legs of no length.
    """
    index = {name: i for i, name in enumerate(source.names)}
    missing = sorted({j.source for j in mapping.joints.values()} - set(index))
    if missing:
        raise ValueError(f'mapping {mapping.name}: the skeleton lacks {missing[:5]}')
    drive = [index[mapping.joints[name].source] for name in JOINT_NAMES]
    turned = mapping.world @ source.rotations[:, drive] @ _corrections(source, mapping)
    joints = source.positions()[:, drive] @ mapping.world.T * mapping.metres
    return place(turned, joints, source.fps, f'mapping {mapping.name}')


def place(turned: np.ndarray, joints: np.ndarray, fps: float, name: str) -> HumanMotion:
    """
    Put global rotations (T, 22, 3, 3) on our bones, along the paths of the source's ``joints``.

    ``joints`` (T, 22, 3) metres, Z up; paths are scaled by the ratio of the leg lengths and the
    ankles brought exactly onto theirs.  ``name`` says in errors what is read.  Raises ValueError
    where the legs have no plausible length.
    """
    sides = [
        [JOINT_INDEX[f'{s}_{n}'] for n in ('hip', 'knee', 'ankle')] for s in ('left', 'right')
    ]
    leg = np.mean(
        [np.linalg.norm(np.diff(joints[0, side], axis=0), axis=1).sum() for side in sides]
    )
    if not 0.1 < leg < 5.0:
        raise ValueError(f'{name}: the legs are {leg:.3g} m long; wrong metres_per_unit?')
    joints = joints * (LEG_LENGTH / leg)
    hips = 0.5 * (joints[:, sides[0][0]] + joints[:, sides[1][0]])
    ours = 0.5 * (OFFSETS[sides[0][0]] + OFFSETS[sides[1][0]])
    root = hips - turned[:, 0] @ ours
    local = to_local(turned)
    local = reach_ankles(root, local, joints[:, [sides[0][2], sides[1][2]]])
    return HumanMotion(root, local, np.zeros((len(root), 4)), fps)


def joint_positions(motion: HumanMotion) -> np.ndarray:
    """Joint positions (T, 22, 3) of a motion, in its frame."""
    return forward_kinematics(motion.root_position, motion.rotations, motion.scale)


__all__ = [
    'JointMap',
    'Mapping',
    'SourceMotion',
    'find_mapping',
    'joint_positions',
    'load_mapping',
    'place',
    'shipped_mappings',
    'to_body',
]
