"""`device` and `dtype` of every layer, as torch.nn's take them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastmtl.nn import (
    DynamicAttentionUnit,
    HierarchicalGraphFusion,
    SharedLinear,
    TaskAttention,
    TaskGRU,
    TaskInteraction,
    TaskLinear,
)

LAYERS = {
    "attention unit": (lambda **factory: DynamicAttentionUnit(3, **factory), (2, 3, 5)),
    "fusion": (lambda **factory: HierarchicalGraphFusion(3, 5, **factory), (2, 3, 5)),
    "fusion by edge": (
        lambda **factory: HierarchicalGraphFusion(3, 5, share_pairs=False, **factory),
        (2, 3, 5),
    ),
    "shared linear": (lambda **factory: SharedLinear(5, 4, 3, **factory), (2, 5)),
    "attention": (lambda **factory: TaskAttention(5, 4, 3, **factory), (3, 2, 6, 5)),
    "gru": (lambda **factory: TaskGRU(5, 4, 3, 2, bidirectional=True, **factory), (2, 6, 5)),
    "interaction": (lambda **factory: TaskInteraction(5, 3, **factory), (3, 2, 5)),
    "linear": (lambda **factory: TaskLinear(5, 4, 3, **factory), (3, 2, 5)),
}
each = pytest.mark.parametrize(("build", "shape"), LAYERS.values(), ids=list(LAYERS))


def output(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = layer(x)
    return y[0] if isinstance(y, tuple) else y


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_parameters_have_the_dtype(build, shape, dtype) -> None:
    layer = build(dtype=dtype)
    assert {parameter.dtype for parameter in layer.parameters()} == {dtype}
    assert output(layer, torch.randn(shape, dtype=dtype)).dtype == dtype


@each
def test_the_dtype_changes_no_name_and_no_size(build, shape) -> None:
    plain, double = build().state_dict(), build(dtype=torch.float64).state_dict()
    assert {name: value.shape for name, value in plain.items()} == {
        name: value.shape for name, value in double.items()
    }


@each
def test_built_on_meta_and_given_memory_it_is_the_layer(build, shape) -> None:
    layer, meta = build(dtype=torch.float64), build(device="meta", dtype=torch.float64)
    assert all(tensor.is_meta for tensor in (*meta.parameters(), *meta.buffers()))
    x = torch.randn(shape, dtype=torch.float64)
    assert output(meta, x.to("meta")).shape == output(layer, x).shape
    there = meta.to_empty(device="cpu")
    there.load_state_dict(layer.state_dict())
    assert output(there, x).equal(output(layer, x))
