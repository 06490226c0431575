"""The two modules of kernels as Python sees them: what they say they have, and what they refuse."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from fastmtl.backends.native import memory
from tests.cuda import host

NOTHING = (0, 0, 0, 0)
HERE = (host.DEVICE, host.STREAM, 0)


@pytest.fixture(params=["cpu", "cuda"])
def module(request: pytest.FixtureRequest) -> Any:
    """The module of each backend; the CUDA kernels run on the host."""
    if request.param == "cpu":
        return pytest.importorskip("fastmtl._cpu")
    return host.kernels()


def execution(module: ModuleType) -> int | tuple[int, int, int]:
    return 1 if module.device == "cpu" else HERE


def matrix(tensor: torch.Tensor, dtype: int) -> tuple[int, ...]:
    return (tensor.data_ptr(), dtype, *tensor.stride())


def test_what_a_module_has(module: Any) -> None:
    assert all(callable(getattr(module, name)) for name in module.kernels)
    assert {"focal_loss_forward", "task_gru_backward", "row_dots"} <= module.kernels
    assert ("task_grads_pairs" in module.kernels) == (module.device == "cpu")
    assert ("task_gru_forward_step" in module.kernels) == (module.device == "cuda")
    assert hasattr(module, "task_gru_workspace") == (module.device == "cuda")
    assert bool(module.limits) == (module.device == "cuda")
    assert all(limit > 0 for limit in module.limits.values())
    assert module.unusable() is None
    assert module.use_isa(module.isa())
    assert not module.use_isa("none")


def test_what_the_cuda_kernels_were_compiled_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "cuda", host.kernels())
    assert memory.cuda_build() == "CUDA 13.0 for 8.0, 9.0"
    monkeypatch.setattr(memory, "cuda", None)
    assert memory.cuda_build() == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "got 0 arguments"),
        ((1, 0, 0, 1, 1, 0, 0), "got 7 arguments"),
        (("1", 0, 0, 1, 1, 0), "argument 1: expected execution, got str"),
        (((1, 2), 0, 0, 1, 1, 0), "argument 1: expected execution, got tuple"),
        ((1, 0, None, 1, 1, 0), "argument 3: expected address, got NoneType"),
        ((1, 0, 0, 1.0, 1, 0), "argument 4: expected int64, got float"),
        ((1, 0, 0, 1, 2**63, 0), "argument 5: expected int64, got int"),
    ],
)
def test_wrong_arguments(module: Any, arguments: tuple[Any, ...], complaint: str) -> None:
    takes = r"least_norm_weights\(execution, int64, address, int64, int64, address\)"
    with pytest.raises(TypeError, match=f"{takes}: {complaint}"):
        module.least_norm_weights(*arguments)


@pytest.mark.parametrize(
    ("index", "argument", "kind"),
    [
        (1, (0, 0, 0), "matrix"),
        (1, [0, 0, 0, 0], "matrix"),
        (3, 2, "list of int64"),
        (3, [2, "3"], "list of int64"),
        (7, "2", "float"),
    ],
)
def test_wrong_fields(module: Any, index: int, argument: object, kind: str) -> None:
    fields: list[object] = [execution(module), NOTHING, NOTHING, [2], 0, 1, -100, 2.0, 0, 0, 0]
    fields[index] = argument
    with pytest.raises(TypeError, match=f"argument {index + 1}: expected {kind}, got "):
        module.grouped_focal_loss_forward(*fields)


def test_flags_are_bools(module: Any) -> None:
    with pytest.raises(TypeError, match="argument 6: expected bool, got int"):
        module.row_dots(execution(module), NOTHING, NOTHING, 0, 0, 1, 0)


def test_limits_hold() -> None:
    module = host.kernels()
    groups = module.limits["grouped_focal_loss_groups"] + 1
    with pytest.raises(ValueError, match="at most 768 groups"):
        module.grouped_focal_loss_forward(
            HERE, NOTHING, NOTHING, [2] * groups, 0, 0, -100, 2.0, 0, 0, 0
        )
    with pytest.raises(ValueError, match="at most 1024 tasks"):
        module.least_norm_weights(HERE, 0, 0, module.limits["least_norm_tasks"] + 1, 1, 0)
    with pytest.raises(ValueError, match="at most 1024 tasks"):
        module.pcgrad_coefficients(HERE, 0, 0, module.limits["gradient_surgery_tasks"] + 1, 0)


def test_memory_that_runs_out() -> None:
    """In a kernel, and in each of its threads."""
    module = pytest.importorskip("fastmtl._cpu")
    memory = torch.zeros(64, dtype=torch.int64)
    address, huge = memory.data_ptr(), 1 << 22
    with pytest.raises(MemoryError):
        module.least_norm_weights(1, 1, address, huge, 1, address)
    starts, lengths = torch.arange(2), torch.ones(2, dtype=torch.int64)
    sizes = (address, starts.data_ptr(), lengths.data_ptr(), 2, 1, 2, 2)
    for threads in (1, 2):
        with pytest.raises(MemoryError):
            module.task_gru_forward(threads, 0, *sizes, huge, 0, 0, *(address,) * 5)


def test_any_number_of_threads() -> None:
    module = pytest.importorskip("fastmtl._cpu")
    rows, out = torch.ones(40, 100_000), torch.empty(40, dtype=torch.float64)
    for threads in (100_000, 2**31 - 1):
        both = matrix(rows, 0), matrix(rows, 0)
        module.row_dots(threads, *both, *rows.shape, False, out.data_ptr())
        assert (out == 100_000).all()


@pytest.mark.parametrize("ignored", [-100, 0, 2])
def test_ignored_label(module: Any, ignored: int) -> None:
    logits, weight = torch.randn(40, 3), torch.ones(3)
    targets = torch.arange(40).view(40, 1) % 3
    targets[:7] = ignored
    kept = targets[:, 0] != ignored
    loss, scale, grad = torch.empty(1), torch.empty(1), torch.empty(40, 3)
    size = (
        0 if module.device == "cpu" else module.grouped_focal_loss_workspace(host.DEVICE, 40, 1, 3)
    )
    memory = torch.empty(size // 8, dtype=torch.float64)
    on: Any = 1 if module.device == "cpu" else (*HERE[:2], memory.data_ptr())
    shared = matrix(logits, 0), matrix(targets, 5), (3,), weight.data_ptr(), 40, ignored, 0.0, 0
    module.grouped_focal_loss_forward(on, *shared, loss.data_ptr(), scale.data_ptr())
    upstream = torch.ones(1)
    module.grouped_focal_loss_backward(
        on, *shared, (upstream.data_ptr(), 0, 0, 1), scale.data_ptr(), grad.data_ptr()
    )
    expected = logits.clone().requires_grad_()
    entropy = torch.nn.functional.cross_entropy(expected[kept], targets[kept, 0])
    entropy.backward()
    torch.testing.assert_close(loss[0], entropy.detach())
    torch.testing.assert_close(grad, expected.grad)


@pytest.mark.parametrize("on", [(host.DEVICE, 0), (0, host.STREAM)], ids=["stream", "device"])
def test_a_launch_elsewhere_fails(on: tuple[int, int]) -> None:
    rows, out = torch.ones(2, 3), torch.empty(2, dtype=torch.float64)
    module, work = host.kernels(), torch.empty(64, dtype=torch.float64).data_ptr()
    arguments = (matrix(rows, 0), matrix(rows, 0), 2, 3, False, out.data_ptr())
    with pytest.raises(RuntimeError, match="invalid resource handle"):
        module.row_dots((*on, work), *arguments)
    module.row_dots((*HERE[:2], work), *arguments)
