"""How much memory data may ask for: checked by what it declares, before any is taken."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from fastmtl.data.errors import DataError

LIMIT = "FASTMTL_MEMORY_LIMIT"
# Compressed features seldom shrink to less than a hundredth; a small file may declare this much.
_EXPANSION, _SMALL = 100, 1 << 30
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Budget:
    """What is left of the memory that a data set may take.

    It is the value of the environment variable FASTMTL_MEMORY_LIMIT (8GiB, 500MB, or bytes). Unset,
    it is half of the machine's memory, and for a file not more than a hundred times its size, or
    1 GiB: a damaged or hostile file declares any size in a few bytes.

    Args:
        source: what the data is called in messages.
        path: the file that it is read from, if any.

    Examples:
        >>> Budget("synthetic:disaster").take("clips", 10**18)
        Traceback (most recent call last):
            ...
        fastmtl.data.errors.DataError: synthetic:disaster: clips: expected data of at most ...
    """

    def __init__(self, source: str, path: Path | None = None) -> None:
        self.source = source
        self.limit = memory_limit() or _usual(path)
        self.left = self.limit

    def take(self, field: str, size: int) -> None:
        """Set `size` bytes aside; DataError naming `field` if so many are not left."""
        if size > self.left:
            expected = (
                f"data of at most {_shown(self.limit)} (the environment variable {LIMIT}, such as "
                f"{LIMIT}={_shown(2 * max(size, self.limit), '')}, sets another limit)"
            )
            got = f"{_shown(size)} beside {_shown(self.limit - self.left)}"
            raise DataError.at(self.source, field, expected, got)
        self.left -= size

    def take_array(self, field: str, count: int, itemsize: int, *, copied: bool = True) -> None:
        """Set aside an array of `count` values, and its copy as float32 where one is made."""
        self.take(field, loaded_bytes(count, itemsize, copied=copied))


def loaded_bytes(count: int, itemsize: int, *, copied: bool) -> int:
    """What an array of `count` values takes once it is read, with its copy as float32."""
    return count * (itemsize + 4 * copied)


def memory_limit() -> int | None:
    """The value of the environment variable, None where it is not set."""
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,18})\s*([KMGT]?)(i?B)?", text, re.IGNORECASE)
    if match is None or not int(match[1]):
        raise DataError(f"{LIMIT}: expected a size such as 8GiB, 500MB or 1000000, got {text!r}")
    return int(match[1]) * _UNITS[match[2].upper()]


def _usual(path: Path | None) -> int:
    half = _memory() // 2
    return half if path is None else min(half, max(_SMALL, _EXPANSION * path.stat().st_size))


@cache
def _memory() -> int:
    """The machine's memory in bytes, or the container's; the system's word may be missing."""
    sizes = [1 << 40]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    group = Path("/sys/fs/cgroup/memory.max")
    if group.is_file() and (text := group.read_text().strip()).isdecimal():
        sizes.append(int(text))
    return min(size for size in sizes if size > 0)


def _shown(size: int, space: str = " ") -> str:
    unit = next((unit for unit in "TGMK" if size >= _UNITS[unit]), "")
    if not unit:
        return f"{size}{space}B"
    # Rounded up: what is suggested as a limit must do.
    return f"{-(-size // _UNITS[unit])}{space}{unit}iB"
