"""What the numbers of positives say of a loss: weights of labels, and how far to shift logits."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl._checks import (
    need_device,
    need_number,
    need_probability,
    need_shape,
    need_size,
    need_tensor,
)


def class_balanced_weights(
    positives: Tensor,  # (T,)
    samples: int,
    beta: float = 0.999,
) -> tuple[Tensor, Tensor]:
    """Weights of positives and negatives by the effective numbers of samples.

    A class of n samples has the weight (1 - beta) / (1 - beta^n) (Cui et al. 2019, "Class-Balanced
    Loss Based on Effective Number of Samples", equation 12), here of the two classes of every task,
    and divided so that those sum to 2. beta = 0 weighs them alike, beta towards 1 by 1 / n.

    Args:
        positives: how many of the samples are positives of each task; 0 counts as 1.
        samples: how many there are, at least 1.
        beta: in [0, 1); the authors' are 0.9, 0.99, 0.999 and 0.9999.

    Shape:
        positives (T,), of any real dtype; both weights (T,), float32, or float64 for float64.

    Raises:
        TypeError or ValueError: for a `positives` that is no (T,) tensor, a `samples` below 1, a
            `beta` outside [0, 1).

    Examples:
        >>> import torch
        >>> from fastmtl.nn import MultilabelLoss, class_balanced_weights
        >>> pos, neg = class_balanced_weights(torch.tensor([50, 500]), 1000)
        >>> pos
        tensor([1.8526, 1.0000])
        >>> loss = MultilabelLoss(gamma_pos=2.0, gamma_neg=2.0, pos_weight=pos, neg_weight=neg)
    """
    counts = _counts(positives, samples)
    need_probability("beta", beta)
    both = torch.stack([counts, samples - counts]).clamp(min=1)
    # 1 - beta^n keeps its digits where beta is near 1.
    weights = 1 / -torch.expm1(both * torch.log(torch.tensor(beta, dtype=torch.float64)))
    weights = (2 * weights / weights.sum(0)).to(_dtype(positives))
    return weights[0], weights[1]


def log_odds(positives: Tensor, samples: int) -> Tensor:  # (T,) -> (T,)
    """The log-odds of a positive of each task, log(n / (N - n)).

    As a loss's `shift` they adjust its logits for the prior (Menon et al. 2021, "Long-tail learning
    via logit adjustment", equation 10): the network learns what the sample says beyond it.

    Args:
        positives: how many of the samples are positives of each task; kept half a sample away from
            none and all.
        samples: how many there are, at least 1.

    Shape:
        positives (T,), of any real dtype; the log-odds (T,), float32, or float64 for float64.

    Raises:
        TypeError or ValueError: for a `positives` that is no (T,) tensor, a `samples` below 1.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import log_odds
        >>> log_odds(torch.tensor([50, 500]), 1000)
        tensor([-2.9444,  0.0000])
    """
    counts = _counts(positives, samples).clamp(0.5, samples - 0.5)
    return (counts / (samples - counts)).log().to(_dtype(positives))


def rebalanced_weights(
    targets: Tensor,  # (N, T)
    positives: Tensor,  # (T,)
    *,
    alpha: float = 0.1,
    beta: float = 10.0,
    mu: float = 0.3,
) -> Tensor:
    """Weights of elements that undo how often a sample is drawn for its other labels.

    With n_j positives of task j, the weight of element (i, j) is

        alpha + sigmoid(beta (r - mu)),   r = (1 / n_j) / sum_k (y_ik / n_k)

    (Wu et al. 2020, "Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed
    Datasets", equations 3 to 5). For a sample without a positive, where the authors divide by
    zero, the sum is the least that it can be with one.

    Args:
        targets: from 0 to 1; NaN, which is a missing label, counts as 0.
        positives: how many of the training samples are positives of each task; 0 counts as 1.
        alpha: of the map that smooths r, its offset, >= 0.
        beta: its steepness, >= 0.
        mu: where it rises.

    Shape:
        targets (N, T), positives (T,); the weights (N, T), of the dtype of floating targets,
        float32 for others.

    Raises:
        TypeError or ValueError: for arguments of other types, shapes or devices.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import rebalanced_weights
        >>> rebalanced_weights(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.tensor([10, 990]))
        tensor([[1.0990, 0.1522],
                [1.1000, 1.0991]])
    """
    need_tensor("targets", targets)
    if targets.dim() != 2:
        raise ValueError(f"targets: expected shape (N, T), got {tuple(targets.shape)}")
    counts = _counts(positives, 1).clamp(min=1)
    need_shape("positives", positives, tuple(targets.shape[1:]), "one number a task (T,)")
    need_device("positives", positives, "targets", targets)
    for name, number in (("alpha", alpha), ("beta", beta), ("mu", mu)):
        need_number(name, number)
    dtype = targets.dtype if targets.is_floating_point() else torch.float32
    rate = (1 / counts).to(torch.float64 if dtype == torch.float64 else torch.float32)
    drawn = (targets.to(rate.dtype).nan_to_num(0) @ rate)[:, None]
    least = rate.min() if len(rate) else rate.new_ones(())
    ratio = rate / torch.where(drawn > 0, drawn, least)
    return (alpha + torch.sigmoid(beta * (ratio - mu))).to(dtype)


def _counts(positives: Tensor, samples: int) -> Tensor:
    """Numbers of positives in float64."""
    need_tensor("positives", positives)
    if positives.dim() != 1 or positives.dtype.is_complex:
        raise ValueError(
            f"positives: expected real numbers of shape (T,), got {positives.dtype} of shape "
            f"{tuple(positives.shape)}"
        )
    need_size("samples", samples)
    return positives.double()


def _dtype(positives: Tensor) -> torch.dtype:
    return torch.float64 if positives.dtype == torch.float64 else torch.float32
