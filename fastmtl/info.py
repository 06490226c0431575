"""What is installed here, and which backend serves each op."""

from __future__ import annotations

import platform

import torch
from rich.console import Group, RenderableType
from rich.table import Table

import fastmtl
from fastmtl import backends
from fastmtl.backends import native


def versions() -> dict[str, str]:
    """Versions and devices of this machine, by what they are called.

    Examples:
        >>> list(versions())[:3]
        ['fastmtl', 'Python', 'PyTorch']
    """
    cuda = torch.version.cuda
    facts = {
        "fastmtl": fastmtl.__version__,
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "PyTorch": f"{torch.__version__} ({f'CUDA {cuda}' if cuda else 'built without CUDA'})",
        "CPU": (
            f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, "
            f"{native.isa() or 'no'} kernels"
        ),
        "CUDA kernels": native.cuda_build() or "not built",
    }
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        memory = device.total_memory / 2**30
        facts[f"cuda:{index}"] = (
            f"{device.name}, {memory:.0f} GiB, compute capability {device.major}.{device.minor}"
        )
    return facts


def facts() -> Table:
    """`versions`, as a table."""
    table = Table.grid(padding=(0, 2))
    for name, value in versions().items():
        table.add_row(name, value)
    return table


def render() -> RenderableType:
    """`versions`, and a table of the backend of each op on each type of device."""
    services = backends.describe()
    table = Table(title="Backends", title_justify="left")
    for column in ("op", "device", "backend"):
        table.add_column(column)
    for service in services:
        table.add_row(service.op, service.device, service.backend)
    # One reason usually holds for many ops: each is told once.
    reasons: dict[str, list[str]] = {}
    for service in services:
        if service.reason:
            reasons.setdefault(service.reason, []).append(f"{service.op} ({service.device})")
    notes = [
        f"{reason}: {'every op' if len(ops) == len(services) else ', '.join(ops)}"
        for reason, ops in reasons.items()
    ]
    return Group(facts(), "", table, *notes)
