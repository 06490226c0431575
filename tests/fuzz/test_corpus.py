"""What `make fuzz` once found, and a few cases of every run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.fuzz.__main__ import CORPUS
from tests.fuzz.cases import Case, cases
from tests.fuzz.ways import run


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"):
        yield


@pytest.mark.parametrize("where", ["there", "native-cuda", "triton"])
@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_found(path: Path, where: str) -> None:
    case = Case.of_json(path.read_text())
    run(case if where == "there" else replace(case, where=where))


@settings(max_examples=100)
@given(cases(["native"]))
def test_random_calls(case: Case) -> None:
    run(case)


@given(cases(["native-cuda"]))
def test_random_calls_on_the_cuda_kernels(case: Case) -> None:
    run(case)
