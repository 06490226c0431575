"""Norms and Gramians of all shared parameters, or of some layers, against one gradient per task."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastmtl.nn import SharedLinear, TaskFork, TaskGRU, _trunk
from fastmtl.nn._uses import Uses
from tests.balancing.networks import NoHostSync
from tests.tolerances import assert_close

T = 5
F64 = torch.float64


class Mean(nn.Module):
    def __init__(self, dim: int | tuple[int, ...]) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dim)


class Tied(nn.Module):
    """One layer twice, and a matrix that is multiplied from the left and once more as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.matrix = nn.Linear(6, 6), nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.twice(self.twice(x).tanh()) @ self.matrix
        return hidden * self.matrix.diagonal()


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8, padding_idx=0)
        self.position = nn.Parameter(torch.randn(7, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, dropout=0.1)
        self.cross = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(self.embedding(x) + self.position)
        return self.cross(hidden, x.unsqueeze(2) * hidden, hidden)[0].mean(1)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 5, bias=False))


def image() -> nn.Module:
    # The first convolution has more places than features, the last ones fewer.
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, (3, 2), stride=2, dilation=(1, 2)),
        nn.GroupNorm(2, 8),
        nn.Conv2d(8, 8, 2, padding="same", groups=2),
        nn.Conv2d(8, 4, 3, bias=False),
        nn.Flatten(),
    )


def signal() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(9, 8, 3, padding=2, stride=2),
        nn.ConvTranspose1d(8, 6, 2),
        nn.InstanceNorm1d(6, affine=True),
        nn.PReLU(),
        nn.Conv1d(6, 5, 2, dilation=2, bias=False),
        Mean(2),
    )


def recurrent() -> nn.Module:
    return nn.GRU(6, 4, bidirectional=True, batch_first=True)


def table() -> nn.Module:
    return nn.Sequential(nn.Embedding(11, 4, scale_grad_by_freq=True), Mean(1))


Trunk = tuple[Callable[[], nn.Module], Callable[[], Tensor]]
TRUNKS: dict[str, Trunk] = {
    "mlp": (mlp, lambda: torch.randn(7, 6)),
    "rows": (mlp, lambda: torch.randn(2, 7, 6)),
    "image": (image, lambda: torch.randn(2, 3, 9, 9)),
    "signal": (signal, lambda: torch.randn(2, 9, 6)),
    "transformer": (Transformer, lambda: torch.randint(0, 11, (3, 7))),
    "tied": (Tied, lambda: torch.randn(7, 6)),
    "recurrent": (recurrent, lambda: torch.randn(3, 4, 6)),
    "table": (table, lambda: torch.randint(0, 11, (3, 7))),
}
every_trunk = pytest.mark.parametrize("name", TRUNKS)


def made(name: str, dtype: torch.dtype = F64) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, batch = TRUNKS[name]
    x = batch()
    return make().to(dtype), x.to(dtype) if x.is_floating_point() else x


