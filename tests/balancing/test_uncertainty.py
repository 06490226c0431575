"""UncertaintyWeighting against its equation."""

from __future__ import annotations

import pytest
import torch

from fastmtl.balancing import UncertaintyWeighting
from tests.balancing.networks import F64, Net, T, batch
from tests.tolerances import assert_close


def test_total_and_gradients_are_those_of_the_equation() -> None:
    net, x = Net(), batch()
    balancer = UncertaintyWeighting(T).double()
    with torch.no_grad():
        balancer.log_variances.copy_(torch.randn(T))
    s = balancer.log_variances
    expected = (torch.exp(-s) * net(x) + s / 2).sum()
    parameters = [*net.parameters(), s]
    grads = torch.autograd.grad(expected, parameters)
    assert_close(balancer.backward(net(x)), expected)
    for parameter, grad in zip(parameters, grads, strict=True):
        assert_close(parameter.grad, grad)
    assert_close(balancer.weights, torch.exp(-s))


def test_it_settles_where_the_weight_is_half_the_inverse_loss() -> None:
    """dtotal/ds_j = 0 at exp(-s_j) L_j = 1/2."""
    balancer = UncertaintyWeighting(T).double()
    optimizer = torch.optim.SGD(balancer.parameters(), lr=0.5)
    losses = torch.tensor([0.1, 1.0, 2.0, 5.0], dtype=F64, requires_grad=True)
    for _ in range(200):
        optimizer.zero_grad()
        balancer.backward(losses * 1)
        optimizer.step()
    assert_close(balancer.weights * losses.detach(), torch.full((T,), 0.5, dtype=F64))


def test_absent_tasks_leave_their_variance_alone() -> None:
    present = torch.tensor([True, False, True, True])
    losses = torch.ones(T, dtype=F64, requires_grad=True)
    balancer = UncertaintyWeighting(T).double()
    balancer.backward(losses * present, present=None)
    assert balancer.log_variances.grad.tolist() == [-0.5, 0.0, -0.5, -0.5]
    balancer.log_variances.grad = None
    balancer.backward(losses * 2, present=present)
    assert balancer.log_variances.grad.tolist() == [-1.5, 0.0, -1.5, -1.5]


def test_a_loss_that_is_not_finite_teaches_nothing() -> None:
    balancer = UncertaintyWeighting(T).double()
    for bad in (torch.nan, torch.inf):
        losses = torch.ones(T, dtype=F64)
        losses[1] = bad
        total = balancer.backward(losses.requires_grad_())
        assert not total.isfinite()
        assert balancer.log_variances.grad.tolist() == [0.0] * T


def test_regression_tasks_have_the_papers_half() -> None:
    balancer = UncertaintyWeighting(2, regression=[True, False]).double()
    losses = torch.tensor([3.0, 3.0], dtype=F64, requires_grad=True)
    total = balancer.backward(losses)
    assert_close(total, torch.tensor(4.5, dtype=F64))
    assert balancer.weights.tolist() == [0.5, 1.0]
    assert losses.grad.tolist() == [0.5, 1.0]
    assert balancer.log_variances.grad.tolist() == [-1.0, -2.5]


def test_regression_is_checked() -> None:
    with pytest.raises(ValueError, match="regression: expected 3 values, one per task, got 2"):
        UncertaintyWeighting(3, regression=[True, False])
    with pytest.raises(TypeError, match="regression: expected True or False, got 1"):
        UncertaintyWeighting(1, regression=[1])
