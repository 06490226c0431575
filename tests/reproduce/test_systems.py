from __future__ import annotations

import importlib
import sys

import pytest

from fastmtl.reproduce import systems


def test_the_old_name_warns(monkeypatch):
    monkeypatch.delitem(sys.modules, "fastmtl.systems", raising=False)
    with pytest.warns(DeprecationWarning, match=r"fastmtl\.reproduce\.systems"):
        old = importlib.import_module("fastmtl.systems")
    assert old.TABLES is systems.TABLES


def test_a_system_is_found_by_its_name():
    assert systems.TABLES["mtmlan"].system("wu").row == "WU"
    with pytest.raises(ValueError, match=r"^systems: expected some of cmlc, .*, got 'vgg'"):
        systems.TABLES["mtmlan"].system("vgg")
