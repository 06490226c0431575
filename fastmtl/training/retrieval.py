"""Samples ranked by the probability of concepts, and how many of the first are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastmtl._checks import did_you_mean
from fastmtl.data.tasks import Tasks, is_positive

CUTS = (1, 5, 10, 20, 50, 100, 200, 500, 1000)
_NOT = "not "


@dataclass(frozen=True)
class Ranking:
    """All samples (n,) in falling order of their score.

    - `rows`: positions among the samples that were given;
    - `scores`: (n,), the product over the terms of p, or of 1 - p for one that is not to be seen;
    - `right`: (n,) 1, 0, or NaN where a label of the terms is missing; None without labels.
    """

    rows: Tensor
    scores: Tensor
    right: Tensor | None

    def precision_at(self, cuts: Sequence[int] = CUTS) -> dict[int, float]:
        """The share of right ones among the first k whose labels are known, by k.

        Examples:
            >>> right = torch.tensor([1.0, 1.0, 0.0, torch.nan])
            >>> Ranking(torch.arange(4), torch.ones(4), right).precision_at([1, 3, 4])
            {1: 1.0, 3: 0.6666666666666666, 4: 0.6666666666666666}
        """
        if self.right is None:
            return {}
        found = {}
        for k in cuts:
            known = self.right[:k][~self.right[:k].isnan()]
            if k <= len(self.right) and len(known):
                found[k] = known.double().mean().item()
        return found

    def average_precision(self) -> float | None:
        """Mean over the right ones of the precision at their rank; None where none is known."""
        if self.right is None:
            return None
        right = self.right[~self.right.isnan()].double()
        ranks = torch.arange(1, len(right) + 1)
        if not right.any():
            return None
        return (right * right.cumsum(0) / ranks).sum().item() / right.sum().item()


def parse_terms(terms: Sequence[str], columns: Sequence[str]) -> list[tuple[int, bool]]:
    """The column of every term, and whether it is to be seen: "flood", or "not flood".

    Raises:
        ValueError: for a term that is no column.

    Examples:
        >>> parse_terms(["flood", "not fire"], ["fire", "flood"])
        [(1, True), (0, False)]
    """
    found = []
    for term in terms:
        seen = term in columns or not term.startswith(_NOT)
        name = term if seen else term.removeprefix(_NOT).strip()
        if name not in columns:
            shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
            got = repr(term) + did_you_mean(name, columns)
            raise ValueError(f"concept: expected one of {shown}, got {got}")
        found.append((list(columns).index(name), seen))
    return found


def column_labels(tasks: Tasks, y: Tensor) -> Tensor:
    """Labels (n, C) of every column of `tasks.columns()`, from those of the tasks (n, T).

    A label between 0 and 1 counts as the nearer one; a class as 1 in its own column.

    Examples:
        >>> tasks = Tasks(["sea", "damage"], {"damage": ["none", "mild", "severe"]})
        >>> column_labels(tasks, torch.tensor([[1.0, 2.0], [0.3, torch.nan]]))
        tensor([[1., 0., 0., 1.],
                [0., nan, nan, nan]])
    """
    binary, others = y[:, : tasks.num_binary], y[:, tasks.num_binary :]
    parts = [torch.where(binary.isnan(), binary, is_positive(binary).to(y))]
    for number, classes in zip(others.unbind(1), tasks.num_classes, strict=True):
        own = (number[:, None] == torch.arange(classes)).to(y)
        parts.append(torch.where(number[:, None].isnan(), torch.nan, own))
    return torch.cat(parts, 1)


def ranked(
    terms: Sequence[tuple[int, bool]],
    probabilities: Tensor,  # (n, C)
    labels: Tensor | None,  # (n, C)
) -> Ranking:
    """Rank samples by the product of their probabilities of the terms.

    Args:
        terms: what `parse_terms` gave.
        probabilities: of every column, in [0, 1].
        labels: 0, 1, or NaN for missing; None where there are none.

    Examples:
        >>> p, y = torch.tensor([[0.25], [0.75]]), torch.tensor([[0.0], [1.0]])
        >>> found = ranked([(0, True)], p, y)
        >>> found.rows, found.right
        (tensor([1, 0]), tensor([1., 0.]))
    """
    columns = [column for column, _ in terms]
    seen = torch.tensor([seen for _, seen in terms])
    p = probabilities[:, columns]
    scores, rows = torch.where(seen, p, 1 - p).prod(1).sort(descending=True, stable=True)
    right = None
    if labels is not None:
        wanted = labels[:, columns]
        right = torch.where(seen, wanted, 1 - wanted)
        # One term that is known to fail decides, whatever the others are.
        right = torch.where((right == 0).any(1), 0.0, right.prod(1))[rows]
    return Ranking(rows, scores, right)
