# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A driver that is missing, crashes, hangs or talks nonsense costs the GPU, never the process."""

from __future__ import annotations

from pathlib import Path
import time

import pytest

from egomotion_ros.bundle import Bundle
from egomotion_ros.runtimes import gpu
from egomotion_ros.runtimes.base import AbsentError, open_runtime
from egomotion_ros.runtimes.gpu import Gpu, probe_gpu

ANSWER = '{"name": "A", "driver": "570.1", "free": 4000, "major": 8, "minor": 9}'
#: What the probe's process does instead, and what is said of it.
FAULTS = {
    'crash': ('import os; os.abort()', 'no usable NVIDIA GPU: exit status -6'),
    'failure': ("raise SystemExit('cuInit answered 999')", 'GPU: cuInit answered 999'),
    'words': ("print('NVRM: version mismatch')",
              "the driver was not understood, it said 'NVRM: version mismatch'"),
    'nothing': ('', "it said ''"),
    'no text': (r"import sys; sys.stdout.buffer.write(b'\xff\xfe')", 'was not understood'),
    'other JSON': ("print('[1]')", 'was not understood'),
    'no number': (f"print('''{ANSWER.replace('8', 'null')}''')", 'was not understood'),
}


def test_what_the_driver_says_of_the_gpu_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, '_PROBE', f"print('{ANSWER}')")
    found = probe_gpu()
    assert found == Gpu('A', 89, '570.1') and found.free == 4000


@pytest.mark.parametrize('fault', FAULTS)
def test_a_broken_driver_is_an_error_with_its_words(fault: str,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    code, words = FAULTS[fault]
    monkeypatch.setattr(gpu, '_PROBE', code)
    with pytest.raises(RuntimeError) as caught:
        probe_gpu()
    assert words in str(caught.value)
    # Something is broken: where backends are chosen that is a warning.
    assert not isinstance(caught.value, AbsentError)


def test_no_driver_at_all_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, '_PROBE', "import sys; sys.stderr.write('no device'); sys.exit(3)")
    with pytest.raises(AbsentError, match='no usable NVIDIA GPU: no device'):
        probe_gpu()


def test_a_driver_that_hangs_is_given_up_and_its_process_ended(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / 'number'
    monkeypatch.setattr(gpu, '_PROBE', 'import os, pathlib, time\n'
                        f'pathlib.Path({str(note)!r}).write_text(str(os.getpid()))\n'
                        'time.sleep(300)')
    monkeypatch.setattr(gpu, 'PATIENCE', 5.0)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match='does not answer') as caught:
        probe_gpu()
    assert not isinstance(caught.value, AbsentError) and time.monotonic() - start < 60.0
    assert not Path(f'/proc/{note.read_text()}').exists()


@pytest.mark.parametrize('fault', ['crash', 'words'])
def test_auto_goes_on_with_the_cpu_and_says_what_is_broken(
        tiny_bundle: Path, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture) -> None:
    code, words = FAULTS[fault]
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(gpu, '_PROBE', code)
    runtime = open_runtime('auto', Bundle.open(tiny_bundle), 1)
    assert runtime.name in ('openvino', 'onnxruntime') and words in runtime.fallback_reason
    assert any(record.levelname == 'WARNING' and words in record.message
               for record in caplog.records)
    runtime.close()
