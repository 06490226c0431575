"""One GRU per task over sequences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmtl._checks import need_flag, need_probability, need_size, need_sizes
from fastmtl._deprecation import takes_old_arguments
from fastmtl.nn._module import Layer
from fastmtl.nn.sequence import need_lengths, ragged
from fastmtl.ops.task_gru import task_gru_layer

_BIASES = ("bias_ih", "bias_hh")
_KINDS = ("weight_ih", "weight_hh", *_BIASES)
# How torch.nn.GRU ends the names of the parameters of each direction.
_DIRECTIONS = ("", "_reverse")
# What a torch.nn.GRU has besides its sizes.
_SETTINGS = ("num_layers", "bias", "dropout", "bidirectional")


class TaskGRU(Layer):
    """A GRU of its own for each task, every step's hidden state of the last layer.

    The equations, the gate order (r, z, n), the initialisation U(-1/sqrt(h), 1/sqrt(h)) and the
    dropout between layers are those of `torch.nn.GRU`, and so are results and gradients. Per layer
    k the parameters are stacked by task and direction: `weight_ih_l{k}` (T, dirs, 3h, I_k) with
    I_0 = input_size and I_k = dirs * h, `weight_hh_l{k}` (T, dirs, 3h, h), `bias_ih_l{k}` and
    `bias_hh_l{k}` (T, dirs, 3h), where dirs is 2 for a bidirectional GRU and 1 otherwise.

    Args:
        input_size: I.
        hidden_size: h.
        num_tasks: T.
        num_layers: how many layers, each of which reads the states of the one before.
        bias: whether the gates have biases.
        dropout: probability of zeroing a state between two layers, in training.
        bidirectional: whether a second direction goes through each sequence from its end.
        recompute: whether a training step keeps only the states of every layer, and backward
            computes the gates from them again: less memory, and one more forward pass of time.
        device: where the parameters are.
        dtype: that of the parameters.

    Shape:
        - x: (B, L, I), shared by all tasks, or (T, B, L, I).
        - lengths: (B,), an int64 CPU tensor of lengths from 1 to L, or None where no sequence is
          padded. Padded steps are not read.
        - Output: (T, B, L, dirs * h), 0 at padded steps.

    Raises:
        TypeError or ValueError: for sizes that are no ints of at least 1, a `dropout` outside
            [0, 1), flags that are no bool, or another input.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import TaskGRU
        >>> gru = TaskGRU(16, 8, num_tasks=3, bidirectional=True)
        >>> gru(torch.randn(4, 10, 16), torch.tensor([10, 7, 1, 3])).shape
        torch.Size([3, 4, 10, 16])
    """

    weight_ih_l0: nn.Parameter

    @takes_old_arguments("bidirectional", "dropout")
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_tasks: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.input_size = need_size("input_size", input_size)
        self.hidden_size = need_size("hidden_size", hidden_size)
        self.num_tasks = need_size("num_tasks", num_tasks)
        self.num_layers = need_size("num_layers", num_layers)
        self.bias = need_flag("bias", bias)
        self.dropout = need_probability("dropout", dropout)
        self.bidirectional = need_flag("bidirectional", bidirectional)
        self.recompute = need_flag("recompute", recompute)
        self.num_directions = 2 if bidirectional else 1
        gates = (num_tasks, self.num_directions, 3 * hidden_size)
        for layer in range(num_layers):
            width = input_size if layer == 0 else self.out_features
            tails: tuple[tuple[int, ...], ...] = ((width,), (hidden_size,), (), ())
            for kind, tail in zip(_KINDS, tails, strict=True):
                parameter = None
                if bias or kind not in _BIASES:
                    empty = torch.empty((*gates, *tail), device=device, dtype=dtype)
                    parameter = nn.Parameter(empty)
                self.register_parameter(f"{kind}_l{layer}", parameter)
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
            states = task_gru_layer(
                states,
                *self._weights(layer),
                sequences.starts,
                sequences.lengths,
                recompute=self.recompute,
            )
        return sequences.padded(states, x.shape[-3], x.shape[-2])

    def _weights(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Input and hidden weights and biases of a layer, as the op takes them."""
        weight_ih, weight_hh, bias_ih, bias_hh = (
            getattr(self, f"{kind}_l{layer}") for kind in _KINDS
        )
        if not self.bias:
            bias_ih = bias_hh = weight_hh.new_zeros(weight_hh.shape[:3])
        return weight_ih, weight_hh, bias_ih, bias_hh

    @classmethod
    def from_torch(cls, modules: Sequence[nn.GRU]) -> TaskGRU:
        """Build the layer that computes what `modules` compute.

        Args:
            modules: one `torch.nn.GRU` with `batch_first=True` for each task, since this layer
                reads (B, L, I). The weights are copied.

        Raises:
            TypeError or ValueError: for no modules, others than `torch.nn.GRU`, or such of
                different settings or that read (L, B, I).
        """
        modules = list(modules)
        if not modules:
            raise ValueError("modules: expected at least one torch.nn.GRU, got none")
        for module in modules:
            if not isinstance(module, nn.GRU):
                raise TypeError(f"modules: expected torch.nn.GRU, got {type(module).__name__}")
            if not module.batch_first:
                raise ValueError(
                    "modules: expected batch_first=True, since TaskGRU reads (B, L, I) and not "
                    "(L, B, I), got False; set module.batch_first = True and transpose the inputs"
                )
        settings: list[dict[str, Any]] = [
            {name: getattr(module, name) for name in ("input_size", "hidden_size", *_SETTINGS)}
            for module in modules
        ]
        for other in settings:
            if other != settings[0]:
                raise ValueError(
                    f"modules: expected GRUs of the same settings, got {settings[0]} and {other}"
                )
        like = next(modules[0].parameters())
        layer = cls(**settings[0], num_tasks=len(modules), device=like.device, dtype=like.dtype)
        layer.load_torch_state_dicts([module.state_dict() for module in modules])
        return layer.train(modules[0].training)

    def to_torch(self) -> list[nn.GRU]:
        """Return one `torch.nn.GRU` (batch_first) per task, with copies of the weights."""
        like = self.weight_ih_l0
        settings: dict[str, Any] = {name: getattr(self, name) for name in _SETTINGS}
        modules = []
        for task in range(self.num_tasks):
            module = nn.GRU(
                self.input_size,
                self.hidden_size,
                batch_first=True,
                **settings,
                device=like.device,
                dtype=like.dtype,
            )
            module.load_state_dict(self._torch_state_dict(task))
            modules.append(module.train(self.training))
        return modules

    def load_torch_state_dicts(self, state_dicts: Sequence[Mapping[str, Tensor]]) -> None:
        """Take the weights of one `torch.nn.GRU` per task.

        Args:
            state_dicts: for each task the state dict of a `torch.nn.GRU` of this layer's sizes,
                layers and directions. As in `load_state_dict` values are copied to the dtype and
                device of the parameters; if any does not fit, nothing is.

        Raises:
            TypeError or ValueError: for another number of state dicts, or one with keys that are
                missing, unexpected or of another shape, which the message names.

        Examples:
            >>> import torch
            >>> from fastmtl.nn import TaskGRU
            >>> modules = [torch.nn.GRU(16, 8) for _ in range(3)]
            >>> gru = TaskGRU(16, 8, num_tasks=3)
            >>> gru.load_torch_state_dicts([module.state_dict() for module in modules])
        """
        if isinstance(state_dicts, Mapping) or not isinstance(state_dicts, Sequence):
            raise TypeError(
                f"state_dicts: expected a list of state dicts, got {type(state_dicts).__name__}"
            )
        if len(state_dicts) != self.num_tasks:
            raise ValueError(
                f"state_dicts: expected one for each of {self.num_tasks} tasks, "
                f"got {len(state_dicts)}"
            )
        ours = [self._torch_state_dict(task) for task in range(self.num_tasks)]
        for task, (own, theirs) in enumerate(zip(ours, state_dicts, strict=True)):
            _need_state(f"state_dicts[{task}]", theirs, own)
        for own, theirs in zip(ours, state_dicts, strict=True):
            for name, part in own.items():
                part.copy_(theirs[name])

    def torch_names(self) -> Iterator[tuple[str, nn.Parameter, int]]:
        """The names of a `torch.nn.GRU`'s parameters, each with the parameter here whose row
        [task, direction] it is, and the direction."""
        for name, parameter in self.named_parameters():
            for direction, suffix in enumerate(_DIRECTIONS[: self.num_directions]):
                yield name + suffix, parameter, direction

    def _torch_state_dict(self, task: int) -> dict[str, Tensor]:
        """A task's weights under the names of `torch.nn.GRU`, as views."""
        return {
            name: parameter.detach()[task, direction]
            for name, parameter, direction in self.torch_names()
        }

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, num_tasks={self.num_tasks}, "
            f"num_layers={self.num_layers}, bidirectional={self.bidirectional}, "
            f"dropout={self.dropout}"
            + ("" if self.bias else ", bias=False")
            + (", recompute=True" if self.recompute else "")
        )


def _need_state(name: str, value: Any, like: Mapping[str, Tensor]) -> None:
    """Raise unless `value` has the keys and shapes of the state dict `like`."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a state dict, got {type(value).__name__}")
    faults = [f"no {key}" for key in like if key not in value]
    faults += [f"an unexpected {key}" for key in value if key not in like]
    faults += [
        f"{key} of shape {tuple(value[key].shape)} instead of {tuple(own.shape)}"
        for key, own in like.items()
        if key in value and value[key].shape != own.shape
    ]
    if faults:
        expected = "expected the weights of a torch.nn.GRU of this layer's sizes"
        raise ValueError(f"{name}: {expected}, got {', '.join(faults)}")
