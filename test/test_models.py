# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Behaviour of tokenizer, autoencoder, reasoner and generator, on tiny random models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from egomotion_ros.data.scenes_view import CAMERA, project
from egomotion_ros.models.autoencoder import AutoencoderConfig, MotionAutoencoder
from egomotion_ros.models.checkpoints import build, load_model, save_model
from egomotion_ros.models.generator import GeneratorConfig, MotionGenerator
from egomotion_ros.models.reasoner import Reasoner, ReasonerConfig
from egomotion_ros.models.tokenizer import MotionTokenizer, TokenizerConfig
from egomotion_ros.models.vlm import Rays
from egomotion_ros.runtimes.export_graphs import Condition, Step
from egomotion_ros.types import CameraPose

TEXT = {'vocab_size': 64, 'hidden_size': 32, 'intermediate_size': 48, 'num_hidden_layers': 3,
        'num_attention_heads': 2, 'num_key_value_heads': 2}
DEFAULT = {'model_type': 'egomotion_vlm', 'image_size': 32, 'stem': [16, 16, 16],
           'text_config': TEXT}
PALIGEMMA2 = {
    'model_type': 'paligemma', 'projection_dim': 32, 'image_token_id': 63,
    'vision_config': {'model_type': 'siglip_vision_model', 'hidden_size': 16,
                      'intermediate_size': 32, 'num_hidden_layers': 1, 'num_attention_heads': 2,
                      'image_size': 32, 'patch_size': 8, 'projection_dim': 32},
    'text_config': {'model_type': 'gemma2', 'hidden_size': 32, 'intermediate_size': 48,
                    'num_hidden_layers': 3, 'num_attention_heads': 2, 'num_key_value_heads': 1,
                    'head_dim': 16, 'vocab_size': 64}}


def make_reasoner(vlm: dict, layer: int = 2) -> Reasoner:
    torch.manual_seed(0)
    return Reasoner(ReasonerConfig(vlm=vlm, layer=layer, codes=16, levels=3, text_tokens=6,
                                   text_vocabulary=64)).eval()


def prompt(batch: int = 2) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(1)
    return (torch.rand(batch, 3, 32, 32, generator=rng) * 2 - 1,
            torch.randint(0, 60, (batch, 6), generator=rng),
            torch.tensor([[True] * 4 + [False] * 2] * batch),
            torch.tensor([[1.5, 0.3, 0.0]] * batch))


@pytest.mark.parametrize('family', [DEFAULT, PALIGEMMA2], ids=['default', 'paligemma2'])
def test_decoding_with_a_cache_equals_one_teacher_forced_pass(family: dict) -> None:
    reasoner = make_reasoner(family)
    codes, confidence, out = reasoner.generate(*prompt())
    taught = reasoner(*prompt(), codes[..., 0])
    torch.testing.assert_close(taught.states, out.states, atol=2e-4, rtol=0)
    torch.testing.assert_close(taught.base, out.base, atol=2e-4, rtol=0)
    assert codes.shape == (2, 19, 3) and int(codes.max()) < 16
    assert confidence.shape == (2, 19) and bool((confidence > 1 / 16).all())


def test_a_window_sees_earlier_codes_and_no_later_ones() -> None:
    reasoner = make_reasoner(DEFAULT)
    base = torch.randint(0, 16, (2, 19), generator=torch.Generator().manual_seed(2))
    changed = base.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 16
    a, b = reasoner(*prompt(), base).base, reasoner(*prompt(), changed).base
    torch.testing.assert_close(a[:, :10], b[:, :10])
    assert not torch.allclose(a[:, 10:], b[:, 10:], atol=1e-5)


def test_text_behind_the_mask_changes_nothing_and_text_before_it_does() -> None:
    reasoner = make_reasoner(DEFAULT)
    pixels, text, mask, camera = prompt()
    hidden, said = text.clone(), text.clone()
    hidden[:, 5] += 1
    said[:, 0] += 1
    base = torch.zeros(2, 19, dtype=torch.long)
    reference = reasoner(pixels, text, mask, camera, base).base
    torch.testing.assert_close(reasoner(pixels, hidden, mask, camera, base).base, reference)
    assert not torch.allclose(reasoner(pixels, said, mask, camera, base).base, reference)


