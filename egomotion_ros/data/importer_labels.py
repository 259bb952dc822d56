# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a take is called: performance, label in words, action in one word."""

from __future__ import annotations

from pathlib import Path
import re

#: Action by the first pattern that is found in a label (or, without one, in the file's path).
ACTIONS: tuple[tuple[str, str], ...] = (
    ('climb', r'playground|climb|ladder'),
    ('uneven', r'uneven'),
    ('sport', r'basketball(?!.signal)|soccer|dribbl|golf|baseball|tennis'),
    ('signal', r'signal|directing|traffic|wav(e|ing)\b'),
    ('martial', r'martial|punch|strike|sword|box(ing)?\b|kick|karate'),
    ('dance', r'danc|salsa|indian|ballet|pirouette|jete|arabesque'),
    ('jump', r'jump|hop\b|hopping|leap'),
    ('wash', r'wash|wip(e|ing)|sweep'),
    ('bend', r'bend|scoop|pick|lift|squat|crouch'),
    ('sit', r'\bsit|chair|stool'),
    ('reach', r'reach|grasp|place'),
    ('turn', r'turn(ing)? in place'),
    ('run', r'\brun|jog|sprint'),
    ('walk', r'walk|stroll|march|step'),
    ('stand', r'stand|idle|rest'),
)
_CMU = re.compile(r'0*(\d{1,3})_0*(\d{1,3})')


def cmu_take(stem: str) -> str | None:
    """Give the CMU take ('02_01') a file name means, with any padding ('002_01'); else None."""
    match = _CMU.fullmatch(stem)
    return f'{int(match[1]):02d}_{int(match[2]):02d}' if match else None


def take_name(path: Path, root: Path) -> str:
    """
    Make a name for a take from its path under the imported folder, safe as a file name.

    Only the last three parts count, so that it matters little from how far above one imports.
    """
    parts = list(path.relative_to(root).with_suffix('').parts[-3:])
    parts = [p for i, p in enumerate(parts) if i == 0 or p != parts[i - 1]]
    name = re.sub(r'[^A-Za-z0-9._-]+', '-', '_'.join(parts)).strip('-._') or 'take'
    return name[-120:].lstrip('-._')


def read_labels(path: Path) -> dict[str, str]:
    """
    Read a table of labels: two columns with a tab, take and description; a header is skipped.

    Raises ValueError for lines of another form.
    """
    labels = {}
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
        if not line.strip():
            continue
        cells = line.split('\t')
        if len(cells) != 2 or not all(c.strip() for c in cells):
            raise ValueError(f'{path.name}:{number}: expected "take<TAB>description"')
        if number > 1 or cells[0].strip() != 'take':
            labels[cells[0].strip()] = cells[1].strip()
    return labels


def label_of(path: Path, root: Path, labels: dict[str, str], own: str | None = None) -> str:
    """
    Give the label of a take: from the table by CMU take or stem, else what the data set says.

    Where neither says anything (``own`` None), the file's or folder's name in words.
    """
    for key in (path.stem, cmu_take(path.stem)):
        if key in labels:
            return labels[key]
    if own:
        return own
    words = re.sub(r'[_\d]+', ' ', path.stem).strip()
    if not words:
        words = re.sub(r'[_\d]+', ' ', path.parent.name if path.parent != root else '').strip()
    return words or 'motion'


def action_of(label: str, speed: float) -> str:
    """
    Give one word for a label; what is called walking or running is decided by the speed.

    ``speed`` mean speed over the floor in m/s; the change from walking to running is near 2 m/s.
    """
    text = label.lower().replace('_', ' ')
    action = next((name for name, pattern in ACTIONS if re.search(pattern, text)), 'other')
    if action in ('walk', 'run'):
        return 'run' if speed > 2.1 else 'walk'
    return action
