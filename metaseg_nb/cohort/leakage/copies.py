"""Copies of a file, recognised by a small part of its content, so that an audit is fast."""

import os
import zlib
from pathlib import Path

from metaseg_nb.cohort.file_kinds import GZIP_MAGIC, opened

# Read from the middle of a file that is not packed, where a volume has anatomy.
BLOCK_BYTES = 2**16
# Of NIfTI-2, the longer one.
HEADER_BYTES = 544


def content_key(path: Path) -> tuple[int, bytes] | None:
    """A key that only copies of a file share; None where the file cannot be read or is blank.

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


def is_blank(path: Path) -> bool:
    """Tell whether a file has no bytes but zeros behind its header, as the masks of patients without lesions."""
    try:
        with opened(path) as file:
            return not file.read()[HEADER_BYTES:].strip(b"\0")
    except (OSError, EOFError, zlib.error):
        return True
