# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
One training loop for every stage.

Randomness of a step depends on (seed, step, process) only, never on what ran before, so that a
resumed run goes on exactly as the uninterrupted one would have.

Under ``torchrun`` (or ``accelerate launch``) every process draws its own samples, gradients are
averaged, and all processes hold the same weights after every step; the first one writes.  The
folder of checkpoints must be one that all processes share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import partial
import json
import math
import os
from pathlib import Path
import time
from typing import Any

from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
import yaml

from egomotion_ros.models.checkpoints import load_tensors, save_json, save_model, save_tensors

#: ``loss(model, rng, step)`` -> loss and figures to log.
Loss = Callable[[nn.Module, np.random.Generator, int], tuple[Tensor, dict[str, float]]]
#: Most processes that make samples ahead of time where a GPU waits for them.
WORKERS = 8
#: ``validate(model)`` -> figures to log.
Validate = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class TrainingConfig:
    """
    How a stage is trained; ``batch`` counts samples of one process.

    ``compiled`` lets stages that can compile their blocks (torch.compile: a C++ compiler is
    needed, the first steps take a minute, every other one less).
    """

    steps: int = 10_000
    batch: int = 64
    learning_rate: float = 5e-4
    warmup: int = 200
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.0
    seed: int = 0
    precision: str = 'no'
    compiled: bool = False
    save_every: int = 500
    validate_every: int = 500


#: Least and largest value of the numbers of a :class:`TrainingConfig`.
RANGES = {
    'steps': (1, 10**9), 'batch': (1, 10**6), 'learning_rate': (1e-9, 1.0), 'warmup': (0, 10**9),
    'weight_decay': (0.0, 10.0), 'clip': (1e-6, 1e6), 'ema': (0.0, 1.0 - 1e-6),
    'seed': (0, 2**63), 'save_every': (1, 10**9), 'validate_every': (1, 10**9),
}


def read_config(path: Path, kind: str, about_data: Sequence[str] = ()
                ) -> tuple[dict[str, Any], TrainingConfig, dict[str, Any]]:
    """
    Read a stage's YAML: sections ``model``, ``training`` and ``data``, of which any may lack.

    ``about_data`` names the keys of ``data`` that the stage knows.  Raises ValueError for an empty
    file, unknown sections or keys, and values of another type or out of range.
    """
    try:
        text = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f'{path}: {error}') from error
    if not isinstance(text, dict):
        raise ValueError(f'{path}: expected the sections model, training and data')
    unknown = set(text) - {'model', 'training', 'data'}
    if unknown:
        raise ValueError(f'{path}: unknown section {sorted(map(str, unknown))}')
    model, training, data = ({} if text.get(name) is None else text[name]
                             for name in ('model', 'training', 'data'))
    for name, section in (('model', model), ('training', training), ('data', data)):
        if not isinstance(section, dict):
            raise ValueError(f'{path}: {name} must hold keys and values')
    known = {field.name: field.type for field in fields(TrainingConfig)}
    for name, section, keys in (('training', training, known), ('data', data, about_data)):
        wrong = sorted(map(str, set(section) - set(keys)))
        if wrong:
            raise ValueError(f'{path}: unknown {name} keys {wrong} for {kind}')
    try:
        values = {name: _typed(name, value, known[name]) for name, value in training.items()}
        data = {name: _number(name, value) for name, value in data.items()}
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    return model, TrainingConfig(**values), data


def _typed(name: str, value: Any, kind: str) -> Any:
    """``value`` as the field ``name`` of a TrainingConfig; ValueError where it cannot be."""
    value = _number(name, value)
    whole = isinstance(value, float) and value.is_integer()
    if kind == 'int' and whole:
        value = int(value)
    fits = {'int': int, 'float': (int, float), 'bool': bool, 'str': str}[kind]
    if not isinstance(value, fits) or (kind != 'bool' and isinstance(value, bool)):
        raise ValueError(f'training.{name}: expected {kind}, got {value!r}')
    if name in RANGES and not RANGES[name][0] <= value <= RANGES[name][1]:
        raise ValueError(f'training.{name}: expected {RANGES[name][0]:g} to {RANGES[name][1]:g}, '
                         f'got {value}')
    return value


