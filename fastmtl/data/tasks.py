"""What the tasks of a data set are: binary ones, and behind them tasks of several classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Where a label between 0 and 1 counts as one of the two.
POSITIVE = 0.5


@dataclass(frozen=True)
class Tasks:
    """The T tasks of a data set or model, the multi-class ones behind the binary ones.

    A model gives a binary task one logit and a task of C classes C of them, in the order of the
    tasks: (N, sum of `sizes`). Labels are (N, T): 0 or 1, or the number of the class from 0, and
    NaN for a missing one.

    Args:
        names: of all tasks.
        class_names: of each multi-class task, by the task's name and in the order of `names`.

    Examples:
        >>> tasks = Tasks(["sea", "damage"], {"damage": ["none", "mild", "severe"]})
        >>> tasks.sizes, tasks.columns()
        ((1, 3), ['sea', 'damage/none', 'damage/mild', 'damage/severe'])
        >>> tasks.probabilities(torch.zeros(1, 4))
        tensor([[0.5000, 0.3333, 0.3333, 0.3333]])
    """

    names: Sequence[str]
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def num_binary(self) -> int:
        """The number of binary tasks, which come first."""
        return len(self.names) - len(self.class_names)

    @property
    def binary(self) -> list[str]:
        """The names of the binary tasks."""
        return list(self.names[: self.num_binary])

    @property
    def num_classes(self) -> list[int]:
        """The number of classes of each task that has some."""
        return [len(classes) for classes in self.class_names.values()]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of logits of each task, (T,)."""
        return (1,) * self.num_binary + tuple(self.num_classes)

    @property
    def group_sizes(self) -> list[int] | None:
        """The sizes as the models take them: None where all tasks are binary."""
        return list(self.sizes) if self.class_names else None

    def columns(self) -> list[str]:
        """What each logit or probability is of: LABEL, or TASK/CLASS."""
        of_classes = [f"{task}/{each}" for task, own in self.class_names.items() for each in own]
        return self.binary + of_classes

    def split(self, values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits or probabilities (N, sum of `sizes`) of the binary tasks, (N, number of them), and
        of each multi-class task, (N, C)."""
        binary, *others = values.split([self.num_binary, *self.num_classes], 1)
        return binary, dict(zip(self.class_names, others, strict=True))

    def probabilities(self, logits: Tensor, temperatures: Tensor | None = None) -> Tensor:
        """sigmoid(logit) of binary tasks and the softmax over the classes of the others; logits are
        divided by the `temperatures` (T,) of their tasks where there are some."""
        if temperatures is not None:
            logits = logits / temperatures[self._task_of_columns()]
        if not self.class_names:
            return logits.sigmoid()
        binary, others = self.split(logits)
        return torch.cat([binary.sigmoid(), *(each.softmax(1) for each in others.values())], 1)

    def _task_of_columns(self) -> list[int]:
        return [task for task, size in enumerate(self.sizes) for _ in range(size)]

    def positives(self, y: Tensor) -> Tensor:
        """Number of positive labels of each task in y (N, T), those of 1/2 and more, int64.

        Of a multi-class task that of the labels outside its most frequent class: the positives of
        two classes where the positive one is the rarer.
        """
        counts = is_positive(y).sum(0)
        for task in range(self.num_binary, len(self.names)):
            codes = _present(y[:, task])
            counts[task] = len(codes) - (codes.bincount().max() if len(codes) else 0)
        return counts

    def frequencies(self, y: Tensor) -> Tensor:
        """Share of the positives of each binary task and of each class in the labels y (N, T) that
        are present: (sum of `sizes`,), NaN for a task without one."""
        shares = [y[:, : self.num_binary].nanmean(0)]
        for task, count in enumerate(self.num_classes, self.num_binary):
            codes = _present(y[:, task])
            shares.append(codes.bincount(minlength=count) / len(codes))
        return torch.cat(shares)


def is_positive(labels: Tensor) -> Tensor:
    """Which labels of binary tasks count as positive: those of 1/2 and more, and none that is NaN.

    Examples:
        >>> is_positive(torch.tensor([1.0, 0.5, 0.2, torch.nan]))
        tensor([ True,  True, False, False])
    """
    return labels >= POSITIVE


def _present(codes: Tensor) -> Tensor:
    """The numbers of classes (n,) that are not missing."""
    return codes[~codes.isnan()].long()


def default_label_names(count: int) -> list[str]:
    """What tasks without names are called.

    Examples:
        >>> default_label_names(2)
        ['task_0', 'task_1']
    """
    return [f"task_{i}" for i in range(count)]
