"""One linear layer per task, in one matrix product."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmtl._checks import need_size, need_sizes
from fastmtl.nn._module import Layer


class TaskLinear(Layer):
    """y_t = x_t W_t^T + b_t: a linear layer of its own for each task t.

    The parameters are stacked by task: `weight` (T, O, I) and `bias` (T, O), initialised as
    `torch.nn.Linear`'s.

    Args:
        in_features: I.
        out_features: O.
        num_tasks: T.
        bias: whether to add b_t.
        shared_input: whether all tasks read one input, which is faster than expanding it.
        device: where the parameters are.
        dtype: that of the parameters.

    Shape:
        - x: (T, ..., I), or (..., I) with `shared_input`.
        - Output: (T, ..., O).

    Raises:
        TypeError or ValueError: for sizes that are no ints of at least 1, or another shape.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import TaskLinear
        >>> heads = TaskLinear(16, 1, num_tasks=7)
        >>> heads(torch.randn(7, 20, 16)).shape
        torch.Size([7, 20, 1])
        >>> TaskLinear(16, 4, num_tasks=7, shared_input=True)(torch.randn(20, 16)).shape
        torch.Size([7, 20, 4])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_tasks: int,
        bias: bool = True,
        *,
        shared_input: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_features = need_size("in_features", in_features)
        self.out_features = need_size("out_features", out_features)
        self.num_tasks = need_size("num_tasks", num_tasks)
        self.shared_input = shared_input
        self.weight = nn.Parameter(torch.empty(num_tasks, out_features, in_features, **factory))
        self.bias: nn.Parameter | None
        if bias:
            self.bias = nn.Parameter(torch.empty(num_tasks, out_features, **factory))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters from U(-1/sqrt(I), 1/sqrt(I))."""
        bound = 1.0 / math.sqrt(self.in_features)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        if self.shared_input:
            need_sizes("x", x, ("...", self.in_features))
            bias = None if self.bias is None else self.bias.flatten()
            y = F.linear(x, self.weight.flatten(0, 1), bias)
            return y.view(*x.shape[:-1], self.num_tasks, self.out_features).movedim(-2, 0)
        need_sizes("x", x, (self.num_tasks, "...", self.in_features))
        rows = x.reshape(self.num_tasks, -1, self.in_features)
        weight = self.weight.transpose(1, 2)
        if self.bias is None:
            y = torch.bmm(rows, weight)
        else:
            y = torch.baddbmm(self.bias.unsqueeze(1), rows, weight)
        return y.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"num_tasks={self.num_tasks}, bias={self.bias is not None}, "
            f"shared_input={self.shared_input}"
        )
