"""What holds for every balancer: gradients, checks, precision, state."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from fastmtl.balancing import (
    DBMTL,
    FAMO,
    IMTL,
    IMTLG,
    IMTLL,
    MGDA,
    STCH,
    AlignedMTL,
    Balancer,
    CAGrad,
    ConFIG,
    DualProj,
    DynamicMultiTask,
    DynamicWeightAverage,
    Equal,
    FairGrad,
    GeometricMean,
    GradNorm,
    GradVac,
    GramianBalancer,
    NashMTL,
    PCGrad,
    RandomLossWeighting,
    TaskDynamicBalancing,
    UncertaintyWeighting,
    UPGrad,
)
from tests.balancing.networks import F64, Net, NoHostSync, T, batch
from tests.tolerances import assert_close

POSITIVES = [20, 300, 0, 45]


def inverse_norms(gramian: Tensor) -> Tensor:
    return gramian.diagonal().clamp(min=1e-30).rsqrt()


def make(method: type[Balancer], net: Net) -> Balancer:
    if method in LOSS_ONLY:
        return method(T).double()
    if method is GradNorm or method in GRAMIAN_METHODS:
        return method(net).double()
    if method is GramianBalancer:
        return method(net, inverse_norms).double()
    return method(net, POSITIVES, 300).double()


WEIGHTED_SUMS = [Equal, GradNorm, TaskDynamicBalancing, DynamicMultiTask, DynamicWeightAverage]
# Those that set weights from the very losses that they weigh.
LOSS_ONLY = [
    Equal,
    UncertaintyWeighting,
    DynamicWeightAverage,
    RandomLossWeighting,
    GeometricMean,
    FAMO,
    IMTLL,
    STCH,
]
GRAMIAN_METHODS = [
    MGDA,
    PCGrad,
    GradVac,
    CAGrad,
    NashMTL,
    FairGrad,
    IMTLG,
    AlignedMTL,
    ConFIG,
    UPGrad,
    DualProj,
    IMTL,
    DBMTL,
]
GRADIENT_BASED = [
    GradNorm,
    TaskDynamicBalancing,
    DynamicMultiTask,
    GramianBalancer,
    *GRAMIAN_METHODS,
]
METHODS = [*LOSS_ONLY, *GRADIENT_BASED]
# Their equations have negative weights.
SIGNED = [IMTLG, IMTL, AlignedMTL, ConFIG, GradVac]
# Their equations have other weights than 1 for the gradient of a single task.
NOT_ONE = [UncertaintyWeighting, CAGrad, FairGrad, IMTLL, STCH]
# What they learn with the model.
LEARNED = {UncertaintyWeighting: "log_variances", IMTLL: "log_scales", IMTL: "log_scales"}
# They minimise the logarithms of the losses.
OF_LOGARITHMS = [STCH, DBMTL]
SUM_TO_T = [*WEIGHTED_SUMS, RandomLossWeighting, FAMO]
every_method = pytest.mark.parametrize("method", METHODS)
weighted_sums = pytest.mark.parametrize("method", WEIGHTED_SUMS)


@weighted_sums
@pytest.mark.parametrize("trunk", ["mlp", "gru"])
def test_gradients_are_those_of_the_weighted_sum(method: type[Balancer], trunk: str) -> None:
    net, x = Net(trunk), batch(trunk)
    balancer = make(method, net)
    weights = torch.tensor([0.5, 1.5, 1.75, 0.25], dtype=F64)
    if method is not Equal:
        balancer.weights.copy_(weights)
    losses = net(x)
    total = (balancer.weights.clone() * losses).sum()
    expected = torch.autograd.grad(total, list(net.parameters()))
    actual = balancer.backward(net(x))
    assert not actual.requires_grad
    assert_close(actual, total)
    for parameter, grad in zip(net.parameters(), expected, strict=True):
        assert_close(parameter.grad, grad)


@every_method
def test_absent_tasks_have_no_part_in_the_sum(method: type[Balancer]) -> None:
    net, x = Net(), batch()
    balancer = make(method, net)
    losses = net(x)
    present = torch.tensor([True, False, True, True])
    total = balancer.backward(losses, present=present)
    if method in WEIGHTED_SUMS:
        assert_close(total, losses[present].sum())
    assert net.last.weight.grad[1].eq(0).all()
    assert net.last.weight.grad[0].ne(0).any()


@every_method
def test_loss_of_an_absent_task_is_not_looked_at(method: type[Balancer]) -> None:
    present = torch.tensor([True, False, True, True])
    results = []
    for value in (1.0, float("nan"), float("inf")):
        torch.manual_seed(0)
        net, x = Net(), batch()
        balancer = make(method, net)
        losses = net(x)
        losses = torch.where(present, losses, losses.detach() * 0 + value)
        total = balancer.backward(losses, present=present)
        results.append([total, balancer.weights.clone(), net.shared.weight.grad])
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert one.isfinite().all()
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@weighted_sums
def test_gradients_accumulate(method: type[Balancer]) -> None:
    net, x = Net(), batch()
    balancer = make(method, net)
    expected = 0
    for _ in range(2):
        loss = (balancer.weights.clone() * net(x)).sum()
        expected = expected + torch.autograd.grad(loss, net.shared.weight)[0]
        balancer.backward(net(x))
    assert_close(net.shared.weight.grad, expected)


@every_method
def test_state_dict_goes_on_to_the_bit(method: type[Balancer]) -> None:
    net = Net()
    balancer = make(method, net)
    for seed in range(3):
        balancer.backward(net(batch(seed=seed)))
    twin_net = copy.deepcopy(net)
    twin = make(method, twin_net)
    twin.load_state_dict(balancer.state_dict())
    for seed in range(3, 6):
        for each, model in ((balancer, net), (twin, twin_net)):
            torch.manual_seed(seed)
            each.backward(model(batch(seed=seed)))
    balancer.end_cycle()
    twin.end_cycle()
    for name, value in balancer.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[name], value, rtol=0, atol=0)


@every_method
def test_state_is_the_balancers_alone(method: type[Balancer]) -> None:
    balancer = make(method, Net())
    names = [LEARNED[method]] if method in LEARNED else []
    assert [name for name, _ in balancer.named_parameters()] == names
    assert "weights" in balancer.state_dict()
    shapes = {(T, T)} if method is GradVac else set()
    assert {tuple(value.shape) for value in balancer.state_dict().values()} == {(T,), *shapes}


@every_method
def test_no_host_synchronisation(method: type[Balancer]) -> None:
    net, x = Net(), batch()
    balancer = make(method, net)
    present = torch.tensor([True, False, True, True])
    addresses = [buffer.data_ptr() for buffer in balancer.buffers()]
    with NoHostSync():
        balancer.backward(net(x))
        balancer.backward(net(x), present=present)
        balancer.end_cycle()
    assert [buffer.data_ptr() for buffer in balancer.buffers()] == addresses


@every_method
def test_a_batch_that_is_not_finite_changes_nothing(method: type[Balancer]) -> None:
    net, x = Net(), batch()
    balancer = make(method, net)
    balancer.backward(net(x))
    before = copy.deepcopy(balancer.state_dict())
    names = [name for name in before if method is not RandomLossWeighting]
    for bad in (torch.nan, torch.inf):
        factor = torch.ones(T, dtype=F64)
        factor[1] = bad
        balancer.backward(net(x) * factor)
    for name in names:
        torch.testing.assert_close(balancer.state_dict()[name], before[name], rtol=0, atol=0)


@every_method
def test_grad_scaler(method: type[Balancer]) -> None:
    """The gradients of a scaled pass are scaled, its weights are those of the plain one."""
    net = Net()
    twin = copy.deepcopy(net)
    plain, scaled = make(method, net), make(method, twin)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for seed in range(3):
        torch.manual_seed(seed)
        total = plain.backward(net(batch(seed=seed)))
        torch.manual_seed(seed)
        assert_close(scaled.backward(twin(batch(seed=seed)), scaler=scaler), total)
        assert_close(twin.shared.weight.grad, 1024 * net.shared.weight.grad)
    assert_close(scaled.weights, plain.weights)


@every_method
def test_float32_and_half_losses(method: type[Balancer]) -> None:
    net = Net().float()
    balancer = make(method, net).float()
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        total = balancer.backward(net(batch().float()).to(dtype))
        assert total.dtype == dtype
        assert balancer.weights.dtype == torch.float32
        assert balancer.weights.isfinite().all()


@pytest.mark.parametrize("method", SUM_TO_T)
def test_weights_stay_positive_and_sum_to_the_number_of_tasks(method: type[Balancer]) -> None:
    net = Net()
    balancer = make(method, net)
    present = torch.ones(T, dtype=torch.bool)
    for seed in range(6):
        present[1] = seed % 2 == 0
        balancer.backward(net(batch(seed=seed)) * 10.0 ** (seed - 3), present=present)
        if seed % 3 == 2:
            balancer.end_cycle()
        assert (balancer.weights > 0).all()
        assert_close(balancer.weights.sum(), torch.tensor(float(T)))


@every_method
def test_losses_of_zero(method: type[Balancer]) -> None:
    """Batches whose losses are all 0, at the start of training and later on."""
    net = Net()
    balancer = make(method, net)
    for factor in (0.0, 0.0, 1.0, 0.0, 1.0):
        balancer.backward(net(batch()) * factor)
        balancer.end_cycle()
    assert balancer.weights.isfinite().all()
    assert method in SIGNED or (balancer.weights >= 0).all()
    assert all(p.grad.isfinite().all() for p in net.parameters())


EXTREMES = [0.0, 1e-45, 1e-38, 1e-30, 1e-8, 1.0, 1e8, 1e30, 3e38, torch.inf, torch.nan, -1.0]


@every_method
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
def test_extreme_losses(method: type[Balancer], seed: int) -> None:
    """Whatever a batch brings, the state stays finite and the next good batch is balanced."""
    torch.manual_seed(seed)
    net = Net().float()
    balancer = make(method, net).float()
    x, generator = batch().float(), torch.Generator().manual_seed(seed)
    parameters = [*net.parameters(), *balancer.parameters()]
    for step in range(80):
        at = torch.randint(len(EXTREMES), (T,), generator=generator)
        losses = net(x) * torch.tensor(EXTREMES)[at]
        present = torch.rand(T, generator=generator) < 0.8 if step % 2 else None
        balancer.backward(losses, present=present)
        if step % 7 == 6:
            balancer.end_cycle()
        for name, value in balancer.state_dict().items():
            assert value.isfinite().all(), (name, step)
        assert method in SIGNED or (balancer.weights >= 0).all()
        for parameter in parameters:
            parameter.grad = None
    balancer.backward(net(x))
    assert all(p.grad.isfinite().all() for p in parameters)


@every_method
def test_one_task(method: type[Balancer]) -> None:
    net = Net(num_tasks=1)
    if method in LOSS_ONLY:
        balancer = method(1).double()
    elif method is GradNorm or method in GRAMIAN_METHODS:
        balancer = method(net).double()
    elif method is GramianBalancer:
        balancer = method(net, lambda gramian: gramian.new_ones(1)).double()
    else:
        balancer = method(net, [3], 10).double()
    # Weighted too, where it is a method that combines gradients.
    loss = net(batch()).sum()
    expected = torch.autograd.grad(loss, net.shared.weight)[0]
    balancer.backward(net(batch()))
    balancer.end_cycle()
    if method in OF_LOGARITHMS:
        expected = expected / loss.detach()
    assert_close(net.shared.weight.grad, expected)
    if method not in NOT_ONE:
        assert_close(balancer.weights, torch.ones(1))


@every_method
def test_a_task_that_never_improves(method: type[Balancer]) -> None:
    """Its loss stays as it is while those of the others fall by orders of magnitude."""
    net = Net()
    balancer = make(method, net)
    for step in range(40):
        scale = torch.full((T,), 0.8**step, dtype=F64)
        scale[2] = 1
        balancer.backward(net(batch()) * scale)
        if step % 10 == 9:
            balancer.end_cycle()
    assert balancer.weights.isfinite().all()
    assert method in SIGNED or (balancer.weights >= 0).all()
    if method is DynamicWeightAverage:
        assert balancer.weights.argmax() == 2
    if method is FAMO:
        assert balancer.logits.argmax() == 2


@every_method
def test_an_overflow_skips_the_step(method: type[Balancer]) -> None:
    """float16 gradients overflow under a scale too large: neither weights nor model move."""
    net = Net().float()
    balancer = make(method, net).float()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before = copy.deepcopy(net.state_dict())
    weights = balancer.weights.clone()
    balancer.backward(net(batch().float()) * 100, scaler=scaler)
    scaler.step(optimizer)
    scaler.update()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    if method in GRADIENT_BASED:
        assert torch.equal(balancer.weights, weights)
    assert scaler.get_scale() == 2.0**126


def losses() -> Tensor:
    return torch.ones(T, dtype=F64, requires_grad=True) * 1


@pytest.mark.parametrize(
    ("losses", "present", "error", "message"),
    [
        ([1.0] * T, None, TypeError, "losses: expected a tensor, got list"),
        (torch.ones(T, dtype=torch.int64), None, TypeError, "losses: expected float32"),
        (torch.ones(T + 1), None, ValueError, r"losses: expected \(num_tasks,\) = \(4,\)"),
        (torch.ones(()), None, ValueError, r"losses: .* got shape \(\)"),
        (torch.ones(T, device="meta"), None, ValueError, r"move the balancer with \.to\(device\)"),
        (torch.ones(T), None, ValueError, "losses: expected a tensor with a graph"),
        (losses(), [True] * T, TypeError, "present: expected a tensor, got list"),
        (losses(), torch.ones(T), TypeError, r"present: expected bool, got torch\.float32"),
        (losses(), torch.ones(2, dtype=torch.bool), ValueError, r"present: expected .* \(2,\)"),
        (losses(), torch.ones(T, dtype=torch.bool, device="meta"), ValueError, "present: .*device"),
    ],
)
def test_arguments_are_checked(
    losses: Tensor, present: Tensor | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Equal(T).backward(losses, present=present)


def test_num_tasks_is_checked() -> None:
    with pytest.raises(ValueError, match="num_tasks: expected at least 1, got 0"):
        Equal(0)


@pytest.mark.parametrize("method", GRADIENT_BASED)
def test_weights_start_on_the_device_of_the_model(method: type[Balancer]) -> None:
    assert make(method, Net().to("meta")).weights.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_method
def test_cuda_graph(method: type[Balancer]) -> None:
    """A captured step replays to the weights that the eager steps reach."""
    net = Net().cuda()
    twin = copy.deepcopy(net)
    x = batch().cuda()
    eager, captured = make(method, net).cuda(), make(method, twin).cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            eager.backward(net(x))
            captured.backward(twin(x))
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.backward(twin(x))
    for _ in range(3):
        graph.replay()
        eager.backward(net(x))
    assert_close(captured.weights, eager.weights)
    assert_close(twin.shared.weight.grad, net.shared.weight.grad)
