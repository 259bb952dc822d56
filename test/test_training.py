# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The training loop resumes exactly; stage 2 never reaches stage 1; conditions matter."""

from __future__ import annotations

from dataclasses import replace
import json
from pathlib import Path
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from egomotion_ros.models.autoencoder import AutoencoderConfig, MotionAutoencoder
from egomotion_ros.models.checkpoints import load_tensors, save_tensors
from egomotion_ros.models.generator import GeneratorConfig, MotionGenerator
from egomotion_ros.models.grounding import DEPTHS
from egomotion_ros.models.reasoner import Reasoner, ReasonerConfig
from egomotion_ros.training.generator import flow_loss
from egomotion_ros.training.loop import (
    TrainingConfig,
    read_config,
    train,
    validations,
)
from egomotion_ros.training.motions import aligned_error, reconstruction_loss
from egomotion_ros.training.reasoner import depth_loss

VLM = {'model_type': 'egomotion_vlm', 'image_size': 32, 'stem': [16, 16, 16],
       'text_config': {'vocab_size': 64, 'hidden_size': 16, 'intermediate_size': 24,
                       'num_hidden_layers': 2, 'num_attention_heads': 2,
                       'num_key_value_heads': 2}}
SIZES = GeneratorConfig(channels=4, state_width=16, width=16, heads=2, layers=1, hidden=16)


def make_generator() -> MotionGenerator:
    torch.manual_seed(0)
    return MotionGenerator(SIZES)


def toy_loss(model: MotionGenerator, rng: np.random.Generator, step: int
             ) -> tuple[torch.Tensor, dict[str, float]]:
    """Latents whose mean is the first number of the state: a condition that can be learned."""
    hint = torch.from_numpy(rng.choice([-1.0, 1.0], 16).astype(np.float32))
    states = torch.zeros(16, 3, 16)
    states[:, 0] = hint[:, None]
    target = hint[:, None, None].expand(16, 19, 4) + 0.1 * torch.randn(16, 19, 4)
    return flow_loss(model, None, target, target, states, torch.ones(16, 3, dtype=torch.bool),
                     rng, 0.1, torch.zeros(16, dtype=torch.bool), 0.0)


def cut_run(config: TrainingConfig, out: Path) -> None:
    """Train until step 6, where the run is cut off."""
    def interrupted(model: torch.nn.Module, rng: np.random.Generator, step: int
                    ) -> tuple[torch.Tensor, dict[str, float]]:
        if step == 6:
            raise KeyboardInterrupt
        return toy_loss(model, rng, step)

    with pytest.raises(KeyboardInterrupt):
        train(make_generator(), 'generator', config, interrupted, out)


WHOLE = TrainingConfig(steps=8, batch=16, warmup=2, save_every=4, ema=0.9)


