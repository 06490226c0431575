"""Tables, whole and damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data import DataError, load, load_table, table

HEADER = "red,y_sea,split,blue,y_sky,group\n"
ROWS = ["0.5,1,train,2,0,a", "1e-3,0,val,-7,,b", " 3 ,1,test, 4.25 ,1,c", "0,0,train,1,1,d"]


def write(folder: Path, text: str, name: str = "a.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_columns_are_labels_features_split_and_group(tmp_path: Path) -> None:
    data = load(write(tmp_path, "\ufeff" + HEADER + "\r\n".join(ROWS) + "\n\n"))
    assert isinstance(data.x, torch.Tensor)
    expected = torch.tensor([[0.5, 2], [1e-3, -7], [3, 4.25], [0, 1]])
    assert torch.equal(data.x, expected)
    nan = float("nan")
    expected = torch.tensor([[1, 0], [0, nan], [1, 1], [0, 1]])
    torch.testing.assert_close(data.y, expected, equal_nan=True)
    assert data.label_names == ["sea", "sky"]
    assert data.split.tolist() == [0, 1, 2, 0]
    assert data.group is not None
    assert data.name == "a"


def test_quoted_names_and_cells(tmp_path: Path) -> None:
    text = '"a, b",y_sea\n' + '"1",0\n2,"1"\n' * 5
    data = load_table(write(tmp_path, text))
    assert data.features()["x"].shape == (10, 1)


def test_a_test_file_has_the_same_columns_in_any_order(tmp_path: Path) -> None:
    first = write(tmp_path, "a,b,y_sea\n" + "1,2,0\n3,4,1\n" * 5)
    second = write(tmp_path, "y_sea,b,a\n1,20,10\n", "b.csv")
    data = load(first, test=second)
    assert data.tensors()["x"][-1].tolist() == [10, 20]
    assert len(data.indices("test")) == 1
    third = write(tmp_path, "y_sea,b,c\n1,20,10\n", "c.csv")
    with pytest.raises(
        DataError, match=r"columns: expected the features of the first file, got 'a'"
    ):
        load(first, test=third)


def test_without_labels_it_can_be_predicted(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,2\n")
    assert load(path, for_training=False).num_tasks == 0
    with pytest.raises(DataError, match="y: expected labels"):
        load(path)


BAD: list[tuple[str, str]] = [
    ("a,a,y_t\n1,2,1\n", "columns: expected distinct names, got 'a' more than once"),
    ("y_t,split\n1,train\n", "columns: expected features besides labels"),
    ("a,y_t\n", "rows: expected at least one, got none"),
    ("a,y_t\n1,0\n1\n", "rows: expected 2 cells, got 1 in line 3"),
    ("a,y_t\n1,0\nsea,1\n", "a: expected a number, got 'sea' in line 3"),
    ("a,y_t\n1,0\n,1\n", "a: expected a number, got an empty cell in line 3"),
    ("a,y_t\nnan,0\n2,1\n", "x: expected finite numbers, got 1 NaN"),
    ("a,y_t\n1e300,0\n2,1\n", "x: expected finite numbers"),
    ("a,y_t\n1,yes\n", "y_t: expected a number, got 'yes' in line 2"),
    ("a,y_t\n1,2\n" * 1, "y: expected only numbers from 0 to 1 or NaN"),
    ("a,y_t,split\n1,0,dev\n", "split: expected train, val or test, got 'dev' at row 0"),
    ('a,y_t\n"1,0\n', "file: expected a table, got a broken one"),
    ("a,y_t\n1,0\x00\n", "expected a"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_what_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        load_table(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00a,b\n\x81")
    with pytest.raises(DataError, match="file: expected a table, got a broken one"):
        load(tmp_path / "a.csv")
    with pytest.raises(DataError, match="file: expected an existing file"):
        load(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"memory: expected auto or load, .* stream for a table"):
        load(tmp_path / "a.csv", memory="stream")


def test_sizes_beyond_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a,y_t\n" + "1,0\n" * 100)
    monkeypatch.setenv("FASTMTL_MEMORY_LIMIT", "1K")
    with pytest.raises(DataError, match="rows: expected data of at most 1 KiB"):
        load(path)


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"file: expected pyarrow \(pip install pyarrow\)"):
        load(write(tmp_path, "PAR1", "a.parquet"))


def parquet(folder: Path, **columns: Any) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    given = {"red": np.arange(10.0), "y_sea": [0, 1] * 5, **columns}
    pq.write_table(pa.table(given), folder / "a.parquet", row_group_size=3)
    return folder / "a.parquet"


def test_a_parquet_file_is_the_same_table(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "blue": np.arange(10, dtype=np.int8), "y_sky": [True, None] * 5,
        "split": ["train", "val"] * 5, "group": list(range(10)),
    }  # fmt: skip
    data = load(parquet(tmp_path, **columns))
    lines = [f"{i}.0,{i % 2},{i},{'' if i % 2 else 1},{columns['split'][i]},{i}" for i in range(10)]
    text = "red,y_sea,blue,y_sky,split,group\n" + "\n".join(lines) + "\n"
    other = load(write(tmp_path, text))
    assert torch.equal(data.tensors()["x"], other.tensors()["x"])
    torch.testing.assert_close(data.y, other.y, equal_nan=True)
    assert torch.equal(data.split, other.split)
    assert data.label_names == other.label_names


def test_parquet_files_that_cannot_be_used(tmp_path: Path) -> None:
    for columns, message in [
        ({"name": ["a"] * 10}, "name: expected numbers, got string"),
        ({"blue": [1, None] * 5}, "blue: expected features without gaps, got nulls"),
        ({"blue": [float("nan")] * 10}, "x: expected finite numbers"),
    ]:
        with pytest.raises(DataError, match=message):
            load(parquet(tmp_path, **columns))
    path = parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="file: expected a table, got a broken one"):
        load(path)
