"""The one backward pass of a step, whoever runs it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class BackwardPass:
    """Call it to run the backward pass of `total`.

    `scale` is None where the gradients are those of `total`. Where `run` multiplies it first, as a
    scaler of float16 does, or divides it by the batches that it accumulates, `scale` is that factor
    from the moment at which the pass reaches `total`: its gradient.
    """

    def __init__(self, total: Tensor, run: Callable[[Tensor], object] | None = None) -> None:
        self.scale: Tensor | None = None
        self._total, self._run = total, run

    def __call__(self) -> None:
        if self._run is None:
            self._total.backward()
            return
        handle = self._total.register_hook(self._reached)
        try:
            self._run(self._total)
        finally:
            handle.remove()
        if self.scale is None:
            raise RuntimeError(
                "backward: expected a callable that runs the backward pass of the scalar it is "
                "given, got one that did not"
            )

    def _reached(self, grad: Tensor) -> None:
        self.scale = grad
