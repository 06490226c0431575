"""Impartial multi-task learning: the losses' part, and both."""

from __future__ import annotations

import torch

from fastmtl.balancing import IMTL, IMTLL
from tests.balancing import papers
from tests.balancing.networks import F64, Net, T, batch, differentiable
from tests.tolerances import assert_close

SCALES = torch.tensor([0.3, -0.2, 0.0, 1.0], dtype=F64)


def test_scales_learn_as_in_the_paper() -> None:
    net = Net()
    balancer = IMTLL(T).double()
    balancer.log_scales.data.copy_(SCALES)
    scales = SCALES.clone().requires_grad_()
    losses = net(batch())
    total = (scales.exp() * losses - scales).sum()
    expected = torch.autograd.grad(total, [scales, net.shared.weight])
    assert_close(balancer.backward(net(batch())), total)
    assert_close(balancer.log_scales.grad, expected[0])
    assert_close(net.shared.weight.grad, expected[1])
    assert_close(balancer.weights, SCALES.exp())


def test_gradients_are_those_of_the_scaled_losses() -> None:
    net = Net()
    balancer = IMTL(net).double()
    balancer.log_scales.data.copy_(SCALES)
    net.shared.weighting, weighting = None, net.shared.weighting
    losses = SCALES.exp() * differentiable(net, batch())
    weight = net.shared.weight
    grads = torch.stack(
        [torch.autograd.grad(loss, weight, retain_graph=True)[0].flatten() for loss in losses]
    )
    of_heads = torch.autograd.grad(losses.sum(), net.last.weight)[0]
    net.shared.weighting = weighting
    balancer.backward(net(batch()))
    weights = papers.imtl_g(grads)
    assert_close(balancer.weights, weights)
    assert_close(weight.grad.flatten(), weights @ grads)
    assert_close(net.last.weight.grad, of_heads)
    assert_close(balancer.log_scales.grad, losses.detach() - 1)


def test_absent_tasks_learn_no_scale() -> None:
    balancer = IMTLL(T)
    present = torch.tensor([True, False, True, True])
    balancer.backward(torch.ones(T, requires_grad=True) * 2, present=present)
    assert balancer.log_scales.grad.tolist() == [1.0, 0.0, 1.0, 1.0]
