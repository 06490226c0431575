"""MultiTaskData: what it accepts, what it refuses, and its views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data import DataError, MultiTaskData, checks

N, L, D, T = 20, 4, 3, 2


def arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    fields: dict[str, Any] = {
        "x": rng.standard_normal((N, D)).astype(np.float32),
        "y": np.tile([[0, 1], [1, 0]], (N // 2, 1)),
    }
    return {**fields, **changes}


def sequences(**changes: Any) -> dict[str, Any]:
    return arrays(x=np.ones((N, L, D), dtype=np.float32), **changes)


def build(**fields: Any) -> MultiTaskData:
    return MultiTaskData.from_arrays(name="toy", **fields)


def changed(array: np.ndarray[Any, Any], *places: tuple[Any, float]) -> np.ndarray[Any, Any]:
    array = array.astype(np.float32)
    for index, value in places:
        array[index] = value
    return array


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8, np.bool_, ">f4", ">i2"]
)
def test_features_of_any_real_dtype_become_float32(dtype: Any) -> None:
    x = np.arange(N * D).reshape(N, D).astype(dtype)
    data = build(**arrays(x=x))
    assert isinstance(data.x, torch.Tensor)
    assert data.x.dtype == torch.float32
    assert data.x.is_contiguous()
    assert np.array_equal(data.x.numpy(), x.astype(np.float32))


def test_non_contiguous_and_read_only_arrays() -> None:
    x = np.random.default_rng(0).standard_normal((D, N)).T
    x.flags.writeable = False
    assert np.array_equal(build(**arrays(x=x)).features()["x"].numpy(), x.astype(np.float32))


def test_tensors_lists_and_dicts_are_accepted() -> None:
    x = torch.randn(N, D, dtype=torch.bfloat16, requires_grad=True)
    data = build(x={"a": x, "b": torch.randn(N, L, 5)}, y=[[0, 1], [1, 0]] * (N // 2))
    assert data.modalities == {"a": (3,), "b": (4, 5)}
    assert torch.equal(data.features()["a"], x.detach().float())


def test_modality_names_may_look_like_fields() -> None:
    data = build(**arrays(x={"x": np.ones((N, 1)), "x_x": np.ones((N, 2)), "y": np.ones((N, 3))}))
    assert data.modalities == {"x": (1,), "x_x": (2,), "y": (3,)}


def test_missing_labels_and_defaults() -> None:
    y = changed(arrays()["y"], ((0, 1), np.nan))
    data = build(**arrays(y=y))
    assert data.y.dtype == torch.float32
    assert bool(data.y[0, 1].isnan())
    assert data.label_names == ["task_0", "task_1"]
    assert data.lengths is None
    assert data.warnings == ()
    assert [len(data.indices(s)) for s in ("train", "val", "test")] == [12, 4, 4]
    assert data.split.dtype == torch.int64


@pytest.mark.parametrize("kind", [str, bytes, object])
def test_strings_may_be_unicode_bytes_or_objects(kind: Any) -> None:
    names, split = ["sea", "bücher"], ["train", "val", "test", "train"] * 5
    if kind is bytes:
        fields = {"label_names": np.char.encode(names), "split": np.char.encode(split)}
    else:
        dtype = object if kind is object else None
        fields = {"label_names": np.array(names, dtype), "split": np.array(split, dtype)}
    data = build(**arrays(**fields))
    assert data.label_names == names
    assert data.split.tolist() == [0, 1, 2, 0] * 5


def test_padding_is_cleared_and_may_be_anything() -> None:
    x = np.ones((N, L, D), dtype=np.float32)
    x[0, 2:], x[1, 3] = np.nan, np.inf
    lengths = np.full(N, L)
    lengths[:2] = 2, 3
    kept = x.copy()
    data = build(**arrays(x=x, lengths=lengths))
    values = data.features()["x"]
    assert values[0].sum(1).tolist() == [D, D, 0, 0]
    assert values[1].sum(1).tolist() == [D, D, D, 0]
    assert np.array_equal(x, kept, equal_nan=True), "the caller's array was changed"
    assert data.lengths is not None
    assert data.lengths.dtype == torch.int64


def test_lengths_hold_for_the_sequences_among_the_modalities() -> None:
    x = {"flat": np.ones((N, 2)), "audio": np.ones((N, 3, 2)), "video": np.ones((N, 3, 4))}
    data = build(**arrays(x=x, lengths=np.full(N, 2)))
    for name in ("audio", "video"):
        assert data.features()[name][0, :, 0].tolist() == [1, 1, 0]
    with pytest.raises(DataError, match="from 1 to 3 steps"):
        build(**arrays(x=x, lengths=np.full(N, 4)))


@pytest.mark.parametrize("length", [2, 4])
def test_lengths_of_sequences_of_different_sizes_are_refused(length: int) -> None:
    x = {"audio": np.ones((N, 3, 2)), "video": np.ones((N, 5, 2))}
    with pytest.raises(
        DataError, match=r"lengths: expected sequences of one number.*x_video with 5"
    ):
        build(**arrays(x=x, lengths=np.full(N, length)))
    assert build(**arrays(x=x)).features()["video"].all()


GOOD = arrays()
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("label 2", arrays(y=changed(GOOD["y"], ((3, 1), 2.0))), r"y: .*got 2.0 at row 3, column 1"),
    ("label inf", arrays(y=changed(GOOD["y"], ((0, 0), np.inf))), r"y: .*got inf at row 0"),
    ("integer label", arrays(y=GOOD["y"] * -1), r"y: .*got -1 at row 0, column 1"),
    ("label text", arrays(y=np.full((N, T), "1")), r"y: expected numbers from 0 to 1"),
    ("flat y", arrays(y=np.zeros(N)), r"y: expected a non-empty \(N, T\) array.*got shape \(20,\)"),
    ("no task", arrays(y=np.zeros((N, 0))), r"y: expected a non-empty"),
    ("all missing", arrays(y=np.full((N, T), np.nan)), r"y: .*only missing ones"),
    (
        "one task missing",
        arrays(y=changed(GOOD["y"], (np.s_[:, 1], np.nan)), label_names=["sea", "sky"]),
        r"y: expected labels in the training split, got none for the task 'sky' \(column 1\)",
    ),
    (
        "nan",
        arrays(x=changed(GOOD["x"], ((5, 2), np.nan), ((7, 0), -np.inf))),
        r"x: expected finite numbers, got 2 NaN or infinite .*first at row 5, column 2",
    ),
    ("overflow", arrays(x=np.full((N, D), 1e300)), r"x: .*got 60 NaN or infinite \(as float32\)"),
    (
        "nan in a sequence",
        sequences() | {"x": changed(np.ones((N, L, D)), ((1, 2, 0), np.nan))},
        r"row 1, step 2, column 0",
    ),
    ("1-d x", arrays(x=np.zeros(N)), r"x: expected a non-empty \(N, D\) or \(N, L, D\)"),
    ("4-d x", arrays(x=np.zeros((N, 1, 1, 1))), r"got shape \(20, 1, 1, 1\)"),
    ("no features", arrays(x=np.zeros((N, 0))), r"x: expected a non-empty"),
    ("no samples", arrays(x=np.zeros((0, D)), y=np.zeros((0, T))), r"x: expected a non-empty"),
    ("complex x", arrays(x=np.zeros((N, D), complex)), r"x: expected numbers, got .*complex128"),
    ("text x", arrays(x=np.full((N, D), "a")), r"x: expected numbers"),
    ("no modality", arrays(x={}), r"x: expected at least one modality"),
    ("rows of y", arrays(y=GOOD["y"][:-1]), r"y: expected 20 rows, as many as x has, got 19"),
    (
        "rows of a modality",
        arrays(x={"a": np.ones((N, 1)), "b": np.ones((N - 1, 1))}),
        r"x_b: expected 20 rows, as many as x_a has, got 19",
    ),
    ("rows of split", arrays(split=["train"] * 3), r"split: expected 20 rows.*got 3"),
    ("rows of group", arrays(group=np.arange(3)), r"group: expected 20 rows"),
    ("rows of lengths", sequences(lengths=[1] * 3), r"lengths: expected 20 rows"),
    ("length 0", sequences(lengths=[0] + [1] * 19), r"lengths: expected from 1 to 4.*0 at row 0"),
    ("length -2", sequences(lengths=[1] * 19 + [-2]), r"lengths: .*got -2 at row 19"),
    ("long", sequences(lengths=[1, 5] + [1] * 18), r"lengths: expected from 1 to 4.*5 at row 1"),
    ("float length", sequences(lengths=[1.5] * N), r"lengths: expected integers"),
    ("flat lengths", arrays(lengths=[1] * N), r"lengths: expected sequence features"),
    ("few names", arrays(label_names=["a"]), r"label_names: expected 2 names.*got 1 names"),
    ("twin names", arrays(label_names=["a", "a"]), r"expected distinct names, got 'a' more than"),
    ("names of numbers", arrays(label_names=[1, 2]), r"label_names: expected strings, got"),
    ("bad bytes", arrays(label_names=[b"\xff", b"a"]), r"label_names: expected UTF-8"),
    ("split name", arrays(split=["train"] * 19 + ["dev"]), r"split: .*got 'dev' at row 19"),
    ("split codes", arrays(split=[0] * N), r"split: expected strings"),
    ("2-d split", arrays(split=[["train"]] * N), r"split: expected a vector of strings"),
    ("no train", arrays(split=["test"] * N), r"split: expected at least one training sample"),
    ("no val", arrays(split=["train"] + ["test"] * 19), r"split: .*validation sample, got too few"),
    ("one group", arrays(group=[1] * N), r"split: .*validation sample, got too few"),
    ("float group", arrays(group=np.ones(N)), r"group: expected strings"),
]


@pytest.mark.parametrize(("fields", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input_gives_one_line_that_names_file_and_field(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        build(**fields)
    assert str(caught.value).startswith("toy: ")
    assert "\n" not in str(caught.value)


def test_first_bad_value_is_found_beyond_the_first_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_CHUNK_BYTES", 64)
    x = changed(GOOD["x"], ((13, 1), np.nan), ((19, 0), np.nan))
    with pytest.raises(DataError, match=r"got 2 NaN or infinite .* row 13, column 1"):
        build(**arrays(x=x))


def test_for_training_false_lifts_what_only_training_needs() -> None:
    data = build(x=np.ones((1, D)), y=None, for_training=False)
    assert data.y.shape == (1, 0)
    assert data.label_names == []
    data = build(**arrays(y=np.full((N, T), np.nan), split=["test"] * N), for_training=False)
    assert len(data.indices("test")) == N
    with pytest.raises(DataError, match="y: "):
        build(x=np.ones((1, D)), y=None)


def test_tasks_of_one_class_are_warned_of() -> None:
    y = np.zeros((N, T))
    y[:, 1] = 1
    data = build(**arrays(y=y, label_names=["sea", "sky"]))
    assert data.warnings == (
        "toy: the task 'sea' has no positive in the training split",
        "toy: the task 'sky' has no negative in the training split",
    )


def test_groups_stay_together_or_are_warned_of() -> None:
    group = np.repeat(["a", "b", "c", "d", "e"], 4)
    data = build(**arrays(group=group))
    assert all(len(set(data.split[group == g].tolist())) == 1 for g in "abcde")
    assert data.warnings == ()
    data = build(**arrays(group=group, split=["train", "val", "test", "train"] * 5))
    assert data.warnings == ("toy: 5 groups have samples in more than one split",)


def test_subset_keeps_fields_together() -> None:
    x = {"a": np.arange(N)[:, None], "b": np.arange(N)[:, None, None].repeat(L, 1)}
    fields = arrays(x=x, lengths=np.arange(N) % L + 1, group=np.arange(N) // 2)
    data = build(**fields)
    part = data.subset("train")
    rows = data.indices("train")
    assert len(part) == len(rows) == 12
    assert part.features()["a"][:, 0].tolist() == rows.tolist()
    assert part.features()["b"][:, 0, 0].tolist() == rows.tolist()
    assert part.lengths is not None
    assert part.lengths.tolist() == (rows % L + 1).tolist()
    assert part.split.tolist() == [0] * 12
    assert torch.equal(part.y, data.y[rows])
    assert data.subset([3, 1]).features()["a"][:, 0].tolist() == [3, 1]
    assert data.subset([]).num_samples == 0


def test_positives_count_ones_among_present_labels() -> None:
    y = changed(GOOD["y"], ((0, 1), np.nan), ((1, 0), np.nan))
    data = build(**arrays(y=y, split=["train", "train"] + ["val", "test"] * 9))
    assert data.positives("train").tolist() == [0, 0]
    assert data.positives("val").tolist() == [0, 9]
    with pytest.raises(ValueError, match="split: expected 'train', 'val' or 'test', got 'dev'"):
        data.positives("dev")


def test_with_modalities_cuts_columns() -> None:
    data = build(**arrays())
    x = data.features()["x"]
    cut = data.with_modalities({"a": slice(1, None), "b": [2, 0]})
    assert torch.equal(cut.features()["a"], x[:, 1:])
    assert torch.equal(cut.features()["b"], x[:, [2, 0]])
    assert build(**sequences()).with_modalities({"a": slice(0, 2)}).modalities == {"a": (4, 2)}


def test_with_modalities_selects_by_name() -> None:
    data = build(**arrays(x={"a": np.ones((N, 1)), "b": np.ones((N, 2)), "c": np.ones((N, 3))}))
    assert data.with_modalities(["c", "a"]).modalities == {"c": (3,), "a": (1,)}


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ({"a": slice(0, 4)}, "columns from 0 to 2 for 'a'"),
        ({"a": slice(2, 2)}, "columns from 0 to 2"),
        ({"a": [-1]}, "columns from 0 to 2"),
        ({}, "at least one modality"),
        (["text"], "any of x, got 'text'"),
        (["x", "x"], "distinct names, got 'x' more than once"),
    ],
)
def test_with_modalities_refuses(modalities: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build(**arrays()).with_modalities(modalities)


def test_columns_are_cut_from_one_tensor_only() -> None:
    data = build(**arrays(x={"a": np.ones((N, 3))}))
    with pytest.raises(DataError, match="one tensor x to cut columns from"):
        data.with_modalities({"b": slice(0, 1)})
