"""Checks that layers and models share: sizes given to a constructor, shapes given to a forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastmtl.ops._checks import need_floating


def need_size(name: str, value: Any, minimum: int = 1) -> int:
    """Return `value` if it is an int of at least `minimum`, else raise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an int, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {value}")
    return value


def need_odd(name: str, value: Any) -> int:
    """Return `value` if it is an odd size, else raise."""
    if need_size(name, value) % 2 == 0:
        raise ValueError(f"{name}: expected an odd number, got {value}")
    return int(value)


def need_probability(name: str, value: float) -> float:
    """Return `value` if it is a dropout probability in [0, 1), else raise."""
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name}: expected a probability in [0, 1), got {value!r}")
    return value


def need_sizes(name: str, value: Any, *shapes: Sequence[str | int]) -> None:
    """Raise unless `value` is a floating-point tensor of one of `shapes`.

    A shape names the sizes that are free and gives the others: `("B", "L", 2048)`. The entry "..."
    stands for any number of sizes.
    """
    need_floating(name, value)
    if not any(_matches(value, shape) for shape in shapes):
        expected = " or ".join(map(_written, shapes))
        raise ValueError(f"{name}: expected a {expected} tensor, got shape {tuple(value.shape)}")


def _written(shape: Sequence[str | int]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _matches(value: Tensor, shape: Sequence[str | int]) -> bool:
    sizes = tuple(value.shape)
    if "..." in shape:
        free = shape.index("...")
        rest = len(shape) - free - 1
        if len(sizes) < free + rest:
            return False
        shape = (*shape[:free], *shape[free + 1 :])
        sizes = sizes[:free] + sizes[len(sizes) - rest :]
    return len(sizes) == len(shape) and all(
        isinstance(want, str) or want == size for want, size in zip(shape, sizes, strict=True)
    )
