"""The .npz format, whole and damaged."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data import DataError, load_npz

Y = np.tile([[0, 1], [1, 0]], (10, 1))


def write(path: Path, **fields: Any) -> Path:
    np.savez_compressed(path, **{"x": np.ones((20, 3), np.float32), "y": Y, **fields})
    return path


def refuses(path: Path, message: str, **options: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_npz(path, **options)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_every_field(tmp_path: Path) -> None:
    path = tmp_path / "toy.npz"
    np.savez(
        path,
        x_a=np.ones((20, 3), np.float16),
        x_b=np.ones((20, 4, 2)),
        y=Y,
        lengths=np.full(20, 3),
        label_names=np.array([b"sea", b"sky"]),
        split=np.array(["train", "val", "test", "train"] * 5),
        group=np.arange(20),
    )
    data = load_npz(path)
    assert data.name == "toy"
    assert data.modalities == {"a": (3,), "b": (4, 2)}
    assert data.label_names == ["sea", "sky"]
    assert data.lengths is not None
    assert data.group is not None
    assert data.split.tolist() == [0, 1, 2, 0] * 5
    assert data.warnings == ()


def test_modality_order_is_that_of_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_z=np.ones((20, 1)), x_a=np.ones((20, 1)), y=Y)
    assert list(load_npz(tmp_path / "a.npz").modalities) == ["z", "a"]


def test_unknown_fields_are_told_and_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", lenghts=np.array([object()]))
    assert load_npz(path).warnings == (f"{path}: the field 'lenghts' is unknown and was not read",)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", y=np.array([[{}]], dtype=object))
    refuses(path, r"y: expected an array, got Python objects \(a pickle, which is never loaded\)")


def test_strings_pickled_by_numpy_are_refused_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", label_names=np.array(["a", "b"], dtype=object))
    refuses(path, "label_names: .*pickle")


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    refuses(tmp_path / "none.npz", "file: expected an existing file")
    refuses(tmp_path, "file: expected a file, got a directory")
    path = tmp_path / "a.npz"
    path.touch()
    refuses(path, "file: expected data, got an empty file")
    path.write_text("x,y\n1,2\n")
    refuses(path, "file: expected an .npz archive")
    with path.open("wb") as stream:
        np.save(stream, np.ones(3))
    refuses(path, "file: expected an .npz archive")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.999])
def test_truncated_archives(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "a.npz", x=np.random.default_rng(0).standard_normal((20, 300)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refuses(path, "file: expected an .npz archive .zip., got something else, or an archive cut")


def test_damaged_content(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", x=np.random.default_rng(0).standard_normal((20, 300)))
    content = bytearray(path.read_bytes())
    content[5000:5100] = bytes(100)
    path.write_bytes(content)
    refuses(path, "x: expected an array, got a broken one")


def test_a_member_that_is_cut_short_inside_a_sound_archive(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.npz")
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as out:
        out.writestr("x.npy", source.read("x.npy")[:-8])
        out.writestr("y.npy", source.read("y.npy"))
    refuses(path, "x: expected an array, got a broken one")
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("x", b"not an array")
    refuses(path, "x: expected an array in .npy format")


def test_layout_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, features=np.ones(3), y=Y)
    refuses(path, "x: expected features in x or x_<modality>, got the fields features, y")
    np.savez(path, x=np.ones((20, 1)))
    refuses(path, "y: expected labels")
    assert load_npz(path, for_training=False).num_tasks == 0
    np.savez(path, x=np.ones((20, 1)), label_names=["a", "b"])
    assert load_npz(path, for_training=False).label_names == []
    write(path, x_a=np.ones((20, 1)))
    refuses(path, "x: expected either x or x_<modality> arrays, got both x and x_a")


def test_test_file(tmp_path: Path) -> None:
    train = write(tmp_path / "train.npz", x=np.zeros((20, 3)), label_names=["a", "b"])
    test = tmp_path / "test.npz"
    np.savez(test, x=np.ones((6, 3)), y=Y[:6], label_names=["a", "b"])
    data = load_npz(train, test=test)
    assert data.num_samples == 26
    assert [len(data.indices(s)) for s in ("train", "val", "test")] == [16, 4, 6]
    assert bool((data.subset("test").features()["x"] == 1).all())
    again = load_npz(train, test=test, seed=1)
    assert not torch.equal(again.indices("val"), data.indices("val"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_names": ["b", "a"]}, "label_names: expected those of"),
        ({"x": np.ones((20, 2))}, r"x: expected the shape .*\(20, 3\), got \(20, 2\)"),
        ({"x": np.array(1.0)}, r"x: expected the shape"),
        ({"group": np.arange(20)}, "group: expected the field in both files or in none"),
    ],
)
def test_test_file_must_match(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    train = write(tmp_path / "train.npz", label_names=["a", "b"])
    test = write(tmp_path / "test.npz", **{"label_names": ["a", "b"], **fields})
    with pytest.raises(DataError, match=message) as caught:
        load_npz(train, test=test)
    assert str(caught.value).startswith(str(test))


def test_test_file_beside_test_rows_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", split=["train"] * 15 + ["test"] * 5)
    refuses(path, "split: expected no test samples", test=path)


def test_test_file_of_modalities(tmp_path: Path) -> None:
    one, other = tmp_path / "a.npz", tmp_path / "b.npz"
    np.savez(one, x_a=np.ones((20, 3)), x_b=np.ones((20, 2)), y=Y)
    np.savez(other, x_b=np.ones((20, 2)), x_a=np.ones((20, 3)), y=Y)
    assert load_npz(one, test=other).modalities == {"a": (3,), "b": (2,)}
    np.savez(other, x_b=np.ones((20, 2)), y=Y)
    with pytest.raises(DataError, match=r"x: expected the modalities of .*: a, b, got b"):
        load_npz(one, test=other)
    with pytest.raises(DataError, match="x in one file and x_<modality> in the other"):
        load_npz(one, test=write(tmp_path / "c.npz"))


def test_mosi(shared_data: Path) -> None:
    data = load_npz(shared_data / "mosi.npz")
    assert data.modalities == {"text": (100,), "audio": (73,), "video": (100,)}
    assert data.group is not None
    assert len(data.indices("test")) == 752
    assert len(data.indices("train")) + len(data.indices("val")) == 1447
    assert not set(data.group[data.indices("train")].tolist()) & set(
        data.group[data.indices("val")].tolist()
    )
    assert data.warnings == ()


def test_natural_scene(shared_data: Path) -> None:
    data = load_npz(shared_data / "natural_scene.npz")
    assert data.modalities == {"x": (9, 15)}
    assert data.label_names == ["desert", "mountains", "sea", "sunset", "trees"]
    assert [len(data.indices(s)) for s in ("train", "val", "test")] == [1200, 400, 400]
    assert data.y.sum().item() == pytest.approx(1.24 * 2000, rel=0.01)


def test_yt8m(shared_data: Path) -> None:
    data = load_npz(shared_data / "yt8m_top100.npz")
    assert data.modalities == {"rgb": (1024,), "audio": (128,)}
    assert data.features()["rgb"].dtype == torch.float32
    assert [len(data.indices(s)) for s in ("train", "val", "test")] == [10327, 1999, 3987]
    assert data.num_tasks == 100


def test_sizes_beyond_the_budget_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (20, 5 << 20)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        with out.open("x.npy", "w") as member:
            member.write(header.getvalue())
            for _ in range(20):
                member.write(bytes(5 << 23))
        out.writestr("y.npy", npy_bytes(Y))
    assert path.stat().st_size < 5_000_000
    refuses(path, "x: expected data of at most 1 GiB .*FASTMTL_MEMORY_LIMIT.* got 2 GiB")
    monkeypatch.setenv("FASTMTL_MEMORY_LIMIT", "100")
    refuses(write(tmp_path / "a.npz"), "y: expected data of at most 100 B")


def test_a_header_that_declares_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    content = npy_bytes(np.ones((20, 3), np.float32))
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("x.npy", content.replace(b"(20, 3), }     ", b"(20, 3000000), }", 1))
        out.writestr("y.npy", npy_bytes(Y))
    refuses(path, "x: expected an array, got a broken one")


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    refuses(tmp_path / "a.npz", "file: expected a file, got a pipe, socket or device")


def npy_bytes(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["\ud800", b"\xff"])
def test_names_that_cannot_be_written_down_are_refused(tmp_path: Path, name: Any) -> None:
    path = write(tmp_path / "a.npz", label_names=np.array([name[:0], name]))
    refuses(path, "label_names: expected UTF-8 strings")
