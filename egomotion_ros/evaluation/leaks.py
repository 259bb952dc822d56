# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
What stands on both sides of a split: sentences, performances, and recordings under other names.

Scores on a test set that training has seen measure memory.  The audit counts it; it hides
nothing and judges nothing: a grammar of short commands must share sentences across splits
("stand still"), a benchmark of free text must not.
"""

from __future__ import annotations

import numpy as np

from egomotion_ros.data.importer_match import find_copies, signature
from egomotion_ros.data.library import MotionLibrary
from egomotion_ros.text import clean_instruction


def text_leaks(train: list[str], held_out: list[str], show: int = 5) -> dict[str, object]:
    """
    Held-out texts that stand verbatim in ``train``: after case and spaces are made equal.

    ``share`` counts texts as they come (a text that stands twice counts twice), ``unique`` each
    once.
    """
    if not train or not held_out:
        raise ValueError('the audit needs texts of both sides')
    known = {_plain(text) for text in train}
    asked = [_plain(text) for text in held_out]
    unique = sorted(set(asked))
    leaked = [text for text in unique if text in known]
    return {'train texts': len(train), 'held-out texts': len(held_out),
            'share': float(np.mean([text in known for text in asked])),
            'unique': len(leaked) / len(unique), 'examples': leaked[:show]}


def library_leaks(library: MotionLibrary, traces: bool = True) -> dict[str, object]:
    """
    Leaks of a motion library: labels, performances, root-height and joint traces across splits.

    ``traces`` False leaves out the search for copies of one recording, which reads every take.
    """
    names = {split: [i for i in library.infos if i.split == split] for split in
             ('train', 'val', 'test')}
    held = names['val'] + names['test']
    if not names['train'] or not held:
        raise ValueError(f'{library.folder}: the audit needs takes of train and of val or test')
    own = {i.performance for i in names['train']}
    out: dict[str, object] = {
        'takes': {split: len(infos) for split, infos in names.items()},
        'labels': text_leaks([i.label for i in names['train']], [i.label for i in held]),
        'performances across splits': sorted(
            {i.performance for i in held if i.performance in own}
            | ({i.performance for i in names['val']} & {i.performance for i in names['test']}))}
    if traces:
        infos = library.infos
        pairs = find_copies([signature(library.load(i.name).motion) for i in infos], progress=True)
        out['recordings across splits'] = sorted(
            f'{infos[a].name} ({infos[a].split}) = {infos[b].name} ({infos[b].split})'
            for a, b, _, _ in pairs if infos[a].split != infos[b].split)
    return out


def _plain(text: str) -> str:
    return clean_instruction(text).lower()
