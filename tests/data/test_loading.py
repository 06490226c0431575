"""The front door: what each spec and option leads to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from fastmtl.data import DataError, load, synthetic

X, Y = np.ones((20, 3), np.float32), np.tile([[0, 1], [1, 0]], (10, 1))
ARFF = "@relation r\n@attribute f real\n@attribute sea {0,1}\n@data\n" + "0,1\n1,0\n" * 10
XML = "<labels><label name='sea'/></labels>"


@pytest.mark.parametrize("name", ["a.npz", "A.NPZ", "a.h5", "a.hdf5"])
@pytest.mark.parametrize("kind", [str, Path])
def test_extension_chooses_the_reader(tmp_path: Path, name: str, kind: Any) -> None:
    path = tmp_path / name
    if name.lower().endswith("npz"):
        with path.open("wb") as stream:
            np.savez(stream, x=X, y=Y)
    else:
        with h5py.File(path, "w") as file:
            file["x"], file["y"] = X, Y
    data = load(kind(path))
    assert data.num_samples == 20
    assert data.name.lower() == "a"
    assert len(load(path, test=path).indices("test")) == 20


def test_arff_finds_what_lies_beside_it(tmp_path: Path) -> None:
    for name in ("set-train.arff", "set-test.arff"):
        (tmp_path / name).write_text(ARFF)
    (tmp_path / "set.xml").write_text(XML)
    data = load(tmp_path / "set-train.arff")
    assert data.name == "set"
    assert [len(data.indices(s)) for s in ("train", "val", "test")] == [16, 4, 20]
    alone = load(tmp_path / "set-test.arff")
    assert [len(alone.indices(s)) for s in ("train", "val", "test")] == [12, 4, 4]
    (tmp_path / "set-test.arff").unlink()
    assert load(tmp_path / "set-train.arff").num_samples == 20


def test_arff_takes_what_the_options_name(tmp_path: Path) -> None:
    (tmp_path / "one.arff").write_text(ARFF)
    (tmp_path / "two.arff").write_text(ARFF)
    (tmp_path / "names.xml").write_text(XML)
    with pytest.raises(DataError, match=r"one.arff: xml: .* in one.xml beside it, or .*--xml FILE"):
        load(tmp_path / "one.arff")
    options = {"xml": tmp_path / "names.xml", "test": tmp_path / "two.arff"}
    assert len(load(tmp_path / "one.arff", **options).indices("test")) == 20


def test_seed_draws_the_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    one, same, other = (load(tmp_path / "a.npz", seed=s).split for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_synthetic_specs() -> None:
    spec = "synthetic:disaster?clips=50&frames=4&features=6&seed=3&signal=2&min_frames=2"
    data = load(spec, seed=7)
    direct = synthetic.disaster(50, 4, 6, seed=3, signal=2.0, min_frames=2, split_seed=7)
    assert torch.equal(data.features()["x"], direct.features()["x"])
    assert torch.equal(data.split, direct.split)
    spec = "synthetic:disaster-multimodal?clips=50&frames=4&text=5&joint=1"
    assert load(spec).modalities == {"text": (5,), "audio": (73,), "video": (4, 128)}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "synthetic:flood",
            "name: expected one of disaster, disaster-multimodal, crisis, got 'flood'",
        ),
        ("synthetic:", "name: expected one of"),
        ("synthetic:disaster?clip=5", "options: expected each of clips, frames, .*got 'clip'"),
        ("synthetic:disaster?clips=9&clips=9", "options: expected each of .* at most once"),
        ("synthetic:disaster?positives=1", "options: expected each of"),
        ("synthetic:disaster?clips=many", "clips: expected an integer, got 'many'"),
        ("synthetic:disaster?clips=9.5", "clips: expected an integer"),
        ("synthetic:disaster?signal=loud", "signal: expected a number, got 'loud'"),
        ("synthetic:disaster?clips", "options: expected name=value pairs"),
        ("synthetic:disaster?clips=1", "clips: expected at least 5, got 1"),
        ("data.txt", "file: expected a name in .npz, .*got the ending '.txt'"),
        ("data", "file: expected a name in .npz, .*got none"),
        ("gone.npz", "file: expected an existing file"),
        ("gone.h5", "file: expected an existing file"),
        ("gone.arff", "file: expected an existing file"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(spec)


@pytest.mark.parametrize("options", [{"test": "a.npz"}, {"xml": "a.xml"}])
def test_files_beside_a_synthetic_set_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(DataError, match="expected none for a synthetic set"):
        load("synthetic:disaster", **options)


def test_xml_beside_another_format_is_refused() -> None:
    with pytest.raises(DataError, match=r"xml: expected none for a .npz file, got a.xml"):
        load("a.npz", xml="a.xml")


def test_modalities(tmp_path: Path) -> None:
    np.savez(tmp_path / "flat.npz", x=X, y=Y)
    np.savez(tmp_path / "two.npz", x_a=X, x_b=X, y=Y)
    cut = load(tmp_path / "flat.npz", modalities="a=0:2, b=2:3")
    assert cut.modalities == {"a": (2,), "b": (1,)}
    cut = load(tmp_path / "flat.npz", modalities={"a": slice(1, 3)})
    assert cut.modalities == {"a": (2,)}
    assert list(load(tmp_path / "two.npz", modalities="b, a").modalities) == ["b", "a"]
    assert list(load(tmp_path / "two.npz", modalities=["b"]).modalities) == ["b"]


@pytest.mark.parametrize("text", ["a=0:2,b", "a=0", "a=x:y", "=0:2", "a=0:2,a=2:3"])
def test_bad_modalities(tmp_path: Path, text: str) -> None:
    np.savez(tmp_path / "flat.npz", x=X, y=Y)
    with pytest.raises(DataError, match="modalities"):
        load(tmp_path / "flat.npz", modalities=text)


def test_not_for_training(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X)
    assert load(tmp_path / "a.npz", for_training=False).num_tasks == 0
    with pytest.raises(DataError, match="y: expected labels"):
        load(tmp_path / "a.npz")
