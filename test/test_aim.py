# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Of several candidates the one is taken that ends where the reasoner's states point."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from fixtures_bundle import standing, tiny_models
import numpy as np
import pytest

from egomotion_ros.aim import LEVER, SWEEP, Aim, ended
from egomotion_ros.body.features import features_to_motion
from egomotion_ros.body.hands import hand_points
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import yaw_matrix
from egomotion_ros.bundle import MAX_CANDIDATES, Bundle
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.runtimes.loops import batches, sample_candidates
from egomotion_ros.types import CameraPose, Observation, PlanarPose

NOWHERE = np.full((2, 3), np.nan)


@pytest.fixture(scope='module')
def pipeline(tiny_bundle: Path) -> EgoMotionPipeline:
    return EgoMotionPipeline.load(tiny_bundle)


@pytest.fixture(scope='module')
def primitives(pipeline):
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    seen = Observation(image, 'walk to the red ball', 0, CameraPose(1.2, 0.4))
    return pipeline.reason(replace(seen, root=PlanarPose(1.0, 2.0, 0.3)), 'a', 0)


def moved(x: float, y: float, yaw: float):
    """Two frames of a standing body whose pelvis ends at ``x``, ``y``, ``yaw``."""
    motion = standing(2)
    motion.rotations[1, 0] = yaw_matrix(np.asarray(yaw)) @ motion.rotations[1, 0]
    motion.root_position[1, :2] = x, y
    return motion


def test_numbers_are_read_as_pose_and_hands():
    aim = Aim.read(np.array([1.0, -2.0, 1.0, 0.0, 1, 2, 3, 4, 5, 6, -0.1, 0.1]))
    np.testing.assert_allclose(aim.pelvis, [1.0, -2.0, np.pi / 2])
    np.testing.assert_array_equal(aim.hands, [[np.nan] * 3, [4, 5, 6]])


@pytest.mark.parametrize('told', [np.zeros(11), np.full(12, np.nan), np.zeros((1, 12))])
def test_other_numbers_are_no_aim(told):
    with pytest.raises(ValueError, match='12 finite numbers'):
        Aim.read(told)


def test_a_miss_is_metres_and_half_a_metre_a_radian():
    aim = Aim(np.array([1.0, 0.0, np.pi - 0.1]), NOWHERE)
    assert aim.miss(moved(1.0, 0.0, np.pi - 0.1)) == pytest.approx(0.0, abs=1e-9)
    assert aim.miss(moved(1.3, 0.4, np.pi - 0.1)) == pytest.approx(0.5)
    # The short way round.
    assert aim.miss(moved(1.0, 0.0, -np.pi + 0.1)) == pytest.approx(0.2 * LEVER)


def test_hands_that_reach_count_alone_and_the_farther_of_them():
    motion = moved(0.2, 0.1, 0.5)
    hands = hand_points(forward_kinematics(motion.root_position, motion.rotations))[-1]
    far = np.array([9.0, 9.0, 0.0])
    for asked, gap in (((0.1, np.nan), 0.1), ((np.nan, 0.3), 0.3), ((0.1, 0.3), 0.3)):
        aimed = hands + np.array(asked)[:, None] * [0.0, 0.0, 1.0]
        aimed[np.isnan(asked)] = np.nan
        assert Aim(far, aimed).miss(motion) == pytest.approx(gap)


@pytest.mark.parametrize(('aim', 'ends', 'taken'), [
    # Of motions that go somewhere the nearest counts.
    ((2.0, 0.0, 0.0), [(1.0, 0.0, 0.0), (1.9, 0.1, 0.1), (2.5, 0.0, 0.0)], 1),
    # One that looks for what the others go to is taken, wherever it stands among them,
    ((2.0, 0.0, 0.0), [(2.0, 0.0, 0.0), (1.9, 0.1, 0.1), (0.1, 0.1, SWEEP - 0.3)], 2),
    ((0.0, 0.0, -0.7), [(0.0, 0.0, -0.7), (0.0, 0.0, SWEEP), (0.0, 0.0, -0.6)], 1),
    # but neither a turn to the other side nor a walk that ends turned,
    ((2.0, 0.0, 0.0), [(2.0, 0.0, 0.0), (0.0, 0.0, -SWEEP), (1.0, 1.0, SWEEP)], 0),
    # and nothing changes for what is to turn there.
    ((0.0, 0.0, 1.1), [(0.0, 0.0, SWEEP), (0.0, 0.0, 1.1)], 1)])
