"""Multi-class tasks in data: numbers and names, in every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data import DataError, MultiTaskData, from_samples, load

SPLIT = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
DAMAGE = ["none", "mild", "", "mild", "none", "severe", "none", "mild", "severe", ""]
KINDS = [0, 1, 2, 0, -1, 2, 1, 0, 2, 1]
BINARY = np.array([[0, 1], [1, 0]] * 5)
X = np.arange(30, dtype=np.float32).reshape(10, 3)


def write_npz(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path / "set.npz", **arrays)
    return path / "set.npz"


def write_h5(path: Path, arrays: dict[str, Any]) -> Path:
    import h5py

    with h5py.File(path / "set.h5", "w") as file:
        for name, value in arrays.items():
            array = np.asarray(value)
            file[name] = array.tolist() if array.dtype.kind == "U" else array
    return path / "set.h5"


def write_npy(path: Path, arrays: dict[str, Any]) -> Path:
    for name, value in arrays.items():
        np.save(path / f"{name}.npy", value)
    return path


FORMATS = {"npz": write_npz, "h5": write_h5, "npy": write_npy}
FIELDS = {"x": X, "y": BINARY, "y_kind": KINDS, "y_damage": DAMAGE, "split": SPLIT}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_files_hold_classes_beside_labels(write: Callable[..., Path], tmp_path: Path) -> None:
    data = load(write(tmp_path, FIELDS))
    assert data.label_names == ["task_0", "task_1", "damage", "kind"]
    assert data.class_names == {"damage": ["mild", "none", "severe"], "kind": ["0", "1", "2"]}
    assert data.tasks.sizes == (1, 1, 3, 3)
    expected = [1, 0, torch.nan, 0, 1, 2, 1, 0, 2, torch.nan]
    torch.testing.assert_close(data.y[:, 2], torch.tensor(expected), equal_nan=True)
    assert data.y[4, 3].isnan()
    assert data.y[9, 3] == 1
    assert data.y[:, :2].equal(torch.tensor(BINARY, dtype=torch.float32))
    assert not data.warnings


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_files_hold_classes_alone_and_their_names(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    names = ["ok", "bad", "worse", "gone"]
    data = load(write(tmp_path, {"x": X, "y_kind": KINDS, "class_names_kind": names}))
    assert data.class_names == {"kind": names}
    assert data.y.shape == (10, 1)
    assert [line for line in data.warnings if "no sample of 1 classes: 'gone'" in line]


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_labels_are_there_when_features_stay_in_the_file(memory: str, tmp_path: Path) -> None:
    data = load(write_npy(tmp_path, FIELDS), memory=memory)
    assert data.subset("val").y[:, 2].tolist() == [1, 0]


def table(tmp_path: Path, header: str, column: list[str], name: str = "set.csv") -> Path:
    lines = [f"{i},{i % 2},{c},{s}" for i, (c, s) in enumerate(zip(column, SPLIT, strict=True))]
    (tmp_path / name).write_text("\n".join([header, *lines]) + "\n")
    return tmp_path / name


def test_a_table_says_that_a_column_is_of_classes(tmp_path: Path) -> None:
    data = load(table(tmp_path, "a,y_odd,class_damage,split", DAMAGE))
    assert data.modalities == {"x": (1,)}
    assert data.label_names == ["odd", "damage"]
    assert data.class_names == {"damage": ["mild", "none", "severe"]}
    assert data.y[:, 1].isnan().nonzero().flatten().tolist() == [2, 9]


def test_numerals_of_a_table_are_names_in_the_order_of_their_values(tmp_path: Path) -> None:
    column = ["10", "9", "", "9", "10", "2", "2", "9", "10", "2"]
    data = load(table(tmp_path, "a,y_odd,class_stars,split", column))
    assert data.class_names == {"stars": ["2", "9", "10"]}
    column[0] = "-1"
    with pytest.raises(DataError, match="y_stars: expected an empty string for a missing label"):
        load(table(tmp_path, "a,y_odd,class_stars,split", column))


def test_parquet(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"a": range(10), "class_damage": [each or None for each in DAMAGE], "split": SPLIT}
    columns["class_stars"] = [1, 2, None, 1, 2, 1, 2, 1, 2, 1]
    pq.write_table(pa.table(columns), tmp_path / "set.parquet")
    data = load(tmp_path / "set.parquet")
    assert data.class_names == {"damage": ["mild", "none", "severe"], "stars": ["1", "2"]}
    assert data.y.isnan().sum(0).tolist() == [2, 1]


def test_two_files(tmp_path: Path) -> None:
    for name, rows in (("train", slice(0, 8)), ("test", slice(8, 10))):
        part = {key: np.asarray(FIELDS[key])[rows] for key in ("x", "y_damage", "y_kind")}
        np.savez(tmp_path / f"{name}.npz", **part)
    data = load(tmp_path / "train.npz", test=tmp_path / "test.npz")
    assert data.class_names["damage"] == ["mild", "none", "severe"]
    assert data.subset("test").y[0].tolist() == [2, 2]
    part = {"x": X[:2], "y_damage": [0, 1], "y_kind": [0, 1]}
    np.savez(tmp_path / "test.npz", **part)
    with pytest.raises(DataError, match=r"y_damage: expected names as in .*, got numbers"):
        load(tmp_path / "train.npz", test=tmp_path / "test.npz")
    np.savez(tmp_path / "test.npz", x=X[:2], y_kind=[0, 1])
    with pytest.raises(DataError, match="y_damage: expected the field in both files or in none"):
        load(tmp_path / "train.npz", test=tmp_path / "test.npz")


def test_samples_of_ones_own() -> None:
    samples = [(X[i], [i % 2, KINDS[i], 1 - i % 2]) for i in range(10)]
    data = from_samples(
        samples, label_names=["a", "kind", "b"], class_names={"kind": ["p", "q", "r"]}
    )
    assert data.label_names == ["a", "b", "kind"]
    assert data.y[1].tolist() == [1, 0, 1]
    assert data.y[4, 2].isnan()
    with pytest.raises(DataError, match="label_names: expected 'kind' among them"):
        from_samples(samples, class_names={"kind": ["p", "q", "r"]})


def arrays(classes: Any, names: Any = None, **options: Any) -> MultiTaskData:
    named = {} if names is None else {"damage": names}
    given = {"split": SPLIT, **options}
    return MultiTaskData.from_arrays(
        X, None, classes={"damage": classes}, class_names=named, **given
    )


BAD = [
    ([0, 1, 2, 0, -3, 1, 0, 1, 2, 1], None, "from 0 to 65535, or -1 for missing, got -3 at row 4"),
    ([0, 1, 2, 0, 0.5, 1, 0, 1, 2, 1], None, r"or -1 for missing, got 0\.5 at row 4"),
    ([0, 1, 2, 0, np.inf, 1, 0, 1, 2, 1], None, "got inf at row 4"),
    ([0, 1, 10**9, 0, 0, 1, 0, 1, 2, 1], None, "got 1000000000 at row 2"),
    ([0, 1, 2, 0, 0, 1, 0, 1, 2, 1], ["a", "b"], "from 0 to 1, or -1 for missing, got 2 at row 2"),
    ([0] * 10, None, "at least 2 classes in the training split, got '0' alone"),
    (["a"] * 6 + ["b"] * 4, None, "at least 2 classes in the training split, got 'a' alone"),
    ([-1] * 10, None, "at least one label, got only missing ones"),
    ([-1] * 6 + [0, 1, 0, 1], None, "at least 2 classes in the training split, got no label"),
    ([0, 1] * 4 + [2, 1], None, "training split has samples of, got '2' at row 8 of test"),
    (["a", "b"] * 5, ["b", "c"], "one of b, c, or empty, got 'a' at row 0"),
    (["a", "b"] * 5, ["a", "a"], "distinct names, got 'a' more than once"),
    (["a", "b"] * 5, ["a", ""], "expected names, got an empty one"),
    (["a", "b"] * 5, ["a"], "at least 2 classes, got 1"),
    ([[0], [1]] * 5, None, r"a non-empty vector \(N,\), the class of each sample, got shape"),
    ([0, 1], None, "expected 10 rows, as many as x has, got 2"),
    ([1j] * 10, None, "strings, got an array of complex128"),
]


@pytest.mark.parametrize(("classes", "names", "message"), BAD)
def test_what_cannot_be_used(classes: Any, names: Any, message: str) -> None:
    with pytest.raises(DataError, match=r"(y|class_names)_damage: .*" + message):
        arrays(classes, names)


def test_names_of_what_is_not_there() -> None:
    with pytest.raises(DataError, match="class_names_z: expected a field y_z with it, got damage"):
        MultiTaskData.from_arrays(X, None, classes={"damage": KINDS}, class_names={"z": ["a", "b"]})
    with pytest.raises(DataError, match="y_a: expected another name than a label's, got 'a'"):
        MultiTaskData.from_arrays(X, BINARY, label_names=["a", "b"], classes={"a": KINDS})


def test_data_to_predict_may_have_any_classes() -> None:
    data = arrays(["a"] * 10, split=None, for_training=False)
    assert data.class_names == {"damage": ["a"]}


def test_missing_labels_of_every_kind() -> None:
    for classes in (
        [0.0, 1.0, np.nan] * 3 + [0.0],
        [0, 1, -1] * 3 + [0],
        ["a", "b", None] * 3 + ["a"],
        [b"a", b"b", b""] * 3 + [b"a"],
        torch.tensor([0, 1, -1] * 3 + [0]),
    ):
        data = arrays(classes)
        assert data.y[:, 0].isnan().tolist() == [False, False, True] * 3 + [False]


def test_counts_and_frequencies() -> None:
    data = MultiTaskData.from_arrays(
        X, BINARY, classes={"kind": [0, 0, 1, 2, 0, -1, 0, 1, 0, 0]}, split=SPLIT
    )
    # Outside the most frequent class of 0, 0, 1, 2, 0.
    assert data.positives("train").tolist() == [3, 3, 2]
    shares = data.tasks.frequencies(data.y[data.indices("train")])
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.5, 0.6, 0.2, 0.2]))
