# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""EgoMotionClient and the verb ``egomotion generate`` against a running node."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

from node_harness import DEACTIVATE, Harness
import pytest
from visualization_msgs.msg import MarkerArray

from egomotion_ros.nodes.client import EgoMotionClient
from egomotion_ros.nodes.errors import ErrorCode, NodeError
from egomotion_ros.nodes.qos import profile
from egomotion_ros.pipeline import EgoMotionPipeline


@pytest.fixture(scope='module')
def harness(tiny_bundle):
    pipeline = EgoMotionPipeline.load(tiny_bundle, threads=1)
    with Harness(pipeline) as harness:
        yield harness
    pipeline.close()


@pytest.fixture(scope='module')
def client(harness):
    with EgoMotionClient(harness.namespace) as client:
        yield client


def test_generate_is_a_function_call(harness, client):
    seen = []
    made = client.generate('wave', seed=5, execute=False, on_feedback=seen.append)
    assert made.seed == 5 and made.plan_id and len(made.tokens) == 19
    assert made.motion.joint_names == harness.pipeline.joint_names
    assert set(made.milliseconds) == {'reason', 'generate', 'retarget'}


def test_refusals_are_exceptions_with_their_code(client):
    with pytest.raises(NodeError) as refusal:
        client.generate('')
    assert refusal.value.code == ErrorCode.EMPTY_INSTRUCTION
    with pytest.raises(NodeError) as refusal:
        client.generate('walk \ud800')
    assert refusal.value.code == ErrorCode.BAD_INSTRUCTION


def test_a_timeout_cancels_the_goal(harness, client):
    harness.pipeline.shut('reason')
    with pytest.raises(NodeError) as refusal:
        client.generate('walk forward', timeout=1.0)
    assert refusal.value.code == ErrorCode.TIMEOUT
    harness.wait(lambda: harness.heard.messages[-1].code == ErrorCode.CANCELED, what='the cancel')
    harness.pipeline.open_all()


def test_stop_and_cancel_from_another_thread(harness, client):
    ends = []

    def go():
        try:
            client.generate('walk forward')
        except NodeError as error:
            ends.append(error.code)

    for bring_to_rest, code in (
        (client.stop, ErrorCode.STOPPED),
        (client.cancel, ErrorCode.CANCELED),
    ):
        count = len(harness.heard.motions)
        thread = threading.Thread(target=go)
        thread.start()
        harness.wait(lambda count=count: len(harness.heard.motions) > count, what='motion')
        bring_to_rest()
        thread.join(20.0)
        assert ends.pop() == code
        harness.wait(lambda: harness.heard.motions[-1].hold, what='the hold')


def test_no_node_is_a_timeout(harness):
    with pytest.raises(NodeError) as refusal:
        EgoMotionClient(f'{harness.namespace}/nobody', timeout=0.2)
    assert refusal.value.code == ErrorCode.TIMEOUT


def test_the_verb_prints_a_plan_without_torch(harness):
    program = (
        'import sys; from egomotion_ros.cli import main; code = main(sys.argv[1:]); '
        'assert "torch" not in sys.modules; sys.exit(code)'
    )
    command = [sys.executable, '-c', program, 'generate', '--namespace', harness.namespace]
    done = subprocess.run(
        [*command, '--preview', '--json', '--seed', '9', 'wave'], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report['seed'] == 9 and len(report['tokens']) == 19
    refused = subprocess.run([*command, '--preview', '  '], capture_output=True, text=True)
    assert refused.returncode == 1
    assert 'EMPTY_INSTRUCTION' in refused.stderr and 'Traceback' not in refused.stderr


def test_markers_show_the_path_the_body_and_the_words(harness, client):
    markers = []
    subscription = harness.world.create_subscription(
        MarkerArray, 'markers', markers.append, profile('motion')
    )
    harness.wait(
        lambda: harness.node.outputs._markers.get_subscription_count(), what='a subscriber'
    )
    made = client.generate('wave', execute=False)
    shown = {m.ns: m for m in harness.wait(lambda: markers, what='markers')[0].markers}
    assert len(shown['path'].points) == made.motion.steps
    assert shown['instruction'].text == 'wave'
    assert len(shown['body'].points) == len(shown['body'].colors)
    assert {m.header.frame_id for m in shown.values()} == {'odom'}
    harness.world.destroy_subscription(subscription)


def test_diagnostics_tell_latency_ages_memory_and_backend(harness, client):
    from diagnostic_msgs.msg import DiagnosticArray

    reports = []
    subscription = harness.world.create_subscription(
        DiagnosticArray, 'diagnostics', reports.append, profile('default')
    )
    client.generate('wave', execute=False)
    count = len(reports)
    harness.wait(lambda: len(reports) > count, what='a report after the plan')
    values = {item.key: item.value for item in reports[-1].status[0].values}
    assert float(values['latency p95 [ms]']) > 0 and float(values['memory [MB]']) > 50
    assert values['backend'] == 'onnxruntime' and int(values['image received']) > 0
    assert values['image refused for its content'] == '0' and int(values['image used']) > 0
    harness.world.destroy_subscription(subscription)


def test_a_node_that_is_not_active_rejects(harness, client):
    assert harness.transition(DEACTIVATE)
    with pytest.raises(NodeError) as refusal:
        client.generate('wave')
    assert refusal.value.code == ErrorCode.DEACTIVATED
