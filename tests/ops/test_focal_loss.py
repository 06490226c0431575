from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

import fastmtl
from fastmtl.backends.reference import focal_loss as reference
from fastmtl.ops import focal_loss
from tests.tolerances import assert_close

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [(20, 7), (1, 1), (33, 1), (1, 65), (257, 13), (5, 1500), (3000, 8), (0, 4), (4, 0)]
NAN = float("nan")


def problem(shape: tuple[int, int], dtype: torch.dtype) -> dict[str, Any]:
    """Logits, targets with missing labels, a mask and weights; one task has no label at all."""
    targets = (torch.rand(shape) > 0.6).to(torch.float32)
    targets[torch.rand(shape) > 0.9] = NAN
    if shape[1] > 2:
        targets[:, 1] = NAN
    return {
        "logits": (4 * torch.randn(shape, dtype=torch.float64)).to(dtype),
        "targets": targets,
        "mask": torch.rand(shape) > 0.1,
        "pos_weight": torch.rand(shape[1], dtype=torch.float64) + 0.5,
    }


def run(logits: Tensor, grad: Tensor | None = None, **arguments: Any) -> tuple[Tensor, Tensor]:
    """The loss and the gradient of its product with `grad`."""
    logits = logits.detach().requires_grad_()
    loss = focal_loss(logits, **arguments)
    loss.backward(torch.ones_like(loss) if grad is None else grad.to(loss.dtype))
    assert logits.grad is not None
    return loss.detach(), logits.grad


def expected(logits: Tensor, grad: Tensor | None = None, **arguments: Any) -> tuple[Tensor, Tensor]:
    """The same in float64, by autograd through the reference."""
    with fastmtl.use_backend("reference"):
        return run(logits.double(), grad, **arguments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["task", "sum", "mean", "none"])
def test_agrees_with_float64(
    backend: str, shape: tuple[int, int], dtype: torch.dtype, reduction: str
) -> None:
    arguments = problem(shape, dtype) | {"reduction": reduction}
    grad = torch.randn(focal_loss(**arguments).shape, dtype=torch.float64)
    loss, slope = run(grad=grad, **arguments)
    loss64, slope64 = expected(grad=grad, **arguments)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert slope.dtype == dtype
    # A long sum of float32 terms may lose a few roundings more than one term.
    assert_close(loss, loss64, torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(slope, slope64, dtype)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 3.7, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_gamma(backend: str, gamma: float, dtype: torch.dtype) -> None:
    arguments = problem((40, 5), dtype) | {"gamma": gamma}
    for actual, wanted in zip(run(**arguments), expected(**arguments), strict=True):
        assert_close(actual, wanted, dtype)


def test_gamma_zero_is_cross_entropy(backend: str) -> None:
    logits, targets = torch.randn(50, 3, dtype=torch.float64), torch.randint(2, (50, 3)).double()
    wanted = binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(0)
    assert_close(focal_loss(logits, targets, gamma=0), wanted)


@pytest.mark.parametrize("gamma", [0, 0.3, 1, 2, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_finite_at_extreme_logits(backend: str, dtype: torch.dtype, gamma: float) -> None:
    # Above max / gamma the reference overflows inside autograd.
    largest = torch.finfo(dtype).max / 16
    row = torch.tensor([largest, 1e4, 200, 88.5, 17, 1e-3, 0, 1e-30], dtype=torch.float64)
    logits = torch.cat([row, -row]).clamp(-largest, largest).to(dtype)[:, None].expand(-1, 2)
    targets = torch.tensor([0.0, 1.0]).expand(16, 2)
    loss, slope = run(logits, targets=targets, gamma=gamma, reduction="none")
    assert loss.isfinite().all()
    assert slope.isfinite().all()
    loss64, slope64 = expected(logits, targets=targets, gamma=gamma, reduction="none")
    for actual, wanted in ((loss, loss64), (slope, slope64)):
        tiny = torch.finfo(actual.dtype).smallest_normal
        error = (actual.double() - wanted).abs()
        assert (error <= 2e-2 * wanted.abs() + 4 * tiny).all()


def test_nan_logits_show(backend: str) -> None:
    logits, targets = torch.tensor([[NAN, 1.0], [0.0, NAN]]), torch.tensor([[1.0, 0], [0, NAN]])
    loss, slope = run(logits, targets=targets)
    assert loss.isnan().tolist() == [True, False]
    assert slope.isnan().tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32, torch.int64])
def test_a_target_that_is_no_label_makes_the_loss_nan(backend: str, dtype: torch.dtype) -> None:
    targets = torch.tensor([[1, 0], [2, 1]]).to(dtype)
    loss, _ = run(torch.randn(2, 2), targets=targets)
    assert loss.isnan().tolist() == [True, False]


def test_a_task_without_labels_is_zero(backend: str) -> None:
    targets = torch.tensor([[NAN, 1.0], [NAN, 0.0]])
    loss, slope = run(torch.randn(2, 2), targets=targets)
    assert loss[0] == 0
    assert loss[1] > 0
    assert (slope[:, 0] == 0).all()
    masked, _ = run(torch.randn(2, 2), targets=targets, mask=torch.zeros(2, 2, dtype=torch.bool))
    assert (masked == 0).all()


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.float16]
)
def test_target_dtypes(backend: str, dtype: torch.dtype) -> None:
    logits, targets = torch.randn(37, 5), torch.randint(2, (37, 5))
    for actual, wanted in zip(
        run(logits, targets=targets.to(dtype)), run(logits, targets=targets.float()), strict=True
    ):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides(backend: str, dtype: torch.dtype) -> None:
    arguments = problem((60, 9), dtype)
    dense = run(**arguments)
    for view in _views():
        strided = {
            name: view(value) if value.dim() == 2 else value for name, value in arguments.items()
        }
        assert not strided["logits"].is_contiguous()
        for actual, wanted in zip(run(**strided), dense, strict=True):
            assert_close(actual, wanted)


