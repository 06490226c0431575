"""SharedLinear and TaskFork against one autograd.grad for each task."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastmtl.nn.shared import SharedLinear, TaskFork
from tests.tolerances import assert_close

T, I, O = 4, 5, 3  # noqa: E741
F64 = torch.float64


class GRUTrunk(nn.Module):
    """(B, L, I) -> (B, L, I): several leading sizes, and a shared layer after a recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(I, I, bidirectional=True, batch_first=True)
        self.out = nn.Linear(2 * I, I)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.gru(x)[0]).tanh()


def make_trunk(kind: str) -> tuple[nn.Module, Tensor]:
    if kind == "mlp":
        return nn.Sequential(nn.Linear(I, I), nn.Tanh()).double(), torch.randn(7, I, dtype=F64)
    return GRUTrunk().double(), torch.randn(2, 6, I, dtype=F64)


def make_heads() -> nn.ModuleList:
    return nn.ModuleList(nn.Sequential(nn.Linear(O, 2), nn.Tanh()) for _ in range(T)).double()


def task_losses(heads: nn.ModuleList, views: Tensor | tuple[Tensor, ...]) -> Tensor:
    return torch.stack(
        [(j + 1) * head(y).square().mean() for j, (head, y) in enumerate(zip(heads, views))]  # noqa: B905
    )


