"""Every backend has the functions of the reference, under its names."""

from __future__ import annotations

import inspect
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from pkgutil import iter_modules

import pytest
import torch

import fastmtl
from fastmtl import backends
from fastmtl.backends import native, triton
from fastmtl.backends.native import memory

STEMS = sorted(set(backends.stems().values()))


def test_every_op_is_public_and_has_a_reference() -> None:
    assert sorted(backends.stems()) == sorted(fastmtl.ops.__all__)
    files = {file.name for file in iter_modules(fastmtl.ops.__path__)}
    assert set(STEMS) <= files


@pytest.mark.parametrize("name", ["native", "triton"])
def test_signatures_are_those_of_the_reference(name: str) -> None:
    backend = backends.BACKENDS[name]
    if backend is triton:
        pytest.importorskip("triton")
    files = {file.name for file in iter_modules(backend.__path__)}
    served = [op for op, stem in backends.stems().items() if stem in files]
    assert served
    for op in served:
        ours, law = backends.load(name, op), backends.load("reference", op)
        for function, wanted in ((ours.forward, law.forward), (ours.backward, law.backward)):
            parameters = None if function is None else list(inspect.signature(function).parameters)
            assert parameters == (
                None if wanted is None else list(inspect.signature(wanted).parameters)
            )


def test_a_backend_without_a_kernel_says_so() -> None:
    if triton.why_not("cuda") and triton.why_not("cpu"):
        unavailable = pytest.raises(RuntimeError, match="backend 'triton' is not available: ")
        with unavailable, fastmtl.use_backend("triton"):
            pass
    assert backends._why_not("reference", "task_gru_layer", "cpu") == ""
    with pytest.raises(ValueError, match="backend: expected one of"), fastmtl.use_backend("best"):
        pass


def test_sources_that_hide_installed_kernels_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fastmtl").mkdir()
    built = tmp_path / "fastmtl" / f"_kernels{EXTENSION_SUFFIXES[0]}"
    built.touch()
    assert memory._extension("fastmtl._kernels")[1].startswith("fastmtl._kernels is not built")
    monkeypatch.syspath_prepend(tmp_path)
    here = Path(fastmtl.__file__).parent
    assert memory._extension("fastmtl._kernels") == (
        None,
        f"fastmtl._kernels is not in {here}, which hides {built}",
    )


def test_one_reason_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backends, "_found", {})
    monkeypatch.setattr(native, "why_not", lambda device: "not built")
    for _ in range(2):
        fastmtl.ops.focal_loss(torch.zeros(2, 2), torch.ones(2, 2))
        fastmtl.ops.stacked_norms(torch.ones(2, 2))
    (record,) = caplog.records
    assert record.getMessage().startswith("focal_loss on cpu runs on reference (native: not built")
