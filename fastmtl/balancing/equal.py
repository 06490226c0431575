"""Equal weights."""

from __future__ import annotations

from typing import ClassVar

from fastmtl.balancing.base import Balancer


class Equal(Balancer):
    """The plain sum of the task losses: w_j = 1, always. The baseline of every comparison.

    Args:
        num_tasks: T.

    Raises:
        TypeError or ValueError: for a `num_tasks` that is no int of at least 1.

    Examples:
        >>> import torch
        >>> losses = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> Equal(num_tasks=2).backward(losses)
        tensor(3.)
    """

    needs: ClassVar[str] = "nothing"
