"""What samples are called goes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastmtl.data import DataError, MultiTaskData, from_samples, load
from tests.data.test_stored import WRITERS, Write, fields

N = 60
NAMES = [f"flööd {i}.mp4" for i in range(N)]


@pytest.mark.parametrize("write", WRITERS)
def test_every_reader_and_subset_keeps_them(tmp_path: Path, write: Write) -> None:
    encoded = np.array([name.encode() for name in NAMES])
    path = write(tmp_path, fields() | {"sample_names": encoded})
    for memory in ("load", "stream"):
        data = load(path, memory=memory)
        assert data.sample_names == NAMES
        assert data.warnings == ()
        rows = data.indices("test")
        assert data.subset("test").sample_names == [NAMES[row] for row in rows.tolist()]
        assert data.subset([7, 3]).sample_names == [NAMES[7], NAMES[3]]
    joined = load(path, test=path)
    assert joined.sample_names == NAMES * 2


def test_there_need_be_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **fields())
    data = load(tmp_path / "a.npz")
    assert data.sample_names is None
    assert data.subset("test").sample_names is None


def test_a_test_file_without_names_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **fields(), sample_names=np.array(NAMES))
    np.savez(tmp_path / "b.npz", **fields())
    with pytest.raises(DataError, match="sample_names: expected the field in both files"):
        load(tmp_path / "a.npz", test=tmp_path / "b.npz")


def test_tables_have_a_column_of_them(tmp_path: Path) -> None:
    lines = "".join(f"{i},{i % 2},clip {i}\n" for i in range(10))
    (tmp_path / "a.csv").write_text("red,y_sea,sample_names\n" + lines)
    data = load(tmp_path / "a.csv")
    assert data.sample_names == [f"clip {i}" for i in range(10)]
    assert data.modalities == {"x": (1,)}


def test_samples_of_ones_own_have_them() -> None:
    samples = [(torch.randn(3), [i % 2]) for i in range(10)]
    data = from_samples(samples, sample_names=list("abcdefghij"))
    assert data.names_of(torch.tensor([9, 0])) == ["j", "a"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"] * 9, "sample_names: expected 10 rows, as many as x has, got 9"),
        (range(10), "sample_names: expected strings"),
        ([["a"]] * 10, "sample_names: expected a vector of strings"),
    ],
)
def test_wrong_ones_are_refused(names: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        MultiTaskData.from_arrays(np.ones((10, 2)), [[0], [1]] * 5, sample_names=names)
