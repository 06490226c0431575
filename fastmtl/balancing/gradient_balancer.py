"""What the balancers that look at gradients have in common: the place at which they see them."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from torch import distributed
from typing_extensions import Self

from fastmtl.balancing.base import Balancer
from fastmtl.balancing.target import GradientTarget, unwrap

Target = TypeVar("Target", bound=GradientTarget)


class GradientBalancer(Balancer, Generic[Target]):
    """A balancer that sees the gradient of each task at one place in a model, its target."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.num_tasks, target.device)
        self._target = target

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._attach()

    def _attach(self) -> None:
        """Have the target, of which a copy has a copy, do what the balancer needs."""

    def distribute(
        self, group: distributed.ProcessGroup | None = None, *, exact: bool = True
    ) -> Self:
        super().distribute(group, exact=exact)
        self._target.group = self._group if exact else None
        return self

    def _follow(self, model: Any) -> None:
        """Balance over the ranks of a model in DistributedDataParallel."""
        parallel, _ = unwrap(model)
        if parallel is not None:
            self.distribute(parallel.process_group)