@pytest.mark.parametrize(('height', 'pitch', 'yaw'), [(1.6, 0.4, 0.15), (1.3, 0.0, -0.2)])
def test_stem_is_shown_where_its_cells_look(height: float, pitch: float, yaw: float) -> None:
    pose = CameraPose(height, pitch, yaw)
    planes = Rays(8, CAMERA.hfov)(torch.tensor([[height, pitch, yaw]]))[0].numpy()
    across = CAMERA.width / 8 * (np.arange(8) + 0.5)
    for row, column in ((0, 0), (2, 5), (7, 7), (6, 1)):
        ray = planes[:3, row, column]
        assert np.linalg.norm(ray) == pytest.approx(1.0, abs=1e-6)
        # A point along the ray is seen where the cell is.
        (u, v), _ = project(np.array([0, 0, height]) + 2.0 * ray, pose)
        assert (u, v) == pytest.approx((across[column], across[row]), abs=1e-3)
        inverse, far = planes[4:, row, column]
        if ray[2] >= 0:
            assert inverse == 0.0 and far == pytest.approx(np.log(10.0))
            continue
        _, depth = project(np.array([0, 0, height]) - ray * height / ray[2], pose)
        assert 1 / inverse == pytest.approx(depth, rel=1e-4)
        assert far == pytest.approx(np.log(min(depth, 10.0)), abs=1e-4)
    assert (planes[3] == np.float32(2.0) * (np.float32(height) - np.float32(1.5))).all()


def test_image_tokens_of_the_default_depend_on_how_the_camera_is_held() -> None:
    pixels, _, _, camera = prompt()
    default, other = make_reasoner(DEFAULT), make_reasoner(PALIGEMMA2)
    bent = camera + torch.tensor([0.0, 0.2, 0.0])
    with torch.no_grad():
        assert not torch.allclose(default.image_features(pixels, camera),
                                  default.image_features(pixels, bent), atol=1e-3)
        assert torch.equal(other.image_features(pixels, camera),
                           other.image_features(pixels, bent))


def test_a_stem_has_as_many_residual_blocks_as_asked_for() -> None:
    blocks = [0, 2, 1]
    stem = make_reasoner(DEFAULT | {'stem_blocks': blocks}).vlm.model.vision_tower
    assert [len(stage.blocks) for stage in stem.stages] == blocks
    with pytest.raises(ValueError, match='the stem has 3 stages'):
        make_reasoner(DEFAULT | {'stem_blocks': [1, 1]})


def test_layers_above_the_stated_one_are_not_run() -> None:
    reasoner = make_reasoner(DEFAULT, layer=1)
    assert len(reasoner.vlm.model.language_model.layers) == 1
    with pytest.raises(ValueError, match='layer 4'):
        make_reasoner(DEFAULT, layer=4)


def test_autoencoder_latents_of_a_prefix_do_not_depend_on_what_follows() -> None:
    model = MotionAutoencoder(AutoencoderConfig(width=16, frame_width=8, channels=4)).eval()
    features = torch.randn(1, 152, 140)
    other = features.clone()
    other[:, 48:] = torch.randn(1, 104, 140)
    torch.testing.assert_close(model.encode(features)[:, :6], model.encode(other)[:, :6])
    assert not torch.allclose(model.encode(features)[:, 6:], model.encode(other)[:, 6:])


def test_a_latent_moves_a_bounded_stretch_of_frames() -> None:
    model = MotionAutoencoder(AutoencoderConfig(width=16, frame_width=8, channels=4)).eval()
    latents = torch.randn(1, 19, 4)
    other = latents.clone()
    other[:, 9] += 1
    moved = (model.decode(latents) - model.decode(other)).abs().amax((0, 2)) > 1e-6
    frames = moved.nonzero()[:, 0]
    reach = 3 * 8 + 4
    assert frames.min() >= 9 * 8 - reach and frames.max() < 10 * 8 + reach


def test_tokenizer_codes_decode_to_what_training_reconstructs() -> None:
    torch.manual_seed(0)
    model = MotionTokenizer(TokenizerConfig(width=16, frame_width=8, code_width=4, codes=8,
                                            levels=2)).eval()
    features = torch.randn(2, 80, 140)
    answer, codes, _ = model(features)
    torch.testing.assert_close(model.decode(model.encode(features)), answer, atol=1e-5, rtol=0)
    assert codes.shape == (2, 10, 2)


def test_dead_codes_come_back_to_life() -> None:
    torch.manual_seed(0)
    model = MotionTokenizer(TokenizerConfig(width=16, frame_width=8, code_width=4, codes=32,
                                            levels=1)).train()
    model.quantizer.codebooks[0, 1:] = 1e3  # nothing lands there
    model.quantizer.sums[0, 1:] = 1e3
    for _ in range(400):
        _, codes, _ = model(torch.randn(4, 80, 140))
    assert len(codes.unique()) > 8


