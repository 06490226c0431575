"""Columns of lists: what Hugging Face `datasets` saves, and Parquet files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data import DataError, MultiTaskData, StoredFeatures, load, load_arrow
from fastmtl.data.missing import absent_rows
from fastmtl.training import TrainConfig, Trainer

N = 30
STEPS = np.random.default_rng(1).integers(1, 6, N)
TEXT = (10 * np.random.default_rng(2).standard_normal((N, 4))).astype("f4")
VIDEO = (10 * np.random.default_rng(3).standard_normal((N, 5, 3))).astype("f4")
Y = np.random.default_rng(4).integers(0, 2, (N, 2))
SPLIT = (["train"] * 8 + ["val"] + ["test"]) * 3


def columns(**others: Any) -> dict[str, Any]:
    """Text, and video of different lengths."""
    video = [list(map(list, each[:steps])) for each, steps in zip(VIDEO, STEPS, strict=True)]
    given = {"x_text": list(map(list, TEXT)), "x_video": video, "y": Y.tolist(), "split": SPLIT}
    return {k: v for k, v in {**given, **others}.items() if v is not None}


def save(folder: Path, given: dict[str, Any], features: Any = None) -> Path:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict(given, features=features)
    made.save_to_disk(folder / "set", num_shards=3)
    return folder / "set"


def parquet(folder: Path, given: dict[str, Any]) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(given), folder / "a.parquet", row_group_size=7)
    return folder / "a.parquet"


def expected(**others: Any) -> MultiTaskData:
    lengths = {"video": STEPS}
    given = {"x": {"text": TEXT, "video": VIDEO}, "y": Y, "lengths": lengths, "split": SPLIT}
    return MultiTaskData.from_arrays(**{**given, **others})


def same(found: MultiTaskData, wanted: MultiTaskData) -> None:
    assert found.modalities == wanted.modalities
    rows = torch.randperm(N)
    for name, value in wanted.tensors().items():
        torch.testing.assert_close(found.tensors()[name], value, rtol=0, atol=0, equal_nan=True)
        own = found.features()[name][rows]
        torch.testing.assert_close(own, value[rows], rtol=0, atol=0, equal_nan=True)
        lengths, theirs = found.lengths_of(name), wanted.lengths_of(name)
        assert (lengths is None) == (theirs is None)
        assert lengths is None or theirs is None or torch.equal(lengths, theirs)
    torch.testing.assert_close(found.y, wanted.y, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found.split, wanted.split)


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_a_saved_dataset(tmp_path: Path, memory: str) -> None:
    data = load(save(tmp_path, columns()), memory=memory)
    assert isinstance(data.features()["video"], StoredFeatures) == (memory == "stream")
    same(data, expected())
    assert not data.warnings
    assert data.name == "set"


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_one_tensor_and_types_of_datasets(tmp_path: Path, memory: str) -> None:
    datasets = pytest.importorskip("datasets")
    features = {
        "x": datasets.Array2D((5, 3), "int8"),
        "y": datasets.Sequence(datasets.Value("bool"), length=2),
    }
    given = {"x": VIDEO.astype("i1"), "y": Y.astype(bool)}
    path = save(tmp_path, given, datasets.Features(features))
    data = load(path, memory=memory)
    same(data, MultiTaskData.from_arrays(VIDEO.astype("i1"), Y))
    if memory == "stream":
        assert data.x.read(torch.tensor([2])).dtype == torch.int8


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_splits_of_a_dictionary(tmp_path: Path, memory: str) -> None:
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_dict(columns(split=None))
    names = {"train": "train", "validation": "val", "test": "test"}
    rows = {name: [i for i in range(N) if SPLIT[i] == own] for name, own in names.items()}
    parts = datasets.DatasetDict({name: whole.select(rows[name]) for name in names})
    parts.save_to_disk(tmp_path / "set")
    order = [i for name in names for i in rows[name]]
    data = load(tmp_path / "set", memory=memory)
    wanted = expected().subset(order)
    same(data, wanted)
    datasets.DatasetDict({"train": whole, "more": whole}).save_to_disk(tmp_path / "more")
    with pytest.raises(
        DataError, match=r"split: expected the splits train, validation, .* got more"
    ):
        load(tmp_path / "more")
    whole = datasets.Dataset.from_dict(columns())
    datasets.DatasetDict({"train": whole}).save_to_disk(tmp_path / "both")
    with pytest.raises(DataError, match="split: expected one of them, got both"):
        load(tmp_path / "both")


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_what_is_missing(tmp_path: Path, memory: str) -> None:
    given = columns()
    given["x_text"][3] = None
    given["x_video"][4], given["x_video"][5] = None, []
    given["y"] = [[None, 1], *given["y"][1:]]
    data = load(save(tmp_path, given), memory=memory)
    absent = {k: absent_rows(x, data.lengths_of(k)) for k, x in data.tensors().items()}
    assert {k: v.nonzero().flatten().tolist() for k, v in absent.items()} == {
        "text": [3],
        "video": [4, 5],
    }
    assert data.y[0].isnan().tolist() == [True, False]
    given["x_text"][4] = None
    with pytest.raises(DataError, match=r"x: expected at least one modality .* none in row 4"):
        load(save(tmp_path / "none", given))


def test_a_parquet_file(tmp_path: Path) -> None:
    same(load(parquet(tmp_path, columns())), expected())
    with pytest.raises(DataError, match="memory: expected auto or load"):
        load(tmp_path / "a.parquet", memory="stream")


@pytest.mark.parametrize("write", [save, parquet])
def test_labels_with_names(tmp_path: Path, write: Callable[..., Path]) -> None:
    named = [{"sea": int(a), "sky": None if i == 4 else int(b)} for i, (a, b) in enumerate(Y)]
    data = load(write(tmp_path, columns(y=named)))
    assert data.label_names == ["sea", "sky"]
    wanted = Y.astype("f4")
    wanted[4, 1] = np.nan
    np.testing.assert_array_equal(data.y, wanted)


def test_a_test_set_of_shorter_sequences(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    short = [list(map(list, each[:2])) for each in VIDEO]
    paths = [save(tmp_path, columns(split=None)), save(tmp_path / "more", columns(x_video=short))]
    for memory in ("load", "stream"):
        data = load(paths[0], test=paths[1], memory=memory)
        assert len(data.indices("test")) == N
        lengths = data.lengths_of("video")
        assert lengths is not None
        assert lengths.tolist() == [*STEPS, *[2] * N]
        np.testing.assert_array_equal(data.tensors()["video"][N:, :2], VIDEO[:, :2])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x_text": [[1.0, 2.0]] * 29 + [[1.0]]}, "x_text: expected as many numbers .* of 1, 2"),
        ({"x_text": [["a"]] * N}, "x_text: expected lists of numbers"),
        ({"x_text": [[[[1.0]]]] * N}, "x_text: expected lists of numbers"),
        ({"x_text": [1.0] * N}, "x_text: expected lists of numbers"),
        ({"x_text": [[1, None]] * N}, "x_text: expected finite numbers"),
        ({"x_video": [[[1.0], None]] * N}, "x_video: expected steps that are all there"),
        ({"x_text": None, "x_video": None}, "x: expected features in x or x_<modality>"),
        ({"y": [[0.0, 2.0]] * N}, "y: expected only"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("write", [save, parquet])
def test_what_cannot_be(
    tmp_path: Path, write: Callable[..., Path], given: dict[str, Any], message: str
) -> None:
    path = write(tmp_path, columns(**given))
    with pytest.raises(DataError, match=message) as caught:
        load_arrow(path)
    assert str(path) in str(caught.value)


def test_broken_directories(tmp_path: Path) -> None:
    path = save(tmp_path, columns())
    for part in path.glob("*.arrow"):
        part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(DataError, match="file: expected columns of Arrow, got broken ones"):
        load(path)


def test_datasets_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    monkeypatch.setattr("fastmtl.data.arrow.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"file: expected datasets \(pip install datasets\)"):
        load(tmp_path)


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_a_null_among_integers(tmp_path: Path, memory: str) -> None:
    datasets = pytest.importorskip("datasets")
    features = {"x": datasets.Sequence(datasets.Value("int8"))}
    path = save(tmp_path, {"x": [[1, 2]] * 9 + [[1, None]]}, datasets.Features(features))
    with pytest.raises(DataError, match="x: expected lists of numbers, got a null in rows 0 to 9"):
        load(path, for_training=False, memory=memory).tensors()


def test_a_run_is_the_same_to_the_bit(tmp_path: Path) -> None:
    given, found = columns(), []
    given["x_text"][3] = given["x_video"][12] = None
    path = save(tmp_path, given)
    for memory in ("load", "stream"):
        config = TrainConfig(
            model="hgfn", data=str(path), memory=memory, epochs=2, hidden_size=4, threads=1,
            device="cpu",
        )  # fmt: skip
        found.append(Trainer.from_config(config, tmp_path / memory).fit()["test"])
    assert found[0] == found[1]


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_tasks_of_classes(tmp_path: Path, memory: str) -> None:
    datasets = pytest.importorskip("datasets")
    damage = [i % 3 - (i == 4) * 2 for i in range(N)]
    kind = [None if i == 5 else ["flood", "fire"][i % 2] for i in range(N)]
    features = {
        "x": datasets.Sequence(datasets.Value("float32")),
        "y_damage": datasets.ClassLabel(names=["none", "mild", "severe"]),
        "y_kind": datasets.Value("string"),
    }
    given = {"x": list(map(list, TEXT)), "y_damage": damage, "y_kind": kind}
    data = load(save(tmp_path, given, datasets.Features(features)), memory=memory)
    assert data.class_names == {"damage": ["none", "mild", "severe"], "kind": ["fire", "flood"]}
    numbers = [each if each >= 0 else torch.nan for each in damage]
    kinds = [torch.nan if each is None else float(each == "flood") for each in kind]
    wanted = torch.tensor([numbers, kinds])
    torch.testing.assert_close(data.y, wanted.mT, equal_nan=True)
    assert not data.warnings
