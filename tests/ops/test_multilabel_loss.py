from __future__ import annotations

from inspect import signature
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fastmtl.ops import focal_loss, multilabel_loss
from tests.axes import one_at_a_time
from tests.problems import (
    Problem,
    check,
    closed_form,
    exact,
    multilabel_loss_problem,
    seeds_for,
    solve,
)
from tests.tolerances import assert_close

F64, NAN = torch.float64, float("nan")
NARROW = [torch.bfloat16, torch.float16]
ASYMMETRIC = {"gamma_pos": 1.0, "gamma_neg": 4.0, "clip": 0.05}


def problem_of(shape: tuple[int, int], dtype: torch.dtype, **options: Any) -> Problem:
    return multilabel_loss_problem(*shape, dtype, **options)


# Powers of either sort, with a margin and without one.
FORMS: list[dict[str, Any]] = [
    {"by_task": False, **ASYMMETRIC},
    {"by_task": False, "gamma_pos": 0, "gamma_neg": 3},
    {"by_task": False, "gamma_pos": 0.5, "gamma_neg": 2.5, "clip": 0.2},
    {"by_task": True, "clip": 0.2},
    {"by_task": True, "clip": 0.0},
]
CASES = one_at_a_time(
    {"shape": (257, 13), "dtype": torch.float32, "clip": 0.1, "poly": 0.7, "smoothing": 0.1},
    {
        "shape": [(20, 7), (1, 1), (33, 1), (1, 65), (5, 1500), (3000, 8), (0, 4), (4, 0)],
        "dtype": [F64, *NARROW],
        "reduction": ["sum", "mean", "none"],
        "labels": [torch.bool, torch.int32, torch.int64, torch.float16, F64],
        "weigh": [None, torch.bool, F64, torch.bfloat16],
        "soft": [False],
        "clip": [0.0, 1e-3, 0.9],
        "poly": [0.0, -1.0],
        "smoothing": [0.0],
        "neg_scale": [0.5, 2.0],
        "detach_focus": [True],
    },
    *FORMS,
    *({"dtype": dtype, **form} for dtype in (F64, torch.bfloat16) for form in FORMS),
    *({"smoothing": 0.0, "soft": False, "weigh": None, **form} for form in FORMS),
    *({"dtype": dtype, "detach_focus": True, "clip": 0.0} for dtype in (torch.float32, F64)),
    # Columns in blocks, whose results are not written in place.
    *({"shape": (5, 1500), "dtype": dtype} for dtype in (F64, *NARROW)),
    *({"shape": (5, 1500), "reduction": reduction} for reduction in ("sum", "mean", "none")),
    *({"shape": (0, 4), "reduction": reduction} for reduction in ("sum", "mean", "none")),
    *({"dtype": dtype, "reduction": "none"} for dtype in (F64, *NARROW)),
)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_float64(kernels: str, case: dict[str, Any]) -> None:
    # The focus, which is not differentiated, is another function of the logits in the closed form.
    (dtype,) = check(problem_of(**case))
    assert dtype == (F64 if case["dtype"] == F64 else torch.float32)


GRADS = [{}, {"poly": 0.7, "smoothing": 0.2, "neg_scale": 2.0}, {"reduction": "none"}]


@pytest.mark.parametrize("options", GRADS, ids=str)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_gradcheck(backend: str, form: dict[str, Any], options: dict[str, Any]) -> None:
    problem = multilabel_loss_problem(6, 3, F64, **form | options).differentiable()
    torch.autograd.gradcheck(lambda z: problem.put(logits=z).outputs(), problem.leaves["logits"])


@pytest.mark.parametrize("reduction", ["task", "sum", "mean", "none"])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_closed_form_of_the_reference_is_its_derivative(
    form: dict[str, Any], detach: bool, reduction: str
) -> None:
    options = {"poly": 0.7, "neg_scale": 2.0, "detach_focus": detach, "reduction": reduction}
    problem = multilabel_loss_problem(30, 4, F64, **form | options)
    seeds = seeds_for(problem)
    for one, other in zip(closed_form(problem, seeds), exact(problem, seeds), strict=True):
        assert_close(one, other)


