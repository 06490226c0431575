from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

import fastmtl
from fastmtl.backends.reference import grouped_focal_loss as reference
from fastmtl.ops import focal_loss, grouped_focal_loss
from tests.tolerances import assert_close

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SIZES = [[2, 5, 3], [2], [40, 2], [2, 2, 2, 2, 1200]]
NAN = float("nan")


def problem(rows: int, sizes: list[int], dtype: torch.dtype) -> dict[str, Any]:
    """Logits, labels of which some are missing, and class weights."""
    targets = torch.stack([torch.randint(size, (rows,)) for size in sizes], 1)
    targets[torch.rand(rows, len(sizes)) > 0.85] = -100
    if len(sizes) > 1:
        targets[:, 1] = -100
    return {
        "logits": (3 * torch.randn(rows, sum(sizes), dtype=torch.float64)).to(dtype),
        "targets": targets,
        "group_sizes": sizes,
        "weight": torch.rand(sum(sizes), dtype=torch.float64) + 0.5,
    }


def run(logits: Tensor, grad: Tensor | None = None, **arguments: Any) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    loss = grouped_focal_loss(logits, **arguments)
    loss.backward(torch.ones_like(loss) if grad is None else grad.to(loss.dtype))
    assert logits.grad is not None
    return loss.detach(), logits.grad


def expected(logits: Tensor, grad: Tensor | None = None, **arguments: Any) -> tuple[Tensor, Tensor]:
    with fastmtl.use_backend("reference"):
        return run(logits.double(), grad, **arguments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("rows", [0, 1, 20, 301])
@pytest.mark.parametrize("reduction", ["task", "sum", "mean", "none"])
def test_agrees_with_float64(
    backend: str, rows: int, sizes: list[int], dtype: torch.dtype, reduction: str
) -> None:
    arguments = problem(rows, sizes, dtype) | {"reduction": reduction}
    grad = torch.randn(grouped_focal_loss(**arguments).shape, dtype=torch.float64)
    loss, slope = run(grad=grad, **arguments)
    loss64, slope64 = expected(grad=grad, **arguments)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert slope.dtype == dtype
    assert_close(loss, loss64, torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(slope, slope64, dtype)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 3.7])
def test_every_gamma(backend: str, gamma: float) -> None:
    arguments = problem(50, [2, 5, 3], torch.float32) | {"gamma": gamma}
    for actual, wanted in zip(run(**arguments), expected(**arguments), strict=True):
        assert_close(actual, wanted, torch.float32)


def test_gamma_zero_is_cross_entropy(backend: str) -> None:
    arguments = problem(50, [4, 2, 3], torch.float64) | {"weight": None, "gamma": 0}
    wanted = [
        cross_entropy(scores, labels) if (labels >= 0).any() else torch.zeros(()).double()
        for scores, labels in zip(
            arguments["logits"].split([4, 2, 3], 1), arguments["targets"].unbind(1), strict=True
        )
    ]
    assert_close(grouped_focal_loss(**arguments), torch.stack(wanted))


@pytest.mark.parametrize("gamma", [0, 1.5, 2])
def test_pairs_are_the_binary_loss_of_the_margin(backend: str, gamma: float) -> None:
    logits, targets = torch.randn(30, 8, dtype=torch.float64), torch.randint(2, (30, 4))
    wanted = focal_loss(logits[:, 1::2] - logits[:, ::2], targets, gamma=gamma)
    assert_close(grouped_focal_loss(logits, targets, [2, 2, 2, 2], gamma=gamma), wanted)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(2, 9), st.integers(0, 1000))
def test_shifting_a_group_changes_nothing(rows: int, classes: int, seed: int) -> None:
    torch.manual_seed(seed)
    arguments = problem(rows, [classes, 3], torch.float64)
    shifted = arguments["logits"] + torch.tensor([5.0] * classes + [-70.0] * 3)
    for actual, wanted in zip(
        run(**arguments | {"logits": shifted}), run(**arguments), strict=True
    ):
        torch.testing.assert_close(actual, wanted, rtol=1e-8, atol=1e-10)
    _, slope = run(**arguments)
    groups = torch.stack([part.sum(1) for part in slope.split([classes, 3], 1)])
    torch.testing.assert_close(groups, torch.zeros_like(groups), rtol=0, atol=1e-12)


