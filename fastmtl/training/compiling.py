"""Models as torch.compile makes them for training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastmtl._toolchain import cxx_compiler


def compiled(model: nn.Module, device: torch.device, accumulate: int) -> Any:
    """The model, compiled when it is first called, with the parameters of `model`.

    Batches of another size make it one graph for all sizes. A model of the user's own may break
    into several; one of this package is one, unless several processes share a step.

    Args:
        model: the model of a run.
        device: where it computes.
        accumulate: the parts of a step.

    Raises:
        ValueError: for steps in parts, each of which would be a use of the shared layer, and where
            there is no C++ compiler for the CPU.
    """
    if accumulate > 1:
        raise ValueError(f"compile: expected only with accumulate 1, got it with {accumulate}")
    if device.type == "cpu" and cxx_compiler() is None:
        raise ValueError(
            "compile: expected a C++ compiler, which torch.compile needs for the CPU, got none "
            "(install g++, or set CXX)"
        )
    return torch.compile(model)
