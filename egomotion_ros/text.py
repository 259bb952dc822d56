# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Instruction -> token ids of fixed length, with the ``tokenizers`` library alone.

Training and every runtime use this one class, so that an instruction means the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
import unicodedata

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PAD = '<pad>'
#: More characters than this are refused before any work is done on them.
MAX_CHARACTERS = 400


class InstructionTooLongError(ValueError):
    """The instruction has more characters or tokens than the prompt can hold."""


def clean_instruction(text: str) -> str:
    """
    Return the instruction as the models see it: NFKC, one line, single spaces.

    Raises ValueError when it is no text, empty, or holds unpaired surrogates;
    InstructionTooLongError beyond ``MAX_CHARACTERS``.
    """
    if not isinstance(text, str):
        raise ValueError(f'the instruction must be text, not {type(text).__name__}')
    if len(text) > MAX_CHARACTERS:
        raise InstructionTooLongError(f'the instruction has {len(text)} characters, '
                                      f'at most {MAX_CHARACTERS} are allowed')
    if any(unicodedata.category(char) == 'Cs' for char in text):
        raise ValueError('the instruction is not valid Unicode text')
    text = unicodedata.normalize('NFKC', text)
    text = ''.join(' ' if unicodedata.category(char)[0] in 'CZ' else char for char in text)
    text = ' '.join(text.split())
    if not text:
        raise ValueError('the instruction is empty')
    return text


class TextEncoder:
    """Tokenizer of the prompt: ``encode(text)`` -> ids and mask of ``length`` tokens."""

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        # A pretrained tokenizer says in its file how it pads.
        pad = (tokenizer.padding or {}).get('pad_id', tokenizer.token_to_id(PAD))
        if pad is None or pad >= tokenizer.get_vocab_size():
            raise ValueError(f'the text tokenizer has no {PAD} token')
        # Words that look like special tokens are the user's words, never control.
        tokenizer.encode_special_tokens = True
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer, self._pad, self.length = tokenizer, pad, length

    @property
    def size(self) -> int:
        """Count of tokens of the vocabulary."""
        return self._tokenizer.get_vocab_size()

    @property
    def vocabulary(self) -> dict[str, int]:
        """Id of every token."""
        return self._tokenizer.get_vocab()

    @staticmethod
    def open(path: str | Path, length: int) -> TextEncoder:
        """Read a ``tokenizers`` JSON file; ValueError when it is none."""
        try:
            tokenizer = Tokenizer.from_str(Path(path).read_text(encoding='utf-8'))
        except Exception as error:  # the library raises bare Exception for bad content
            raise ValueError(f'{path}: no text tokenizer ({error})') from None
        return TextEncoder(tokenizer, length)

    @staticmethod
    def train(texts: Iterable[str], size: int, length: int) -> TextEncoder:
        """Learn a byte-level BPE of at most ``size`` tokens; any text can be encoded with it."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=[PAD], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        tokenizer.train_from_iterator((clean_instruction(text) for text in texts), trainer)
        return TextEncoder(tokenizer, length)

    def save(self, path: str | Path) -> None:
        """Write the ``tokenizers`` JSON file."""
        self._tokenizer.enable_padding(pad_id=self._pad,
                                       pad_token=self._tokenizer.id_to_token(self._pad))
        Path(path).write_text(self._tokenizer.to_str(), encoding='utf-8')
        self._tokenizer.no_padding()

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """
        Return ids (length,) int64 and mask (length,) bool, True where a token is real.

        Raises ValueError for an empty instruction, InstructionTooLongError for one that does not
        fit: a cut instruction would mean something else.
        """
        ids = self._tokenizer.encode(clean_instruction(text), add_special_tokens=False).ids
        if len(ids) > self.length:
            raise InstructionTooLongError(f'the instruction has {len(ids)} tokens, the prompt '
                                          f'holds {self.length}')
        row = np.full(self.length, self._pad, np.int64)
        row[:len(ids)] = ids
        return row, np.arange(self.length) < len(ids)
