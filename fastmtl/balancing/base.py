"""What every balancer has in common: one weight per task and one backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn
from typing_extensions import Self

from fastmtl._checks import need_device, need_floating, need_shape, need_size, need_tensor
from fastmtl.backends.precision import accumulation_dtype
from fastmtl.balancing.backward_pass import BackwardPass


class Balancer(nn.Module):
    """Weighs T task losses, runs the one backward pass, and updates the weights from it.

    The state, `weights` (T,) float32 above all, is in buffers: `state_dict`, `to` and `double`
    treat a balancer like any module, and a restored one goes on exactly where it stopped. The
    buffers stay in place and nothing synchronises with the host, so a training step with its
    balancing can be captured in a CUDA graph.

    A method of your own is a subclass: it sets `weights` in `_prepare`, from the losses of a step,
    or overrides `_total` and `_backward`.

    Args:
        num_tasks: T.
        device: where the buffers are.

    Raises:
        TypeError or ValueError: for a `num_tasks` that is no int of at least 1.

    Examples:
        >>> import torch
        >>> class Halves(Balancer):
        ...     def _prepare(self, values, present):
        ...         self.weights.fill_(0.5)
        >>> Halves(num_tasks=2).backward(torch.tensor([1.0, 3.0], requires_grad=True))
        tensor(2.)
    """

    weights: Tensor

    # What the weights are made of, and what making them adds to a step of training.
    needs: ClassVar[str] = "losses"
    adds: ClassVar[str] = "nothing"

    def __init__(self, num_tasks: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.num_tasks = need_size("num_tasks", num_tasks)
        self._group: distributed.ProcessGroup | None = None
        self._exact = True
        self.register_buffer("weights", torch.ones(num_tasks, device=device))

    def distribute(
        self, group: distributed.ProcessGroup | None = None, *, exact: bool = True
    ) -> Self:
        """Balance the batches of all ranks of `group` (all processes by default) as one batch, for
        a model in DistributedDataParallel over the same ranks. Returns the balancer.

        Losses become means over the labels of all ranks (see `counts` of `backward`) and every rank
        holds the same weights, those that one process would reach on the whole batch: the tasks'
        gradients are added up over the ranks before norms or inner products are taken. Besides one
        all-reduce of 2 T losses and counts, which every method needs, that exchanges per step

        - at a SharedLinear, the smaller of N (I + T O / R) and T O I / R numbers sent to each rank,
          and one wait for the ranks' batch sizes N;
        - at a TaskFork, T norms or T^2 inner products;
        - at parameters, as many numbers as these have.

        With `exact=False` each rank takes norms or Gramian of its own batch, and their mean over
        the ranks, T or T^2 numbers, stands in for those of the whole batch; it is never smaller
        than them (Jensen's inequality), and equal where the ranks' gradients are.

        A balancer that is given a model in DistributedDataParallel takes its ranks by itself. Any
        other takes all processes at its first `backward`, where torch.distributed runs more than
        one: what it was built from does not say over which ranks FSDP, a trainer or a wrapper put
        on later averages the gradients. Where that is not all processes, call this before; for
        processes that train apart from each other with `distributed.new_subgroups(1)[0]`.

        Args:
            group: the ranks; None for all processes.
            exact: whether norms and Gramians are those of the whole batch.

        Raises:
            RuntimeError: if torch.distributed is not initialised.
        """
        self._group = distributed.group.WORLD if group is None else group
        if self._group is None:
            raise RuntimeError("distribute: torch.distributed is not initialised")
        self._exact = exact
        return self

    def backward(
        self,
        losses: Tensor,
        *,
        present: Tensor | None = None,
        counts: Tensor | None = None,
        scaler: torch.amp.GradScaler | None = None,
        backward: Callable[[Tensor], object] | None = None,
    ) -> Tensor:
        """Run the backward pass of sum_j w_j L_j and update the weights; return the sum, detached.

        It stands where `losses.sum().backward()` stood: gradients add to `.grad`, and the
        optimizer steps afterwards. Every call updates the weights, so accumulating gradients over
        k batches updates them k times. A batch with a loss or norm that is not finite leaves the
        balancer's state as it was.

        Args:
            losses: (T,), floating point, with a graph.
            present: (T,) bool, the tasks with a label in this batch; the others are left out of the
                sum and of the update. Without it a task is absent if its loss is exactly 0 and,
                where the method looks at gradients, its gradient too.
            counts: (T,), how many labels each loss is the mean of. Only for several ranks, whose
                losses are averaged in proportion; a task with count 0 is absent at this rank.
                Without it all ranks at which a task is present count the same.
            scaler: the GradScaler of a float16 loop. The pass runs on the scaled sum, the update on
                unscaled norms; call `scaler.step(optimizer)` as usual.
            backward: runs the pass of the sum that it is given, for loops whose own it is:
                `fabric.backward`, `accelerator.backward`. It may scale the sum, or divide it by the
                batches it accumulates; norms are taken without that factor.

        Raises:
            TypeError or ValueError: for losses, `present` or `counts` of another type, shape or
                device, losses without a graph, or both `scaler` and `backward`.
            RuntimeError: if `backward` did not run the pass.
        """
        own = scaler is None and backward is None
        if torch.compiler.is_compiling() and not (own and self._compiles()):
            # As a decorator it would load all of the compiler wherever fastmtl is imported.
            reason = "a balancer runs the backward pass and sets its weights from it"
            outside: Callable[..., Tensor] = torch.compiler.disable(self.backward, reason=reason)
            return outside(losses, present=present, counts=counts, scaler=scaler, backward=backward)
        self._check(losses, present, counts)
        if scaler is not None and backward is not None:
            raise ValueError(
                "scaler: expected None beside backward, which scales what it is given, got both"
            )
        self._join_ranks()
        if counts is not None:
            present = counts > 0 if present is None else present & (counts > 0)
        if present is not None:
            losses = torch.where(present, losses, 0)
        values = losses.detach()
        if self._group is not None:
            factors, values, present = over_ranks(values, present, counts, self._group)
            losses = factors.to(losses.dtype) * losses
        with torch.no_grad():
            self._prepare(values, present)
        total = self._total(losses, values, present)
        if scaler is not None:
            scaled = scaler

            def backward(total: Tensor) -> None:
                scaled.scale(total).backward()

        self._backward(BackwardPass(total, backward), values, present)
        total = total.detach()
        if self._group is not None:
            total = _mean_over_ranks(total, self._group)
        return total

    def end_cycle(self) -> None:
        """Call at the end of a training cycle, that is of an epoch unless you choose otherwise."""

    def extra_repr(self) -> str:
        return f"num_tasks={self.num_tasks}"

    def __getstate__(self) -> dict[str, Any]:
        # Process groups cannot be copied; the copy finds its ranks as a new balancer does.
        return {**self.__dict__, "_group": None}

    # In all of these `values` (T,) are the losses without a graph, those of absent tasks 0, and of
    # all ranks together; `losses` has the graph, and DistributedDataParallel's mean over the ranks.

    def _prepare(self, values: Tensor, present: Tensor | None) -> None:
        """Set the weights of this step, where they depend on its losses."""

    def _total(self, losses: Tensor, values: Tensor, present: Tensor | None) -> Tensor:
        """The scalar whose gradient the backward pass takes."""
        return (self.weights.to(losses.dtype) * losses).sum()

    def _backward(self, backward: BackwardPass, values: Tensor, present: Tensor | None) -> None:
        """Run the pass and update the state."""
        backward()

    def _join_ranks(self) -> None:
        """Take all processes, where there are several and nobody said which of them."""
        running = distributed.is_available() and distributed.is_initialized()
        if self._group is None and running and distributed.get_world_size() > 1:
            self.distribute(exact=self._exact)

    def _mean_over_ranks(self, values: Tensor) -> Tensor:
        return values if self._group is None else _mean_over_ranks(values, self._group)

    def _same_on_ranks(self, drawn: Tensor) -> Tensor:
        """What the first rank has drawn."""
        if self._group is not None:
            drawn = drawn.contiguous()
            distributed.broadcast(drawn, group=self._group, group_src=0)
        return drawn

    def _compiles(self) -> bool:
        """Whether torch.compile is told to follow backward passes, and can follow this one: what a
        layer measures in it leaves by a node outside of the graph."""
        followed: bool = getattr(torch._dynamo.config, "trace_autograd_ops", False)
        return followed and self.adds == "nothing" and self._group is None

    def _check(self, losses: Tensor, present: Tensor | None, counts: Tensor | None) -> None:
        self._check_vectors(losses, present, counts)
        if not losses.requires_grad:
            raise ValueError("losses: expected a tensor with a graph, got one without gradient")

    def _check_vectors(self, losses: Tensor, present: Tensor | None, counts: Tensor | None) -> None:
        need_floating("losses", losses)
        need_shape("losses", losses, (self.num_tasks,), "(num_tasks,)")
        if losses.device != self.weights.device:
            raise ValueError(
                f"losses: expected the balancer's device, {self.weights.device}, got "
                f"{losses.device}; move the balancer with .to(device)"
            )
        for name, value in (("present", present), ("counts", counts)):
            if value is not None:
                need_tensor(name, value)
                need_shape(name, value, (self.num_tasks,), "(num_tasks,)")
                need_device(name, value, "losses", losses)
        if present is not None and present.dtype != torch.bool:
            raise TypeError(f"present: expected bool, got {present.dtype}")


def over_ranks(
    values: Tensor, present: Tensor | None, counts: Tensor | None, group: distributed.ProcessGroup
) -> tuple[Tensor, Tensor, Tensor]:
    """Means over the labels of all ranks, which tasks have any, and this rank's factors f: the mean
    over the ranks of f L is the mean over the labels."""
    if counts is None:
        counts = values != 0 if present is None else present
    dtype = accumulation_dtype(values.dtype)
    counts, values = counts.to(dtype), values.to(dtype)
    sums = torch.stack([counts, counts * values])
    distributed.all_reduce(sums, group=group)
    total = sums[0].clamp(min=torch.finfo(sums.dtype).tiny)
    factors = distributed.get_world_size(group) * counts / total
    return factors, sums[1] / total, sums[0] > 0


def _mean_over_ranks(values: Tensor, group: distributed.ProcessGroup) -> Tensor:
    values = values / distributed.get_world_size(group)
    distributed.all_reduce(values, group=group)
    return values
