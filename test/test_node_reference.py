# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The written reference says what the code does: parameters, QoS profiles, error codes."""

from __future__ import annotations

from pathlib import Path
import re

from node_harness import Harness
import pytest
from rcl_interfaces.srv import DescribeParameters
import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter
import yaml

from egomotion_ros.action import GenerateMotion
from egomotion_ros.nodes.errors import ErrorCode
from egomotion_ros.nodes.parameters import SPECS, Parameters, joint_map
from egomotion_ros.nodes.qos import PROFILES, profile


def flat(tree: dict, prefix: str = '') -> dict:
    found = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f'{prefix}{name}.')
        else:
            found[prefix + name] = value
    return found


def rows(text: str) -> list[list[str]]:
    """Cells of all table rows of a Markdown text."""
    return [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in text.splitlines()
        if line.startswith('|')
    ]


def shown(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f'[{", ".join(shown(x) for x in value)}]'
    return repr(value)


def test_the_parameter_file_holds_every_parameter_with_its_default(checkout: Path):
    text = (checkout / 'config' / 'egomotion.yaml').read_text()
    tree = yaml.safe_load(text)['/**']['ros__parameters']
    assert flat(tree) == {spec.name: spec.default for spec in SPECS}


def test_the_parameter_file_is_one_that_a_node_loads(checkout: Path, tmp_path):
    text = (checkout / 'config' / 'egomotion.yaml').read_text()
    changed = tmp_path / 'mine.yaml'
    changed.write_text(text.replace('replan_period: 2.0', 'replan_period: 3'))
    context = Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node(
            'egomotion_node',
            context=context,
            namespace='/some/robot',
            cli_args=['--ros-args', '--params-file', str(changed)],
        )
        node.steady_clock = None
        assert Parameters(node)['replan_period'] == 3.0
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def test_the_parameter_page_tells_every_parameter(checkout: Path):
    text = (checkout / 'docs' / 'reference' / 'parameters.md').read_text()
    page = {row[0].strip('`'): row for row in rows(text)}
    for spec in SPECS:
        assert spec.name in page, f'{spec.name} is missing'
        _, default, _, live, says = page.pop(spec.name)
        assert default.strip('`') == shown(spec.default), spec.name
        assert (live == 'yes') == spec.live, spec.name
        assert says == spec.text, spec.name
    assert set(page) <= {'parameter', '---'}


def test_the_action_page_tells_every_code(checkout: Path):
    text = (checkout / 'docs' / 'reference' / 'action.md').read_text()
    told = {int(row[0]): row[1] for row in rows(text) if row[0].isdigit()}
    assert told == {int(code): code.name for code in ErrorCode}


def test_every_code_of_the_action_has_its_name():
    constants = {
        name: getattr(GenerateMotion.Result, name)
        for name in dir(type(GenerateMotion.Result))
        if re.fullmatch('[A-Z_]+', name) and isinstance(getattr(GenerateMotion.Result, name), int)
    }
    constants.pop('SLOT_TYPES', None)
    assert {code.name: int(code) for code in ErrorCode} == constants


def test_the_topic_page_tells_every_profile(checkout: Path):
    text = (checkout / 'docs' / 'reference' / 'topics.md').read_text()
    told = {row[0].strip('`'): row[1:] for row in rows(text) if row[-1].isdigit()}
    assert set(told) == set(PROFILES)
    for name, (reliability, durability, depth) in told.items():
        assert PROFILES[name].depth == int(depth)
        assert PROFILES[name].reliability.name == reliability.upper().replace(' ', '_')
        assert PROFILES[name].durability.name == durability.upper().replace(' ', '_')
    with pytest.raises(ValueError, match='sensor'):
        profile('fast')


def test_descriptors_carry_text_range_and_choices():
    with Harness(None) as harness:
        client = harness.world.create_client(
            DescribeParameters, 'egomotion_node/describe_parameters'
        )
        names = [spec.name for spec in SPECS]
        answer = harness.call(client, DescribeParameters.Request(names=names))
        for spec, told in zip(SPECS, answer.descriptors, strict=True):
            assert told.description == spec.text
            if spec.choices:
                assert str(spec.choices[0]) in told.additional_constraints
            if spec.span:
                spans = [*told.floating_point_range, *told.integer_range]
                assert (spans[0].from_value, spans[0].to_value) == spec.span


@pytest.mark.parametrize(
    'values',
    [
        {'replan_period': 'often'},
        {'replan_period': -1.0},
        {'replan_period': True},
        {'camera.rpy': [0.0, 1.0]},
        {'camera.rpy': ['a', 'b', 'c']},
        {'image.transport': 'pigeon'},
        {'qos.odom': 'fast'},
        {'threads': 0},
    ],
)
def test_bad_overrides_are_refused_when_the_node_is_made(values):
    with pytest.raises((ValueError, rclpy.exceptions.ParameterException)) as refusal:
        with Harness(None, **values):
            pass
    assert next(iter(values)) in str(refusal.value)


def test_whole_numbers_are_real_numbers_too():
    with Harness(None, replan_period=3, **{'camera.rpy': [0, 1, 0]}) as harness:
        assert harness.node.parameters['replan_period'] == 3.0
        assert harness.node.parameters['camera.rpy'] == [0.0, 1.0, 0.0]
        harness.set(lead=0)
        assert harness.node.parameters['lead'] == 0.0
        answer = harness.node.set_parameters([Parameter('lead', value='soon')])[0]
        assert not answer.successful and 'lead' in answer.reason


def test_joint_maps():
    assert joint_map(['']) == {}
    assert joint_map(['a:b', 'c:d']) == {'a': 'b', 'c': 'd'}
    for bad in (['a'], ['a:'], [':b'], ['a:b', 'a:c'], ['a:b', 'c:b']):
        with pytest.raises(ValueError, match='joint_map'):
            joint_map(bad)
