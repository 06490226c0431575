"""The table reader beneath the Mulan format."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from fastmtl.data import DataError
from fastmtl.data.arff_table import read_table


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "t.arff"
    path.write_bytes(text.encode("utf-8"))
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_line_numbers(tmp_path: Path, end: str) -> None:
    lines = ["@relation r", "@attribute a real", "", "@data", "1", "% none", "2"]
    read = read_table(table(tmp_path, end.join(lines)))
    assert read.values.tolist() == [[1], [2]]
    assert read.lines == [5, 7]


def test_other_separators_are_no_line_ends(tmp_path: Path) -> None:
    text = "@relation r\n@attribute 'a\u2028b' real\n@data\n1\n"
    assert read_table(table(tmp_path, text)).attributes[0].name == "a\u2028b"


def test_numbers_in_every_notation(tmp_path: Path) -> None:
    cells = ["1", "-1.5", "+.5", "2.", "1e3", "1E-3", " 7 ", "007"]
    header = "".join(f"@attribute a{i} real\n" for i in range(len(cells)))
    values = read_table(table(tmp_path, header + "@data\n" + ",".join(cells))).values
    assert np.allclose(values, [[float(c) for c in cells]])


def test_categories_that_are_no_numerals_stand_for_their_positions(tmp_path: Path) -> None:
    text = "@attribute a {b,1,'0'}\n@data\n1\n0\nb\n?\n"
    values = read_table(table(tmp_path, text)).values
    assert values[:3].flatten().tolist() == [1, 2, 0]
    assert np.isnan(values[3]).all()


def test_dense_and_sparse_rows_may_mix(tmp_path: Path) -> None:
    text = "@attribute a real\n@attribute b {no,yes}\n@data\n1,yes\n{1 yes}\n{}\n"
    assert read_table(table(tmp_path, text)).values.tolist() == [[1, 1], [0, 1], [0, 0]]


def test_binary_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.arff"
    path.write_bytes(bytes(range(256)) * 10)
    with pytest.raises(DataError, match="header: expected @relation, @attribute or @data"):
        read_table(path)


def test_real_values_against_a_plain_reading(shared_data: Path) -> None:
    path = shared_data / "mulan" / "yeast-test.arff"
    plain = np.loadtxt(path, delimiter=",", skiprows=121)
    assert np.array_equal(read_table(path).values, plain.astype(np.float32))


@pytest.mark.parametrize(
    "row",
    ["'a b' " + " " * 200_000 + "x,", "'" + "\\'" * 100_000 + "%", "{0 1" + " " * 200_000 + "'}"],
)
def test_reading_a_row_takes_time_in_its_length(tmp_path: Path, row: str) -> None:
    text = "@attribute a real\n@attribute b real\n@data\n" + row + "\n"
    start = time.process_time()
    with pytest.raises(DataError):
        read_table(table(tmp_path, text))
    assert time.process_time() - start < 5


def test_cells_with_quotes(tmp_path: Path) -> None:
    names = ["a b", "c,d", "e' f", "g"]
    header = "@attribute a {'a b','c,d','e\\' f',g}\n@attribute b real\n@data\n"
    rows = "'a b' , 1\n 'c,d',2\n'e\\' f' ,3\ng,4 % '\n"
    read = read_table(table(tmp_path, header + rows))
    assert list(read.attributes[0].codes or ()) == names
    assert read.values.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]


@pytest.mark.parametrize("column", ["9" * 5000, "99999999999999999999"])
@pytest.mark.parametrize("value", ["1", "'1'"])
def test_columns_beyond_any_are_refused(tmp_path: Path, column: str, value: str) -> None:
    text = f"@attribute a real\n@data\n{{{column} {value}}}\n"
    with pytest.raises(DataError, match="distinct columns from 0 to 0"):
        read_table(table(tmp_path, text))


def test_a_sparse_table_beyond_the_budget_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTMTL_MEMORY_LIMIT", "1M")
    header = "".join(f"@attribute a{i} real\n" for i in range(1000))
    with pytest.raises(DataError, match=r"@data: expected data of at most 1 MiB .* got 2 MiB"):
        read_table(table(tmp_path, header + "@data\n" + "{}\n" * 200))
