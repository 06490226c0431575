from __future__ import annotations

import pytest
import torch

from fastmtl.training import multilabel_metrics
from fastmtl.training.metrics import decide, ranking_metrics

NAN = float("nan")


def test_against_a_count_by_hand():
    p = torch.tensor([[0.9, 0.6], [0.8, 0.1], [0.3, 0.7], [0.2, 0.4]])
    y = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    metrics = multilabel_metrics(p, y, ["a", "b"])
    # Decisions: a 1 1 0 0, b 1 0 1 0; TP 2 (a0, b2), FP 2 (a1, b0), FN 2 (a2, b3), TN 2.
    assert metrics["micro_f1"] == pytest.approx(2 * 2 / (2 * 2 + 2 + 2))
    assert metrics["hamming_loss"] == pytest.approx(4 / 8)
    assert metrics["accuracy"] == pytest.approx({"a": 0.5, "b": 0.5})
    assert metrics["f1"] == pytest.approx({"a": 0.5, "b": 0.5})
    assert metrics["positives"] == {"a": 2, "b": 2}
    # Task a ranks + - + -, task b + - + -: precisions 1 and 2/3 at its two positives.
    assert metrics["average_precision"] == pytest.approx(dict.fromkeys("ab", (1 + 2 / 3) / 2))
    assert metrics["map"] == pytest.approx((1 + 2 / 3) / 2)


def test_missing_labels_count_nowhere():
    p = torch.tensor([[0.9, 0.9], [0.1, 0.9], [0.9, 0.2]])
    y = torch.tensor([[1.0, NAN], [1.0, 1.0], [NAN, 0.0]])
    metrics = multilabel_metrics(p, y, ["a", "b"])
    # Entries: a0 TP, a1 FN, b1 TP, b2 TN.
    assert metrics["micro_f1"] == pytest.approx(4 / 5)
    assert metrics["hamming_loss"] == pytest.approx(1 / 4)
    assert metrics["accuracy"] == pytest.approx({"a": 0.5, "b": 1.0})
    assert metrics["map"] == pytest.approx(1.0)


def test_a_value_at_a_missing_label_changes_nothing():
    p = torch.rand(50, 4)
    y = (torch.rand(50, 4) < 0.4).float()
    y[torch.rand(50, 4) < 0.3] = NAN
    other = torch.where(y.isnan(), 1 - p, p)
    assert multilabel_metrics(p, y) == multilabel_metrics(other, y)


def test_the_order_of_samples_does_not_matter():
    p = torch.rand(40, 3)
    y = (torch.rand(40, 3) < 0.5).float()
    order = torch.randperm(40)
    shuffled, metrics = multilabel_metrics(p[order], y[order]), multilabel_metrics(p, y)
    for figure, value in metrics.items():
        assert shuffled[figure] == pytest.approx(value)


def test_map_leaves_out_tasks_without_a_positive():
    p = torch.tensor([[0.9, 0.9], [0.1, 0.1]])
    y = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    metrics = multilabel_metrics(p, y)
    assert metrics["map"] == 1.0
    assert metrics["average_precision"] == {"0": 1.0, "1": None}


def test_nothing_to_count_is_none():
    nothing = multilabel_metrics(torch.rand(3, 2), torch.full((3, 2), NAN), ["a", "b"])
    assert nothing == {
        "micro_f1": None,
        "hamming_loss": None,
        "map": None,
        "one_error": None,
        "ranking_loss": None,
        "coverage": None,
        "lrap": None,
        "positives": {"a": 0, "b": 0},
        "average_precision": {"a": None, "b": None},
        "f1": {"a": None, "b": None},
        "accuracy": {"a": None, "b": None},
    }
    assert multilabel_metrics(torch.empty(0, 1), torch.empty(0, 1))["micro_f1"] is None


def test_one_task_and_no_positive_anywhere():
    metrics = multilabel_metrics(torch.tensor([[0.2], [0.3]]), torch.zeros(2, 1))
    assert metrics["micro_f1"] == 0.0
    assert metrics["hamming_loss"] == 0.0
    assert metrics["map"] is None


