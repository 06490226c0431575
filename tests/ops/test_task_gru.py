from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from fastmtl.backends import task_gru as parts
from fastmtl.ops.task_gru import task_gru_layer
from tests.axes import one_at_a_time
from tests.conftest import ON_GPUS, running_on
from tests.problems import (
    RAGGED,
    Problem,
    check,
    closed_form,
    exact,
    seeds_for,
    solve,
    task_gru_problem,
)
from tests.tolerances import assert_close

F64 = torch.float64
# T, dirs, h and the lengths: tiles, blocks and vectors that are full, started and exceeded.
SMALL = (3, 2, 4, RAGGED)
ONE = (1, 1, 1, [1])
WIDE = (2, 2, 65, [5, 5, 5])
TILES = (1, 2, 37, [4] * 13 + [2] * 12)
CHUNKS = (2, 1, 128, list(range(1, 8)))

# Triton has no kernel for it.
NATIVE = ["native", ON_GPUS[0]]
native_alone = pytest.mark.parametrize("backend", NATIVE, indirect=True)


@pytest.fixture(params=["reference", *NATIVE])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The backends that have the op."""
    with running_on(request.param) as name:
        yield name


def problem_of(sizes: tuple[Any, ...], dtype: torch.dtype, **options: Any) -> Problem:
    return task_gru_problem(*sizes, dtype=dtype, **options)


CASES = one_at_a_time(
    {"sizes": TILES, "dtype": torch.float32, "shared": True, "recompute": False},
    {
        "sizes": [SMALL, ONE, WIDE, CHUNKS],
        "dtype": [F64, torch.bfloat16, torch.float16],
        "shared": [False],
        "recompute": [True],
        "gap": [0],
        "inputs": [1, 33],
    },
    {"sizes": SMALL, "shared": False, "recompute": True},
    *({"sizes": sizes, "dtype": F64, "shared": False} for sizes in (WIDE, CHUNKS)),
    {"sizes": CHUNKS, "dtype": torch.bfloat16, "recompute": True},
)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_torch_in_float64(kernels: str, case: dict[str, Any]) -> None:
    assert check(problem_of(**case)) == (case["dtype"],)


def test_definition(backend: str) -> None:
    problem = task_gru_problem(2, 2, 4, RAGGED, F64)
    (states,) = problem.outputs()
    x = problem.leaves["x"]
    rows = [
        slice(int(start), int(start + length))
        for start, length in zip(problem.others["starts"], problem.others["lengths"], strict=True)
    ]
    for task in range(2):
        gru = torch.nn.GRU(5, 4, bidirectional=True, dtype=F64)
        for suffix, direction in (("", 0), ("_reverse", 1)):
            for name, weight in list(problem.leaves.items())[1:]:
                getattr(gru, f"{name}_l0{suffix}").data = weight[task, direction]
        wanted, _ = gru(pack_sequence([x[own] for own in rows], enforce_sorted=False))
        for own, sequence in zip(rows, torch.nn.utils.rnn.unpack_sequence(wanted), strict=True):
            assert_close(states[task, own], sequence.detach())


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_closed_form_of_the_reference_is_its_derivative(shared: bool) -> None:
    problem = task_gru_problem(*SMALL, dtype=F64, shared=shared)
    seeds = seeds_for(problem)
    for one, other in zip(closed_form(problem, seeds), exact(problem, seeds), strict=True):
        assert_close(one, other)


@pytest.fixture
def one_task_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_WORTHWHILE", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@pytest.mark.parametrize(
    ("sizes", "shared", "recompute"),
    [
        (SMALL, True, False),
        (SMALL, False, True),
        (WIDE, True, True),
        (WIDE, False, False),
        (CHUNKS, True, True),
        (CHUNKS, False, True),
    ],
    ids=str,
)
@native_alone
@pytest.mark.usefixtures("one_task_at_a_time")
def test_tasks_in_parts(
    backend: str, sizes: tuple[Any, ...], shared: bool, recompute: bool
) -> None:
    problem = problem_of(sizes, F64, shared=shared, recompute=recompute)
    check(problem)
    with torch.no_grad():
        assert_close(problem.outputs()[0], exact(problem)[0])


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@native_alone
@pytest.mark.usefixtures("one_task_at_a_time")
def test_no_gradient_in_parts_where_nobody_wants_one(backend: str, shared: bool) -> None:
    for frozen in range(5):
        problem = task_gru_problem(*SMALL, dtype=F64, shared=shared, recompute=True)
        problem = problem.differentiable()
        leaves = list(problem.leaves.values())
        leaves[frozen].requires_grad_(False)
        problem.outputs()[0].sum().backward()
        assert [leaf.grad is None for leaf in leaves] == [i == frozen for i in range(5)]


@pytest.mark.parametrize("recompute", [False, True])
@native_alone
def test_what_backward_keeps(backend: str, recompute: bool) -> None:
    problem = task_gru_problem(*SMALL, dtype=F64, recompute=recompute).differentiable()
    kept: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        kept.add(tensor.data_ptr() if tensor.numel() else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        problem.outputs()
    kept -= {0, *(argument.data_ptr() for argument in problem.tensors().values())}
    assert len(kept) == (0 if recompute else 3)


def test_small_and_large_gates_keep_their_accuracy(kernels: str) -> None:
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
    problem = task_gru_problem(1, 2, 2, [3, 1], F64, inputs=2).differentiable()
    torch.autograd.gradcheck(
        lambda *leaves: problem.put(**dict(zip(problem.leaves, leaves, strict=True))).outputs(),
        tuple(problem.leaves.values()),
    )


lengths_of = st.lists(st.integers(1, 6), min_size=1, max_size=6)


@given(lengths_of)
def test_rows_of_no_sequence_are_not_read(backend: str, lengths: list[int]) -> None:
    problem = task_gru_problem(2, 2, 4, lengths)
    x, others = problem.leaves["x"], problem.others
    covered = torch.zeros(len(x), dtype=torch.bool)
    for start, length in zip(others["starts"].tolist(), lengths, strict=True):
        covered[start : start + length] = True
    output, grad_x, *_ = solve(problem, seeds_for(problem))
    assert (output[:, ~covered] == 0).all()
    assert (grad_x[~covered] == 0).all()
    other = problem.put(x=x.masked_fill(~covered[:, None], 7.0))
    assert other.outputs()[0].equal(output)


@given(lengths_of)
def test_sequences_do_not_see_each_other(backend: str, lengths: list[int]) -> None:
    """Each alone gives what it gives among the others, in whatever order they stand."""
    problem = task_gru_problem(2, 2, 4, lengths, F64)
    starts, count = problem.others["starts"], problem.others["lengths"]
    order = torch.randperm(len(lengths))
    (states,) = problem.outputs()
    assert_close(problem.put(starts=starts[order], lengths=count[order]).outputs()[0], states)
    for start, length in zip(starts.tolist(), lengths, strict=True):
        rows = slice(start, start + length)
        alone = problem.put(
            x=problem.leaves["x"][rows], starts=torch.tensor([0]), lengths=torch.tensor([length])
        )
        assert_close(alone.outputs()[0], states[:, rows])


@given(lengths_of)
def test_the_second_direction_is_the_first_in_reverse_time(
    backend: str, lengths: list[int]
) -> None:
    problem = task_gru_problem(2, 2, 4, lengths, F64)
    starts, count = problem.others["starts"], problem.others["lengths"]
    row = torch.arange(len(problem.leaves["x"]))
    for start, length in zip(starts.tolist(), count.tolist(), strict=True):
        row[start : start + length] = row[start : start + length].flip(0)
    turned = {
        name: leaf[row] if name == "x" else leaf.flip(1) for name, leaf in problem.leaves.items()
    }
    seeds = seeds_for(problem)
    states, *grads = solve(problem, seeds)
    swapped = seeds[0].unflatten(2, (2, 4)).flip(2).flatten(2)[:, row]
    reversed_states, *reversed_grads = solve(problem.put(**turned), [swapped])
    assert_close(reversed_states[:, row].unflatten(2, (2, 4)).flip(2).flatten(2), states)
    for name, one, other in zip(problem.leaves, reversed_grads, grads, strict=True):
        assert_close(one[row] if name == "x" else one.flip(1), other)


@given(lengths_of)
def test_tasks_can_be_permuted(backend: str, lengths: list[int]) -> None:
    problem = task_gru_problem(3, 1, 4, lengths, F64, shared=False)
    order, seeds = torch.randperm(3), seeds_for(problem)
    permuted = problem.changed(lambda leaf: leaf[order])
    for one, other in zip(
        solve(permuted, [seed[order] for seed in seeds]), solve(problem, seeds), strict=True
    ):
        assert_close(one, other[order])


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_no_sequences(backend: str, shared: bool) -> None:
    problem = task_gru_problem(2, 2, 3, [], shared=shared)
    assert problem.outputs()[0].shape == (2, 0, 6)
    if backend != "reference":
        assert all((grad == 0).all() for grad in solve(problem)[1:])


def test_hidden_states_of_both_directions_lie_side_by_side(backend: str) -> None:
    problem = task_gru_problem(2, 2, 3, RAGGED, F64)
    (both,) = problem.outputs()
    (first,) = problem.changed(lambda leaf: leaf if leaf.dim() == 2 else leaf[:, :1]).outputs()
    assert_close(both[..., :3], first)


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
        (5, torch.tensor([0.0, 5.0]), TypeError, "starts: expected int64, got"),
        (5, torch.tensor([0, 5], device="meta"), ValueError, "starts: expected a tensor on"),
        (6, torch.tensor([5, 2], device="meta"), ValueError, "lengths: expected a tensor on"),
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
