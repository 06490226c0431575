"""What parameters the tasks' gradients are measured at, from the point where the tasks part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import nn

# The shared layer itself; all parameters that the tasks share; those of some modules.
Scope = Literal["layer", "trunk"] | tuple[nn.Module, ...]
SCOPES: tuple[str, ...] = ("layer", "trunk")


def need_scope(value: Any, model: nn.Module | None = None) -> Scope:
    """`value` as a scope: one of SCOPES, or a sequence of modules or, where the model is known, of
    their names in it."""
    if isinstance(value, str):
        if value not in SCOPES:
            raise ValueError(
                f'scope: expected "layer", "trunk" or a list of modules, got {value!r}'
                + (f"; for that module alone, [{value!r}]" if model is not None else "")
            )
        return "layer" if value == "layer" else "trunk"
    if isinstance(value, nn.Module) or not isinstance(value, Sequence) or not value:
        raise TypeError(
            f'scope: expected "layer", "trunk" or a list of modules, got {type(value).__name__}'
        )
    modules = tuple(_module(each, model) for each in value)
    for module in modules:
        if not any(True for _ in module.parameters()):
            raise ValueError(
                f"scope: expected modules with parameters, got {type(module).__name__} without"
            )
    return modules


def wanted_by(scope: Scope) -> Callable[[nn.Parameter], bool]:
    """Whether a parameter is in a scope beyond the layer."""
    if isinstance(scope, str):
        return lambda parameter: True
    named = {id(parameter) for module in scope for parameter in module.parameters()}
    return lambda parameter: id(parameter) in named


def _module(value: Any, model: nn.Module | None) -> nn.Module:
    if isinstance(value, nn.Module):
        return value
    if not isinstance(value, str):
        raise TypeError(f"scope: expected modules or their names, got {type(value).__name__}")
    if model is None:
        raise ValueError(f"scope: expected modules, got {value!r} without a model to find it in")
    try:
        return model.get_submodule(value)
    except AttributeError:
        raise ValueError(f"scope: expected a module of the model, got {value!r}") from None
