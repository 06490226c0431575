"""Data sets of samples, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from fastmtl.data import DataError, MultiTaskData, StoredFeatures, from_samples, placement
from tests.data.test_stored import same

Y = torch.eye(2).repeat(10, 1)
N = len(Y)


class Clips(Dataset[Any]):
    """Text, and video of 1 to 4 frames."""

    def __init__(self, size: int = N) -> None:
        self.size = size
        self.asked = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> Any:
        self.asked += 1
        generator = torch.Generator().manual_seed(row)
        video = torch.randn(row % 4 + 1, 3, generator=generator)
        return {"text": torch.randn(5, generator=generator), "video": video}, Y[row % N]


class Stream(IterableDataset[Any]):
    def __len__(self) -> int:
        return N

    def __iter__(self) -> Iterator[Any]:
        return (Clips()[row] for row in range(N))


def test_samples_make_the_set_that_their_arrays_make() -> None:
    x = torch.randn(N, 4)
    data = from_samples(TensorDataset(x, Y), label_names=["sea", "sky"], seed=3)
    other = MultiTaskData.from_arrays(x, Y, seed=3)
    assert torch.equal(data.tensors()["x"], x)
    assert torch.equal(data.y, Y)
    assert torch.equal(data.split, other.split)
    assert data.label_names == ["sea", "sky"]
    assert not isinstance(data.x, dict)


@pytest.mark.parametrize("samples", [Clips(), Stream(), [Clips()[i] for i in range(N)]])
def test_sequences_that_differ_are_padded(samples: Any) -> None:
    data = from_samples(samples)
    assert data.modalities == {"text": (5,), "video": (4, 3)}
    assert isinstance(data.lengths, dict)
    assert data.lengths["video"].tolist() == [i % 4 + 1 for i in range(N)]
    video = data.tensors()["video"]
    for row in range(N):
        there = Clips()[row][0]["video"]
        assert torch.equal(video[row, : len(there)], there)
        assert not video[row, len(there) :].any()


def test_lengths_that_are_given_are_taken() -> None:
    x = np.ones((N, 3, 2))
    data = from_samples([(x[i], Y[i], i % 3 + 1) for i in range(N)])
    assert isinstance(data.lengths, torch.Tensor)
    assert data.lengths.tolist() == [i % 3 + 1 for i in range(N)]
    by_modality = from_samples([({"a": x[i]}, Y[i], {"a": i % 3 + 1}) for i in range(N)])
    assert by_modality.lengths_of("a") is not None
    assert from_samples([(x[i], Y[i]) for i in range(N)]).lengths is None


def test_parts_by_split() -> None:
    data = from_samples({"train": Clips(10), "val": Clips(4), "test": iter([Clips()[7]])})
    assert [len(data.indices(s)) for s in ("train", "val", "test")] == [10, 4, 1]
    with pytest.raises(DataError, match="split: expected train, val or test, got 'dev' at row 10"):
        from_samples({"train": Clips(10), "dev": Clips(4)})


def test_streamed_samples_are_asked_for_again() -> None:
    clips = Clips()
    data = from_samples({"train": clips, "val": Clips(4)}, memory="stream")
    assert all(isinstance(x, StoredFeatures) for x in data.features().values())
    asked = clips.asked
    same(data, from_samples({"train": clips, "val": Clips(4)}))
    assert clips.asked > asked
    asked = clips.asked
    rows = torch.tensor([3, 1])
    for value in data.features().values():
        value[rows]
    assert clips.asked == asked + 2


def test_auto_judges_by_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    size = N * 4 * (5 + 3)
    monkeypatch.setattr(placement, "available_memory", lambda: 4 * size)
    assert isinstance(from_samples(Clips(), memory="auto").features()["text"], torch.Tensor)
    monkeypatch.setattr(placement, "available_memory", lambda: 4 * size - 1)
    assert isinstance(from_samples(Clips(), memory="auto").features()["text"], StoredFeatures)
    assert isinstance(from_samples(Stream(), memory="auto").features()["text"], torch.Tensor)


def test_an_iterable_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTMTL_MEMORY_LIMIT", "1K")

    def endless() -> Iterator[Any]:
        while True:
            yield torch.ones(4), torch.ones(2)

    with pytest.raises(DataError, match="x of sample 32: expected data of at most 1 KiB"):
        from_samples(endless())


GOOD = (np.ones((3, 2)), np.ones(2))
BAD: list[tuple[Any, str]] = [
    ([], "samples: expected at least one, got none"),
    ([1], r"sample 0: expected \(x, y\) or \(x, y, lengths\), got a int"),
    ([GOOD, (1,)], r"sample 1: expected \(x, y\) or .* got 1 parts"),
    ([("a", [1])], "x of sample 0: expected numbers"),
    ([(np.ones((2, 2, 2)), [1])], r"x of sample 0: expected numbers \(D,\) or \(L, D\)"),
    ([(np.ones((0, 2)), [1])], "x of sample 0: expected numbers"),
    ([(np.ones(2), 1)], r"y of sample 0: expected labels \(T,\), got shape \(\)"),
    (
        [GOOD, (np.ones((3, 3)), np.ones(2))],
        r"x of sample 1: expected shape \(3, 2\) as others have",
    ),
    ([GOOD, (np.ones(2), np.ones(2))], r"x of sample 1: expected shape"),
    (
        [GOOD, ({"a": np.ones(2)}, np.ones(2))],
        "x of sample 1: expected some of the modalities x, got a",
    ),
    ([GOOD, (np.ones((3, 2)), np.ones(3))], r"y of sample 1: expected labels of shape \(2,\)"),
    ([GOOD, (*GOOD, 3)], "sample 1: expected lengths in all or in none"),
    ([(*GOOD, 4)] * 5, "lengths: expected from 1 to 3 steps"),
    ([(np.ones(2), [2.0])] * 5, "y: expected only numbers from 0 to 1 or NaN"),
]


@pytest.mark.parametrize(("samples", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_what_cannot_be_used(samples: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        from_samples(samples, name="mine")
    assert str(caught.value).startswith("mine: ")


def test_what_cannot_be_streamed() -> None:
    with pytest.raises(DataError, match="expected samples that are taken by index"):
        from_samples(Stream(), memory="stream")


def test_samples_that_change_are_refused() -> None:
    rows = [(np.ones((2, 2)), [1, 0])] * N
    data = from_samples(rows, memory="stream")
    rows[3] = (np.ones((3, 2)), [1, 0])
    with pytest.raises(DataError, match=r"x: expected 2 steps at most, .* got 3"):
        data.features()["x"][torch.tensor([2, 3])]
    rows[3] = (np.ones((3, 1)), [1, 0])
    with pytest.raises(DataError, match="x of sample 3: expected shape"):
        data.features()["x"][torch.tensor([2, 3])]
