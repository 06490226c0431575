"""Task weights that let all losses fall at one rate, from the losses alone."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl._checks import need_number
from fastmtl.balancing.base import Balancer, over_ranks
from fastmtl.balancing.running import RunningMeans

# Adam's, as in the authors' code.
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class FAMO(Balancer):
    """Fast adaptive multitask optimization (Liu et al. 2023, algorithm 1): descends along the
    direction in which the slowest of the log losses falls fastest, known from how they fell.

        z = softmax(xi),    w_j = T (z_j / L_j) / sum_k (z_k / L_k)
        xi <- xi - lr (J^T delta + decay xi),    J = dz/dxi,
        delta_j = log L_j(theta_t) - log L_j(theta_t+1)

    T times the paper's weights, so that they sum to T. As in the authors' code, the step of xi is
    Adam's, with `decay` as its weight decay. A task absent from a batch keeps its weight, and has
    no part in the sums.

    L_j is the mean of the task's loss over the last steps, about 1 / (1 - momentum) of them. The
    algorithm is about losses that are expectations; that of a rare label on one batch, which mostly
    holds no positive of it, is close to 0, and 1 / L_j would give it the weight of all others.
    `momentum=0` takes each batch's as it stands.

    delta compares the losses before and after the step of the model. By default those with the next
    batch stand in for the second, at no cost. For the algorithm to the letter, which costs a second
    forward pass, call `update(losses)` after `optimizer.step()`, with the losses of the same batch
    anew: delta is then that batch's.

    Losses must not be negative.

    Args:
        num_tasks: T.
        lr: the step size of xi.
        momentum: in [0, 1).
        decay: gamma in the paper; draws the weights of log losses back to equal.
        floor: losses are not taken below it.

    Raises:
        TypeError or ValueError: for a `num_tasks` that is no int of at least 1, or numbers out of
            range.

    Examples:
        >>> balancer = FAMO(num_tasks=2)
        >>> for fast in (1.0, 0.5):
        ...     _ = balancer.backward(torch.tensor([fast, 1.0], requires_grad=True))
        >>> balancer.logits  # the second fell more slowly
        tensor([-0.0250,  0.0250])
    """

    logits: Tensor
    first_moment: Tensor
    second_moment: Tensor
    steps: Tensor
    last_logs: Tensor
    pending: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        lr: float = 0.025,
        momentum: float = 0.99,
        decay: float = 1e-3,
        floor: float = 1e-8,
    ) -> None:
        super().__init__(num_tasks)
        need_number("lr", lr, above=0.0)
        need_number("decay", decay)
        need_number("floor", floor, above=0.0)
        self.lr = lr
        self.decay = decay
        self.floor = floor
        for name in ("logits", "first_moment", "second_moment", "steps", "last_logs"):
            self.register_buffer(name, torch.zeros(num_tasks))
        self.running = RunningMeans(self.weights, momentum)
        # The tasks whose last loss waits to be compared with the next.
        self.register_buffer("pending", torch.zeros(num_tasks, dtype=torch.bool))

    def extra_repr(self) -> str:
        return f"num_tasks={self.num_tasks}, lr={self.lr}, decay={self.decay}"

    @torch.no_grad()
    def update(self, losses: Tensor, *, counts: Tensor | None = None) -> None:
        """Compare the losses of the same batch after the model's step with those before it.

        Args:
            losses: (T,).
            counts: (T,), those of `backward`, for several ranks.

        Raises:
            TypeError or ValueError: for losses or `counts` of another type, shape or device.
        """
        self._check_vectors(losses, None, counts)
        self._join_ranks()
        if counts is not None:
            losses = torch.where(counts > 0, losses, 0)
        if self._group is not None:
            _, losses, _ = over_ranks(losses.detach(), None, counts, self._group)
        self._descend(self.last_logs - self._logs(losses), self.pending)
        self.pending.zero_()

    def _prepare(self, values: Tensor, present: Tensor | None) -> None:
        if present is None:
            present = values != 0
        finite = values.isfinite().all()
        present = present & finite
        before = self._logs(self.running.means)
        self.running.add(values.to(self.weights.dtype), present)
        means = self._logs(self.running.means)
        self._descend(before - means, self.pending & present)
        # z_j / L_j in logarithms; the present tasks share what the others leave of T.
        shares = torch.where(present, torch.log_softmax(self.logits, 0) - means, -torch.inf)
        room = self.num_tasks - torch.where(present, 0, self.weights).sum()
        self.weights.copy_(torch.where(present, room * torch.softmax(shares, 0), self.weights))
        self.last_logs.copy_(torch.where(present, self._logs(values), self.last_logs))
        self.pending.copy_(torch.where(finite, present, self.pending))

    def _logs(self, values: Tensor) -> Tensor:
        return values.to(self.weights.dtype).clamp(min=self.floor).log()

    def _descend(self, delta: Tensor, compared: Tensor) -> None:
        """One step of Adam on xi, from the tasks (T,) that are `compared`."""
        delta = torch.where(compared, delta, 0)
        z = torch.softmax(self.logits, 0)
        grad = z * (delta - (z * delta).sum()) + self.decay * self.logits
        counted = compared.any() & grad.isfinite().all()
        steps = self.steps + 1
        first = _BETA1 * self.first_moment + (1 - _BETA1) * grad
        second = _BETA2 * self.second_moment + (1 - _BETA2) * grad.square()
        scale = (second / (1 - _BETA2**steps)).sqrt() + _EPSILON
        logits = self.logits - self.lr * first / (1 - _BETA1**steps) / scale
        for buffer, value in (
            (self.logits, logits),
            (self.first_moment, first),
            (self.second_moment, second),
            (self.steps, steps),
        ):
            buffer.copy_(torch.where(counted, value, buffer))
