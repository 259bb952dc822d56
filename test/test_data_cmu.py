# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fetching the CMU database: against a server on this machine that misbehaves like real ones."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import io
import re
import shutil
import threading
import zipfile

import numpy as np
import pytest
from readers_support import walk, write_asf_amc

from egomotion_ros.cli import main
from egomotion_ros.data import cmu
from egomotion_ros.data.download import fetch
from egomotion_ros.data.library import MotionLibrary

PAGE = (
    'Please note: all takes\r\n\r\nsubject # 7 (walks)\r\n'
    '07_01\thttp://x/07_01.tvd\t07_01.c3d\t07_01.amc\t120\twalk\r\n'
    '7_2\ttvd\tc3d\tamc\t120\tbrisk  walk, turn\r\n07_03\ttvd\tc3d\tamc\t120\r\n'
)
FAST = {'timeout': 5.0, 'pause': 0.0}


class Site:
    """What the server holds, how it fails, and what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.failures: list[int | str] = []
        self.etag, self.ranges, self.asked = '"one"', True, []

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.split('?')[0]
        asked = handler.headers.get('Range')
        self.asked.append((path, asked))
        failure = self.failures.pop(0) if self.failures else None
        body = self.files.get(path)
        if body is None or isinstance(failure, int):
            handler.send_error(404 if body is None else failure)
            return
        start = int(re.fullmatch(r'bytes=(\d+)-', asked)[1]) if asked and self.ranges else 0
        if handler.headers.get('If-Range') != self.etag:
            start = 0
        if start >= len(body):
            handler.send_response(416)
            handler.send_header('Content-Range', f'bytes */{len(body)}')
            handler.send_header('Content-Length', '0')
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
        if self.etag:
            handler.send_header('ETag', self.etag)
        handler.send_header('Content-Length', str(len(body) - start))
        handler.end_headers()
        rest = body[start:]
        # A truncated transfer: half of what was promised, then the connection is closed.
        handler.wfile.write(rest[: len(rest) // 2] if failure == 'cut' else rest)
        handler.close_connection = True


@pytest.fixture
def site():
    """Serve on the loopback interface, in a thread of its own."""
    state = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02})
    thread.start()
    state.url = f'http://127.0.0.1:{server.server_port}'
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope='module')
def archive(tmp_path_factory) -> bytes:
    """Two subjects with a take or two each, laid out as in the database's archive."""
    folder = tmp_path_factory.mktemp('archive')
    for i, stem in enumerate(('07_01', '07_02', '16_01')):
        write_asf_amc(folder, stem, walk(2.0, 120.0, turn=0.3 * i, seed=i))
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w', zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.iterdir()):
            file.write(path, f'all_asfamc/subjects/{path.stem.split("_")[0]}/{path.name}')
        file.writestr('all_asfamc/README.txt', 'hello')
    return data.getvalue()


def noise(size: int = 200_000) -> bytes:
    return np.random.default_rng(0).bytes(size)


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(site, tmp_path):
    site.files['/big'] = noise()
    site.failures = ['cut', 503, 'cut']
    path = fetch(f'{site.url}/big', tmp_path / 'big', progress=False, **FAST)
    assert path.read_bytes() == site.files['/big']
    assert [asked for _, asked in site.asked] == [
        None, 'bytes=100000-', 'bytes=100000-', 'bytes=150000-']
    assert [p.name for p in tmp_path.iterdir()] == ['big']
    fetch(f'{site.url}/big', path, progress=False, **FAST)
    assert len(site.asked) == 4  # what is there is not fetched again


def test_a_later_call_goes_on_and_never_joins_two_versions(site, tmp_path):
    site.files['/big'] = noise()
    site.failures = ['cut', 503, 503]
    with pytest.raises(OSError, match='run the command again'):
        fetch(f'{site.url}/big', tmp_path / 'big', tries=2, progress=False, **FAST)
    assert (tmp_path / 'big.part').stat().st_size == 100_000
    site.files['/big'], site.etag = noise()[::-1], '"two"'
    fetch(f'{site.url}/big', tmp_path / 'big', progress=False, **FAST)
    assert (tmp_path / 'big').read_bytes() == noise()[::-1]
    assert site.asked[-1] == ('/big', 'bytes=100000-')


def test_all_bytes_there_but_not_renamed_is_seen(site, tmp_path):
    site.files['/big'] = noise()
    (tmp_path / 'big.part').write_bytes(noise())
    (tmp_path / 'big.part.json').write_text('{"version": "\\"one\\""}')
    fetch(f'{site.url}/big', tmp_path / 'big', progress=False, **FAST)
    assert (tmp_path / 'big').read_bytes() == noise() and len(site.asked) == 1


