"""What the signatures of a reference pair say of an op; see `fastmtl.backends.reference`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args, get_origin, get_type_hints

from torch import Tensor


@dataclass(frozen=True)
class Law:
    """How the arguments and results of NAME_forward and NAME_backward fit together.

    `flat` arguments have the tensors of a list one by one, as autograd wants them.
    """

    outputs: int  # results that are the op's own
    results: int  # of forward
    kept: int  # results that backward reads, the last ones unless the op says otherwise
    settings: int  # arguments behind the tensors
    gradients: int  # of the first arguments
    without: tuple[None, ...]  # of the arguments behind these
    listed: bool  # the tensors are one list, whose every element has a gradient
    takes_needs: bool
    takes_none: bool  # for the gradients of outputs that nobody differentiates, not zeros

    @staticmethod
    def of(forward: Callable[..., Any], backward: Callable[..., Any] | None, outputs: int) -> Law:
        *arguments, result = get_type_hints(forward).values()
        tensors = [hint for hint in arguments if hint is Tensor or Tensor in get_args(hint)]
        hints = get_type_hints(backward) if backward else {}
        others = outputs + len(arguments) + ("needs" in hints)
        gradients = len(get_args(hints.get("return"))) or 1
        return Law(
            outputs=outputs,
            results=len(get_args(result)) or 1,
            kept=len(hints) - 1 - others if backward else 0,
            settings=len(arguments) - len(tensors),
            gradients=gradients,
            without=(None,) * (len(arguments) - gradients),
            listed=get_origin(tensors[0]) is Sequence,
            takes_needs="needs" in hints,
            takes_none=any(hint is not Tensor for hint in list(hints.values())[:outputs]),
        )

    @cached_property
    def alone(self) -> bool:
        """Whether backward returns one tensor."""
        return self.gradients == 1 and not self.listed

    @cached_property
    def plain(self) -> bool:
        """Whether there are one output, one tensor that is kept, and the gradient of one tensor."""
        one = self.outputs == self.kept == 1 and self.results == 2
        return one and self.alone and not self.takes_none

    @cached_property
    def last(self) -> slice:
        """Of the results, those that backward reads."""
        return slice(self.results - self.kept, None)

    @cached_property
    def tensors(self) -> slice:
        """Of flat arguments, those that are tensors, or None."""
        return slice(0, -self.settings or None)

    def flat(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*arguments[0], *arguments[1:]) if self.listed else arguments

    def nested(self, flat: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.listed:
            return flat
        cut = len(flat) - self.settings
        return list(flat[:cut]), *flat[cut:]

    def save(self, ctx: Any, results: tuple[Tensor, ...], flat: tuple[Any, ...]) -> None:
        """Leave what `differentiate` reads in the context of an autograd function, where backward
        reads all of `results`."""
        ctx.save_for_backward(*results, *flat[self.tensors])
        ctx.settings = flat[len(flat) - self.settings :]

    def differentiate(
        self,
        backward: Callable[..., Any],
        ctx: Any,
        grads: Sequence[Tensor | None],
        before: int,
    ) -> tuple[Tensor | None, ...]:
        """The gradients of the flat arguments, None for those that have none; the function of `ctx`
        has so many arguments before them."""
        saved = ctx.saved_tensors
        if self.alone:
            return backward(*grads, *saved, *ctx.settings), *self.without
        if self.listed:
            saved = (*saved[: self.kept], list(saved[self.kept :]))
        if not self.takes_needs:
            return *backward(*grads, *saved, *ctx.settings), *self.without
        needs = list(ctx.needs_input_grad[before : before + self.gradients])
        every = backward(*grads, *saved, *ctx.settings, needs)
        found = (grad if need else None for grad, need in zip(every, needs, strict=True))
        return *found, *self.without
