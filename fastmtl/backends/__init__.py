"""Which backend serves an op.

A backend is a module with `<op>_forward` and `<op>_backward` for the ops it implements, in the
signatures of `fastmtl.backends.reference`. `OPS` and `BACKENDS` are the only lists of either.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType

import torch

from fastmtl.backends import native, reference, triton

OPS = (
    "focal_loss",
    "grouped_focal_loss",
    "task_grad_norms",
    "task_grad_gramian",
    "stacked_norms",
    "least_norm_weights",
    "fusion_edge_weights",
    "graph_fusion",
    "task_gru_layer",
)
# Best first: "auto" takes the first that serves the device.
BACKENDS: dict[str, ModuleType] = {"native": native, "triton": triton, "reference": reference}

_logger = logging.getLogger("fastmtl")
_forced: ContextVar[str] = ContextVar("fastmtl_backend", default="auto")
_automatic: dict[tuple[str, str], ModuleType] = {}


@dataclass(frozen=True)
class Service:
    """Which backend serves an op on a type of device, and why a better one does not."""

    op: str
    device: str
    backend: str
    reason: str


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the ops inside the `with` block on one backend.

    `name` is "auto" (the best one for each tensor's device), "native" (the C++ and CUDA kernels),
    "triton" (the Triton kernels, on GPUs) or "reference" (plain PyTorch). Holds for the current
    thread or task; a backward pass runs on the backend of its forward pass. Raises ValueError for
    an unknown name and RuntimeError, with the reason, for a backend that is not available.

    Example:
        >>> import torch, fastmtl
        >>> with fastmtl.use_backend("reference"):
        ...     loss = fastmtl.ops.focal_loss(torch.zeros(4, 2), torch.ones(4, 2))
        >>> loss
        tensor([0.1733, 0.1733])
    """
    if name != "auto":
        if name not in BACKENDS:
            raise ValueError(f"backend: expected one of {['auto', *BACKENDS]}, got {name!r}")
        reason = unavailable(name)
        if reason:
            raise RuntimeError(f"backend {name!r} is not available: {reason}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def kernels(op: str, device: torch.device) -> ModuleType:
    """The backend that serves `op` for tensors on `device`."""
    forced = _forced.get()
    if forced == "auto":
        key = (op, device.type)
        found = _automatic.get(key)
        if found is None:
            found = _automatic[key] = BACKENDS[_choose(op, device.type, log=True).backend]
        return found
    reason = _why_not(forced, op, device.type)
    if reason:
        raise RuntimeError(f"backend {forced!r} cannot run {op}: {reason}")
    return BACKENDS[forced]


def unavailable(backend: str) -> str:
    """Why `backend` serves no device at all; empty if it serves one."""
    reasons = [_why_not(backend, op, device) for op in OPS for device in ("cpu", "cuda")]
    return "" if "" in reasons else reasons[0]


def describe() -> list[Service]:
    """For every op and every type of device of this machine, the backend that serves it."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [_choose(op, device) for device in devices for op in OPS]


def _choose(op: str, device: str, log: bool = False) -> Service:
    reasons = []
    for name in BACKENDS:
        reason = _why_not(name, op, device)
        if name == "triton" and device == "cpu":
            reason = reason or "interpreted, so only where it is asked for"
        if not reason:
            break
        reasons.append(f"{name}: {reason}")
    service = Service(op, device, name, "; ".join(reasons))
    if log and service.reason and not _automatic:
        _logger.warning("%s on %s runs on %s (%s)", op, device, name, service.reason)
    return service


def _why_not(backend: str, op: str, device: str) -> str:
    module = BACKENDS[backend]
    if module is reference:
        return ""
    return str(module.why_not(op, device))