def random_batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows, tasks = (int(n) for n in torch.randint(1, 9, (2,), generator=generator))
    logits = 4 * torch.randn(rows, tasks, generator=generator, dtype=F64)
    targets = torch.randint(2, (rows, tasks), generator=generator).double()
    return logits, targets


def both(loss: Any, logits: Tensor) -> list[Tensor]:
    """Losses and the gradient of their sum."""
    leaf = logits.clone().requires_grad_()
    losses = loss(leaf)
    return [losses.detach(), *torch.autograd.grad(losses.sum(), leaf)]


def asymmetric_by_its_authors(
    logits: Tensor, targets: Tensor, gamma_pos: float, gamma_neg: float, clip: float, detach: bool
) -> Tensor:
    """AsymmetricLoss of Alibaba-MIIL/ASL (src/loss_functions/losses.py), before its sum, with the
    smallest probability lower than theirs, 1e-8."""
    eps = 1e-300
    xs_pos = torch.sigmoid(logits)
    xs_neg = 1 - xs_pos
    if clip > 0:
        xs_neg = (xs_neg + clip).clamp(max=1)
    loss = targets * torch.log(xs_pos.clamp(min=eps))
    loss = loss + (1 - targets) * torch.log(xs_neg.clamp(min=eps))
    if gamma_neg > 0 or gamma_pos > 0:
        pt = xs_pos * targets + xs_neg * (1 - targets)
        one_sided = gamma_pos * targets + gamma_neg * (1 - targets)
        focus = torch.pow(1 - pt, one_sided)
        loss = loss * (focus.detach() if detach else focus)
    return -loss


def test_is_the_asymmetric_loss_of_its_authors(backend: str) -> None:
    numbers = torch.Generator().manual_seed(1)
    for seed in range(2000 if backend == "native" else 200):
        logits, targets = random_batch(seed)
        gamma_pos, gamma_neg = (float(g) for g in torch.randint(0, 6, (2,), generator=numbers))
        clip = (0.0, 0.05, 0.2)[seed % 3]
        detach = seed % 2 == 0
        wanted = both(
            lambda z, y=targets, o=(gamma_pos, gamma_neg, clip, detach): asymmetric_by_its_authors(
                z, y, *o
            ),
            logits,
        )
        actual = both(
            lambda z, y=targets, g=gamma_pos, h=gamma_neg, c=clip, d=detach: multilabel_loss(
                *(z, y),
                gamma_pos=g,
                gamma_neg=h,
                clip=c,
                detach_focus=d,
                reduction="none",
            ),
            logits,
        )
        for one, other in zip(actual, wanted, strict=True):
            assert_close(one, other, scale=10)


def test_is_the_asymmetric_loss_of_timm() -> None:
    kind = pytest.importorskip("timm.loss").AsymmetricLossMultiLabel
    # Of its versions some sum, and some divide by the number of samples unless they are told to.
    total = {"reduction": "sum"} if "reduction" in signature(kind).parameters else {}
    for seed in range(2000):
        # Some compute in float32, where 1 - p cancels: by the size of the largest of many.
        logits = 4 * torch.randn(16, 8, dtype=F64)
        targets, detach = torch.randint(2, (16, 8)).double(), seed % 2 == 0
        theirs = kind(4, 1, 0.05, disable_torch_grad_focal_loss=detach, **total)
        wanted = both(lambda z, y=targets, f=theirs: f(z, y), logits)
        actual = both(
            lambda z, y=targets, d=detach: multilabel_loss(
                z, y, **ASYMMETRIC, detach_focus=d, reduction="sum"
            ),
            logits,
        )
        for one, other in zip(actual, wanted, strict=True):
            assert_close(one, other, torch.float32, scale=10)


