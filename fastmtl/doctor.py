"""What is missing or slow in an installation, why, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

import fastmtl
from fastmtl import info
from fastmtl._toolchain import cxx_compiler
from fastmtl.backends import native, triton

GOOD, NOTE, WRONG = "ok", "note", "wrong"
_STYLES = {GOOD: "green", NOTE: "yellow", WRONG: "bold red"}
_DRIVERS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_REINSTALL = "pip install --force-reinstall --no-deps --verbose . in a checkout"
# The extras that are for users: what they bring, and what for.
EXTRAS = {
    "datasets": (("datasets",), "data sets that Hugging Face `datasets` saved"),
    "onnx": (("onnxscript", "onnxruntime"), "export to .onnx"),
    "media": (("av", "pillow", "transformers"), "features out of video, sound and text"),
    "parquet": (("pyarrow",), "tables in Parquet files"),
    "sklearn": (("scikit-learn",), "the estimators in pipelines and searches"),
    "statistics": (("scipy",), "p-values in tables of `reproduce`"),
    "tensorboard": (("tensorboard",), "`train --log tensorboard`"),
    "tune": (("optuna",), "`tune`"),
}


@dataclass(frozen=True)
class Finding:
    """What was found of one part: `state` is "ok", "note" (works, could be better) or "wrong"."""

    name: str
    state: str
    text: str
    advice: str = ""


def examine() -> list[Finding]:
    """Look at every part of the installation.

    Examples:
        >>> [finding.name for finding in examine()][:3]
        ['CPU kernels', 'GPU', 'threads']
    """
    return [*(check() for check in _CHECKS), *(_extra(name) for name in EXTRAS)]


def healthy(findings: list[Finding]) -> bool:
    """Whether nothing is wrong."""
    return all(finding.state != WRONG for finding in findings)


def as_dict(findings: list[Finding]) -> dict[str, Any]:
    """Versions and findings as a dictionary that json can write."""
    listed = [asdict(finding) for finding in findings]
    return {"healthy": healthy(findings), "versions": info.versions(), "findings": listed}


def render(findings: list[Finding]) -> RenderableType:
    """Versions and findings, each with its advice below it."""
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        state = Text(finding.state, style=_STYLES[finding.state])
        table.add_row(state, finding.name, Text(finding.text))
        if finding.advice:
            table.add_row("", "", Text(f"-> {finding.advice}"))
    wrong = sum(finding.state == WRONG for finding in findings)
    return Group(info.facts(), "", table, "", f"{wrong or 'nothing'} wrong")


def cores() -> int:
    """The processor cores that this process may use, by its affinity and its container's quota."""
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if _QUOTA.is_file():
        time, _, period = _QUOTA.read_text().partition(" ")
        if time.isdecimal() and int(period):
            return max(1, min(most or 1, round(int(time) / int(period))))
    return most or 1


def _cpu_kernels() -> Finding:
    part = "CPU kernels"
    if reason := native.why_not("cpu"):
        text = f"{reason}; plain PyTorch serves, up to 20 times slower"
        advice = f"{_REINSTALL} shows what failed"
        if native.hidden():
            advice = "start Python in another directory, or pip install -e . in the checkout"
        elif not cxx_compiler():
            text, advice = (
                f"{text}; no C++ compiler found",
                f"install g++ and reinstall: {_REINSTALL}",
            )
        return Finding(part, WRONG, text, advice)
    if not _agree():
        text = f"the {native.isa()} kernels and plain PyTorch disagree on a focal loss"
        return Finding(part, WRONG, text, f"{_REINSTALL}, and please report it")
    if native.isa() == "plain":
        return Finding(part, NOTE, "built, without this processor's vector instructions")
    return Finding(part, GOOD, f"{native.isa()}, agreeing with plain PyTorch")


