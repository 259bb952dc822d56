# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pretrained weights, fine-tuned and exported: the bundle says what the trained model says."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

from families_support import FAMILIES, pretrained_folder
from fixtures_bundle import TINY_CAMERA, tiny_models, write_tiny_run
import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file
import torch
import yaml

from egomotion_ros.bundle import DECODERS, Bundle
from egomotion_ros.data.episodes import write_episodes
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.models.checkpoints import load_model, save_model
from egomotion_ros.runtimes.export import Models, export_bundle
from egomotion_ros.runtimes.loops import decode_primitives
from egomotion_ros.runtimes.ort import OrtRuntime
from egomotion_ros.runtimes.parity import reference_cases
from egomotion_ros.training.reasoner import train_reasoner

#: The family's tiny model, that reads the pictures of episodes.
SMOL = copy.deepcopy(FAMILIES['smolvlm2'])
SMOL['vision_config'] |= {'image_size': TINY_CAMERA.width, 'patch_size': 16}
SIZES = {'layer': 2, 'codes': 32, 'levels': 2, 'text_tokens': 48}
LORA = {'rank': 7, 'alpha': 28}
#: Steps long enough that two of them change what the model says.
TRAINING = {'steps': 2, 'batch': 4, 'learning_rate': 0.05, 'warmup': 1, 'save_every': 1,
            'validate_every': 2}


@pytest.fixture(scope='module')
def episodes(gait_bank: MotionBank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('episodes')
    write_episodes(out, 'train', 8, bank=gait_bank)
    return out


@pytest.fixture(scope='module', params=[LORA, None], ids=['lora', 'in full'])
def trained(request: pytest.FixtureRequest, episodes: Path,
            tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two steps from the weights of a folder, and the bundle of what came of it."""
    folder = tmp_path_factory.mktemp('pretrained')
    whole = pretrained_folder(SMOL, folder / 'hub')
    runs = write_tiny_run(folder / 'runs')
    save_model(tiny_models().generator, 'generator', runs / 'generator')
    lora = {} if request.param is None else {'lora': request.param}
    (folder / 'config.yaml').write_text(yaml.safe_dump({
        'model': {'pretrained': str(folder / 'hub'), **SIZES, **lora}, 'training': TRAINING,
        'data': {'decoder': 'both'}}))
    train_reasoner(folder / 'config.yaml', episodes, runs / 'reasoner', runs / 'tokenizer')
    models = Models.load(runs)
    report = export_bundle(models, folder / 'bundle', TINY_CAMERA, steps=2, references=2,
                           progress=False)
    return SimpleNamespace(lora=request.param, start=whole.state_dict(), models=models,
                           runs=runs, report=report, bundle=Bundle.open(folder / 'bundle'))


def said(reasoner, bundle: Bundle, case, decoder: str) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (windows, levels) and states of a torch model for a prompt."""
    pixels = torch.from_numpy(case.image).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        tokens, _, out = reasoner.generate(
            pixels, *(torch.from_numpy(array)[None] for array in
                      (case.text, case.text_mask, case.camera)), decoder, bundle.refinements)
    return tokens[0].numpy(), out.states[0].numpy()


def test_adapters_alone_learn_or_all_weights(trained: SimpleNamespace) -> None:
    saved = load_model(trained.runs / 'reasoner', 'reasoner')
    assert saved.config.lora == trained.lora and saved.config.decoder == 'both'
    adapters = [name for name, value in saved.state_dict().items() if 'lora_B' in name
                and value.abs().max() > 0]
    language = 'vlm.model.text_model.layers.'
    changed = set()
    for name, value in saved.state_dict().items():
        plain = name.replace('.base_layer', '')
        if plain.startswith(language) and 'lora_' not in name:
            if not torch.equal(value, trained.start[plain.removeprefix('vlm.')]):
                changed.add(plain)
    if trained.lora is None:
        assert not adapters and f'{language}0.self_attn.q_proj.weight' in changed
    else:
        # Seven layers of each of two blocks.
        assert len(adapters) == 14 and not changed


def test_the_bundle_has_no_adapters_left(trained: SimpleNamespace) -> None:
    bundle, merged = trained.bundle, trained.models.reasoner
    names = set(load_file(bundle.weights_path))
    for spec in bundle.graphs.values():
        graph = onnx.load(spec.path, load_external_data=False).graph
        names |= {item.name for item in graph.initializer}
        names |= {name for node in graph.node for name in (node.name, *node.input, *node.output)}
        # Whatever it is called: an adapter would be a pair of matrices with its rank for a side.
        assert not [item.name for item in graph.initializer if LORA['rank'] in item.dims[-2:]]
    assert len(names) > 100 and not [name for name in names if 'lora' in name.lower()]
    assert not [name for name in merged.state_dict() if 'lora' in name or 'base_layer' in name]
    assert bundle.manifest['models']['reasoner']['lora'] is None


@pytest.mark.parametrize('decoder', DECODERS)
def test_the_bundle_says_what_the_trained_model_says(trained: SimpleNamespace,
                                                     decoder: str) -> None:
    bundle, text = trained.bundle, trained.models.text
    # The checkpoint as it was trained, adapters beside the weights: merging is checked as well.
    saved = load_model(trained.runs / 'reasoner', 'reasoner')
    without = load_model(trained.runs / 'reasoner', 'reasoner')
    with torch.no_grad():
        for name, value in without.named_parameters():
            if 'lora_B' in name:
                value.zero_()
    runtime = OrtRuntime(bundle.graphs, 1)
    figures = SimpleNamespace(windows=bundle.windows, levels=bundle.levels, decoder=decoder,
                              codebook=bundle.codebook, temperature=0.0, refinements=0)
    answers = set()
    for case in reference_cases(bundle, text, 4):
        found = decode_primitives(runtime, figures, case.image, case.text, case.text_mask,
                                  case.camera, 0)
        for model in (trained.models.reasoner, saved):
            tokens, states = said(model, bundle, case, decoder)
            assert np.array_equal(found.tokens, tokens)
            np.testing.assert_allclose(found.states, states, atol=2e-3)
        answers.add(found.tokens.tobytes())
        if trained.lora is not None:
            assert np.abs(said(without, bundle, case, decoder)[1] - found.states).max() > 0.05
    assert len(answers) > 1, 'equal tokens say nothing when all are the same'
    assert trained.report.tokens_equal == 1.0
    runtime.close()