def weighed_focal(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """sigmoid_focal_loss of torchvision, without a reduction."""
    p = torch.sigmoid(logits)
    loss = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    alpha_t = alpha * targets + (1 - alpha) * (1 - targets)
    return alpha_t * (1 - p_t) ** gamma * loss


FOCAL_PEERS = ["formula", "torchvision", "kornia"]


@pytest.mark.parametrize("peer", FOCAL_PEERS)
def test_is_the_focal_loss_with_alpha(peer: str) -> None:
    def focal(z: Tensor, y: Tensor, alpha: float, gamma: float) -> Tensor:
        if peer == "torchvision":
            ops = pytest.importorskip("torchvision.ops")
            return ops.sigmoid_focal_loss(z, y, alpha, gamma)
        if peer == "kornia":
            losses = pytest.importorskip("kornia.losses")
            return losses.binary_focal_loss_with_logits(z, y, alpha=alpha, gamma=gamma)
        return weighed_focal(z, y, alpha, gamma)

    for seed in range(2000):
        logits, targets = random_batch(seed)
        alpha, gamma = 0.1 + 0.8 * (seed % 7) / 7, (0.0, 1.0, 2.0, 2.5, 0.7)[seed % 5]
        wanted = both(lambda z, y=targets, a=alpha, g=gamma: focal(z, y, a, g), logits)
        actual = both(
            lambda z, y=targets, a=alpha, g=gamma: multilabel_loss(
                *(z, y),
                gamma_pos=g,
                gamma_neg=g,
                pos_weight=a,
                neg_weight=1 - a,
                reduction="none",
            ),
            logits,
        )
        for one, other in zip(actual, wanted, strict=True):
            assert_close(one, other, scale=100)  # they lose what 1 - p rounds


def poly1_by_its_authors(logits: Tensor, targets: Tensor, epsilon: float, gamma: float) -> Tensor:
    """Poly1 focal loss of the appendix of Leng et al. 2022, by torch.nn.functional."""
    p = torch.sigmoid(logits)
    ce_loss = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    pt = targets * p + (1 - targets) * (1 - p)
    return ce_loss * (1 - pt) ** gamma + epsilon * (1 - pt) ** (gamma + 1)


def test_is_poly1_of_its_authors() -> None:
    for seed in range(2000):
        logits, targets = random_batch(seed)
        epsilon, gamma = (-1.0, 0.5, 2.0)[seed % 3], float(seed % 4)
        wanted = both(
            lambda z, y=targets, e=epsilon, g=gamma: poly1_by_its_authors(z, y, e, g), logits
        )
        actual = both(
            lambda z, y=targets, e=epsilon, g=gamma: multilabel_loss(
                z, y, gamma_pos=g, gamma_neg=g, poly=e, reduction="none"
            ),
            logits,
        )
        for one, other in zip(actual, wanted, strict=True):
            assert_close(one, other, scale=100)


def test_is_binary_cross_entropy(backend: str) -> None:
    logits, targets = torch.randn(50, 3, dtype=F64), torch.rand(50, 3, dtype=F64)
    wanted = binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(0)
    assert_close(multilabel_loss(logits, targets), wanted)
    shift, weight = torch.tensor([0.3, -2, 0], dtype=F64), torch.rand(50, 3, dtype=F64) + 0.1
    smooth = targets * 0.9 + 0.05
    wanted = binary_cross_entropy_with_logits(
        logits + shift, smooth, weight, reduction="none"
    ).mean(0)
    actual = multilabel_loss(logits, targets, shift=shift, smoothing=0.1, weight=weight)
    assert_close(actual, wanted)


@pytest.mark.parametrize("gamma", [0, 2, 3.7])
def test_is_the_focal_loss(kernels: str, gamma: float) -> None:
    problem = multilabel_loss_problem(257, 13, soft=False, weigh=torch.bool, by_task=False)
    pos_weight = torch.rand(13) + 0.5
    problem = problem.put(gamma_pos=gamma, gamma_neg=gamma, pos_weight=pos_weight)
    others = {"targets": problem.others["targets"], "mask": problem.others["weight"]}
    others |= {"gamma": gamma, "pos_weight": pos_weight}
    focal = Problem(focal_loss, problem.leaves, others)
    for one, other in zip(solve(problem), solve(focal), strict=True):
        assert_close(one, other)


EXTREMES = one_at_a_time(
    {"dtype": torch.float32, **ASYMMETRIC},
    {"dtype": [F64, *NARROW], "gamma_neg": [0, 0.3, 3], "clip": [0, 1e-3]},
    {"dtype": F64, "gamma_neg": 0.3},
    {"gamma_neg": 2.5, "clip": 0, "poly": 1.0},
    {"dtype": F64, "gamma_neg": 2.5, "clip": 0},
)


@pytest.mark.parametrize("case", EXTREMES)
def test_finite_at_extreme_logits(kernels: str, case: dict[str, Any]) -> None:
    options = dict(case)
    dtype = options.pop("dtype")
    # Above max / gamma the reference overflows inside autograd.
    largest = torch.finfo(dtype).max / 16
    row = torch.tensor([largest, 1e4, 200, 88.5, 17, 1e-3, 0, 1e-30], dtype=F64)
    logits = torch.cat([row, -row]).clamp(-largest, largest).to(dtype)[:, None].expand(-1, 3)
    others = {"targets": torch.tensor([0.0, 1.0, 0.5]).expand(16, 3), "reduction": "none"}
    problem = Problem(multilabel_loss, {"logits": logits}, others | options)
    for actual, wanted in zip(solve(problem), exact(problem), strict=True):
        assert actual.isfinite().all()
        error = (actual.double() - wanted).abs()
        # Probabilities below it are 0 to the kernels, and may be divided by clip.
        tiny = torch.finfo(actual.dtype).smallest_normal / (options["clip"] or 1)
        assert (error <= 2e-2 * wanted.abs() + 4 * tiny).all()


@pytest.mark.parametrize("clip", [1e-3, 0.05, 0.5])
def test_keeps_its_accuracy_near_the_margin(kernels: str, clip: float) -> None:
    edge = torch.logit(torch.tensor(clip, dtype=F64))
    steps = torch.linspace(-0.01, 0.5, 401, dtype=F64)
    logits = (edge + steps).float()[:, None]
    for gamma in (0.0, 0.4, 2.0):
        others = {"targets": torch.zeros(401, 1), "clip": clip, "gamma_neg": gamma}
        problem = Problem(multilabel_loss, {"logits": logits}, others | {"reduction": "none"})
        for actual, wanted in zip(solve(problem), exact(problem), strict=True):
            assert_close(actual, wanted, scale=5)


def run(logits: Tensor, targets: Tensor, **others: Any) -> list[Tensor]:
    return solve(Problem(multilabel_loss, {"logits": logits}, {"targets": targets} | others))


@pytest.mark.parametrize("form", [{}, ASYMMETRIC, {"gamma_neg": 1.5, "clip": 0.1}], ids=str)
def test_nan_logits_show(kernels: str, form: dict[str, Any]) -> None:
    logits = torch.tensor([[NAN, 1.0, NAN], [0.0, NAN, 0.0]])
    loss, slope = run(logits, torch.tensor([[1.0, 0.0, 0.0], [0.0, NAN, 0.5]]), **form)
    assert loss.isnan().tolist() == [True, False, True]
    assert slope.isnan().tolist() == [[True, False, True], [False, False, False]]


@pytest.mark.parametrize("wrong", [2, -1, 1.25, -0.5])
def test_a_target_outside_0_to_1_makes_the_loss_nan(kernels: str, wrong: float) -> None:
    targets = torch.tensor([[1, 0, 0.5], [wrong, 0, 0.25]])
    loss, slope = run(torch.randn(2, 3), targets, **ASYMMETRIC)
    assert loss.isnan().tolist() == [True, False, False]
    assert slope[0].isfinite().all()


def test_a_power_below_0_makes_the_loss_nan(kernels: str) -> None:
    gamma = torch.tensor([1.0, -1.0])
    loss, _ = run(torch.randn(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]), gamma_neg=gamma)
    assert loss.isnan().tolist() == [False, True]


