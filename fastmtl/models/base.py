"""What balancers, trainers and checkpoints ask of a model."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from fastmtl._checks import need_dtype
from fastmtl._deprecation import deprecated, takes_old_arguments
from fastmtl.models.groups import start_biases
from fastmtl.models.pairs import ParameterPair
from fastmtl.nn import SharedLinear
from fastmtl.nn._module import Layer
from fastmtl.nn.balance_at import BalanceAt, need_balance_at

Twin = TypeVar("Twin", bound=nn.Module)


class MultiTaskModel(Layer):
    """A network with one head per task, whose parameters are stacked by task.

    A subclass sets `shared` (None if it has no trainable shared layer) and `group_sizes`, the
    number of logits of each task, and implements `config`, `to_torch`, `is_twin`, `pairs` and
    `_head_weight`.
    """

    shared: SharedLinear | None
    group_sizes: tuple[int, ...]

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON knows them: `type(model)(**model.config())`."""
        raise NotImplementedError

    def to_torch(self) -> nn.Module:
        """The same network out of `torch.nn` layers alone, with copies of the weights.

        It has the same forward, outputs and gradients, and trains on its own; use it to check this
        model or to compare speeds. `fastmtl.models.paired_parameters` pairs the parameters.

        Examples:
            >>> import torch
            >>> from fastmtl.models import MTMLAN
            >>> model, x = MTMLAN(in_features=4, num_tasks=2, hidden_size=3), torch.randn(5, 6, 4)
            >>> torch.allclose(model.to_torch()(x), model(x), atol=1e-6)
            True
        """
        raise NotImplementedError

    def reference(self) -> nn.Module:
        """`to_torch` by its old name."""
        deprecated(f"{type(self).__name__}.reference is now to_torch")
        return self.to_torch()

    @torch.no_grad()
    def start_at(self, frequencies: Tensor) -> None:
        """Set the bias of each task's logit to log(f / (1 - f)), those of a multi-class task to
        log f, f kept 1e-3 from 0 and 1, so that an untrained model gives the labels' frequencies f
        (sum C,).

        A task whose frequency is NaN, as that of one without a label, starts at 1/2 or 1/C.
        """
        output: Any = self.output
        start_biases(frequencies, self.group_sizes, output.bias)

    @takes_old_arguments(where="balance_at")
    def task_weight(self, balance_at: BalanceAt) -> SharedLinear | nn.Parameter:
        """Return the weight at which a balancer measures each task's gradient.

        Args:
            balance_at: "shared" for the last shared layer, "first" or "last" for the weight
                (T, ...) of the first or of the last layer of each task's network.

        Raises:
            ValueError: for another name, and for "shared" where the model has no trainable shared
                layer.
        """
        need_balance_at(balance_at)
        if balance_at != "shared":
            return self._head_weight(balance_at)
        if self.shared is None:
            raise ValueError(
                "balance_at: expected first or last, since the model has no trainable shared "
                "layer, got 'shared'"
            )
        return self.shared

    def _need_dtype(self, name: str, value: Tensor) -> None:
        """Raise where one of `value` and the parameters is float64 and the other is not.

        Half precision is for autocast, FSDP and others to cast, who may do so below here.
        """
        like = next(self.parameters())
        if torch.float64 in (value.dtype, like.dtype) and (
            value.is_meta or not torch.is_autocast_enabled(value.device.type)
        ):
            need_dtype(name, value, "the model", like)

    def is_twin(self, twin: nn.Module) -> bool:
        """Whether `to_torch` of a model of this kind gives such a module."""
        raise NotImplementedError

    def pairs(self, twin: Any) -> list[ParameterPair]:
        """The parameters of what `to_torch` gave, with the parts of this model's."""
        raise NotImplementedError

    def _head_weight(self, balance_at: Literal["first", "last"]) -> nn.Parameter:
        raise NotImplementedError

    @torch.no_grad()
    def _copied_to(self, twin: Twin) -> Twin:
        """The twin with this model's weights, dtype, device and training mode."""
        twin.to(next(self.parameters())).train(self.training)
        for parameter, part, own in self.pairs(twin):
            own.copy_(parameter[part])
        return twin
