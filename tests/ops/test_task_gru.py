from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fastmtl
from fastmtl.backends import gemm, native, parts, reference
from fastmtl.ops.task_gru import task_gru_layer
from tests.tolerances import assert_close

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# T, dirs, I, h and the lengths: tiles, blocks and vectors that are full, started and exceeded.
SIZES: list[tuple[int, int, int, int, list[int]]] = [
    (3, 2, 5, 4, [3, 6, 1, 4]),
    (1, 1, 1, 1, [1]),
    (2, 2, 7, 65, [5, 5, 5]),
    (1, 2, 3, 37, [4] * 13 + [2] * 12),
    (2, 1, 33, 128, list(range(1, 8))),
]
IDS = ["ragged", "one", "wide", "tiles", "chunks"]


@pytest.fixture
def backend(backend: str) -> str:
    """The backends that have the op."""
    reason = native.why_not("task_gru_layer", "cpu") if backend == "native" else ""
    if reason:
        pytest.skip(reason)
    return backend


def problem(
    sizes: tuple[int, int, int, int, list[int]], dtype: torch.dtype, shared: bool = True
) -> tuple[Any, ...]:
    """x, the weights and biases, starts and lengths; two rows between sequences belong to none."""
    tasks, directions, inputs, hidden, lengths = sizes
    ends = (torch.tensor(lengths, dtype=torch.int64) + 2).cumsum(0)
    rows = int(ends[-1]) if lengths else 0
    x = torch.randn((rows, inputs) if shared else (tasks, rows, inputs))
    bound = hidden**-0.5
    weights = [
        torch.empty(tasks, directions, 3 * hidden, *tail).uniform_(-bound, bound)
        for tail in ((inputs,), (hidden,), (), ())
    ]
    count = torch.tensor(lengths, dtype=torch.int64)
    return *(t.to(dtype) for t in (x, *weights)), ends - count - 2, count


