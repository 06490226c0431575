"""The weights of gradients that are changed by one another in turn, by the native kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.backends.native import memory
from fastmtl.backends.reference import gradient_surgery as reference


def pcgrad_weights_forward(
    gramian: Tensor,  # (T, T)
    order: Tensor,  # (T, T)
) -> Tensor:
    if not _takes(gramian):
        return reference.pcgrad_weights_forward(gramian, order)
    products, finite = reference.finite_products(gramian)
    products, order = products.contiguous(), order.contiguous()
    coefficients = torch.empty_like(products)
    memory.module(products).pcgrad_coefficients(
        memory.execution(products),
        memory.address(products),
        memory.address(order),
        len(products),
        coefficients.data_ptr(),
    )
    return reference.weights_of(coefficients, products, finite, gramian)


def gradvac_weights_forward(
    gramian: Tensor,  # (T, T)
    order: Tensor,  # (T, T)
    phihat: Tensor,  # (T, T)
    beta: float,
    rounding: float,
) -> tuple[Tensor, Tensor]:
    if not _takes(gramian):
        return reference.gradvac_weights_forward(gramian, order, phihat, beta, rounding)
    products, finite = reference.finite_products(gramian)
    products, order = products.contiguous(), order.contiguous()
    targets = phihat.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    coefficients = torch.empty_like(products)
    memory.module(products).gradvac_coefficients(
        memory.execution(products),
        memory.address(products),
        memory.address(order),
        len(products),
        coefficients.data_ptr(),
        targets.data_ptr(),
        beta,
        rounding,
    )
    weights = reference.weights_of(coefficients, products, finite, gramian)
    return weights, targets.to(phihat.dtype)


def _takes(gramian: Tensor) -> bool:
    return len(gramian) <= memory.limit(gramian, "gradient_surgery_tasks")