def test_decisions_are_strictly_above_the_threshold():
    p = torch.tensor([[0.5], [0.5 + 1e-6]], dtype=torch.float64)
    assert decide(p).tolist() == [[False], [True]]
    assert multilabel_metrics(p, torch.tensor([[0.0], [1.0]]))["accuracy"] == {"0": 1.0}


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="probabilities: expected"):
        multilabel_metrics(torch.rand(3, 2), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="label_names: expected 2 names, got 1"):
        multilabel_metrics(torch.rand(3, 2), torch.zeros(3, 2), ["a"])


def ranked(samples=60, tasks=7, levels=None):
    p = torch.rand(samples, tasks)
    if levels is not None:
        p = (p * levels).round() / levels
    y = (torch.rand(samples, tasks) < 0.4).float()
    y[:, 0], y[:, 1] = 1, 0
    order = torch.rand(samples, tasks).argsort(1)
    return p, y.gather(1, order)


@pytest.mark.parametrize("levels", [None, 3])
def test_ranking_against_torchmetrics(levels):
    from torchmetrics.functional import classification

    p, y = ranked(levels=levels)
    metrics = ranking_metrics(p, y)
    expected = {
        "ranking_loss": classification.multilabel_ranking_loss,
        "lrap": classification.multilabel_ranking_average_precision,
        "coverage": classification.multilabel_coverage_error,
    }
    if levels is not None:
        # Of equal scores torchmetrics counts only the positives that come first.
        del expected["ranking_loss"]
    for name, figure in expected.items():
        value = float(figure(p, y.long(), num_labels=7)) - (name == "coverage")
        assert metrics[name] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("levels", [None, 3])
def test_ranking_label_by_label(levels):
    p, y = ranked(20, 5, levels)
    error, loss, coverage = 0.0, 0.0, 0.0
    for scores, labels in zip(p.tolist(), y.tolist(), strict=True):
        own = [i for i in range(5) if labels[i]]
        others = [i for i in range(5) if not labels[i]]
        error += labels[scores.index(max(scores))] == 0
        loss += sum(scores[j] >= scores[i] for i in own for j in others) / len(own) / len(others)
        coverage += max(sum(s >= scores[i] for s in scores) for i in own) - 1
    metrics = ranking_metrics(p, y)
    assert metrics["one_error"] == pytest.approx(error / 20)
    assert metrics["ranking_loss"] == pytest.approx(loss / 20)
    assert metrics["coverage"] == pytest.approx(coverage / 20)


def test_ranking_leaves_out_samples_without_both_kinds_or_with_missing_labels():
    p, y = ranked(10, 4)
    more = torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0], [1, 0, NAN, 0]])
    assert ranking_metrics(torch.cat([p, torch.rand(3, 4)]), torch.cat([y, more])) == (
        ranking_metrics(p, y)
    )


def test_ranking_in_chunks(monkeypatch):
    p, y = ranked()
    expected = ranking_metrics(p, y)
    monkeypatch.setattr("fastmtl.training.metrics._COMPARISONS", 200)
    assert ranking_metrics(p, y) == pytest.approx(expected)


@pytest.mark.parametrize("value", [NAN, -0.1, 1.5, float("inf")])
def test_what_is_no_probability_is_refused(value):
    p = torch.full((3, 2), 0.5)
    p[1, 0] = value
    with pytest.raises(
        ValueError, match=r"^probabilities: expected numbers in \[0, 1\], got .* ro"
    ):
        multilabel_metrics(p, torch.eye(3)[:, :2])


@pytest.mark.parametrize("value", [2.0, -1.0, 1.001, float("inf")])
@pytest.mark.parametrize("metrics", [multilabel_metrics, ranking_metrics])
def test_what_is_no_label_is_refused(metrics, value):
    y = torch.eye(3)[:, :2].clone()
    y[2, 1] = value
    with pytest.raises(
        ValueError, match=r"^targets: expected .* \[0, 1\] or NaN .* at row 2, column 1"
    ):
        metrics(torch.full((3, 2), 0.5), y)


def test_nan_has_no_rank():
    with pytest.raises(ValueError, match=r"^probabilities: .* got nan at row 0, column 1"):
        ranking_metrics(torch.tensor([[0.1, NAN]]), torch.tensor([[1.0, 0.0]]))
