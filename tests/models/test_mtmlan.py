from __future__ import annotations

import pytest
import torch

from fastmtl.models import MTMLAN
from tests.tolerances import assert_close


def model(**arguments: object) -> MTMLAN:
    return MTMLAN(5, 3, hidden_size=4, attention_size=2, **arguments)


@pytest.mark.parametrize("shared_features", [None, 6])
def test_attention_sums_to_one_over_the_steps_that_are_there(shared_features: int | None) -> None:
    mtmlan = model(shared_features=shared_features).double()
    x, lengths = torch.randn(4, 6, 5, dtype=torch.float64), torch.tensor([6, 1, 3, 5])
    weights = mtmlan.attention(x, lengths)
    assert weights.shape == (4, 3, 6)
    assert_close(weights.sum(2), torch.ones(4, 3))
    for sample, length in enumerate(lengths.tolist()):
        assert (weights[sample, :, length:] == 0).all()
    assert_close(weights, mtmlan.to_torch().attention(x, lengths))


def test_order_of_samples() -> None:
    mtmlan = model(shared_features=6).double()
    x, lengths = torch.randn(4, 6, 5, dtype=torch.float64), torch.tensor([6, 1, 3, 5])
    order = torch.tensor([2, 0, 3, 1])
    assert_close(mtmlan(x[order], lengths[order]), mtmlan(x, lengths)[order])


def test_dropout_acts_in_training_alone() -> None:
    mtmlan = model(dropout=0.5)
    x = torch.randn(4, 6, 5)
    assert not mtmlan(x).equal(mtmlan(x))
    mtmlan.eval()
    assert mtmlan(x).equal(mtmlan(x))
    twin = mtmlan.to_torch()
    assert not twin.training
    assert_close(twin(x), mtmlan(x).double(), torch.float32)


@pytest.mark.parametrize(
    ("x", "lengths", "message"),
    [
        (torch.zeros(4, 5), None, r"x: expected a \(B, L, 5\) tensor, got shape \(4, 5\)"),
        (torch.zeros(4, 6, 3), None, r"x: expected a \(B, L, 5\) tensor, got shape \(4, 6, 3\)"),
        (torch.zeros(3, 4, 6, 5), None, r"x: expected a \(B, L, 5\) tensor"),
        (torch.zeros(4, 0, 5), None, r"lengths: expected sequences of at least one time step"),
        (torch.zeros(2, 6, 5), torch.tensor([0, 3]), r"lengths: expected lengths from 1 to 6"),
        (torch.zeros(2, 6, 5), torch.tensor([7, 3]), r"lengths: expected lengths from 1 to 6"),
        (torch.zeros(2, 6, 5), torch.tensor([6]), r"lengths: expected \(B,\) = \(2,\)"),
    ],
)
@pytest.mark.parametrize("shared_features", [None, 6])
def test_wrong_inputs(
    shared_features: int | None, x: torch.Tensor, lengths: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        model(shared_features=shared_features)(x, lengths)


def test_wrong_types() -> None:
    with pytest.raises(TypeError, match=r"^x: expected a tensor, got dict"):
        model()({"video": torch.zeros(4, 6, 5)})
    with pytest.raises(TypeError, match=r"^x: expected .*, got torch.int64"):
        model()(torch.zeros(4, 6, 5, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"^lengths: expected an int64 tensor"):
        model()(torch.zeros(1, 6, 5), torch.tensor([2.0]))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"in_features": 0}, "in_features"),
        ({"num_tasks": 0}, "num_tasks"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"num_layers": 0}, "num_layers"),
        ({"attention_size": 0}, "attention_size"),
        ({"shared_features": 0}, "shared_features"),
        ({"dropout": 1.0}, "dropout"),
        ({"shared_gru": True, "shared_features": 4}, "shared_features"),
    ],
)
def test_wrong_arguments(arguments: dict[str, int], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        MTMLAN(**{"in_features": 5, "num_tasks": 3, **arguments})


@pytest.mark.parametrize("lengths", [None, torch.tensor([6, 1, 3, 5])], ids=["full", "padded"])
def test_compiles_to_one_graph(lengths: torch.Tensor | None) -> None:
    mtmlan = model().double()
    compiled = torch.compile(mtmlan, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 6, 5, dtype=torch.float64)
    parameters = list(mtmlan.parameters())
    outputs = [network(x, lengths) for network in (compiled, mtmlan)]
    assert_close(*outputs)
    grads = [torch.autograd.grad(output.square().sum(), parameters) for output in outputs]
    for grad, wanted in zip(*grads, strict=True):
        assert_close(grad, wanted)
    with pytest.raises(ValueError, match=r"^lengths: "):
        compiled(x, torch.tensor([6, 1, 3, 7]))


def test_a_shared_gru_leaves_attention_and_output_to_the_tasks() -> None:
    shared, own = MTMLAN(5, 3, hidden_size=4, shared_gru=True), MTMLAN(5, 3, hidden_size=4)
    count = [sum(p.numel() for p in model.gru.parameters()) for model in (shared, own)]
    assert count[0] * 3 == count[1]
    assert shared.task_weight("first") is shared.task_attention.w1
    x = torch.randn(2, 6, 5)
    logits = shared(x)
    # A task's logit depends on no other task's attention.
    with torch.no_grad():
        shared.task_attention.w1[1] += 1
    changed = shared(x)
    assert changed[:, [0, 2]].equal(logits[:, [0, 2]])
    assert not changed[:, 1].equal(logits[:, 1])
    with pytest.raises(TypeError, match=r"^shared_gru: expected True or False, got 'yes'"):
        MTMLAN(5, 3, shared_gru="yes")
