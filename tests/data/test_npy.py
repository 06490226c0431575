"""Directories of `.npy` files, whole and damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastmtl
from fastmtl.data import DataError, load_npy

Y = np.tile([[0, 1], [1, 0]], (10, 1))


def write(folder: Path, **arrays: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, value in {"x": np.ones((20, 3), np.float32), "y": Y, **arrays}.items():
        np.save(folder / f"{name}.npy", value)
    return folder


def refuses(path: Path, message: str) -> None:
    for memory in ("load", "stream"):
        with pytest.raises(DataError, match=message) as caught:
            load_npy(path, memory=memory)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_same_result_as_npz(tmp_path: Path) -> None:
    arrays = {"x": np.random.default_rng(0).standard_normal((20, 4, 2)), "y": Y}
    arrays |= {"lengths": np.arange(20) % 4 + 1, "label_names": np.array(["sea", "sky"])}
    arrays |= {"split": np.array(["train", "val", "test", "train"] * 5)}
    path = write(tmp_path / "set", **arrays)
    np.savez(tmp_path / "set.npz", **arrays)
    one, other = fastmtl.data.load(path), fastmtl.data.load(tmp_path / "set.npz")
    assert torch.equal(one.features()["x"], other.features()["x"])
    assert torch.equal(one.split, other.split)
    assert one.label_names == other.label_names == ["sea", "sky"]
    assert one.name == "set"


def test_a_test_directory(tmp_path: Path) -> None:
    data = load_npy(write(tmp_path / "a"), test=write(tmp_path / "b"))
    assert len(data.indices("test")) == 20


def test_other_arrays_are_told_and_other_files_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a", notes=np.ones(3))
    (path / "readme.txt").write_text("x")
    (warning,) = load_npy(path).warnings
    assert "the field 'notes' is unknown" in warning


def test_what_is_no_such_directory(tmp_path: Path) -> None:
    refuses(tmp_path / "none", "file: expected a directory of .npy files")
    refuses(tmp_path, r"x: expected features in x or x_<modality>, got the fields \(none\)")
    with pytest.raises(
        DataError, match=r"a directory of \.npy or of datasets, or synthetic:NAME, got the ending"
    ):
        fastmtl.data.load(tmp_path / "a.txt")


def test_damaged_arrays(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    whole = (path / "x.npy").read_bytes()
    for content, message in [
        (b"", "file: expected data, got an empty file"),
        (b"other", "x: expected an array in .npy format, got other content"),
        (whole[:20], "x: expected an array, got a broken one"),
        (whole[:-3], "x: expected an array, got a broken one .* for float32 of shape"),
        (whole.replace(b"<f4", b"<g4"), "x: expected an array, got a broken one"),
        (b"\x93NUMPY\x09\x00" + whole[8:], "x: expected numbers or strings, got .npy format"),
    ]:
        (path / "x.npy").write_bytes(content)
        refuses(path, message)
    np.save(path / "x.npy", np.array([{}] * 20, dtype=object))
    refuses(path, "x: expected an array, got Python objects .a pickle")


def test_sizes_beyond_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a")
    monkeypatch.setenv("FASTMTL_MEMORY_LIMIT", "200")
    with pytest.raises(DataError, match="y: expected data of at most 200 B"):
        load_npy(path)
