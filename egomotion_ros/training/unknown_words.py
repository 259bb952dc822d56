# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Sentences with a word that nobody knows: what verbs of users look like to a trained grammar."""

from __future__ import annotations

import numpy as np

from egomotion_ros.data.instructions import templates
from egomotion_ros.data.instructions_furnished import HELD_OUT_VERBS, MEANT, UNMEASURED
from egomotion_ros.data.scenes import COLOUR_NAMES

#: Words of the training sentences that say what to do, and letters of words that say nothing.
_TURNING = frozenset(('turn', 'face', 'look', 'rotate', 'find', 'search'))
_WALKING = frozenset(('walk', 'go', 'move', 'head', 'come', 'approach', 'make', 'get'))
DOING = _TURNING | _WALKING | {
    'stop', 'stand', 'wait', 'stay', 'reach', 'touch', 'put', 'take', 'hold', 'run', 'kick',
    'jump', 'bend', 'wave'}
#: Of sentences without a measure those of walking as far as "walk" means still tell that, where
#: the way is in their words; of others nothing would be left that tells.
_AHEAD = frozenset(('ahead', 'forward', 'straight'))
_LEFT_ALONE = frozenset(
    text for text in UNMEASURED if text not in MEANT['train']['walk_forward'][2.0]
    or _AHEAD.isdisjoint(text.split())) | {'bend forward', 'bend your body forward'}
#: Sentences that ask to do nothing.
_STILL = frozenset(templates('stand_still', 'train', 'furnished'))
#: Words of sentences that name an object.
COLOURED = frozenset(COLOUR_NAMES)
#: Parts of words that mean nothing: beginnings, middles and ends of English syllables.
ONSETS = ('', *'bcdfghjklmnpqrstvwz', 'bl', 'br', 'ch', 'cl', 'cr', 'dr', 'fl', 'fr', 'gl', 'gr',
          'pl', 'pr', 'sc', 'sh', 'sk', 'sl', 'sp', 'st', 'str', 'sw', 'th', 'tr', 'tw', 'wh')
NUCLEI = (*'aeiouy', 'ai', 'ea', 'ee', 'oa', 'oo', 'ou')
CODAS = ('', '', *'bdgklmnprstvxz', 'ck', 'ch', 'ct', 'dge', 'ft', 'ld', 'll', 'mp', 'nce', 'nd',
         'ng', 'nk', 'nt', 'rch', 'rd', 'rk', 'rt', 'se', 'sh', 'sp', 'ss', 'st', 'te', 've')


def _unknown_word(rng: np.random.Generator, taken: frozenset[str]) -> str:
    """Make a word of up to three syllables up, none of ``taken`` nor one that begins as DOING."""
    begun = tuple(DOING)
    while True:
        word = ''.join(str(rng.choice(part)) for _ in range(int(rng.choice((1, 1, 2, 2, 3))))
                       for part in (ONSETS, NUCLEI, CODAS))
        # The text's tokens of a word that begins with "go" begin with that of "go".
        if word not in taken and not word.startswith(begun):
            return word


def blurred(texts: list[str], seed: int = 0, known: frozenset[str] = frozenset()) -> list[str]:
    """
    Sentences with one word that says what to do replaced by one that means nothing.

    Colours, shapes, sides, numbers and the words between stay: users say "stroll to the red
    ball", and what is not in the training grammar must not hide what is.  What is left has to
    tell: with an unknown word one goes *to* an object and turns *towards* or looks *at* it, and
    *ahead* or *forward* one walks.  Sentences of one word stay as they are, but those that ask to
    stand still become unknown words alone: what nobody understands moves nothing.
    ``known`` are words of other sentences, which mean something too.
    """
    rng = np.random.default_rng(seed)
    # Chance must not spell a word that says something, nor one that is held out.
    taken = HELD_OUT_VERBS.union(known, *(text.split() for text in texts))
    result = []
    for text in texts:
        words = text.split()
        doing = [n for n, word in enumerate(words) if word in DOING]
        if len(words) == 1 or text in _LEFT_ALONE:
            doing = []
        if text in _STILL:
            words, doing = [_unknown_word(rng, taken) for _ in range(int(rng.integers(1, 4)))], []
        if not COLOURED.isdisjoint(words):
            unclear = _WALKING if 'towards' in words else (
                frozenset() if 'at' in words else _TURNING)
            doing = [n for n in doing if words[n] not in unclear]
        if doing:
            words[doing[int(rng.integers(len(doing)))]] = _unknown_word(rng, taken)
        result.append(' '.join(words))
    return result