def test_a_motion_that_searches_is_taken_where_others_go(aim, ends, taken):
    assert Aim(np.array(aim), NOWHERE).choose([moved(*end) for end in ends]) == taken
    assert ended(moved(0.0, 0.1, SWEEP)).searches()
    with pytest.raises(ValueError, match='no motion'):
        Aim(np.array(aim), NOWHERE).choose([])


def test_the_candidate_nearest_to_the_aim_is_taken(pipeline, primitives):
    bundle = pipeline.bundle
    drawn, told = sample_candidates(
        pipeline._runtime, bundle, primitives.states, primitives.states_mask,
        np.zeros((0, bundle.channels), np.float32), 3, bundle.steps, bundle.guidance, 6)
    ends, misses = [], []
    for latents in drawn:
        features = pipeline._runtime.run('decode_motion', latents=latents[None])['features'][0]
        motion = features_to_motion(features[:bundle.frames])
        misses.append(Aim.read(told).miss(motion))
        ends.append(motion.root_position[-1])
    assert len(np.unique(misses)) == 6
    taken = pipeline.generate(replace(primitives, root=PlanarPose()), seed=3, candidates=6)
    best = ends[int(np.argmin(misses))]
    np.testing.assert_allclose(taken.root_position[-1], best * pipeline.scale, atol=1e-6)
    first = pipeline.generate(replace(primitives, root=PlanarPose()), seed=3, candidates=1)
    np.testing.assert_allclose(first.root_position[-1], ends[0] * pipeline.scale, atol=1e-6)


@pytest.mark.parametrize(('candidates', 'batch', 'sizes'), [
    (1, 1, [1]), (3, 1, [1, 1, 1]), (1, 4, [1]), (2, 4, [1, 1]), (3, 4, [4]), (4, 4, [4]),
    (6, 4, [4, 1, 1]), (7, 4, [4, 4])])
def test_what_is_left_over_is_drawn_as_costs_less(candidates, batch, sizes):
    assert batches(candidates, batch) == sizes


@pytest.mark.parametrize('candidates', [1, 3, 4, 6])
@pytest.mark.parametrize('known', [0, 2])
@pytest.mark.parametrize('kind', [
    'ort.OrtRuntime', 'openvino.OpenVinoRuntime', 'torch_graphs.BundleTorchRuntime'])
def test_candidates_drawn_at_once_are_those_drawn_one_by_one(
        tiny_bundle_of_four, monkeypatch, kind, candidates, known):
    bundle = Bundle.open(tiny_bundle_of_four)
    assert bundle.candidates == bundle.batch == 4
    module, name = kind.split('.')
    if module == 'openvino':
        pytest.importorskip('openvino')
    runtime = getattr(import_module(f'egomotion_ros.runtimes.{module}'), name)(bundle.graphs, 1)
    random = np.random.default_rng(1)
    states, mask = (random.standard_normal(item.shape[1:]).astype(np.float32)
                    if item.dtype == 'float32' else random.random(item.shape[1:]) < 0.7
                    for item in bundle.graphs['condition'].inputs)
    prefix = random.standard_normal((known, bundle.channels)).astype(np.float32)
    runs, run = [], runtime.run

    def counting(graph, **arrays):
        runs.append(graph)
        return run(graph, **arrays)

    monkeypatch.setattr(runtime, 'run', counting)

    def draw():
        runs.clear()
        return sample_candidates(runtime, bundle, states, mask, prefix, 3, 2, 1.5, candidates)[0]

    together = draw()
    sizes = batches(candidates, 4)
    assert runs.count('step_batch') == 2 * sizes.count(4)
    assert runs.count('step') == 2 * sizes.count(1)
    monkeypatch.setattr(runtime, 'specs', {name: spec for name, spec in runtime.specs.items()
                                           if name != 'step_batch'})
    one_by_one = draw()
    assert runs.count('step') == 2 * candidates
    assert len(together) == len(one_by_one) == candidates
    np.testing.assert_allclose(together, one_by_one, atol=2e-6)
    np.testing.assert_array_equal(np.array(together)[:, :known], np.broadcast_to(
        prefix, (candidates, *prefix.shape)))
    runtime.close()


