"""Features that stay in their file give what those in memory give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import fastmtl
from fastmtl.data import DataError, MultiTaskData, Standardizer, StoredFeatures, placement

N = 60
DTYPES = ["i1", "u1", "i2", "i4", "i8", "u4", "f2", "f4", "f8", ">f4", ">i2", "?"]


def fields(dtype: str = "f4", seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "x_video": (10 * rng.standard_normal((N, 5, 3))).astype(dtype),
        "x_text": (10 * rng.standard_normal((N, 4))).astype(dtype),
        "y": rng.integers(0, 2, (N, 2)),
        "lengths": rng.integers(1, 6, N),
        "label_names": np.array(["sea", "sky"]),
    }


def write_npz(folder: Path, arrays: dict[str, Any]) -> Path:
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def write_npy(folder: Path, arrays: dict[str, Any]) -> Path:
    (folder / "arrays").mkdir(exist_ok=True)
    for name, value in arrays.items():
        np.save(folder / "arrays" / f"{name}.npy", value)
    return folder / "arrays"


def write_hdf5(folder: Path, arrays: dict[str, Any]) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        for name, value in arrays.items():
            file[name] = value.astype("S") if value.dtype.kind == "U" else value
    return folder / "a.h5"


def write_chunks(folder: Path, arrays: dict[str, Any]) -> Path:
    with h5py.File(folder / "b.h5", "w") as file:
        for name, value in arrays.items():
            value = value.astype("S") if value.dtype.kind == "U" else value
            options = {"compression": "gzip", "chunks": (7, *[2] * (value.ndim - 1))}
            file.create_dataset(name, data=value, **options if name[0] == "x" else {})
    return folder / "b.h5"


WRITERS = [write_npz, write_npy, write_hdf5, write_chunks]
Write = Callable[[Path, dict[str, Any]], Path]


def both(path: Path, **options: Any) -> tuple[MultiTaskData, MultiTaskData]:
    loaded, streamed = (fastmtl.data.load(path, memory=m, **options) for m in ("load", "stream"))
    assert all(isinstance(x, StoredFeatures) for x in streamed.features().values())
    return loaded, streamed


def same(streamed: MultiTaskData, loaded: MultiTaskData) -> None:
    rows = torch.randperm(len(loaded))
    assert streamed.modalities == loaded.modalities
    for name, value in loaded.tensors().items():
        stored = streamed.features()[name]
        assert torch.equal(stored[rows], value[rows])
        assert torch.equal(stored[rows.repeat(3)], value[rows.repeat(3)])
        assert torch.equal(streamed.tensors()[name], value)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_values_of_any_dtype_are_those_in_memory(
    tmp_path: Path, write: Write, dtype: str
) -> None:
    loaded, streamed = both(write(tmp_path, fields(dtype)))
    same(streamed, loaded)
    assert torch.equal(streamed.split, loaded.split)
    assert torch.equal(streamed.y, loaded.y)


def test_rows_are_read_in_their_stored_dtype(tmp_path: Path) -> None:
    for dtype, expected in [("i1", torch.int8), ("f2", torch.float16), ("f8", torch.float32)]:
        _, streamed = both(write_npy(tmp_path, fields(dtype)))
        assert streamed.features()["text"].read(torch.tensor([3])).dtype == expected


@pytest.mark.parametrize("write", WRITERS)
def test_the_standardisation_is_that_in_memory(tmp_path: Path, write: Write) -> None:
    loaded, streamed = both(write(tmp_path, fields("i1")))
    ours, theirs = Standardizer().fit(streamed), Standardizer().fit(loaded)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    same(ours.transform(streamed), theirs.transform(loaded))


def test_what_is_done_to_the_features_is_done_to_rows(tmp_path: Path) -> None:
    loaded, streamed = both(write_hdf5(tmp_path, fields()))
    rows = torch.tensor([7, 3, 3, 50])
    same(streamed.subset(rows), loaded.subset(rows))
    twice = torch.tensor([3, 1])
    same(streamed.subset(rows).subset(twice), loaded.subset(rows).subset(twice))
    same(streamed.with_modalities(["video"]), loaded.with_modalities(["video"]))
    single = fields()
    del single["x_text"]
    single["x"] = single.pop("x_video")
    loaded, streamed = both(write_npz(tmp_path, single), modalities="a=0:1,b=1:3")
    same(streamed, loaded)
    loaded, streamed = (Standardizer().fit(d).transform(d) for d in (loaded, streamed))
    same(streamed.subset(rows), loaded.subset(rows))


def test_a_test_file_is_behind_the_first(tmp_path: Path) -> None:
    first = write_npz(tmp_path, fields("i1"))
    (tmp_path / "other").mkdir()
    second = write_npz(tmp_path / "other", fields("f2", seed=1))
    loaded, streamed = both(first, test=second)
    same(streamed, loaded)
    assert len(streamed.indices("test")) == N


def test_large_arrays_are_read_in_spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastmtl.data.rows._GAP_BYTES", 100)
    monkeypatch.setattr("fastmtl.data.rows._SPAN_BYTES", 200)
    for write in WRITERS:
        loaded, streamed = both(write(tmp_path, fields()))
        same(streamed, loaded)


def test_auto_streams_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_hdf5(tmp_path, fields("f4"))
    size = N * 4 * (15 + 4)
    monkeypatch.setattr(placement, "available_memory", lambda: 4 * size)
    assert isinstance(fastmtl.data.load(path, memory="auto").features()["text"], torch.Tensor)
    monkeypatch.setattr(placement, "available_memory", lambda: 4 * size - 1)
    assert isinstance(fastmtl.data.load(path, memory="auto").features()["text"], StoredFeatures)
    np.savez_compressed(tmp_path / "c.npz", **fields())
    data = fastmtl.data.load(tmp_path / "c.npz", memory="auto")
    assert isinstance(data.features()["text"], torch.Tensor)


def test_the_available_memory_is_that_of_the_narrowest_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 0 < placement.available_memory() <= 1 << 40
    monkeypatch.setenv("FASTMTL_MEMORY_LIMIT", "1000")
    assert placement.available_memory() == 1000
    monkeypatch.setattr(placement, "_of_process", lambda: [-5])
    assert placement.available_memory() == 0


@pytest.mark.parametrize("write", [write_npz, write_npy, write_hdf5])
def test_a_value_that_is_no_number_is_told_when_it_is_read(tmp_path: Path, write: Write) -> None:
    arrays = fields("f2")
    arrays["lengths"][:] = 3
    arrays["x_video"][20, 4] = np.nan
    both(write(tmp_path, arrays))
    arrays["x_video"][20, 2, 1] = np.inf
    path = write(tmp_path, arrays)
    x = fastmtl.data.load(path, memory="stream").features()["video"]
    x[torch.arange(20)]
    message = r"x_video: expected finite numbers, got NaN or infinity .* row 20, step 2, column 1$"
    with pytest.raises(DataError, match=message):
        x[torch.tensor([3, 20])]


@pytest.mark.parametrize("row", [-1, N])
def test_rows_that_are_not_there(tmp_path: Path, row: int) -> None:
    _, streamed = both(write_npz(tmp_path, fields()))
    for data, last in [(streamed, N - 1), (streamed.subset("val"), 11)]:
        with pytest.raises(IndexError, match=rf"rows: expected from 0 to {last}, got"):
            data.features()["text"][torch.tensor([0, row])]


def test_a_file_that_is_cut_short_while_it_is_read(tmp_path: Path) -> None:
    path = write_npy(tmp_path, fields())
    x = fastmtl.data.load(path, memory="stream").features()["text"]
    file = path / "x_text.npy"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match="x_text: expected 60 rows, got a file that ends before"):
        x[torch.arange(N)]


def test_a_chunk_that_is_damaged(tmp_path: Path) -> None:
    path = write_chunks(tmp_path, fields())
    with h5py.File(path) as file:
        info = file["x_text"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[info.byte_offset : info.byte_offset + info.size] = bytes(info.size)
    path.write_bytes(content)
    x = fastmtl.data.load(path, memory="stream").features()["text"]
    with pytest.raises(DataError, match="x_text: expected a dataset, got one that cannot be read"):
        x[torch.arange(N)]


def refuses(path: Path | str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        fastmtl.data.load(path, memory="stream")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_streamed_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "c.npz", **fields())
    refuses(tmp_path / "c.npz", "x_video: expected an array whose rows .* got a compressed one")
    arrays = fields()
    arrays["x_text"] = np.asfortranarray(arrays["x_text"])
    refuses(write_npz(tmp_path, arrays), "x_text: .* got one in Fortran order")
    refuses(write_npy(tmp_path, {**fields(), "x_text": np.array(["a"] * N)}), "x_text: .* <U1")
    refuses("synthetic:disaster", "memory: expected auto or load, .* stream for a synthetic set")
    refuses(tmp_path / "a.arff", "memory: expected auto or load, .* got stream for an .arff file")
    with pytest.raises(DataError, match=r"memory: .* got 'steam' \(did you mean 'stream'\?\)"):
        fastmtl.data.load(write_npz(tmp_path, fields()), memory="steam")


def test_chunks_that_are_unpacked_as_a_whole_are_bounded(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["y"] = np.eye(2)[[0, 1] * 10]
        file.create_dataset("x", (20, 3), "f4", chunks=(20, 10**8), maxshape=(None, None))
    refuses(tmp_path / "a.h5", "x: .* got one in chunks of 20 rows that take 7629 MiB, more")


def test_values_in_other_files_are_not_streamed(tmp_path: Path) -> None:
    other = write_hdf5(tmp_path, fields())
    with h5py.File(tmp_path / "a2.h5", "w") as file:
        file["y"] = np.eye(2)[[0, 1] * 30]
        layout = h5py.VirtualLayout((N, 4), "f4")
        layout[:] = h5py.VirtualSource(other, "x_text", (N, 4))
        file.create_virtual_dataset("x", layout)
    refuses(tmp_path / "a2.h5", "x: .* values are in other files")


def test_an_archive_whose_member_is_cut_short(tmp_path: Path) -> None:
    path = write_npz(tmp_path, fields())
    content = bytearray(path.read_bytes())
    # The length of the name in the member's own header, with which the values would begin beyond.
    content[26:28] = b"\xff\xff"
    path.write_bytes(content)
    refuses(path, "x_video: expected an array, got a broken one|got one that is cut short")


def test_chunks_of_many_rows_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["y"] = np.eye(2)[[0, 1] * 300]
        file.create_dataset("x", data=np.ones((600, 1000), "f4"), chunks=(300, 10))
    (warning,) = fastmtl.data.load(path, memory="stream").warnings
    assert "x is stored in chunks of 300 rows" in warning
    assert not fastmtl.data.load(path).warnings
