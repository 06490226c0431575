"""TFRecord files: records one behind another, each with its length and two checksums.

A record is its length (8 bytes), the masked CRC-32C of these, the content, and the masked CRC-32C
of that, all little-endian (tensorflow/core/lib/io/record_writer.h).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastmtl.data import DataError
from fastmtl.data.fields import require_file

_Words = NDArray[np.uint32]
_HEAD = struct.Struct("<QI")
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed


def records(path: Path) -> Iterator[bytes]:
    """The content of every record of a file.

    Raises:
        DataError: naming the record, for one that is cut short or whose checksum is another.
    """
    path = require_file(path)
    with path.open("rb") as file:
        left, number = os.fstat(file.fileno()).st_size, 0
        while left:
            content = _record(file, f"record {number}", str(path), left)
            left -= _HEAD.size + len(content) + 4
            number += 1
            yield content


def _record(file: BinaryIO, field: str, source: str, left: int) -> bytes:
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise DataError.at(source, field, f"{_HEAD.size} bytes of its length", f"{len(head)}")
    size, told = _HEAD.unpack(head)
    if told != masked(crc32c(head[:8])):
        raise DataError.at(source, field, "a length with its checksum", "another (not a TFRecord?)")
    if size > left - _HEAD.size - 4:
        got = f"{left - _HEAD.size} to the end of the file"
        raise DataError.at(source, field, f"{size + 4} bytes", got)
    content, end = file.read(size), file.read(4)
    if len(end) < 4 or struct.unpack("<I", end)[0] != masked(crc32c(content)):
        raise DataError.at(source, field, "content with its checksum", "another: it is damaged")
    return content


def masked(crc: int) -> int:
    """The checksum as it is stored: rotated, and shifted by a constant."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720, appendix B.4).

    A CRC is linear: those of neighbours A and B make that of AB, shift(A, bytes of B) xor B. So
    those of all words of four bytes come from tables, and are put together pair by pair.

    Examples:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    # The register starts as ones: the same as flipping the first 32 bits, where there are so many.
    if len(data) < 4:
        register = 0xFFFFFFFF
        for byte in data:
            register = int(_shift(0)[0][(register ^ byte) & 255]) ^ register >> 8
        return register ^ 0xFFFFFFFF
    # Zeros before them change nothing.
    padding = -len(data) % 4
    content = np.zeros(padding + len(data), np.uint8)
    content[padding:] = np.frombuffer(data, np.uint8)
    content[padding : padding + 4] ^= 255
    level = 2  # of words of 2^2 bytes
    crcs = _shifted(_shift(level), content.view("<u4").astype(np.uint32))
    while len(crcs) > 1:
        if len(crcs) % 2:
            crcs = np.concatenate([np.zeros(1, np.uint32), crcs])
        crcs = _shifted(_shift(level), crcs[::2]) ^ crcs[1::2]
        level += 1
    return int(crcs[0]) ^ 0xFFFFFFFF


@cache
def _shift(level: int) -> _Words:
    """What 2^level zero bytes make of each byte of a CRC, (4, 256)."""
    if level:
        half = _shift(level - 1)
        return _shifted(half, half)
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ _POLYNOMIAL, table >> 1).astype(np.uint32)
    rest = np.arange(256, dtype=np.uint32)
    return np.stack([table, rest, rest << 8, rest << 16])


def _shifted(table: _Words, crcs: _Words) -> _Words:
    out: _Words = table[0][crcs & 255]
    for byte in (1, 2, 3):
        out ^= table[byte][crcs >> 8 * byte & 255]
    return out
