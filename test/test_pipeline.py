# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The pipeline from observation to robot motion: frames, scale, prefix, seeds, bad input."""

from dataclasses import replace
from pathlib import Path
import shutil

from fixtures_bundle import standing
import numpy as np
import pytest

from egomotion_ros.body.edits import ground_pose, place, slice_frames
from egomotion_ros.body.features import motion_to_features
from egomotion_ros.bundle import MANIFEST
from egomotion_ros.pipeline import EgoMotionPipeline, check_plausible
from egomotion_ros.text import InstructionTooLongError
from egomotion_ros.types import CameraPose, HumanMotion, Observation, PlanarPose


@pytest.fixture(scope='module')
def pipeline(tiny_bundle: Path):
    pipeline = EgoMotionPipeline.load(tiny_bundle, 'unitree_g1', threads=1)
    yield pipeline
    pipeline.close()


@pytest.fixture
def observation() -> Observation:
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    return Observation(image, 'walk to the red ball', 123, CameraPose(1.2, 0.4, 0.1),
                       PlanarPose(2.0, -1.0, 0.8))


def test_a_plan_has_all_parts_and_says_where_time_went(pipeline, observation) -> None:
    plan = pipeline.plan(observation, seed=4, plan_id='a')
    tokens = plan.primitives.tokens
    assert tokens.shape == (19, 2) and tokens.dtype == np.int64 and (tokens < 32).all()
    assert ((plan.primitives.confidence > 0) & (plan.primitives.confidence <= 1)).all()
    assert (plan.primitives.plan_id, plan.primitives.seed, plan.primitives.stamp) == ('a', 4, 123)
    assert plan.primitives.bundle_hash == pipeline.bundle.hash
    assert plan.human.frames == 150 and plan.human.frame_id == 'odom'
    assert plan.robot.joint_names == pipeline.joint_names
    assert np.isfinite(plan.robot.positions).all()
    assert set(plan.milliseconds) == {'reason', 'generate', 'retarget'}
    assert all(value > 0 for value in plan.milliseconds.values())


def test_same_seed_same_motion(pipeline, observation) -> None:
    one, two, other = (pipeline.plan(observation, seed=n) for n in (4, 4, 5))
    assert np.array_equal(one.human.root_position, two.human.root_position)
    assert np.array_equal(one.robot.positions, two.robot.positions)
    assert not np.array_equal(one.human.root_position, other.human.root_position)


def test_motion_starts_at_the_observed_pose_at_the_robots_scale(pipeline, observation) -> None:
    primitives = pipeline.reason(observation, 'a', 0)
    here = pipeline.generate(primitives)
    # Row 0 stands on the start pose; the pelvis tilt of random weights leaves the heading free.
    assert np.allclose(here.root_position[0, :2], [2.0, -1.0])
    assert here.scale == pipeline.scale < 1
    origin = pipeline.generate(replace(primitives, root=PlanarPose()))
    moved = place(origin, PlanarPose(2.0, -1.0, 0.8))
    assert np.allclose(moved.root_position, here.root_position)
    assert np.allclose(moved.rotations, here.rotations)
    # Features are in human units: scale only shows in the root path.
    assert np.allclose(motion_to_features(here)[:, :4], motion_to_features(origin)[:, :4])
    assert here.root_position[:, 2].max() < 1.3 * pipeline.scale


def test_the_models_see_the_camera_height_in_human_units(pipeline, observation,
                                                         tiny_bundle: Path) -> None:
    other = EgoMotionPipeline.load(tiny_bundle, 'unitree_g1', threads=1)
    other.scale = 1.0
    tall = replace(observation, camera=CameraPose(1.2 / pipeline.scale, 0.4, 0.1))
    assert np.array_equal(pipeline.reason(observation, 'a', 0).states,
                          other.reason(tall, 'a', 0).states)
    assert not np.array_equal(pipeline.reason(observation, 'a', 0).states,
                              pipeline.reason(tall, 'a', 0).states)
    other.close()


