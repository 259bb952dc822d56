# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
The CMU Graphics Lab motion capture database, fetched from its own site.

The site asks not to be crawled and offers one archive of all ASF and AMC files instead (its FAQ,
http://mocap.cs.cmu.edu/faqs.php): that archive is fetched once, and the subjects that are wanted
are unpacked.  The site's own one-line description of every take comes from its search page in
plain text, in a single request.

Terms (front page of the site): the data may be used in research and in commercially sold
products, but not be resold directly, even in converted form.
"""

from __future__ import annotations

from collections.abc import Iterable
import json
from pathlib import Path, PurePosixPath
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib

from tqdm import tqdm

from egomotion_ros.data.download import fetch

SITE = 'http://mocap.cs.cmu.edu'
ARCHIVE = 'allasfamc.zip'
#: The search for every take of every subject, as text with tabs.
SEARCH = '/search.php?' + urllib.parse.urlencode(
    {'subjectnumber': '%', 'motion': '%', 'maincat': '%', 'subcat': '%', 'subtext': 'yes'})
ACKNOWLEDGEMENT = (
    'The data used in this project was obtained from mocap.cs.cmu.edu. '
    'The database was created with funding from NSF EIA-0196217.'
)
#: Largest member of the archive and largest sum (bytes) that is unpacked.
MAX_MEMBER = 512 * 2**20
MAX_TOTAL = 32 * 2**30
_MAX_PAGE = 32 * 2**20
_MEMBER = re.compile(r'(?:.*/)?subjects/(\d{2,3})/(\1(?:_\d{2,3})?\.(?:asf|amc))')
_TAKE = re.compile(r'0*(\d{1,3})_0*(\d{1,3})')


def parse_subjects(text: str) -> list[int]:
    """Read '1-19,35' as sorted subject numbers.  Raises ValueError for anything else."""
    wanted: set[int] = set()
    for part in text.split(','):
        match = re.fullmatch(r'\s*(\d{1,3})\s*(?:-\s*(\d{1,3})\s*)?', part)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if not 1 <= first <= last:
            raise ValueError(f'subjects: expected a list such as 1-19,35, got {text!r}')
        wanted.update(range(first, last + 1))
    return sorted(wanted)


def fetch_cmu(
    out: str | Path,
    subjects: Iterable[int] | None = None,
    site: str = SITE,
    progress: bool = True,
    **options: float,
) -> tuple[list[Path], list[int]]:
    """
    Bring takes into ``out``: ``<subject>/<subject>.asf`` and ``<subject>/<take>.amc``.

    ``subjects`` numbers, all where None; ``site`` another address of the same layout; ``options``
    of :func:`egomotion_ros.data.download.fetch`.  Gives the files and the subjects that the
    archive does not have.  The archive stays in ``out`` for later calls.  Raises ValueError for a
    broken or strange archive, OSError without connection or disk.
    """
    out = Path(out)
    archive = fetch(f'{site.rstrip("/")}/{ARCHIVE}', out / ARCHIVE, progress=progress, **options)
    return unpack(archive, out, None if subjects is None else set(subjects), progress)


def unpack(
    archive: Path, out: Path, subjects: set[int] | None, progress: bool = True
) -> tuple[list[Path], list[int]]:
    """
    Unpack the takes of ``subjects`` (all where None); files of the right size are kept.

    Gives the files and the missing subjects.  Nothing outside ``out`` can be written: the names
    are made of the numbers that were recognised, and an archive with paths that lead elsewhere
    is refused.  Raises ValueError for such an archive, a broken one or one without takes.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            chosen = _members(file, subjects, archive.name)
            out.mkdir(parents=True, exist_ok=True)
            sizes = sum(i.file_size for i, target in chosen if not _there(out / target, i))
            if sizes > shutil.disk_usage(out).free:
                raise OSError(f'{sizes} bytes to unpack, too few are free in {out}')
            for info, target in tqdm(chosen, desc='unpacking', unit='file', disable=not progress):
                if not _there(out / target, info):
                    _write(file, info, out / target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(
            f'{archive}: broken archive ({error}); delete it and run the command again'
        ) from None
    found = {int(target.parts[0]) for _, target in chosen}
    return [out / target for _, target in chosen], sorted((subjects or set()) - found)


def _members(
    file: zipfile.ZipFile, subjects: set[int] | None, name: str
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    chosen = {}
    for info in file.infolist():
        path = PurePosixPath(info.filename.replace('\\', '/'))
        if path.is_absolute() or '..' in path.parts or ':' in info.filename:
            raise ValueError(f'{name}: the path {info.filename!r} leads out of the archive')
        match = _MEMBER.fullmatch(path.as_posix())
        if match and (subjects is None or int(match[1]) in subjects):
            chosen[PurePosixPath(match[1], match[2])] = info
    if not any(_MEMBER.fullmatch(n) for n in file.namelist()):
        raise ValueError(f'{name}: no subjects/<number>/<take>.amc in the archive')
    large = [i.filename for i in chosen.values() if i.file_size > MAX_MEMBER]
    if large or sum(i.file_size for i in chosen.values()) > MAX_TOTAL:
        raise ValueError(f'{name}: unpacks to more than is plausible {large[:1]}')
    return [(chosen[target], target) for target in sorted(chosen)]


def _there(path: Path, info: zipfile.ZipInfo) -> bool:
    return path.is_file() and path.stat().st_size == info.file_size


def _write(file: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + '.part')
    try:
        # Reading to the end checks the member's sum; the size in the directory bounds it.
        with file.open(info) as source, partial.open('wb') as target:
            shutil.copyfileobj(source, target)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def fetch_labels(site: str = SITE, timeout: float = 60.0) -> dict[str, str]:
    """
    Give the site's own description of every take ('02_01' -> 'walk').

    Raises OSError where the site cannot be reached, ValueError where its page holds no takes.
    """
    url = site.rstrip('/') + SEARCH
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            page = answer.read(_MAX_PAGE).decode('utf-8', 'replace')
    except (urllib.error.URLError, TimeoutError) as error:
        raise OSError(f'{url}: {getattr(error, "reason", error)}') from None
    labels = parse_labels(page)
    if not labels:
        raise ValueError(f'{url}: no take in the answer; has the page changed?')
    return labels


def parse_labels(page: str) -> dict[str, str]:
    """Read the search page as text: rows with tabs, the take first, its description last."""
    labels = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split('\t') if cell.strip()]
        match = _TAKE.fullmatch(cells[0]) if len(cells) > 1 else None
        words = ' '.join(cells[-1].split()) if match else ''
        # A row without a description ends in the frame rate or a file size.
        if match and re.search(r'[A-Za-z]{2}', words):
            labels[f'{int(match[1]):02d}_{int(match[2]):02d}'] = words
    return labels


def write_labels(path: Path, labels: dict[str, str]) -> None:
    """Write the table that ``egomotion data import --labels`` reads."""
    rows = [f'{take}\t{words}' for take, words in sorted(labels.items())]
    path.write_text('\n'.join(['take\tdescription', *rows]) + '\n', encoding='utf-8')


def write_source(path: Path, files: list[Path], site: str) -> None:
    """Note where the files came from, and the sentence that the site asks to be printed."""
    path.write_text(json.dumps(
        {'site': site, 'archive': ARCHIVE, 'files': len(files), 'terms': ACKNOWLEDGEMENT},
        indent=1) + '\n', encoding='utf-8')