def derivatives(
    arguments: tuple[Any, ...], seed: Tensor, recompute: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The states and the gradients of all that has one."""
    leaves = [argument.detach().requires_grad_() for argument in arguments[:5]]
    output = task_gru_layer(*leaves, *arguments[5:], recompute=recompute)
    return output, torch.autograd.grad((output * seed).sum(), leaves)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("sizes", SIZES, ids=IDS)
def test_agrees_with_torch_in_float64(
    backend: str, sizes: tuple[int, int, int, int, list[int]], shared: bool, dtype: torch.dtype
) -> None:
    arguments = problem(sizes, dtype, shared)
    rows = arguments[0].shape[-2]
    seed = torch.randn(sizes[0], rows, sizes[1] * sizes[3]).to(dtype)
    output, grads = derivatives(arguments, seed)
    assert output.dtype == dtype
    with fastmtl.use_backend("reference"):
        exact = tuple(argument.double() for argument in arguments[:5]) + arguments[5:]
        wanted, wanted_grads = derivatives(exact, seed.double())
    assert_close(output, wanted, dtype)
    for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
        assert grad.dtype == dtype
        assert_close(grad, wanted_grad, dtype)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_equations_of_the_reference(shared: bool) -> None:
    arguments = problem(SIZES[0], torch.float64, shared)
    leaves = [argument.requires_grad_() for argument in arguments[:5]]
    tail = arguments[5:]
    wanted = reference.task_gru_layer(*leaves, *tail)
    with torch.no_grad():
        output, gates, hidden_n = reference.task_gru_layer_forward(*leaves, *tail, True)
    assert_close(output, wanted)
    seed = torch.randn_like(output)
    wanted_grads = torch.autograd.grad((wanted * seed).sum(), leaves)
    x, weight_ih, weight_hh = (leaf.detach() for leaf in leaves[:3])
    saved = (output, gates, hidden_n, x, weight_ih, weight_hh, *tail)
    grads = reference.task_gru_layer_backward(seed, *saved, [True, True, True])
    for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
        assert_close(grad, wanted_grad)


@pytest.fixture
def one_task_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_WORTHWHILE", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("sizes", SIZES, ids=IDS)
@pytest.mark.usefixtures("one_task_at_a_time")
def test_tasks_in_parts(
    backend: str, sizes: tuple[int, int, int, int, list[int]], shared: bool, recompute: bool
) -> None:
    arguments = problem(sizes, torch.float64, shared)
    seed = torch.randn(sizes[0], arguments[0].shape[-2], sizes[1] * sizes[3]).double()
    output, grads = derivatives(arguments, seed, recompute)
    with torch.no_grad():
        assert_close(task_gru_layer(*arguments), output)
    with fastmtl.use_backend("reference"):
        wanted, wanted_grads = derivatives(arguments, seed)
    assert_close(output, wanted)
    for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
        assert_close(grad, wanted_grad)


@pytest.mark.parametrize(("threads", "tasks"), [(1, 1), (2, 1), (3, 3), (4, 2), (64, 7)])
def test_parts_keep_the_threads_busy(
    monkeypatch: pytest.MonkeyPatch, threads: int, tasks: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    weight = torch.empty(7, 2, 192, 64, device="meta")
    found = parts.task_parts(torch.empty(6000, 1), weight)
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(7))
    assert found[0].stop == tasks
    assert len(parts.task_parts(torch.empty(10, 1), weight)) == 1


@pytest.mark.parametrize("recompute", [False, True])
def test_what_backward_keeps(recompute: bool) -> None:
    if fastmtl.backends.unavailable("native"):
        pytest.skip("torch's own GRU keeps what it likes")
    arguments = problem(SIZES[0], torch.float64)
    for argument in arguments[:5]:
        argument.requires_grad_()
    kept: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        kept.add(tensor.data_ptr() if tensor.numel() else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        task_gru_layer(*arguments, recompute=recompute)
    kept -= {0, *(argument.data_ptr() for argument in arguments)}
    assert len(kept) == (0 if recompute else 3)


def test_small_and_large_gates_keep_their_accuracy(backend: str) -> None:
    # One step from a zero state: the states are z-weighted tanh(x), down to tiny x.
    x = torch.tensor([1e-30, -1e-20, 1e-8, -1e-4, 0.01, -0.3, 0.4, 3.0, -9.0, 50.0, -2e4])
    weight_ih = torch.tensor([0.0, 0.0, 1.0]).view(1, 1, 3, 1)
    weight_hh, bias = torch.zeros(1, 1, 3, 1), torch.zeros(1, 1, 3)
    starts = torch.arange(len(x))
    lengths = torch.ones_like(starts)
    states = task_gru_layer(x[:, None], weight_ih, weight_hh, bias, bias, starts, lengths)
    wanted = torch.tanh(x.double()) / 2
    torch.testing.assert_close(states.flatten().double(), wanted, rtol=1e-6, atol=0)


def test_gradcheck(backend: str) -> None:
    arguments = problem((2, 2, 3, 2, [3, 1]), torch.float64)
    leaves = [argument.requires_grad_() for argument in arguments[:5]]
    torch.autograd.gradcheck(lambda *args: task_gru_layer(*args, *arguments[5:]), leaves)


def test_rows_of_no_sequence(backend: str) -> None:
    arguments = problem(SIZES[0], torch.float32)
    *_, starts, lengths = arguments
    covered = torch.zeros(arguments[0].shape[0], dtype=torch.bool)
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        covered[start : start + length] = True
    output, grads = derivatives(arguments, torch.randn(3, len(covered), 8))
    assert (output[:, ~covered] == 0).all()
    assert (grads[0][~covered] == 0).all()
    other = arguments[0].masked_fill(~covered[:, None], 7.0)
    assert task_gru_layer(other, *arguments[1:]).equal(output)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_no_sequences(backend: str, shared: bool) -> None:
    arguments = problem((2, 2, 4, 3, []), torch.float32, shared)
    assert task_gru_layer(*arguments).shape == (2, 0, 6)
    if backend != "reference":
        _, grads = derivatives(arguments, torch.zeros(2, 0, 6))
        assert all((grad == 0).all() for grad in grads)


def test_order_of_sequences(backend: str) -> None:
    arguments = problem(SIZES[3], torch.float64)
    *values, starts, lengths = arguments
    order = torch.randperm(len(starts))
    assert_close(task_gru_layer(*values, starts[order], lengths[order]), task_gru_layer(*arguments))


def test_strides(backend: str) -> None:
    arguments = problem(SIZES[2], torch.float64, shared=False)
    seed = torch.randn(130, 21, 2, dtype=torch.float64).permute(2, 1, 0)
    strided = tuple(argument.mT.contiguous().mT for argument in arguments[:4])
    strided += (arguments[4].transpose(0, 2).contiguous().transpose(0, 2), *arguments[5:])
    output, grads = derivatives(strided, seed)
    wanted, wanted_grads = derivatives(arguments, seed.contiguous())
    assert_close(output, wanted)
    for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
        assert_close(grad, wanted_grad)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("frozen", range(5))
@pytest.mark.usefixtures("one_task_at_a_time")
def test_no_gradient_where_nobody_wants_one(
    backend: str, frozen: int, shared: bool, recompute: bool
) -> None:
    arguments = problem(SIZES[0], torch.float64, shared)
    leaves = [argument.requires_grad_(i != frozen) for i, argument in enumerate(arguments[:5])]
    task_gru_layer(*leaves, *arguments[5:], recompute=recompute).sum().backward()
    assert [leaf.grad is None for leaf in leaves] == [i == frozen for i in range(5)]


@pytest.mark.parametrize("recompute", [False, True])
def test_twice_on_a_retained_graph_and_from_run_to_run(backend: str, recompute: bool) -> None:
    arguments = problem(SIZES[3], torch.float32)
    leaves = [argument.requires_grad_() for argument in arguments[:5]]
    output = task_gru_layer(*leaves, *arguments[5:], recompute=recompute)
    first = torch.autograd.grad(output.square().sum(), leaves, retain_graph=True)
    second = torch.autograd.grad(output.square().sum(), leaves)
    again = task_gru_layer(*leaves, *arguments[5:], recompute=recompute)
    third = torch.autograd.grad(again.square().sum(), leaves)
    assert again.equal(output)
    for a, b, c in zip(first, second, third, strict=True):
        assert a.equal(b)
        assert a.equal(c)


def test_products_by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(gemm, "_mkl_is_held_back", lambda: True)
    monkeypatch.setattr(gemm, "_SMALL", 0)
    monkeypatch.setattr(gemm, "_LARGE", 1000)
    wide = torch.randn(3, 40, 64)
    for a, b in ((wide[:, :, :32], wide[:, :32]), (wide.mT, wide), (wide, wide.mT)):
        for product, wanted in (
            (gemm.bmm(a, b), torch.bmm(a.double(), b.double())),
            (gemm.matmul(a[0], b[0]), a[0].double() @ b[0].double()),
        ):
            assert_close(product, wanted)


def test_checkpointed(backend: str) -> None:
    arguments = problem(SIZES[0], torch.float64)
    leaves = [argument.requires_grad_() for argument in arguments[:5]]
    output = torch.utils.checkpoint.checkpoint(
        task_gru_layer, *leaves, *arguments[5:], use_reentrant=False
    )
    grads = torch.autograd.grad(output.square().sum(), leaves)
    wanted = task_gru_layer(*leaves, *arguments[5:])
    for grad, other in zip(grads, torch.autograd.grad(wanted.square().sum(), leaves), strict=True):
        assert_close(grad, other)


@pytest.mark.parametrize("recompute", [False, True])
def test_second_derivative(recompute: bool) -> None:
    if fastmtl.backends.unavailable("native"):
        pytest.skip("the reference differentiates twice")
    arguments = problem(SIZES[0], torch.float64)
    x = arguments[0].requires_grad_()
    output = task_gru_layer(*arguments, recompute=recompute)
    (grad,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("differentiated", [True, False])
def test_registered_op(backend: str, differentiated: bool, keep: bool, shared: bool) -> None:
    arguments = problem(SIZES[0], torch.float64, shared)
    if differentiated:
        for argument in arguments[:5]:
            argument.requires_grad_()
    torch.library.opcheck(torch.ops.fastmtl.task_gru_layer.default, (*arguments, keep))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_compiled(backend: str, shared: bool, recompute: bool) -> None:
    arguments = problem(SIZES[0], torch.float64, shared)
    leaves = [argument.requires_grad_() for argument in arguments[:5]]
    compiled = torch.compile(task_gru_layer, fullgraph=True, backend="aot_eager")
    output, wanted = (
        function(*leaves, *arguments[5:], recompute=recompute)
        for function in (compiled, task_gru_layer)
    )
    assert_close(output, wanted)
    grads, wanted_grads = (
        torch.autograd.grad(states.square().sum(), leaves) for states in (output, wanted)
    )
    for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
        assert_close(grad, wanted_grad)
    with torch.no_grad():
        assert_close(compiled(*leaves, *arguments[5:]), wanted)


def test_autocast_computes_in_the_widest_dtype(backend: str) -> None:
    x, *others = problem(SIZES[0], torch.float32)
    narrow = x.bfloat16()
    if backend != "reference":
        with torch.autocast("cpu", torch.bfloat16):
            output = task_gru_layer(narrow, *others)
        assert_close(output, task_gru_layer(narrow.float(), *others).double(), torch.float32)
    with pytest.raises(TypeError, match="weight_ih: expected the dtype of x"):
        task_gru_layer(narrow, *others)


@pytest.mark.parametrize(
    ("position", "value", "error", "message"),
    [
        (0, torch.ones(4), ValueError, r"x: expected shape \(R, I\) or \(T, R, I\) with T = 2"),
        (0, torch.ones(3, 9, 4), ValueError, "x: expected shape"),
        (0, torch.ones(9, 4).int(), TypeError, "x: expected float32"),
        (1, torch.ones(2, 1, 9, 5), ValueError, r"weight_ih: expected \(T, dirs, 3h, I\)"),
        (2, torch.ones(2, 1, 9, 4), ValueError, r"weight_hh: expected shape \(T, dirs, 3h, h\)"),
        (2, torch.ones(2, 3, 9, 3), ValueError, "weight_hh: expected 1 or 2 directions"),
        (3, torch.ones(2, 1, 8), ValueError, "bias_ih: expected"),
        (4, torch.ones(2, 9), ValueError, "bias_hh: expected"),
        (4, torch.ones(2, 1, 9).double(), TypeError, "bias_hh: expected the dtype of x"),
        (4, torch.ones(2, 1, 9, device="meta"), ValueError, "bias_hh: expected the device of x"),
        (5, torch.tensor([0]), ValueError, "starts: expected"),
        (5, torch.tensor([0.0, 5.0]), TypeError, "starts: expected int64 on the CPU"),
        (5, torch.tensor([-1, 5]), ValueError, "lengths: expected sequences that lie in 9 rows"),
        (5, torch.tensor([0, 3]), ValueError, "do not overlap"),
        (6, torch.tensor([4, 5]), ValueError, "lengths: expected sequences that lie in 9 rows"),
        (6, torch.tensor([0, 2]), ValueError, "lengths: expected lengths of at least 1, got 0"),
        (6, None, TypeError, "lengths: expected a tensor"),
    ],
)
def test_wrong_arguments(position: int, value: Any, error: type[Exception], message: str) -> None:
    arguments: list[Any] = [
        torch.ones(9, 4),
        torch.ones(2, 1, 9, 4),
        torch.ones(2, 1, 9, 3),
        torch.ones(2, 1, 9),
        torch.ones(2, 1, 9),
        torch.tensor([0, 5]),
        torch.tensor([4, 2]),
    ]
    arguments[position] = value
    with pytest.raises(error, match=message):
        task_gru_layer(*arguments)
