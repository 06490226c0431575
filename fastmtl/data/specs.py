"""Options behind a name that is typed: `NAME?option=value&option=value`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from fastmtl._checks import did_you_mean
from fastmtl.data.errors import DataError


def parse_options(
    source: str, query: str, kinds: Mapping[str, Callable[[str], Any]]
) -> dict[str, Any]:
    """What stands behind the question mark, as values of the kinds (int, float, str) of options.

    Raises:
        DataError: naming `source`, for another text.

    Examples:
        >>> parse_options("stft?bands=64", "bands=64", {"bands": int, "step": float})
        {'bands': 64}
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise DataError.at(source, "options", "name=value pairs joined by &", repr(query)) from None
    options: dict[str, Any] = {}
    for option, text in pairs:
        if option not in kinds or option in options:
            expected = f"each of {', '.join(kinds)} at most once"
            got = repr(option) + ("" if option in options else did_you_mean(option, kinds))
            raise DataError.at(source, "options", expected, got)
        try:
            options[option] = kinds[option](text)
        except ValueError:
            kind = "an integer" if kinds[option] is int else "a number"
            raise DataError.at(source, option, kind, repr(text)) from None
    return options
