"""The synthetic sets: counts, seeds, structure, and that they are neither trivial nor void."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastmtl.data import DataError, MultiTaskData, clips
from fastmtl.data.clips import CONCEPTS, POSITIVES
from fastmtl.data.synthetic import disaster, disaster_multimodal

SETS = [disaster, disaster_multimodal]


def average_precision(scores: Tensor, labels: Tensor) -> float:
    ranked = labels[scores.argsort(descending=True)]
    precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
    return float((precision * ranked).sum() / ranked.sum())


def ridge_map(data: MultiTaskData, *modalities: str) -> float:
    """Test mAP of a ridge regression on features averaged over time."""
    parts = [data.features()[m] for m in modalities]
    x = torch.cat([p.mean(1) if p.dim() == 3 else p for p in parts], 1).double()
    train, test = data.indices("train"), data.indices("test")
    x = (x - x[train].mean(0)) / x[train].std(0)
    y = data.y.double()
    gram = x[train].T @ x[train] + 1000 * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, x[train].T @ (y[train] - y[train].mean(0)))
    scores = x[test] @ weights
    values = [average_precision(scores[:, t], y[test][:, t]) for t in range(data.num_tasks)]
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def default() -> MultiTaskData:
    return disaster()


@pytest.fixture(scope="module")
def multimodal() -> MultiTaskData:
    return disaster_multimodal()


def test_default_sizes_and_counts(default: MultiTaskData, multimodal: MultiTaskData) -> None:
    assert default.modalities == {"x": (40, 128)}
    assert multimodal.modalities == {"text": (100,), "audio": (73,), "video": (40, 128)}
    for data in (default, multimodal):
        assert data.num_samples == 1540
        assert data.y.sum(0).tolist() == list(POSITIVES)
        assert data.label_names == list(CONCEPTS)
        assert data.lengths is None
        assert data.warnings == ()
        assert [len(data.indices(s)) for s in ("train", "val", "test")] == [924, 308, 308]


def test_linear_probe_is_between_chance_and_perfect(default: MultiTaskData) -> None:
    chance = float(default.subset("test").y.mean())
    assert chance < 0.35
    assert 0.5 < ridge_map(default, "x") < 0.85


def test_modalities_complement_each_other(multimodal: MultiTaskData) -> None:
    single = [ridge_map(multimodal, m) for m in multimodal.modalities]
    assert all(0.45 < value < 0.8 for value in single)
    assert max(single) + 0.05 < ridge_map(multimodal, "text", "audio", "video") < 0.95


@pytest.mark.parametrize("draw", SETS)
def test_seeds(draw: Any) -> None:
    one, same = draw(60, 5, seed=3), draw(60, 5, seed=3)
    for name, value in one.features().items():
        assert torch.equal(same.features()[name], value)
    assert torch.equal(one.y, same.y)
    assert torch.equal(one.split, same.split)
    other = draw(60, 5, seed=4)
    assert not torch.equal(one.y, other.y)
    resplit = draw(60, 5, seed=3, split_seed=1)
    assert torch.equal(one.y, resplit.y)
    assert not torch.equal(one.split, resplit.split)


def test_chunks_do_not_change_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    one = disaster(30, 5, 8)
    monkeypatch.setattr(clips, "_CHUNK_BYTES", 1000)
    assert torch.allclose(one.features()["x"], disaster(30, 5, 8).features()["x"], atol=1e-5)


@pytest.mark.parametrize("draw", SETS)
def test_counts_in_proportion_and_given(draw: Any) -> None:
    assert draw(154, 3).y.sum(0).tolist() == [15, 34, 97, 27, 37, 31, 81]
    assert draw(30, 3, positives=[1, 2, 3, 4, 5, 6, 29]).y.sum(0).tolist() == [1, 2, 3, 4, 5, 6, 29]


@pytest.mark.parametrize("draw", SETS)
def test_lengths(draw: Any) -> None:
    data = draw(100, 8, min_frames=2)
    video = data.features().get("video", data.features().get("x"))
    assert set(data.lengths.tolist()) == set(range(2, 9))
    for clip, length in zip(video, data.lengths.tolist(), strict=True):
        assert (clip[length:] == 0).all()
        assert (clip[:length] != 0).any(1).all()


def test_smallest_sizes() -> None:
    assert disaster(5, 1, 1).modalities == {"x": (1, 1)}
    assert disaster_multimodal(5, 1, 1, 1, 1).num_samples == 5


def test_missing_labels_are_hidden_at_the_share_asked_for() -> None:
    whole, hidden = disaster(300, 2, 2), disaster(300, 2, 2, missing=0.2)
    assert hidden.y.isnan().float().mean().item() == pytest.approx(0.2, abs=0.03)
    present = ~hidden.y.isnan()
    assert torch.equal(hidden.y[present], whole.y[present])


def test_labels_occur_together_when_asked() -> None:
    def mean_correlation(data: MultiTaskData) -> float:
        off_diagonal = torch.corrcoef(data.y.T) - torch.eye(7)
        return float(off_diagonal.abs().mean())

    together = mean_correlation(disaster(frames=1, features=1, cooccurrence=0.9))
    apart = mean_correlation(disaster(frames=1, features=1, cooccurrence=0.0))
    assert apart < 0.05 < 0.15 < together


def test_noise_has_unit_variance_and_the_persistence_asked_for() -> None:
    off = {"signal": 0.0, "clutter": 0.0, "background": 0.0}
    x = disaster(400, 20, 16, persistence=0.6, **off).features()["x"]
    assert x.var().item() == pytest.approx(1, abs=0.03)
    assert x[:, -1].var().item() == pytest.approx(1, abs=0.06)
    assert (x[:, 1:] * x[:, :-1]).mean().item() == pytest.approx(0.6, abs=0.03)


def test_a_concept_shows_in_one_window_of_its_clips() -> None:
    kwargs: dict[str, Any] = {"clips": 100, "frames": 20, "features": 64, "clutter": 0.0}
    shown = disaster(**kwargs, signal=50.0, background=0.0, difficulty=0.0)
    silent = disaster(**kwargs, signal=0.0, background=0.0, difficulty=0.0)
    active = (shown.features()["x"] - silent.features()["x"]).abs().amax(2) > 1e-3
    labelled = shown.y.sum(1) > 0
    assert torch.equal(active.any(1), labelled)
    single = active[shown.y.sum(1) == 1]
    starts = (single[:, 1:] & ~single[:, :-1]).sum(1) + single[:, 0].long()
    assert (starts == 1).all()
    assert (single.sum(1) >= 3).all()
    assert (single.sum(1) <= 10).all()


def test_joint_concepts_show_in_no_modality_alone() -> None:
    options: dict[str, Any] = {"signal": 0.0, "clutter": 0.0, "background": 0.0, "frames": 2}
    data = disaster_multimodal(3000, joint=7, interaction=20.0, **options)
    for name in data.modalities:
        assert ridge_map(data, name) < float(data.subset("test").y.mean()) + 0.08


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips": 4}, "clips: expected at least 5, got 4"),
        ({"frames": 0}, "frames: expected at least 1, got 0"),
        ({"positives": [1, 2]}, "positives: expected 7 counts from 1 to 1539"),
        ({"positives": [0] * 7}, "positives: expected 7 counts"),
        ({"signal": -1.0}, "signal: expected a number from 0 to 1e"),
        ({"clutter": float("nan")}, "clutter: expected a number"),
        ({"overlap": 1.0}, "overlap: expected a number from 0 to below 1"),
        ({"cooccurrence": -0.1}, "cooccurrence: expected"),
        ({"persistence": 1.0}, "persistence: expected"),
        ({"missing": 1.5}, "missing: expected"),
        ({"min_frames": 41}, "min_frames: expected from 1 to 40 frames, got 41"),
        ({"seed": -1}, "seed: expected an integer >= 0"),
    ],
)
@pytest.mark.parametrize("draw", SETS)
def test_refuses(draw: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        draw(**options)
    assert str(caught.value).startswith("synthetic:disaster")


def test_refuses_what_one_set_has() -> None:
    with pytest.raises(DataError, match="joint: expected from 0 to 7 concepts, got 8"):
        disaster_multimodal(joint=8)
    with pytest.raises(DataError, match="features: expected at least 1"):
        disaster(features=0)
    with pytest.raises(DataError, match="text: expected at least 1"):
        disaster_multimodal(text=0)


@pytest.mark.parametrize("size", ["clips", "frames", "features"])
def test_sizes_beyond_the_machine_are_refused(size: str) -> None:
    with pytest.raises(DataError, match="clips and frames: expected data of at most"):
        disaster(**{size: 10**11})


def test_modalities_beyond_the_machine_are_refused() -> None:
    with pytest.raises(DataError, match="clips and frames: expected data of at most"):
        disaster_multimodal(text=10**11)