def _views() -> list[Callable[[Tensor], Tensor]]:
    return [
        lambda x: x.T.contiguous().T,
        lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
        lambda x: torch.stack([x, x], 2)[:, :, 1],
        lambda x: torch.stack([x, x], 1)[:, 0],
    ]


def test_broadcast_gradient(backend: str) -> None:
    arguments = problem((30, 4), torch.float64) | {"reduction": "none"}
    logits = arguments.pop("logits").requires_grad_()
    (broadcast,) = torch.autograd.grad(focal_loss(logits, **arguments).sum(), logits)
    _, dense = run(logits, **arguments)
    torch.testing.assert_close(broadcast, dense, rtol=0, atol=0)


@pytest.mark.parametrize("reduction", ["task", "sum", "mean", "none"])
@pytest.mark.parametrize("gamma", [0, 1, 2, 2.5])
def test_gradcheck(backend: str, reduction: str, gamma: float) -> None:
    arguments = problem((6, 3), torch.float64) | {"reduction": reduction, "gamma": gamma}
    logits = arguments.pop("logits").requires_grad_()
    torch.autograd.gradcheck(lambda z: focal_loss(z, **arguments), logits)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(0, 1000))
def test_samples_and_tasks_can_be_permuted(rows: int, tasks: int, seed: int) -> None:
    torch.manual_seed(seed)
    arguments = problem((rows, tasks), torch.float64)
    row, column = torch.randperm(rows), torch.randperm(tasks)
    permuted = {
        name: value[row][:, column] if value.dim() == 2 else value[column]
        for name, value in arguments.items()
    }
    assert_close(focal_loss(**permuted), focal_loss(**arguments)[column])


def test_sum_is_mean_times_count(backend: str) -> None:
    arguments = problem((30, 6), torch.float64)
    present = (arguments["mask"] & ~arguments["targets"].isnan()).sum(0)
    by_task = focal_loss(**arguments)
    total = focal_loss(**arguments, reduction="sum")
    assert_close(total, (by_task * present).sum())
    assert_close(focal_loss(**arguments, reduction="mean"), total / present.sum())


def test_backward_twice_gives_the_same_gradient(backend: str) -> None:
    arguments = problem((20, 7), torch.float32)
    logits = arguments.pop("logits").requires_grad_()
    loss = focal_loss(logits, **arguments).sum()
    first = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    second = torch.autograd.grad(loss, logits)[0]
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_second_derivative_raises() -> None:
    if fastmtl.backends.unavailable("native"):
        pytest.skip("the reference differentiates twice")
    logits, weight = torch.randn(3, 2, requires_grad=True), torch.ones(2, requires_grad=True)
    loss = focal_loss(logits, torch.ones(3, 2))
    for source in (loss.sum(), (weight * loss).sum()):
        (grad,) = torch.autograd.grad(source, logits, create_graph=True)
        with pytest.raises(RuntimeError, match="second derivative"):
            grad.sum().backward()


def test_inference_needs_no_graph(backend: str) -> None:
    arguments = problem((20, 7), torch.float32)
    wanted = focal_loss(**arguments)
    with torch.inference_mode():
        torch.testing.assert_close(focal_loss(**arguments), wanted)


