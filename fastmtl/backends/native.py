"""The native backend: the one place where a tensor becomes a pointer.

The functions have the signatures of `fastmtl.backends.reference`, and their arguments were checked
by `fastmtl.ops`. What is left to see to here is memory: dtypes that the kernels read, contiguity
where they want it, buffers for the results, and that every tensor outlives the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from fastmtl.backends import gram
from fastmtl.backends.reference import (
    accumulation_dtype,
    task_grad_gramian_backward,
    task_grad_norms_backward,
)

__all__ = ["task_grad_gramian_backward", "task_grad_norms_backward"]

_cpu: ModuleType | None = None
_CPU_REASON = ""
try:
    _cpu = import_module("fastmtl._cpu")
except ImportError as error:
    _CPU_REASON = f"fastmtl._cpu is not built ({error})"

# The numbers of csrc/kernels.h.
_DTYPES = {
    torch.float32: 0,
    torch.float64: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
    torch.uint8: 4,
    torch.bool: 4,
    torch.int64: 5,
}
_REDUCTIONS = {"task": 0, "sum": 1, "mean": 2, "none": 3}
_ABSENT = (0, 0, 0, 0)


def why_not(op: str, device: str) -> str:
    """Why this backend does not serve `op` on `device`; empty if it does."""
    if device != "cpu":
        return f"no native kernels for {device}"
    if _cpu is None:
        return _CPU_REASON
    return "" if f"{op}_forward" in globals() else "no native kernel"


def isa() -> str:
    """The instruction set that the CPU kernels use here; empty where they are not built."""
    return "" if _cpu is None else str(_cpu.isa())


def use_isa(name: str) -> bool:
    """Run the CPU kernels of "plain", "avx2" or "avx512"; False where the processor has it not."""
    return _cpu is not None and bool(_cpu.use_isa(name))


def focal_loss_forward(
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    mask: Tensor | None,  # (N, T)
    pos_weight: Tensor | None,  # (T,)
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    rows, tasks = logits.shape
    dtype = accumulation_dtype(logits.dtype)
    targets = _readable(targets)
    weight = _as_vector(pos_weight, dtype)
    loss = logits.new_empty(_loss_shape(reduction, rows, tasks), dtype=dtype)
    scale = logits.new_empty(tasks, dtype=dtype)
    _module().focal_loss_forward(
        _matrix(logits),
        _matrix(targets),
        _ABSENT if mask is None else _matrix(mask),
        _address(weight),
        rows,
        tasks,
        gamma,
        _REDUCTIONS[reduction],
        torch.get_num_threads(),
        loss.data_ptr(),
        scale.data_ptr(),
    )
    return loss, scale


def focal_loss_backward(
    grad_loss: Tensor,  # (T,), () or (N, T), as the reduction
    scale: Tensor,  # (T,)
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    mask: Tensor | None,  # (N, T)
    pos_weight: Tensor | None,  # (T,)
    gamma: float,
    reduction: str,
) -> Tensor:
    rows, tasks = logits.shape
    targets = _readable(targets)
    weight = _as_vector(pos_weight, scale.dtype)
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    _module().focal_loss_backward(
        _matrix(logits),
        _matrix(targets),
        _ABSENT if mask is None else _matrix(mask),
        _address(weight),
        rows,
        tasks,
        gamma,
        _REDUCTIONS[reduction],
        torch.get_num_threads(),
        _broadcast(grad_loss),
        scale.data_ptr(),
        grad_logits.data_ptr(),
    )
    return grad_logits


def grouped_focal_loss_forward(
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    group_sizes: Sequence[int],
    class_weight: Tensor | None,  # (sum C,)
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    rows, groups = targets.shape
    dtype = accumulation_dtype(logits.dtype)
    weight = _as_vector(class_weight, dtype)
    loss = logits.new_empty(_loss_shape(reduction, rows, groups), dtype=dtype)
    scale = logits.new_empty(groups, dtype=dtype)
    _module().grouped_focal_loss_forward(
        _matrix(logits),
        _matrix(targets),
        group_sizes,
        _address(weight),
        rows,
        gamma,
        _REDUCTIONS[reduction],
        torch.get_num_threads(),
        loss.data_ptr(),
        scale.data_ptr(),
    )
    return loss, scale


def grouped_focal_loss_backward(
    grad_loss: Tensor,  # (G,), () or (N, G), as the reduction
    scale: Tensor,  # (G,)
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    group_sizes: Sequence[int],
    class_weight: Tensor | None,  # (sum C,)
    gamma: float,
    reduction: str,
) -> Tensor:
    weight = _as_vector(class_weight, scale.dtype)
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    _module().grouped_focal_loss_backward(
        _matrix(logits),
        _matrix(targets),
        group_sizes,
        _address(weight),
        logits.shape[0],
        gamma,
        _REDUCTIONS[reduction],
        torch.get_num_threads(),
        _broadcast(grad_loss),
        scale.data_ptr(),
        grad_logits.data_ptr(),
    )
    return grad_logits


def task_grad_norms_forward(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    return gram.norms(inputs, grad_outputs, _row_dots, _gram_squares)


def task_grad_gramian_forward(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    return gram.gramian(inputs, grad_outputs)


def stacked_norms_forward(
    stacked: Sequence[Tensor],  # each (T, ...)
) -> Tensor:
    first = stacked[0]
    squares = first.new_zeros(first.shape[0], dtype=accumulation_dtype(first.dtype))
    for part in stacked:
        rows = part.reshape(part.shape[0], -1).contiguous() if part.numel() else None
        if rows is not None:
            _row_dots(rows, rows, squares, True)
    return squares.sqrt_()


def stacked_norms_backward(
    grad: Tensor,  # (T,)
    norms: Tensor,  # (T,)
    stacked: Sequence[Tensor],  # each (T, ...)
) -> list[Tensor]:
    factor = torch.where(norms > 0, grad / norms, 0)
    grads = []
    for part in stacked:
        result = torch.empty_like(part, memory_format=torch.contiguous_format)
        if part.numel():
            rows = part.reshape(part.shape[0], -1).contiguous()
            _module().scale_rows(
                _matrix(rows),
                factor.data_ptr(),
                *rows.shape,
                result.data_ptr(),
                torch.get_num_threads(),
            )
        grads.append(result)
    return grads


def fusion_edge_weights_forward(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    theta: float,
) -> tuple[Tensor, Tensor]:
    vertices, importance = vertices.contiguous(), importance.contiguous()
    weights, stats = _fusion_results(vertices, edges)
    _module().graph_fusion_forward(
        *_graph(vertices, importance, edges, None, theta),
        weights.data_ptr(),
        0,
        stats.data_ptr(),
    )
    return weights, stats


def graph_fusion_forward(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    edge_vertices: Tensor,  # (B, E, D')
    theta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    vertices, importance = vertices.contiguous(), importance.contiguous()
    edge_vertices = edge_vertices.contiguous()
    weights, stats = _fusion_results(vertices, edges)
    fused = edge_vertices.new_empty(edge_vertices.shape[0], edge_vertices.shape[2])
    _module().graph_fusion_forward(
        *_graph(vertices, importance, edges, edge_vertices, theta),
        weights.data_ptr(),
        fused.data_ptr(),
        stats.data_ptr(),
    )
    return fused, weights, stats


def fusion_edge_weights_backward(
    grad_weights: Tensor,  # (B, E)
    stats: Tensor,  # (B, E + 2P)
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    theta: float,
) -> tuple[Tensor, Tensor]:
    vertices, importance = vertices.contiguous(), importance.contiguous()
    grad_weights = grad_weights.contiguous()
    grad_vertices, grad_importance = torch.empty_like(vertices), torch.empty_like(importance)
    _module().graph_fusion_backward(
        *_graph(vertices, importance, edges, None, theta),
        stats.data_ptr(),
        grad_weights.data_ptr(),
        0,
        grad_vertices.data_ptr(),
        grad_importance.data_ptr(),
        0,
    )
    return grad_vertices, grad_importance


def graph_fusion_backward(
    grad_fused: Tensor,  # (B, D')
    grad_weights: Tensor | None,  # (B, E)
    stats: Tensor,  # (B, E + 2P)
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    edge_vertices: Tensor,  # (B, E, D')
    theta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    vertices, importance = vertices.contiguous(), importance.contiguous()
    edge_vertices, grad_fused = edge_vertices.contiguous(), grad_fused.contiguous()
    grad_weights = None if grad_weights is None else grad_weights.contiguous()
    grad_vertices, grad_importance = torch.empty_like(vertices), torch.empty_like(importance)
    grad_edge_vertices = torch.empty_like(edge_vertices)
    _module().graph_fusion_backward(
        *_graph(vertices, importance, edges, edge_vertices, theta),
        stats.data_ptr(),
        _address(grad_weights),
        grad_fused.data_ptr(),
        grad_vertices.data_ptr(),
        grad_importance.data_ptr(),
        grad_edge_vertices.data_ptr(),
    )
    return grad_vertices, grad_importance, grad_edge_vertices


def _module() -> ModuleType:
    assert _cpu is not None, "selected only where it is built"
    return _cpu


def _matrix(tensor: Tensor) -> tuple[int, ...]:
    """Data, dtype and strides of a 2-D tensor."""
    return (tensor.data_ptr(), _DTYPES[tensor.dtype], *tensor.stride())


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _readable(targets: Tensor) -> Tensor:
    """Targets of a dtype that the kernels read; integers of other widths are widened."""
    return targets if targets.dtype in _DTYPES else targets.to(torch.int64)


def _as_vector(weight: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if weight is None else weight.to(dtype).contiguous()


def _loss_shape(reduction: str, rows: int, tasks: int) -> tuple[int, ...]:
    if reduction == "task":
        return (tasks,)
    return (rows, tasks) if reduction == "none" else ()


def _broadcast(grad: Tensor) -> tuple[int, ...]:
    """The gradient of a reduced loss as a matrix over the elements, with strides of 0."""
    strides = grad.stride()
    return (grad.data_ptr(), _DTYPES[grad.dtype], *(0,) * (2 - len(strides)), *strides)


def _row_dots(a: Tensor, b: Tensor, out: Tensor, accumulate: bool) -> None:
    _module().row_dots(
        _matrix(a), _matrix(b), *a.shape, accumulate, out.data_ptr(), torch.get_num_threads()
    )


def _gram_squares(grads: Tensor, half_kernel: Tensor, out: Tensor) -> None:
    _module().gram_squares(
        _DTYPES[grads.dtype],
        grads.data_ptr(),
        half_kernel.data_ptr(),
        0 if half_kernel.dim() == 2 else half_kernel.stride(0),
        *grads.shape,
        out.data_ptr(),
        torch.get_num_threads(),
    )


def _fusion_results(vertices: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    batch, count, _ = vertices.shape
    weights = vertices.new_empty(batch, edges.shape[0])
    columns = edges.shape[0] + 2 * count
    return weights, vertices.new_empty(batch, columns, dtype=accumulation_dtype(vertices.dtype))


def _graph(
    vertices: Tensor, importance: Tensor, edges: Tensor, edge_vertices: Tensor | None, theta: float
) -> tuple[int | float, ...]:
    return (
        _DTYPES[vertices.dtype],
        vertices.data_ptr(),
        importance.data_ptr(),
        edges.data_ptr(),
        _address(edge_vertices),
        *vertices.shape,
        edges.shape[0],
        0 if edge_vertices is None else edge_vertices.shape[2],
        theta,
        torch.get_num_threads(),
    )
