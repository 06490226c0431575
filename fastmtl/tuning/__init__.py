"""Searches for good options of a training run, by its validation figures. Needs Optuna."""

from __future__ import annotations

from fastmtl.tuning.samples import load_samples
from fastmtl.tuning.search import Search
from fastmtl.tuning.space import Choice, Range, default_space, parse_space
from fastmtl.tuning.study import SearchError, tune
from fastmtl.tuning.trial import Outcome

__all__ = [
    "Choice",
    "Outcome",
    "Range",
    "Search",
    "SearchError",
    "default_space",
    "load_samples",
    "parse_space",
    "tune",
]
