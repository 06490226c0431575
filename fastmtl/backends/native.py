"""The native backend: the one place where a tensor becomes a pointer."""

from __future__ import annotations

from types import ModuleType

_cpu: ModuleType | None
try:
    from fastmtl import _cpu
except ImportError as error:
    _cpu = None
    _CPU_REASON = f"fastmtl._cpu is not built ({error})"


def why_not(op: str, device: str) -> str:
    """Why this backend does not serve `op` on `device`; empty if it does."""
    if device != "cpu":
        return f"no native kernels for {device}"
    if _cpu is None:
        return _CPU_REASON
    return "" if f"{op}_forward" in globals() else "no native kernel"
