from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from fastmtl.balancing import Equal, UncertaintyWeighting
from fastmtl.models import MTMLAN
from fastmtl.training import TrainConfig
from fastmtl.training.optimizer import count_plateaus, learning_rate, make_optimizer, set_lr

CPU = torch.device("cpu")


def step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    for index, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, 0.1 * (index + 1))
    optimizer.step()


def test_without_weight_decay_it_is_adam():
    model = MTMLAN(4, 2, hidden_size=3)
    twin = MTMLAN(4, 2, hidden_size=3)
    twin.load_state_dict(model.state_dict())
    ours = make_optimizer(model, Equal(2), TrainConfig(lr=0.01, weight_decay=0.0), CPU)
    adam = torch.optim.Adam(twin.parameters(), lr=0.01, fused=True)
    for _ in range(3):
        step(ours, list(model.parameters()))
        step(adam, list(twin.parameters()))
    for actual, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert actual.equal(expected)


def test_weights_decay_and_biases_do_not():
    config = TrainConfig(lr=0.01, weight_decay=0.5)
    start = MTMLAN(4, 2, hidden_size=3)
    models = []
    for each in (config, dataclasses.replace(config, weight_decay=0.0)):
        model = MTMLAN(4, 2, hidden_size=3)
        model.load_state_dict(start.state_dict())
        step(make_optimizer(model, Equal(2), each, CPU), list(model.parameters()))
        models.append(dict(model.named_parameters()))
    for name, parameter in start.named_parameters():
        decayed, plain = (model[name] for model in models)
        taken = 0.0 if "bias" in name else 0.01 * 0.5
        torch.testing.assert_close(decayed, plain - taken * parameter)


def test_what_a_balancer_learns_is_stepped_and_does_not_decay():
    model, balancer = nn.Linear(3, 2), UncertaintyWeighting(2)
    optimizer = make_optimizer(model, balancer, TrainConfig(weight_decay=0.5), CPU)
    groups = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert groups == {
        id(model.weight): 0.5,
        id(model.bias): 0.0,
        **{id(each): 0.0 for each in balancer.parameters()},
    }
    assert len(groups) > 2


def test_the_rate_rises_and_decays():
    config = TrainConfig(lr=0.1, warmup=4, lr_decay=0.5)
    rates = [learning_rate(config, epoch, step, 3) for epoch in (1, 2, 3) for step in range(3)]
    expected = [0.025, 0.05, 0.075, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025]
    assert rates == pytest.approx(expected)
    constant = TrainConfig(lr=0.1, warmup=0, lr_decay=1.0)
    assert learning_rate(constant, 7, 2, 3) == 0.1


def test_the_rate_stays_or_falls_by_its_schedule():
    def rates(schedule, plateaus=0, **options):
        config = TrainConfig(lr=0.1, warmup=2, lr_schedule=schedule, epochs=2, **options)
        return [
            learning_rate(config, epoch, step, 2, plateaus) for epoch in (1, 2) for step in (0, 1)
        ]

    assert rates("constant") == pytest.approx([0.05, 0.1, 0.1, 0.1])
    falling = [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert rates("cosine") == pytest.approx([0.05 * falling[0], *(0.1 * f for f in falling[1:])])
    assert rates("plateau", plateaus=2) == pytest.approx([0.0125, 0.025, 0.025, 0.025])


def test_plateaus_are_counted_anew_after_each():
    assert [count_plateaus([1.0] * epochs) for epochs in (0, 1, 3, 4, 6, 7)] == [0, 0, 0, 1, 1, 2]
    assert count_plateaus([1, 0, 0, 2, 0, 0, 0, 3, 1]) == 1


def test_the_rate_is_that_of_the_next_step():
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model, Equal(2), TrainConfig(lr=0.1), CPU)
    before = model.weight.detach().clone()
    set_lr(optimizer, 0.0)
    step(optimizer, list(model.parameters()))
    assert model.weight.equal(before)
