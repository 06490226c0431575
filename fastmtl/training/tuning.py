"""What is fitted on the validation split after training: a threshold and a temperature by label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastmtl.data.tasks import Tasks
from fastmtl.training.calibration import class_temperature, has_both, temperatures
from fastmtl.training.thresholds import HALF, best_threshold


@dataclass(frozen=True)
class Tuning:
    """A threshold for each binary task, and a temperature for each of T tasks.

    Args:
        thresholds: in [0, 1], of probabilities before calibration; (number of binary tasks,).
        temperatures: above 0; (T,).
    """

    thresholds: tuple[float, ...]
    temperatures: tuple[float, ...]

    def to_dict(self, tasks: Tasks) -> dict[str, dict[str, float]]:
        """Both by task, as metrics.json holds them."""
        return {
            "thresholds": dict(zip(tasks.binary, self.thresholds, strict=True)),
            "temperatures": dict(zip(tasks.names, self.temperatures, strict=True)),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], tasks: Tasks) -> Tuning:
        """What `to_dict` gave. Raises LookupError, TypeError or ValueError for anything else."""
        return cls(
            tuple(float(values["thresholds"][name]) for name in tasks.binary),
            tuple(float(values["temperatures"][name]) for name in tasks.names),
        )


def tune(
    logits: Tensor,  # (N, sum of tasks.sizes)
    targets: Tensor,  # (N, T)
    threshold: float = HALF,
    tasks: Tasks | None = None,
) -> Tuning:
    """The threshold with the highest F1 and the temperature with the lowest loss, task by task.

    Of classes the most probable one is decided, so that they have no threshold.

    The threshold is that of `best_threshold` for the label alone; a label without a positive or
    without a negative keeps `threshold` and temperature 1. Both overfit where positives are few:
    measure them on samples that they were not fitted on.

    Args:
        logits: of the validation split.
        targets: of 0, 1, numbers of classes, and NaN; those that are NaN do not count.
        threshold: of the labels that have nothing to choose by.
        tasks: what the columns are of; by default all are binary.

    Examples:
        >>> import torch
        >>> z = torch.tensor([[-3.0], [-2.0], [-1.0], [1.0]])
        >>> tune(z, torch.tensor([[0.0], [0.0], [1.0], [1.0]])).thresholds[0] < 0.5
        True
    """
    tasks = tasks or Tasks([str(task) for task in range(targets.shape[1])])
    binary, of_classes = tasks.split(logits.double())
    labels, classes = targets[:, : tasks.num_binary], targets[:, tasks.num_binary :].unbind(1)
    probabilities = binary.sigmoid()
    thresholds = [
        best_threshold(probabilities[:, task : task + 1], labels[:, task : task + 1], "micro_f1")
        if both
        else threshold
        for task, both in enumerate(has_both(labels).tolist())
    ]
    found = [
        *temperatures(binary, labels).tolist(),
        *(class_temperature(z, y) for z, y in zip(of_classes.values(), classes, strict=True)),
    ]
    return Tuning(tuple(thresholds), tuple(found))
