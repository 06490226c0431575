"""The options of a run in a TOML file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from fastmtl._checks import did_you_mean
from fastmtl.training.config import TrainConfig, option_help
from fastmtl.training.options import declared

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_options(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The options of `TrainConfig` that a file sets, by name; hyphens stand for underscores.

    Raises:
        ValueError: for what is no TOML, an option that does not exist, or a value out of range.
        OSError: if the file cannot be read.
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected TOML, got something else ({error})") from error
    options, given = declared(TrainConfig), {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in options:
            near = did_you_mean(name, options)
            raise ValueError(f"{path}: expected options of fastmtl train, got {key}{near}")
        try:
            options[name].check(value)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        given[name] = value
    return given


def options_toml(config: TrainConfig) -> str:
    """All options in the order of their panels, each with its help; what is unset is commented out.

    Examples:
        >>> text = options_toml(TrainConfig(lr=0.01))
        >>> print(next(line for line in text.splitlines() if line.startswith("lr =")))
        lr = 0.01  # Learning rate of AdamW.
    """
    panels: dict[str, list[str]] = {}
    for name, each in declared(TrainConfig).items():
        value = getattr(config, name)
        # JSON's text, numbers and truth values are TOML's.
        setting = f"# {name} =" if value is None else f"{name} = {json.dumps(value)}"
        panels.setdefault(each.option.panel, []).append(f"{setting}  # {option_help(name)}")
    return "\n\n".join("\n".join([f"# {panel}", *lines]) for panel, lines in panels.items()) + "\n"
