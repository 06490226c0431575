from __future__ import annotations

import json

import pytest
import torch

from fastmtl.training import EpochRecord
from fastmtl.training.state import Progress, RunState, load_optimizer, optimizer_tensors


def record(epoch, loss):
    return EpochRecord(epoch, 0.1, [loss], [loss], [1.0], None, None, None)


def test_best_is_the_first_lowest_validation_loss():
    progress = Progress()
    losses = [0.5, 0.4, 0.4, 0.45]
    assert [progress.add(record(i + 1, loss)) for i, loss in enumerate(losses)] == [
        True,
        True,
        False,
        False,
    ]
    assert (progress.epoch, progress.best_epoch) == (4, 2)
    assert progress.finished(epochs=10, patience=2)
    assert not progress.finished(epochs=10, patience=3)
    assert progress.finished(epochs=4, patience=3)


@pytest.mark.parametrize("monitor", ["map", "micro_f1"])
def test_best_by_a_metric_is_the_first_highest(monitor):
    progress = Progress(monitor=monitor)
    for epoch, value in enumerate([None, 0.5, 0.7, 0.7, 0.6], 1):
        metrics = {"micro_f1": None, "hamming_loss": None, "map": None} | {monitor: value}
        progress.add(EpochRecord(epoch, 0.1, [1.0], [0.1 * epoch], [1.0], **metrics))
    assert progress.best_epoch == 3


def test_of_epochs_with_the_same_metric_the_loss_decides():
    progress = Progress(monitor="map")
    for epoch, loss in enumerate([0.5, 0.3, 0.4], 1):
        progress.add(EpochRecord(epoch, 0.1, [loss], [loss], [1.0], 0.5, 0.1, 1.0))
    assert progress.best_epoch == 2


def test_a_run_that_has_not_begun_is_not_finished():
    assert not Progress().finished(epochs=1, patience=1)


def test_progress_goes_through_json():
    progress = Progress()
    progress.add(record(1, 0.1 + 0.2))
    assert Progress.from_dict(json.loads(json.dumps(progress.to_dict()))) == progress


@pytest.mark.parametrize("fused", [True, False])
def test_an_optimizer_goes_on_where_it_was(fused):
    def make():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.Adam(model.parameters(), lr=0.1, fused=fused)

    def step(model, optimizer):
        model(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    (model, optimizer), (twin, other) = make(), make()
    step(model, optimizer)
    twin.load_state_dict(model.state_dict())
    load_optimizer(other, {k: v.clone() for k, v in optimizer_tensors(optimizer).items()})
    step(model, optimizer)
    step(twin, other)
    assert torch.equal(model.weight, twin.weight)


def stepped(fused=False):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=fused)
    model(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("0.exp_avg"), r"optimizer\.0: expected exp_avg, got none"),
        (lambda t: t.update({"1.beta": t["1.step"]}), r"optimizer\.1: .* got beta"),
        (lambda t: t.update({"1.exp_avg": t["0.exp_avg"]}), r"expected shape \(2,\), got \(2, 3\)"),
    ],
)
def test_an_optimizer_that_is_not_whole_is_refused(change, message):
    optimizer = stepped()
    tensors = optimizer_tensors(optimizer)
    change(tensors)
    with pytest.raises(ValueError, match=message):
        load_optimizer(optimizer, tensors)


@pytest.mark.parametrize(
    "change", [{"best_epoch": 3}, {"best_epoch": 0}, {"best_epoch": None}, {"history": []}]
)
def test_a_progress_that_cannot_be_is_refused(change):
    progress = Progress()
    progress.add(record(1, 0.5))
    with pytest.raises(ValueError, match="the best of the epochs"):
        Progress.from_dict({**progress.to_dict(), **change})


def test_a_best_of_other_shapes_is_refused():
    model, progress = torch.nn.Linear(3, 2), Progress()
    progress.add(record(1, 0.5))
    state = RunState(
        model, torch.nn.Identity(), torch.optim.Adam(model.parameters()), None, progress
    )
    state.keep_best()
    tensors = {**state.tensors(), "best.weight": torch.ones(6)}
    with pytest.raises(ValueError, match=r"best\.weight: expected shape \(2, 3\), got \(6,\)"):
        state.load(tensors, state.values(), torch.device("cpu"))