@pytest.fixture(scope='module')
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not interrupted (``whole``), and the same cut off at step 6 (``cut``)."""
    out = tmp_path_factory.mktemp('runs')
    train(make_generator(), 'generator', WHOLE, toy_loss, out / 'whole')
    cut_run(WHOLE, out / 'cut')
    return out


def goes_on(cut: Path, runs: Path) -> None:
    """Let a run that was cut off go on, and hold its end against that of the whole one."""
    resumed = train(make_generator(), 'generator', WHOLE, toy_loss, cut)
    for name, value in load_tensors(runs / 'whole' / 'model.safetensors').items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(runs: Path, tmp_path: Path) -> None:
    goes_on(shutil.copytree(runs / 'cut', tmp_path / 'cut'), runs)


def test_every_validation_is_kept_once_and_a_new_run_keeps_its_own(tmp_path: Path) -> None:
    config = TrainingConfig(steps=5, batch=16, warmup=2, save_every=5)

    def run(figure: float, every: int = 2) -> list[dict[str, float]]:
        train(make_generator(), 'generator', replace(config, validate_every=every), toy_loss,
              tmp_path, lambda network: {'figure': figure})
        return validations(tmp_path)

    first = [{'step': step, 'figure': 1.0} for step in (2, 4, 5)]
    assert run(1.0) == first
    # A finished run is not looked at again, unless what was seen of its end is missing.
    assert run(2.0) == first
    (tmp_path / 'validation.json').write_text(json.dumps(first[:2]))
    assert run(2.0) == [*first[:2], {'step': 5, 'figure': 2.0}]
    (tmp_path / 'training.safetensors').unlink()
    assert run(3.0, every=9) == [{'step': 5, 'figure': 3.0}]


def test_a_finished_run_leaves_no_thread_behind(tmp_path: Path) -> None:
    config = TrainingConfig(steps=1, batch=16)
    before = set(threading.enumerate())
    train(make_generator(), 'generator', config, toy_loss, tmp_path)
    left = set(threading.enumerate()) - before
    # tqdm has one thread for all bars of a process.
    assert [thread for thread in left if not type(thread).__module__.startswith('tqdm')] == []
    assert list((tmp_path / 'tensorboard').iterdir())


def test_a_run_killed_between_its_files_goes_on_from_one_of_them(runs: Path, tmp_path: Path
                                                                  ) -> None:
    cut = shutil.copytree(runs / 'cut', tmp_path / 'cut')
    # The weights of step 8 were written, the state of the run was not.
    shutil.copy(runs / 'whole' / 'model.safetensors', cut)
    goes_on(cut, runs)


def test_a_run_of_the_first_format_goes_on(runs: Path, tmp_path: Path) -> None:
    cut = shutil.copytree(runs / 'cut', tmp_path / 'cut')
    path = cut / 'training.safetensors'
    save_tensors({k: v for k, v in load_tensors(path).items() if k == 'step' or k.startswith(
        ('model/', 'optimizer/'))}, path)
    goes_on(cut, runs)


@pytest.mark.parametrize('change', [{'seed': 1}, {'batch': 8}])
def test_a_run_does_not_go_on_with_other_draws(tmp_path: Path, change: dict[str, int]) -> None:
    config = TrainingConfig(steps=1, batch=16)
    train(make_generator(), 'generator', config, toy_loss, tmp_path)
    with pytest.raises(ValueError, match=f'has {next(iter(change))}'):
        train(make_generator(), 'generator', replace(config, steps=2, **change), toy_loss,
              tmp_path)


def test_a_run_does_not_go_on_in_other_processes(tmp_path: Path) -> None:
    config = TrainingConfig(steps=1, batch=16)
    train(make_generator(), 'generator', config, toy_loss, tmp_path)
    path = tmp_path / 'training.safetensors'
    save_tensors(load_tensors(path) | {'num_processes': torch.tensor(2)}, path)
    with pytest.raises(ValueError, match='has num_processes 2, not 1'):
        train(make_generator(), 'generator', config, toy_loss, tmp_path)


def test_stages_of_different_precision_follow_each_other(tmp_path: Path) -> None:
    for precision in ('no', 'bf16', 'no'):
        dtypes = set()

        def loss(model: torch.nn.Module, rng: np.random.Generator, step: int, seen: set = dtypes
                 ) -> tuple[torch.Tensor, dict[str, float]]:
            seen.add((torch.rand(2, 2) @ torch.rand(2, 2)).dtype)
            return toy_loss(model, rng, step)

        config = TrainingConfig(steps=1, batch=16, precision=precision)
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        train(make_generator(), 'generator', config, loss, out)
        assert dtypes == {torch.bfloat16 if precision == 'bf16' else torch.float32}


def test_an_unfinished_run_of_other_sizes_is_refused(tmp_path: Path) -> None:
    config = TrainingConfig(steps=2, batch=4, save_every=1)
    train(make_generator(), 'generator', config, toy_loss, tmp_path)
    other = MotionGenerator(replace(SIZES, width=32))
    with pytest.raises(ValueError, match='other sizes'):
        train(other, 'generator', replace(config, steps=4), toy_loss, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    def broken(model: torch.nn.Module, rng: np.random.Generator, step: int
               ) -> tuple[torch.Tensor, dict[str, float]]:
        return sum(p.sum() for p in model.parameters()) * float('nan'), {}
    with pytest.raises(ValueError, match='loss is nan'):
        train(make_generator(), 'generator', TrainingConfig(steps=2), broken, tmp_path)


def test_depths_are_compared_cell_by_cell() -> None:
    answer = torch.full((1, 4, DEPTHS ** 2), 2.0).log()
    # Each cell of a patch of 16 x 16 depths is compared with one in four of them, both ways.
    for row, column, patch, cell, far in ((2, 2, 0, 0, 3.0), (2, 30, 1, 3, 4.0),
                                          (30, 2, 2, 12, 50.0), (22, 6, 2, 5, 1.0)):
        changed = torch.full((1, 32, 32), 2.0)
        changed[0, row, column] = far
        told = answer.clone()
        told[0, patch, cell] = np.log(min(far, 12.0))
        assert depth_loss(told, changed, 2).item() == pytest.approx(0.0, abs=1e-9)
        off = abs(np.log(min(far, 12.0) / 2.0))
        expected = off - 0.05 if off >= 0.1 else 0.5 * off ** 2 / 0.1
        assert depth_loss(answer, changed, 2).item() == pytest.approx(expected / 64, rel=1e-5)
    lost = torch.full((1, 32, 32), torch.nan)
    lost[0, 2, 2] = 4.0
    assert depth_loss(answer, lost, 2).item() == pytest.approx(np.log(2.0) - 0.05, rel=1e-5)
    free = answer.clone().requires_grad_()
    depth_loss(free, torch.full((1, 32, 32), torch.nan), 2).backward()
    assert free.grad is not None and not free.grad.any()


def test_unknown_keys_of_a_configuration_are_named(tmp_path: Path) -> None:
    path = tmp_path / 'c.yaml'
    path.write_text('training: {stepz: 3}\n')
    with pytest.raises(ValueError, match='stepz'):
        read_config(path, 'generator')
    path.write_text('modle: {}\n')
    with pytest.raises(ValueError, match='modle'):
        read_config(path, 'generator')


def test_no_gradient_of_stage_2_reaches_stage_1() -> None:
    torch.manual_seed(0)
    reasoner = Reasoner(ReasonerConfig(vlm=VLM, layer=2, codes=8, levels=2, text_tokens=4,
                                       text_vocabulary=64))
    _, _, out = reasoner.generate(torch.rand(2, 3, 32, 32), torch.zeros(2, 4, dtype=torch.long),
                                  torch.ones(2, 4, dtype=torch.bool), torch.zeros(2, 3))
    assert not out.states.requires_grad
    generator = make_generator()
    torch.nn.init.normal_(generator.outward.weight)
    latents = torch.randn(2, 19, 4)
    loss, _ = flow_loss(generator, None, latents, latents, out.states, out.mask,
                        np.random.default_rng(0), 0.1, torch.zeros(2, dtype=torch.bool), 0.0)
    loss.backward()
    assert all(p.grad is None for p in reasoner.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


def test_training_makes_the_condition_count(tmp_path: Path) -> None:
    config = TrainingConfig(steps=150, batch=16, warmup=10, learning_rate=5e-3, save_every=1000)
    model = train(make_generator(), 'generator', config, toy_loss, tmp_path)
    noise = torch.randn(8, 19, 4, generator=torch.Generator().manual_seed(0))
    mask, empty = torch.ones(8, 3, dtype=torch.bool), torch.zeros(8, 19)
    means = []
    for hint in (-1.0, 1.0):
        states = torch.zeros(8, 3, 16)
        states[:, 0] = hint
        with torch.no_grad():
            means.append(model.sample(noise, states, mask, torch.zeros_like(noise), empty,
                                      guidance=1.0).mean().item())
    assert means[0] < -0.5 < 0.5 < means[1]


def test_reconstruction_error_is_nil_for_the_truth_and_grows_with_a_bent_joint() -> None:
    rng = torch.Generator().manual_seed(0)
    truth = torch.zeros(1, 16, 140)
    truth[..., 3] = 0.9
    truth[..., 4::6][..., :22] = 1.0  # identity: first column (1, 0, 0), second (0, 1, 0)
    truth[..., 8::6][..., :22] = 1.0
    std = torch.ones(140)
    loss, _ = reconstruction_loss(truth, truth, std)
    assert loss.item() < 1e-6
    assert aligned_error(truth, truth).max() < 1e-6
    bent = truth.clone()
    bent[..., 10:136] += 0.2 * torch.randn(1, 16, 126, generator=rng)
    assert reconstruction_loss(bent, truth, std)[0] > 0.05
    moved = truth.clone()
    moved[..., 1] = 1.0  # walking along is no error of the aligned body
    assert aligned_error(moved, truth).max() < 1e-6


def test_autoencoder_is_frozen_while_stage_2_learns_from_the_decoded_path() -> None:
    torch.manual_seed(0)
    autoencoder = MotionAutoencoder(AutoencoderConfig(width=16, frame_width=8, channels=4))
    autoencoder.requires_grad_(False)
    generator = make_generator()
    torch.nn.init.normal_(generator.outward.weight)
    latents, truth = torch.randn(4, 19, 4), torch.zeros(4, 152, 140)
    loss, figures = flow_loss(generator, autoencoder, latents, truth, torch.randn(4, 3, 16),
                              torch.ones(4, 3, dtype=torch.bool), np.random.default_rng(0), 0.0,
                              torch.zeros(4, dtype=torch.bool), 1.0)
    loss.backward()
    assert figures['path'] > 0 and generator.outward.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in autoencoder.parameters())


def test_a_generator_is_taught_to_move_as_much_as_its_answers_do() -> None:
    autoencoder = MotionAutoencoder(AutoencoderConfig(width=16, frame_width=8, channels=4))
    autoencoder.requires_grad_(False)
    generator = make_generator()
    torch.nn.init.normal_(generator.outward.weight)
    latents = torch.randn(4, 19, 4)

    def losses(liveliness: float) -> tuple[torch.Tensor, dict[str, float]]:
        torch.manual_seed(1)
        return flow_loss(generator, autoencoder, latents, torch.zeros(4, 152, 140),
                         torch.randn(4, 3, 16), torch.ones(4, 3, dtype=torch.bool),
                         np.random.default_rng(0), 0.0, torch.zeros(4, dtype=torch.bool), 0.0,
                         liveliness=liveliness)

    without, plain = losses(0.0)
    asked, figures = losses(2.0)
    assert 'stillness' not in plain and figures['stillness'] > 0
    assert (asked - without).item() == pytest.approx(2.0 * figures['stillness'], rel=1e-3)
    # Of the flow, path and feet there are as many in both: what is left is the jerk's own pull.
    pull = torch.autograd.grad(asked, generator.outward.weight)[0]
    pull -= torch.autograd.grad(without, generator.outward.weight)[0]
    assert pull.abs().max() > 1e-4


def test_samples_are_drawn_ahead_by_other_processes() -> None:
    # In a process of its own: these checks fork, and native threads of other tests do not like it.
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider',
         str(Path(__file__).with_name('ahead_checks.py'))], capture_output=True, text=True,
        timeout=120, check=False)
    assert done.returncode == 0 and '4 passed' in done.stdout, done.stdout + done.stderr
