"""Task weights that bring the gradient norms of all tasks to one scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastmtl._checks import need_floating, need_number, need_shape
from fastmtl._deprecation import takes_old_arguments
from fastmtl.balancing.backward_pass import BackwardPass
from fastmtl.balancing.gradient_balancer import GradientBalancer
from fastmtl.balancing.target import ForkTarget, GradientTarget, resolve


class GradNorm(GradientBalancer[GradientTarget]):
    """GradNorm (Chen et al. 2018, equation 2 and algorithm 1) without its second backward pass.

    With G_j = ||d(w_j L_j)/dW|| at a chosen weight W, Gbar their mean, Lhat_j = L_j(t) / L_j(0) and
    r_j = Lhat_j / mean(Lhat), a task that learns slowly (r_j > 1) should have a large gradient:

        TL = sum_j |G_j - target_j|,    target_j = Gbar r_j^alpha, held constant

    G_j is linear in w_j, so the gradient of TL is known without differentiating anything:

        dTL/dw_j = sign(G_j - target_j) G_j / w_j
        w_j <- max(w_j - lr dTL/dw_j, floor),  then all w_j scaled to sum T

    in every step, after its backward pass. Tasks absent from a batch keep their weight and are in
    none of the means; the present ones are scaled so that the sum of all stays T. L_j(0) is the
    loss at the first step at which the task is present.

    With several ranks norms are those of the batch of all of them, and every rank arrives at the
    same weights; see `distribute` for how they are found and what that costs. Losses must not be
    negative.

    Args:
        model: what the norms are taken at: a model with a `task_weight(balance_at)` method, such as
            MTMLAN and HGFN; a model with one SharedLinear or TaskFork in it; such a layer itself; a
            Parameter (T, ...) stacked by task, or a list of T Parameters.
        alpha: how strongly slow tasks are pulled up; 0 makes all norms equal.
        lr: the step size of the weights.
        balance_at: for a model with `task_weight`, "shared" (its last shared layer), "first" or
            "last" (of each task's network); None takes "shared" if the model has it, else "first".
        floor: the least a weight can be before scaling.
        normalize: take TL / Gbar instead of TL, so that `lr` means the same at any scale of the
            losses: multiplying all losses by a constant changes no weight. False for the equation
            as it stands.
        initial: L_j(0) as a (T,) tensor, log(number of classes) for instance, in place of the first
            losses.
        scope: at a SharedLinear or TaskFork, what the norms are of: "layer" its weight or its
            representation, "trunk" all parameters that the tasks share, or a list of modules, or of
            their names in the model, those of the parameters in them. See `SharedLinear.scope` for
            what it costs.

    Raises:
        TypeError or ValueError: for a model without such a place, one whose gradients a
            GramianBalancer combines, or numbers out of range.

    Examples:
        >>> from fastmtl.nn import SharedLinear
        >>> shared = SharedLinear(4, 3, num_tasks=2)
        >>> balancer = GradNorm(shared, alpha=0.0)
        >>> losses = (shared(torch.ones(5, 4)) ** 2).mean((1, 2)) * torch.tensor([1.0, 9.0])
        >>> total = balancer.backward(losses)
        >>> bool(balancer.weights[0] > balancer.weights[1])
        True
    """

    initial_losses: Tensor
    factors: Tensor

    needs: ClassVar[str] = "losses, norms"
    adds: ClassVar[str] = "norms"

    @takes_old_arguments(where="balance_at")
    def __init__(
        self,
        model: Any,
        alpha: float = 1.0,
        *,
        lr: float = 0.025,
        balance_at: str | None = None,
        floor: float = 1e-3,
        normalize: bool = True,
        initial: Tensor | None = None,
        scope: str | Sequence[nn.Module | str] = "layer",
    ) -> None:
        need_number("alpha", alpha)
        need_number("lr", lr, above=0.0)
        need_number("floor", floor, above=0.0)
        if floor >= 1:
            raise ValueError(f"floor: expected less than the mean weight, 1, got {floor}")
        target = resolve(model, balance_at, scope)
        if isinstance(target, ForkTarget) and target.layer.weighting is not None:
            raise ValueError(
                "model: its shared layer combines gradients by a weighting, that of a "
                "GramianBalancer for instance; set layer.weighting = None to balance losses"
            )
        super().__init__(target)
        self.alpha = alpha
        self.lr = lr
        self.floor = floor
        self.normalize = normalize
        self._register_state()
        if initial is not None:
            need_floating("initial", initial)
            need_shape("initial", initial, (self.num_tasks,), "(num_tasks,)")
            if not bool((initial > 0).all() & initial.isfinite().all()):
                raise ValueError(f"initial: expected positive losses, got {initial.tolist()}")
            self.initial_losses.copy_(initial)
        self._follow(model)
        self._attach()

    def _attach(self) -> None:
        if isinstance(self._target, ForkTarget):
            self._target.attach(self)

    def _register_state(self) -> None:
        """Register what the method keeps besides the weights."""
        # 0 stands for "not seen yet"; a first loss of exactly 0 sets no scale.
        self.register_buffer("initial_losses", torch.zeros_like(self.weights))
        self.register_buffer("factors", torch.ones_like(self.weights), persistent=False)

    def extra_repr(self) -> str:
        return f"num_tasks={self.num_tasks}, alpha={self.alpha}, lr={self.lr}, floor={self.floor}"

    def _backward(self, backward: BackwardPass, values: Tensor, present: Tensor | None) -> None:
        norms = self._target.norms_of(backward)
        with torch.no_grad():
            if self._target.group is None:
                norms = self._mean_over_ranks(norms)
            if backward.scale is not None:
                norms = norms / backward.scale
            dtype = self.weights.dtype
            if present is None:
                present = (values != 0) | (norms != 0)
            else:
                norms = torch.where(present, norms, 0)
            self._update(values.to(dtype), norms.to(dtype), present)

    def _update(self, losses: Tensor, norms: Tensor, present: Tensor) -> Tensor:
        """Update the state; return which tasks (T,) the step counts for. Losses and norms of the
        absent ones are 0."""
        initial = torch.where(self.initial_losses != 0, self.initial_losses, losses)
        gradient = self._gradient(losses, norms, initial, present)
        finite = (losses + norms).isfinite().all()
        self._set_weights(self.weights.sub(gradient, alpha=self.lr), present & finite)
        self.initial_losses.copy_(torch.where(finite, initial, self.initial_losses))
        return present & finite

    def _gradient(self, losses: Tensor, norms: Tensor, initial: Tensor, present: Tensor) -> Tensor:
        """dTL/dw (T,), or d(TL / Gbar)/dw."""
        count = present.sum().clamp(min=1)
        mean_norm = norms.sum() / count
        progress = torch.where(initial > 0, losses / initial, present)
        mean_progress = progress.sum() / count
        relative = torch.where(mean_progress > 0, progress / mean_progress, 1)
        target = mean_norm * relative**self.alpha
        gradient = self.factors * (norms - target).sign() * norms / self.weights
        if self.normalize:
            # All norms are 0 where their mean is.
            gradient = gradient / mean_norm.clamp(min=torch.finfo(norms.dtype).tiny)
        return gradient

    def _set_weights(self, weights: Tensor, present: Tensor) -> None:
        """Give the present tasks their new weights, kept above the floor and scaled so that all
        sum to T."""
        weights = weights.clamp(min=self.floor)
        room = self.num_tasks - torch.where(present, 0, self.weights).sum()
        total = torch.where(present, weights, 0).sum()
        # A step too large for the dtype is not taken.
        taken = present & total.isfinite()
        self.weights.copy_(torch.where(taken, weights * (room / total), self.weights))
