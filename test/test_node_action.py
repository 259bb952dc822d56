# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Goals of egomotion_node: results, feedback, preemption, cancel at each stage."""

from __future__ import annotations

from action_msgs.msg import GoalStatus
from node_harness import DEACTIVATE, Harness
import numpy as np
import pytest

from egomotion_ros.msg import Status
from egomotion_ros.nodes import observer
from egomotion_ros.nodes.conversions import robot_from_msg
from egomotion_ros.nodes.errors import ErrorCode, NodeError
from egomotion_ros.pipeline import EgoMotionPipeline

SUCCEEDED, ABORTED, CANCELED = (
    GoalStatus.STATUS_SUCCEEDED,
    GoalStatus.STATUS_ABORTED,
    GoalStatus.STATUS_CANCELED,
)


@pytest.fixture(scope='module')
def pipeline(tiny_bundle):
    pipeline = EgoMotionPipeline.load(tiny_bundle, threads=1)
    yield pipeline
    pipeline.close()


@pytest.fixture(scope='module')
def quiet(pipeline):
    """One node for tests after which nothing moves."""
    with Harness(pipeline) as harness:
        yield harness


@pytest.fixture
def harness(pipeline):
    with Harness(pipeline) as harness:
        yield harness


def test_goal_succeeds_when_the_motion_is_over_and_tells_its_progress(harness):
    status, result = harness.run('walk to the red ball', seed=7)
    assert (status, result.error_code) == (SUCCEEDED, ErrorCode.NONE)
    assert result.seed == 7 and result.plan_id
    motion = robot_from_msg(result.robot_motion)
    assert harness.heard.motions[0].plan.plan_id == result.plan_id
    assert len(result.primitives.tokens) == 19 * result.primitives.levels
    progress = [f.progress for f in harness.feedback]
    assert progress == sorted(progress) and progress[-1] > 0.9
    assert {f.state for f in harness.feedback} >= {Status.EXECUTING}
    assert list(harness.feedback[-1].tokens) == list(
        result.primitives.tokens[:: result.primitives.levels]
    )
    started = harness.heard.messages
    spent = 1e-9 * (harness.now() - harness.heard.arrivals[0])
    assert spent > motion.duration - 0.2
    assert [m.state for m in started][-1] == Status.IDLE


def test_same_seed_same_plan_and_zero_draws_one(quiet):
    results = [quiet.run('wave', seed=seed, execute=False)[1] for seed in (3, 3, 0, 0)]
    assert results[0].primitives.tokens == results[1].primitives.tokens
    assert np.allclose(
        robot_from_msg(results[0].robot_motion).positions,
        robot_from_msg(results[1].robot_motion).positions,
        atol=1e-6,
    )
    assert results[2].seed not in (0, results[3].seed)


def test_execute_false_succeeds_on_the_plan_and_moves_nothing(harness):
    status, result = harness.run('wave', execute=False)
    assert (status, result.error_code) == (SUCCEEDED, ErrorCode.NONE)
    preview = harness.wait(lambda: harness.heard.previews, what='the preview')[0]
    assert preview.plan.plan_id == result.plan_id
    # The first motion ever published is that of a later goal: the preview moved nothing.
    second = harness.send('walk forward')
    first = harness.wait(lambda: harness.heard.motions, what='a motion')[0]
    second.cancel_goal_async()
    _, later = harness.result(second)
    assert first.plan.plan_id == later.plan_id != result.plan_id


def test_a_new_goal_preempts_and_the_motion_goes_on_without_a_stop(harness):
    first = harness.send('walk forward')
    harness.wait(lambda: harness.heard.motions, what='the first motion')
    second = harness.send('turn left')
    status, result = harness.result(first)
    assert (status, result.error_code) == (ABORTED, ErrorCode.PREEMPTED)
    harness.wait(lambda: len(harness.heard.plans) >= 2, what='the second motion')
    assert not any(motion.hold for motion in harness.heard.motions)
    second.cancel_goal_async()
    assert harness.result(second)[1].error_code == ErrorCode.CANCELED


@pytest.mark.parametrize('missing', ['image', 'time'])
def test_what_nobody_wants_any_more_is_waited_for_no_longer(pipeline, monkeypatch, missing):
    monkeypatch.setattr(observer, 'LATE_CLOCK', 60.0)
    with Harness(pipeline, sim_time=missing == 'time', **{'image.timeout': 60.0}) as harness:
        harness.camera_on = missing == 'time'
        harness.image_shift = 30.0
        goal = harness.send('walk forward')
        harness.wait_status(Status.REASONING)
        goal.cancel_goal_async()
        assert harness.result(goal)[1].error_code == ErrorCode.CANCELED
        # The waits would last a minute.
        harness.wait(lambda: not harness.node.controller._worker.is_busy, timeout=15.0,
                     what='the end of planning')
        assert not harness.pipeline.reached['reason'].is_set()
        assert not any(m.code == ErrorCode.NO_IMAGE for m in harness.heard.messages)


def test_two_goals_at_once_leave_one_running(harness):
    harness.pipeline.shut('reason')
    first = harness.send('walk forward')
    second = harness.send('turn left')
    assert harness.result(first)[1].error_code == ErrorCode.PREEMPTED
    harness.pipeline.open_all()
    harness.wait(lambda: harness.heard.motions, what='a motion')
    second.cancel_goal_async()
    status, result = harness.result(second)
    assert status == CANCELED
    assert {m.plan.plan_id for m in harness.heard.motions} == {result.plan_id}


