"""Sequences that lie one behind another in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data import DataError, load, load_npz
from tests.data.test_stored import WRITERS, Write, same

N = 20
LENGTHS = np.arange(N) % 4 + 1
OFFSETS = np.cumsum([0, *LENGTHS])
Y = np.tile([[0, 1], [1, 0]], (N // 2, 1))


def arrays(**fields: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (OFFSETS[-1], 3)).astype("i1")
    return {"x": x, "offsets": OFFSETS, "y": Y, **fields}


def padded(values: np.ndarray[Any, Any]) -> torch.Tensor:
    sequences = [torch.tensor(part).float() for part in np.split(values, OFFSETS[1:-1])]
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)


@pytest.mark.parametrize("write", WRITERS)
def test_they_are_padded_when_they_are_read(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path, arrays())
    data = load(path)
    assert torch.equal(data.tensors()["x"], padded(arrays()["x"]))
    assert isinstance(data.lengths, torch.Tensor)
    assert data.lengths.tolist() == LENGTHS.tolist()
    same(load(path, memory="stream"), data)


def test_each_modality_has_its_own(tmp_path: Path) -> None:
    fields = arrays(
        x_a=arrays()["x"], offsets_a=OFFSETS, x_b=np.ones((N, 2, 2)), x_c=np.ones((N, 5)),
        lengths_b=np.full(N, 1),
    )  # fmt: skip
    del fields["x"], fields["offsets"]
    np.savez(tmp_path / "a.npz", **fields)
    data = load(tmp_path / "a.npz")
    assert data.modalities == {"a": (4, 3), "b": (2, 2), "c": (5,)}
    assert isinstance(data.lengths, dict)
    assert data.lengths["a"].tolist() == LENGTHS.tolist()
    assert data.lengths["b"].tolist() == [1] * N
    same(load(tmp_path / "a.npz", memory="stream"), data)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"offsets": OFFSETS + 1}, "offsets: expected 0 at first, got 1"),
    ({"offsets": OFFSETS * 1.0}, r"offsets: expected integers of shape \(N \+ 1,\), got float64"),
    ({"offsets": OFFSETS[:1]}, "offsets: expected integers of shape"),
    ({"offsets": np.sort(OFFSETS % 7)}, "offsets: expected at least 1 more from row to row"),
    ({"offsets": OFFSETS[:-1]}, r"x: expected \(46, D\), the steps of all .* got shape \(50, 3\)"),
    ({"x": np.ones((50, 2, 2))}, r"x: expected \(50, D\), .* got shape \(50, 2, 2\)"),
    ({"lengths": LENGTHS}, "lengths: expected only one of .* got both lengths and offsets"),
    ({"offsets_a": OFFSETS}, "offsets_a: expected those of one of x, got those of x_a"),
    ({"y": Y[:-2]}, "y: expected 20 rows"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
@pytest.mark.parametrize("memory", ["load", "stream"])
def test_what_cannot_be(tmp_path: Path, fields: dict[str, Any], message: str, memory: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays(**fields))
    with pytest.raises(DataError, match=message):
        load_npz(tmp_path / "a.npz", memory=memory)


def test_both_offsets_and_lengths_of_a_modality_are_refused(tmp_path: Path) -> None:
    fields = {"x_a": arrays()["x"], "offsets_a": OFFSETS, "lengths_a": LENGTHS, "y": Y}
    np.savez(tmp_path / "a.npz", **fields)
    with pytest.raises(DataError, match="offsets_a: expected either offsets or lengths"):
        load_npz(tmp_path / "a.npz")


def test_padding_that_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = np.array([*range(N), 10_000])
    np.savez(tmp_path / "a.npz", x=np.ones((10_000, 1), "f4"), offsets=offsets, y=Y)
    monkeypatch.setenv("FASTMTL_MEMORY_LIMIT", "100K")
    message = "x, padded to its longest sequence,: expected data of at most 100 KiB"
    with pytest.raises(DataError, match=message):
        load_npz(tmp_path / "a.npz")
    load_npz(tmp_path / "a.npz", memory="stream")
    load_npz(tmp_path / "a.npz", memory="auto")


def test_a_test_file_may_have_longer_ones(tmp_path: Path) -> None:
    longer = np.full(N, 6)
    other = arrays(x=np.ones((6 * N, 3), "f2"), offsets=np.cumsum([0, *longer]))
    np.savez(tmp_path / "a.npz", **arrays())
    np.savez(tmp_path / "b.npz", **other)
    for first, second in [("a.npz", "b.npz"), ("b.npz", "a.npz")]:
        data = load(tmp_path / first, test=tmp_path / second)
        assert data.modalities == {"x": (6, 3)}
        expected = {"a.npz": LENGTHS, "b.npz": longer}
        assert isinstance(data.lengths, torch.Tensor)
        assert data.lengths.tolist() == [*expected[first], *expected[second]]
        same(load(tmp_path / first, test=tmp_path / second, memory="stream"), data)
    np.savez(tmp_path / "b.npz", **arrays(x=np.ones((50, 4))))
    with pytest.raises(DataError, match=r"x: expected 3 features as in .*, got 4"):
        load(tmp_path / "a.npz", test=tmp_path / "b.npz")
