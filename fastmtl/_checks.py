"""Checks of arguments that every part of the package shares.

Each raises TypeError or ValueError that names the argument, what was expected and what came.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def need_int(name: str, value: Any) -> int:
    """Return `value` if it is an int, else raise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an int, got {value!r}")
    return value


def need_size(name: str, value: Any, minimum: int = 1) -> int:
    """Return `value` if it is an int of at least `minimum`, else raise."""
    size = need_int(name, value)
    if size < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {value}")
    return size


def need_odd(name: str, value: Any) -> int:
    """Return `value` if it is an odd size, else raise."""
    size = need_size(name, value)
    if size % 2 == 0:
        raise ValueError(f"{name}: expected an odd number, got {value}")
    return size


def need_number(name: str, value: Any, *, above: float | None = None) -> None:
    """Raise unless `value` is a finite number, >= 0, or > `above` where that is given."""
    # Most are floats; of a small op, the other question takes a fiftieth of the time.
    if type(value) is not float and (
        isinstance(value, bool) or not isinstance(value, int | float | torch.SymFloat)
    ):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    bound = "> " + str(above) if above is not None else ">= 0"
    good = value > above if above is not None else value >= 0
    if not good or value == float("inf"):
        raise ValueError(f"{name}: expected a finite number {bound}, got {value}")


def need_probability(name: str, value: Any) -> float:
    """Return `value` if it is a dropout probability in [0, 1), else raise."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name}: expected a probability in [0, 1), got {value!r}")
    return value


def need_flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False, else raise."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return value


def need_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        expected = f"expected one of {', '.join(choices)}"
        raise ValueError(f"{name}: {expected}, got {value!r}{did_you_mean(value, choices)}")


def did_you_mean(value: Any, choices: Iterable[str]) -> str:
    """What to put behind a name that is none of `choices`: the one it looks like, if any does."""
    near = get_close_matches(value, list(choices), n=1) if isinstance(value, str) else []
    return f" (did you mean {near[0]!r}?)" if near else ""


def need_tensor(name: str, value: Any) -> None:
    """Raise unless `value` is a dense tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    if value.layout is not torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got one of layout {value.layout}")


def need_floating(name: str, value: Any) -> None:
    """Raise unless `value` is a tensor of a dtype the kernels compute in."""
    need_tensor(name, value)
    if value.dtype not in DTYPES:
        expected = "float32, float64, bfloat16 or float16"
        raise TypeError(f"{name}: expected {expected}, got {value.dtype}")


def need_shape(name: str, value: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    """Raise unless `value` has `shape`, described by `meaning`."""
    if value.shape != shape:
        raise ValueError(f"{name}: expected {meaning} = {shape}, got shape {tuple(value.shape)}")


def need_sizes(name: str, value: Any, *shapes: Sequence[str | int]) -> None:
    """Raise unless `value` is a floating-point tensor of one of `shapes`.

    A shape names the sizes that are free and gives the others: `("B", "L", 2048)`. The entry "..."
    stands for any number of sizes.
    """
    need_floating(name, value)
    if not any(_matches(value, shape) for shape in shapes):
        expected = " or ".join(map(_written, shapes))
        raise ValueError(f"{name}: expected a {expected} tensor, got shape {tuple(value.shape)}")


def need_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless both tensors are on the same device."""
    if value.device != other.device:
        raise ValueError(
            f"{name}: expected the device of {other_name}, {other.device}, got {value.device}"
        )


def need_dtype(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless both tensors have the same dtype."""
    if value.dtype != other.dtype:
        raise TypeError(
            f"{name}: expected the dtype of {other_name}, {other.dtype}, got {value.dtype}"
        )


def need_constant(name: str, value: Tensor | None) -> None:
    """Raise if a gradient is asked for with respect to an argument that has none."""
    if value is not None and value.requires_grad:
        raise ValueError(f"{name}: has no gradient, got a tensor that requires one; detach it")


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