@pytest.mark.parametrize('stage', ['reason', 'generate', 'retarget'])
def test_cancel_while_planning_ends_the_goal_at_once_and_publishes_nothing(harness, stage):
    harness.pipeline.shut(stage)
    goal = harness.send('walk forward')
    assert harness.pipeline.reached[stage].wait(10.0)
    goal.cancel_goal_async()
    # The gate is still shut: the result does not wait for the model.
    status, result = harness.result(goal, timeout=5.0)
    assert (status, result.error_code) == (CANCELED, ErrorCode.CANCELED)
    harness.pipeline.open_all()
    second = harness.send('wave')
    first = harness.wait(lambda: harness.heard.motions, what='a motion')[0]
    second.cancel_goal_async()
    assert first.plan.plan_id == harness.result(second)[1].plan_id


def test_cancel_while_executing_decelerates_to_hold(harness):
    goal = harness.send('walk forward')
    harness.wait(lambda: harness.heard.motions, what='the motion')
    goal.cancel_goal_async()
    status, result = harness.result(goal)
    assert (status, result.error_code) == (CANCELED, ErrorCode.CANCELED)
    harness.wait(lambda: harness.heard.motions[-1].hold, what='the hold')
    assert not robot_from_msg(harness.heard.motions[-1]).velocities[-1].any()


@pytest.mark.parametrize(
    ('instruction', 'code'),
    [
        ('', ErrorCode.EMPTY_INSTRUCTION),
        (' \n\t ', ErrorCode.EMPTY_INSTRUCTION),
        ('\x07\x1b', ErrorCode.BAD_INSTRUCTION),
        ('walk ' * 2000, ErrorCode.INSTRUCTION_TOO_LONG),
        (' '.join(f'word{i}' for i in range(60)), ErrorCode.INSTRUCTION_TOO_LONG),
        ('walk \N{REPLACEMENT CHARACTER}', ErrorCode.BAD_INSTRUCTION),
    ],
)
def test_bad_instructions_abort_with_their_code(quiet, instruction, code):
    status, result = quiet.run(instruction)
    assert (status, result.error_code) == (ABORTED, code)
    assert result.error_msg
    assert not quiet.heard.motions


def test_prompt_like_text_is_an_instruction_like_any_other(quiet):
    text = 'forget it</s><pad> {stop}'
    status, result = quiet.run(text, execute=False)
    assert (status, result.primitives.instruction) == (SUCCEEDED, text)


def test_a_bad_goal_leaves_the_running_one_alone(harness):
    first = harness.send('walk forward')
    harness.wait(lambda: harness.heard.motions, what='the motion')
    assert harness.run('')[1].error_code == ErrorCode.EMPTY_INSTRUCTION
    assert harness.run('wave', steps=101)[1].error_code == ErrorCode.PLAN_INVALID
    assert harness.run('wave', guidance=float('nan'))[1].error_code == ErrorCode.PLAN_INVALID
    assert len(harness.heard.plans) == 1
    assert not any(motion.hold for motion in harness.heard.motions)
    first.cancel_goal_async()
    assert harness.result(first)[1].error_code == ErrorCode.CANCELED


def test_deactivation_aborts_the_goal_and_later_goals_are_rejected(harness):
    goal = harness.send('walk forward')
    harness.wait(lambda: harness.heard.motions, what='the motion')
    assert harness.transition(DEACTIVATE)
    status, result = harness.result(goal)
    assert (status, result.error_code) == (ABORTED, ErrorCode.DEACTIVATED)
    harness.wait(lambda: harness.heard.motions[-1].hold, what='the hold')
    assert not harness.send('wave').accepted


def test_a_backend_that_breaks_aborts_with_its_code_and_the_next_goal_works(harness):
    harness.pipeline.fail = RuntimeError('out of memory')
    status, result = harness.run('wave')
    assert (status, result.error_code) == (ABORTED, ErrorCode.BACKEND_FAILED)
    assert 'out of memory' in result.error_msg
    harness.pipeline.fail = ValueError('the generated motion is not finite')
    assert harness.run('wave')[1].error_code == ErrorCode.PLAN_INVALID
    harness.pipeline.fail = None
    assert harness.run('wave', execute=False)[0] == SUCCEEDED


def test_planning_that_never_ends_times_out(harness):
    harness.set(planning_timeout=0.3)
    harness.pipeline.shut('generate')
    status, result = harness.run('wave')
    assert (status, result.error_code) == (ABORTED, ErrorCode.TIMEOUT)


def test_a_plan_replaced_while_it_was_handed_over_neither_moves_nor_ends_the_next_goal(
    harness, monkeypatch
):
    controller = harness.node.controller
    worker, caught = controller._worker, []
    # Stand between the planning thread and the controller.
    monkeypatch.setattr(worker, '_on_planned', lambda plan: caught.append((plan, worker.current)))
    harness.send('walk forward')
    old, current = harness.wait(
        lambda: [(p, c) for p, c in caught if p.solved is None], what='the whole plan'
    )[0]
    # What is being handed over still counts as being made: no tick asks for another.
    assert current is old.request
    monkeypatch.setattr(worker, '_on_planned', controller._on_planned)
    harness.wait(lambda: worker.current is None)
    harness.pipeline.shut('generate')
    goal = harness.send('turn left')
    assert harness.pipeline.reached['generate'].wait(10.0)
    assert not old.request.cancelled.is_set()
    controller._on_stage(old.request, 'retarget', old.primitives)
    assert controller.status.state == Status.GENERATING
    controller._on_planned(old)
    controller._on_failed(old.request, NodeError(ErrorCode.PLAN_INVALID, 'of the plan before'))
    harness.pipeline.open_all()
    status, result = harness.result(goal)
    assert (status, result.error_code) == (SUCCEEDED, ErrorCode.NONE)
    assert {m.plan.plan_id for m in harness.heard.motions} == {result.plan_id}
    assert result.plan_id != old.request.plan_id
