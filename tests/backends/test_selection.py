"""Which backend serves an op."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
import torch

import fastmtl
from fastmtl import backends
from fastmtl.backends import native
from fastmtl.ops import focal_loss
from tests.conftest import ISAS

pytestmark = pytest.mark.skipif(
    bool(backends.unavailable("native")), reason=f"native: {backends.unavailable('native')}"
)
Y = torch.ones(4, 2)


def serving() -> str:
    """The backend of a focal loss, by what its graph is made of."""
    loss = focal_loss(torch.zeros(4, 2, requires_grad=True), Y)
    assert loss.grad_fn is not None
    return "reference" if "Backward0" in type(loss.grad_fn).__name__ else "fused"


def test_a_backend_is_chosen_for_a_block_and_restored() -> None:
    with fastmtl.use_backend("native"):
        before = serving()
        with fastmtl.use_backend("reference"):
            assert serving() == "reference"
        with suppress(ZeroDivisionError), fastmtl.use_backend("reference"):
            raise ZeroDivisionError
        assert serving() == before == "fused"


def test_a_backend_is_chosen_for_a_thread_alone() -> None:
    found: list[str] = []
    with fastmtl.use_backend("reference"):
        thread = threading.Thread(target=lambda: found.append(serving()))
        thread.start()
        thread.join()
        assert serving() == "reference"
    assert found == [serving()]


def test_backward_runs_on_the_backend_of_its_forward() -> None:
    logits = torch.zeros(4, 2, requires_grad=True)
    with fastmtl.use_backend("native"):
        loss = focal_loss(logits, Y).sum()
    with fastmtl.use_backend("reference"):
        (grad,) = torch.autograd.grad(loss, logits, create_graph=True)
        with pytest.raises(RuntimeError, match="second derivative"):
            grad.sum().backward()


def test_what_is_not_there_raises() -> None:
    with pytest.raises(ValueError, match=r"backend: expected one of .* got 'cuda'"):
        fastmtl.use_backend("cuda").__enter__()
    if reason := backends.unavailable("triton"):
        with pytest.raises(RuntimeError, match=r"'triton' is not available: \w+"):
            fastmtl.use_backend("triton").__enter__()
        assert reason
    assert not backends.unavailable("reference")


def test_every_op_is_served_and_the_reason_is_given() -> None:
    for service in backends.describe():
        assert service.backend in ("native", "triton", "reference")
        assert bool(service.reason) == (service.backend != "native")


def test_instruction_sets() -> None:
    best = native.isa()
    assert best in ISAS
    try:
        for isa in ISAS:
            if native.use_isa(isa):
                assert native.isa() == isa
        assert not native.use_isa("sse")
        assert native.use_isa("plain")
        assert native.isa() == "plain"
    finally:
        native.use_isa(best)
