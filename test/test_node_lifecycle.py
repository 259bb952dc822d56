# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Lifecycle of egomotion_node: states after success and failure, parameters, what is freed."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref

from node_harness import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, GatedPipeline, Harness
import pytest
from rclpy.parameter import Parameter

from egomotion_ros.msg import Status
from egomotion_ros.nodes.errors import ErrorCode
from egomotion_ros.pipeline import EgoMotionPipeline


@pytest.fixture(scope='module')
def pipeline(tiny_bundle):
    pipeline = EgoMotionPipeline.load(tiny_bundle, threads=1)
    yield pipeline
    pipeline.close()


def test_the_whole_round_twice(pipeline):
    with Harness(pipeline) as harness:
        for _ in range(2):
            assert harness.state() == 'active'
            assert harness.run('wave', execute=False)[1].error_code == ErrorCode.NONE
            assert harness.transition(DEACTIVATE) and harness.state() == 'inactive'
            assert harness.transition(CLEANUP) and harness.state() == 'unconfigured'
            assert harness.pipeline.closed
            assert harness.transition(CONFIGURE) and harness.transition(ACTIVATE)


def test_activation_starts_with_no_instruction(pipeline):
    with Harness(pipeline) as harness:
        harness.say('walk forward')
        harness.wait(lambda: harness.heard.motions, what='motion')
        assert harness.transition(DEACTIVATE) and harness.transition(ACTIVATE)
        harness.wait(lambda: harness.heard.messages[-1].state == Status.IDLE, what='idle')
        assert harness.heard.messages[-1].instruction == ''
        count = len(harness.heard.motions)
        harness.run('wave', execute=False)
        assert len(harness.heard.motions) == count


def test_nothing_is_published_unless_active(pipeline):
    with Harness(pipeline) as harness:
        assert harness.transition(DEACTIVATE)
        count = len(harness.heard.messages)
        harness.node.controller._is_active = True  # past the gate on purpose
        harness.node.controller.instruct('walk forward')
        harness.wait(
            lambda: harness.pipeline.reached['retarget'].is_set(), what='a plan made in vain'
        )
        harness.node.controller.halt(ErrorCode.STOPPED, 'test')
        assert harness.transition(ACTIVATE)
        harness.wait(lambda: len(harness.heard.messages) > count, what='the status')
        # The first thing heard after the silence is the idle status of the activation.
        assert harness.heard.messages[count].state == Status.IDLE
        assert not harness.heard.motions


def test_transitions_that_the_state_does_not_allow_answer_false(pipeline):
    with Harness(None) as harness:
        assert not harness.transition(ACTIVATE)
        assert harness.state() == 'unconfigured'
    with Harness(pipeline) as harness:
        assert not harness.transition(CONFIGURE)
        assert harness.state() == 'active'
        assert harness.run('wave', execute=False)[1].error_code == ErrorCode.NONE


@pytest.mark.parametrize('damage', ['missing', 'truncated', 'foreign', 'manifest'])
def test_a_corrupt_bundle_leaves_the_node_unconfigured_and_a_good_one_works_then(
    tiny_bundle, tmp_path, damage
):
    bad = tmp_path / 'bundle'
    if damage != 'missing':
        shutil.copytree(tiny_bundle, bad)
    if damage == 'truncated':
        weights = bad / 'weights.safetensors'
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == 'foreign':
        shutil.copy(bad / 'step.onnx', bad / 'decode.onnx')
    elif damage == 'manifest':
        (bad / 'manifest.json').write_text('{"format": 99}')
    with Harness(None, load=EgoMotionPipeline.load, bundle=str(bad)) as harness:
        assert not harness.transition(CONFIGURE)
        assert harness.state() == 'unconfigured'
        harness.set(bundle=str(tiny_bundle))
        assert harness.transition(CONFIGURE)
        assert harness.state() == 'inactive'


