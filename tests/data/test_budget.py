"""The memory that data may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastmtl.data import DataError, budget
from fastmtl.data.budget import Budget


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000", 1000), ("2K", 2048), ("3 MB", 3 << 20), ("8GiB", 8 << 30), ("1t", 1 << 40)],
)
def test_the_environment_sets_the_limit(
    monkeypatch: pytest.MonkeyPatch, text: str, size: int
) -> None:
    monkeypatch.setenv(budget.LIMIT, text)
    assert Budget("a").limit == size


@pytest.mark.parametrize("text", ["much", "-1", "1.5", "0", "8Gb5", "9" * 30])
def test_a_limit_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(budget.LIMIT, text)
    with pytest.raises(DataError, match=r"^FASTMTL_MEMORY_LIMIT: expected a size such as 8GiB"):
        Budget("a")


def test_a_file_may_grow_a_hundredfold_or_to_one_gib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(budget.LIMIT, raising=False)
    monkeypatch.setattr(budget, "_memory", lambda: 100 << 30)
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_text("x")
    with large.open("wb") as file:
        file.truncate(100 << 20)
    assert [Budget("a", path).limit >> 30 for path in (small, large, None)] == [1, 9, 50]


def test_what_was_taken_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(budget.LIMIT, "100")
    own = Budget("a")
    own.take("x", 60)
    own.take_array("y", 10, 4, copied=False)
    with pytest.raises(DataError, match=r"z: expected data of at most 100 B .* got 1 B beside 100"):
        own.take("z", 1)
