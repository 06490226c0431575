"""HTML and SVG elements out of Python, with everything escaped that is no element itself."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

# Elements that have no end tag in HTML.
_VOID = frozenset({"br", "col", "img", "meta"})
# What a page cannot hold even where it is escaped: an attribute or a text that ends in the middle.
_CONTROL = {code: "�" for code in range(32) if code not in (9, 10, 13)}


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element; children that are no `Markup` are escaped, and iterables of children joined.

    An attribute's name may end in `_` (`class_`) and has `-` for every other `_`; one that is None
    is left out.

    Examples:
        >>> tag("td", "sea & sun", class_="label", data_key='"')
        '<td class="label" data-key="&quot;">sea &amp; sun</td>'
    """
    named = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{named}>")
    return Markup(f"<{name}{named}>{join(*children)}</{name}>")


def join(*children: Any) -> Markup:
    """Children one after the other, escaped as in `tag`; None is nothing.

    Examples:
        >>> join("a < b", [tag("i", 1), None])
        'a &lt; b<i>1</i>'
    """
    return Markup("".join(_child(child) for child in children))


def _child(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, Iterable) and not isinstance(child, str):
        return join(*child)
    return _escaped(child)


def _escaped(value: Any) -> str:
    return escape(str(value).translate(_CONTROL), quote=True)


def number(value: float | None, digits: int = 3) -> str:
    """A figure as text; a dash where there is none.

    Examples:
        >>> number(0.25), number(None), number(float("nan"))
        ('0.250', '–', '–')
    """
    return "–" if value is None or value != value else f"{value:.{digits}f}"
