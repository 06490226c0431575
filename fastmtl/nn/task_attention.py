"""One attention over time per task."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmtl._checks import need_flag, need_size, need_sizes
from fastmtl.nn.sequence import masked_softmax, need_lengths, padding_mask


class TaskAttention(nn.Module):
    """Sum over time of each task's sequence, weighted by the task's own attention.

    For task t, with hidden states H (L, D): m = softmax over time of w2 tanh(W1 h_l), context =
    sum_l m_l h_l (the MTMLAN head; W_s1 and W_s2 there, after Lin et al. 2017, equations 5 and 6,
    with one hop). The parameters are stacked by task: `w1` (T, a, D) and `w2` (T, a), initialised
    as a `torch.nn.Linear` without bias.

    Args:
        input_size: D.
        attention_size: a.
        num_tasks: T.
        shared_input: whether all tasks attend to one sequence; it is not copied.
        device: where the parameters are.
        dtype: that of the parameters.

    Shape:
        - h: (T, B, L, D), with `shared_input` (B, L, D).
        - lengths: (B,), an int64 CPU tensor of lengths from 1 to L, or None where no sequence is
          padded. Padded steps get weight 0 exactly; what they hold must be finite.
        - Output: the context (T, B, D) and the weights (T, B, L).

    Raises:
        TypeError or ValueError: for sizes that are no ints of at least 1, or another input.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import TaskAttention
        >>> attention = TaskAttention(16, 8, num_tasks=3)
        >>> context, weights = attention(torch.randn(3, 4, 10, 16), torch.tensor([10, 7, 1, 3]))
        >>> context.shape, weights.shape
        (torch.Size([3, 4, 16]), torch.Size([3, 4, 10]))
    """

    __call__: Callable[..., tuple[Tensor, Tensor]]

    def __init__(
        self,
        input_size: int,
        attention_size: int,
        num_tasks: int,
        *,
        shared_input: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.input_size = need_size("input_size", input_size)
        self.attention_size = need_size("attention_size", attention_size)
        self.num_tasks = need_size("num_tasks", num_tasks)
        self.shared_input = need_flag("shared_input", shared_input)
        self.w1 = nn.Parameter(torch.empty(num_tasks, attention_size, input_size, **factory))
        self.w2 = nn.Parameter(torch.empty(num_tasks, attention_size, **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw w1 from U(-1/sqrt(D), 1/sqrt(D)) and w2 from U(-1/sqrt(a), 1/sqrt(a))."""
        for parameter, fan_in in ((self.w1, self.input_size), (self.w2, self.attention_size)):
            bound = 1.0 / math.sqrt(fan_in)
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        own: tuple[int, ...] = () if self.shared_input else (self.num_tasks,)
        need_sizes("h", h, (*own, "B", "L", self.input_size))
        batch, steps, _ = h.shape[-3:]
        need_lengths(lengths, batch, steps)
        padding = None if lengths is None else padding_mask(lengths, steps, h.device)
        if self.shared_input:
            hidden = F.linear(h.flatten(0, 1), self.w1.flatten(0, 1)).tanh()  # (B*L, T*a)
            hidden = hidden.view(-1, self.num_tasks, self.attention_size).transpose(0, 1)
        else:
            hidden = torch.bmm(h.flatten(1, 2), self.w1.transpose(1, 2)).tanh()  # (T, B*L, a)
        scores = torch.bmm(hidden, self.w2.unsqueeze(2)).view(self.num_tasks, batch, steps)
        weights = masked_softmax(scores, padding)
        if self.shared_input:
            context = torch.bmm(weights.transpose(0, 1), h).transpose(0, 1)
        else:
            context = torch.matmul(weights.unsqueeze(2), h).squeeze(2)
        return context, weights

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.attention_size}, num_tasks={self.num_tasks}"
