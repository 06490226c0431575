"""Checks of arguments that the ops share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def need_tensor(name: str, value: Any) -> None:
    """Raise unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")


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


def need_number(name: str, value: Any, *, above: float | None = None) -> None:
    """Raise unless `value` is a finite number, >= 0, or > `above` where that is given."""
    if isinstance(value, bool) or not isinstance(value, int | float | torch.SymFloat):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    bound = "> " + str(above) if above is not None else ">= 0"
    good = value > above if above is not None else value >= 0
    if not good or value == float("inf"):
        raise ValueError(f"{name}: expected a finite number {bound}, got {value}")


def need_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {choices}, got {value!r}")
