from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastmtl.nn import DynamicAttentionUnit
from tests.tolerances import assert_close


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("batch", [0, 1, 4])
def test_equals_the_formula(batch: int, kernel_size: int) -> None:
    unit = DynamicAttentionUnit(3, channels=2, kernel_size=kernel_size, negative_slope=0.2)
    unit = unit.double()
    vertices = torch.randn(batch, 3, 7, dtype=torch.float64)
    image = F.conv2d(
        vertices[:, None], unit.expand.weight, unit.expand.bias, padding=kernel_size // 2
    )
    image = F.leaky_relu(image, 0.2)
    image = F.leaky_relu(F.conv2d(image, unit.reduce.weight, unit.reduce.bias), 0.2)
    expected = image[:, 0].mean(-1)
    actual = unit(vertices)
    assert actual.shape == (batch, 3)
    assert_close(actual, expected)


def test_samples_are_independent() -> None:
    unit = DynamicAttentionUnit(2).double()
    vertices = torch.randn(4, 2, 9, dtype=torch.float64)
    order = torch.randperm(4)
    assert_close(unit(vertices[order]), unit(vertices)[order])


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"^vertices: expected a \(B, 3, D\) tensor"):
        DynamicAttentionUnit(3)(torch.zeros(4, 2, 7))
    with pytest.raises(ValueError, match=r"^kernel_size: expected an odd number, got 4"):
        DynamicAttentionUnit(3, kernel_size=4)
