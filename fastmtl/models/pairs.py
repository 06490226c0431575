"""Which parameter of a network out of `torch.nn` layers stands for which part of a model's."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from fastmtl.nn import TaskAttention, TaskGRU


class ParameterPair(NamedTuple):
    """`parameter[part]` of a model stands for the parameter `twin` of what `to_torch` gave.

    Attributes:
        parameter: of the model, stacked by task.
        part: an index into it.
        twin: of the shape of `parameter[part]`.

    Examples:
        >>> from fastmtl.models import MTMLAN, paired_parameters
        >>> model = MTMLAN(in_features=4, num_tasks=2, hidden_size=3)
        >>> pair = paired_parameters(model, model.to_torch())[0]
        >>> pair.parameter.shape, pair.part, pair.twin.shape
        (torch.Size([2, 2, 9, 4]), (0, 0), torch.Size([9, 4]))
    """

    parameter: nn.Parameter
    part: tuple[int | slice, ...]
    twin: Tensor


def layer_pairs(ours: Any, part: tuple[int | slice, ...], twin: Any) -> list[ParameterPair]:
    """The pairs of two layers that both have `weight` and `bias`."""
    return [
        ParameterPair(ours.weight, part, twin.weight),
        ParameterPair(ours.bias, part, twin.bias),
    ]


def gru_pairs(ours: TaskGRU, task: int, twin: nn.GRU) -> list[ParameterPair]:
    """The pairs of a task's GRU."""
    return [
        ParameterPair(parameter, (task, direction), getattr(twin, name))
        for name, parameter, direction in ours.torch_names()
    ]


def attention_pairs(attention: TaskAttention, task: int, twin: Any) -> list[ParameterPair]:
    """The pairs of a task's attention, with that of a `RecurrentAttention`."""
    return [
        ParameterPair(attention.w1, (task,), twin.w1.weight),
        ParameterPair(attention.w2, (slice(task, task + 1),), twin.w2.weight),
    ]
