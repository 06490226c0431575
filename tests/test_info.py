from __future__ import annotations

import torch
from rich.console import Console

from fastmtl import backends
from fastmtl.backends import native
from fastmtl.info import render, versions


def shown():
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render())
    return capture.get()


def test_every_op_and_its_backend_is_listed():
    text = shown()
    for service in backends.describe():
        assert any(
            {service.op, service.device, service.backend} <= set(line.replace("│", " ").split())
            for line in text.splitlines()
        )


def test_versions_and_devices_are_listed():
    facts = versions()
    assert torch.__version__ in facts["PyTorch"]
    assert facts["CUDA kernels"] == (native.cuda_build() or "not built")
    assert len([name for name in facts if name.startswith("cuda:")]) == torch.cuda.device_count()


def test_a_reason_is_told_once(monkeypatch):
    services = [
        backends.Service("focal_loss", "cpu", "reference", "native: not built"),
        backends.Service("graph_fusion", "cpu", "reference", "native: not built"),
    ]
    monkeypatch.setattr(backends, "describe", lambda: services)
    assert shown().count("native: not built: every op") == 1
    services.append(backends.Service("stacked_norms", "cpu", "native", ""))
    assert "native: not built: focal_loss (cpu), graph_fusion (cpu)" in shown()
