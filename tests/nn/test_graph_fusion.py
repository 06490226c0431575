from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastmtl.nn import HierarchicalGraphFusion, fusion_levels
from tests.tolerances import assert_close


def fuse(fusion: HierarchicalGraphFusion, vertices: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The formulas of the docstring, edge by edge."""

    def standardized(vector: Tensor) -> Tensor:
        centred = vector - vector.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()

    count = fusion.num_modalities
    importance = fusion.attention(vertices)
    fused = [(importance.unsqueeze(2) * vertices).sum(1) / count]
    weights = [importance]
    joined = list(zip(vertices.unbind(1), importance.unbind(1), strict=True))
    graph = fusion_levels(count, 1 + len(fusion.levels))
    level: Any
    for level, edges in zip(fusion.levels, (own.edges for own in graph), strict=True):
        sets, scores, outputs = level.dense.num_tasks, [], []
        kernels = level.conv.weight.chunk(sets), level.conv.bias.chunk(sets)
        for index, (a, b) in enumerate(edges):
            own = index if sets > 1 else 0
            (v_a, w_a), (v_b, w_b) = joined[a], joined[b]
            c_a, c_b = map(standardized, (v_a, v_b)) if fusion.similarity_norm else (v_a, v_b)
            similarity = F.cosine_similarity(c_a.softmax(1), c_b.softmax(1), dim=1)
            scores.append((w_a + w_b) / (similarity + fusion.theta))
            kernel = kernels[0][own]
            hidden = F.conv1d(
                torch.stack((v_a, v_b), 1), kernel, kernels[1][own], padding=kernel.shape[2] // 2
            )
            hidden = F.leaky_relu(hidden).flatten(1)
            dense = F.linear(hidden, level.dense.weight[own], level.dense.bias[own])
            outputs.append(F.leaky_relu(dense))
        weight = torch.stack(scores, 1).softmax(1)
        fused.append((weight.unsqueeze(2) * torch.stack(outputs, 1)).sum(1))
        weights.append(weight)
        joined = [
            *zip(outputs, weight.unbind(1), strict=True),
            *zip(vertices.unbind(1), importance.unbind(1), strict=True),
        ]
    if fusion.level_norm:
        fused = [standardized(level) for level in fused]
    if fusion.gain is not None:
        fused = [fusion.gain[k] * level for k, level in enumerate(fused)] + list(vertices.unbind(1))
    return torch.cat(fused, 1), weights


NORMS = {"similarity_norm": True, "level_norm": True}


@pytest.mark.parametrize("options", [{}, NORMS, {"residual": True}, {**NORMS, "residual": True}])
@pytest.mark.parametrize("share_pairs", [True, False])
@pytest.mark.parametrize(
    ("count", "max_level"), [(1, 3), (2, 3), (3, 1), (3, 2), (3, 3), (4, 3), (4, 4)]
)
def test_equals_the_formulas(
    count: int, max_level: int, share_pairs: bool, options: dict[str, bool]
) -> None:
    fusion = HierarchicalGraphFusion(
        count,
        5,
        theta=0.7,
        max_level=max_level,
        pair_channels=2,
        share_pairs=share_pairs,
        **options,
    ).double()
    vertices = torch.randn(3, count, 5, dtype=torch.float64, requires_grad=True)
    fused, weights = fusion(vertices, return_weights=True)
    expected, expected_weights = fuse(fusion, vertices)
    assert fused.shape == (3, fusion.out_features)
    beside = count if options.get("residual") else 0
    assert fusion.out_features == 5 * (min(count, max_level) + beside)
    assert_close(fused, expected)
    for actual, theirs in zip(weights, expected_weights, strict=True):
        assert not actual.requires_grad
        assert_close(actual, theirs)
    assert fusion(vertices).equal(fused)

    inputs = [vertices, *fusion.parameters()]
    direction = torch.randn_like(fused)
    actual_grads = torch.autograd.grad((fused * direction).sum(), inputs)
    expected_grads = torch.autograd.grad((expected * direction).sum(), inputs)
    for actual, theirs in zip(actual_grads, expected_grads, strict=True):
        assert theirs.ne(0).any()
        # A lone modality's importance is a scale, which the norm of the level takes away: what is
        # left of its gradient is a difference.
        assert_close(actual, theirs, scale=1e3 if count == 1 and fusion.level_norm else 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_other_dtypes(batch: int, dtype: torch.dtype) -> None:
    fusion = HierarchicalGraphFusion(3, 8).to(dtype)
    vertices = torch.randn(batch, 3, 8, dtype=dtype)
    fused, weights = fusion(vertices, return_weights=True)
    expected = fusion.double()(vertices.double())
    assert fused.dtype == dtype
    assert_close(fused, expected, dtype, scale=4)
    for weight in weights[1:]:
        torch.testing.assert_close(
            weight.sum(1).float(), torch.ones(batch), rtol=0, atol=torch.finfo(dtype).eps * 4
        )


def test_sharing_keeps_the_parameters_few() -> None:
    def size(count: int, share_pairs: bool) -> int:
        fusion = HierarchicalGraphFusion(count, 8, share_pairs=share_pairs)
        return sum(parameter.numel() for parameter in fusion.levels.parameters())

    assert size(3, True) == size(5, True)
    edges = sum(len(level.edges) for level in fusion_levels(5))
    assert size(5, False) * 2 == size(5, True) * edges


def vectors(samples: int, count: int, features: int) -> Tensor:
    """What HGFN's encoders make of standardised features, before they are trained."""
    x = torch.randn(samples, count, 60)
    encoders = [torch.nn.Linear(60, features) for _ in range(count)]
    return F.leaky_relu(torch.stack([e(x[:, m]) for m, e in enumerate(encoders)], 1))


@pytest.mark.parametrize("count", [2, 3])
def test_importances_start_around_one(count: int) -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        fusion = HierarchicalGraphFusion(count, 128)
        vertices = vectors(64, count, 128)
        fused, (importance, *_) = fusion(vertices, return_weights=True)
        assert importance.min() > 0.4
        assert importance.max() < 1.6
        # The level of the modalities is of the size of their mean.
        ratio = fused[:, :128].norm() / vertices.mean(1).norm()
        assert 0.6 < ratio < 1.4


def test_similarities_of_standardised_vertices_tell_samples_apart() -> None:
    def deviations(similarity_norm: bool) -> list[float]:
        torch.manual_seed(0)
        fusion = HierarchicalGraphFusion(3, 128, similarity_norm=similarity_norm)
        _, (_, *edge_weights) = fusion(vectors(64, 3, 128), return_weights=True)
        return [float(each.std(0).mean()) for each in edge_weights]

    for plain, normed in zip(deviations(False), deviations(True), strict=True):
        assert normed > 3 * plain
        assert normed > 0.01


def test_level_norm_gives_all_levels_one_size() -> None:
    fused = HierarchicalGraphFusion(3, 128, level_norm=True)(vectors(64, 3, 128))
    sizes = fused.view(64, 3, 128).square().mean(2).sqrt()
    assert_close(sizes, torch.ones(64, 3), torch.bfloat16)


def test_gradients_reach_every_parameter_at_the_start() -> None:
    fusion = HierarchicalGraphFusion(3, 32, **NORMS, residual=True)
    fusion(vectors(16, 3, 32)).square().sum().backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.norm() > 1e-4 * parameter.norm(), name


def test_samples_are_independent() -> None:
    fusion = HierarchicalGraphFusion(3, 6).double()
    vertices = torch.randn(5, 3, 6, dtype=torch.float64)
    order = torch.randperm(5)
    assert_close(fusion(vertices[order]), fusion(vertices)[order])


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (0, 2, 1)])
def test_non_contiguous_vertices(order: tuple[int, int, int]) -> None:
    fusion = HierarchicalGraphFusion(3, 6).double()
    vertices = torch.randn(5, 3, 6, dtype=torch.float64)
    strided = vertices.permute(order).contiguous().permute(order)
    assert not strided.is_contiguous()
    assert_close(fusion(strided), fusion(vertices))


