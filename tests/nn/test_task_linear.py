from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fastmtl.nn import SharedLinear, TaskLinear
from tests.tolerances import assert_close


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equals_one_linear_per_task(dtype: torch.dtype, shape: tuple[int, ...], bias: bool) -> None:
    layer = TaskLinear(4, 3, num_tasks=2, bias=bias).to(dtype)
    x = torch.randn(2, *shape, 4, dtype=dtype)
    y = layer(x)
    assert y.shape == (2, *shape, 3)
    assert y.dtype == dtype
    for task in range(2):
        own_bias = None if layer.bias is None else layer.bias[task].double()
        expected = F.linear(x[task].double(), layer.weight[task].double(), own_bias)
        assert_close(y[task], expected)


def test_shared_input_equals_expanded_input() -> None:
    own = TaskLinear(4, 3, num_tasks=5).double()
    shared = TaskLinear(4, 3, num_tasks=5, shared_input=True).double()
    shared.load_state_dict(own.state_dict())
    x = torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 2, 6, 3, dtype=torch.float64)
    grads = []
    for layer, inputs in ((own, x.expand(5, 2, 6, 4)), (shared, x)):
        y = layer(inputs)
        grads.append((y, *torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()])))
    for actual, expected in zip(*grads, strict=True):
        assert_close(actual, expected)


def test_gradients() -> None:
    layer = TaskLinear(3, 2, num_tasks=2).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64).transpose(1, 2).contiguous().transpose(1, 2)
    inputs = (x[..., :3].requires_grad_(), layer.weight, layer.bias)

    def call(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(call, inputs)


def test_a_task_depends_on_its_own_parameters_alone() -> None:
    layer = TaskLinear(4, 3, num_tasks=3)
    layer(torch.randn(3, 5, 4))[1].sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert parameter.grad[[0, 2]].eq(0).all()
        assert parameter.grad[1].ne(0).any()


def test_behind_a_shared_layer() -> None:
    shared = SharedLinear(4, 6, num_tasks=3)
    layer = TaskLinear(6, 2, num_tasks=3)
    x = torch.randn(5, 4)
    y = layer(shared(x))
    for task in range(3):
        hidden = F.linear(x, shared.weight, shared.bias).double()
        assert_close(
            y[task],
            F.linear(hidden, layer.weight[task].double(), layer.bias[task].double()),
            torch.float32,
        )


def test_initialisation_is_that_of_linear() -> None:
    layer = TaskLinear(100, 50, num_tasks=10)
    for parameter in layer.parameters():
        assert parameter.abs().max() <= 0.1
        assert parameter.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.1)


@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 5, 3), (4,)])
def test_wrong_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^x: expected a \(2, \.\.\., 4\) tensor"):
        TaskLinear(4, 3, num_tasks=2)(torch.zeros(shape))


def test_wrong_shared_input() -> None:
    with pytest.raises(ValueError, match=r"^x: expected a \(\.\.\., 4\) tensor"):
        TaskLinear(4, 3, num_tasks=2, shared_input=True)(torch.zeros(2, 3))
