"""Exchange of features between tasks."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl._checks import need_size, need_sizes
from fastmtl.nn._module import Indices, Layer
from fastmtl.nn.task_linear import TaskLinear


class TaskInteraction(Layer):
    """The task-distillation unit of MTI-Net (Vandenhende et al. 2020), for feature vectors.

    Each task takes from the features F_l of every other task what a gate of the pair lets through,

        O_k = F_k + sum over l != k of sigmoid(W_kl F_l + b_kl) * F_l

    There, F_l are feature maps at several scales and W_kl convolutions, so that the gate attends to
    places; a vector has one place and one scale, and W_kl (D, D) attends to its features. `gates`
    is a TaskLinear of the T (T - 1) pairs (k, l) in the order of k, then l.

    Args:
        features: D.
        num_tasks: T.
        device: where the parameters are.
        dtype: that of the parameters.

    Shape:
        - features: (T, ..., D).
        - Output: (T, ..., D).

    Raises:
        TypeError or ValueError: for sizes that are no ints of at least 1, or another shape.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import TaskInteraction
        >>> TaskInteraction(16, num_tasks=3)(torch.randn(3, 20, 16)).shape
        torch.Size([3, 20, 16])
    """

    def __init__(
        self,
        features: int,
        num_tasks: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.features = need_size("features", features)
        self.num_tasks = need_size("num_tasks", num_tasks)
        tasks = range(num_tasks)
        self.sources = Indices([source for k in tasks for source in tasks if source != k], device)
        pairs = num_tasks * (num_tasks - 1)
        self.gates = (
            TaskLinear(features, features, pairs, device=device, dtype=dtype) if pairs else None
        )

    def forward(self, features: Tensor) -> Tensor:
        need_sizes("features", features, (self.num_tasks, "...", self.features))
        if self.gates is None:
            return features
        others = features[self.sources.values]
        passed = self.gates(others).sigmoid() * others
        by_task = passed.view(self.num_tasks, self.num_tasks - 1, *features.shape[1:])
        return features + by_task.sum(1)
