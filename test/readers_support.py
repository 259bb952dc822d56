# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Small recordings in every file format, written from a known motion on our skeleton."""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from egomotion_ros.body.kinematics import forward_kinematics, global_pose
from egomotion_ros.body.rotations import yaw_matrix
from egomotion_ros.body.skeleton import (
    BODY_TO_WORLD,
    JOINT_INDEX,
    JOINT_NAMES,
    OFFSETS,
    PARENTS,
    REST_PELVIS_HEIGHT,
)
from egomotion_ros.data.expmap import NAMES as EXPMAP_NAMES
from egomotion_ros.data.expmap import PARENTS as EXPMAP_PARENTS
from egomotion_ros.types import HumanMotion

#: Our joints under the names of CMU's ASF files.
ASF = {
    'left_hip': 'lfemur',
    'right_hip': 'rfemur',
    'spine1': 'lowerback',
    'left_knee': 'ltibia',
    'right_knee': 'rtibia',
    'spine2': 'upperback',
    'left_ankle': 'lfoot',
    'right_ankle': 'rfoot',
    'spine3': 'thorax',
    'left_foot': 'ltoes',
    'right_foot': 'rtoes',
    'neck': 'lowerneck',
    'left_collar': 'lclavicle',
    'right_collar': 'rclavicle',
    'head': 'head',
    'left_shoulder': 'lhumerus',
    'right_shoulder': 'rhumerus',
    'left_elbow': 'lradius',
    'right_elbow': 'rradius',
    'left_wrist': 'lhand',
    'right_wrist': 'rhand',
}


