"""The point where a network splits into tasks, made to see the gradient of every task."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from fastmtl._checks import need_size, need_sizes
from fastmtl.nn import _ranks
from fastmtl.nn._compiled import Shown
from fastmtl.nn._fork import Fork, Use
from fastmtl.nn._module import call
from fastmtl.nn._sole_use import SoleUse

# What tells the weight of a SharedLinear, an attribute of it.
_SHARED = "_fastmtl_shared"


class SharedLinear(Fork, nn.Linear):
    """The last shared layer: y = x W^T + b, one view of y for each of T tasks.

    Calling it on x (..., I) gives (T, ..., O) and `views(x)` a tuple of T tensors (..., O), all of
    them views of one y (..., O), which is computed once. Give row or view j to the network of task
    j; prefer `views` where the networks are separate modules, since indexing one tensor makes
    autograd build its gradient out of T full-size ones.

    In the one backward pass the layer sees the gradient d_j of every task and sends one
    combination on: d = sum_j d_j, exactly as torch.nn.Linear would. With `watch` set it also gives,
    after the pass, the norms ||d_j^T x|| (`task_grad_norms`) or inner products
    `<d_i^T x, d_j^T x>` (`task_grad_gramian`) of dL_j/dW; a layer used several times in one forward
    pass gives those of the whole dL_j/dW. With `weighting` set the combination is
    d = sum_j c_j d_j, c = weighting(Gramian). Nothing synchronises with the host.

    The norms and inner products are those of this layer's use of its weight: while `watch` or
    `weighting` is set, a backward pass in which the weight has a gradient from elsewhere too, tied
    to another layer for instance, raises RuntimeError.

    It is a torch.nn.Linear to tools that look for one, with its parameters, their initialisation
    and its state_dict. What wraps it, as LoRA's adapters do, adds to all its views; the gradients
    that it measures are those of its own weight, also of a frozen one, but combining them needs a
    weight that is trained.

    While gradients are on and `watch` or `weighting` is set, a second derivative raises, and each
    use under reentrant checkpointing counts as a backward pass of its own. torch.compile makes it
    part of one graph, in which it can be used once; for a scope beyond the layer and for several
    processes the graph breaks here.

    Args:
        in_features: I.
        out_features: O.
        num_tasks: T.
        bias: whether to add b.
        device: where the parameters are.
        dtype: that of the parameters.

    Shape:
        - x: (..., I).
        - Output: (T, ..., O), stride 0 over T; of `views` T tensors (..., O).

    Raises:
        TypeError or ValueError: for sizes that are no ints of at least 1, or an x whose last
            dimension is not I.

    Examples:
        >>> layer = SharedLinear(4, 3, num_tasks=2)
        >>> layer.watch = "norms"
        >>> first, second = layer.views(torch.ones(5, 4))
        >>> (first.mean() + 2 * second.mean()).backward()
        >>> first_norm, second_norm = layer.task_grad_norms()
        >>> bool(torch.isclose(second_norm, 2 * first_norm))
        True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_tasks: int,
        bias: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_tasks)
        self.in_features = need_size("in_features", in_features)
        self.out_features = need_size("out_features", out_features)
        linear = nn.Linear(in_features, out_features, bias, device=device, dtype=dtype)
        self.weight = linear.weight  # (O, I)
        self.bias = linear.bias  # (O,) or None
        self._sole_use = SoleUse()
        self._mark()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_weight_probe": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._mark()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "weighting" or (name == "weight" and hasattr(self, "_sole_use")):
            self._prepare()

    def _mark(self) -> None:
        setattr(self.weight, _SHARED, True)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> (T, ..., O), stride 0 over T."""
        need_sizes("x", x, ("...", self.in_features))
        return self._split(x)

    def views(self, x: Tensor) -> tuple[Tensor, ...]:
        """x (..., I) -> T tensors (..., O)."""
        return self(x).unbind(0)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"num_tasks={self.num_tasks}, bias={self.bias is not None}"
        )

    def _prepare(self) -> None:
        weight = self._parameters.get("weight")
        if weight is not None:
            self._probed_on = weight.device
        self._weight_probe: Tensor | None = None
        watched = self._watch is not None or self.weighting is not None
        if watched and weight is not None and weight.requires_grad:
            self._weight_probe = self._sole_use.probe(weight)
        # The last that is made receives first: two uses are told before what follows from them.
        super()._prepare()

    def _output(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def _fits_in_graph(self, x: Tensor) -> bool:
        ready = not self.weight.requires_grad or (
            self._weight_probe is not None and self._sole_use.watches(self.weight)
        )
        return ready and super()._fits_in_graph(x)

    def _compiled_output(self, x: Tensor) -> tuple[Tensor, Tensor, bool]:
        weight: Tensor = self.weight
        if self._weight_probe is not None:
            weight = call(Shown.apply, weight, self._weight_probe)
        return F.linear(x, weight, self.bias), x.detach(), True

    def _split(self, x: Tensor) -> Tensor:
        frozen = self.weighting is not None and not self.weight.requires_grad
        if frozen and torch.is_grad_enabled():
            raise RuntimeError(
                "SharedLinear: its weight is frozen, as under LoRA, while a weighting combines the "
                "tasks' gradients; those of an adapter beside it would be left out. Put a TaskFork "
                "behind the adapted layer, and balance there"
            )
        return super()._split(x)

    def _watched_output(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.scope != "layer":
            return self._output(x), None
        return F.linear(x, self._sole_use.lend(self.weight), self.bias), x.detach()

    def _joined(self, uses: list[Use]) -> tuple[Tensor, Tensor]:
        # dW adds up over uses as it does over rows.
        inputs = [x.reshape(-1, self.in_features) for x, _ in uses if x is not None]
        grads = [d.reshape(self.num_tasks, -1, self.out_features) for _, d in uses]
        if len(uses) == 1:
            return inputs[0], grads[0]
        return torch.cat(inputs), torch.cat(grads, 1)

    def _share(
        self, inputs: Tensor, grads: Tensor, group: distributed.ProcessGroup
    ) -> tuple[Tensor, Tensor]:
        return _ranks.share_columns(inputs, grads, group)


def is_shared_weight(parameter: nn.Parameter) -> bool:
    """Whether it is the weight of a SharedLinear, as that was made or copied."""
    return getattr(parameter, _SHARED, False)


class TaskFork(Fork):
    """T views of a representation z, one for each task, for a shared part that ends in anything.

    Calling it on z (...) gives (T, ...) and `views(z)` a tuple of T tensors (...), without a copy.
    It does for dL_j/dz what SharedLinear does for dL_j/dW, `watch` and `weighting` included: these
    are the gradients of MGDA-UB (Sener and Koltun 2018, section 3.3): those of the views alone, not
    of what uses z beside the fork. A fork used several times in
    one forward pass measures its representations as one long vector.

    Args:
        num_tasks: T.

    Shape:
        - z: (...).
        - Output: (T, ...), stride 0 over T; of `views` T tensors (...).

    Raises:
        TypeError or ValueError: for what is no int of at least 1, or a z that is no floating-point
            tensor.

    Examples:
        >>> fork = TaskFork(num_tasks=2)
        >>> fork.watch = "gramian"
        >>> z = torch.zeros(3, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> (first.sum() - 2 * second[0]).backward()
        >>> fork.task_grad_gramian()
        tensor([[ 3., -2.],
                [-2.,  4.]])
        >>> z.grad
        tensor([-1.,  1.,  1.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """z (...) -> (T, ...), stride 0 over T."""
        need_sizes("z", z, ("...",))
        return self._split(z)

    def views(self, z: Tensor) -> tuple[Tensor, ...]:
        """z (...) -> T tensors (...)."""
        return self(z).unbind(0)

    def extra_repr(self) -> str:
        return f"num_tasks={self.num_tasks}"

    def _output(self, x: Tensor) -> Tensor:
        return x

    def _watched_output(self, x: Tensor) -> tuple[Tensor, None]:
        return x, None

    def _compiled_output(self, x: Tensor) -> tuple[Tensor, Tensor, bool]:
        return x, x.new_ones(1, 1), False

    def _joined(self, uses: list[Use]) -> tuple[Tensor, Tensor]:
        # With the one input 1, the gradient of a linear map's weight is d_j itself.
        grads = [d.reshape(self.num_tasks, 1, -1) for _, d in uses]
        joined = grads[0] if len(grads) == 1 else torch.cat(grads, 2)
        return joined.new_ones(1, 1), joined

    def _share(
        self, inputs: Tensor, grads: Tensor, group: distributed.ProcessGroup
    ) -> tuple[Tensor, Tensor]:
        # Every rank has the representations of its own samples: dL_j/dz is all of them, one after
        # the other.
        return inputs, grads