@pytest.mark.parametrize('etag, ranges', [('', True), ('W/"weak"', True), ('"one"', False)])
def test_a_server_that_cannot_resume_is_asked_for_all_of_it(site, tmp_path, etag, ranges):
    site.files['/big'], site.etag, site.ranges = noise(), etag, ranges
    site.failures = ['cut']
    path = fetch(f'{site.url}/big', tmp_path / 'big', progress=False, **FAST)
    assert path.read_bytes() == site.files['/big']


def test_what_is_not_there_is_said_at_once(site, tmp_path):
    with pytest.raises(ValueError, match='404'):
        fetch(f'{site.url}/nothing', tmp_path / 'nothing', progress=False, **FAST)
    assert len(site.asked) == 1
    with pytest.raises(ValueError, match='http'):
        fetch('file:///etc/passwd', tmp_path / 'nothing')


def test_offline_is_one_clear_line(site, tmp_path, capsys):
    url = site.url.rsplit(':', 1)[0] + ':1'  # nothing listens there
    with pytest.raises(OSError, match='Is this machine online'):
        fetch(f'{url}/big', tmp_path / 'big', tries=2, progress=False, **FAST)


def test_a_full_disk_is_said_before_the_transfer(site, tmp_path, monkeypatch):
    site.files['/big'] = noise()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match='disk is full'):
        fetch(f'{site.url}/big', tmp_path / 'big', progress=False, **FAST)


def test_fetched_takes_become_a_library_with_the_sites_own_words(site, tmp_path, archive):
    site.files = {f'/{cmu.ARCHIVE}': archive, '/search.php': PAGE.encode()}
    out = tmp_path / 'cmu'
    command = ['data', 'cmu', '--out', str(out), '--site', site.url, '--subjects']
    assert main([*command, '7']) == 0
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob('07*') if p.is_file()) == [
        '07/07.asf', '07/07_01.amc', '07/07_02.amc']
    assert not (out / '16').exists()
    assert main([*command, '7-16,9']) == 1  # most of these are not in the archive
    assert (out / '16/16_01.amc').exists()
    assert [path for path, _ in site.asked] == [f'/{cmu.ARCHIVE}', '/search.php']
    library = tmp_path / 'library'
    assert main(['data', 'import', str(out), '--out', str(library),
                 '--labels', str(out / 'labels.tsv')]) == 0
    labels = {take.performance: take.label for take in MotionLibrary.open(library)}
    assert labels == {'07_01': 'walk', '07_02': 'brisk walk, turn', '16_01': 'motion'}


@pytest.mark.parametrize('name', ['../07/07_01.amc', '/subjects/07/07_01.amc',
                                  'a\\..\\..\\subjects/07/07_01.amc', 'c:/subjects/07/07.asf'])
def test_an_archive_with_paths_that_lead_elsewhere_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as file:
        file.writestr('subjects/07/07_01.amc', 'fine')
        file.writestr(name, 'evil')
    with pytest.raises(ValueError, match='leads out'):
        cmu.unpack(tmp_path / 'x.zip', tmp_path / 'out', None, progress=False)
    assert not (tmp_path / 'out').exists()


def test_broken_archives_are_refused_and_leave_no_halves(tmp_path, archive):
    (tmp_path / 'cut.zip').write_bytes(archive[: len(archive) // 2])
    spoilt = bytearray(archive)
    spoilt[2000:2100] = bytes(100)
    (tmp_path / 'spoilt.zip').write_bytes(spoilt)
    for name in ('cut.zip', 'spoilt.zip'):
        with pytest.raises(ValueError, match='broken archive'):
            cmu.unpack(tmp_path / name, tmp_path, None, progress=False)
    assert not list(tmp_path.rglob('*.part'))
    with zipfile.ZipFile(tmp_path / 'other.zip', 'w') as file:
        file.writestr('index.html', 'moved')
    with pytest.raises(ValueError, match='no subjects'):
        cmu.unpack(tmp_path / 'other.zip', tmp_path, None, progress=False)


def test_lists_of_subjects():
    assert cmu.parse_subjects('35, 1-3') == [1, 2, 3, 35]
    for text in ('', '3-1', '0', 'a', '1,,2', '-4'):
        with pytest.raises(ValueError, match='subjects'):
            cmu.parse_subjects(text)
