# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
A tiny bundle with random weights: real graphs, real files, made in seconds.

Its motions stand near an upright pose and drift forward, so that they are plausible and can be
retargeted.  ``python test/fixtures_bundle.py OUT`` writes one for other processes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
import shutil
import sys

import numpy as np
import pytest

from egomotion_ros.types import CameraIntrinsics, HumanMotion

TINY_CAMERA = CameraIntrinsics(128, 128, float(np.radians(80.0)))
_COMMANDS = ('walk to the red ball', 'turn to the small blue box', 'stop at the green cylinder',
             'stand still', 'wave', 'walk forward', 'turn left', 'turn right')


def standing(frames: int) -> HumanMotion:
    """Upright body at the origin, feet on the ground."""
    from egomotion_ros.body.skeleton import BODY_TO_WORLD, JOINTS, LEG_LENGTH
    rotations = np.tile(np.eye(3), (frames, JOINTS, 1, 1))
    rotations[:, 0] = BODY_TO_WORLD
    root = np.tile([0.0, 0.0, LEG_LENGTH], (frames, 1))
    return HumanMotion(root, rotations, np.ones((frames, 4)))


def tiny_models(layers: int = 1, text_tokens: int = 24):
    """Small models of every kind with random weights, in evaluation mode."""
    import torch

    from egomotion_ros.body.features import motion_to_features
    from egomotion_ros.models.autoencoder import AutoencoderConfig, MotionAutoencoder
    from egomotion_ros.models.generator import GeneratorConfig, MotionGenerator
    from egomotion_ros.models.reasoner import Reasoner, ReasonerConfig
    from egomotion_ros.runtimes.export import Models
    from egomotion_ros.text import TextEncoder
    torch.manual_seed(0)
    reasoner = Reasoner(ReasonerConfig(
        vlm={'model_type': 'egomotion_vlm', 'stem': [16, 16, 32, 32], 'text_config': {
            'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': layers,
            'num_attention_heads': 2, 'num_key_value_heads': 2, 'vocab_size': 300}},
        layer=layers, codes=32, levels=2, text_tokens=text_tokens, text_vocabulary=300)).eval()
    generator = MotionGenerator(GeneratorConfig(
        channels=8, state_width=32, width=32, heads=2, layers=layers, hidden=64,
        aims=True)).eval()
    # A fresh generator answers zero; give it something to say.
    torch.nn.init.normal_(generator.outward.weight, std=0.05)
    autoencoder = MotionAutoencoder(AutoencoderConfig(
        width=32, blocks=1, frame_width=16, frame_blocks=1, channels=8)).eval()
    mean = motion_to_features(standing(2))[0].astype(np.float32)
    mean[1] = 0.3
    autoencoder.scale.set(torch.from_numpy(mean), torch.full((len(mean),), 0.05))
    return Models(reasoner, generator, autoencoder,
                  TextEncoder.train(_COMMANDS, 300, 24), {})


def write_tiny_run(out: Path, reasoner: dict | None = None, codes: int = 32) -> Path:
    """
    Write random ``tokenizer`` and ``autoencoder`` checkpoints to ``out``.

    With the settings of a ``reasoner`` (the text's among them) one of those as well.
    """
    import torch

    from egomotion_ros.models.checkpoints import build, save_model
    from egomotion_ros.models.tokenizer import MotionTokenizer, TokenizerConfig
    from egomotion_ros.training.reasoner_batches import train_text
    autoencoder = tiny_models().autoencoder
    save_model(autoencoder, 'autoencoder', out / 'autoencoder')
    torch.manual_seed(0)
    tokenizer = MotionTokenizer(TokenizerConfig(
        width=16, blocks=1, frame_width=16, frame_blocks=1, code_width=8, codes=codes, levels=2))
    tokenizer.scale.set(autoencoder.scale.mean, autoencoder.scale.std)
    save_model(tokenizer, 'tokenizer', out / 'tokenizer')
    if reasoner is not None:
        save_model(build('reasoner', reasoner), 'reasoner', out / 'reasoner')
        train_text(reasoner['text_vocabulary'], reasoner['text_tokens'], seed=7).save(
            out / 'reasoner' / 'text.json')
    return out


def write_tiny_bundle(out: Path, provenance: dict[str, str] | None = None,
                      candidates: int = 1) -> Path:
    """Export the tiny models to ``out``."""
    from egomotion_ros.runtimes.export import export_bundle
    models = tiny_models()
    models.provenance |= provenance or {}
    export_bundle(models, out, TINY_CAMERA, steps=2, candidates=candidates, references=2,
                  progress=False)
    return out


def _sources() -> str:
    """Hash of all code that the tiny bundle depends on."""
    import torch

    import egomotion_ros
    package = Path(egomotion_ros.__file__).parent
    files = [Path(__file__), *(package / f'{name}.py' for name in ('bundle', 'text', 'types'))]
    for folder in ('body', 'models', 'runtimes'):
        files += sorted((package / folder).glob('*.py'))
    digest = hashlib.sha256(torch.__version__.encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope='session')
def tiny_bundle(pytestconfig: pytest.Config) -> Path:
    """
    Folder of the tiny bundle; do not change it, copy it.

    Kept between sessions until the code that makes it changes.
    """
    return _kept(pytestconfig, 1)


@pytest.fixture(scope='session')
def tiny_bundle_of_four(pytestconfig: pytest.Config) -> Path:
    """The same that draws four candidates, at once; do not change it, copy it."""
    return _kept(pytestconfig, 4)


def _kept(pytestconfig: pytest.Config, candidates: int) -> Path:
    from egomotion_ros.bundle import Bundle
    key = _sources()
    out = pytestconfig.cache.mkdir('tiny_bundle') / f'{key}-{candidates}'
    try:
        fresh = Bundle.open(out).manifest['provenance'] == {'test': key}
    except ValueError:
        fresh = False
    if not fresh:
        shutil.rmtree(out, ignore_errors=True)
        write_tiny_bundle(out, {'test': key}, candidates)
    return out


if __name__ == '__main__':
    write_tiny_bundle(Path(sys.argv[1]))
