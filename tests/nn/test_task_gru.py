from __future__ import annotations

import copy
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastmtl.nn import TaskGRU
from tests.tolerances import assert_close

LENGTHS = torch.tensor([3, 6, 1, 4])


def torch_gru(module: nn.GRU, x: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is None:
        return module(x)[0]
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(module(packed)[0], batch_first=True, total_length=x.shape[1])[0]


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "padded"])
@pytest.mark.parametrize("own_inputs", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize(
    ("num_tasks", "num_layers", "bidirectional", "bias"),
    [(3, 2, True, True), (2, 1, False, True), (1, 3, True, True), (2, 2, True, False)],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_torch(
    dtype: torch.dtype,
    num_tasks: int,
    num_layers: int,
    bidirectional: bool,
    bias: bool,
    own_inputs: bool,
    lengths: Tensor | None,
) -> None:
    layer = TaskGRU(5, 4, num_tasks, num_layers, bias=bias, bidirectional=bidirectional)
    layer = layer.to(dtype)
    modules = [module.double() for module in layer.to_torch()]
    shape = (num_tasks, 4, 6, 5) if own_inputs else (4, 6, 5)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    x64 = x.detach().double().requires_grad_()

    y = layer(x, lengths)
    inputs = x64.unbind() if own_inputs else [x64] * num_tasks
    expected = torch.stack(
        [torch_gru(*args, lengths) for args in zip(modules, inputs, strict=True)]
    )
    assert y.shape == (num_tasks, 4, 6, layer.out_features)
    assert_close(y, expected)

    weights = torch.randn_like(expected)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    assert x.grad is not None
    assert x64.grad is not None
    assert_close(x.grad, x64.grad)
    directions = ["", "_reverse"][: layer.num_directions]
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None
        theirs = torch.stack(
            [
                torch.stack([getattr(module, name + suffix).grad for suffix in directions])
                for module in modules
            ]
        )
        assert theirs.ne(0).any()
        assert_close(parameter.grad, theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_recomputing_changes_nothing(dtype: torch.dtype) -> None:
    layer = TaskGRU(5, 4, num_tasks=3, num_layers=2, bidirectional=True, dropout=0.5).to(dtype)
    again = TaskGRU(
        5, 4, num_tasks=3, num_layers=2, bidirectional=True, dropout=0.5, recompute=True
    ).to(dtype)
    again.load_state_dict(layer.state_dict())
    x = torch.randn(4, 6, 5, dtype=dtype)
    results = []
    for network in (layer, again):
        torch.manual_seed(1)
        y = network(x, LENGTHS)
        y.square().sum().backward()
        results.append([y, *(parameter.grad for parameter in network.parameters())])
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs.double(), dtype)


@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "bias"), list(product([1, 2], [False, True], [False, True]))
)
def test_from_torch_and_back(num_layers: int, bidirectional: bool, bias: bool) -> None:
    settings = {"bidirectional": bidirectional, "bias": bias, "dropout": 0.1 * (num_layers - 1)}
    modules = [
        nn.GRU(3, 4, num_layers, batch_first=True, **settings).double().eval() for _ in range(3)
    ]
    layer = TaskGRU.from_torch(modules)
    assert not layer.training
    assert layer.dropout == settings["dropout"]
    assert layer.weight_ih_l0.dtype == torch.float64
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    for module, y in zip(modules, layer(x), strict=True):
        assert_close(y, module(x)[0])
    for module, back in zip(modules, layer.to_torch(), strict=True):
        assert back.batch_first
        assert not back.training
        assert back.dropout == module.dropout
        assert set(back.state_dict()) == set(module.state_dict())
        for name, parameter in module.named_parameters():
            assert parameter.equal(back.get_parameter(name))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_state_dicts_of_torch_load(dtype: torch.dtype) -> None:
    modules = [nn.GRU(5, 4, 2, bidirectional=True).double() for _ in range(3)]
    layer = TaskGRU(5, 4, 3, 2, bidirectional=True, dtype=dtype)
    layer.load_torch_state_dicts([module.state_dict() for module in modules])
    assert {parameter.dtype for parameter in layer.parameters()} == {dtype}
    for module, back in zip(modules, layer.to_torch(), strict=True):
        for name, parameter in module.named_parameters():
            assert parameter.to(dtype).equal(back.get_parameter(name))


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        (nn.GRU(5, 4), "no weight_ih_l1, no weight_hh_l1, no bias_ih_l1, no bias_hh_l1"),
        (nn.GRU(5, 4, 2, bias=False), "no bias_ih_l0, .*no bias_hh_l1"),
        (nn.GRU(5, 4, 3), "an unexpected weight_ih_l2"),
        (nn.GRU(5, 4, 2, bidirectional=True), "an unexpected weight_ih_l0_reverse"),
        (nn.GRU(6, 4, 2), r"weight_ih_l0 of shape \(12, 6\) instead of \(12, 5\)$"),
    ],
)
def test_a_state_dict_that_does_not_fit_changes_nothing(other: nn.GRU, fault: str) -> None:
    layer = TaskGRU(5, 4, num_tasks=2, num_layers=2)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(
        ValueError, match=rf"^state_dicts\[1\]: expected the weights .*, got .*{fault}"
    ):
        layer.load_torch_state_dicts([nn.GRU(5, 4, 2).state_dict(), other.state_dict()])
    for name, value in layer.state_dict().items():
        assert value.equal(before[name])


