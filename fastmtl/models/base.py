"""What balancers, trainers and checkpoints ask of a model."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from fastmtl.nn import SharedLinear

TaskWeight = Literal["shared", "first", "last"]


class MultiTaskModel(nn.Module):
    """A network with one head per task, whose parameters are stacked by task.

    A subclass sets `shared` (None if it has no trainable shared layer) and implements `config`,
    `reference` and `_head_weight`.
    """

    shared: SharedLinear | None

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON knows them: `type(model)(**model.config())`."""
        raise NotImplementedError

    def reference(self) -> nn.Module:
        """The same network out of `torch.nn` layers alone, with copies of the weights.

        It has the same forward, outputs and gradients, and trains on its own; use it to check this
        model or to compare speeds. `fastmtl.models.reference_parameters` pairs the parameters.
        """
        raise NotImplementedError

    def task_weight(self, where: TaskWeight) -> SharedLinear | nn.Parameter:
        """Return the weight at which a balancer measures each task's gradient.

        "shared" is the last shared layer, "first" and "last" are the weight (T, ...) of the first
        and of the last layer of each task's network. Raises ValueError for another name, and for
        "shared" where the model has no trainable shared layer.
        """
        if where == "shared":
            if self.shared is None:
                raise ValueError(
                    'where: expected "first" or "last", since the model has no trainable shared '
                    'layer, got "shared"'
                )
            return self.shared
        if where in ("first", "last"):
            return self._head_weight(where)
        raise ValueError(f'where: expected "shared", "first" or "last", got {where!r}')

    def _head_weight(self, where: Literal["first", "last"]) -> nn.Parameter:
        raise NotImplementedError
