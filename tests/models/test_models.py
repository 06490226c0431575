"""What holds for every model."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import nn

from fastmtl.models import paired_parameters
from fastmtl.nn import FocalLoss, SharedLinear
from tests.models.cases import CASES, STEPS, Case, cast
from tests.tolerances import assert_close

each = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
sequences = pytest.mark.parametrize(
    "case",
    [case for case in CASES.values() if case.sequences],
    ids=[name for name, case in CASES.items() if case.sequences],
)


def separate_weights(model: Any) -> tuple[Any, ...]:
    """The stacked weights whose rows a single task's loss reaches."""
    return ("last",) if getattr(model, "interaction", None) is not None else ("first", "last")


@each
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_its_twin(case: Case, dtype: torch.dtype, padded: bool) -> None:
    model = case.build().to(dtype)
    twin = model.to_torch()
    assert {parameter.dtype for parameter in twin.parameters()} == {dtype}
    twin.double()
    x, lengths = case.inputs(dtype=dtype), case.lengths() if padded else None
    logits, expected = model(x, lengths), twin(cast(x, torch.float64), lengths)
    assert logits.shape == (4, case.outputs)
    assert logits.dtype == dtype
    assert_close(logits, expected, scale=3)

    direction = torch.randn_like(expected)
    (logits * direction).sum().backward()
    (expected * direction).sum().backward()
    pairs = paired_parameters(model, twin)
    assert {id(pair.twin) for pair in pairs} == {id(p) for p in twin.parameters()}
    assert {id(pair.parameter) for pair in pairs} == {id(p) for p in model.parameters()}
    for parameter, part, own in pairs:
        assert parameter.grad is not None
        assert own.grad is not None
        assert own.grad.ne(0).any()
        assert_close(parameter.grad[part], own.grad, scale=10)


@each
@pytest.mark.parametrize("double", ["model", "input"])
def test_float64_beside_float32_is_refused(case: Case, double: str) -> None:
    model, x = case.build(), case.inputs(dtype=torch.float32)
    if double == "model":
        model.double()
    else:
        x = cast(x, torch.float64)
    with pytest.raises(TypeError, match=r"^x.*: expected the dtype of the model, torch\.float"):
        model(x)


@each
def test_its_twin_trains_as_the_model_does(case: Case) -> None:
    model = case.build().double()
    twin = model.to_torch()
    assert not any(type(module).__module__.startswith("fastmtl.nn") for module in twin.modules())
    x, lengths = case.inputs(dtype=torch.float64), case.lengths()
    targets = torch.randint(0, 2, (4, case.outputs))
    loss = FocalLoss()
    losses: dict[nn.Module, list[torch.Tensor]] = {}
    for network in (model, twin):
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        losses[network] = []
        for _ in range(5):
            value = loss(network(x, lengths), targets).sum()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses[network].append(value.detach())
    assert losses[model][-1] < losses[model][0]
    assert_close(torch.stack(losses[model]), torch.stack(losses[twin]), scale=1e4)


@each
def test_config_rebuilds_the_model(case: Case) -> None:
    model = case.build()
    config = json.loads(json.dumps(model.config()))
    again: Any = type(model)(**config)
    assert again.config() == model.config() == config
    again.load_state_dict(model.state_dict())
    x, lengths = case.inputs(), case.lengths()
    assert again(x, lengths).equal(model(x, lengths))
    assert copy.deepcopy(model)(x, lengths).equal(model(x, lengths))


@each
def test_device_and_dtype(case: Case) -> None:
    model = case.build().double()
    meta = type(model)(**model.config(), device="meta", dtype=torch.float64)
    assert {parameter.dtype for parameter in meta.parameters()} == {torch.float64}
    assert all(tensor.is_meta for tensor in (*meta.parameters(), *meta.buffers()))
    there = meta.to_empty(device="cpu")
    there.load_state_dict(model.state_dict())
    x, lengths = case.inputs(dtype=torch.float64), case.lengths()
    assert there(x, lengths).equal(model(x, lengths))


@each
def test_task_weights(case: Case) -> None:
    model = case.build()
    parameters = {id(parameter) for parameter in model.parameters()}
    for at in separate_weights(model):
        weight = model.task_weight(at)
        assert isinstance(weight, nn.Parameter)
        assert id(weight) in parameters
        assert weight.shape[0] == model.num_tasks
    with pytest.raises(ValueError, match=r"^balance_at: expected one of shared, first, last"):
        model.task_weight("middle")


@each
def test_a_task_depends_on_its_own_network_alone(case: Case) -> None:
    model = case.build()
    sizes = getattr(model, "group_sizes", (1,) * model.num_tasks)
    model(case.inputs(), case.lengths())[:, sizes[0]].sum().backward()
    for at in separate_weights(model):
        weight = model.task_weight(at)
        assert weight.grad is not None
        assert weight.grad[[0, 2]].eq(0).all()
        assert weight.grad[1].ne(0).any()


