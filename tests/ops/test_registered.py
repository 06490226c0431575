"""The registered ops check their arguments too: a graph gives them any, and kernels trust them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fastmtl
from fastmtl.ops import focal_loss, fusion_edge_weights, graph_fusion, task_gru_layer

OPS = torch.ops.fastmtl
GRAPH = (torch.zeros(2, 3, 4), torch.zeros(2, 3))
GRU = (
    torch.zeros(7, 5),
    torch.zeros(2, 1, 12, 5),
    torch.zeros(2, 1, 12, 4),
    torch.zeros(2, 1, 12),
    torch.zeros(2, 1, 12),
)


@pytest.mark.parametrize(
    ("op", "arguments", "message"),
    [
        (
            "focal_loss",
            (torch.zeros(40, 6), torch.zeros(40, 6), torch.ones(1, 6).bool(), None, 2.0, "task"),
            "mask: expected",
        ),
        (
            "grouped_focal_loss",
            (torch.zeros(4, 5), torch.zeros(4, 2).long(), None, [2, 30], -100, 2.0, "task"),
            "logits: expected",
        ),
        (
            "multilabel_loss",
            (
                *(torch.zeros(4, 6), torch.zeros(4, 6), None, torch.zeros(5), *[None] * 4),
                *([0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0], False, "task"),
            ),
            "gamma_pos: expected",
        ),
        ("stacked_norms", ([torch.zeros(3, 2), torch.zeros(4, 2)],), r"stacked\[1\]: expected"),
        ("task_grad_norms", (torch.zeros(4, 3), torch.zeros(2, 9, 3)), "inputs: expected"),
        ("task_grad_gramian", (torch.zeros(4, 3), torch.zeros(2, 4, 3).half()), "grad_outputs"),
        ("least_norm_weights", (torch.zeros(4, 3), 5), "gramian: expected"),
        (
            "pcgrad_weights",
            (torch.eye(2), torch.tensor([[0, 1], [2, 0]])),
            "order: expected indices from 0 to 1",
        ),
        (
            "gradvac_weights",
            (torch.eye(2), torch.zeros(2, 2).long(), torch.eye(2), 2.0, 0.0),
            "beta: expected",
        ),
        ("nonnegative_qp", (torch.eye(3), torch.zeros(2, 4)), "linear: expected"),
        ("fusion_edge_weights", (*GRAPH, torch.tensor([[0, 10**9]]), 0.5), "edges: expected"),
        (
            "graph_fusion",
            (*GRAPH, torch.zeros(2, 7, 1), torch.tensor([[0, 1]]), 0.5),
            "edge_vertices: expected",
        ),
        (
            "task_gru_layer",
            (*GRU, torch.tensor([0]), torch.tensor([2**63 - 1]), True),
            "lengths: expected",
        ),
        ("task_gru_layer", (*GRU, torch.tensor([5]), torch.tensor([3]), True), "lengths: expected"),
    ],
)
def test_wrong_arguments(op: str, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(OPS, op)(*arguments)


def test_wrong_arguments_of_a_backward() -> None:
    stats, grad, edges = torch.zeros(2, 7), torch.zeros(2, 1), torch.tensor([[0, 10**9]])
    with pytest.raises(ValueError, match="edges: expected"):
        OPS.fusion_edge_weights_backward(grad, stats, *GRAPH, edges, 0.5)


def test_lengths_whose_sum_overflows() -> None:
    starts = torch.tensor([3])
    for length in (2**63 - 1, 2**62):
        with pytest.raises(ValueError, match="lengths: expected sequences that lie in 7 rows"):
            task_gru_layer(*GRU, starts, torch.tensor([length]))
    with pytest.raises(ValueError, match="lengths: expected sequences that lie in 7 rows"):
        task_gru_layer(*GRU, torch.tensor([2**63 - 1]), torch.tensor([1]))


def test_edges_that_change_after_the_call() -> None:
    vertices, importance = (leaf.clone().requires_grad_() for leaf in GRAPH)
    edges = torch.tensor([[0, 1], [1, 2]])
    weights = fusion_edge_weights(vertices + torch.randn(2, 3, 4), importance, edges)
    wanted = torch.autograd.grad(weights.square().sum(), vertices, retain_graph=True)
    edges.numpy()[:] = 10**9
    actual = torch.autograd.grad(weights.square().sum(), vertices)
    assert torch.equal(actual[0], wanted[0])


def test_edges_first_seen_under_inference_mode() -> None:
    vertices, importance = (leaf.clone().requires_grad_() for leaf in GRAPH)
    edge_vertices, edges = torch.ones(2, 2, 1), [(0, 2), (2, 1)]
    with torch.inference_mode():
        graph_fusion(vertices, importance, edges, edge_vertices)
    fused, _ = graph_fusion(vertices, importance, edges, edge_vertices)
    fused.sum().backward()
    assert importance.grad is not None


def test_tensors_without_memory_are_refused() -> None:
    nothing, targets = torch._efficientzerotensor((4, 2)), torch.ones(4, 2)
    with fastmtl.use_backend("native"):
        with pytest.raises(ValueError, match="expected tensors with memory"):
            focal_loss(nothing, targets)
        loss = focal_loss(torch.zeros(4, 2, requires_grad=True), targets)
        with pytest.raises(ValueError, match="expected tensors with memory"):
            loss.backward(torch._efficientzerotensor(2))
        assert focal_loss(torch.zeros(0, 2), torch.ones(0, 2)).tolist() == [0, 0]
