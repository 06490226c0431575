"""The writer of HDF5 data files."""

from __future__ import annotations

import gc
import os
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from fastmtl.data import DataError, load
from fastmtl.data.h5_samples import Shape
from fastmtl.data.writing import h5_writer, write_h5
from tests.data.test_stored import same

N = 20
Y = np.tile([[0, 1], [1, 0]], (N // 2, 1))
RNG = np.random.default_rng(0)
RAGGED = [RNG.normal(size=(1 + i % 4, 3)) for i in range(N)]
TEXT, AUDIO = RNG.normal(size=(N, 5)), RNG.normal(size=(N, 6, 2))


def fields(**others: Any) -> dict[str, Any]:
    return {
        "x": {"video": RAGGED, "text": TEXT, "audio": AUDIO},
        "y": Y,
        "lengths": {"audio": np.arange(N) % 6 + 1},
        "label_names": ["flöod", "fire"],
        "split": ["train", "val", "test", "train"] * 5,
        "group": [f"source {i // 4}" for i in range(N)],
        "sample_names": [f"clip {i}.mp4" for i in range(N)],
        **others,
    }  # fmt: skip


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    given = fields(attributes={"made by": "a test", "version": 2})
    write_h5(tmp_path / "a.h5", **given)
    data = load(tmp_path / "a.h5")
    assert data.modalities == {"audio": (6, 2), "text": (5,), "video": (4, 3)}
    assert isinstance(data.lengths, dict)
    assert data.lengths["video"].tolist() == [len(each) for each in RAGGED]
    assert data.lengths["audio"].tolist() == given["lengths"]["audio"].tolist()
    video, audio = data.tensors()["video"], data.tensors()["audio"]
    assert torch.equal(video[6, :3], torch.tensor(RAGGED[6]).float())
    assert torch.equal(audio[3, :4], torch.tensor(given["x"]["audio"][3, :4]).float())
    assert audio[3, 4:].eq(0).all()
    assert torch.equal(data.tensors()["text"], torch.tensor(given["x"]["text"]).float())
    assert torch.equal(data.y, torch.tensor(Y).float())
    assert data.label_names == given["label_names"]
    assert data.sample_names == given["sample_names"]
    assert [len(data.indices(split)) for split in ("train", "val", "test")] == [10, 5, 5]
    assert data.group is not None
    assert data.group.tolist() == [i // 4 for i in range(N)]
    same(load(tmp_path / "a.h5", memory="stream"), data)
    with h5py.File(tmp_path / "a.h5") as file:
        assert dict(file.attrs) == {"made by": "a test", "version": 2}
    assert os.listdir(tmp_path) == ["a.h5"]


def test_one_modality_is_a_single_x(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", RAGGED, Y, group=list(range(N)))
    data = load(tmp_path / "a.h5")
    assert data.modalities == {"x": (4, 3)}
    assert isinstance(data.lengths, torch.Tensor)
    assert data.label_names == ["task_0", "task_1"]


@pytest.mark.parametrize(("dtype", "scale"), [("float16", 1.0), ("int8", 100), ("uint8", 255)])
def test_small_dtypes_stay(tmp_path: Path, dtype: str, scale: float) -> None:
    x = np.linspace(0, scale, N * 3).astype(dtype).reshape(N, 3)
    write_h5(tmp_path / "a.h5", x, Y, dtype=dtype)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"].dtype == dtype
        assert (file["x"][:] == x).all()


def test_what_is_missing_is_nan(tmp_path: Path) -> None:
    shapes: dict[str, Shape] = {"video": (None, 3), "text": (2,), "audio": (4, 2)}
    with h5_writer(tmp_path / "a.h5", shapes, label_names=["a", "b"]) as out:
        out.add({"video": RAGGED[0], "text": None}, y=[None, 1])
        out.add({"text": [1, 2], "audio": np.ones((2, 2))}, y=[0, np.nan])
        assert len(out) == 2
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["offsets_video"][:].tolist() == [0, 1, 2]
        assert np.isnan(file["x_video"][1]).all()
        assert np.isnan(file["x_text"][0]).all()
        assert file["lengths_audio"][:].tolist() == [1, 2]
        assert np.isnan(file["x_audio"][0, 0]).all()
        assert np.isnan(file["y"][:]).tolist() == [[True, False], [False, True]]


def test_classes_are_indices_with_names(tmp_path: Path) -> None:
    kinds = {"damage": ["none", "mild", "severe"]}
    given = {"damage": ["severe", None, 1]}
    write_h5(tmp_path / "a.h5", np.ones((3, 2)), classes=given, class_names=kinds)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["y_damage"][:].tolist() == [2, -1, 1]
        assert file["class_names_damage"][:].tolist() == [b"none", b"mild", b"severe"]
        assert "y" not in file


def test_classes_and_what_is_missing_are_read_back(tmp_path: Path) -> None:
    given = {"damage": ["severe", None, "mild"] * 4}
    x = {"video": [RAGGED[i] if i % 3 else np.full((1, 3), np.nan) for i in range(12)]}
    x["text"] = list(np.ones((12, 2)))
    write_h5(tmp_path / "a.h5", x, classes=given, class_names={"damage": ["mild", "severe"]})
    data = load(tmp_path / "a.h5")
    assert data.class_names == {"damage": ["mild", "severe"]}
    assert data.y[:3, 0].nan_to_num(-1).tolist() == [1, -1, 0]
    assert data.tensors()["video"][0, 0].isnan().all()
    assert not data.tensors()["video"][1].isnan().any()


def test_blocks_that_are_full_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastmtl.data.growing._CHUNK_BYTES", 64)
    monkeypatch.setattr("fastmtl.data.growing._BLOCK_BYTES", 128)
    write_h5(tmp_path / "a.h5", RAGGED, Y)
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["x"][:], np.concatenate(RAGGED).astype("f4"))
        assert file["x"].chunks == (5, 3)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"y": Y * 2}, r"y of row 0 \(clip 0.mp4\): expected 2 of 0, 1, NaN or None"),
    ({"y": Y[:5]}, "y: expected 20 rows, as many as x_video has, got 5"),
    ({"x": {"t": np.full((N, 2), np.inf)}}, r"x_t of row 0 .*: expected finite numbers .* got inf"),
    ({"x": np.full((N, 2), 1e6), "dtype": "float16"}, "that fit float16.* got 1000000.0 at 0"),
    ({"x": np.full((N, 2), 0.5), "dtype": "int8"}, "that fit int8.* got 0.5 at 0"),
    ({"x": np.full((N, 2), "a")}, "x of row 0 .*: expected numbers of shape"),
    ({"x": np.ones(N)}, r"x: expected \(N, D\), \(N, L, D\), or N sequences"),
    ({"x": {"x": np.ones((N, 1)), "t": np.ones((N, 1))}}, "x alone"),
    ({"x": {"a/b": np.ones((N, 1))}}, "by a name without a slash"),
    ({"x": [RAGGED[0], np.ones((2, 5)), *RAGGED[2:]]}, r"x of row 1 .*: expected numbers of shape"),
    ({"split": ["train"] * 19 + ["dev"]}, "split of row 19 .*: expected train, val or test"),
    ({"group": [1] * 19 + ["a"]}, "group of row 19 .*: expected str or int, of one type"),
    ({"group": [1.5] * 20}, "group of row 0 .*: expected str or int"),
    (
        {"sample_names": [None, *"abcdefghijklmnopqrs"]},
        r"row 1 \(a\): expected sample_names in all",
    ),
    ({"sample_names": [*["a"] * 19, None]}, "row 19: expected sample_names in all"),
    ({"sample_names": ["\ud800"] * 20}, "UTF-8 strings"),
    ({"label_names": ["a", "a"]}, "label_names: expected distinct names"),
    ({"label_names": ["a"]}, "y of row 0"),
    ({"dtype": "float64"}, "dtype: expected one of float32"),
    ({"classes": {"d": ["no"] * N}}, "classes of row 0 .*: expected any of none, got 'd'"),
    (
        {"classes": {"d": ["minor"] * N}, "class_names": {"d": ["mino"]}},
        "d of row 0 .*: expected one of mino, or 0 to 0, got 'minor' .did you mean 'mino'",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), BAD)
