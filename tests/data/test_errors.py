"""DataError: one line of one shape, whatever comes in."""

from __future__ import annotations

import pickle

from fastmtl.data import DataError


def test_is_a_value_error_of_one_line() -> None:
    error = DataError.at("a.npz", "y", "labels", "two\nlines")
    assert isinstance(error, ValueError)
    assert str(error) == "a.npz: y: expected labels, got two lines"


def test_survives_pickling_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DataError.at("a", "b", "c", "d")))
    assert isinstance(error, DataError)
    assert str(error) == "a: b: expected c, got d"
