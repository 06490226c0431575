"""One GRU per task over sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmtl._checks import need_probability, need_size, need_sizes
from fastmtl.nn.sequence import need_lengths, ragged
from fastmtl.ops.task_gru import task_gru_layer

_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class TaskGRU(nn.Module):
    """A GRU of its own for each task, every step's hidden state of the last layer.

    The equations, the gate order (r, z, n), the initialisation U(-1/sqrt(h), 1/sqrt(h)) and the
    dropout between layers are those of `torch.nn.GRU`, and so are results and gradients. Per layer
    k the parameters are stacked by task and direction: `weight_ih_l{k}` (T, dirs, 3h, I_k) with
    I_0 = input_size and I_k = dirs * h, `weight_hh_l{k}` (T, dirs, 3h, h), `bias_ih_l{k}` and
    `bias_hh_l{k}` (T, dirs, 3h), where dirs is 2 for a bidirectional GRU and 1 otherwise.

    The input is (B, L, I), shared by all tasks, or (T, B, L, I); the output is (T, B, L, dirs * h).
    `lengths` (B,) is an int64 CPU tensor of lengths from 1 to L, or None where no sequence is
    padded. Padded steps are not read, and the output there is 0.

    With `recompute` a training step keeps only the states of every layer, and backward computes the
    gates from them again: less memory, and one more forward pass of time.

    Raises TypeError or ValueError for another input.

    Example:
        >>> import torch
        >>> from fastmtl.nn import TaskGRU
        >>> gru = TaskGRU(16, 8, num_tasks=3)
        >>> gru(torch.randn(4, 10, 16), torch.tensor([10, 7, 1, 3])).shape
        torch.Size([3, 4, 10, 16])
    """

    weight_ih_l0: nn.Parameter

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_tasks: int,
        num_layers: int = 2,
        bidirectional: bool = True,
        dropout: float = 0.0,
        *,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.input_size = need_size("input_size", input_size)
        self.hidden_size = need_size("hidden_size", hidden_size)
        self.num_tasks = need_size("num_tasks", num_tasks)
        self.num_layers = need_size("num_layers", num_layers)
        self.dropout = need_probability("dropout", dropout)
        self.bidirectional = bidirectional
        self.recompute = recompute
        self.num_directions = 2 if bidirectional else 1
        for layer in range(num_layers):
            width = input_size if layer == 0 else self.out_features
            for kind, tail in zip(_KINDS, ((width,), (hidden_size,), (), ()), strict=True):
                shape = (num_tasks, self.num_directions, 3 * hidden_size, *tail)
                self.register_parameter(f"{kind}_l{layer}", nn.Parameter(torch.empty(shape)))
        self.reset_parameters()

    @property
    def out_features(self) -> int:
        """Features of an output step, dirs * h."""
        return self.num_directions * self.hidden_size

    def reset_parameters(self) -> None:
        """Draw all parameters from U(-1/sqrt(h), 1/sqrt(h))."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        need_sizes("x", x, ("B", "L", self.input_size), (self.num_tasks, "B", "L", self.input_size))
        need_lengths(lengths, x.shape[-3], x.shape[-2])
        sequences = ragged(x, lengths)
        states = sequences.rows
        for layer in range(self.num_layers):
            if layer:
                states = F.dropout(states, self.dropout, self.training)
            arguments = [getattr(self, f"{kind}_l{layer}") for kind in _KINDS]
            arguments += [sequences.starts, sequences.lengths]
            states = task_gru_layer(states, *arguments, recompute=self.recompute)
        return sequences.padded(states, x.shape[-3], x.shape[-2])

    @classmethod
    def from_torch(cls, modules: Sequence[nn.GRU]) -> TaskGRU:
        """Build the layer that computes what `modules`, one `torch.nn.GRU` per task, compute.

        The weights are copied. Raises ValueError where the modules differ in their settings, or
        have no bias.
        """
        modules = list(modules)
        if not modules:
            raise ValueError("modules: expected at least one torch.nn.GRU, got none")
        for module in modules:
            if not isinstance(module, nn.GRU):
                raise TypeError(f"modules: expected torch.nn.GRU, got {type(module).__name__}")
        settings = [
            (m.input_size, m.hidden_size, m.num_layers, m.bidirectional, m.dropout) for m in modules
        ]
        if any(other != settings[0] for other in settings) or not all(m.bias for m in modules):
            raise ValueError("modules: expected GRUs of the same settings, all with bias")
        input_size, hidden_size, num_layers, bidirectional, dropout = settings[0]
        layer = cls(input_size, hidden_size, len(modules), num_layers, bidirectional, dropout)
        layer.to(next(modules[0].parameters()))
        layer._copy(modules, from_modules=True)
        return layer.train(modules[0].training)

    def to_torch(self) -> list[nn.GRU]:
        """Return one `torch.nn.GRU` (batch_first) per task, with copies of the weights."""
        modules = [
            nn.GRU(
                self.input_size,
                self.hidden_size,
                self.num_layers,
                batch_first=True,
                dropout=self.dropout,
                bidirectional=self.bidirectional,
            )
            .to(next(self.parameters()))
            .train(self.training)
            for _ in range(self.num_tasks)
        ]
        self._copy(modules, from_modules=False)
        return modules

    @torch.no_grad()
    def _copy(self, modules: Sequence[nn.GRU], *, from_modules: bool) -> None:
        for name, parameter in self.named_parameters():
            for task, module in enumerate(modules):
                for direction, suffix in enumerate(("", "_reverse")[: self.num_directions]):
                    ours, theirs = parameter[task, direction], getattr(module, name + suffix)
                    if from_modules:
                        ours.copy_(theirs)
                    else:
                        theirs.copy_(ours)

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, num_tasks={self.num_tasks}, "
            f"num_layers={self.num_layers}, bidirectional={self.bidirectional}, "
            f"dropout={self.dropout}" + (", recompute=True" if self.recompute else "")
        )
