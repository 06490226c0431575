"""Whether the heaps that hold the strings of an HDF5 file can be walked through to their end.

HDF5 walks through a heap from object to object, by the sizes that these declare, and stays for ever
at a free one of size 0 (specification, section III.E: "Disk Format: Level 1E - Global Heap").
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

_SIGNATURE = b"GCOL\x01\x00\x00\x00"
_HEADER = struct.Struct("<8sQ")  # signature with version; size of the collection, this included
_OBJECT = struct.Struct("<HHIQ")  # index (0: free space), references, reserved; size


def check_heaps(path: Path) -> None:
    """Raise ValueError if HDF5 would not come to the end of a heap of the file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # Heaps that lie in one another would be walked through again and again.
        most = len(content) // _OBJECT.size + 1
        start = content.find(_SIGNATURE)
        while start >= 0:
            for position, size in _objects(content, start):
                most -= 1
                if not size or not most:
                    raise ValueError(f"the heap of its strings is broken at byte {position}")
            start = content.find(_SIGNATURE, start + 1)


def _objects(content: mmap.mmap, start: int) -> Iterator[tuple[int, int]]:
    """Where the objects of a heap begin, and how much each takes with its header."""
    position = start + _HEADER.size
    if position > len(content):
        return
    _, size = _HEADER.unpack_from(content, start)
    end = min(start + size, len(content))
    while position + _OBJECT.size <= end:
        index, _, _, size = _OBJECT.unpack_from(content, position)
        # The size of free space has its header in it; objects are padded to 8 bytes.
        size = size if index == 0 else _OBJECT.size + -(-size // 8) * 8
        yield position, size
        position += size
