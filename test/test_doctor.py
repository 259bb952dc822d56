# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""``egomotion doctor`` says what is there, what is missing and what that disables."""

from __future__ import annotations

import json
import os
from pathlib import Path
import subprocess
import sys

import pytest

from egomotion_ros.cli import main


def report(capsys: pytest.CaptureFixture, *options: str) -> tuple[int, dict[str, dict]]:
    """Return the exit code and what -> finding."""
    code = main(['doctor', '--json', *options])
    answer = json.loads(capsys.readouterr().out)
    assert answer['can_run'] == (code == 0)
    return code, {finding['what']: finding for finding in answer['findings']}


def elsewhere(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python code in a process of its own."""
    return subprocess.run([sys.executable, '-c', code], text=True, capture_output=True,
                          env={**os.environ, **environment})


def test_complete_machine_passes(capsys: pytest.CaptureFixture, tiny_bundle: Path) -> None:
    code, findings = report(capsys, '--bundle', str(tiny_bundle))
    assert code == 0
    assert all(finding['found'] for finding in findings.values() if finding['required'])
    for what in ('ROS 2', 'messages', 'libraries', 'robot unitree_g1', 'robot booster_t1',
                 'offscreen rendering', 'training and export', 'video', 'Aria recordings',
                 'OpenVINO'):
        assert findings[what]['found'], findings[what]


def test_whatever_is_missing_says_what_it_disables(
        capsys: pytest.CaptureFixture, tiny_bundle: Path) -> None:
    _, findings = report(capsys, '--bundle', str(tiny_bundle))
    missing = [finding for finding in findings.values() if not finding['found']]
    assert missing, 'a test machine has neither SMPL-X models at hand'
    assert all(finding['disables'] and finding['detail'] for finding in missing)


def test_missing_bundle_fails(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    code, findings = report(capsys, '--bundle', str(tmp_path))
    assert code == 1
    assert 'manifest.json' in findings['bundle']['detail']


def test_unknown_robot_fails_with_the_known_ones(
        capsys: pytest.CaptureFixture, tiny_bundle: Path) -> None:
    code, findings = report(capsys, '--bundle', str(tiny_bundle), '--robot', 'nobody')
    assert code == 1
    assert 'unitree_g1' in findings['robot nobody']['detail']


def test_machine_without_ros_fails_and_still_reports_the_rest(tiny_bundle: Path) -> None:
    done = elsewhere('import sys; sys.modules["rclpy"] = None\n'
                     'from egomotion_ros.cli import main\n'
                     f'sys.exit(main(["doctor", "--bundle", {str(tiny_bundle)!r}]))')
    assert done.returncode == 1
    assert 'MISSING  ROS 2' in done.stdout
    assert 'cannot run here: ROS 2.' in done.stdout
    assert 'ok       training and export' in done.stdout


def test_broken_rendering_is_reported_and_not_fatal(
        capsys: pytest.CaptureFixture, tiny_bundle: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MUJOCO_GL', 'nonsense')
    code, findings = report(capsys, '--bundle', str(tiny_bundle))
    assert code == 0
    assert not findings['offscreen rendering']['found']
    assert 'simulation_node' in findings['offscreen rendering']['disables']


def test_tensorrt_and_torch_stay_out_of_the_process(tiny_bundle: Path) -> None:
    done = elsewhere('import sys\n'
                     'from egomotion_ros.cli import main\n'
                     f'main(["doctor", "--bundle", {str(tiny_bundle)!r}])\n'
                     'loaded = {"tensorrt", "tensorrt_rtx", "torch"} & set(sys.modules)\n'
                     'sys.exit(f"imported {loaded}" if loaded else 0)')
    assert done.returncode == 0, done.stderr


def test_smplx_models_are_found_where_they_are(
        capsys: pytest.CaptureFixture, tiny_bundle: Path, tmp_path: Path) -> None:
    options = ('--bundle', str(tiny_bundle), '--smplx', str(tmp_path))
    assert not report(capsys, *options)[1]['SMPL-X']['found']
    (tmp_path / 'smplx').mkdir()
    (tmp_path / 'smplx' / 'SMPLX_NEUTRAL.npz').touch()
    assert report(capsys, *options)[1]['SMPL-X']['found']


def test_without_a_profile_the_loss_of_images_is_announced(
        capsys: pytest.CaptureFixture, tiny_bundle: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('FASTRTPS_DEFAULT_PROFILES_FILE', raising=False)
    _, findings = report(capsys, '--bundle', str(tiny_bundle))
    assert not findings['DDS profile']['found']
    assert 'fastdds.xml' in findings['DDS profile']['disables']