def test_a_new_plan_meets_the_last_whole_window_of_its_prefix(pipeline, observation) -> None:
    primitives = pipeline.reason(observation, 'a', 0)
    prefix = slice_frames(pipeline.generate(primitives, seed=1), 0, 29)
    prefix = place(prefix, PlanarPose(0.3, 0.2, 0.4))
    motion = pipeline.generate(primitives, prefix, seed=2)
    there, here = ground_pose(prefix, 23), ground_pose(motion, 23)
    assert here.x == pytest.approx(there.x) and here.y == pytest.approx(there.y)
    assert here.yaw == pytest.approx(there.yaw)
    assert motion.frames == 150


def test_a_prefix_shapes_the_motion_by_whole_windows(pipeline, observation) -> None:
    primitives = pipeline.reason(observation, 'a', 0)
    first = pipeline.generate(primitives, seed=1)

    def local(motion: HumanMotion) -> np.ndarray:
        return motion_to_features(motion)[1:]

    none = local(pipeline.generate(primitives, None, seed=2))
    short = local(pipeline.generate(primitives, slice_frames(first, 0, 7), seed=2))
    eight, fifteen = (local(pipeline.generate(primitives, slice_frames(first, 0, n), seed=2))
                      for n in (8, 15))
    assert np.allclose(none, short)
    assert np.allclose(eight, fifteen)
    assert not np.allclose(none, eight, atol=1e-4)
    # All of it executed: one window is left to generate.
    assert pipeline.generate(primitives, first, seed=2).frames == 150


def test_swapping_the_primitives_states_changes_the_motion(pipeline, observation) -> None:
    primitives = pipeline.reason(observation, 'a', 0)
    other = pipeline.reason(replace(observation, instruction='wave'), 'a', 0)
    assert not np.allclose(pipeline.generate(primitives, seed=1).root_position,
                           pipeline.generate(other, seed=1).root_position, atol=1e-6)


def test_steps_and_guidance_are_chosen_at_run_time(pipeline, observation) -> None:
    primitives = pipeline.reason(observation, 'a', 0)
    plain = pipeline.generate(primitives).root_position
    assert np.array_equal(plain, pipeline.generate(primitives, steps=2).root_position)
    assert not np.array_equal(plain, pipeline.generate(primitives, steps=7).root_position)
    assert not np.array_equal(plain, pipeline.generate(primitives, guidance=4.0).root_position)
    for bad in ({'steps': 0}, {'steps': 101}, {'guidance': -1.0}, {'guidance': float('nan')},
                {'guidance': 50.0}, {'seed': -1}, {'seed': 2 ** 64}):
        with pytest.raises(ValueError, match='must be between'):
            pipeline.generate(primitives, **bad)


@pytest.mark.parametrize('image', [
    np.zeros((0, 0, 3), np.uint8), np.zeros((128, 128), np.uint8),
    np.zeros((4320, 7680, 3), np.uint8), np.zeros((128, 128, 4), np.uint8),
    np.zeros((128, 128, 3), np.float32), None])
def test_refuses_an_image_that_is_not_the_bundles(pipeline, observation, image) -> None:
    with pytest.raises(ValueError, match='the image must be uint8'):
        pipeline.reason(replace(observation, image=image), 'a', 0)


@pytest.mark.parametrize('camera', [
    CameraPose(float('nan'), 0.4), CameraPose(1.2, float('inf')), CameraPose(0.0, 0.4),
    CameraPose(-1.2, 0.4), CameraPose(50.0, 0.4), CameraPose(1.2, 3.0), CameraPose(1.2, 0.4, 2.0)])
def test_refuses_an_implausible_camera(pipeline, observation, camera: CameraPose) -> None:
    with pytest.raises(ValueError, match='camera pose'):
        pipeline.reason(replace(observation, camera=camera), 'a', 0)


