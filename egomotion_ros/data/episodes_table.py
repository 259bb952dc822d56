# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an episode set holds, as a table: minutes, recorded sources and marks of every action."""

from __future__ import annotations

import numpy as np

from egomotion_ros.data.clips import CLIP_ACTIONS
from egomotion_ros.data.episodes import EpisodeSet
from egomotion_ros.data.gait import GaitLibrary
from egomotion_ros.data.instructions import ACTIONS, free_parameters
from egomotion_ros.types import FPS

#: Fewer source performances than this, and nothing can be claimed about takes held out.
FEW = 3


def sources(library: GaitLibrary, action: str) -> dict[str, set[str]]:
    """Performances an action is made of, by split: clips, waving gestures or walking strides."""
    if action in CLIP_ACTIONS:
        blocks = [c for c in library.clips if c.action == action]
    elif action == 'wave':
        blocks = list(library.gestures)
    elif action == 'stand_still':
        blocks = [*library.postures, *library.strides]
    else:
        blocks = list(library.strides)
    found: dict[str, set[str]] = {}
    for block in blocks:
        found.setdefault(block.split, set()).add(block.performance)
    return found


def mark(library: GaitLibrary, action: str, split: str) -> str:
    """
    Why no claim about held-out takes can rest on an action: ``one-source``, ``shared`` or ''.

    ``one-source`` actions have fewer than FEW source performances in all; ``shared`` ones have
    none in ``split`` and take those of other splits, as :data:`gait.BORROWS` says (sets of the
    test split drawn before it did so too).
    """
    found = sources(library, action)
    if len(set().union(*found.values())) < FEW:
        return 'one-source'
    return '' if split in found else 'shared'


def rows(written: EpisodeSet, library: GaitLibrary | None, split: str) -> list[str]:
    """
    Lines of the table; synthesised motions are counted apart from what was recorded.

    Without ``library`` (or motions) sources and minutes are left out.  Actions that the set has
    none of, for want of recordings, stand in the last line.
    """
    bank = written.bank
    lines = [f'{"action":<13}{"episodes":>9}{"motions":>9}{"minutes":>9}  sources: {split} / all']
    total = 0
    for number, action in enumerate(ACTIONS):
        episodes = int((written.action == number).sum())
        motions = 0
        if bank is not None:
            motions = int((np.asarray(bank.action) == number).sum())
        if not episodes and not motions:
            continue
        total += motions
        line = f'{action:<13}{episodes:>9}{motions:>9}'
        if bank is not None:
            line += f'{motions * bank.features.shape[1] / FPS / 60:>9.1f}'
        if library is not None and motions:
            found = sources(library, action)
            here, everywhere = len(found.get(split, ())), len(set().union(*found.values()))
            line += f'  {here} / {everywhere}  {mark(library, action, split)}'
        lines.append(line.rstrip())
    if bank is not None:
        lines.append(f'{"synthesised":<13}{len(written):>9}{total:>9}'
                     f'{total * bank.features.shape[1] / FPS / 60:>9.1f}  (stop_at shows the '
                     'motions of walk_to)')
        missing = [a for a in free_parameters(written.kind) if not len(bank.of(a))]
        if missing:
            lines.append(f'no recordings for {split}: {", ".join(missing)}; left out')
    return lines
