# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that take long say at once that what they are to write cannot be written."""

import os
import time

import pytest

from egomotion_ros.cli import main
from egomotion_ros.commands import outputs
from egomotion_ros.commands.outputs import output_file

NOWHERE = ['--library', 'no library', '--episodes', 'no episodes']


@pytest.mark.parametrize('command', [
    ['evaluate', '--picture'], ['evaluate', '--video'], ['metrics', *NOWHERE, '--plot'],
    ['data', 'recorded', 'no recordings', '--out', 'set', '--picture']])
def test_a_folder_is_no_file_to_write(command, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, str(tmp_path)]) == 1
    assert f'{command[-1]} {tmp_path} is a folder, it takes a file' in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_the_folder_of_a_file_is_made(tmp_path) -> None:
    output_file(None, '--picture')
    output_file(tmp_path / 'new' / 'folder' / 'sheet', '--picture')
    assert (tmp_path / 'new' / 'folder').is_dir()
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError):
        output_file(tmp_path / 'file' / 'sheet.png', '--picture')


def test_what_may_not_be_written_is_refused(tmp_path, monkeypatch) -> None:
    # Root may write everywhere, so the system's answer is taken from a stand-in.
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    with pytest.raises(ValueError, match='no permission'):
        output_file(tmp_path / 'sheet.png', '--picture')


@pytest.mark.parametrize(('command', 'words'), [
    (['export', 'none', '--out', 'new', '--steps', '0'], '--steps 0'),
    (['export', 'none', '--out', 'new', '--guidance', 'nan'], '--guidance nan'),
    (['export', 'none', '--out', 'new', '--candidates', '100'], '--candidates 100'),
    (['export', 'none', '--out', 'new', '--references', '0'], '--references 0'),
    (['data', 'episodes', '--out', 'new', '--seed', '11'], 'seed in 0..9'),
    (['data', 'episodes', '--out', 'new', '--scenes', '0'], 'scenes'),
    (['data', 'episodes', '--out', 'new', '--moving-starts', '-3'], '--moving-starts'),
    (['data', 'episodes', '--out', 'new', '--workers', '0'], 'workers'),
    (['data', 'import', 'none', '--out', 'new'], 'none: no folder'),
    (['train', 'all', '--config', '.', '--library', 'l', '--episodes', 'none', '--out', 'new'],
     'none'),
    (['train', 'tokenizer', '--config', 'c', '--library', 'l', '--out', 'new', '--threads', '-2'],
     '--threads -2'),
    (['generate', 'walk', '--steps', '-5'], 'steps 0..100, got 0.0 and -5'),
    (['generate', 'walk', '--steps', '99999999999'], 'steps 0..100'),
    (['generate', 'walk', '--guidance', 'nan'], 'guidance 0..20'),
    (['generate', 'walk', '--timeout', 'nan'], '--timeout'),
    (['generate', 'walk', '--namespace', 'bad name!'], 'namespace'),
    (['bench', '--json', 'new/bench.png'], 'bench.png'),
    (['demo', '--camera', 'x.vrs', '--hfov', 'nan', '--out', 'new/demo'], '--hfov nan')])
def test_numbers_that_cannot_be_are_refused_before_any_work(command, words, tmp_path, monkeypatch,
                                                            capsys) -> None:
    monkeypatch.chdir(tmp_path)
    # The demo keeps to this machine from then on.
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE'):
        monkeypatch.setenv(name, os.environ.get(name, '0' if name == 'ROS_DOMAIN_ID' else
                                                'LOCALHOST'))
    assert main(command) == 1
    said = capsys.readouterr().err
    assert words in said and said.count('\n') == 1
    assert not any(path.is_file() for path in tmp_path.rglob('*'))


@pytest.mark.parametrize('command', [
    ['verify', '--json', 'FOLDER'], ['bench', '--json', 'FOLDER'],
    ['build', '--backend', 'onnxruntime', '--precision', 'int8', '--out', 'FILE'],
    ['restore', '--out', 'FILE']])
def test_a_target_that_is_something_else_is_refused_before_any_work(command, tmp_path, capsys):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').write_text('mine')
    places = {'FOLDER': str(tmp_path / 'folder'), 'FILE': str(tmp_path / 'file')}
    begun = time.monotonic()
    assert main([places.get(word, word) for word in command]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert (tmp_path / 'file').read_text() == 'mine' and time.monotonic() - begun < 30.0


def test_what_cannot_be_drawn_is_said_before_the_work(monkeypatch, capsys) -> None:
    monkeypatch.setattr(outputs, 'find_spec', lambda name: None)
    for command in (['evaluate', '--picture', 'a.png'], ['metrics', *NOWHERE, '--plot', 'a.png'],
                    ['data', 'import', 'none', '--out', 'new', '--picture', 'one']):
        assert main(command) == 1
        assert 'needs matplotlib: pip install matplotlib' in capsys.readouterr().err
