"""Standardisation against float64 by hand, with padding, modalities and chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastmtl.data import MultiTaskData, Standardizer, checks, load, synthetic
from tests.tolerances import assert_close


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = x.double().reshape(-1, x.shape[-1])
    return values.mean(0), values.std(0, correction=0)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (50, 4, 5), (3, 1, 2)])
@pytest.mark.parametrize("chunk", [8, 1 << 20])
def test_moments(shape: tuple[int, ...], chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_CHUNK_BYTES", chunk)
    x = torch.randn(shape) * 3 + 100
    state = Standardizer().fit(x).state_dict()
    mean, scale = moments(x)
    assert_close(state["x.mean"], mean)
    assert_close(state["x.scale"], torch.where(scale == 0, 1.0, scale))


def test_large_offsets_keep_their_digits() -> None:
    x = (torch.randn(1000, 2, dtype=torch.float64) + 1e4).float()
    assert_close(Standardizer().fit(x).state_dict()["x.scale"], moments(x)[1])


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7, 1e-30])
def test_constant_columns_get_scale_one(value: float) -> None:
    x = torch.full((1001, 2), value)
    x[:, 1] = torch.arange(1001)
    standardizer = Standardizer().fit(x)
    assert standardizer.state_dict()["x.scale"][0] == 1
    assert standardizer.transform(x)[:, 0].abs().max() == 0


def test_rows_and_lengths_choose_what_is_measured() -> None:
    x = torch.randn(6, 4, 3)
    lengths = torch.tensor([1, 4, 2, 3, 4, 1])
    rows = torch.tensor([4, 0, 2])
    for row, length in enumerate(lengths.tolist()):
        x[row, length:] = float("nan")
    seen = torch.cat([x[r, : lengths[r]] for r in rows])
    standardizer = Standardizer().fit(x, rows, lengths)
    assert_close(standardizer.state_dict()["x.mean"], seen.double().mean(0))
    assert_close(standardizer.state_dict()["x.scale"], seen.double().std(0, correction=0))
    out = standardizer.transform(x, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert (out[row, length:] == 0).all()
        assert (out[row, :length] != 0).all()


def test_a_data_set_is_fitted_on_its_training_split() -> None:
    data = synthetic.disaster_multimodal(60, 6, 5, 4, 3, min_frames=2)
    done = Standardizer().fit(data).transform(data)
    assert done.y is data.y
    train = done.subset("train")
    assert train.lengths is not None
    for name, x in train.features().items():
        valid = x
        if x.dim() == 3:
            valid = torch.cat([v[:n] for v, n in zip(x, train.lengths.tolist(), strict=True)])
        mean, scale = moments(valid)
        assert mean.abs().max() < 1e-5, name
        assert (scale - 1).abs().max() < 1e-5, name


def test_inplace_overwrites_and_else_it_does_not() -> None:
    x = torch.randn(10, 3)
    standardizer, before = Standardizer().fit(x), x.clone()
    out = standardizer.transform(x)
    assert torch.equal(x, before)
    same = standardizer.transform(x, inplace=True)
    assert same is x
    assert torch.equal(same, out)


def test_state_survives_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    x = {"a": torch.randn(10, 3), "b.mean": torch.randn(10, 4, 2)}
    one = Standardizer().fit(x)
    save_file(one.state_dict(), tmp_path / "s.safetensors")
    other = Standardizer().load_state_dict(load_file(tmp_path / "s.safetensors"))
    for name, value in one.transform(x).items():
        assert torch.equal(other.transform(x)[name], value)


def test_float64_features_stay_float64() -> None:
    x = torch.randn(10, 3, dtype=torch.float64)
    assert Standardizer().fit(x).transform(x).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.transform(torch.ones(2, 4)), "x: expected 3 features, got 4"),
        (lambda s: s.transform({"y": torch.ones(2, 3)}), "expected the modalities x, got y"),
        (lambda s: Standardizer().transform(torch.ones(2, 3)), r"nothing \(fit first\)"),
        (lambda s: s.fit(torch.ones(2, 3), rows=[]), "rows: expected at least one row"),
        (lambda s: s.fit(torch.tensor([[1.0, float("nan")]])), "x: .*infinity in column 1"),
        (lambda s: s.fit(torch.tensor([[float("inf"), 1.0]])), "x: .*infinity in column 0"),
        (lambda s: s.fit(torch.ones(3)), r"x: expected float32 or float64 \(N, D\)"),
        (lambda s: s.fit(torch.ones(3, 2).half()), "x: expected float32 or float64"),
        (lambda s: s.fit(torch.ones(3, 2, 1), lengths=torch.ones(2)), "lengths: expected shape"),
        (
            lambda s: s.fit(
                {"a": torch.ones(3, 2, 1), "b": torch.ones(3, 4, 1)}, lengths=torch.ones(3)
            ),
            "lengths: expected sequences of one number of steps, got {'a': 2, 'b': 4}",
        ),
        (lambda s: s.load_state_dict({}), "state: expected .* got nothing"),
        (lambda s: s.load_state_dict({"x.mean": torch.ones(1)}), "state: expected"),
        (
            lambda s: s.load_state_dict({"x.mean": torch.ones(1), "x.scale": torch.ones(2)}),
            "state: expected vectors of one size for 'x'",
        ),
    ],
)
def test_refuses(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(Standardizer().fit(torch.randn(5, 3)))


def test_lengths_beside_a_data_set_are_refused() -> None:
    data = MultiTaskData.from_arrays(torch.ones(3, 2), torch.eye(3), for_training=False)
    with pytest.raises(ValueError, match="lengths: expected None beside a data set"):
        Standardizer().fit(data, lengths=torch.ones(3))


def test_mosi_with_its_constant_columns(shared_data: Path) -> None:
    data = load(shared_data / "mosi.npz")
    standardizer = Standardizer().fit(data)
    assert (standardizer.state_dict()["video.scale"] == 1).sum() >= 32
    for x in standardizer.transform(data).features().values():
        assert bool(x.isfinite().all())
