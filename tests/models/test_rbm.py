from __future__ import annotations

import itertools

import pytest
import torch

from fastmtl.models.rbm import RBM
from tests.tolerances import assert_close


def machine(gaussian=False, visible=4, hidden=3):
    rbm = RBM(visible, hidden, gaussian=gaussian)
    rbm.weight = torch.randn(hidden, visible, dtype=torch.float64)
    rbm.visible_bias = torch.randn(visible, dtype=torch.float64)
    rbm.hidden_bias = torch.randn(hidden, dtype=torch.float64)
    return rbm


def energy(rbm, v, h):
    own = 0.5 * ((v - rbm.visible_bias) ** 2).sum() if rbm.gaussian else -v @ rbm.visible_bias
    return own - h @ rbm.hidden_bias - h @ rbm.weight @ v


def states(size):
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=size)), dtype=torch.float64)


@pytest.mark.parametrize("gaussian", [False, True])
def test_conditionals_are_those_of_the_energy(gaussian):
    rbm = machine(gaussian)
    v = torch.randn(4, dtype=torch.float64) if gaussian else torch.tensor([1.0, 0, 1, 1]).double()
    hidden = states(3)
    weights = torch.stack([-energy(rbm, v, h) for h in hidden]).softmax(0)
    assert_close(rbm.hidden(v[None])[0], weights @ hidden)
    h = torch.tensor([1.0, 0, 1], dtype=torch.float64)
    if gaussian:
        # The mean of a normal is where its energy is least.
        mean = rbm.visible(h[None])[0].requires_grad_()
        (slope,) = torch.autograd.grad(energy(rbm, mean, h), mean)
        assert slope.abs().max() < 1e-12
    else:
        visible = states(4)
        weights = torch.stack([-energy(rbm, v, h) for v in visible]).softmax(0)
        assert_close(rbm.visible(h[None])[0], weights @ visible)


@pytest.mark.parametrize("gaussian", [False, True])
def test_gradient_is_one_gibbs_step_of_each_sample(gaussian):
    rbm = machine(gaussian)
    v = torch.rand(5, 4, dtype=torch.float64).round()
    torch.manual_seed(1)
    weight, visible_bias, hidden_bias = rbm.gradient(v)
    torch.manual_seed(1)
    sampled = rbm.hidden(v).bernoulli()
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for sample, h in zip(v, sampled, strict=True):
        again = rbm.visible(h[None])[0]
        expected += torch.outer(rbm.hidden(sample[None])[0], sample)
        expected -= torch.outer(rbm.hidden(again[None])[0], again)
    assert_close(weight, expected / 5)
    again = rbm.visible(sampled)
    assert_close(visible_bias, (v - again).mean(0))
    assert_close(hidden_bias, (rbm.hidden(v) - rbm.hidden(again)).mean(0))


def test_momentum_and_weight_decay():
    rbm, v = machine(), torch.zeros(2, 4, dtype=torch.float64)
    rbm._velocity = [torch.ones_like(value) for value in rbm._parameters()]
    before = [value.clone() for value in rbm._parameters()]
    torch.manual_seed(1)
    gradients = rbm.gradient(v)
    torch.manual_seed(1)
    rbm.step(v, lr=0.1, momentum=0.5, weight_decay=0.01)
    assert_close(rbm.weight, before[0] + 0.5 + 0.1 * (gradients[0] - 0.01 * before[0]))
    assert_close(rbm.hidden_bias, before[2] + 0.5 + 0.1 * gradients[2])


@pytest.mark.parametrize("gaussian", [False, True])
def test_training_lowers_the_reconstruction_error(gaussian):
    centres = torch.tensor([[1.0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]])
    v = centres[torch.randint(0, 2, (200,))]
    if gaussian:
        v = v * 3 - 1 + 0.1 * torch.randn_like(v)
    rbm = RBM(6, 4, gaussian=gaussian)
    before = rbm.reconstruction_error(v)
    for _ in range(100):
        for batch in v.split(20):
            rbm.step(batch, lr=0.01 if gaussian else 0.1, momentum=0.5)
    assert rbm.reconstruction_error(v) < 0.3 * before