def flat_grads(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    grads = torch.autograd.grad(loss, parameters, retain_graph=True)
    return torch.cat([grad.flatten() for grad in grads])


def split(layer: SharedLinear | TaskFork, form: str) -> Callable[[Tensor], Tensor]:
    return layer.views if form == "views" else layer


@pytest.fixture
def layer() -> SharedLinear:
    return SharedLinear(I, O, T).double()


@pytest.mark.parametrize("kind", ["mlp", "gru"])
@pytest.mark.parametrize("form", ["tensor", "views"])
@pytest.mark.parametrize("watch", [None, "norms", "gramian"])
def test_matches_one_gradient_per_task(
    layer: SharedLinear, kind: str, form: str, watch: str | None
) -> None:
    trunk, x = make_trunk(kind)
    heads = make_heads()
    plain = nn.functional.linear(trunk(x), layer.weight, layer.bias)
    losses = task_losses(heads, (plain,) * T)
    grads = torch.stack([flat_grads(loss, [layer.weight]) for loss in losses])
    parameters = [*trunk.parameters(), *layer.parameters(), *heads.parameters()]
    expected = torch.autograd.grad(losses.sum(), parameters)

    layer.watch = watch
    actual_losses = task_losses(heads, split(layer, form)(trunk(x)))
    assert_close(actual_losses, losses)
    actual_losses.sum().backward()

    for parameter, grad in zip(parameters, expected, strict=True):
        assert_close(parameter.grad, grad)
    if watch is not None:
        assert_close(layer.task_grad_norms(), grads.norm(dim=1))
    if watch == "gramian":
        assert_close(layer.task_grad_gramian(), grads @ grads.T)


@pytest.mark.parametrize("form", ["tensor", "views"])
def test_fork_matches_one_gradient_per_task(form: str) -> None:
    fork = TaskFork(T)
    fork.watch = "gramian"
    heads = make_heads()
    z = torch.randn(2, 6, O, dtype=F64, requires_grad=True)
    losses = task_losses(heads, (z,) * T)
    grads = torch.stack([flat_grads(loss, [z]) for loss in losses])

    task_losses(heads, split(fork, form)(z)).sum().backward()

    assert_close(z.grad, grads.sum(0).view_as(z))
    assert_close(fork.task_grad_norms(), grads.norm(dim=1))
    assert_close(fork.task_grad_gramian(), grads @ grads.T)
    fork.watch = "norms"
    task_losses(heads, split(fork, form)(z)).sum().backward()
    assert_close(fork.task_grad_norms(), grads.norm(dim=1))


def test_output_is_one_tensor_seen_t_times(layer: SharedLinear) -> None:
    x = torch.randn(7, I, dtype=F64)
    y = layer(x)
    assert y.shape == (T, 7, O)
    assert y.stride(0) == 0
    views = layer.views(x)
    assert len(views) == T
    assert {view.data_ptr() for view in views} == {views[0].data_ptr()}
    torch.testing.assert_close(y[2], nn.functional.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("watch", [None, "norms"])
def test_writing_to_a_view_raises(layer: SharedLinear, watch: str | None) -> None:
    layer.watch = watch
    x = torch.randn(7, I, dtype=F64)
    for view in (layer(x)[0], layer.views(x)[0]):
        with pytest.raises(RuntimeError, match="modified inplace"):
            view.relu_()


@pytest.mark.parametrize("shape", [(I,), (0, I), (1, I), (2, 0, I), (2, 3, 4, I)])
def test_leading_sizes(layer: SharedLinear, shape: tuple[int, ...]) -> None:
    layer.watch = "gramian"
    x = torch.randn(*shape, dtype=F64)
    scale = torch.arange(1.0, T + 1, dtype=F64)
    y = layer(x)
    assert y.shape == (T, *shape[:-1], O)
    (scale * y.flatten(1).sum(1)).sum().backward()
    norm = x.reshape(-1, I).sum(0).norm() * O**0.5
    assert_close(layer.task_grad_norms(), scale * norm)
    assert_close(layer.task_grad_gramian(), torch.outer(scale, scale) * norm**2)


def test_non_contiguous_input(layer: SharedLinear) -> None:
    layer.watch = "norms"
    x = torch.randn(I, 6, 2, dtype=F64).permute(2, 1, 0)
    layer(x)[0].sum().backward()
    norms = layer.task_grad_norms()
    layer(x.contiguous())[0].sum().backward()
    torch.testing.assert_close(layer.task_grad_norms(), norms)
    torch.testing.assert_close(norms[1:], torch.zeros(T - 1, dtype=F64))


def test_unused_view_has_no_gradient(layer: SharedLinear) -> None:
    layer.watch = "norms"
    views = layer.views(torch.randn(7, I, dtype=F64))
    views[1].sum().backward()
    norms = layer.task_grad_norms()
    assert norms[1] > 0
    assert norms[[0, 2, 3]].eq(0).all()


@pytest.mark.parametrize("frozen", ["weight", "bias", "both"])
def test_frozen_parameters(layer: SharedLinear, frozen: str) -> None:
    layer.watch = "norms"
    x = torch.randn(7, I, dtype=F64, requires_grad=True)
    layer.weight.requires_grad_(frozen == "bias")
    layer.bias.requires_grad_(frozen == "weight")
    (layer(x) * torch.arange(T).view(T, 1, 1)).sum().backward()
    assert (layer.weight.grad is not None) == (frozen == "bias")
    assert (layer.bias.grad is not None) == (frozen == "weight")
    assert_close(x.grad, (6 * layer.weight.sum(0)).expand(7, I))
    norm = x.detach().sum(0).norm() * O**0.5
    assert_close(layer.task_grad_norms(), torch.arange(T, dtype=F64) * norm)


def test_no_bias() -> None:
    layer = SharedLinear(I, O, T, bias=False)
    assert list(layer.state_dict()) == ["weight"]
    assert layer(torch.randn(2, I)).shape == (T, 2, O)


def test_backward_twice_gives_the_same_twice(layer: SharedLinear) -> None:
    layer.watch = "gramian"
    x = torch.randn(7, I, dtype=F64)
    loss = task_losses(make_heads(), layer.views(x)).sum()
    loss.backward(retain_graph=True)
    gramian, grad = layer.task_grad_gramian(), layer.weight.grad.clone()
    layer.weight.grad = None
    loss.backward()
    torch.testing.assert_close(layer.task_grad_gramian(), gramian, rtol=0, atol=0)
    torch.testing.assert_close(layer.weight.grad, grad, rtol=0, atol=0)


@pytest.mark.parametrize("watch", ["norms", "gramian"])
def test_two_uses_in_one_forward_count_as_one_weight(layer: SharedLinear, watch: str) -> None:
    layer.watch = watch
    heads = make_heads()
    x1, x2 = torch.randn(7, I, dtype=F64), torch.randn(2, 3, I, dtype=F64)
    losses = task_losses(heads, layer.views(x1)) + task_losses(heads, layer(x2))
    grads = torch.stack([flat_grads(loss, [layer.weight]) for loss in losses])
    losses.sum().backward()
    assert_close(layer.task_grad_norms(), grads.norm(dim=1))
    if watch == "gramian":
        assert_close(layer.task_grad_gramian(), grads @ grads.T)


def test_two_uses_of_a_fork_count_as_one_vector() -> None:
    fork = TaskFork(T)
    fork.watch = "gramian"
    z1 = torch.randn(7, O, dtype=F64, requires_grad=True)
    z2 = torch.randn(2, 3, O, dtype=F64, requires_grad=True)
    heads = make_heads()
    losses = task_losses(heads, fork.views(z1)) + task_losses(heads, fork(z2))
    grads = torch.stack([flat_grads(loss, [z1, z2]) for loss in losses])
    losses.sum().backward()
    assert_close(fork.task_grad_gramian(), grads @ grads.T)


@pytest.mark.parametrize("form", ["tensor", "views"])
@pytest.mark.parametrize("at", ["layer", "fork"])
def test_weighting_combines_the_gradients(form: str, at: str) -> None:
    layer, fork = SharedLinear(I, O, T).double(), TaskFork(T)
    trunk, x = make_trunk("gru")
    heads = make_heads()
    seen = []

    def weighting(gramian: Tensor) -> Tensor:
        seen.append(gramian)
        return gramian.diagonal() / gramian.trace()

    z = nn.functional.linear(trunk(x), layer.weight, layer.bias)
    losses = task_losses(heads, (z,) * T)
    grads = torch.stack(
        [flat_grads(loss, [layer.weight if at == "layer" else z]) for loss in losses]
    )
    gramian = grads @ grads.T
    shared = [*trunk.parameters(), layer.weight, layer.bias]
    expected = torch.autograd.grad(losses @ weighting(gramian), shared, retain_graph=True)
    expected_heads = torch.autograd.grad(losses.sum(), list(heads.parameters()))

    seen.clear()
    if at == "layer":
        layer.weighting = weighting
        views = split(layer, form)(trunk(x))
    else:
        fork.weighting = weighting
        views = split(fork, form)(nn.functional.linear(trunk(x), layer.weight, layer.bias))
    task_losses(heads, views).sum().backward()

    assert_close(seen[0], gramian)
    for parameter, grad in zip(shared, expected, strict=True):
        assert_close(parameter.grad, grad)
    for parameter, grad in zip(heads.parameters(), expected_heads, strict=True):
        assert_close(parameter.grad, grad)


def test_weighting_of_ones_is_the_plain_layer(layer: SharedLinear) -> None:
    x = torch.randn(7, I, dtype=F64)
    heads = make_heads()
    task_losses(heads, layer(x)).sum().backward()
    plain = layer.weight.grad
    layer.weight.grad = None
    layer.weighting = lambda gramian: gramian.new_ones(T)
    layer.watch = "gramian"
    task_losses(heads, layer(x)).sum().backward()
    assert_close(layer.weight.grad, plain)
    assert layer.task_grad_gramian().shape == (T, T)


def test_weighting_needs_all_gradients_at_once(layer: SharedLinear) -> None:
    layer.weighting = torch.diagonal
    x = torch.randn(7, I, dtype=F64)
    with pytest.raises(RuntimeError, match="used once in a backward pass"):
        (layer(x).sum() + layer(x).sum()).backward()


def test_weighting_is_checked(layer: SharedLinear) -> None:
    layer.weighting = lambda gramian: gramian
    with pytest.raises(ValueError, match=r"weighting: expected weights \(num_tasks,\) = \(4,\)"):
        layer(torch.randn(7, I, dtype=F64)).sum().backward()


def test_a_module_can_be_the_weighting(layer: SharedLinear) -> None:
    layer.weighting = nn.Flatten(0)
    with pytest.raises(ValueError, match=r"weighting: expected weights \(num_tasks,\) = \(4,\)"):
        layer(torch.randn(7, I, dtype=F64)).sum().backward()
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_unwatched_layer_keeps_nothing(layer: SharedLinear) -> None:
    layer(torch.randn(7, I, dtype=F64)).sum().backward()
    for ask in (layer.task_grad_norms, layer.task_grad_gramian):
        with pytest.raises(RuntimeError, match=r"not watched; set layer.watch ="):
            ask()
    layer.watch = "norms"
    with pytest.raises(RuntimeError, match="no backward pass went through it"):
        layer.task_grad_norms()
    layer(torch.randn(7, I, dtype=F64)).sum().backward()
    with pytest.raises(RuntimeError, match=r'set layer\.watch = "gramian"'):
        layer.task_grad_gramian()
    assert layer.task_grad_norms() is layer.task_grad_norms()
    layer.forget()
    with pytest.raises(RuntimeError, match="no backward pass went through it"):
        layer.task_grad_norms()


def gradients_held(layer: SharedLinear) -> list[object]:
    return [v for v in vars(layer).values() if isinstance(v, list) and v]


@pytest.mark.parametrize("watch", ["norms", "gramian"])
def test_the_only_use_leaves_no_gradients(layer: SharedLinear, watch: str) -> None:
    layer.watch = watch
    for _ in range(2):
        loss = layer(torch.randn(7, I, dtype=F64)).sum()
        loss.backward()
        del loss
        assert gradients_held(layer) == []
        layer.task_grad_norms()


@pytest.mark.parametrize("watch", ["norms", "gramian"])
def test_asking_frees_the_gradients_of_several_uses(layer: SharedLinear, watch: str) -> None:
    layer.watch = watch
    (layer(torch.randn(7, I, dtype=F64)) + layer(torch.randn(7, I, dtype=F64))).sum().backward()
    assert gradients_held(layer) != []
    layer.task_grad_norms()
    assert gradients_held(layer) == []


def test_a_graph_of_an_earlier_step_that_lives_on(layer: SharedLinear) -> None:
    layer.watch = "norms"
    x = torch.randn(7, I, dtype=F64)
    earlier = layer(x).sum()
    earlier.backward(retain_graph=True)
    first = layer.task_grad_norms()
    later = 2 * layer(x).sum()
    later.backward(retain_graph=True)
    assert_close(layer.task_grad_norms(), 2 * first)
    (earlier + later).backward()
    assert_close(layer.task_grad_norms(), 3 * first)


def test_a_failed_backward_leaves_nothing_behind(layer: SharedLinear) -> None:
    layer.watch = "norms"
    x = torch.randn(7, I, dtype=F64, requires_grad=True)

    def fail(grad: Tensor) -> None:
        raise ZeroDivisionError

    handle = x.register_hook(fail)
    with pytest.raises(ZeroDivisionError):
        (100 * layer(x)).sum().backward()
    handle.remove()
    layer(x).sum().backward()
    assert_close(layer.task_grad_norms(), (x.detach().sum(0).norm() * O**0.5).expand(T))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(layer: SharedLinear, reentrant: bool) -> None:
    trunk, x = make_trunk("gru")
    heads = make_heads()
    layer.watch = "gramian"
    x.requires_grad_()
    task_losses(heads, layer(trunk(x))).sum().backward()
    gramian, grad = layer.task_grad_gramian(), layer.weight.grad
    layer.weight.grad = None
    y = checkpoint(lambda x: layer(trunk(x)), x, use_reentrant=reentrant)
    task_losses(heads, y).sum().backward()
    assert_close(layer.task_grad_gramian(), gramian)
    assert_close(layer.weight.grad, grad)


@pytest.mark.parametrize("watch", [None, "norms"])
def test_compile(layer: SharedLinear, watch: str | None) -> None:
    layer.watch = watch
    net = nn.Sequential(nn.Linear(I, I), layer).double()
    x = torch.randn(7, I, dtype=F64)
    scale = torch.arange(1.0, T + 1, dtype=F64).view(T, 1, 1)
    (net(x) * scale).sum().backward()
    expected = net[0].weight.grad
    net.zero_grad()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    (compiled(x) * scale).sum().backward()
    assert_close(net[0].weight.grad, expected)
    if watch is not None:
        norms = layer.task_grad_norms()
        assert_close(norms, norms[0] * scale.flatten())


def test_a_watched_layer_compiles_whole_for_inference(layer: SharedLinear) -> None:
    layer.watch = "norms"
    x = torch.randn(7, I, dtype=F64)
    with torch.no_grad():
        y = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
        assert_close(y, layer(x))


@pytest.mark.parametrize("inside", [False, True])
def test_autocast(inside: bool) -> None:
    """The gradients of a bfloat16 forward pass, of which the norms are float32."""
    layer = SharedLinear(I, O, T)
    layer.watch = "gramian"
    x = torch.randn(9, I)
    scale = torch.arange(1.0, T + 1).view(T, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.bfloat16
        loss = (y.float() * scale).square().sum()
        if inside:
            loss.backward()
            norms = layer.task_grad_norms()
    if not inside:
        loss.backward()
        norms = layer.task_grad_norms()
    assert layer.weight.grad.dtype == torch.float32
    assert norms.dtype == layer.task_grad_gramian().dtype == torch.float32
    grad = (2 * scale**2 * y.detach().float()).double().mT @ x.double()
    assert_close(norms, grad.flatten(1).norm(dim=1), dtype=torch.bfloat16)
    assert_close(layer.weight.grad, grad.sum(0), dtype=torch.bfloat16, scale=2)


def test_weighting_inside_autocast_is_not_rounded() -> None:
    layer, x = SharedLinear(I, O, T), torch.randn(9, I)
    scale = torch.arange(1.0, T + 1).view(T, 1, 1)
    weights = torch.randn(T)
    layer.weighting = lambda gramian: torch.eye(T) @ weights
    (layer(x) * scale).sum().backward()
    expected = layer.weight.grad
    layer.weight.grad = None
    loss = (layer(x) * scale).sum()
    with torch.autocast("cpu", torch.bfloat16):
        loss.backward()
    assert layer.task_grad_gramian().dtype == torch.float32
    assert_close(layer.weight.grad, expected, dtype=torch.bfloat16)
    combined = (weights * scale.flatten()).sum()
    assert_close(layer.bias.grad[:1] / 2, 9 * combined.view(1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_parameters(dtype: torch.dtype) -> None:
    layer = SharedLinear(I, O, T, dtype=dtype)
    layer.watch = "norms"
    layer(torch.ones(3, I, dtype=dtype)).sum().backward()
    assert layer.task_grad_norms().dtype == torch.float32
    assert layer.weight.grad.dtype == dtype


def test_second_derivative() -> None:
    layer = SharedLinear(I, O, T).double()
    x = torch.randn(3, I, dtype=F64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x) ** 2, (x,))
    layer.watch = "norms"
    (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        grad.sum().backward()


def test_unwatched_layer_under_vmap(layer: SharedLinear) -> None:
    """One gradient per task by a batched backward pass, and torch.func, as in other libraries."""
    x = torch.randn(7, I, dtype=F64, requires_grad=True)
    losses = task_losses(make_heads(), layer(x))
    (batched,) = torch.autograd.grad(
        losses, x, torch.eye(T, dtype=F64), is_grads_batched=True, retain_graph=True
    )
    for loss, grad in zip(losses, batched, strict=True):
        assert_close(grad, torch.autograd.grad(loss, x, retain_graph=True)[0])
    jacobian = torch.func.jacrev(lambda x: layer(x).flatten(1).sum(1))(x.detach())
    assert_close(jacobian[0], layer.weight.sum(0).expand(7, I))
    per_sample = torch.func.vmap(torch.func.grad(lambda row: layer(row).sum()))(x.detach())
    assert_close(per_sample, T * layer.weight.sum(0).expand(7, I))


def test_input_overwritten_before_backward_raises(layer: SharedLinear) -> None:
    layer.watch = "norms"
    layer.weight.requires_grad_(False)
    x = torch.randn(7, I, dtype=F64)
    y = layer(x)
    x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_no_grad_and_inference(layer: SharedLinear) -> None:
    layer.watch = "norms"
    x = torch.randn(7, I, dtype=F64)
    with torch.no_grad():
        assert not layer(x).requires_grad
    with torch.inference_mode():
        assert layer(x).shape == (T, 7, O)


def test_deepcopy_and_state_dict(layer: SharedLinear) -> None:
    plain = nn.Linear(I, O)
    assert list(layer.state_dict()) == list(plain.state_dict())
    layer.watch = "norms"
    loss = layer(torch.randn(7, I, dtype=F64)).sum()
    loss.backward()
    twin = copy.deepcopy(layer)
    assert pickle.loads(pickle.dumps(layer)).watch == "norms"
    assert twin._graphs == set()
    assert len(layer._graphs) == 1
    del loss
    assert layer._graphs == set()
    assert twin.watch == "norms"
    torch.testing.assert_close(twin.task_grad_norms(), layer.task_grad_norms())
    plain.load_state_dict(layer.state_dict())


@pytest.mark.parametrize("watch", [None, "gramian"])
@pytest.mark.parametrize("weighting", [False, True])
def test_gradcheck(watch: str | None, weighting: bool) -> None:
    layer = SharedLinear(I, O, T).double()
    layer.watch = watch
    if weighting:
        layer.weighting = lambda gramian: gramian.new_ones(T)
    x = torch.randn(2, 3, I, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w, b: (
            torch.func.functional_call(layer, {"weight": w, "bias": b}, x)
            * torch.arange(T).view(T, 1, 1, 1)
        ),
        (x, layer.weight, layer.bias),
    )


@pytest.mark.parametrize("sizes", [(0, O, T), (I, 0, T), (I, O, 0)])
def test_sizes_are_checked(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected at least 1, got 0"):
        SharedLinear(*sizes)


def test_inputs_are_checked(layer: SharedLinear) -> None:
    with pytest.raises(ValueError, match=r"x: expected a \(\.\.\., 5\) tensor, got shape \(2, 4\)"):
        layer(torch.randn(2, 4))
    with pytest.raises(TypeError, match="z: "):
        TaskFork(2)(torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match='watch: expected "norms", "gramian" or None'):
        layer.watch = "norm"
