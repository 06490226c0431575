"""TorchJD's weightings as the function of a GramianBalancer, against its own aggregators."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastmtl.balancing import GramianBalancer
from tests.balancing.networks import F64, Net, T, batch

aggregation = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed")

ARGUMENTS = {"CAGrad": {"c": 0.5}}
NAMES = ["AlignedMTL", "CAGrad", "DualProj", "IMTLG", "MGDA", "Mean", "PCGrad", "UPGrad"]


@pytest.mark.parametrize("name", NAMES)
def test_weightings(name: str) -> None:
    """The shared layer gets what the aggregator makes of T gradients."""
    arguments = ARGUMENTS.get(name, {})
    try:
        aggregate = getattr(aggregation, name)(**arguments)
        weighting = getattr(aggregation, f"{name}Weighting")(**arguments)
        aggregate(torch.eye(2))
    except ImportError as error:
        pytest.skip(f"TorchJD's {name}: {error}")
    net, x = Net(), batch()
    losses = net(x)
    grads = torch.stack(
        [
            torch.autograd.grad(loss, net.shared.weight, retain_graph=True)[0].flatten()
            for loss in losses
        ]
    )
    torch.manual_seed(1)  # PCGrad visits the tasks in random order
    expected = aggregate(grads)

    balancer = GramianBalancer(net, weighting).double()
    torch.manual_seed(1)
    balancer.backward(net(x))
    torch.testing.assert_close(net.shared.weight.grad.flatten(), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(balancer.weights @ grads, expected, rtol=1e-6, atol=1e-8)


STATEFUL = {
    "GradVac": lambda: aggregation.GradVacWeighting(),
    "PCD": lambda: aggregation.PCDWeighting(),
    "CRMOGM": lambda: aggregation.CRMOGMWeighting(aggregation.GradVacWeighting()),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_the_state_of_a_weighting_survives_a_checkpoint(name: str, tmp_path: Path) -> None:
    net = Net()
    balancer = GramianBalancer(net, STATEFUL[name]()).double()
    for seed in range(3):
        balancer.backward(net(batch(seed=seed)))
    torch.save((net.state_dict(), balancer.state_dict()), tmp_path / "run.pt")
    twin = Net()
    restored = GramianBalancer(twin, STATEFUL[name]()).double()
    for each, state in zip((twin, restored), torch.load(tmp_path / "run.pt"), strict=True):
        each.load_state_dict(state)
    weights = []
    for model, method in ((net, balancer), (twin, restored)):
        torch.manual_seed(1)
        method.backward(model(batch(seed=9)))
        weights.append(method.weights)
    assert weights[0].equal(weights[1])


def test_an_absent_task_has_no_part() -> None:
    net = Net()
    balancer = GramianBalancer(net, aggregation.PCGradWeighting()).double()
    present = torch.tensor([True, False, True, True])
    balancer.backward(net(batch()), present=present)
    assert net.shared.weight.grad.isfinite().all()
    assert balancer.weights[1] == torch.ones(T, dtype=F64)[1]
    assert net.last.weight.grad[1].eq(0).all()