def tiny_generator() -> MotionGenerator:
    torch.manual_seed(0)
    model = MotionGenerator(GeneratorConfig(channels=4, state_width=8, width=16, heads=2,
                                            layers=2, hidden=24)).eval()
    torch.nn.init.normal_(model.outward.weight, std=0.3)
    return model


def test_generator_keeps_the_prefix_and_uses_states_and_mask() -> None:
    model = tiny_generator()
    noise, states = torch.randn(1, 19, 4), torch.randn(1, 5, 8)
    mask = torch.tensor([[True, True, True, False, False]])
    prefix, known = torch.zeros(1, 19, 4), torch.zeros(1, 19)
    prefix[:, :2], known[:, :2] = torch.randn(1, 2, 4), 1.0
    answer = model.sample(noise, states, mask, prefix, known, steps=3)
    torch.testing.assert_close(answer[:, :2], prefix[:, :2])
    hidden = states.clone()
    hidden[:, 3:] += 5
    torch.testing.assert_close(model.sample(noise, hidden, mask, prefix, known, steps=3), answer)
    seen = states.clone()
    seen[:, 0] += 5
    assert (model.sample(noise, seen, mask, prefix, known, steps=3) - answer).abs().max() > 1e-4


def test_guidance_one_is_the_conditional_flow() -> None:
    model = tiny_generator()
    noise, states = torch.randn(1, 19, 4), torch.randn(1, 5, 8)
    mask, empty = torch.ones(1, 5, dtype=torch.bool), torch.zeros(1, 19)
    plain = noise
    condition = model.condition(states, mask)
    for n in range(4):
        plain = plain + model(plain, torch.tensor([n / 4]), condition, torch.zeros_like(noise),
                              empty) / 4
    guided = model.sample(noise, states, mask, torch.zeros_like(noise), empty, 4, guidance=1.0)
    torch.testing.assert_close(guided, plain, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize('candidates', [1, 3])
def test_the_step_of_a_bundle_is_that_of_the_guided_flow(candidates: int) -> None:
    model = tiny_generator()
    torch.nn.init.normal_(model.null_state)
    noise, states = torch.randn(candidates, 19, 4), torch.randn(1, 5, 8)
    mask = torch.tensor([[True, True, True, True, False]])
    prefix, known = torch.zeros(1, 19, 4), torch.zeros(1, 19)
    prefix[:, :2], known[:, :2] = torch.randn(1, 2, 4), 1.0
    wanted = model.sample(noise, states.expand(candidates, -1, -1), mask.expand(candidates, -1),
                          prefix.expand(candidates, -1, -1), known.expand(candidates, -1), 3, 1.7)
    step, x = Step(model, 5, candidates), noise
    context, bias = Condition(model, 5)(states, mask)
    for n in range(3):
        x = step(x, model.modulation(torch.tensor([n / 3])), torch.tensor([1 / 3]),
                 torch.tensor([1.7]), context, bias, prefix, known)
    torch.testing.assert_close(torch.where(known[..., None] > 0.5, prefix, x), wanted)
    other = model.sample(noise, states.expand(candidates, -1, -1), mask.expand(candidates, -1),
                         prefix.expand(candidates, -1, -1), known.expand(candidates, -1), 3, 1.0)
    assert (other - wanted).abs().max() > 1e-3


def test_checkpoints_come_back_and_damage_is_named(tmp_path: Path) -> None:
    model = tiny_generator()
    save_model(model, 'generator', tmp_path)
    again = load_model(tmp_path, 'generator')
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)
    with pytest.raises(ValueError, match='expected a reasoner'):
        load_model(tmp_path, 'reasoner')
    weights = tmp_path / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match='truncated or corrupt'):
        load_model(tmp_path)
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(ValueError, match=r'config\.json'):
        load_model(tmp_path)
    with pytest.raises(ValueError, match='model kind'):
        build('oracle', {})
    with pytest.raises(ValueError, match='generator configuration'):
        build('generator', {'wheels': 4})


def test_latents_are_standardised_numbers() -> None:
    model = MotionAutoencoder(AutoencoderConfig(width=16, frame_width=8, channels=4)).eval()
    features = torch.randn(1, 80, 140)
    model.latent_mean.fill_(0.5)
    model.latent_std.fill_(2.0)
    shifted = model.encode(features)
    model.latent_mean.zero_()
    model.latent_std.fill_(1.0)
    np.testing.assert_allclose(shifted.detach() * 2 + 0.5, model.encode(features).detach(),
                               atol=1e-5)
