"""Each fusion against its equations, sample by sample."""

from __future__ import annotations

import pytest
import torch

from fastmtl.models import CMLC, FusionBaseline
from fastmtl.models.fusions import ConcatFusion, GraphFusion, TensorFusion
from fastmtl.nn import fusion_levels
from tests.tolerances import assert_close


def vertices(modalities, batch=4, features=6):
    return torch.randn(batch, modalities, features, dtype=torch.float64)


def test_concatenation():
    v = vertices(3)
    assert ConcatFusion(3, 6)(v).equal(torch.cat([v[:, 0], v[:, 1], v[:, 2]], 1))


def plain_conv(conv, cells):
    """A convolution of width 3 over a list of cells, each a vector; zeros beyond both ends."""
    result = []
    for place in range(len(cells)):
        total = conv.bias.clone()
        for offset in (-1, 0, 1):
            if 0 <= place + offset < len(cells):
                total = total + conv.weight[:, :, offset + 1] @ cells[place + offset]
        result.append(total)
    return result


@pytest.mark.parametrize("modalities", [1, 2, 4])
def test_multi_agent_tensor_fusion(modalities):
    fusion, batch = TensorFusion(modalities, 6).double(), vertices(modalities)
    expected = []
    for sample in batch:
        scene = sum(sample) / modalities
        fine = plain_conv(fusion.fine, [torch.cat([v, scene]) for v in sample])
        fine = [cell.clamp(min=0) for cell in fine]
        coarse = fusion.coarse(torch.stack(fine).max(0).values).clamp(min=0)
        merged = plain_conv(fusion.merge, [torch.cat([cell, coarse]) for cell in fine])
        expected.append(torch.cat([v + m for v, m in zip(sample, merged, strict=True)]))
    assert_close(fusion(batch), torch.stack(expected))


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
def test_graph_fusion_network(modalities):
    fusion, batch = GraphFusion(modalities, 6).double(), vertices(modalities)
    expected = []
    for sample in batch:
        single = [(v, fusion.importance(v).sigmoid(), v) for v in sample]
        parts = [sum(w * v for v, w, _ in single) / modalities]
        below = []
        for level, network in zip(fusion_levels(modalities), fusion.pairs, strict=True):
            nodes = below + single
            scores, joined = [], []
            for a, b in level.edges:
                (va, wa, ua), (vb, wb, ub) = nodes[a], nodes[b]
                score = (wa + wb) / (va.softmax(0) @ vb.softmax(0) + 0.5)
                scores.append(score.reshape(1))
                joined.append(network(torch.cat([ua, ub])))
            weighted = [
                torch.nn.functional.elu(w * v)
                for w, v in zip(torch.cat(scores).softmax(0), joined, strict=True)
            ]
            below = list(zip(joined, scores, weighted, strict=True))
            parts.append(sum(weighted))
        expected.append(torch.cat(parts))
    result = fusion(batch)
    assert result.shape == (4, fusion.out_features)
    assert_close(result, torch.stack(expected))


def test_graph_fusion_network_of_two_modalities_by_hand():
    """With W_1 = 0 the vertex is tanh of a bias, and the one edge has the weight 1."""
    fusion = GraphFusion(2, 2).double()
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.zero_()
        fusion.pairs[0][2].bias.copy_(torch.tensor([1.0, -1.0]))
    v = torch.tensor([[[2.0, 4.0], [6.0, 8.0]]], dtype=torch.float64)
    # Importances sigmoid(0), and ELU below 0.
    expected = torch.tensor(
        [[2.0, 3.0, 0.7615941559557649, -0.5330785122775574]], dtype=torch.float64
    )
    assert_close(fusion(v), expected)


def test_graph_fusion_network_does_not_depend_on_the_order_of_two_importances():
    fusion, v = GraphFusion(3, 6).double(), vertices(3)
    first = fusion(v)[:, :6]
    assert_close(fusion(v[:, [2, 0, 1]])[:, :6], first)


def test_unknown_fusion():
    with pytest.raises(ValueError, match=r"^fusion: expected one of cfc, matf, gfn, got 'sum'"):
        FusionBaseline({"text": 3}, 2, fusion="sum")


def test_cmlc_has_no_shared_layer():
    with pytest.raises(ValueError, match=r"^balance_at: .* no trainable shared layer"):
        CMLC(3, 2).task_weight("shared")
