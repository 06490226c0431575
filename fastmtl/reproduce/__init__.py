"""The papers' tables on any data: train every row, compare, draw."""

from __future__ import annotations

from fastmtl.reproduce.comparison import Comparison
from fastmtl.reproduce.plan import Plan
from fastmtl.reproduce.report import write_report
from fastmtl.reproduce.runner import run_all

__all__ = ["Comparison", "Plan", "run_all", "write_report"]
