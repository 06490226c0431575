"""The options of a run, those that were chosen before those that were not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from fastmtl.report.markup import Markup, join, tag
from fastmtl.training import TrainConfig

_FILES = ("data", "test", "xml")


def settings_tables(settings: Mapping[str, Any], record: Mapping[str, Any]) -> Markup:
    """What differs from the defaults of this version, the data's features, and all else folded."""
    defaults = TrainConfig().to_dict()
    settings = {k: _file_name(v) if k in _FILES else v for k, v in settings.items()}
    own = {k: v for k, v in settings.items() if v != defaults.get(k)}
    rest = {k: v for k, v in settings.items() if k not in own}
    features = record["data"]["features"]
    sequences = set(record["data"]["sequences"])
    read = {k: f"{v:,} features" + " a step" * (k in sequences) for k, v in features.items()}
    return join(
        tag("div", _table("chosen", own), _table("the model reads", read), class_="grid wide"),
        tag("details", tag("summary", "Options at their defaults"), _table("option", rest)),
    )


def _table(title: str, values: Mapping[str, Any]) -> Markup:
    rows = [
        tag("tr", tag("th", name, scope="row"), tag("td", _shown(value)))
        for name, value in values.items()
    ]
    head = tag("tr", tag("th", title, colspan=2))
    table = tag("table", tag("thead", head), tag("tbody", rows), class_="settings")
    return tag("div", table, class_="scroll")


def _file_name(value: Any) -> Any:
    """A file without its directories, which are nobody's business but the machine's."""
    return value if value is None or value.startswith("synthetic:") else PurePath(value).name


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
