"""Where in a graph the parameters below a point are used, and what their gradients are made of.

The gradient of a weight that one layer uses once is a product of what the layer saved and of the
gradient of its output: d^T x of a linear map. Inner products of such gradients need no gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional as F

# The layers that are known, and which input of their node the weight is.
_WEIGHT_SLOTS = {
    "AddmmBackward0": 2,
    "MmBackward0": 1,
    "ConvolutionBackward0": 1,
    "EmbeddingBackward0": 0,
}
# What may lie between a weight and its layer: neither changes inner products of its gradients.
_BETWEEN = ("TBackward0", "ToCopyBackward0")
# A backward pass through these takes one gradient at a time.
_ONE_BY_ONE = (
    "TaskGruLayerBackward",
    "CudnnRnnBackward0",
    "MiopenRnnBackward0",
    "MkldnnRnnLayerBackward0",
)
# So do these, which torch.vmap cannot follow, where autocast gave them halves beside float32
# weights.
_ONE_BY_ONE_MIXED = ("NativeLayerNormBackward0", "NativeGroupNormBackward0")
# Those that keep no graph, or no parameter, to go through once more, and why.
_IMPASSABLE = {
    "CompiledFunctionBackward": "torch.compile made one node of them, which frees what it saved; "
    "compile the tasks' networks alone",
    "RegisterPostBackwardFunctionBackward": "FSDP frees their parameters; measure at the layer",
}


@dataclass(frozen=True, eq=False)
class LayerUse:
    """The one use of a weight by a layer that is known, as a linear map y = x W^T."""

    node: Node
    rows: int  # M
    features: int  # I
    outputs: int  # O
    _inputs: Callable[[], Tensor]
    _grads: Callable[[Tensor], Tensor]

    def inputs(self) -> Tensor:
        """x (M, I)."""
        return self._inputs()

    def grads(self, stacked: Tensor) -> Tensor:
        """d (t, M, O), from the gradients (t, ...) of the layer's output."""
        return self._grads(stacked)


@dataclass
class Uses:
    """How gradients get from a point of a graph to the parameters below it."""

    layers: list[LayerUse] = field(default_factory=list)
    # Parameters whose gradients are to be taken as they are.
    others: list[nn.Parameter] = field(default_factory=list)
    # The layers below which there is none of these.
    last: set[Node] = field(default_factory=set)
    # Elements of the largest tensor on the way.
    largest: int = 0
    # Whether gradients can take that way several at once.
    together: bool = True


def find_uses(
    root: Node,
    wanted: Callable[[nn.Parameter], bool],
    by_inputs: Callable[[int, int, int], bool] | None,
) -> Uses:
    """The uses of the `wanted` parameters below a node. Whether a convolution is taken apart, or
    the gradients of its weight as they are, is for `by_inputs` (M, I, O) to say; None takes all
    gradients as they are."""
    nodes = _upwards(root)
    arrivals = Counter(below for node in nodes for below, _ in node.next_functions if below)
    uses = Uses(together=not any(_takes_one(node) for node in nodes))
    taken = set()
    for node in nodes:
        weight = _weight_of(node, arrivals)
        if by_inputs is not None and weight is not None and wanted(weight):
            layer = _layer_use(node, by_inputs)
            if layer is not None:
                uses.layers.append(layer)
                taken.add(id(weight))
    leaves = {id(node): node for node in nodes if _parameter(node) is not None}
    for node in leaves.values():
        parameter = _parameter(node)
        if parameter is not None and wanted(parameter) and id(parameter) not in taken:
            uses.others.append(parameter)
    ends = {use.node for use in uses.layers} | {
        node for node in leaves.values() if any(_parameter(node) is p for p in uses.others)
    }
    on_the_way = _above(nodes, ends)
    _need_passable(on_the_way)
    uses.last = {use.node for use in uses.layers} - on_the_way
    uses.largest = max((_elements(node) for node in on_the_way), default=0)
    return uses


def _upwards(root: Node) -> list[Node]:
    """All nodes that gradients at `root` can get to, each behind those that it hands them to."""
    order: list[Node] = []
    seen, stack = {root}, [(root, iter(root.next_functions))]
    while stack:
        node, edges = stack[-1]
        for below, _ in edges:
            if below is not None and below not in seen:
                seen.add(below)
                stack.append((below, iter(below.next_functions)))
                break
        else:
            order.append(node)
            stack.pop()
    return order


def _takes_one(node: Node) -> bool:
    name = node.name()
    if name in _ONE_BY_ONE_MIXED and node._input_metadata[0].dtype.itemsize == 2:
        weights = [below for below, _ in node.next_functions[1:] if below is not None]
        return any(each._input_metadata[0].dtype == torch.float32 for each in weights)
    return name in _ONE_BY_ONE


