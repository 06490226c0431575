"""What every balancer has in common: one weight per task and one backward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastmtl.nn._checks import need_size
from fastmtl.ops import _checks


class Balancer(nn.Module):
    """Weighs T task losses, runs the one backward pass, and updates the weights from it.

    The state, `weights` (T,) float32 above all, is in buffers: `state_dict`, `to` and `double`
    treat a balancer like any module, and a restored one goes on exactly where it stopped. The
    buffers stay in place and nothing synchronises with the host, so a training step with its
    balancing can be captured in a CUDA graph.
    """

    weights: Tensor

    def __init__(self, num_tasks: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.num_tasks = need_size("num_tasks", num_tasks)
        self.register_buffer("weights", torch.ones(num_tasks, device=device))

    def backward(
        self,
        losses: Tensor,
        *,
        present: Tensor | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Tensor:
        """Run the backward pass of sum_j w_j L_j and update the weights; return the sum, detached.

        It stands where `losses.sum().backward()` stood: gradients add to `.grad`, and the
        optimizer steps afterwards. Every call updates the weights, so accumulating gradients over
        k batches updates them k times.

        losses: (T,), floating point, with a graph.
        present: (T,) bool, the tasks with a label in this batch; the others are left out of the
            sum and of the update. Without it a task is absent if its loss is exactly 0 and, where
            the method looks at gradients, its gradient too.
        scaler: the GradScaler of a float16 loop. The pass runs on the scaled sum, the update on
            unscaled norms; call `scaler.step(optimizer)` as usual.

        A batch with a loss or norm that is not finite leaves the balancer's state as it was.
        TypeError or ValueError for losses or `present` of another type, shape or device.
        """
        self._check(losses, present)
        total = self._total(losses, present)
        if scaler is None:
            self._backward(total, losses.detach(), present, None)
        else:
            # scale(1) is the scale as a tensor: get_scale would wait for the device.
            scale = scaler.scale(torch.ones((), device=losses.device))
            self._backward(scaler.scale(total), losses.detach(), present, scale)
        return total.detach()

    def end_cycle(self) -> None:
        """Call at the end of a training cycle, that is of an epoch unless you choose otherwise."""

    def extra_repr(self) -> str:
        return f"num_tasks={self.num_tasks}"

    def _total(self, losses: Tensor, present: Tensor | None) -> Tensor:
        if present is not None:
            losses = torch.where(present, losses, 0)
        return (self.weights.to(losses.dtype) * losses).sum()

    def _backward(
        self, total: Tensor, losses: Tensor, present: Tensor | None, scale: Tensor | None
    ) -> None:
        """Run `total.backward()` and update the state; `total` is multiplied by `scale`."""
        total.backward()

    def _check(self, losses: Tensor, present: Tensor | None) -> None:
        _checks.need_floating("losses", losses)
        _checks.need_shape("losses", losses, (self.num_tasks,), "(num_tasks,)")
        if losses.device != self.weights.device:
            raise ValueError(
                f"losses: expected the balancer's device, {self.weights.device}, got "
                f"{losses.device}; move the balancer with .to(device)"
            )
        if not losses.requires_grad:
            raise ValueError("losses: expected a tensor with a graph, got one without gradient")
        if present is None:
            return
        _checks.need_tensor("present", present)
        if present.dtype != torch.bool:
            raise TypeError(f"present: expected bool, got {present.dtype}")
        _checks.need_shape("present", present, (self.num_tasks,), "(num_tasks,)")
        _checks.need_device("present", present, "losses", losses)
