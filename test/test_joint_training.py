# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Joint and decoupled training differ in the gradient's path alone."""

from __future__ import annotations

import json
from pathlib import Path

from fixtures_bundle import write_tiny_run
import numpy as np
import pytest
import torch
import yaml

from egomotion_ros.data.episodes import write_episodes
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.data.scenes import OBJECT_COLUMNS
from egomotion_ros.models.generator import GeneratorConfig, MotionGenerator
from egomotion_ros.models.reasoner import Reasoner, ReasonerConfig
from egomotion_ros.training import joint
from egomotion_ros.training.joint import Pair, Rows, gradient_cosine, pair_loss, train_pair

VLM = {'model_type': 'egomotion_vlm', 'image_size': 32, 'stem': [16, 16, 16],
       'text_config': {'vocab_size': 64, 'hidden_size': 16, 'intermediate_size': 24,
                       'num_hidden_layers': 2, 'num_attention_heads': 2,
                       'num_key_value_heads': 2}}


@pytest.fixture
def pair() -> Pair:
    torch.manual_seed(0)
    reasoner = Reasoner(ReasonerConfig(vlm=VLM, layer=2, codes=8, levels=2, text_tokens=4,
                                       text_vocabulary=64))
    generator = MotionGenerator(GeneratorConfig(channels=4, state_width=16, width=16, heads=2,
                                                layers=1, hidden=16))
    torch.nn.init.normal_(generator.outward.weight)
    return Pair(reasoner, generator)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    table = torch.rand(2, 6, len(OBJECT_COLUMNS), generator=rng) + 0.6
    for name in ('colour', 'shape'):
        table[..., OBJECT_COLUMNS.index(name)] = 1.0
    return {'pixels': torch.rand(2, 3, 32, 32, generator=rng), 'objects': table,
            'depth': torch.rand(2, 32, 32, generator=rng) + 1.0,
            'ids': torch.randint(64, (4, 4), generator=rng),
            'mask': torch.ones(4, 4, dtype=torch.bool),
            'camera': torch.rand(4, 3, generator=rng), 'goal': torch.rand(4, 3, generator=rng),
            'seen': torch.ones(4, dtype=torch.bool),
            'definite': torch.ones(4, dtype=torch.bool),
            'target': table.repeat_interleave(2, 0)[:, 0],
            'codes': torch.randint(8, (4, 19, 2), generator=rng)}


def loss_and_gradient(pair: Pair, batch: dict[str, torch.Tensor], arm: str, measure: bool = False
                      ) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    torch.manual_seed(2)
    latents = torch.randn(4, 19, 4)
    loss, figures = pair_loss(pair, None, batch, latents, latents, np.random.default_rng(0), arm,
                              patches=4, drop=0.0, path_weight=0.0, measure=measure)
    pair.zero_grad()
    loss.backward()
    gradient = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten()
                          for p in pair.shared()])
    return loss.detach(), gradient, figures


def test_the_arms_have_the_same_loss_and_other_gradients_in_the_reasoner(
        pair: Pair, batch: dict[str, torch.Tensor]) -> None:
    apart, alone, _ = loss_and_gradient(pair, batch, 'decoupled')
    together, both, _ = loss_and_gradient(pair, batch, 'joint')
    torch.testing.assert_close(apart, together, rtol=0, atol=0)
    assert (both - alone).norm() > 1e-3 * alone.norm()


def test_measuring_the_cosine_changes_neither_loss_nor_gradient(
        pair: Pair, batch: dict[str, torch.Tensor]) -> None:
    for arm in ('decoupled', 'joint'):
        loss, gradient, figures = loss_and_gradient(pair, batch, arm)
        again, same, measured = loss_and_gradient(pair, batch, arm, measure=True)
        torch.testing.assert_close((loss, gradient), (again, same), rtol=0, atol=0)
        assert 'cosine' not in figures
        assert -1.0 <= measured['cosine'] <= 1.0 and measured['norm_ratio'] > 0