def _above(nodes: Iterable[Node], ends: set[Node]) -> set[Node]:
    """Those of `nodes`, in the order of `_upwards`, from which gradients get to one of `ends`."""
    above: set[Node] = set()
    for node in nodes:
        if any(below in ends or below in above for below, _ in node.next_functions if below):
            above.add(node)
    return above


def _need_passable(nodes: Iterable[Node]) -> None:
    for node in nodes:
        if reason := _IMPASSABLE.get(node.name()):
            raise RuntimeError(
                "scope: the tasks' gradients cannot be followed through the layers below the "
                f"shared one: {reason}"
            )


def _parameter(node: Node) -> nn.Parameter | None:
    variable = getattr(node, "variable", None)
    return variable if isinstance(variable, nn.Parameter) else None


def _elements(node: Node) -> int:
    return max((prod(each.shape) for each in node._input_metadata), default=0)


def _weight_of(node: Node, arrivals: Counter[Node]) -> nn.Parameter | None:
    """The weight of a layer that is known, where nothing else uses it."""
    slot = _WEIGHT_SLOTS.get(node.name())
    if slot is None:
        return None
    below = node.next_functions[slot][0]
    while below is not None and arrivals[below] == 1:
        if below.name() not in _BETWEEN:
            return _parameter(below)
        below = below.next_functions[0][0]
    return None


def _layer_use(node: Any, by_inputs: Callable[[int, int, int], bool]) -> LayerUse | None:
    name = node.name()
    if name == "EmbeddingBackward0":
        return None if node._saved_scale_grad_by_freq else _embedding(node)
    if name == "ConvolutionBackward0":
        return _convolution(node, by_inputs)
    if name == "AddmmBackward0" and (node._saved_alpha, node._saved_beta) != (1, 1):
        return None
    outputs = node._input_metadata[0].shape[1]
    saved = "_saved_mat1" if name == "AddmmBackward0" else "_saved_self"
    rows, features = getattr(node, f"{saved}_sym_sizes")
    return LayerUse(
        node, rows, features, outputs, lambda: getattr(node, saved), lambda grads: grads
    )


def _embedding(node: Any) -> LayerUse:
    """A table of E columns: the gradients of equal indices add up to that of a row."""
    shape = node._input_metadata[0].shape
    columns, count = shape[-1], prod(shape[:-1])

    def grads(stacked: Tensor) -> Tensor:
        indices = node._saved_indices.flatten()
        ordered, order = indices.sort()
        # Numbers the distinct indices, without waiting to know how many there are.
        number = F.pad(ordered[1:] != ordered[:-1], (1, 0)).cumsum(0)
        stacked = stacked.flatten(1, -2).index_select(1, order)
        stacked = stacked * (ordered != node._saved_padding_idx).unsqueeze(1)
        return torch.zeros_like(stacked).index_add_(1, number, stacked).flatten(1).unsqueeze(1)

    return LayerUse(node, 1, 1, count * columns, lambda: _one(node), grads)


def _one(node: Any) -> Tensor:
    metadata = node._input_metadata[0]
    return torch.ones(1, 1, dtype=metadata.dtype, device=metadata.device)


def _convolution(node: Any, by_inputs: Callable[[int, int, int], bool]) -> LayerUse | None:
    """A linear map of the patches, one row for each place of each sample."""
    weight_shape = node._saved_weight.shape if node._saved_weight is not None else ()
    if node._saved_groups != 1 or node._saved_transposed or len(weight_shape) not in (3, 4):
        return None
    shape = node._input_metadata[0].shape  # (N, O, *places)
    rows, features = shape[0] * prod(shape[2:]), prod(weight_shape[1:])
    if not by_inputs(rows, features, shape[1]):
        return None

    def inputs() -> Tensor:
        x, flat = node._saved_input, len(weight_shape) == 3
        pairs = [node._saved_dilation, node._saved_padding, node._saved_stride]
        dilation, padding, stride = (_pair(each, i == 1) for i, each in enumerate(pairs))
        patches = F.unfold(
            x.unsqueeze(2) if flat else x, _pair(weight_shape[2:], False), dilation, padding, stride
        )
        return patches.transpose(1, 2).reshape(rows, features)

    def grads(stacked: Tensor) -> Tensor:
        return stacked.flatten(3).transpose(2, 3).flatten(1, 2)

    return LayerUse(node, rows, features, shape[1], inputs, grads)


def _pair(sizes: Any, padding: bool) -> tuple[int, int]:
    """Of a convolution over one dimension, the sizes for an image of one row."""
    first, *second = sizes
    return (first, *second) if second else (0 if padding else 1, first)