def walk(seconds=3.0, fps=120.0, turn=0.0, seed=0, travel=1.0):
    """
    Give a made-up walk: legs and arms swing, the path bends by ``turn`` rad/s.

    The toe that goes backwards relative to the body stands; ``travel`` scales the path (0: on the
    spot).  Contacts are left at zero; every seed swings a little differently.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * fps)) / fps
    rate = 2 * np.pi * rng.uniform(0.8, 1.1)
    shape = rng.uniform(0.8, 1.2, size=8)
    vectors = np.zeros((len(t), 22, 3))
    for sign, side in ((1, 'left'), (-1, 'right')):
        phase = rate * t + (0 if sign > 0 else np.pi)
        vectors[:, JOINT_INDEX[f'{side}_hip'], 0] = -0.4 * shape[0] * np.sin(phase)
        knee = 0.15 + 0.45 * shape[1] * (1 + np.sin(phase + 1.2 * shape[2])) / 2
        vectors[:, JOINT_INDEX[f'{side}_knee'], 0] = knee
        vectors[:, JOINT_INDEX[f'{side}_ankle'], 0] = -0.1 * shape[3] * np.sin(phase + 0.5)
        vectors[:, JOINT_INDEX[f'{side}_shoulder'], 2] = -sign * 1.2
        elbow = -sign * (0.4 + 0.3 * shape[4] * np.sin(2 * phase * shape[5]))
        vectors[:, JOINT_INDEX[f'{side}_elbow'], 1] = elbow
    vectors[:, JOINT_INDEX['neck'], 1] = 0.2 * np.sin(1.3 * t * shape[6])
    local = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(-1, 22, 3, 3)
    yaw = turn * t
    lean = Rotation.from_rotvec(np.outer(0.05 * np.sin(rate * t), [1, 0, 1])).as_matrix()
    tilt = BODY_TO_WORLD @ lean
    local[:, 0] = tilt
    toes = forward_kinematics(np.zeros((len(t), 3)), local)[:, [10, 11], 0]
    step = -travel * np.gradient(toes, axis=0).min(axis=1)
    local[:, 0] = yaw_matrix(yaw) @ tilt
    path = np.cumsum(step[:, None] * np.stack([np.cos(yaw), np.sin(yaw)], axis=1), axis=0)
    height = REST_PELVIS_HEIGHT - 0.04 + 0.02 * shape[7] * np.sin(2 * rate * t)
    root = np.concatenate([path, height[:, None]], axis=1)
    return HumanMotion(root, local, np.zeros((len(t), 4)), fps)


def _source_frame(motion):
    """Global rotations and joint positions in file axes: Y up, X left, Z forward."""
    positions, turned = global_pose(motion.root_position, motion.rotations)
    return positions @ BODY_TO_WORLD, BODY_TO_WORLD.T @ turned


def write_bvh(path, motion, names=None, frames=None, order='ZYX', scale=100.0, unit='cm'):
    """
    Write a BVH of our 22 joints; ``frames`` (22, 3, 3) re-orients every joint's own axes.

    Joint names are ours or ``names``; end sites close the chains.
    """
    names = list(JOINT_NAMES) if names is None else names
    frames = np.tile(np.eye(3), (22, 1, 1)) if frames is None else frames
    positions, turned = _source_frame(motion)
    turned = turned @ frames
    lines, used = ['HIERARCHY'], []

    def node(j, depth):
        pad = '  ' * depth
        used.append(j)
        parent = PARENTS[j]
        offset = np.zeros(3) if parent < 0 else frames[parent].T @ OFFSETS[j] * scale
        kind = 'ROOT' if parent < 0 else 'JOINT'
        place = '6 Xposition Yposition Zposition ' if parent < 0 else '3 '
        turns = ' '.join(f'{a}rotation' for a in order)
        lines.extend([
            f'{pad}{kind} {names[j]}', f'{pad}{{',
            f'{pad}  OFFSET {offset[0]:.9f} {offset[1]:.9f} {offset[2]:.9f}',
            f'{pad}  CHANNELS {place}{turns}',
        ])  # fmt: skip
        children = [k for k in range(22) if PARENTS[k] == j]
        for child in children:
            node(child, depth + 1)
        if not children:
            tip = frames[j].T @ np.array([0.1 * np.sign(OFFSETS[j][0]), 0.0, 0.0]) * scale
            lines.extend([
                f'{pad}  End Site', f'{pad}  {{',
                f'{pad}    OFFSET {tip[0]:.9f} {tip[1]:.9f} {tip[2]:.9f}', f'{pad}  }}',
            ])  # fmt: skip
        lines.append(f'{pad}}}')

    node(0, 0)
    columns = [positions[:, 0] * scale]
    for j in used:
        parent = PARENTS[j]
        local = (
            turned[:, j] if parent < 0 else np.swapaxes(turned[:, parent], -1, -2) @ turned[:, j]
        )
        columns.append(Rotation.from_matrix(local).as_euler(order, degrees=True))
    rows = np.concatenate(columns, axis=1)
    lines += ['MOTION', f'Frames: {len(rows)}', f'Frame Time: {1 / motion.fps:.9f}']
    lines += [' '.join(f'{v:.7f}' for v in row) for row in rows]
    Path(path).write_text('\n'.join(lines) + '\n', encoding='utf-8')


def mapping_text(axes=None, bones=False, fps=None):
    """A mapping of joints that have our own names; ``axes`` per joint as YAML flow mappings."""
    lines = ['metres_per_unit: 0.01', 'axes: {left: x, up: y, forward: z}', 'joints:']
    if fps:
        lines.insert(0, f'fps: {fps}')
    for name in JOINT_NAMES:
        entry = f'source: {name}'
        if axes and name in axes:
            entry += f', axes: {axes[name]}'
        if bones and name.split('_')[-1] in ('hip', 'knee', 'shoulder', 'elbow'):
            child = {'hip': 'knee', 'knee': 'ankle', 'shoulder': 'elbow', 'elbow': 'wrist'}
            side, part = name.split('_')
            entry += f', bone: {side}_{child[part]}'
        lines.append(f'  {name}: {{{entry}}}')
    return '\n'.join(lines) + '\n'


def write_asf_amc(folder, stem, motion, seed=3):
    """Write ``<subject>.asf`` and ``<stem>.amc`` with CMU's bone names and random bone axes."""
    folder, rng = Path(folder), np.random.default_rng(seed)
    unit = 0.0564444
    positions, turned = _source_frame(motion)
    # Every joint of ours is the start of a bone; hip joints, wrists and fingers fill the gaps.
    bones, parents = {}, {}

    def add(name, parent, vector, source):
        bones[name], parents[name] = (np.asarray(vector) / unit, source), parent

    def below(joint):
        return next(k for k in range(22) if PARENTS[k] == JOINT_INDEX[joint])

    for side, s in (('left', 'l'), ('right', 'r')):
        add(f'{s}hipjoint', 'root', OFFSETS[JOINT_INDEX[f'{side}_hip']], None)
    for joint, name in ASF.items():
        parent = JOINT_NAMES[PARENTS[JOINT_INDEX[joint]]]
        upper = 'root' if parent == 'pelvis' else ASF[parent]
        if joint.endswith('_hip'):
            upper = f'{name[0]}hipjoint'
        if joint.endswith('_wrist'):
            add(f'{name[0]}wrist', upper, np.zeros(3) + [1e-9, 0, 0], None)
            upper = f'{name[0]}wrist'
        sign = 1.0 if name[0] == 'l' else -1.0
        if joint in ('left_wrist', 'right_wrist', 'left_foot', 'right_foot', 'head'):
            vector = [0.1 * sign, 0, 0] if 'wrist' in joint else [0, 0, 0.1]
        elif joint == 'spine3':
            vector = np.zeros(3) + [0, 1e-9, 0]
        else:
            vector = OFFSETS[below(joint)]
        add(name, upper, vector, JOINT_INDEX[joint])
        if joint.endswith('_wrist'):
            add(f'{name[0]}fingers', name, [0.05 * sign, 0, 0], None)
    return _write_asf(folder, stem, bones, parents, positions, turned, unit, rng)