def _number(name: str, value: Any) -> Any:
    """``value``; numbers that YAML takes for text (1e-3 without a point) as numbers."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f'{name} is not finite')
    return value


def processes() -> PartialState:
    """
    Give the processes of this run (one without ``torchrun``).

    ``processes().main_process_first()`` is for files that one process makes and all read.
    """
    # The first process may take hours over such a file while the others wait.
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=24))


class Samples:
    """
    The samples of the steps of a run: ``draw(rng)`` gives those of one.

    Where a GPU waits for them they are drawn ahead of time, by other processes; then ``draw``
    must neither use torch's random numbers nor a GPU.  What is drawn for a step does not depend
    on that.
    """

    def __init__(self, draw: Callable[[np.random.Generator], Any], config: TrainingConfig) -> None:
        self._steps, self._next, self._coming = config.steps, -1, iter(())
        # Nothing that refers back here: the other processes end as soon as nobody asks any more.
        self._of = partial(_drawn, draw, config.seed, processes().process_index)

    def __call__(self, step: int) -> Any:
        """Give the samples of a step; steps one after the other come fastest."""
        if step != self._next:
            self._coming = ahead(self._of, range(step, self._steps))
        self._next = step + 1
        samples = next(self._coming)
        if self._next == self._steps:
            next(self._coming, None)
        return samples


def _drawn(draw: Callable[[np.random.Generator], Any], seed: int, process: int, step: int) -> Any:
    return draw(np.random.default_rng((seed, step, process, 1)))


def ahead(make: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """
    Give ``make(item)`` of all items, tensors or containers of them, in order.

    Where a GPU waits for them other processes make some ahead of time.
    """
    if processes().device.type == 'cpu':
        yield from map(make, items)
        return
    workers = max(1, min(WORKERS, len(os.sched_getaffinity(0)) // processes().num_processes - 2))
    # A generator of its own: the loader would take a number from the one that losses draw from.
    yield from DataLoader(_Made(make, items), batch_size=None, shuffle=False, pin_memory=True,
                          num_workers=workers, prefetch_factor=2, multiprocessing_context='fork',
                          generator=torch.Generator())


@dataclass(frozen=True)
class _Made(Dataset):
    make: Callable[[Any], Any]
    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.make(self.items[index])


def train(model: nn.Module, kind: str, config: TrainingConfig, loss: Loss, out: Path,
          validate: Validate | None = None) -> nn.Module:
    """
    Train ``model`` for ``config.steps`` steps and write checkpoints to ``out``.

    Resumes from ``out`` when it holds an unfinished run; ValueError when that one has other
    sizes, processes, seed or batch, or a loss is not finite.  With ``config.ema`` > 0 the weights
    that are saved, validated and returned are their exponential moving average; what validation
    says is kept in ``validation.json`` (:func:`validations`).  The model is
    trained on ``processes().device``, where ``loss`` and ``validate`` find it, and comes back on
    the CPU.
    """
    processes()
    # `egomotion train all` trains stages of different precision in one process; accelerate keeps
    # the first one's for good otherwise.
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=not torch.cuda.is_available(),
                              mixed_precision=config.precision)
    out = Path(out)
    model.to(accelerator.device)
    optimizer = torch.optim.AdamW(_groups(model, config.weight_decay), betas=(0.9, 0.98),
                                  lr=config.learning_rate)
    shadow = {k: v.detach().clone() for k, v in model.state_dict().items()}
    draws = {'num_processes': accelerator.num_processes, 'seed': config.seed,
             'batch': config.batch}
    step = (_resume(out, model, optimizer, shadow, draws)
            if (out / 'training.safetensors').exists() else 0)
    # Not wrapped for distributed training: losses call a model several times a step and leave
    # parts of it out, which plain averaging of the gradients allows and the wrapper does not.
    wrapped = accelerator.prepare_model(model, evaluation_mode=True)
    # Its state already lies where it belongs; moved as a whole, step counts would go to the GPU.
    optimizer = accelerator.prepare_optimizer(optimizer, device_placement=False)
    _start_together(accelerator, model, shadow, step)
    writer = SummaryWriter(str(out / 'tensorboard')) if accelerator.is_main_process else None
    if writer is not None and step == 0:
        # Of a run whose checkpoints were taken away.
        (out / 'validation.json').unlink(missing_ok=True)
    bar = tqdm(total=config.steps, initial=step, desc=kind, unit='step',
               disable=not accelerator.is_main_process, mininterval=5.0)
    began, logged = time.monotonic(), {}

    def look() -> None:
        if validate is None:
            return
        figures = _validated(model, shadow, validate)
        tqdm.write(f'{kind} step {step}: ' + ', '.join(
            f'{k} {v:.4g}' for k, v in figures.items()))
        for name, figure in figures.items():
            writer.add_scalar(f'val/{name}', figure, step)
        _note(out / 'validation.json', step, figures)

    wrapped.train()
    while step < config.steps:
        key = (config.seed, step, accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        for group in optimizer.param_groups:
            group['lr'] = config.learning_rate * _schedule(step, config)
        with accelerator.autocast():
            value, figures = loss(wrapped, np.random.default_rng(key), step)
        if not torch.isfinite(value):
            raise ValueError(f'{kind}: loss is {value.item()} at step {step}')
        accelerator.backward(value)
        _average_gradients(accelerator, model)
        accelerator.clip_grad_norm_(wrapped.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad()
        _share_buffers(accelerator, model)
        step += 1
        # Early on the average follows closely, or it would drag the first weights along.
        _average(shadow, model, min(config.ema, (1 + step) / (10 + step)))
        bar.update()
        for name, figure in {'loss': value.item(), **figures}.items():
            old = logged.get(name, figure)
            logged[name] = old + 0.05 * (figure - old)
        if writer is not None and step % 20 == 0:
            bar.set_postfix({k: f'{v:.3f}' for k, v in logged.items()}, refresh=False)
            for name, figure in logged.items():
                writer.add_scalar(f'train/{name}', figure, step)
        last = step == config.steps
        if writer is not None and (step % config.save_every == 0 or last):
            _save(out, model, kind, optimizer, shadow, draws | {'step': step},
                  time.monotonic() - began)
        if writer is not None and step % config.validate_every == 0 and not last:
            look()
        accelerator.wait_for_everyone()
    # A run that was cut off after its last checkpoint is still to be looked at.
    if writer is not None and not any(row['step'] == step for row in validations(out)):
        look()
    accelerator.wait_for_everyone()
    bar.close()
    if writer is not None:
        writer.close()  # or each stage of a run of all would leave a thread and a file behind
    model.load_state_dict(shadow)
    return model.cpu().eval()


@torch.no_grad()
def _start_together(accelerator: Accelerator, model: nn.Module, shadow: dict[str, Tensor],
                    step: int) -> None:
    """Check that all processes stand at the same step; give them the first one's weights."""
    if accelerator.num_processes == 1:
        return
    steps = accelerator.gather(torch.tensor([step], device=accelerator.device)).tolist()
    if len(set(steps)) > 1:
        raise ValueError(f'the processes found checkpoints of different steps {steps}: --out '
                         'must be a folder that all of them share')
    for tensors in (model.state_dict(), shadow):
        for value in tensors.values():
            value.copy_(broadcast(value))


