"""Quadratic programs over v >= 0, by the native kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.backends.native import memory
from fastmtl.backends.reference import nonnegative_qp as reference


def nonnegative_qp_forward(
    matrix: Tensor,  # (T, T)
    linear: Tensor,  # (B, T)
) -> Tensor:
    if "nonnegative_qp" not in memory.module(linear).kernels:
        return reference.nonnegative_qp_forward(matrix, linear)
    h, q, lengths, finite = reference.scaled(matrix, linear)
    h, q = h.contiguous(), q.contiguous()
    out = torch.empty_like(q)
    memory.module(linear).nonnegative_qp(
        memory.execution(linear),
        memory.address(h),
        memory.address(q),
        len(h),
        len(q),
        out.data_ptr(),
    )
    return torch.where(finite, out * lengths, torch.nan).to(linear.dtype)
