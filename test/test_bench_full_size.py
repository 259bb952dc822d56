# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of full-size models, with small ones: what it times is a plan."""

from __future__ import annotations

import pytest
import torch

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def script(benchmark_script):
    return benchmark_script('full_size_gpu')


@pytest.fixture(scope='module')
def plan(script):
    torch.manual_seed(0)
    return script.make(True, CPU, torch.float32, 3, 1.2)


@torch.inference_mode()
def test_a_plan_answers_picture_words_and_noise(script, plan):
    given = script.inputs(plan, CPU, torch.float32)
    codes, motion = plan(*given)
    assert codes.shape == (1, 19) and motion.shape == (1, 152, 140)
    assert motion.isfinite().all()
    for n, other in ((0, 255 - given[0]), (1, given[1] + 1), (3, given[3] + 0.3),
                     (4, given[4] + 1.0)):
        changed = plan(*(other if k == n else part for k, part in enumerate(given)))[1]
        assert (changed - motion).abs().max() > 0, n


@torch.inference_mode()
def test_primitives_decoded_one_by_one_are_those_of_the_pipeline(script, plan):
    given = script.inputs(plan, CPU, torch.float32)[:4]
    codes, states, mask = plan.reason(*given, one_by_one=True)
    reasoner = plan.graphs['prefill'].reasoner
    pixels = given[0].permute(0, 3, 1, 2) / 127.5 - 1
    wanted, _, out = reasoner.generate(pixels, given[1], given[2], given[3])
    assert torch.equal(codes, wanted[..., 0])
    torch.testing.assert_close(states, out.states, rtol=1e-3, atol=1e-4)
    assert torch.equal(mask, out.mask)


@torch.inference_mode()
def test_layers_with_caches_of_their_own_give_the_same_plan(script, plan):
    given = script.inputs(plan, CPU, torch.float32)
    wanted = plan(*given)
    script.share_layers(plan)
    assert type(plan.graphs['refine'].layers) is script.SharedLayers
    codes, motion = plan(*given)
    assert torch.equal(codes, wanted[0])
    torch.testing.assert_close(motion, wanted[1], rtol=1e-4, atol=1e-6)


def test_models_of_full_size_are_not_made_without_a_gpu(script, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['full_size_gpu.py'])
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit):
        script.main()
    assert 'need a GPU' in capsys.readouterr().err