@torch.no_grad()
def _average_gradients(accelerator: Accelerator, model: nn.Module) -> None:
    """Replace gradients by their mean over all processes; what no process used stays without."""
    if accelerator.num_processes == 1:
        return
    parameters = [p for p in model.parameters() if p.requires_grad]
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32,
                        device=accelerator.device)
    used = accelerator.reduce(used, 'sum').tolist()
    parameters = [p for p, count in zip(parameters, used, strict=True) if count]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    mean = accelerator.reduce(parameters_to_vector(gradients), 'mean')
    vector_to_parameters(mean, gradients)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


@torch.no_grad()
def _share_buffers(accelerator: Accelerator, model: nn.Module) -> None:
    """Give all processes the first one's buffers (codebooks are moving averages)."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer))


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    # Gains, biases and single vectors are not decayed.
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [{'params': [p for p in parameters if p.ndim > 1], 'weight_decay': decay},
            {'params': [p for p in parameters if p.ndim <= 1], 'weight_decay': 0.0}]


def _schedule(step: int, config: TrainingConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@torch.no_grad()
def _average(shadow: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    for name, value in model.state_dict().items():
        if decay > 0 and value.is_floating_point():
            shadow[name].lerp_(value, 1 - decay)
        else:
            shadow[name].copy_(value)


def _validated(model: nn.Module, shadow: dict[str, Tensor], validate: Validate
               ) -> dict[str, float]:
    kept = {k: v.detach().clone() for k, v in model.state_dict().items()}
    model.load_state_dict(shadow)
    model.eval()
    with torch.no_grad():
        figures = validate(model)
    model.load_state_dict(kept)
    model.train()
    return figures


def validations(out: Path) -> list[dict[str, float]]:
    """Figures of every validation of the run in ``out``, each with its ``step``."""
    path = Path(out) / 'validation.json'
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else []


def _note(path: Path, step: int, figures: dict[str, float]) -> None:
    """Add a validation; one of a later step is of a run that was cut off before its checkpoint."""
    before = [row for row in validations(path.parent) if row['step'] < step]
    save_json([*before, {'step': step, **figures}], path)


def _save(out: Path, model: nn.Module, kind: str, optimizer: Any, shadow: dict[str, Tensor],
          numbers: dict[str, int], seconds: float) -> None:
    save_model(model, kind, out, shadow)
    state = optimizer.state_dict()['state']
    tensors = {f'model/{k}': v for k, v in model.state_dict().items()}
    for index, values in state.items():
        for name, value in values.items():
            tensors[f'optimizer/{index}/{name}'] = torch.as_tensor(value)
    # All that a run goes on from travels in one file: one rename, never a mixture.
    tensors |= {f'shadow/{k}': v for k, v in shadow.items()}
    tensors |= {name: torch.tensor(number) for name, number in numbers.items()}
    save_tensors(tensors, out / 'training.safetensors')
    save_json({'step': numbers['step'], 'seconds_this_run': round(seconds, 1)},
              out / 'progress.json')


def saved_step(out: Path) -> int:
    """Step a run in ``out`` would go on from, 0 without one; ValueError for a corrupt file."""
    path = Path(out) / 'training.safetensors'
    return int(load_tensors(path)['step']) if path.exists() else 0


def _resume(out: Path, model: nn.Module, optimizer: Any, shadow: dict[str, Tensor],
            draws: dict[str, int]) -> int:
    tensors = load_tensors(out / 'training.safetensors')
    for name, number in draws.items():
        # Files of the first format do not say.
        if name in tensors and int(tensors[name]) != number:
            raise ValueError(f'{out}: the run that is to go on has {name} {int(tensors[name])}, '
                             f'not {number}: it would draw other samples')
    saved = {k[7:]: v for k, v in tensors.items() if k.startswith('shadow/')}
    if not saved:
        saved = load_tensors(out / 'model.safetensors')
    try:
        model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith('model/')})
        for name in shadow:
            shadow[name].copy_(saved[name])
    except (RuntimeError, KeyError) as error:
        raise ValueError(f'{out}: the unfinished run has other sizes: {error}') from error
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith('optimizer/'):
            _, index, key = name.split('/')
            state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()['param_groups']
    optimizer.load_state_dict({'state': state, 'param_groups': groups})
    return int(tensors['step'])