@pytest.mark.parametrize(
    'values',
    [
        {'robot': 'unknown_robot'},
        {'backend': 'abacus'},
        {'joint_map': ['knee']},
        {'backend': 'tensorrt'},
    ],
)
def test_bad_settings_are_found_in_configure(tiny_bundle, values):
    values = {'bundle': str(tiny_bundle), **values}
    with Harness(None, load=EgoMotionPipeline.load, **values) as harness:
        assert not harness.transition(CONFIGURE)
        assert harness.state() == 'unconfigured'


def test_an_unexpected_exception_in_configure_lands_in_unconfigured(pipeline):
    attempts = []

    def load(**_):
        attempts.append(1)
        if len(attempts) == 1:
            raise KeyError('surprise')
        return GatedPipeline(pipeline)

    with Harness(None, load=load) as harness:
        assert not harness.transition(CONFIGURE)
        assert harness.state() == 'unconfigured'
        assert harness.transition(CONFIGURE)


def test_an_exception_while_activating_lands_in_the_right_state(pipeline, monkeypatch):
    with Harness(pipeline) as harness:
        assert harness.transition(DEACTIVATE)
        original = harness.node.controller.start
        harness.node.controller.start = lambda: 1 / 0
        assert not harness.transition(ACTIVATE)
        assert harness.state() == 'unconfigured'
        assert harness.pipeline.closed
        del original
        assert harness.transition(CONFIGURE) and harness.transition(ACTIVATE)
        assert harness.run('wave', execute=False)[1].error_code == ErrorCode.NONE


def test_parameters_are_checked_and_frozen_while_configured(pipeline):
    with Harness(pipeline) as harness:
        for name, value in {
            'camera.rotate': 45,
            'replan_period': -1.0,
            'camera.position': [0.0, float('nan'), 0.0],
            'camera.rpy': [0.0],
            'threads': 4,  # fine, but not now
            'qos.image': 'sensor_reliable',
        }.items():
            answer = harness.node.set_parameters([Parameter(name, value=value)])[0]
            assert not answer.successful, name
            assert name in answer.reason
        harness.set(replan_period=1.5)
        assert harness.node.parameters['replan_period'] == 1.5
        assert harness.transition(DEACTIVATE) and harness.transition(CLEANUP)
        harness.set(threads=4, **{'qos.image': 'sensor_reliable'})


def test_cleanup_waits_for_the_model_and_frees_it(pipeline):
    with Harness(pipeline) as harness:
        harness.pipeline.shut('generate')
        goal = harness.send('wave')
        assert harness.pipeline.reached['generate'].wait(10.0)
        # Deactivation does not wait for the model ...
        assert harness.transition(DEACTIVATE, timeout=5.0)
        assert harness.result(goal)[1].error_code == ErrorCode.DEACTIVATED
        assert not harness.pipeline.closed
        # ... cleanup does.
        harness.pipeline.open_all()
        assert harness.transition(CLEANUP)
        assert harness.pipeline.closed


def test_a_goal_during_shutdown_is_rejected(pipeline):
    with Harness(pipeline) as harness:
        harness.pipeline.shut('generate')
        goal = harness.send('wave')
        assert harness.pipeline.reached['generate'].wait(10.0)
        ending = threading.Thread(target=harness.node.trigger_shutdown)
        ending.start()
        assert harness.result(goal)[1].error_code == ErrorCode.DEACTIVATED
        # The model still holds the shutdown up.
        assert ending.is_alive() and not harness.send('wave').accepted
        harness.pipeline.open_all()
        ending.join(20.0)
        assert harness.state() == 'finalized'
        assert harness.pipeline.closed


def test_cleanup_lets_go_of_the_models(pipeline):
    made = []

    def load(**_):
        gated = GatedPipeline(pipeline)
        made.append(weakref.ref(gated))
        return gated

    with Harness(None, load=load) as harness:
        assert harness.transition(CONFIGURE) and harness.transition(ACTIVATE)
        assert harness.transition(DEACTIVATE) and harness.transition(CLEANUP)
        gc.collect()
        assert made[0]() is None
