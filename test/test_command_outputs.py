# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that take long say at once that what they are to write cannot be written."""

import os

import pytest

from egomotion_ros.cli import main
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
