"""Text for people and programs: names cut to a length, and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence


def short(name: str, most: int = 22) -> str:
    """A name cut to a length.

    Examples:
        >>> short("emergency_response", 10)
        'emergency…'
    """
    return name if len(name) <= most else name[: most - 1] + "…"


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV, with lines that end alike on every system; None is an empty field.

    Examples:
        >>> csv_text([["name", "share"], ["a, b", 0.5], ["c", None]])
        'name,share\\n"a, b",0.5\\nc,\\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