def _write_asf(folder, stem, bones, parents, positions, turned, unit, rng):
    lines = [':version 1.10', ':units', '  length 0.45', '  angle deg', ':root',
             '  order TX TY TZ RX RY RZ', '  axis XYZ', '  position 0 0 0',
             '  orientation 0 0 0', ':bonedata']  # fmt: skip
    axes = {}
    for i, (name, (vector, source)) in enumerate(bones.items()):
        angles = rng.uniform(-60, 60, size=3).round(4)
        axes[name] = Rotation.from_euler('xyz', angles, degrees=True).as_matrix()
        length = np.linalg.norm(vector)
        d = vector / length
        lines += ['  begin', f'    id {i + 1}', f'    name {name}',
                  f'    direction {d[0]:.12f} {d[1]:.12f} {d[2]:.12f}',
                  f'    length {length:.12f}',
                  f'    axis {angles[0]} {angles[1]} {angles[2]} XYZ']  # fmt: skip
        if source is not None:
            lines += ['    dof rx ry rz', '    limits (-180 180)', '      (-180 180)',
                      '      (-180 180)']  # fmt: skip
        lines.append('  end')
    lines += [':hierarchy', '  begin']
    for parent in ('root', *bones):
        children = [n for n, p in parents.items() if p == parent]
        if children:
            lines.append(f'    {parent} ' + ' '.join(children))
    lines.append('  end')
    (folder / f'{stem.split("_")[0]}.asf').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    out = ['#!OML:ASF', ':FULLY-SPECIFIED', ':DEGREES']
    columns = {'root': np.concatenate(
        [positions[:, 0] / unit, Rotation.from_matrix(turned[:, 0]).as_euler('xyz', True)], axis=1
    )}  # fmt: skip
    for name, (_, source) in bones.items():
        if source is None:
            continue
        upper = parents[name]
        while upper != 'root' and bones[upper][1] is None:
            upper = parents[upper]
        above = turned[:, 0] if upper == 'root' else turned[:, bones[upper][1]]
        local = axes[name].T @ np.swapaxes(above, -1, -2) @ turned[:, source] @ axes[name]
        columns[name] = Rotation.from_matrix(local).as_euler('xyz', True)
    for frame in range(len(positions)):
        out.append(str(frame + 1))
        out += [f'{n} ' + ' '.join(f'{v:.7f}' for v in rows[frame]) for n, rows in columns.items()]
    (folder / f'{stem}.amc').write_text('\n'.join(out) + '\n', encoding='utf-8')


def write_expmap(path, motion):
    """Write an exponential-map file, with the root's angles composed in the wrong order."""
    positions, turned = _source_frame(motion)
    index = {asf: JOINT_INDEX[ours] for ours, asf in ASF.items()}
    angles = Rotation.from_matrix(turned[:, 0]).as_euler('xyz', degrees=True)
    wrong = Rotation.from_euler('yxz', angles[:, [1, 0, 2]], degrees=True).as_rotvec()
    globals_ = {0: turned[:, 0]}
    rows = np.zeros((len(positions), 117))
    rows[:, :3] = positions[:, 0] / 0.0564444
    rows[:, 3:6] = -wrong
    for j in range(1, 38):
        above = globals_[EXPMAP_PARENTS[j]]
        source = index.get(EXPMAP_NAMES[j])
        globals_[j] = above if source is None else turned[:, source]
        local = np.swapaxes(above, -1, -2) @ globals_[j]
        rows[:, 3 + 3 * j : 6 + 3 * j] = -Rotation.from_matrix(local).as_rotvec()
    rows = np.concatenate([rows[:1] * 0.0, rows])
    text = '\n'.join(','.join(f'{v:.9g}' for v in row) for row in rows)
    Path(path).write_text(text + '\n', encoding='utf-8')
