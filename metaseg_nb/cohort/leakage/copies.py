"""Copies of a file, told by little of its content: an audit answers at once."""

import os
from pathlib import Path

from metaseg_nb.cohort.file_kinds import GZIP_MAGIC

# Of a file that is not packed; in the middle of a volume there is anatomy.
BLOCK_BYTES = 2**16


def content_key(path: Path) -> tuple[int, bytes] | None:
    """What copies of a file have in common and other files do not; None where it cannot be told.

    Of a packed file the checksum and size of its content, which are its last eight bytes (RFC 1952): packing it
    again does not change them. Of another its size and its middle.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP_MAGIC
            size = os.fstat(file.fileno()).st_size
            n_bytes = 8 if packed else min(BLOCK_BYTES, size)
            file.seek(size - n_bytes if packed else (size - n_bytes) // 2)
            block = file.read(n_bytes)
    except (OSError, ValueError):
        return None
    # all bytes alike: an empty file, the empty block that may end a packed one, or background
    return None if len(set(block)) < 2 else (0 if packed else size, block)
