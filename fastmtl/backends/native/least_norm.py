"""The weights of least norm, by the native kernel."""

from __future__ import annotations

from torch import Tensor

from fastmtl.backends.native import memory
from fastmtl.backends.reference import least_norm as reference


def least_norm_weights_forward(
    gramian: Tensor,  # (T, T)
    iterations: int,
) -> Tensor:
    # On a GPU the kernel is one block, which a larger problem would keep waiting.
    if len(gramian) > memory.limit(gramian, "least_norm_tasks"):
        return reference.least_norm_weights_forward(gramian, iterations)
    gramian = gramian.contiguous()
    out = gramian.new_empty(len(gramian))
    workspace = memory.workspace("least_norm", gramian, len(gramian))
    memory.module(gramian).least_norm_weights(
        memory.execution(gramian, workspace),
        memory.DTYPES[gramian.dtype],
        memory.address(gramian),
        len(gramian),
        iterations,
        out.data_ptr(),
    )
    return out
