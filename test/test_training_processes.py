# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Training in several processes: other samples in each, the same weights in all."""

from __future__ import annotations

import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file
import yaml

from egomotion_ros.data.instructions import ACTIONS
from egomotion_ros.data.scenes import OBJECT_COLUMNS

ROOT = Path(__file__).resolve().parent.parent
SCENES = 20
CONFIG = {
    'model': {
        'vlm': {'model_type': 'egomotion_vlm', 'image_size': 128, 'stem': [8, 8, 8, 16],
                'text_config': {'vocab_size': 300, 'hidden_size': 16, 'intermediate_size': 24,
                                'num_hidden_layers': 1, 'num_attention_heads': 2,
                                'num_key_value_heads': 2}},
        'layer': 1, 'codes': 8, 'levels': 2, 'text_tokens': 24, 'text_vocabulary': 300},
    'training': {'steps': 4, 'batch': 3, 'warmup': 1, 'save_every': 2, 'ema': 0.5},
    'data': {'questions': 2},
}
#: Runs the command line in each process and notes which scenes were drawn.
SCRIPT = """
import json, sys
from pathlib import Path
import egomotion_ros.training.reasoner as stage
from egomotion_ros.cli import main
from egomotion_ros.models.checkpoints import save_tensors
from egomotion_ros.training.loop import processes
drawn, batch, train = [], stage.ReasonerBatches.batch, stage.train
def noted(self, scenes, rows):
    drawn.append([int(s) for s in scenes])
    return batch(self, scenes, rows)
def kept(*args):
    model = train(*args)
    rank = processes().process_index
    save_tensors(model.state_dict(), Path(sys.argv[1]) / f'rank-{rank}.safetensors')
    (Path(sys.argv[1]) / f'drawn-{rank}.json').write_text(json.dumps(drawn))
    return model
stage.ReasonerBatches.batch, stage.train = noted, kept
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope='module')
def episodes(tmp_path_factory) -> Path:
    """Grounding episodes with made-up pictures: a scene of one object, three questions each."""
    folder = tmp_path_factory.mktemp('episodes')
    (folder / 'episodes.json').write_text(json.dumps({'version': 1, 'split': 'train'}))
    rng = np.random.default_rng(0)
    shard = folder / 'shard-00000'
    shard.mkdir()
    objects = np.zeros((SCENES, 6, len(OBJECT_COLUMNS)), np.float32)
    for name, value in {'valid': 1, 'visible': 1, 'u': 60, 'v': 70, 'distance': 2.0}.items():
        objects[:, 0, OBJECT_COLUMNS.index(name)] = value
    scene = np.repeat(np.arange(SCENES, dtype=np.int32), 3)
    text = np.array([b'walk to the red ball'] * len(scene), 'S96')
    for name, value in {
        'images': rng.integers(0, 255, (SCENES, 128, 128, 3), np.uint8),
        'camera': np.tile(np.float32([1.5, 0.4, 0.0]), (SCENES, 1)), 'objects': objects,
        'scene_seed': np.arange(SCENES), 'scene': scene,
        'action': np.full(len(scene), ACTIONS.index('walk_to'), np.int32),
        'target': np.zeros(len(scene), np.int32), 'motion': np.full(len(scene), -1, np.int32),
        'goal': rng.normal(size=(len(scene), 3)).astype(np.float32), 'instruction': text,
    }.items():
        np.save(shard / f'{name}.npy', value)
    (shard / 'done').touch()
    return folder


def train_in_processes(count: int, folder: Path, episodes: Path, out: Path, *more: str) -> None:
    """Train the reasoner with ``torchrun`` in ``count`` processes on the CPU."""
    folder.mkdir(exist_ok=True)
    (folder / 'config.yaml').write_text(yaml.safe_dump(CONFIG))
    (folder / 'script.py').write_text(SCRIPT)
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node',
         str(count), str(folder / 'script.py'), str(folder), 'train', 'reasoner', '--config',
         str(folder / 'config.yaml'), '--episodes', str(episodes), '--out', str(out), *more],
        env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_draw_other_scenes_and_end_with_the_same_weights(tmp_path, episodes):
    train_in_processes(2, tmp_path / 'run', episodes, tmp_path / 'out')
    weights = [load_file(tmp_path / f'run/rank-{n}.safetensors') for n in (0, 1)]
    drawn = [json.loads((tmp_path / f'run/drawn-{n}.json').read_text()) for n in (0, 1)]
    assert len(drawn[0]) == len(drawn[1]) == 4 and drawn[0] != drawn[1]
    saved = load_file(tmp_path / 'out/reasoner/model.safetensors')
    assert weights[0].keys() == weights[1].keys() == saved.keys()
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name], err_msg=name)
        np.testing.assert_array_equal(value, saved[name], err_msg=name)
