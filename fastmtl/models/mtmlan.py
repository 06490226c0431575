"""MTMLAN: one recurrent attention network per label over a shared sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastmtl._checks import need_flag, need_probability, need_size, need_sizes
from fastmtl.models.base import MultiTaskModel
from fastmtl.models.groups import by_sample, checked_groups, of_classes, used_columns
from fastmtl.models.pairs import ParameterPair, attention_pairs, gru_pairs, layer_pairs
from fastmtl.models.torch_twins import TorchMTMLAN
from fastmtl.nn import SharedLinear, TaskAttention, TaskGRU, TaskLinear
from fastmtl.nn.sequence import need_lengths, padding_mask


class MTMLAN(MultiTaskModel):
    """Multi-task multi-label attention network over sequences of feature vectors.

    Each task t has a network of its own: a bidirectional GRU gives H (L, 2h); attention
    M = softmax over time of w_s2 tanh(W_s1 H) gives the context A = M H (2h,); a linear layer gives
    the logit. The networks of all tasks read one sequence: the features of a frozen extractor, or
    with `shared_features` S those passed through one trainable linear layer to S features, with no
    activation, since a task's GRU starts with its own affine map of it.

    With `shared_gru` the tasks share the GRU as well, and a task's network is attention and linear
    layer alone: T times fewer weights and less time, and what small data or alike labels ask for.

    Args:
        in_features: D.
        num_tasks: T.
        hidden_size: h, of each direction.
        num_layers: layers of the GRU.
        attention_size: rows of W_s1.
        shared_features: S, or None for no trainable shared layer. A shared GRU starts with one.
        shared_gru: whether all tasks read the states H of one GRU; not in the paper.
        group_sizes: the number of logits of each task, that of its classes C, or 1 for a binary
            task; None where all are binary, as in the paper.
        dropout: probability of zeroing an entry between the GRU's layers and of the context.
        recompute: less memory and more time in a training step; see `TaskGRU`.
        device: where the parameters are.
        dtype: that of the parameters.

    Shape:
        - x: (B, L, D).
        - lengths: (B,), an int64 CPU tensor of lengths from 1 to L, or None where no sequence is
          padded. Padded steps are not read.
        - Output: logits (B, T), or (B, sum C) with `group_sizes`.

    Raises:
        TypeError or ValueError: for sizes that are no ints of at least 1, a `dropout` outside
            [0, 1), or another input; for `shared_features` with `shared_gru`.

    Examples:
        >>> import torch
        >>> from fastmtl.models import MTMLAN
        >>> model = MTMLAN(in_features=16, num_tasks=3, hidden_size=8, attention_size=4)
        >>> x, lengths = torch.randn(5, 10, 16), torch.tensor([10, 7, 1, 3, 10])
        >>> model(x, lengths).shape
        torch.Size([5, 3])
        >>> model.attention(x, lengths).shape
        torch.Size([5, 3, 10])
    """

    def __init__(
        self,
        in_features: int,
        num_tasks: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        attention_size: int = 64,
        *,
        shared_features: int | None = None,
        shared_gru: bool = False,
        group_sizes: Sequence[int] | None = None,
        dropout: float = 0.0,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_features = need_size("in_features", in_features)
        self.num_tasks = need_size("num_tasks", num_tasks)
        self.group_sizes = checked_groups(group_sizes, num_tasks)
        self.shared_features = shared_features
        self.shared_gru = need_flag("shared_gru", shared_gru)
        self.dropout = need_probability("dropout", dropout)
        if shared_gru and shared_features is not None:
            raise ValueError(
                "shared_features: expected None with shared_gru, behind which the tasks part, "
                f"got {shared_features}"
            )
        if shared_features is None:
            self.shared = None
            features = in_features
        else:
            features = need_size("shared_features", shared_features)
            self.shared = SharedLinear(in_features, features, num_tasks, **factory)
        self.gru = TaskGRU(
            features,
            hidden_size,
            1 if shared_gru else num_tasks,
            num_layers,
            dropout=dropout,
            bidirectional=True,
            recompute=recompute,
            **factory,
        )
        self.task_attention = TaskAttention(
            self.gru.out_features,
            attention_size,
            num_tasks,
            shared_input=shared_gru,
            **factory,
        )
        self.drop = nn.Dropout(dropout)
        self.output = TaskLinear(self.gru.out_features, max(self.group_sizes), num_tasks, **factory)
        self.columns = used_columns(self.group_sizes, device)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        context, _ = self._attend(x, lengths)
        logits = self.output(self.drop(context))
        return logits.squeeze(2).t() if logits.shape[2] == 1 else by_sample(logits, self.columns)

    def attention(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Attention weights (B, T, L) of each task over time; 0 at padded steps."""
        return self._attend(x, lengths)[1].transpose(0, 1)

    def _attend(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        need_sizes("x", x, ("B", "L", self.in_features))
        self._need_dtype("x", x)
        batch, steps, _ = x.shape
        need_lengths(lengths, batch, steps)
        if self.shared is not None:
            if lengths is not None:
                # The shared weight's gradient multiplies every step by its input, the padded
                # steps by 0, and 0 times a padding of inf or NaN would be NaN.
                x = x.masked_fill(padding_mask(lengths, steps, x.device).unsqueeze(2), 0.0)
            x = self.shared(x)
        states = self.gru(x, lengths)
        return self.task_attention(states[0] if self.shared_gru else states, lengths)

    def config(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "num_tasks": self.num_tasks,
            "hidden_size": self.gru.hidden_size,
            "num_layers": self.gru.num_layers,
            "attention_size": self.task_attention.attention_size,
            "shared_features": self.shared_features,
            "shared_gru": self.shared_gru,
            "dropout": self.dropout,
            "recompute": self.gru.recompute,
            **of_classes(self.group_sizes),
        }

    def to_torch(self) -> TorchMTMLAN:
        sizes = {name: value for name, value in self.config().items() if name != "recompute"}
        return self._copied_to(TorchMTMLAN(**sizes))

    def is_twin(self, twin: nn.Module) -> bool:
        return isinstance(twin, TorchMTMLAN)

    def pairs(self, twin: Any) -> list[ParameterPair]:
        pairs = [] if self.shared is None else layer_pairs(self.shared, (), twin.shared)
        for task, (own, output) in enumerate(zip(twin.tasks, twin.outputs, strict=True)):
            if task == 0 or not self.shared_gru:
                pairs += gru_pairs(self.gru, task, own.gru)
            pairs += attention_pairs(self.task_attention, task, own)
            pairs += layer_pairs(self.output, (task, slice(output.out_features)), output)
        return pairs

    def _head_weight(self, balance_at: Literal["first", "last"]) -> nn.Parameter:
        if balance_at == "last":
            return self.output.weight
        return self.task_attention.w1 if self.shared_gru else self.gru.weight_ih_l0
