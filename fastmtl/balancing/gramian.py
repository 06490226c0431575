"""Weights of the tasks' gradients from the inner products of these gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor, nn

from fastmtl._checks import need_shape
from fastmtl._deprecation import takes_old_arguments
from fastmtl.balancing.backward_pass import BackwardPass
from fastmtl.balancing.gradient_balancer import GradientBalancer
from fastmtl.balancing.target import ForkTarget, resolve
from fastmtl.balancing.weightings import make_room, need_gramian_weighting
from fastmtl.nn._fork import Fork
from fastmtl.nn._in_graph import Weighting


class Place(TypedDict, total=False):
    """Where a GramianBalancer takes the Gramian, and of what: its arguments of these names."""

    balance_at: str | None
    scope: str | Sequence[nn.Module | str]


class GramianBalancer(GradientBalancer[ForkTarget]):
    """Combines the tasks' gradients by any function of their Gramian, in the one backward pass.

    At the shared layer, S_ij = `<dL_i/dW, dL_j/dW>` (at a TaskFork, of dL/dz) gives the weights

        c = weighting(S),    gradient sent on = sum_j c_j dL_j/dy

    to everything before and including the layer, while each task's own network keeps the gradient
    of its own, unweighted loss. PCGrad, CAGrad, Nash-MTL and other methods that look at conflicts
    between gradients are such functions; the weightings of TorchJD can be passed as they are.

    `weights` holds the last c; that of an absent task stays as it was. With several ranks the
    Gramian is that of the batch of all of them (see `distribute`).

    Args:
        model: a model with a SharedLinear or TaskFork in it or behind `task_weight("shared")`, or
            such a layer itself. From then on every backward pass through it is combined in this
            way.
        weighting: from the Gramian (T, T), float32 or float64, to c (T,). Rows and columns of
            absent tasks are 0, and what it gives these tasks is set to 0; a task is absent if
            `present` says so or, without `present`, if its gradient is exactly 0. It can draw at
            random, as PCGrad's does: of several ranks, all take what the first one's gave.
        balance_at: for a model with `task_weight`, "shared", the only place with a Gramian, which
            None takes too.
        scope: what the gradients are of: "layer" the weight of a SharedLinear, or the
            representation at a TaskFork; "trunk" all parameters that the tasks share; or a list of
            modules, or of their names in the model, the parameters in them. They are combined for
            everything before and including the layer in any case. See `SharedLinear.scope` for what
            it costs.

    Raises:
        TypeError or ValueError: for a model without such a layer or with one that another balancer
            looks at, a weighting that cannot be called, or one of TorchJD's that needs more than
            the Gramian.

    Examples:
        >>> from fastmtl.nn import SharedLinear
        >>> layer = SharedLinear(4, 3, num_tasks=2)
        >>> inverse_norms = lambda gramian: gramian.diagonal().rsqrt()
        >>> balancer = GramianBalancer(layer, inverse_norms)
        >>> losses = layer(torch.ones(5, 4)).mean((1, 2)) * torch.tensor([1.0, 4.0])
        >>> total = balancer.backward(losses)
        >>> round(float(balancer.weights[0] / balancer.weights[1]), 4)
        4.0
    """

    needs: ClassVar[str] = "Gramian"
    adds: ClassVar[str] = "Gramian, a solver on (T, T)"

    @takes_old_arguments(where="balance_at")
    def __init__(
        self,
        model: Any,
        weighting: Weighting,
        *,
        balance_at: str | None = None,
        scope: str | Sequence[nn.Module | str] = "layer",
    ) -> None:
        need_gramian_weighting(weighting)
        target = resolve(model, balance_at, scope)
        if not isinstance(target, ForkTarget):
            raise ValueError(
                "model: a Gramian is taken at a SharedLinear or TaskFork, got a model without"
            )
        _need_free(target.layer)
        super().__init__(target)
        self.weighting = weighting
        self._present: Tensor | None = None
        self._pass: BackwardPass | None = None
        self._follow(model)
        self._attach()

    def _attach(self) -> None:
        self._target.attach()
        self._target.layer.combine_by(self._weigh)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        if isinstance(self.weighting, nn.Module):
            make_room(self.weighting, state_dict, f"{prefix}weighting")
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _total(self, losses: Tensor, values: Tensor, present: Tensor | None) -> Tensor:
        return losses.sum()

    def _backward(self, backward: BackwardPass, values: Tensor, present: Tensor | None) -> None:
        self._present, self._pass = present, backward
        try:
            backward()
        finally:
            self._present = self._pass = None

    def _weigh(self, gramian: Tensor) -> Tensor:
        if self._target.group is None:
            gramian = self._mean_over_ranks(gramian)
        if self._pass is not None and self._pass.scale is not None:
            gramian = gramian / self._pass.scale**2
        present = gramian.diagonal() != 0 if self._present is None else self._present
        gramian = torch.where(present & present.unsqueeze(1), gramian, 0)
        weights = self.weighting(gramian)
        need_shape("weighting", weights, (self.num_tasks,), "weights (num_tasks,)")
        weights = self._same_on_ranks(torch.where(present, weights, 0))
        kept = weights.to(self.weights.dtype)
        finite = gramian.isfinite().all() & kept.isfinite().all()
        self.weights.copy_(torch.where(present & finite, kept, self.weights))
        return weights


def _need_free(layer: Fork) -> None:
    """Raise where another balancer would be left without its gradients."""
    if layer.weighting is not None:
        raise ValueError(
            "model: its shared layer combines gradients by a weighting already, that of another "
            "balancer for instance; set layer.weighting = None first"
        )
    if layer.watchers:
        raise ValueError(
            f"model: {' and '.join(layer.watchers)} weighs losses by the gradients at its shared "
            "layer, which this would combine; delete that balancer first"
        )