def test_candidates_that_are_not_plausible_are_passed_over(pipeline, primitives, monkeypatch):
    from egomotion_ros import pipeline as module
    seen = []

    def only_the_second(features: np.ndarray, fps: float) -> None:
        seen.append(features)
        if len(seen) != 2:
            raise ValueError('not plausible')

    monkeypatch.setattr(module, 'check_plausible', only_the_second)
    motion = pipeline.generate(primitives, candidates=3)
    assert len(seen) == 3
    second = features_to_motion(seen[1], primitives.root, 'odom', motion.fps, motion.scale)
    np.testing.assert_array_equal(motion.root_position, second.root_position)
    with pytest.raises(ValueError, match='not plausible'):
        pipeline.generate(primitives, candidates=2)


@pytest.mark.parametrize('count', [0, -1, MAX_CANDIDATES + 1])
def test_counts_out_of_range_are_refused(pipeline, primitives, count):
    with pytest.raises(ValueError, match='candidates must be between 1'):
        pipeline.generate(primitives, candidates=count)


def test_a_whole_plan_draws_as_many_as_are_asked_for(pipeline):
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    seen = Observation(image, 'walk to the red ball', 0, CameraPose(1.2, 0.4))
    plan = pipeline.plan(seen, seed=3, plan_id='b', candidates=6)
    alike = pipeline.generate(plan.primitives, seed=3, candidates=6)
    np.testing.assert_array_equal(plan.human.root_position, alike.root_position)
    with pytest.raises(ValueError, match='candidates must be between 1'):
        pipeline.plan(seen, candidates=MAX_CANDIDATES + 1)


def test_the_graph_says_what_the_model_says(pipeline, primitives):
    import torch
    _, told = sample_candidates(
        pipeline._runtime, pipeline.bundle, primitives.states, primitives.states_mask,
        np.zeros((0, pipeline.bundle.channels), np.float32), 0, 1, 1.0, 1)
    with torch.no_grad():
        expected = tiny_models().generator.aim(torch.from_numpy(primitives.states[None]))[0]
    np.testing.assert_allclose(told, expected.numpy(), atol=1e-5)


def test_a_generator_without_aim_has_a_graph_without(tiny_bundle):
    from egomotion_ros.models.generator import MotionGenerator
    from egomotion_ros.runtimes.export_graphs import Condition
    generator = tiny_models().generator
    plain = MotionGenerator(replace(generator.config, aims=False))
    assert Condition(plain, 9).outputs == ('context', 'context_mask')
    assert Condition(generator, 9).outputs == ('context', 'context_mask', 'aim')
    assert Bundle.open(tiny_bundle).aims


def test_poses_are_read_as_the_reasoner_reads_them():
    import torch

    from egomotion_ros.models.generator import AimHead, GeneratorConfig
    from egomotion_ros.models.grounding import GroundingHeads
    torch.manual_seed(0)
    config = GeneratorConfig(state_width=32, windows=3, aims=True)
    states, features = torch.randn(5, 9, 32), torch.randn(5, 4, 32)
    for with_hands in (True, False):
        heads, aim = GroundingHeads(32, 3, 3, with_hands), AimHead(config)
        aim.adopt(heads)
        told, read = aim(states), heads(features, states, prompt=6)
        torch.testing.assert_close(told[:, :4], read.goal)
        torch.testing.assert_close(told[:, 4:10], read.hands.flatten(1) if with_hands else
                                   torch.zeros(5, 6))
        again = GroundingHeads(32, 3, 3, with_hands)
        aim.give(again)
        back = again(features, states, prompt=6)
        torch.testing.assert_close(back.goal, read.goal)
        if with_hands:
            torch.testing.assert_close(back.hands, read.hands)
        assert [name for name, part in aim.named_parameters() if part.requires_grad] == [
            'asks.weight', 'asks.bias']
    others = states.clone()
    others[:, :5], others[:, 6:] = 0.0, 0.0
    torch.testing.assert_close(aim(others), told)


def test_what_is_learned_is_which_hands_reach():
    import torch

    from egomotion_ros.training.generator import aim_loss
    hands = torch.full((2, 2, 3), float('nan'))
    hands[0, 1] = torch.tensor([1.0, 0.0, 1.0])
    told = torch.zeros(2, 12)
    told[:, 7:10] = torch.tensor([1.0, 0.3, 1.4])
    told[:, 10:] = torch.tensor([[-2.0, 2.0], [-2.0, -2.0]])
    loss, figures = aim_loss(told, hands)
    assert loss.item() == pytest.approx(np.log1p(np.exp(-2.0)))
    assert figures['aim_hands'] == pytest.approx(0.5)
    loss, figures = aim_loss(told, torch.full((2, 2, 3), float('nan')))
    assert loss.item() == pytest.approx(np.log1p(np.exp(-2.0)) + 0.5) and not figures
