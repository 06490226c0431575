"""Data sets in the layouts that they are published in, to what fastmtl reads."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastmtl._checks import did_you_mean
from fastmtl.convert import crisismmd, mulan_bags, nuswide_object, video_folders, youtube8m
from fastmtl.data import DataError

__all__ = ["LAYOUTS", "convert"]

# How a layout is called, and what converts it.
LAYOUTS: dict[str, Callable[..., list[str]]] = {
    "crisismmd": crisismmd.convert,
    "video-folders": video_folders.convert,
    "nus-wide-object": nuswide_object.convert,
    "mulan-bags": mulan_bags.convert,
    "youtube-8m": youtube8m.convert,
}


def convert(
    layout: str, source: str | os.PathLike[str], out: str | os.PathLike[str], **options: Any
) -> list[str]:
    """Convert a published data set to an .h5 data file, or to a manifest for `fastmtl extract`.

    Args:
        layout: crisismmd, video-folders, nus-wide-object, mulan-bags or youtube-8m.
        source: the file or directory as it is published.
        out: the file to write: a manifest `.csv` of the first two, an `.h5` of the others.
        **options: of the layout, see `docs/convert.md`; those that are None are left out.

    Returns:
        Lines that tell what was found.

    Raises:
        DataError: for a layout or option that is not there, and files that cannot be used.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part in ("Train", "Test"):
        ...         _ = Path(folder, f"{part}_Normalized_CH.dat").write_text("0.5 1\\n0.25 0\\n")
        ...         _ = Path(folder, f"Labels_bear_{part}.txt").write_text("1\\n0\\n")
        ...     convert("nus-wide-object", folder, folder + "/objects.h5")
        ['2 train, 2 test images, 1 kinds of features, 1 concepts']
    """
    function, given = choose(layout, options)
    source = Path(source)
    if not source.exists():
        raise DataError.at(str(source), "source", "a file or directory", "a path where nothing is")
    return function(source, Path(out), **given)


def choose(
    layout: str, options: Mapping[str, Any]
) -> tuple[Callable[..., list[str]], dict[str, Any]]:
    """The function of a layout, and of the options those that are given; DataError for others."""
    if layout not in LAYOUTS:
        got = repr(layout) + did_you_mean(layout, LAYOUTS)
        raise DataError(f"layout: expected one of {', '.join(LAYOUTS)}, got {got}")
    function = LAYOUTS[layout]
    given = {name: value for name, value in options.items() if value is not None}
    known = list(inspect.signature(function).parameters)[2:]
    for name, value in given.items():
        if name not in known:
            raise DataError(f"{name}: expected none for {layout}, got {value}")
    return function, given
