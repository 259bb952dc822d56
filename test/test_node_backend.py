# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node says which backend it runs on and why, and is warm before it is inactive."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray
from node_harness import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, GatedPipeline, Harness
import pytest

from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.runtimes import gpu, proof
from egomotion_ros.runtimes.base import AbsentError


@pytest.fixture(scope='module')
def pipeline(tiny_bundle):
    pipeline = EgoMotionPipeline.load(tiny_bundle, threads=1)
    yield pipeline
    pipeline.close()


def backend_said(harness: Harness) -> str:
    """What the diagnostics of an active node say of its backend."""
    heard: list[DiagnosticArray] = []
    harness.world.create_subscription(DiagnosticArray, 'diagnostics', heard.append, 10)
    harness.wait(lambda: heard, what='diagnostics')
    return next(item.value for item in heard[0].status[0].values if item.key == 'backend')


def test_why_the_models_run_on_the_cpu_stands_in_the_diagnostics(tiny_bundle, tmp_path,
                                                                 monkeypatch):
    def no_gpu():
        raise AbsentError('the shop had none')

    def no_openvino(*_):
        raise RuntimeError('a kernel is missing')

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(gpu, 'probe_gpu', no_gpu)
    monkeypatch.setattr(proof, 'open_unproven', no_openvino)
    monkeypatch.setattr(proof, 'backend_version', lambda backend: '1')
    with Harness(None, load=EgoMotionPipeline.load, bundle=str(tiny_bundle), backend='auto',
                 threads=1) as harness:
        assert harness.transition(CONFIGURE) and harness.transition(ACTIVATE)
        assert backend_said(harness) == (
            'onnxruntime because of tensorrt, tensorrt-rtx, onnxruntime-cuda: the shop had none; '
            'openvino: a kernel is missing')


def test_a_backend_that_was_asked_for_needs_no_reason(pipeline):
    with Harness(pipeline) as harness:
        assert backend_said(harness) == 'onnxruntime'


def test_the_pipeline_is_warm_before_the_node_is_inactive(pipeline, monkeypatch):
    states, ran = [], []
    run = type(pipeline._runtime).run

    def counted(self, graph, /, *args, **arrays):
        ran.append(graph)
        return run(self, graph, *args, **arrays)

    class Noting(GatedPipeline):
        def warm_up(self):
            states.append(harness.node.state_label)
            ran.clear()
            pipeline.warm_up()
            assert set(ran) == set(pipeline.bundle.graphs)

    monkeypatch.setattr(type(pipeline._runtime), 'run', counted)
    with Harness(None, load=lambda **_: Noting(pipeline)) as harness:
        assert harness.transition(CONFIGURE) and harness.state() == 'inactive'
        assert states == ['configuring']
        # Not again while it stays configured ...
        assert harness.transition(ACTIVATE) and harness.transition(DEACTIVATE)
        assert harness.transition(ACTIVATE) and harness.transition(DEACTIVATE)
        assert states == ['configuring']
        # ... and again with the next pipeline.
        assert harness.transition(CLEANUP) and harness.transition(CONFIGURE)
        assert states == ['configuring'] * 2


def test_a_pipeline_that_cannot_warm_up_leaves_the_node_unconfigured(pipeline):
    made = []

    class Cold(GatedPipeline):
        def warm_up(self):
            if len(made) == 1:
                raise RuntimeError('no compiler here')

    def load(**_):
        made.append(Cold(pipeline))
        return made[-1]

    with Harness(None, load=load) as harness:
        assert not harness.transition(CONFIGURE) and harness.state() == 'unconfigured'
        assert made[0].closed
        assert harness.transition(CONFIGURE) and harness.state() == 'inactive'