def test_refuses_empty_and_endless_instructions(pipeline, observation) -> None:
    with pytest.raises(ValueError, match='empty'):
        pipeline.reason(replace(observation, instruction=' '), 'a', 0)
    with pytest.raises(InstructionTooLongError):
        pipeline.reason(replace(observation, instruction='walk ' * 2000), 'a', 0)


def test_prompt_like_text_is_only_text(pipeline, observation) -> None:
    text = '<pad> </s> [INST]'
    plan = pipeline.reason(replace(observation, instruction=text), 'a', 0)
    assert plan.instruction == text
    assert plan.tokens.shape == (19, 2)


def test_refuses_primitives_of_another_bundle_or_shape(pipeline, observation) -> None:
    good = pipeline.reason(observation, 'a', 0)
    broken = good.states.copy()
    broken[3, 3] = np.nan
    for change, words in ((({'bundle_hash': '0' * 64}), 'come from bundle 000000000000'),
                          ({'states': good.states[:-1]}, 'states must be'),
                          ({'states_mask': good.states_mask.astype(float)}, 'bool mask'),
                          ({'states': broken}, 'not finite')):
        with pytest.raises(ValueError, match=words):
            pipeline.generate(replace(good, **change))


def test_refuses_a_prefix_that_does_not_fit(pipeline, observation) -> None:
    primitives = pipeline.reason(observation, 'a', 0)
    good = slice_frames(pipeline.generate(primitives), 0, 20)
    holes = good.root_position.copy()
    holes[4] = np.nan
    for bad in (replace(good, scale=1.0), replace(good, fps=60),
                replace(good, root_position=holes), replace(good, contacts=good.contacts[:, :2]),
                HumanMotion(np.zeros((0, 3)), np.zeros((0, 22, 3, 3)), np.zeros((0, 4)))):
        with pytest.raises(ValueError, match='prefix|motion'):
            pipeline.generate(primitives, bad)


@pytest.mark.parametrize(('column', 'value', 'words'), [
    (3, 5.0, 'pelvis between'), (3, -0.5, 'pelvis between'), (1, 20.0, 'moves at 20'),
    (0, 40.0, 'turns at 40'), (7, np.nan, 'not finite'), (100, np.inf, 'not finite')])
def test_an_implausible_motion_is_refused(column: int, value: float, words: str) -> None:
    features = motion_to_features(standing(150))
    check_plausible(features, 30)
    features[70, column] = value
    with pytest.raises(ValueError, match=words):
        check_plausible(features, 30)


def test_a_pelvis_that_jumps_is_refused() -> None:
    features = motion_to_features(standing(150))
    features[75:, 3] -= 0.5
    with pytest.raises(ValueError, match='moves at 15'):
        check_plausible(features, 30)


def test_a_text_tokenizer_of_another_model_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(tiny_bundle, tmp_path / 'bundle'))
    text = (copied / MANIFEST).read_text()
    size = EgoMotionPipeline.load(tiny_bundle, threads=1).bundle.text_size
    (copied / MANIFEST).write_text(text.replace(f'"size": {size}', '"size": 299'))
    with pytest.raises(ValueError, match=f'{size} tokens, the manifest says 299'):
        EgoMotionPipeline.load(copied, threads=1)


def test_a_closed_pipeline_only_raises(tiny_bundle: Path, observation) -> None:
    pipeline = EgoMotionPipeline.load(tiny_bundle, threads=1)
    pipeline.warm_up()
    pipeline.close()
    with pytest.raises(RuntimeError, match='closed'):
        pipeline.reason(observation, 'a', 0)


def test_bad_robot_and_backend_names_are_value_errors(tiny_bundle: Path) -> None:
    with pytest.raises(ValueError):
        EgoMotionPipeline.load(tiny_bundle, 'no_such_robot')
    with pytest.raises(ValueError, match="backend 'cuda'"):
        EgoMotionPipeline.load(tiny_bundle, backend='cuda')