def test_what_is_no_list_of_state_dicts() -> None:
    layer, state = TaskGRU(5, 4, num_tasks=2), nn.GRU(5, 4).state_dict()
    with pytest.raises(TypeError, match=r"^state_dicts: expected a list of state dicts, got Order"):
        layer.load_torch_state_dicts(state)
    with pytest.raises(ValueError, match=r"^state_dicts: expected one for each of 2 tasks, got 1"):
        layer.load_torch_state_dicts([state])
    with pytest.raises(TypeError, match=r"^state_dicts\[1\]: expected a state dict, got GRU"):
        layer.load_torch_state_dicts([state, nn.GRU(5, 4)])


def test_defaults_are_those_of_torch() -> None:
    layer, module = TaskGRU(5, 4, num_tasks=2), nn.GRU(5, 4)
    for name in ("num_layers", "bias", "dropout", "bidirectional"):
        assert getattr(layer, name) == getattr(module, name)
    assert [tuple(p.shape) for p in layer.parameters()] == [
        (2, 1, *p.shape) for p in module.parameters()
    ]


def test_flags_by_position_are_taken_with_a_warning() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"^TaskGRU: bidirectional, dropout given"
    ) as caught:
        layer = TaskGRU(5, 4, 2, 3, True, 0.5)
    assert caught[0].filename == __file__
    assert layer.bidirectional
    assert layer.dropout == 0.5


def test_weights_are_copied() -> None:
    layer = TaskGRU(3, 4, num_tasks=2)
    modules = layer.to_torch()
    before = layer.weight_ih_l0.detach().clone()
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.zero_()
    assert layer.weight_ih_l0.equal(before)


@pytest.mark.parametrize("own_inputs", [False, True])
def test_padding_is_neither_read_nor_written(own_inputs: bool) -> None:
    layer = TaskGRU(5, 4, num_tasks=2, num_layers=2, bidirectional=True)
    x = torch.randn(2, 4, 6, 5) if own_inputs else torch.randn(4, 6, 5)
    padding = torch.arange(6) >= LENGTHS.unsqueeze(1)
    poisoned = x.masked_fill(padding.unsqueeze(-1), torch.nan)
    y = layer(x, LENGTHS)
    assert y.equal(layer(poisoned, LENGTHS))
    assert (y[:, padding] == 0).all()
    for sample, length in enumerate(LENGTHS.tolist()):
        alone = layer(x[..., sample : sample + 1, :length, :])
        assert_close(y[:, sample, :length], alone[:, 0].double(), torch.float32)


@pytest.mark.parametrize("shape", [(0, 6, 5), (1, 6, 5), (4, 1, 5), (1, 1, 5), (2, 0, 6, 5)])
def test_sizes_of_none_and_one(shape: tuple[int, ...]) -> None:
    layer = TaskGRU(5, 4, num_tasks=2, num_layers=2, bidirectional=True)
    x = torch.randn(shape)
    lengths = torch.full((shape[-3],), shape[-2])
    y = layer(x)
    assert y.shape == (2, *shape[-3:-1], 8)
    assert_close(layer(x, lengths), y.double(), torch.float32)


def test_non_contiguous_input() -> None:
    layer = TaskGRU(5, 4, num_tasks=2, num_layers=2, bidirectional=True).double()
    x = torch.randn(6, 4, 5, dtype=torch.float64).transpose(0, 1)
    assert_close(layer(x), layer(x.contiguous()))
    assert_close(layer(x, LENGTHS), layer(x.contiguous(), LENGTHS))


