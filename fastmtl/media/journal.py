"""What an extraction has done so far, kept so that it can go on where it stopped."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastmtl._files import replacing
from fastmtl.media.errors import MediaError
from fastmtl.media.piece import Array

_ABOUT, _LINES = "about.json", "clips.jsonl"


@dataclass
class Entry:
    """What became of a clip.

    - `steps`: feature vectors by modality, of those that it has;
    - `cut`: the modalities of which there was more than was taken;
    - `silent`: whether a video was asked for sound and has none;
    - `wrong`: why there are no features of it, None where there are.
    """

    row: int
    steps: dict[str, int] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)
    silent: bool = False
    wrong: str | None = None


class Journal:
    """Features and entries of the clips so far, in order, in a directory; a context manager.

    Features of a modality are appended to a file, and a line with their sizes and checksum to
    another: what a line vouches for is there, and what is behind it is cut off when it goes on.

    Args:
        path: the directory.
        sizes: D by modality.
        about: what the extraction is of; another one's journal is refused.
    """

    def __init__(self, path: Path, sizes: Mapping[str, int], about: Mapping[str, Any]) -> None:
        self.path = path
        self.sizes = dict(sizes)
        self.about = json.loads(json.dumps(about))
        self.entries: list[Entry] = []
        self._files = ExitStack()
        self._features: dict[str, BinaryIO] = {}
        self._lines: BinaryIO | None = None

    def __enter__(self) -> Journal:
        self.path.mkdir(exist_ok=True)
        with self._files:
            if not self.fits():
                raise self._other()
            with replacing(self.path / _ABOUT) as temporary:
                temporary.write_text(json.dumps(self.about, indent=2))
            end = self._read_back()
            self._lines = self._open(_LINES, end)
            totals = {m: sum(each.steps.get(m, 0) for each in self.entries) for m in self.sizes}
            for modality, size in self.sizes.items():
                self._features[modality] = self._open(
                    f"{modality}.f32", totals[modality] * size * 4
                )
            self._files = self._files.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._files.close()
        except OSError:
            # On a full disk closing fails as writing did, which is what is told.
            if kind is None:
                raise

    def fits(self) -> bool:
        """Whether there is none yet, or one of this extraction."""
        return not self.path.exists() or self._there() in (None, self.about)

    def _there(self) -> Any:
        """What the journal that is there is of; None where there is none."""
        try:
            return json.loads((self.path / _ABOUT).read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return {}

    def add(self, entry: Entry, features: Mapping[str, Array]) -> None:
        """Keep what became of the next clip: features (steps, D) by modality."""
        try:
            self._append(entry, features)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.entries.append(entry)

    def _append(self, entry: Entry, features: Mapping[str, Array]) -> None:
        checksum = 0
        for modality in entry.steps:
            content = np.ascontiguousarray(features[modality], np.float32).tobytes()
            checksum = zlib.crc32(content, checksum)
            self._features[modality].write(content)
        line = {k: v for k, v in vars(entry).items() if v} | {"row": entry.row, "crc": checksum}
        assert self._lines is not None
        # The features first: a line is what says that they are there.
        for file in self._features.values():
            file.flush()
        self._lines.write(json.dumps(line).encode() + b"\n")
        self._lines.flush()

    def __iter__(self) -> Iterator[tuple[Entry, dict[str, Array]]]:
        """The entries and their features, of which one clip's are in memory at a time."""
        with ExitStack() as stack:
            files = {
                m: stack.enter_context(open(self.path / f"{m}.f32", "rb"))
                for m in self.sizes
                if (self.path / f"{m}.f32").is_file()
            }
            for entry in self.entries:
                yield entry, {m: self._next(files[m], m, n) for m, n in entry.steps.items()}

    def remove(self) -> None:
        """Delete it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _other(self) -> MediaError:
        there = self._there()
        differing = [key for key in self.about if there.get(key) != self.about[key]]
        return MediaError(
            f"{self.path}: holds an extraction that was begun with another "
            f"{' and another '.join(differing)} (--overwrite begins anew)"
        )

    def _next(self, file: BinaryIO, modality: str, steps: int) -> Array:
        content = file.read(steps * self.sizes[modality] * 4)
        return np.frombuffer(content, np.float32).reshape(-1, self.sizes[modality])

    def _open(self, name: str, size: int) -> BinaryIO:
        """A file to append to, cut to what is known to be well."""
        path = self.path / name
        path.touch()
        file = self._files.enter_context(path.open("r+b"))
        file.truncate(size)
        file.seek(size)
        return file

    def _read_back(self) -> int:
        """Take up the entries that are there and well; where the last of them ends."""
        path, end = self.path / _LINES, 0
        if not path.is_file():
            return end
        lines = path.read_bytes().splitlines(keepends=True)
        found = [entry for entry in map(_parse, lines) if entry is not None]
        checksums = [checksum for _, checksum in found]
        self.entries = [entry for entry, _ in found]
        well = 0
        try:
            for (entry, features), checksum, line in zip(self, checksums, lines, strict=False):
                whole = all(len(x) == entry.steps[m] for m, x in features.items())
                if not whole or entry.row != well or _checksum(entry, features) != checksum:
                    break
                well, end = well + 1, end + len(line)
        except (LookupError, ValueError, TypeError):
            pass
        self.entries = self.entries[:well]
        return end


def _checksum(entry: Entry, features: Mapping[str, Array]) -> int:
    checksum = 0
    for modality in entry.steps:
        checksum = zlib.crc32(features[modality].tobytes(), checksum)
    return checksum


def _parse(line: bytes) -> tuple[Entry, int] | None:
    try:
        value = json.loads(line)
        checksum = int(value.pop("crc"))
        return Entry(**value), checksum
    except (ValueError, LookupError, TypeError):
        return None
