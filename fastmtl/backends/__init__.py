"""Which backend serves an op.

An op of `fastmtl/ops/STEM.py` is served by the functions OP_forward and, where it has gradients,
OP_backward of `fastmtl/backends/BACKEND/STEM.py`, in the signatures of the reference, whose
directory is the list of ops. A backend without that file does not serve the ops of that stem. Each
backend's package says in `why_not` which types of device it runs on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

import torch

from fastmtl.backends import native, reference, triton

# Best first: "auto" takes the first that serves the device.
BACKENDS = {"native": native, "triton": triton, "reference": reference}

_logger = logging.getLogger("fastmtl")
_forced: ContextVar[str] = ContextVar("fastmtl_backend", default="auto")
_found: dict[tuple[str, str, str], Kernels] = {}


@dataclass(frozen=True)
class Kernels:
    """What a backend has for an op; `backward` is None where the op has no gradients."""

    backend: str
    forward: Callable[..., Any]
    backward: Callable[..., Any] | None


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

    Holds for the current thread or task; a backward pass runs on the backend of its forward pass.

    Args:
        name: "auto" (the best one for each tensor's device), "native" (the C++ and CUDA kernels),
            "triton" (the Triton kernels, on GPUs) or "reference" (plain PyTorch).

    Raises:
        ValueError: for an unknown name.
        RuntimeError: with the reason, for a backend that is not available.

    Examples:
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


def kernels(op: str, device: str) -> Kernels:
    """The kernels that serve `op` for tensors on a type of device; RuntimeError where the backend
    asked for does not."""
    forced = _forced.get()
    found = _found.get((forced, op, device))
    if found is not None:
        return found
    backend = forced
    if forced == "auto":
        service = _choose(op, device)
        if service.reason and not _found:
            _logger.warning("%s on %s runs on %s (%s)", op, device, service.backend, service.reason)
        backend = service.backend
    elif reason := _why_not(forced, op, device):
        raise RuntimeError(f"backend {forced!r} cannot run {op}: {reason}")
    found = _found[forced, op, device] = load(backend, op)
    return found


def load(backend: str, op: str) -> Kernels:
    """The kernels of a backend for an op that it serves somewhere."""
    home = import_module(_home(backend, op))
    return Kernels(backend, getattr(home, f"{op}_forward"), getattr(home, f"{op}_backward", None))


@cache
def stems() -> dict[str, str]:
    """Every op, and the stem that its files have in every backend."""
    found = {}
    for file in iter_modules(reference.__path__):
        for name in vars(import_module(f"{reference.__name__}.{file.name}")):
            if name.endswith("_forward") and not name.startswith("_"):
                found[name.removesuffix("_forward")] = file.name
    return found


def unavailable(backend: str) -> str:
    """Why `backend` serves no device at all; empty if it serves one."""
    reasons = [BACKENDS[backend].why_not(device) for device in ("cpu", "cuda")]
    return "" if "" in reasons else reasons[0]


def describe() -> list[Service]:
    """For every op and every type of device of this machine, the backend that serves it."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [_choose(op, device) for device in devices for op in stems()]


def _choose(op: str, device: str) -> Service:
    reasons = []
    for name in BACKENDS:
        reason = _why_not(name, op, device)
        if name == "triton" and device == "cpu":
            reason = reason or "interpreted, so only where it is asked for"
        if not reason:
            break
        reasons.append(f"{name}: {reason}")
    return Service(op, device, name, "; ".join(reasons))


def _why_not(backend: str, op: str, device: str) -> str:
    """Why `backend` does not serve `op` on `device`; empty if it does."""
    reason = BACKENDS[backend].why_not(device)
    return reason or ("" if find_spec(_home(backend, op)) else f"no {backend} kernel")


def _home(backend: str, op: str) -> str:
    """The module of a backend for an op."""
    return f"{BACKENDS[backend].__name__}.{stems()[op]}"
