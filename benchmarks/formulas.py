"""The ops in plain PyTorch, as one would write them: the peers called "eager"."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """The focal loss by task (T,), of logits and targets (N, T); NaN is a missing label."""
    present, positive = ~targets.isnan(), targets == 1
    z = torch.where(present, logits.to(_accumulated(logits)), 0)
    x = torch.where(positive, z, -z)
    loss = -torch.exp(gamma * logsigmoid(-x)) * logsigmoid(x)
    loss = torch.where(positive | (targets == 0), loss, torch.nan)
    return torch.where(present, loss, 0).sum(0) / present.sum(0).clamp(min=1)


def torchvision_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The terms of torchvision.ops.sigmoid_focal_loss without alpha, averaged by task."""
    p = torch.sigmoid(logits)
    loss = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    return (loss * (1 - p_t) ** 2).mean(0)


def asymmetric_loss(
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    gamma_pos: float = 1.0,
    gamma_neg: float = 4.0,
    clip: float = 0.05,
) -> Tensor:
    """The terms of the asymmetric loss as its authors write them, averaged by task, (T,)."""
    p = torch.sigmoid(logits)
    q = (1 - p + clip).clamp(max=1)
    eps = torch.finfo(p.dtype).tiny
    loss = targets * p.clamp(min=eps).log() + (1 - targets) * q.clamp(min=eps).log()
    wrong = 1 - (p * targets + q * (1 - targets))
    power = gamma_pos * targets + gamma_neg * (1 - targets)
    return -(loss * wrong**power).mean(0)


def fusion_edge_weights(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    theta: float = 0.5,
) -> Tensor:
    """The edge weights (B, E)."""
    return _edge_weights(vertices, importance, edges, theta).to(vertices.dtype)


def graph_fusion(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    edge_vertices: Tensor,  # (B, E, D')
    theta: float = 0.5,
) -> Tensor:
    """The fused vector (B, D')."""
    weights = _edge_weights(vertices, importance, edges, theta)
    fused = (weights[:, :, None] * edge_vertices.to(weights.dtype)).sum(1)
    return fused.to(edge_vertices.dtype)


def _edge_weights(vertices: Tensor, importance: Tensor, edges: Tensor, theta: float) -> Tensor:
    dtype = _accumulated(vertices)
    p = torch.softmax(vertices.to(dtype), dim=2)
    p = p / torch.linalg.vector_norm(p, dim=2, keepdim=True)
    a, b = edges.to(vertices.device).unbind(1)
    cosine = (p[:, a] * p[:, b]).sum(2)
    w = importance.to(dtype)
    return torch.softmax((w[:, a] + w[:, b]) / (cosine + theta), dim=1)


def _accumulated(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