def test_extreme_vertices_give_finite_results() -> None:
    fusion = HierarchicalGraphFusion(3, 6)
    vertices = (torch.randn(5, 3, 6) * 1e4).requires_grad_()
    fused = fusion(vertices)
    fused.sum().backward()
    assert fused.isfinite().all()
    assert vertices.grad is not None
    assert vertices.grad.isfinite().all()


@pytest.mark.slow
def test_compiles_without_a_graph_break() -> None:
    fusion = HierarchicalGraphFusion(3, 8)
    compiled = torch.compile(fusion, fullgraph=True)
    vertices = torch.randn(4, 3, 8, requires_grad=True)
    expected = fusion(vertices)
    actual = compiled(vertices)
    assert_close(actual, expected.double(), torch.float32, scale=10)
    (actual_grad,) = torch.autograd.grad(actual.sum(), vertices)
    (expected_grad,) = torch.autograd.grad(expected.sum(), vertices)
    assert_close(actual_grad, expected_grad.double(), torch.float32, scale=10)


@pytest.mark.parametrize("name", ["similarity_norm", "level_norm", "residual"])
def test_options_are_flags(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected True or False, got 1"):
        HierarchicalGraphFusion(3, 6, **{name: 1})


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"^vertices: expected a \(B, 3, 6\) tensor"):
        HierarchicalGraphFusion(3, 6)(torch.zeros(4, 2, 6))
    with pytest.raises(ValueError, match=r"^theta: expected a finite number > 0"):
        HierarchicalGraphFusion(3, 6, theta=0.0)
    with pytest.raises(ValueError, match=r"^pair_kernel_size: expected an odd number"):
        HierarchicalGraphFusion(3, 6, pair_kernel_size=2)
    with pytest.raises(ValueError, match=r"^max_level: expected at least 1"):
        HierarchicalGraphFusion(3, 6, max_level=0)


@pytest.mark.parametrize("count", [2, 3])
def test_beside_the_vectors_the_levels_start_smaller_but_alive(count: int) -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        fusion = HierarchicalGraphFusion(count, 128, similarity_norm=True, residual=True)
        vertices = vectors(64, count, 128)
        *levels, beside = fusion(vertices).split([128] * count + [count * 128], 1)
        for level in levels:
            ratio = level.square().mean().sqrt() / beside.square().mean().sqrt()
            assert 0.01 < ratio < 0.4