def test_a_task_without_labels_is_zero(backend: str) -> None:
    targets = torch.tensor([[NAN, 1.0], [NAN, 0.0]])
    for reduction in ("task", "sum", "mean", "none"):
        for weight in (torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool)):
            loss, slope = run(torch.randn(2, 2), targets, weight=weight, reduction=reduction)
            assert (loss == 0).all()
            assert (slope == 0).all()


def test_weights_of_0_and_1_are_a_mask(kernels: str) -> None:
    problem = multilabel_loss_problem(60, 9, weigh=torch.bool, clip=0.1)
    floats = problem.put(weight=problem.others["weight"].float())
    for one, other in zip(solve(problem), solve(floats), strict=True):
        assert one.equal(other)


@given(st.tuples(st.integers(1, 40), st.integers(1, 70)))
def test_weights_are_factors(backend: str, size: tuple[int, int]) -> None:
    problem = multilabel_loss_problem(*size, F64, reduction="none", clip=0.1)
    weight = problem.others["weight"]
    plain = problem.put(weight=weight != 0)
    for one, other in zip(solve(problem), solve(plain), strict=True):
        assert_close(one, other * weight)


@given(st.tuples(st.integers(1, 40), st.integers(1, 70)))
def test_numbers_of_all_tasks_are_those_of_each(backend: str, size: tuple[int, int]) -> None:
    numbers = {"gamma_pos": 1.5, "gamma_neg": 2.5, "pos_weight": 0.3, "neg_weight": 2.0}
    numbers |= {"shift": -0.7}
    problem = multilabel_loss_problem(*size, F64, by_task=False, clip=0.1)
    every = {name: torch.full((size[1],), number, dtype=F64) for name, number in numbers.items()}
    for one, other in zip(solve(problem.put(**numbers)), solve(problem.put(**every)), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_whole_powers_are_as_any(kernels: str, clip: float) -> None:
    problem = multilabel_loss_problem(257, 13, F64, by_task=False, clip=clip)
    for pos, neg in ((0.0, 4.0), (1.0, 3.0), (2.0, 0.0)):
        whole = problem.put(gamma_pos=pos, gamma_neg=neg)
        gamma = torch.full((13,), neg, dtype=F64)
        for one, other in zip(solve(whole), solve(whole.put(gamma_neg=gamma)), strict=True):
            assert_close(one, other)


GOOD: dict[str, Any] = {"logits": torch.zeros(4, 2), "targets": torch.zeros(4, 2)}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"logits": [[0.0]]}, TypeError, "logits: expected a tensor, got list"),
        ({"logits": torch.zeros(3)}, ValueError, r"logits: expected shape \(N, T\), got \(3,\)"),
        ({"targets": torch.zeros(4, 3)}, ValueError, r"targets: .* got shape \(4, 3\)"),
        ({"targets": torch.zeros(4, 2) * 1j}, TypeError, "targets: expected a real"),
        ({"targets": torch.zeros(4, 2, requires_grad=True)}, ValueError, "targets: has no gradie"),
        ({"weight": torch.ones(4, 2, dtype=torch.int64)}, TypeError, "weight: expected a bool or"),
        ({"weight": torch.ones(2, 4)}, ValueError, "weight: expected the shape of logits"),
        ({"weight": torch.ones(4, 2, requires_grad=True)}, ValueError, "weight: has no gradient"),
        ({"gamma_pos": -1}, ValueError, "gamma_pos: expected a finite number >= 0, got -1"),
        ({"gamma_neg": "2"}, TypeError, "gamma_neg: expected a number, got str"),
        ({"gamma_neg": torch.ones(3)}, ValueError, "gamma_neg: expected one number a task"),
        ({"shift": torch.ones(2, requires_grad=True)}, ValueError, "shift: has no gradient"),
        ({"shift": NAN}, ValueError, "shift: expected a finite number"),
        ({"pos_weight": torch.ones(2, dtype=torch.int64)}, TypeError, "pos_weight: expected"),
        ({"neg_weight": -0.5}, ValueError, "neg_weight: expected a finite number >= 0"),
        ({"clip": 1.0}, ValueError, r"clip: expected a probability in \[0, 1\), got 1.0"),
        ({"smoothing": -0.1}, ValueError, "smoothing: expected a probability"),
        ({"poly": float("inf")}, ValueError, "poly: expected a finite number"),
        ({"neg_scale": 0}, ValueError, "neg_scale: expected a finite number > 0, got 0"),
        ({"detach_focus": 1}, TypeError, "detach_focus: expected True or False, got 1"),
        ({"reduction": "max"}, ValueError, "reduction: expected one of"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        multilabel_loss(**GOOD | wrong)
