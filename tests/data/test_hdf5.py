"""The HDF5 format, whole and damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from fastmtl.data import DataError, load_hdf5, load_npz

Y = np.tile([[0, 1], [1, 0]], (10, 1))


def write(path: Path, **fields: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in {"x": np.ones((20, 3), np.float32), "y": Y, **fields}.items():
            if value is not None:
                file[name] = value
    return path


def refuses(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_hdf5(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_same_result_as_npz(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fields: dict[str, Any] = {
        "x_a": rng.standard_normal((20, 3)).astype(np.float16),
        "x_b": rng.standard_normal((20, 4, 2)),
        "y": Y,
        "lengths": np.arange(20) % 4 + 1,
        "label_names": np.array([b"sea", b"sky"]),
        "split": np.array(["train", "val", "test", "train"] * 5).astype("S"),
        "group": np.arange(20),
    }
    np.savez(tmp_path / "toy.npz", **fields)
    one = load_hdf5(write(tmp_path / "toy.h5", x=None, **fields))
    other = load_npz(tmp_path / "toy.npz")
    for name, value in other.features().items():
        assert torch.equal(one.features()[name], value)
    assert torch.equal(one.y, other.y)
    assert torch.equal(one.split, other.split)
    assert one.lengths is not None
    assert other.lengths is not None
    assert torch.equal(one.lengths, other.lengths)
    assert one.label_names == other.label_names == ["sea", "sky"]


def test_strings_of_variable_length(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.h5", label_names=["sea", "wüste"], split=["train"] * 15 + ["test"] * 5
    )
    data = load_hdf5(path)
    assert data.label_names == ["sea", "wüste"]
    assert len(data.indices("test")) == 5


def test_compressed_and_chunked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", x=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("x", data=np.ones((20, 50)), chunks=(5, 10), compression="gzip")
    assert load_hdf5(path).modalities == {"x": (50,)}


def test_files_that_are_not_hdf5(tmp_path: Path) -> None:
    refuses(tmp_path / "none.h5", "file: expected an existing file")
    refuses(tmp_path, "file: expected a file, got a directory")
    path = tmp_path / "a.h5"
    path.touch()
    refuses(path, "file: expected data, got an empty file")
    path.write_text("x,y\n" * 1000)
    refuses(path, "file: expected an HDF5 file")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "a.h5", x=np.random.default_rng(0).standard_normal((20, 300)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refuses(path, "file: expected an HDF5 file, got something else, or a file cut short")


def test_damaged_chunk(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", x=None)
    with h5py.File(path, "a") as file:
        values = np.random.default_rng(0).standard_normal((20, 300))
        data = file.create_dataset("x", data=values, chunks=(20, 300), compression="gzip")
        offset = data.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 500] = bytes(500)
    path.write_bytes(content)
    refuses(path, "x: expected a dataset, got one that cannot be read")


def test_layout_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", y=None)
    refuses(path, "y: expected labels")
    with h5py.File(path, "w") as file:
        file.create_group("x")
    refuses(path, "x: expected a dataset, got an HDF5 Group")
    refuses(write(path, x=h5py.Empty("f4")), "x: expected numbers")
    refuses(
        write(path, y=np.full((20, 2), 2)),
        "y: expected only numbers from 0 to 1 or NaN .missing., got 2",
    )


def test_test_file(tmp_path: Path) -> None:
    one = write(tmp_path / "a.h5", label_names=["a", "b"])
    other = write(tmp_path / "b.h5", label_names=["a", "b"])
    assert len(load_hdf5(one, test=other).indices("test")) == 20


def test_values_in_other_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(range(120)) * 2)
    path = write(tmp_path / "a.h5", x=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("x", (20, 3), "f4", external=[(str(tmp_path / "secret"), 0, 240)])
    refuses(path, "x: expected values in the file itself")
    other = write(tmp_path / "b.h5")
    path = write(tmp_path / "a.h5", x=None)
    with h5py.File(path, "a") as file:
        layout = h5py.VirtualLayout((20, 3), "f4")
        layout[:] = h5py.VirtualSource(other, "x", (20, 3))
        file.create_virtual_dataset("x", layout)
    refuses(path, "x: expected values in the file itself")


def test_links_out_of_the_file_are_not_followed(tmp_path: Path) -> None:
    other = write(tmp_path / "b.h5")
    path = write(tmp_path / "a.h5", x=None)
    with h5py.File(path, "a") as file:
        file["x"] = h5py.ExternalLink(other, "/x")
    refuses(path, "x: .*it is a link to another file")
    with h5py.File(path, "w") as file:
        file["y"] = Y
        file["part/out"] = h5py.ExternalLink(other, "/")
        file["x"] = h5py.SoftLink("/part/out/x")
    refuses(path, "x: .*it is a link to another file")


def test_an_external_link_to_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    path = write(tmp_path / "a.h5", x=None)
    with h5py.File(path, "a") as file:
        file["x"] = h5py.ExternalLink(str(tmp_path / "pipe.h5"), "/x")
    refuses(path, "x: .*it is a link to another file")
    refuses(tmp_path / "pipe.h5", "file: expected a file, got a pipe, socket or device")


def test_links_inside_the_file_are_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", x=None)
    with h5py.File(path, "a") as file:
        file["deep/features"] = np.full((20, 3), 5.0)
        file["deep/same"] = h5py.SoftLink("features")
        file["x"] = h5py.SoftLink("/deep/./same")
    assert bool((load_hdf5(path).features()["x"] == 5).all())
    with h5py.File(path, "a") as file:
        del file["x"]
        file["x"] = h5py.SoftLink("/x")
    refuses(path, "x: .*its links go in a circle")
    with h5py.File(path, "a") as file:
        del file["x"]
        file["x"] = h5py.SoftLink("/deep/nowhere")
    refuses(path, "x: expected a dataset, got one that cannot be read")


def test_sizes_beyond_the_budget_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.h5", x=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("x", (20, 10**8), "f8", chunks=(1, 1000), compression="gzip")
    assert path.stat().st_size < 100_000
    refuses(path, "x: expected data of at most 1 GiB .*FASTMTL_MEMORY_LIMIT=45GiB.* got 23 GiB")
    path = write(tmp_path / "b.h5", x=None)
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "x", (20, 3), "f8", chunks=(20, 10**8), maxshape=(None, None), compression="gzip"
        )
    refuses(path, "x: expected data of at most 1 GiB")
    monkeypatch.setenv("FASTMTL_MEMORY_LIMIT", "600")
    refuses(write(tmp_path / "c.h5"), "x: expected data of at most 600 B .* got 240 B beside 480 B")


def test_strings_that_are_one_string_many_times_count_as_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.h5", group=[c * 10_000 for c in "abcde" * 4])
    monkeypatch.setenv("FASTMTL_MEMORY_LIMIT", "150K")
    refuses(path, "group: expected data of at most 150 KiB")
    monkeypatch.setenv("FASTMTL_MEMORY_LIMIT", "300K")
    assert load_hdf5(path).group is not None


def test_other_kinds_of_variable_length_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", y=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("y", (20,), h5py.vlen_dtype(np.int32))
    refuses(path, "y: expected numbers or a vector of strings")


def test_a_heap_of_strings_without_an_end_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", label_names=["sea", "sky"])
    content = bytearray(path.read_bytes())
    size_of_first = content.find(b"GCOL") + 24
    assert content[size_of_first] == 3
    # HDF5 would take the rest of it for free space of size 0, again and again.
    content[size_of_first] = 0
    path.write_bytes(content)
    refuses(path, "label_names: .*the heap of its strings is broken")


def test_heaps_in_one_another_are_not_walked_through_again_and_again(tmp_path: Path) -> None:
    words = np.array([0, 1 << 40, 1, 16], "<u8")
    words[:1] = np.frombuffer(b"GCOL\x01\x00\x00\x00", "<u8")
    path = write(tmp_path / "a.h5", label_names=["sea", "sky"], heaps=np.tile(words, 50_000))
    refuses(path, "label_names: .*the heap of its strings is broken")