def output(trunk: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(1)  # dropout
    z = trunk(x)
    return z[0] if isinstance(z, tuple) else z


def losses_of(views: Tensor) -> Tensor:
    scale = torch.linspace(0.5, 2, views[0].numel(), dtype=views.dtype).view(views[0].shape)
    return torch.stack([((j + scale) * v).tanh().sum() for j, v in enumerate(views)])


def expected(losses: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """The Gramian, from one backward pass per task."""
    rows = []
    for loss in losses:
        grads = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([grad.flatten() for grad in grads]))
    stacked = torch.stack(rows).double()
    return stacked @ stacked.T


def flat(module: nn.Module) -> Tensor:
    """All gradients of a module."""
    grads = [parameter.grad for parameter in module.parameters()]
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


def same(actual: Tensor, wanted: Tensor, tolerance: float = 1e-12) -> None:
    assert (actual.double() - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.fixture(params=["together", "in groups", "one by one"])
def grouped(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    size = {"together": T, "in groups": 2, "one by one": 1}[request.param]
    monkeypatch.setattr(_trunk, "_group_size", lambda uses, *_: size if uses.together else 1)
    return size < T


@every_trunk
@pytest.mark.parametrize("watch", ["norms", "gramian"])
def test_trunk(name: str, watch: Any, grouped: bool) -> None:
    trunk, x = made(name)
    twin = copy.deepcopy(trunk)
    fork = TaskFork(T)
    fork.scope, fork.watch = "trunk", watch
    losses = losses_of(fork(output(trunk, x)))
    losses.sum().backward()
    plain = losses_of(torch.stack([output(twin, x)] * T))
    wanted = expected(plain, list(twin.parameters()))
    same(fork.task_grad_norms(), wanted.diagonal().sqrt())
    if watch == "gramian":
        same(fork.task_grad_gramian(), wanted)
        assert fork.task_grad_gramian().equal(fork.task_grad_gramian().T)
    plain.sum().backward()
    same(flat(trunk), flat(twin))


def test_shared_linear_is_part_of_its_trunk() -> None:
    trunk, x = made("mlp")
    layer = SharedLinear(5, 4, T).double()
    parameters = [*trunk.parameters(), *layer.parameters()]
    layer.watch = "gramian"
    for scope, of in (
        ("trunk", parameters),
        ([layer], list(layer.parameters())),
        ([trunk[0], layer], [*trunk[0].parameters(), *layer.parameters()]),
    ):
        layer.scope = scope
        losses = losses_of(layer(trunk(x)))
        # A watched layer has no second gradient, and expands what it splits.
        wanted = expected(losses_of(torch.stack([layer._output(trunk(x))] * T)), of)
        losses.sum().backward()
        same(layer.task_grad_gramian(), wanted)


@pytest.mark.parametrize("index", [0, 1, 3, 4, 5, 6])
def test_one_layer(index: int, grouped: bool) -> None:
    """A convolution or a norm as the layer at which gradients are looked at."""
    trunk, x = made("image")
    fork = TaskFork(T)
    fork.watch = "gramian"
    fork.scope = [trunk[index]]
    losses = losses_of(fork(trunk(x)))
    losses.sum().backward()
    plain = losses_of(torch.stack([trunk(x)] * T))
    same(fork.task_grad_gramian(), expected(plain, list(trunk[index].parameters())))


def test_the_weighting_gets_it_and_combines_all_below() -> None:
    trunk, x = made("mlp")
    seen = []
    fork = TaskFork(T)
    fork.scope = "trunk"
    fork.weighting = lambda gramian: seen.append(gramian) or torch.arange(1.0, T + 1, dtype=F64)
    plain = losses_of(torch.stack([trunk(x)] * T))
    wanted = expected(plain, list(trunk.parameters()))
    weighted = (torch.arange(1.0, T + 1, dtype=F64) * plain).sum()
    grads = torch.autograd.grad(weighted, list(trunk.parameters()))
    losses_of(fork(trunk(x))).sum().backward()
    same(seen[0], wanted)
    for parameter, grad in zip(trunk.parameters(), grads, strict=True):
        assert_close(parameter.grad, grad)


def test_frozen_parameters_are_left_out() -> None:
    trunk, x = made("mlp")
    trunk[0].weight.requires_grad_(False)
    trunk[2].bias.requires_grad_(False)
    fork = TaskFork(T)
    fork.scope, fork.watch = "trunk", "gramian"
    plain = losses_of(torch.stack([trunk(x)] * T))
    wanted = expected(plain, [p for p in trunk.parameters() if p.requires_grad])
    losses_of(fork(trunk(x))).sum().backward()
    same(fork.task_grad_gramian(), wanted)


@pytest.mark.parametrize("name", ["mlp", "image", "transformer"])
@pytest.mark.parametrize("amp", [False, True])
def test_single_and_half_precision(name: str, amp: bool, grouped: bool) -> None:
    trunk, x = made(name, torch.float32)
    fork = TaskFork(T)
    fork.scope, fork.watch = "trunk", "gramian"
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        plain = losses_of(torch.stack([output(trunk, x)] * T))
        wanted = expected(plain, list(trunk.parameters()))
        losses_of(fork(output(trunk, x))).sum().backward()
    assert fork.task_grad_gramian().dtype == torch.float32
    same(fork.task_grad_gramian(), wanted, 0.1 if amp else 1e-4)


@pytest.mark.parametrize(
    ("largest", "parameters", "cuda", "size"),
    [
        (1 << 12, 0, False, T),  # small enough to share calls
        (1 << 17, 0, False, 1),  # as cheap one by one
        (1 << 17, 0, True, T),
        (1 << 23, 0, True, 2),
        (1 << 17, 1 << 19, False, T),  # one by one would keep more than is on its way
    ],
)
def test_how_many_go_together(largest: int, parameters: int, cuda: bool, size: int) -> None:
    others = [nn.Parameter(torch.zeros(parameters))]
    assert _trunk._group_size(Uses(others=others, largest=largest), T, cuda) == size
    assert _trunk._group_size(Uses(largest=largest, together=False), T, cuda) == 1


def test_hooks_on_the_way_count(grouped: bool) -> None:
    trunk, x = made("mlp")
    for layer in (trunk[0], trunk[3]):
        layer.register_forward_hook(
            lambda layer, _, y: y.register_hook(lambda grad: 3 * grad) and None
        )
    fork = TaskFork(T)
    fork.scope, fork.watch = "trunk", "gramian"
    plain = losses_of(torch.stack([trunk(x)] * T))
    wanted = expected(plain, list(trunk.parameters()))
    losses_of(fork(trunk(x))).sum().backward()
    same(fork.task_grad_gramian(), wanted)


def test_native_layers_take_one_task_at_a_time() -> None:
    torch.manual_seed(0)
    trunk, x = TaskGRU(6, 4, num_tasks=1).double(), torch.randn(3, 4, 6, dtype=F64)
    fork = TaskFork(T)
    fork.scope, fork.watch = "trunk", "gramian"
    plain = losses_of(torch.stack([trunk(x)] * T))
    wanted = expected(plain, list(trunk.parameters()))
    losses_of(fork(trunk(x))).sum().backward()
    same(fork.task_grad_gramian(), wanted)


def test_no_gradient_is_kept_between_steps() -> None:
    trunk, x = made("mlp")
    fork = TaskFork(T)
    fork.scope, fork.watch = "trunk", "gramian"
    for _ in range(2):
        losses_of(fork(trunk(x))).sum().backward()
        first = fork.task_grad_gramian()
    losses_of(fork(trunk(2 * x))).sum().backward()
    assert not fork.task_grad_gramian().equal(first)


@pytest.mark.parametrize("name", ["image", "transformer", "tied"])
def test_nothing_waits_for_the_device(name: str, grouped: bool) -> None:
    trunk, x = made(name)
    fork = TaskFork(T)
    fork.scope, fork.watch = "trunk", "gramian"
    losses = losses_of(fork(output(trunk, x))).sum()
    with NoHostSync():
        losses.backward()


def test_a_second_use_is_refused() -> None:
    trunk, x = made("mlp")
    fork = TaskFork(T)
    fork.scope, fork.watch = "trunk", "norms"
    losses = losses_of(fork(trunk(x))) + losses_of(fork(trunk(x[:3])))
    with pytest.raises(RuntimeError, match="TaskFork: with a scope beyond the layer"):
        losses.sum().backward()


def test_nothing_below_is_refused() -> None:
    fork = TaskFork(T)
    fork.scope, fork.watch = "trunk", "norms"
    losses = losses_of(fork(torch.randn(3, 4, dtype=F64, requires_grad=True)))
    with pytest.raises(RuntimeError, match="scope: expected layers below the shared one"):
        losses.sum().backward()


def test_a_compiled_trunk_is_refused() -> None:
    trunk, x = made("mlp")
    fork = TaskFork(T)
    fork.scope, fork.watch = "trunk", "norms"
    losses = losses_of(fork(torch.compile(trunk, backend="aot_eager")(x)))
    with pytest.raises(RuntimeError, match=r"scope: .* torch\.compile made one node of them"):
        losses.sum().backward()


def test_a_checkpointed_trunk() -> None:
    trunk, x = made("mlp")
    fork = TaskFork(T)
    fork.scope, fork.watch = "trunk", "gramian"
    plain = losses_of(torch.stack([trunk(x)] * T))
    wanted = expected(plain, list(trunk.parameters()))
    losses_of(fork(checkpoint(trunk, x, use_reentrant=False))).sum().backward()
    same(fork.task_grad_gramian(), wanted)


def test_copies_keep_what_a_user_set() -> None:
    net = nn.ModuleDict({"trunk": mlp(), "fork": TaskFork(T)}).double()
    fork = net["fork"]
    fork.watch, fork.scope = "gramian", [net["trunk"][0]]
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert copied["fork"].scope == (copied["trunk"][0],)
    assert len(net.state_dict()) == len(copied.state_dict())


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (
            "whole",
            ValueError,
            'scope: expected "layer", "trunk" or a list of modules, got \'whole\'',
        ),
        ([], TypeError, 'scope: expected "layer", "trunk" or a list of modules, got list'),
        (nn.Linear(2, 2), TypeError, "scope: .* got Linear"),
        (["trunk.0"], ValueError, "scope: expected modules, got 'trunk.0' without a model"),
        ([nn.ReLU()], ValueError, "scope: expected modules with parameters, got ReLU without"),
        ([3], TypeError, "scope: expected modules or their names, got int"),
    ],
)
def test_wrong_scopes(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TaskFork(T).scope = value
