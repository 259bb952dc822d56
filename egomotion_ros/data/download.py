# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Fetch one large file over HTTP: one connection, resumed, checked, with a progress bar.

What has arrived stays in ``<name>.part`` with the server's mark of the version (ETag or date)
beside it, so that a later call goes on where the last one stopped and never joins halves of two
versions (RFC 9110, Range and If-Range).
"""

from __future__ import annotations

import errno
import http.client
import json
from pathlib import Path
import re
import shutil
import time
import urllib.error
import urllib.request

from tqdm import tqdm

from egomotion_ros import __version__

#: Larger files are refused (bytes).
MAX_BYTES = 16 * 2**30
_CHUNK = 2**18
_AGENT = f'egomotion_ros/{__version__}'


class _BrokenError(Exception):
    """A transfer that may succeed when it is tried again."""


def fetch(
    url: str,
    path: str | Path,
    timeout: float = 30.0,
    tries: int = 6,
    pause: float = 2.0,
    progress: bool = True,
) -> Path:
    """
    Fetch ``url`` (http or https) into ``path``; what is there already is not fetched again.

    ``timeout`` seconds without a byte break a try; ``tries`` in a row without a byte end the
    call, with ``pause`` seconds, doubled each time, in between.  Raises ValueError where the
    server has no such file or answers with something else, OSError where it cannot be reached or
    the disk is full; what has arrived is kept for the next call.
    """
    path = Path(path)
    if not url.startswith(('http://', 'https://')):
        raise ValueError(f'{url}: expected an http or https address')
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, mark = _parts(path)
    failures = 0
    with tqdm(desc=path.name, unit='B', unit_scale=True, disable=not progress) as bar:
        while True:
            before = partial.stat().st_size if partial.exists() else 0
            try:
                _go_on(url, partial, mark, timeout, bar)
                break
            except _BrokenError as error:
                arrived = (partial.stat().st_size if partial.exists() else 0) > before
                failures = 1 if arrived else failures + 1
                if failures >= tries:
                    raise OSError(
                        f'{url}: {error}; tried {failures} times. Is this machine online? What '
                        'has arrived is kept: run the command again to go on'
                    ) from None
                time.sleep(min(60.0, pause * 2 ** (failures - 1)))
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise OSError(
                        errno.ENOSPC, f'the disk is full; {partial} is kept, run again to go on'
                    ) from None
                raise
    partial.rename(path)
    mark.unlink(missing_ok=True)
    return path


def _parts(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + '.part'), path.with_name(path.name + '.part.json')


def _state(partial: Path, mark: Path) -> tuple[int, str]:
    """Bytes that have arrived and the version they belong to; (0, '') to begin anew."""
    try:
        version = json.loads(mark.read_text(encoding='utf-8'))['version']
        return partial.stat().st_size, str(version)
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ''


def _go_on(url: str, partial: Path, mark: Path, timeout: float, bar: tqdm) -> None:
    """Fetch the rest of a file; raises _BrokenError where another try may help."""
    have, version = _state(partial, mark)
    headers = {'User-Agent': _AGENT, 'Accept-Encoding': 'identity'}
    if have and version:
        headers |= {'Range': f'bytes={have}-', 'If-Range': version}
    try:
        answer = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout
        )
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get('Content-Range') == f'bytes */{have}':
            return  # all of it had arrived
        _refused(url, error, partial, mark)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, OSError) as error:
        raise _BrokenError(f'no connection ({getattr(error, "reason", error)})') from None
    with answer:
        start, total = _span(answer, have, url)
        if total > MAX_BYTES:
            raise ValueError(f'{url}: {total} bytes, more than {MAX_BYTES}')
        free = shutil.disk_usage(partial.parent).free
        if total - start > free:
            raise OSError(
                errno.ENOSPC,
                f'{total - start} bytes to come, {free} free in {partial.parent}'
            )  # fmt: skip
        if not start:
            version = answer.headers.get('ETag') or answer.headers.get('Last-Modified') or ''
            # A weak mark does not promise the same bytes: then nothing is resumed.
            version = '' if version.startswith('W/') else version
            mark.write_text(json.dumps({'version': version, 'url': url}), encoding='utf-8')
        bar.total = total
        bar.n = start
        bar.refresh()
        with partial.open('r+b' if start else 'wb') as file:
            file.seek(start)
            _copy(answer, file, total - start, bar)


def _refused(url: str, error: urllib.error.HTTPError, partial: Path, mark: Path) -> None:
    with error:
        if error.code == 416:
            # What is here does not fit what the server has: begin anew.
            partial.unlink(missing_ok=True)
            mark.unlink(missing_ok=True)
            raise _BrokenError('the file on the server has changed')
        if error.code in (408, 429) or error.code >= 500:
            raise _BrokenError(f'the server answers {error.code} {error.reason}')
        raise ValueError(f'{url}: the server answers {error.code} {error.reason}')


def _span(answer: http.client.HTTPResponse, have: int, url: str) -> tuple[int, int]:
    """First byte of an answer and size of the whole file."""
    if answer.status == 206:
        match = re.fullmatch(r'bytes (\d+)-\d+/(\d+)', answer.headers.get('Content-Range', ''))
        if match is None or int(match[1]) != have:
            raise ValueError(f'{url}: the server answers with another part than was asked for')
        return have, int(match[2])
    length = answer.headers.get('Content-Length', '')
    if answer.status != 200 or not length.isdigit():
        raise ValueError(f'{url}: the server gives no size (status {answer.status})')
    return 0, int(length)


def _copy(answer: http.client.HTTPResponse, file, wanted: int, bar: tqdm) -> None:
    got = 0
    while got < wanted:
        try:
            block = answer.read1(min(_CHUNK, wanted - got))
        except (http.client.HTTPException, OSError) as error:
            raise _BrokenError(f'the transfer broke off ({error})') from None
        if not block:
            raise _BrokenError(f'the transfer ended {wanted - got} bytes early')
        file.write(block)
        got += len(block)
        bar.update(len(block))
    file.truncate()
