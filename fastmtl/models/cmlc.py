"""CMLC: conventional multi-label classification, one recurrent network for all labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastmtl._checks import need_probability, need_size, need_sizes
from fastmtl.models.base import MultiTaskModel
from fastmtl.models.groups import by_sample, checked_groups, of_classes, used_columns
from fastmtl.models.pairs import ParameterPair, gru_pairs, layer_pairs
from fastmtl.models.torch_twins import TorchCMLC
from fastmtl.nn import TaskGRU, TaskLinear
from fastmtl.nn.sequence import need_lengths


class CMLC(MultiTaskModel):
    """One bidirectional GRU over the sequence and one linear layer to the logits of all labels.

    The baseline of MTMLAN's table, to be trained by cross-entropy (focal loss with gamma 0) and
    equal weights. The linear layer reads the last state of each direction, (2h,): that of the
    forward one at the end of the sequence, that of the backward one at its start.

    Everything but the linear layer is shared, and that layer is "first" and "last" of
    `task_weight`; there is no `SharedLinear`.

    Args:
        in_features: D.
        num_tasks: T.
        hidden_size: h, of each direction.
        num_layers: layers of the GRU.
        group_sizes: the number of logits of each task, that of its classes C, or 1 for a binary
            task; None where all are binary.
        dropout: probability of zeroing an entry between the GRU's layers and of its last states.
        device: where the parameters are.
        dtype: that of the parameters.

    Shape:
        - x: (B, L, D).
        - lengths: (B,), an int64 CPU tensor of lengths from 1 to L, or None where no sequence is
          padded. Padded steps are not read.
        - Output: logits (B, T), or (B, sum C) with `group_sizes`.

    Raises:
        TypeError or ValueError: for sizes that are no ints of at least 1, a `dropout` outside
            [0, 1), or another input.

    Examples:
        >>> import torch
        >>> from fastmtl.models import CMLC
        >>> CMLC(in_features=16, num_tasks=3, hidden_size=8)(torch.randn(5, 10, 16)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        in_features: int,
        num_tasks: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        *,
        group_sizes: Sequence[int] | None = None,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_features = need_size("in_features", in_features)
        self.num_tasks = need_size("num_tasks", num_tasks)
        self.group_sizes = checked_groups(group_sizes, num_tasks)
        self.dropout = need_probability("dropout", dropout)
        self.shared = None
        self.gru = TaskGRU(
            in_features,
            hidden_size,
            1,
            num_layers,
            dropout=dropout,
            bidirectional=True,
            **factory,
        )
        self.drop = nn.Dropout(dropout)
        self.output = TaskLinear(
            self.gru.out_features, max(self.group_sizes), num_tasks, shared_input=True, **factory
        )
        self.columns = used_columns(self.group_sizes, device)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        need_sizes("x", x, ("B", "L", self.in_features))
        self._need_dtype("x", x)
        batch, steps, _ = x.shape
        need_lengths(lengths, batch, steps)
        states = self.gru(x, lengths)[0]  # (B, L, 2h)
        if lengths is None:
            last = states[:, -1]
        else:
            last = states[torch.arange(batch, device=x.device), lengths.to(x.device) - 1]
        half = self.gru.hidden_size
        final = torch.cat([last[:, :half], states[:, 0, half:]], 1)
        logits = self.output(self.drop(final))
        return logits.squeeze(2).t() if logits.shape[2] == 1 else by_sample(logits, self.columns)

    def config(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "num_tasks": self.num_tasks,
            "hidden_size": self.gru.hidden_size,
            "num_layers": self.gru.num_layers,
            "dropout": self.dropout,
            **of_classes(self.group_sizes),
        }

    def to_torch(self) -> TorchCMLC:
        return self._copied_to(TorchCMLC(**self.config()))

    def is_twin(self, twin: nn.Module) -> bool:
        return isinstance(twin, TorchCMLC)

    def pairs(self, twin: Any) -> list[ParameterPair]:
        pairs = gru_pairs(self.gru, 0, twin.gru)
        if max(self.group_sizes) == 1:
            return pairs + layer_pairs(self.output, (slice(None), 0), twin.outputs[0])
        for task, output in enumerate(twin.outputs):
            pairs += layer_pairs(self.output, (task, slice(output.out_features)), output)
        return pairs

    def _head_weight(self, balance_at: Literal["first", "last"]) -> nn.Parameter:
        return self.output.weight