def _agree() -> bool:
    """Whether the native kernels compute here what the reference does."""
    logits = torch.linspace(-4, 4, 64).reshape(16, 4)
    with fastmtl.use_backend("native"):
        found = fastmtl.ops.focal_loss(logits, (logits > 1).float())
    with fastmtl.use_backend("reference"):
        expected = fastmtl.ops.focal_loss(logits, (logits > 1).float())
    return torch.allclose(found, expected, rtol=1e-4)


def _gpu() -> Finding:
    part, built = "GPU", torch.version.cuda
    if torch.cuda.is_available():
        return _kernels_on_gpu()
    if not any(Path(driver).exists() for driver in _DRIVERS):
        if not built:
            return Finding(part, GOOD, "none, and a PyTorch built without CUDA")
        text = f"none, but PyTorch brings CUDA {built}: gigabytes, and a slower start"
        advice = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
        return Finding(part, NOTE, text, advice)
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Finding(part, NOTE, "hidden by CUDA_VISIBLE_DEVICES")
    if not built:
        text = "an NVIDIA driver is there, PyTorch is built without CUDA"
        return Finding(part, WRONG, text, "install a CUDA build of torch (https://pytorch.org)")
    text = f"an NVIDIA driver is there, PyTorch with CUDA {built} sees no device"
    return Finding(part, WRONG, text, f"nvidia-smi tells whether the driver serves CUDA {built}")


def _kernels_on_gpu() -> Finding:
    name, reason = torch.cuda.get_device_name(), native.why_not("cuda")
    if not reason:
        return Finding("GPU", GOOD, f"{name}, CUDA kernels")
    advice = f"with nvcc: FASTMTL_CUDA=on {_REINSTALL}"
    if native.cuda_build():
        advice = f"a newer NVIDIA driver; or, for this GPU, {advice}"
    if missing := triton.why_not("cuda"):
        text = f"{name}, served by plain PyTorch: {reason}; {missing}"
        return Finding("GPU", WRONG, text, advice)
    return Finding("GPU", NOTE, f"{name}, Triton kernels ({reason})", advice)


def _threads() -> Finding:
    threads, most = torch.get_num_threads(), cores()
    text = f"{threads} on {most} cores"
    if threads > most:
        text += ": they wait for one another, which can be ten times slower"
        return Finding("threads", WRONG, text, f"OMP_NUM_THREADS={most}, or --threads {most}")
    if threads == 1 < most:
        advice = f"OMP_NUM_THREADS={most}, unless other processes have the rest"
        return Finding("threads", NOTE, text, advice)
    return Finding("threads", GOOD, text)


def _load() -> Finding:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    passive = os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"
    text = f"{load:.1f} processes on {os.cpu_count()} cores in the last minute"
    if load <= (os.cpu_count() or 1) + 0.5 or passive or torch.get_num_threads() == 1:
        return Finding("load", GOOD, text)
    advice = (
        "for programs of your own OMP_WAIT_POLICY=passive or OMP_NUM_THREADS=1: OpenMP threads "
        "that spin hold up others (those of this command line do not)"
    )
    return Finding("load", NOTE, text, advice)


def _torch_compile() -> Finding:
    if compiler := cxx_compiler():
        return Finding("torch.compile", GOOD, f"compiles for the CPU with {compiler}")
    text = "no C++ compiler found, which its default backend needs on the CPU"
    return Finding("torch.compile", NOTE, text, "install g++")


def _extra(name: str) -> Finding:
    packages, purpose = EXTRAS[name]
    found = {package: _version(package) for package in packages}
    if missing := [package for package, is_there in found.items() if not is_there]:
        text = f"no {' and no '.join(missing)}: {purpose}"
        return Finding(name, NOTE, text, f'pip install "fastmtl-torch[{name}]"')
    return Finding(name, GOOD, ", ".join(f"{package} {found[package]}" for package in packages))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


_CHECKS: tuple[Callable[[], Finding], ...] = (_cpu_kernels, _gpu, _threads, _load, _torch_compile)
