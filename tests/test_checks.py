from __future__ import annotations

import pytest
import torch

from fastmtl._checks import (
    did_you_mean,
    need_choice,
    need_flag,
    need_odd,
    need_probability,
    need_size,
    need_sizes,
)


@pytest.mark.parametrize("value", [1.0, True, "3", None])
def test_a_size_is_an_int(value: object) -> None:
    with pytest.raises(TypeError, match=r"^rows: expected an int, got "):
        need_size("rows", value)


def test_bounds() -> None:
    assert need_size("rows", 1) == 1
    with pytest.raises(ValueError, match=r"^rows: expected at least 1, got 0$"):
        need_size("rows", 0)
    with pytest.raises(ValueError, match=r"^kernel: expected an odd number, got 4$"):
        need_odd("kernel", 4)
    for value in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"^dropout: expected a probability"):
            need_probability("dropout", value)
    assert need_probability("dropout", 0) == 0


@pytest.mark.parametrize("value", ["0.5", None, True])
def test_a_probability_is_a_number(value: object) -> None:
    with pytest.raises(TypeError, match=r"^dropout: expected a number, got "):
        need_probability("dropout", value)


def test_flags_and_choices() -> None:
    assert need_flag("bias", False) is False
    with pytest.raises(TypeError, match=r"^bias: expected True or False, got 1$"):
        need_flag("bias", 1)
    need_choice("fusion", "cfc", ("cfc", "gfn"))
    with pytest.raises(ValueError, match=r"^fusion: expected one of cfc, gfn, got 'sum'$"):
        need_choice("fusion", "sum", ("cfc", "gfn"))


def test_a_choice_that_is_mistyped() -> None:
    expected = r"^fusion: expected one of cfc, gfn, got 'cfcc' \(did you mean 'cfc'\?\)$"
    with pytest.raises(ValueError, match=expected):
        need_choice("fusion", "cfcc", ("cfc", "gfn"))
    assert did_you_mean(3, ("cfc", "gfn")) == ""


@pytest.mark.parametrize(
    ("sizes", "shape", "good"),
    [
        ((2, 3), ("B", 3), True),
        ((2, 4), ("B", 3), False),
        ((3,), ("B", 3), False),
        ((3,), ("...", 3), True),
        ((5, 2, 3), ("...", 3), True),
        ((), ("...", 3), False),
        ((7, 3), (7, "...", 3), True),
        ((7, 2, 5, 3), (7, "...", 3), True),
        ((3,), (3, "...", 3), False),
        ((), ("...",), True),
    ],
)
def test_sizes(sizes: tuple[int, ...], shape: tuple[str | int, ...], good: bool) -> None:
    if good:
        need_sizes("x", torch.zeros(sizes), shape)
    else:
        with pytest.raises(ValueError, match=r"^x: expected a \(.*\) tensor, got shape \("):
            need_sizes("x", torch.zeros(sizes), shape)


def test_what_is_no_floating_point_tensor() -> None:
    with pytest.raises(TypeError, match=r"^x: expected a tensor, got list$"):
        need_sizes("x", [1.0], ("B",))
    with pytest.raises(TypeError, match=r"^x: expected .*float.*, got torch.int64$"):
        need_sizes("x", torch.zeros(3, dtype=torch.int64), ("B",))
