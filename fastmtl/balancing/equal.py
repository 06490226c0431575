"""Equal weights."""

from __future__ import annotations

from fastmtl.balancing.base import Balancer


class Equal(Balancer):
    """The plain sum of the task losses: w_j = 1, always. The baseline of every comparison.

    Example:
        >>> import torch
        >>> losses = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> Equal(num_tasks=2).backward(losses)
        tensor(3.)
    """