@pytest.mark.parametrize("gamma", [0, 0.5, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_finite_at_extreme_logits(backend: str, dtype: torch.dtype, gamma: float) -> None:
    big = min(1e30, torch.finfo(dtype).max / 16)
    logits = torch.tensor([[big, -big, 0], [200, -200, 200], [0, 0, 0]], dtype=torch.float64)
    targets = torch.arange(3)[:, None]
    loss, slope = run(
        logits.repeat(1, 3).to(dtype).repeat(3, 1),
        targets=torch.cat([targets.repeat(3, 1), targets.repeat_interleave(3, 0)], 1)[:, [0, 1, 0]],
        group_sizes=[3, 3, 3],
        gamma=gamma,
    )
    assert loss.isfinite().all()
    assert slope.isfinite().all()


@pytest.mark.parametrize("label", [-1, 3, 99])
def test_a_label_that_is_no_class_makes_the_loss_nan(backend: str, label: int) -> None:
    loss, _ = run(torch.randn(4, 5), targets=torch.tensor([[label, 0]] * 4), group_sizes=[3, 2])
    assert loss.isnan().tolist() == [True, False]


def test_strides(backend: str) -> None:
    arguments = problem(40, [2, 5], torch.float32)
    strided = arguments | {
        "logits": arguments["logits"].T.contiguous().T,
        "targets": torch.stack([arguments["targets"]] * 2, 2)[:, :, 1],
    }
    for actual, wanted in zip(run(**strided), run(**arguments), strict=True):
        assert_close(actual, wanted)


@pytest.mark.parametrize("reduction", ["task", "sum", "mean", "none"])
@pytest.mark.parametrize("gamma", [0, 2])
def test_gradcheck(backend: str, reduction: str, gamma: float) -> None:
    arguments = problem(5, [2, 4], torch.float64) | {"reduction": reduction, "gamma": gamma}
    logits = arguments.pop("logits").requires_grad_()
    torch.autograd.gradcheck(lambda z: grouped_focal_loss(z, **arguments), logits)


def test_backward_twice_gives_the_same_gradient(backend: str) -> None:
    arguments = problem(20, [2, 5, 3], torch.float32)
    logits = arguments.pop("logits").requires_grad_()
    loss = grouped_focal_loss(logits, **arguments).sum()
    first = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    torch.testing.assert_close(first, torch.autograd.grad(loss, logits)[0], rtol=0, atol=0)


def test_closed_form_of_the_reference_is_its_derivative() -> None:
    for reduction in ("task", "sum", "mean", "none"):
        for gamma in (0.0, 1.0, 2.0, 3.5):
            values = problem(30, [2, 5, 3], torch.float64)
            logits = values.pop("logits")
            targets, sizes, weight = values.values()
            arguments = (targets, weight, sizes, -100, gamma, reduction)
            loss, scale = reference.grouped_focal_loss_forward(logits, *arguments)
            grad = torch.randn_like(loss)
            slope = reference.grouped_focal_loss_backward(grad, scale, logits, *arguments)
            _, wanted = expected(logits, grad, **values, gamma=gamma, reduction=reduction)
            assert_close(slope, wanted)


def test_registered_op(backend: str) -> None:
    values = problem(6, [2, 3], torch.float64)
    values["logits"].requires_grad_()
    op = torch.ops.fastmtl.grouped_focal_loss.default
    logits, targets, sizes, weight = values.values()
    torch.library.opcheck(op, (logits, targets, weight, sizes, -100, 2.0, "task"))


def test_compiled(backend: str) -> None:
    values = problem(20, [2, 5, 3], torch.float32)
    logits = values.pop("logits").requires_grad_()
    compiled = torch.compile(
        lambda z: grouped_focal_loss(z, **values).sum(), fullgraph=True, backend="aot_eager"
    )
    compiled(logits).backward()
    torch.testing.assert_close(logits.grad, run(logits, **values)[1])


GOOD: dict[str, Any] = {
    "logits": torch.zeros(4, 5),
    "targets": torch.zeros(4, 2, dtype=torch.int64),
    "group_sizes": [2, 3],
}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"group_sizes": [1, 4]}, ValueError, "group_sizes: expected at least 2 classes"),
        ({"group_sizes": []}, ValueError, "group_sizes"),
        ({"group_sizes": [2, 4]}, ValueError, r"logits: expected shape \(N, 6\)"),
        ({"logits": torch.zeros(4, 5, dtype=torch.int32)}, TypeError, "logits"),
        ({"targets": torch.zeros(4, 2)}, TypeError, "targets: expected int64"),
        ({"targets": torch.zeros(4, 3, dtype=torch.int64)}, ValueError, "targets"),
        ({"gamma": -0.5}, ValueError, "gamma"),
        ({"reduction": "batch"}, ValueError, "reduction"),
        ({"weight": torch.ones(4)}, ValueError, "weight"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        grouped_focal_loss(**GOOD | wrong)
