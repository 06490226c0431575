from __future__ import annotations

import pytest
import torch

from fastmtl.nn import TaskInteraction
from tests.tolerances import assert_close


def test_equals_the_sum_over_pairs():
    unit = TaskInteraction(5, num_tasks=4).double()
    features = torch.randn(4, 2, 3, 5, dtype=torch.float64)
    expected, pair = features.clone(), 0
    for task in range(4):
        for source in range(4):
            if source == task:
                continue
            weight, bias = unit.gates.weight[pair], unit.gates.bias[pair]
            gate = (features[source] @ weight.t() + bias).sigmoid()
            expected[task] += gate * features[source]
            pair += 1
    assert_close(unit(features), expected)


def test_closed_gates_leave_the_features():
    unit = TaskInteraction(5, num_tasks=3)
    torch.nn.init.zeros_(unit.gates.weight)
    torch.nn.init.constant_(unit.gates.bias, -100.0)
    features = torch.randn(3, 7, 5)
    assert_close(unit(features), features)


def test_gradcheck():
    unit = TaskInteraction(2, num_tasks=3).double()
    features = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, (features,))


def test_one_task_and_no_sample():
    features = torch.randn(1, 7, 5)
    assert TaskInteraction(5, num_tasks=1)(features).equal(features)
    assert TaskInteraction(5, num_tasks=3)(torch.randn(3, 0, 5)).shape == (3, 0, 5)


def test_wrong_shape():
    with pytest.raises(ValueError, match=r"^features: expected a \(3, ..., 5\) tensor"):
        TaskInteraction(5, num_tasks=3)(torch.randn(2, 7, 5))
