from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastmtl.nn import TaskAttention
from tests.tolerances import assert_close

LENGTHS = torch.tensor([3, 6, 1, 4])


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "padded"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equals_the_formula(dtype: torch.dtype, lengths: Tensor | None) -> None:
    layer = TaskAttention(5, 3, num_tasks=2).to(dtype)
    h = torch.randn(2, 4, 6, 5, dtype=dtype)
    context, weights = layer(h, lengths)
    for task in range(2):
        for sample in range(4):
            length = 6 if lengths is None else int(lengths[sample])
            states = h[task, sample, :length].double()
            scores = (states @ layer.w1[task].double().t()).tanh() @ layer.w2[task].double()
            expected = scores.softmax(0)
            assert_close(weights[task, sample, :length], expected, dtype, scale=2)
            assert_close(context[task, sample], expected @ states, dtype, scale=2)
            assert (weights[task, sample, length:] == 0).all()


def test_gradients() -> None:
    layer = TaskAttention(3, 2, num_tasks=2).double()
    h = torch.randn(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)

    def call(h: Tensor, w1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.functional_call(layer, {"w1": w1, "w2": w2}, (h, torch.tensor([4, 1, 2])))

    assert torch.autograd.gradcheck(call, (h, layer.w1, layer.w2))


def test_what_padding_holds_changes_nothing() -> None:
    layer = TaskAttention(5, 3, num_tasks=2)
    h = torch.randn(2, 4, 6, 5)
    padding = torch.arange(6) >= LENGTHS.unsqueeze(1)
    other = torch.where(padding.unsqueeze(-1), torch.randn_like(h) * 1e3, h)
    for actual, expected in zip(layer(other, LENGTHS), layer(h, LENGTHS), strict=True):
        assert actual.equal(expected)


def test_order_in_time_changes_nothing_but_the_order_of_the_weights() -> None:
    layer = TaskAttention(5, 3, num_tasks=2).double()
    h = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    order = torch.randperm(6)
    context, weights = layer(h)
    permuted_context, permuted_weights = layer(h[:, :, order])
    assert_close(permuted_context, context)
    assert_close(permuted_weights, weights[:, :, order])


def test_one_step_gets_all_the_weight() -> None:
    layer = TaskAttention(5, 3, num_tasks=2)
    h = torch.randn(2, 1, 1, 5)
    context, weights = layer(h)
    assert context.equal(h[:, :, 0])
    assert (weights == 1).all()
    assert layer(torch.randn(2, 0, 6, 5))[0].shape == (2, 0, 5)


def test_extreme_states_give_finite_results() -> None:
    layer = TaskAttention(5, 3, num_tasks=2)
    h = (torch.randn(2, 4, 6, 5) * 1e30).requires_grad_()
    context, weights = layer(h, LENGTHS)
    context.sum().backward()
    assert context.isfinite().all()
    assert weights.isfinite().all()
    assert h.grad is not None
    assert h.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(4, 6, 5), (3, 4, 6, 5), (2, 4, 6, 3)])
def test_wrong_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^h: expected a \(2, B, L, 5\) tensor"):
        TaskAttention(5, 3, num_tasks=2)(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"^lengths: "):
        TaskAttention(5, 3, num_tasks=2)(torch.zeros(2, 4, 6, 5), torch.tensor([0, 1, 1, 1]))


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "padded"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_shared_input_is_that_of_every_task(dtype: torch.dtype, lengths: Tensor | None) -> None:
    own = TaskAttention(5, 3, num_tasks=2).to(dtype)
    shared = TaskAttention(5, 3, num_tasks=2, shared_input=True).to(dtype)
    shared.load_state_dict(own.state_dict())
    h = torch.randn(4, 6, 5, dtype=dtype)
    expected = own.double()(h.double().expand(2, -1, -1, -1), lengths)
    for actual, theirs in zip(shared(h, lengths), expected, strict=True):
        assert actual.dtype == dtype
        assert_close(actual, theirs, dtype, scale=4)
    with pytest.raises(ValueError, match=r"^h: expected a \(B, L, 5\) tensor"):
        shared(h.expand(2, -1, -1, -1))
