"""Edge weights and graph fusion, forward and backward, beside PyTorch eager and torch.compile.

The limit counts the bytes that must move: forward reads the vertices (and edge vertices), backward
reads them again and writes their gradients.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import formulas
from benchmarks.support import copy_bandwidth, forward_backward, time_peer
from fastmtl.ops import fusion_edge_weights, graph_fusion
from tests.tolerances import assert_close

# B, P, D
SIZES = [(20, 3, 128), (4096, 3, 128), (1024, 6, 256)]
PEERS = ["fastmtl", "eager", "torch.compile"]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("op", ["edge weights", "graph fusion"])
@pytest.mark.parametrize("peer", PEERS)
def test_graph_fusion(benchmark: Any, peer: str, op: str, sizes: tuple[int, int, int]) -> None:
    batch, count, features = sizes
    if peer == "torch.compile" and count > 3:
        pytest.skip("torch 2.13 compiles this backward into code that corrupts the heap")
    edges = torch.tensor(list(combinations(range(count), 2)))
    vertices = torch.randn(batch, count, features, requires_grad=True)
    importance = torch.rand(batch, count, requires_grad=True)
    edge_vertices = torch.randn(batch, len(edges), features, requires_grad=True)
    seed = torch.randn(batch, len(edges))

    def weights(v: Tensor, w: Tensor) -> Tensor:
        return fusion_edge_weights(v, w, edges) * seed

    def fusion(v: Tensor, w: Tensor, e: Tensor) -> Tensor:
        return graph_fusion(v, w, edges, e)[0] ** 2

    def eager_weights(v: Tensor, w: Tensor) -> Tensor:
        return formulas.fusion_edge_weights(v, w, edges) * seed

    def eager_fusion(v: Tensor, w: Tensor, e: Tensor) -> Tensor:
        return formulas.graph_fusion(v, w, edges, e) ** 2

    alone = op == "edge weights"
    leaves = [vertices, importance] if alone else [vertices, importance, edge_vertices]
    eager = eager_weights if alone else eager_fusion
    function = {
        "fastmtl": weights if alone else fusion,
        "eager": eager,
        "torch.compile": torch.compile(eager),
    }[peer]
    step = forward_backward(function, leaves)

    leaves64 = [leaf.detach().double().requires_grad_() for leaf in leaves]
    for actual, wanted in zip(step(), forward_backward(eager, leaves64)(), strict=True):
        assert_close(actual, wanted, torch.float32, scale=2)

    moved = 3 * sum(leaf.nbytes for leaf in leaves)
    group = f"{op} B {batch}, P {count}, D {features} float32, forward + backward"
    time_peer(benchmark, peer, step, group=group, limit=moved / copy_bandwidth())
