# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The TensorRT runtime's own logic on a stand-in for the device.

The stand-in is host memory; its "engines" are ONNX Runtime sessions that read and write at the
addresses they were given.  So buffers, what stays on the device, captured graphs and teardown are
run; CUDA and TensorRT themselves are not.
"""

from collections.abc import Callable
import ctypes
import dataclasses
from pathlib import Path
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from egomotion_ros.aim import AIM
from egomotion_ros.bundle import Bundle, GraphSpec, TensorSpec
from egomotion_ros.runtimes.base import Held
from egomotion_ros.runtimes.buffers import ALIASES, ALIGNMENT, plan_buffers, tensor_bytes
from egomotion_ros.runtimes.cuda import Cuda
from egomotion_ros.runtimes.loops import (
    PromptMemory,
    TimeMemory,
    decode_primitives,
    sample_candidates,
    sample_latents,
)
from egomotion_ros.runtimes.ort import OrtRuntime
from egomotion_ros.runtimes.tensorrt import EngineRunner


class HostDevice:
    """Host memory with the methods of ``Cuda``; ``log`` names what was queued or freed."""

    def __init__(self) -> None:
        self.stream = 1
        self.log: list[str] = []
        self._blocks: dict[int, Any] = {}
        self._recording: list[Callable[[], None]] | None = None

    def queue(self, name: str, work: Callable[[], None]) -> None:
        if self._recording is not None:
            self._recording.append(work)
        else:
            self.log.append(name)
            work()

    def allocate(self, size: int) -> int:
        self.log.append('allocate')
        block = ctypes.create_string_buffer(size)
        self._blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, pointer: int) -> None:
        self.log.append('free')
        del self._blocks[pointer]

    def pinned(self, size: int) -> tuple[int, np.ndarray]:
        pointer = self.allocate(size)
        return pointer, np.frombuffer((ctypes.c_uint8 * size).from_address(pointer), np.uint8)

    free_pinned = free

    def upload(self, device: int, host: int, size: int) -> None:
        self.queue('upload', lambda: ctypes.memmove(device, host, size))

    download = upload

    def copy_rows(self, target: int, pitch: int, source: int, width: int, rows: int) -> None:
        def work() -> None:
            for row in range(rows):
                ctypes.memmove(target + row * pitch, source + row * width, width)
        self.queue('copy', work)

    def capture(self, work: Callable[[], None]) -> list[Callable[[], None]]:
        self._recording = []
        work()
        captured, self._recording = self._recording, None
        return captured

    def launch(self, captured: list[Callable[[], None]]) -> None:
        self.log.append('launch')
        for work in captured:
            work()

    def free_graph(self, captured: list[Callable[[], None]]) -> None:
        self.log.append('free graph')

    def wait(self) -> None:
        pass

    def close(self) -> None:
        assert not self._blocks
        self.log.append('close')


class Context:
    """An execution context over a runtime that computes."""

    def __init__(self, device: HostDevice, runtime: OrtRuntime, spec: GraphSpec) -> None:
        self.device, self.runtime, self.spec = device, runtime, spec
        self.views: dict[str, np.ndarray] = {}

    def set_tensor_address(self, name: str, address: int) -> None:
        item = next(item for item in (*self.spec.inputs, *self.spec.outputs) if item.name == name)
        block = (ctypes.c_uint8 * tensor_bytes(item)).from_address(address)
        self.views[name] = np.frombuffer(block, item.dtype).reshape(item.shape)

    def execute_async_v3(self, stream: int) -> bool:
        def work() -> None:
            found = self.runtime.run(self.spec.name, **{
                item.name: self.views[item.name] for item in self.spec.inputs})
            for name, array in found.items():
                np.copyto(self.views[name], array)
        self.device.queue('execute', work)
        return True


@pytest.fixture(scope='module')
def bundle(tiny_bundle_of_four: Path) -> Bundle:
    return Bundle.open(tiny_bundle_of_four)


@pytest.fixture(scope='module')
def plain(bundle: Bundle):
    runtime = OrtRuntime(bundle.graphs, 1)
    yield runtime
    runtime.close()


@pytest.fixture
def runner(bundle: Bundle, plain: OrtRuntime) -> EngineRunner:
    device = HostDevice()
    return EngineRunner(bundle.graphs, {name: Context(device, plain, spec)
                                        for name, spec in bundle.graphs.items()}, device)


def decode(runtime, bundle: Bundle, seed: int, memory: PromptMemory | None = None):
    random = np.random.default_rng(seed)
    shape = (bundle.camera.height, bundle.camera.width, 3)
    return decode_primitives(
        runtime, bundle, random.integers(0, 256, shape).astype(np.uint8),
        random.integers(0, bundle.text_size, bundle.text_length),
        np.arange(bundle.text_length) < 9, np.array([1.5, 0.4, 0.0]), seed, memory)


def test_buffers_do_not_overlap_but_for_what_is_handed_on(bundle: Bundle) -> None:
    plan = plan_buffers(bundle.graphs)
    sizes = {(name, item.name): tensor_bytes(item) for name, spec in bundle.graphs.items()
             for item in (*spec.inputs, *spec.outputs)}
    assert plan.offsets.keys() == sizes.keys()
    for target, source in ALIASES.items():
        if target in plan.offsets:
            assert plan.offsets[target] == plan.offsets[source]
    assert ('decode', 'cache') in plan.offsets
    own = sorted((offset, sizes[place]) for place, offset in plan.offsets.items()
                 if place not in ALIASES)
    for (start, size), (after, _) in zip(own, [*own[1:], (plan.size, 0)], strict=True):
        assert start % ALIGNMENT == 0 and start + size <= after


def test_an_alias_of_two_shapes_is_refused() -> None:
    def graph(name: str, *, inputs: tuple = (), outputs: tuple = ()) -> GraphSpec:
        return GraphSpec(name, Path(), '', 20, inputs, outputs)

    specs = {'prefill': graph('prefill', outputs=(TensorSpec('cache', 'float32', (2, 3)),)),
             'decode': graph('decode', inputs=(TensorSpec('cache', 'float32', (3, 2)),))}
    with pytest.raises(ValueError, match='cache'):
        plan_buffers(specs)
    assert plan_buffers({'decode': specs['decode']}).size == ALIGNMENT


def test_plans_on_the_device_are_those_of_the_host(runner: EngineRunner, plain: OrtRuntime,
                                                   bundle: Bundle) -> None:
    for seed in (1, 2):
        found, expected = decode(runner, bundle, seed), decode(plain, bundle, seed)
        assert np.array_equal(found.tokens, expected.tokens)
        assert np.array_equal(found.states, expected.states)
        motions = [sample_latents(runtime, bundle, expected.states, expected.mask,
                                  np.ones((2, bundle.channels), np.float32), seed, 3, 1.5)
                   for runtime in (runner, plain)]
        assert np.array_equal(*motions)


def test_steady_state_allocates_nothing_and_launches_captured_graphs(runner: EngineRunner,
                                                                     bundle: Bundle) -> None:
    log = runner._cuda.log
    decode(runner, bundle, 1)
    assert log.count('allocate') == 2
    del log[:]
    decode(runner, bundle, 2)
    assert log == ['launch', 'launch', *['launch', 'copy'] * bundle.windows]


def test_a_flow_stays_on_the_device_between_its_steps(runner: EngineRunner,
                                                      bundle: Bundle) -> None:
    found, log, times = decode(runner, bundle, 1), runner._cuda.log, TimeMemory()

    def sample(seed: int):
        return sample_candidates(runner, bundle, found.states, found.mask,
                                 np.ones((1, bundle.channels), np.float32), seed, 3, 1.5, 4, times)

    # Twice: the first and the last step differ in what they send and give, each is captured once.
    sample(1), sample(2)
    del log[:]
    sample(3)
    # Once a plan: dt, guidance, what is known and its mask. A step is one launch.
    assert log == ['launch', *['upload'] * 4, *['launch'] * 3]
    del log[:]
    runner._captured.clear()
    sample(4)
    # What the graphs hold: noise goes up once, the answer down once, between them copies there.
    steps = log[log.index('execute', log.index('execute') + 1) - 2:]
    assert steps.count('copy') == 2 and steps.count('execute') == 3
    # Up: noise and three times; down: the last answer.
    assert steps.count('upload') == 1 + 3 + 1


def test_only_what_a_loop_feeds_back_is_copied_on_the_device(runner: EngineRunner,
                                                             bundle: Bundle) -> None:
    spec = runner.specs['step']
    inputs = {item.name: np.ones(item.shape, item.dtype) for item in spec.inputs}
    given = {name: array for name, array in inputs.items() if name != 'x'}
    once = runner.run('step', **inputs)['x_next']
    twice = runner.run('step', x=once, **given)['x_next']
    held = runner.run('step', keep=frozenset({'x_next'}), **inputs)['x_next']
    assert isinstance(held, Held)
    np.testing.assert_array_equal(runner.run('step', x=held, **given)['x_next'], twice)
    stray = dataclasses.replace(held, place=held.place + ALIGNMENT)
    with pytest.raises(ValueError, match='held elsewhere'):
        runner.run('step', x=stray, **given)
    # What is held for a graph stays until it is given anew.
    same = runner.hold('step', known=inputs['known'], dt=inputs['dt'])
    assert all(isinstance(item, Held) for item in same.values())
    rest = {name: array for name, array in given.items() if name not in same}
    np.testing.assert_array_equal(runner.run('step', x=once, **rest, **same)['x_next'], twice)
    with pytest.raises(ValueError, match='no input'):
        runner.hold('step', surplus=inputs['dt'])
    with pytest.raises(ValueError, match='must be'):
        runner.hold('step', dt=np.ones(2, np.float32))


def test_what_is_handed_on_never_leaves_the_device(runner: EngineRunner, bundle: Bundle) -> None:
    inputs = {item.name: np.ones(item.shape, item.dtype)
              for item in bundle.graphs['condition'].inputs}
    out = runner.run('condition', keep=frozenset({'context', 'context_mask'}), **inputs)
    assert {name for name, item in out.items() if isinstance(item, Held)} == {
        'context', 'context_mask'}
    assert out['aim'].shape == (1, AIM)
    # Before the graph runs the inputs go there, and after it the one number row comes back.
    log = runner._cuda.log
    done = log.index('execute')
    assert [part.count('upload') for part in (log[:done], log[done:])] == [len(inputs), 1]
    with pytest.raises(ValueError, match='held elsewhere'):
        held = dataclasses.replace(out['context'], place=out['context'].place + ALIGNMENT)
        runner.run('step', **{**{item.name: np.ones(item.shape, item.dtype)
                                 for item in bundle.graphs['step'].inputs}, 'context': held})


def test_candidates_read_what_the_condition_left_on_the_device(
        runner: EngineRunner, plain: OrtRuntime, bundle: Bundle) -> None:
    decoded = decode(plain, bundle, 3)
    known = np.ones((1, bundle.channels), np.float32)
    expected, first, second = (sample_candidates(
        runtime, bundle, decoded.states, decoded.mask, known, 3, 2, 1.5, 5)[0]
        for runtime in (plain, runner, runner))
    assert len(expected) == 5
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(second, expected)
    # Recorded once: condition (states, mask, aim down), time (t, modulation down), and of either
    # way of a step the first (noise, modulation) and the last one (modulation, answer down); in
    # either plan the four inputs that all steps share. Contexts never move.
    assert runner._cuda.log.count('upload') == 3 + 2 + 2 * (2 + 2) + 2 * 2 * 4


def test_a_prompt_that_stands_is_read_once_on_every_runtime(runner: EngineRunner,
                                                            plain: OrtRuntime,
                                                            bundle: Bundle) -> None:
    for runtime in (runner, plain):
        memory = PromptMemory()
        first, again, other, back = (decode(runtime, bundle, seed, memory)
                                     for seed in (1, 1, 2, 1))
        assert (memory.pictures, memory.prompts) == (1, 1)
        assert np.array_equal(first.states, again.states)
        assert not np.array_equal(first.states, other.states)
        assert np.array_equal(first.states, back.states)


def test_a_picture_that_stands_is_seen_once_whatever_is_asked(runner: EngineRunner,
                                                              plain: OrtRuntime,
                                                              bundle: Bundle) -> None:
    random = np.random.default_rng(1)
    picture, other = (random.integers(0, 256, (bundle.camera.height, bundle.camera.width, 3))
                      .astype(np.uint8) for _ in range(2))
    texts = [random.integers(0, bundle.text_size, bundle.text_length) for _ in range(2)]

    def ask(runtime, image: np.ndarray, text: np.ndarray, memory: PromptMemory | None = None):
        return decode_primitives(runtime, bundle, image, text, text < bundle.text_size,
                                 np.array([1.5, 0.4, 0.0]), 0, memory).states

    for runtime in (runner, plain):
        memory = PromptMemory()
        for image, text, known in ((picture, texts[0], (0, 0)), (picture, texts[1], (1, 0)),
                                   (picture, texts[1], (2, 1)), (other, texts[1], (2, 1)),
                                   (picture, texts[1], (2, 1))):
            found = ask(runtime, image, text, memory)
            assert (memory.pictures, memory.prompts) == known
            assert np.array_equal(found, ask(plain, image, text))
    # Another picture seen on this runtime takes the place of the one that was held.
    ask(runner, picture, texts[0], memory := PromptMemory())
    ask(runner, other, texts[0])
    assert np.array_equal(ask(runner, picture, texts[1], memory), ask(plain, picture, texts[1]))
    assert memory.pictures == 0


def test_a_picture_is_seen_again_when_the_camera_is_held_otherwise(runner: EngineRunner,
                                                                   plain: OrtRuntime,
                                                                   bundle: Bundle) -> None:
    assert [item.name for item in bundle.graphs['vision'].inputs] == ['image', 'camera']
    picture = np.random.default_rng(1).integers(
        0, 256, (bundle.camera.height, bundle.camera.width, 3)).astype(np.uint8)
    text = np.zeros(bundle.text_length, np.int64)

    def ask(runtime, pitch: float, memory: PromptMemory | None = None) -> np.ndarray:
        return decode_primitives(runtime, bundle, picture, text, text == 0,
                                 np.array([1.5, pitch, 0.0]), 0, memory).states

    for runtime in (runner, plain):
        memory = PromptMemory()
        for pitch, known in ((0.4, (0, 0)), (0.4, (1, 1)), (0.1, (1, 1)), (0.4, (1, 1))):
            found = ask(runtime, pitch, memory)
            assert (memory.pictures, memory.prompts) == known
            assert np.array_equal(found, ask(plain, pitch))


def test_times_are_told_once_and_again_for_another_number_of_steps(runner: EngineRunner,
                                                                   bundle: Bundle) -> None:
    rows, width = bundle.graphs['condition'].inputs[0].shape[1:]
    states, memory = np.ones((rows, width), np.float32), TimeMemory()

    def sample(steps: int, memory: TimeMemory | None) -> np.ndarray:
        return sample_latents(runner, bundle, states, np.ones(rows, bool),
                              np.zeros((0, bundle.channels), np.float32), 1, steps, 1.5, memory)

    asked = []
    for steps in (3, 3, 2, 3):
        before = runner.overwritten['time']
        assert np.array_equal(sample(steps, memory), sample(steps, None))
        asked.append(runner.overwritten['time'] - before - steps)
    assert asked == [3, 0, 2, 3]


def test_a_prompt_whose_cache_was_written_over_is_read_again(runner: EngineRunner,
                                                             bundle: Bundle) -> None:
    memory = PromptMemory()
    first = decode(runner, bundle, 1, memory)
    runner.run('decode', **{item.name: np.ones(item.shape, item.dtype)
                            for item in bundle.graphs['decode'].inputs})
    assert np.array_equal(decode(runner, bundle, 1, memory).states, first.states)
    assert (memory.pictures, memory.prompts) == (1, 0)
    decode(runner, bundle, 2)
    assert np.array_equal(decode(runner, bundle, 1, memory).states, first.states)
    assert (memory.pictures, memory.prompts) == (1, 0)


def test_graphs_are_freed_before_memory_and_the_stream_last(runner: EngineRunner,
                                                            bundle: Bundle) -> None:
    decode(runner, bundle, 1)
    del runner._cuda.log[:]
    runner.close()
    assert runner._cuda.log == ['free graph'] * 3 + ['free'] * 2 + ['close']
    with pytest.raises(RuntimeError, match='closed'):
        decode(runner, bundle, 1)


def test_a_device_that_failed_is_let_go_of_completely(bundle: Bundle, plain: OrtRuntime,
                                                      caplog) -> None:
    class Failing(HostDevice):
        broken = False

        def wait(self) -> None:
            if self.broken:
                raise RuntimeError('illegal address')

        def free(self, pointer: int) -> None:
            super().free(pointer)
            self.wait()

        def free_pinned(self, pointer: int) -> None:
            self.free(pointer)

        def free_graph(self, captured: list[Callable[[], None]]) -> None:
            super().free_graph(captured)
            self.wait()

    device = Failing()
    runner = EngineRunner(bundle.graphs, {name: Context(device, plain, spec)
                                          for name, spec in bundle.graphs.items()}, device)
    decode(runner, bundle, 1)
    device.broken = True
    with pytest.raises(RuntimeError, match='illegal address'):
        decode(runner, bundle, 2)
    del device.log[:]
    runner.close()
    assert device.log == ['free graph'] * 3 + ['free'] * 2 + ['close']
    assert 'illegal address' in caplog.text


def test_memory_is_zeroed_on_the_stream_that_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Api(ModuleType):
        def __getattr__(self, name: str) -> Any:
            answer = {'cudaDeviceGetStreamPriorityRange': (0, 0, -5),
                      'cudaStreamCreateWithPriority': (0, 7), 'cudaMalloc': (0, 4096)}

            def call(*values: int) -> tuple[int, ...]:
                calls.append((name, *values))
                return (1,) if name in failing else answer.get(name, (0,))

            return call if name != 'cudaStreamNonBlocking' else 1

    failing: set[str] = set()
    monkeypatch.setitem(sys.modules, 'cuda.bindings.runtime', Api('runtime'))
    cuda = Cuda()
    del calls[:]
    assert cuda.allocate(64) == 4096
    assert calls == [('cudaMalloc', 64), ('cudaMemsetAsync', 4096, 0, 64, 7)]
    failing.add('cudaMemsetAsync')
    with pytest.raises(RuntimeError, match='CUDA'):
        cuda.allocate(64)
    assert calls[-1] == ('cudaFree', 4096)


def test_a_device_without_room_gives_back_what_it_gave(bundle: Bundle) -> None:
    class Full(HostDevice):
        def pinned(self, size: int) -> tuple[int, np.ndarray]:
            raise RuntimeError('out of memory')

    device = Full()
    with pytest.raises(RuntimeError, match='out of memory'):
        EngineRunner(bundle.graphs, {}, device)
    assert device.log == ['allocate', 'free', 'close']