@each
def test_gradients_of_all_tasks_reach_the_shared_layer(case: Case) -> None:
    model = case.build().double()
    if separate_weights(model) == ("last",):
        with pytest.raises(ValueError, match=r"^balance_at: expected last, since the tasks"):
            model.task_weight("shared")
        return
    if model.shared is None:
        with pytest.raises(ValueError, match=r"^balance_at: .* no trainable shared layer"):
            model.task_weight("shared")
        return
    shared = model.task_weight("shared")
    assert isinstance(shared, SharedLinear)
    x, lengths = case.inputs(dtype=torch.float64), case.lengths()
    sizes = getattr(model, "group_sizes", (1,) * model.num_tasks)
    losses = [part.square().sum() for part in model(x, lengths).split(list(sizes), 1)]
    expected = torch.stack(
        [torch.autograd.grad(loss, shared.weight, retain_graph=True)[0].norm() for loss in losses]
    )
    shared.watch = "norms"
    sum(part.square().sum() for part in model(x, lengths).split(list(sizes), 1)).backward()
    assert (expected > 0).all()
    assert_close(shared.task_grad_norms(), expected)


@sequences
@pytest.mark.parametrize("content", [1e4, torch.nan, torch.inf])
def test_what_padding_holds_changes_nothing(case: Case, content: float) -> None:
    model = case.build()
    x, lengths = case.inputs(), case.lengths()
    assert lengths is not None
    padding = (torch.arange(STEPS) >= lengths.unsqueeze(1)).unsqueeze(-1)

    def results(x: Any) -> list[torch.Tensor]:
        model.zero_grad()
        logits = model(x, lengths)
        logits.square().sum().backward()
        return [logits, *(p.grad for p in model.parameters() if p.grad is not None)]

    filled = (
        x.masked_fill(padding, content)
        if isinstance(x, torch.Tensor)
        else {
            name: value.masked_fill(padding, content) if name in case.sequences else value
            for name, value in x.items()
        }
    )
    for actual, expected in zip(results(filled), results(x), strict=True):
        assert actual.equal(expected)


@sequences
def test_lengths_equal_cutting_each_sample(case: Case) -> None:
    model = case.build().double()
    x, lengths = case.inputs(dtype=torch.float64), case.lengths()
    assert lengths is not None
    logits = model(x, lengths)
    for sample, length in enumerate(lengths.tolist()):

        def cut(value: torch.Tensor, sample: int = sample, length: int = length) -> torch.Tensor:
            own = value[sample : sample + 1]
            return own[:, :length] if own.dim() == 3 else own

        own = cut(x) if isinstance(x, torch.Tensor) else {n: cut(v) for n, v in x.items()}
        assert_close(model(own), logits[sample : sample + 1])


@each
@pytest.mark.parametrize(("batch", "steps"), [(0, 3), (1, 1), (1, 6), (3, 1)])
def test_small_batches_and_sequences(case: Case, batch: int, steps: int) -> None:
    model = case.build()
    x = case.inputs(batch, steps)
    assert model(x).shape == (batch, case.outputs)
    logits = model(x, case.lengths(batch, steps))
    assert logits.shape == (batch, case.outputs)
    assert logits.isfinite().all()


@each
def test_is_deterministic(case: Case) -> None:
    model = case.build()
    x, lengths = case.inputs(), case.lengths()

    def run() -> list[torch.Tensor]:
        model.zero_grad()
        logits = model(x, lengths)
        logits.sum().backward()
        return [logits, *(p.grad for p in model.parameters() if p.grad is not None)]

    for first, second in zip(run(), run(), strict=True):
        assert first.equal(second)


@each
def test_autocast(case: Case) -> None:
    model = case.build()
    x, lengths = case.inputs(), case.lengths()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x, lengths)
    logits.float().sum().backward()
    assert_close(logits, model(x, lengths).double(), torch.bfloat16, scale=3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(case: Case, dtype: torch.dtype) -> None:
    model = case.build().to(dtype)
    x, lengths = case.inputs(dtype=dtype), case.lengths()
    logits = model(x, lengths)
    logits.sum().backward()
    assert logits.dtype == dtype
    expected = model.double()(cast(x, torch.float64), lengths)
    assert_close(logits, expected, dtype, scale=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mtmlan-shared", "hgfn-3-groups"])
def test_compiles(name: str) -> None:
    case = CASES[name]
    model = case.build()
    x, lengths = case.inputs(), case.lengths()
    logits = torch.compile(model)(x, lengths)
    expected = model(x, lengths)
    assert_close(logits, expected.double(), torch.float32, scale=10)
    actual_grads = torch.autograd.grad(logits.sum(), list(model.parameters()))
    expected_grads = torch.autograd.grad(expected.sum(), list(model.parameters()))
    for actual, theirs in zip(actual_grads, expected_grads, strict=True):
        assert_close(actual, theirs.double(), torch.float32, scale=10)
