from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_average_precision,
    multiclass_f1_score,
)

from fastmtl.data.tasks import Tasks
from fastmtl.training.metrics import multilabel_metrics
from fastmtl.training.task_figures import class_metrics, task_metrics

NAMES = ["none", "mild", "severe", "gone"]


def drawn(classes: int, samples: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(samples, 4, generator=generator, dtype=torch.float64).softmax(1)
    return p, torch.randint(classes, (samples,), generator=generator)


def test_figures_are_those_of_torchmetrics() -> None:
    p, labels = drawn(4)
    figures = class_metrics(p, labels.double(), NAMES)
    f1 = multiclass_f1_score(p, labels, 4, average=None)
    assert figures["accuracy"] == pytest.approx(multiclass_accuracy(p, labels, 4, "micro").item())
    assert list(figures["by_class"]["f1"].values()) == pytest.approx(f1.tolist())
    assert figures["macro_f1"] == pytest.approx(f1.mean().item())
    precision = multiclass_average_precision(p, labels, 4, average=None)
    assert list(figures["by_class"]["average_precision"].values()) == pytest.approx(
        precision.tolist()
    )
    assert figures["average_precision"] == pytest.approx(precision.mean().item())


def test_missing_labels_count_nowhere() -> None:
    p, labels = drawn(4)
    targets = labels.double()
    targets[::3] = torch.nan
    kept = ~targets.isnan()
    assert class_metrics(p, targets, NAMES) == class_metrics(p[kept], targets[kept], NAMES)


def test_a_class_that_is_not_there_has_no_precision() -> None:
    p, labels = drawn(3)
    figures = class_metrics(p, labels.double(), NAMES)
    assert figures["by_class"]["samples"]["gone"] == 0
    # It is decided for some samples, wrongly.
    assert figures["by_class"]["f1"]["gone"] == 0.0
    assert figures["by_class"]["average_precision"]["gone"] is None
    p[:, 3] = 0
    assert class_metrics(p, labels.double(), NAMES)["by_class"]["f1"]["gone"] is None


def test_nothing_to_count() -> None:
    figures = class_metrics(torch.full((2, 4), 0.25), torch.full((2,), torch.nan), NAMES)
    assert figures["samples"] == 0
    assert figures["accuracy"] is figures["macro_f1"] is figures["average_precision"] is None


def test_all_tasks() -> None:
    p, labels = drawn(4)
    binary = torch.rand(60, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = (binary > torch.tensor([0.3, 2.0])).double()
    tasks = Tasks(["a", "b", "damage"], {"damage": NAMES})
    targets = torch.cat([y, labels[:, None].double()], 1)
    figures = task_metrics(tasks, torch.cat([binary, p], 1), targets, threshold=0.3)
    expected = multilabel_metrics(binary, y, ["a", "b"], threshold=0.3)
    for name in ("micro_f1", "accuracy", "one_error"):
        assert figures[name] == expected[name]
    own = class_metrics(p, labels.double(), NAMES)
    assert figures["classes"] == {"damage": own}
    assert figures["macro_f1"] == own["macro_f1"]
    # The label b has no positive.
    wanted = (expected["average_precision"]["a"] + own["average_precision"]) / 2
    assert figures["map"] == pytest.approx(wanted)


def test_classes_alone() -> None:
    p, labels = drawn(4)
    figures = task_metrics(Tasks(["d"], {"d": NAMES}), p, labels[:, None].double())
    assert figures["micro_f1"] is None
    assert figures["map"] == figures["classes"]["d"]["average_precision"]


def test_binary_tasks_have_the_figures_that_they_had() -> None:
    p, y = torch.rand(20, 2), torch.randint(2, (20, 2)).float()
    assert task_metrics(Tasks(["a", "b"]), p, y) == multilabel_metrics(p, y, ["a", "b"])


def test_probabilities_must_be_such() -> None:
    with pytest.raises(ValueError, match=r"^probabilities: expected numbers in \[0, 1\]"):
        class_metrics(torch.full((2, 4), torch.nan), torch.zeros(2), NAMES)