def test_same_bits_on_any_number_of_threads(backend: str) -> None:
    arguments = problem((9000, 17), torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run(**arguments)
        torch.set_num_threads(3)
        three = run(**arguments)
    finally:
        torch.set_num_threads(before)
    if backend == "native":
        assert torch.equal(one[0], three[0])
        assert torch.equal(one[1], three[1])


def test_many_threads_at_once(backend: str) -> None:
    if backend == "triton":
        pytest.skip("Triton's interpreter serves one thread at a time")
    arguments = problem((500, 11), torch.float32)
    wanted = run(**arguments)
    results: list[tuple[Tensor, Tensor]] = []

    def work() -> None:
        with fastmtl.use_backend(backend):
            results.extend(run(**arguments) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    for loss, slope in results:
        torch.testing.assert_close(loss, wanted[0], equal_nan=True)
        torch.testing.assert_close(slope, wanted[1])


def test_closed_form_of_the_reference_is_its_derivative() -> None:
    for reduction in ("task", "sum", "mean", "none"):
        for gamma in (0.0, 1.0, 2.0, 3.5):
            values = problem((30, 4), torch.float64)
            arguments = (values["targets"], values["mask"], values["pos_weight"], gamma, reduction)
            loss, scale = reference.focal_loss_forward(values["logits"], *arguments)
            grad = torch.randn_like(loss)
            slope = reference.focal_loss_backward(grad, scale, values["logits"], *arguments)
            _, wanted = expected(grad=grad, **values, gamma=gamma, reduction=reduction)
            assert_close(slope, wanted)


def test_registered_op(backend: str) -> None:
    values = problem((6, 3), torch.float64)
    logits = values["logits"].requires_grad_()
    for reduction in ("task", "none"):
        arguments = (logits, values["targets"], values["mask"], values["pos_weight"], 2.0)
        torch.library.opcheck(torch.ops.fastmtl.focal_loss.default, (*arguments, reduction))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled(backend: str, dynamic: bool) -> None:
    arguments = problem((20, 7), torch.float32)
    compiled = torch.compile(
        lambda z, y, mask: focal_loss(z, y, mask=mask).sum(),
        fullgraph=True,
        dynamic=dynamic,
        backend="aot_eager",
    )
    logits = arguments["logits"].requires_grad_()
    compiled(logits, arguments["targets"], arguments["mask"]).backward()
    _, wanted = run(logits, targets=arguments["targets"], mask=arguments["mask"])
    torch.testing.assert_close(logits.grad, wanted)


def test_autocast(backend: str) -> None:
    layer, x = torch.nn.Linear(5, 3), torch.randn(8, 5)
    with torch.autocast("cpu", torch.bfloat16):
        loss = focal_loss(layer(x), torch.ones(8, 3))
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


GOOD: dict[str, Any] = {"logits": torch.zeros(4, 2), "targets": torch.zeros(4, 2)}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"logits": [[0.0]]}, TypeError, "logits: expected a tensor, got list"),
        ({"logits": torch.zeros(4, 2, dtype=torch.int64)}, TypeError, "logits: expected float32"),
        ({"logits": torch.zeros(3)}, ValueError, r"logits: expected shape \(N, T\), got \(3,\)"),
        ({"targets": torch.zeros(4, 3)}, ValueError, r"targets: .* got shape \(4, 3\)"),
        ({"targets": torch.zeros(4, 2) * 1j}, TypeError, "targets: expected a real"),
        ({"targets": torch.zeros(4, 2, requires_grad=True)}, ValueError, "targets: has no gradie"),
        ({"targets": torch.zeros(4, 2, device="meta")}, ValueError, "targets: expected the device"),
        ({"gamma": -1}, ValueError, "gamma: expected a finite number >= 0, got -1"),
        ({"gamma": NAN}, ValueError, "gamma"),
        ({"gamma": float("inf")}, ValueError, "gamma"),
        ({"gamma": "2"}, TypeError, "gamma: expected a number, got str"),
        ({"reduction": "max"}, ValueError, "reduction: expected one of"),
        ({"mask": torch.ones(4, 2)}, TypeError, "mask: expected bool"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, ValueError, "mask: expected"),
        ({"pos_weight": torch.ones(3)}, ValueError, "pos_weight: expected one weight a task"),
        ({"pos_weight": torch.ones(2, dtype=torch.int64)}, TypeError, "pos_weight: expected"),
        ({"pos_weight": torch.ones(2, requires_grad=True)}, ValueError, "pos_weight: has no"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        focal_loss(**GOOD | wrong)