def test_dropout_acts_between_layers_in_training() -> None:
    layer = TaskGRU(5, 4, num_tasks=2, num_layers=2, dropout=0.5)
    x = torch.randn(4, 6, 5)
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert layer(x).equal(first)
    assert not layer(x).equal(first)
    layer.eval()
    assert layer(x).equal(layer(x))


def test_initialisation_is_that_of_torch() -> None:
    layer = TaskGRU(50, 25, num_tasks=4)
    for parameter in layer.parameters():
        assert parameter.abs().max() <= 0.2
        assert parameter.std().item() == pytest.approx(0.2 / 3**0.5, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_no_less_exact_than_torch(dtype: torch.dtype) -> None:
    layer = TaskGRU(24, 40, num_tasks=2, num_layers=2, bidirectional=True)
    twins = layer.to_torch()
    x = torch.randn(6, 12, 24)
    seeds = torch.randn(2, 6, 12, 80)

    def run(states: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
        return [states, *torch.autograd.grad((states * seeds).sum(), parameters)]

    def twin_of(states: list[Tensor]) -> list[Tensor]:
        own = [list(twin.parameters()) for twin in twins]
        return run(torch.stack(states), [p for parameters in own for p in parameters])

    with torch.autocast("cpu", dtype):
        states = layer(x)
        others = [twin(x)[0] for twin in twins]
    assert states.dtype == dtype
    ours = run(states, list(layer.parameters()))
    assert all(grad.dtype == torch.float32 for grad in ours[1:])
    theirs = twin_of(others)
    for module in (layer, *twins):
        module.double()
    x, seeds = x.double(), seeds.double()
    wanted = run(layer(x), list(layer.parameters()))
    twins_wanted = twin_of([twin(x)[0] for twin in twins])

    def error(found: list[Tensor], exact: list[Tensor]) -> list[float]:
        """Of the states, and of all gradients."""
        both = zip(found, exact, strict=True)
        pairs = [(one.detach().double() - other.detach()).flatten() for one, other in both]
        scale = torch.cat([other.flatten() for other in exact[1:]]).norm()
        return [float(pairs[0].norm()), float(torch.cat(pairs[1:]).norm() / scale)]

    for own, peer in zip(error(ours, wanted), error(theirs, twins_wanted), strict=True):
        assert own <= peer


@pytest.mark.parametrize("shape", [(4, 5), (4, 6, 3), (3, 4, 6, 5), (1, 2, 4, 6, 5)])
def test_wrong_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^x: expected a \(B, L, 5\) or \(2, B, L, 5\) tensor"):
        TaskGRU(5, 4, num_tasks=2)(torch.zeros(shape))


def test_wrong_lengths() -> None:
    layer = TaskGRU(5, 4, num_tasks=2)
    with pytest.raises(ValueError, match=r"^lengths: "):
        layer(torch.zeros(4, 6, 5), torch.tensor([1, 2, 3, 7]))
    with pytest.raises(ValueError, match=r"^lengths: "):
        layer(torch.zeros(2, 4, 6, 5), torch.tensor([1, 2]))


def test_what_cannot_be_converted() -> None:
    gru = partial(nn.GRU, batch_first=True)
    with pytest.raises(ValueError, match=r"^modules: expected at least one"):
        TaskGRU.from_torch([])
    with pytest.raises(TypeError, match=r"^modules: expected torch\.nn\.GRU, got LSTM"):
        TaskGRU.from_torch([nn.LSTM(3, 4)])
    with pytest.raises(ValueError, match=r"^modules: expected GRUs of the same settings"):
        TaskGRU.from_torch([gru(3, 4), gru(3, 5)])
    with pytest.raises(ValueError, match=r"^modules: .* 'bias': True.* 'bias': False"):
        TaskGRU.from_torch([gru(3, 4), gru(3, 4, bias=False)])
    with pytest.raises(ValueError, match=r"^modules: expected batch_first=True.*got False"):
        TaskGRU.from_torch([gru(3, 4), nn.GRU(3, 4)])


def test_wrong_settings() -> None:
    with pytest.raises(TypeError, match=r"^bidirectional: expected True or False, got 2$"):
        TaskGRU(5, 4, 2, bidirectional=2)
    with pytest.raises(TypeError, match=r"^bias: expected True or False, got None$"):
        TaskGRU(5, 4, 2, bias=None)
    with pytest.raises(ValueError, match=r"^dropout: expected a probability"):
        TaskGRU(5, 4, 2, dropout=1.0)
