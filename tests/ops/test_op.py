"""What FusedOp makes of a reference pair, on small pairs of the test's own."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastmtl import backends
from fastmtl.backends import Kernels
from fastmtl.ops._op import FusedOp


def scaled_sum(parts: Sequence[Tensor], factor: float) -> Tensor:
    return factor * sum(part.sum() for part in parts)


def scaled_sum_forward(parts: Sequence[Tensor], factor: float) -> Tensor:
    return scaled_sum(parts, factor)


def scaled_sum_backward(
    grad: Tensor, total: Tensor, parts: Sequence[Tensor], factor: float
) -> list[Tensor]:
    return [torch.full_like(part, float(grad) * factor) for part in parts]


def split_power(x: Tensor, y: Tensor, flag: bool) -> tuple[Tensor, Tensor]:
    return x * y, x + y


def split_power_forward(x: Tensor, y: Tensor, flag: bool) -> tuple[Tensor, Tensor, Tensor]:
    return x * y, x + y, torch.stack([x, y])


def split_power_backward(
    grad_product: Tensor | None,
    grad_sum: Tensor | None,
    both: Tensor,
    x: Tensor,
    y: Tensor,
    flag: bool,
    needs: list[bool],
) -> tuple[Tensor, Tensor]:
    SEEN.append((grad_product is None, grad_sum is None, *needs))
    product = 0 if grad_product is None else grad_product
    extra = torch.zeros_like(x) if grad_sum is None else grad_sum
    none = x.new_empty(0)
    return (
        product * both[1] + extra if needs[0] else none,
        product * both[0] + extra if needs[1] else none,
    )


SEEN: list[tuple[bool, ...]] = []
here = sys.modules[__name__]


@pytest.fixture(scope="module")
def ops() -> tuple[FusedOp, FusedOp]:
    return FusedOp(scaled_sum), FusedOp(split_power, outputs=2)


@pytest.fixture(autouse=True)
def _served_by_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernels(op: str, device: str) -> Kernels:
        return Kernels("here", getattr(here, f"{op}_forward"), getattr(here, f"{op}_backward"))

    monkeypatch.setattr(backends, "kernels", kernels)
    SEEN.clear()


def test_a_list_of_tensors(ops: tuple[FusedOp, FusedOp]) -> None:
    parts = [torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)]
    for function in (ops[0], torch.compile(ops[0], backend="aot_eager", fullgraph=True)):
        total = function(parts, 3.0)
        assert total == 15
        for grad in torch.autograd.grad(total, parts):
            assert (grad == 3).all()
    torch.library.opcheck(torch.ops.fastmtl.scaled_sum.default, (parts, 3.0))


def test_gradients_that_nobody_wants_are_not_computed(ops: tuple[FusedOp, FusedOp]) -> None:
    x, y = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0)
    product, total = ops[1](x, y, True)
    assert torch.autograd.grad(product, x, retain_graph=True) == (3,)
    assert SEEN.pop() == (False, True, True, False)
    assert torch.autograd.grad(total, x, retain_graph=True) == (1,)
    assert SEEN.pop() == (True, False, True, False)
    assert torch.autograd.grad(product + total, x) == (4,)
    assert SEEN.pop() == (False, False, True, False)
    torch.library.opcheck(torch.ops.fastmtl.split_power.default, (x, y, True))


def test_without_gradients_there_is_no_graph(ops: tuple[FusedOp, FusedOp]) -> None:
    x = torch.tensor(2.0, requires_grad=True)
    assert not ops[1](x.detach(), x.detach(), True)[0].requires_grad
    with torch.no_grad():
        assert not ops[1](x, x, True)[0].requires_grad
    assert type(ops[1](x, x, True)[0].grad_fn).__name__ == "SplitPowerBackward"


def test_second_derivative_is_refused(ops: tuple[FusedOp, FusedOp]) -> None:
    x, y = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    (grad,) = torch.autograd.grad(ops[1](x, y, True)[0], x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        grad.backward()


def test_fake_results_are_contiguous(ops: tuple[FusedOp, FusedOp]) -> None:
    x = torch.empty(3, 4, device="meta").T
    assert all(result.is_contiguous() for result in ops[1](x, x, True))


def test_transforms_of_functorch_see_the_formula(ops: tuple[FusedOp, FusedOp]) -> None:
    x, y = torch.randn(3), torch.randn(3)
    (by_x, _) = torch.func.jacrev(lambda x: ops[1](x, y, True))(x)
    assert torch.equal(by_x, torch.diag(y))
    per_sample = torch.func.vmap(torch.func.grad(lambda x, y: ops[1](x, y, True)[0]))(x, y)
    assert torch.equal(per_sample, y)


def test_batched_backward_passes_use_the_reference(ops: tuple[FusedOp, FusedOp]) -> None:
    x, y = torch.randn(3, requires_grad=True), torch.randn(3)
    product, _ = ops[1](x, y, True)
    seeds = torch.eye(3)

    def pull(seed: Tensor) -> Tensor:
        return torch.autograd.grad(product, x, seed, retain_graph=True)[0]

    assert torch.equal(torch.vmap(pull)(seeds), torch.diag(y))
    (batched,) = torch.autograd.grad(product, x, seeds, is_grads_batched=True)
    assert torch.equal(batched, torch.diag(y))


def test_a_negated_view_is_copied_first(ops: tuple[FusedOp, FusedOp]) -> None:
    minus = torch.arange(3).to(torch.complex64).mul(1j).conj().imag
    assert minus.is_neg()
    product, total = ops[1](minus, torch.ones(3, requires_grad=True), True)
    assert product.tolist() == [0, -1, -2]
    assert total.tolist() == [1, 0, -1]


def test_a_negated_gradient_is_copied_first(ops: tuple[FusedOp, FusedOp]) -> None:
    minus = torch.arange(3).to(torch.complex64).mul(1j).conj().imag
    x, y = torch.ones(3, requires_grad=True), torch.ones(3)
    (grad,) = torch.autograd.grad(ops[1](x, y, True)[0], x, minus)
    assert not grad.is_neg()
    assert grad.tolist() == [0, -1, -2]


def test_forward_mode_differentiates_the_formula(ops: tuple[FusedOp, FusedOp]) -> None:
    x, y = torch.randn(3), torch.randn(3)
    with forward_ad.dual_level():
        product, _ = ops[1](forward_ad.make_dual(x, torch.ones(3)), y, True)
        assert torch.equal(forward_ad.unpack_dual(product).tangent, y)
