# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Arrays of ``.npz`` files from anywhere: sizes are checked first, damage is a ValueError."""

from __future__ import annotations

from collections.abc import Collection
import lzma
from pathlib import Path
import struct
import tokenize
import zipfile
import zlib

import numpy as np

#: What reading damaged ``.npy`` and ``.npz`` files raises: flipped bytes meet the archive's
#: directory, the compressed streams, or the array headers, which are Python literals.
DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, SyntaxError, OverflowError,
          MemoryError, RuntimeError, IndexError, struct.error, tokenize.TokenError,
          zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def read_arrays(path: Path, wanted: Collection[str], max_bytes: int) -> dict[str, np.ndarray]:
    """
    Read those of the ``wanted`` arrays that the file has; nothing is unpickled.

    Raises ValueError, with the file named, for an array larger than ``max_bytes`` (nothing is
    loaded then), for what is no archive, and for a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            large = [i.filename for i in archive.infolist() if i.file_size > max_bytes]
        if large:
            raise ValueError(f'{large[0]} is larger than {max_bytes} bytes')
        with np.load(path, allow_pickle=False) as data:
            arrays = {key: data[key] for key in data.files if key in wanted}
        # A member without the header of an array comes as its bytes.
        foreign = [key for key, value in arrays.items() if not isinstance(value, np.ndarray)]
        if foreign:
            raise ValueError(f'{foreign[0]} is no array')
        return arrays
    except ValueError as error:
        raise ValueError(f'{path.name}: {error}') from None
    except DAMAGE as error:
        raise ValueError(f'{path.name}: not an npz file, or damaged: '
                         f'{str(error) or type(error).__name__}') from None


__all__ = ['DAMAGE', 'read_arrays']