def test_the_logged_cosine_is_that_of_the_two_gradients(
        pair: Pair, batch: dict[str, torch.Tensor]) -> None:
    _, alone, _ = loss_and_gradient(pair, batch, 'decoupled')
    _, both, figures = loss_and_gradient(pair, batch, 'joint', measure=True)
    generator = both - alone
    cosine = torch.nn.functional.cosine_similarity(alone, generator, dim=0).item()
    assert figures['cosine'] == pytest.approx(cosine, abs=1e-3)
    assert figures['norm_ratio'] == pytest.approx((generator.norm() / alone.norm()).item(),
                                                  rel=1e-3)


def test_cosine_of_hand_made_gradients() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    unused = torch.nn.Parameter(torch.zeros(3))
    first, second = 3.0 * weight[0], 2.0 * weight[0] + 2.0 * weight[1]
    cosine, ratio = gradient_cosine(first, second, [weight, unused])
    assert cosine == pytest.approx(2 ** -0.5)
    assert ratio == pytest.approx(8 ** 0.5 / 3)


def test_an_unknown_arm_is_refused(pair: Pair, batch: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match='sideways'):
        loss_and_gradient(pair, batch, 'sideways')


def test_rows_of_a_run_that_goes_on_are_those_before_its_checkpoint(tmp_path: Path) -> None:
    rows = Rows(tmp_path, 0)
    for step in range(6):
        rows.add(step, {'loss': float(step)})
    with (tmp_path / 'rows.jsonl').open('a') as file:
        file.write('{"step": 3, "lo')
    kept = Rows(tmp_path, 4).kept
    assert kept == [{'step': step, 'loss': float(step)} for step in range(4)]
    assert Rows(tmp_path, 6).kept == kept
    assert Rows(tmp_path, 0).kept == []


def test_a_pair_that_was_cut_off_has_the_rows_of_one_that_was_not(
        gait_bank: MotionBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_episodes(tmp_path / 'episodes', 'train', 8, bank=gait_bank)
    write_tiny_run(tmp_path, codes=8)
    config = tmp_path / 'joint.yaml'
    config.write_text(yaml.safe_dump({
        'model': {'vlm': VLM | {'image_size': 128, 'stem': [8, 8, 16, 16]}, 'layer': 2,
                  'codes': 8, 'levels': 2, 'text_tokens': 64, 'text_vocabulary': 300,
                  'generator': {'width': 16, 'heads': 2, 'layers': 1, 'hidden': 16}},
        'training': {'steps': 4, 'batch': 2, 'warmup': 1, 'save_every': 2, 'validate_every': 2},
        'data': {'questions': 2}}))

    def run(out: str) -> dict[str, list[dict[str, float]]]:
        return train_pair(config, 'joint', 1, tmp_path / 'episodes', tmp_path / 'tokenizer',
                          tmp_path / 'autoencoder', tmp_path / 'episodes', tmp_path / out)

    monkeypatch.setattr(joint, 'COSINE_EVERY', 1)
    whole = run('whole')
    assert [row['step'] for row in whole['train']] == [0, 1, 2, 3]
    assert [row['step'] for row in whole['val']] == [2, 4]
    loss = joint.pair_loss

    def cut(*args: object) -> tuple[torch.Tensor, dict[str, float]]:
        cut.left -= 1
        if cut.left < 0:
            raise KeyboardInterrupt
        return loss(*args)

    cut.left = 3
    monkeypatch.setattr(joint, 'pair_loss', cut)
    with pytest.raises(KeyboardInterrupt):
        run('cut')
    monkeypatch.setattr(joint, 'pair_loss', loss)
    assert run('cut') == whole
    # Nothing is left to train; what was measured is still there, and a missing end is measured.
    assert run('cut') == whole
    kept = tmp_path / 'cut' / 'validation.json'
    kept.write_text(json.dumps(json.loads(kept.read_text())[:1]))
    assert run('cut') == whole