def test_what_cannot_be_written_is_named_and_leaves_no_file(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    others = {"lengths": None} if "x" in wrong else {}
    with pytest.raises(DataError, match=message):
        write_h5(tmp_path / "a.h5", **fields(**others, **wrong))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.npz", "expected a name in .h5 or .hdf5, got '.npz'"),
        ("absent/a.h5", "expected a file in a writable directory"),
        ("old.h5", "expected a new file, got one that is there"),
    ],
)
def test_a_path_that_cannot_be_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "old.h5").write_text("old")
    with pytest.raises(DataError, match=message):
        write_h5(tmp_path / name, np.ones((3, 2)))
    assert (tmp_path / "old.h5").read_text() == "old"


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_text("old")
    with suppress(KeyboardInterrupt), h5_writer(path, {"x": (2,)}, overwrite=True) as out:
        out.add({"x": [1, 2]})
        raise KeyboardInterrupt
    with pytest.raises(DataError, match="samples: expected at least one"):
        write_h5(path, np.ones((0, 2)), overwrite=True)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.h5"]
    write_h5(path, np.ones((3, 2)), overwrite=True)
    assert len(load(path, for_training=False)) == 3


@pytest.mark.parametrize("size", [100, 1 << 16, 1 << 20, 4_000_000])
def test_a_full_disk_is_named_and_leaves_no_file(tmp_path: Path, size: int) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_h5(tmp_path / "a.h5", {"a": np.ones((1000, 1000)), "b": np.ones((1000, 7))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(tmp_path / "a.h5")
    assert not os.listdir(tmp_path)
    # Of HDF5's: they would crash when they are collected.
    gc.collect()


def test_memory_does_not_grow_with_the_features(tmp_path: Path) -> None:
    tracemalloc.start()
    with h5_writer(tmp_path / "a.h5", {"video": (None, 1024)}) as out:
        for _ in range(100):
            out.add({"video": np.ones((128, 1024), np.float32)})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = os.path.getsize(tmp_path / "a.h5")
    assert size > 50 << 20
    assert most < 16 << 20
