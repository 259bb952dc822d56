# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Files a command writes in the end: whether it could is known before the work, not after it."""

from __future__ import annotations

from importlib.util import find_spec
import os
from pathlib import Path


def output_file(path: Path | None, option: str) -> None:
    """
    Make the folder of a file that ``option`` names; None is none asked for.

    Raises ValueError where no such file could be written: a folder of that name, no right to
    write; OSError where its folder cannot be made.
    """
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f'{option} {path} is a folder, it takes a file')
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise ValueError(f'{option} {path} cannot be written: no permission')


def drawing(wanted: object, option: str) -> None:
    """Raise ValueError where something ``wanted`` of ``option`` needs matplotlib and it lacks."""
    if wanted and find_spec('matplotlib') is None:
        raise ValueError(f'{option} needs matplotlib: pip install matplotlib')
