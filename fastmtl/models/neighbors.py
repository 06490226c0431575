"""Exact nearest neighbours by Euclidean distance."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastmtl.models.estimator import Rows, dense

IntArray = NDArray[np.int64]
# Distances of one chunk of queries to all points, and of its candidates' coordinates.
_CHUNK_BYTES = 256 << 20
# Candidates beyond k whose exact distances are computed.
_SPARE = 16
# Neighbouring columns that are first looked at by their smallest value alone.
_GROUP = 64


class NeighbourSearch:
    """The k nearest of the points (M, D) to each query, equal distances in the order of the points.

    A float32 matrix product gives approximate distances and the k + 16 best candidates of each
    query; of these the distance is computed anew in float64, as a sum of squared differences. Where
    the rounding error of the first step could hide a nearer point, all points within that error of
    the k-th are candidates. So the result is exact, and the same for any number of threads, at
    little more than the price of one matrix product. Sparse points are multiplied as they are.
    """

    def __init__(self, points: Rows, device: str = "cpu") -> None:
        self.points = points
        self.device = torch.device(device)
        # A common shift changes no distance, and keeps squared norms from swamping differences.
        self.centre = points.mean(0, dtype=np.float64) if isinstance(points, np.ndarray) else None
        self.norms = self._on_device(self._norms(points))
        self.transposed: Any = (
            self._on_device(self._shifted(points)).t() if self.centre is not None else None
        )

    def __call__(self, queries: Rows, k: int, *, exclude_self: bool = False) -> IntArray:
        """Indices (n, k). With `exclude_self` the queries are the points, and none is its own."""
        size = self.points.shape[0]
        if k > size - exclude_self:
            raise ValueError(f"k: expected at most {size - exclude_self} other samples, got {k}")
        width = max(4 * size, 8 * (k + _SPARE) * self.points.shape[1])
        step = min(max(1, _CHUNK_BYTES // width), queries.shape[0])
        # One for all chunks: the pages of a new one each time cost half as much as the product.
        space = torch.empty((step, size), dtype=torch.float32, device=self.device)
        parts = [
            self._chunk(queries[start : start + step], k, start if exclude_self else None, space)
            for start in range(0, queries.shape[0], max(1, step))
        ]
        return np.concatenate(parts) if parts else np.empty((0, k), np.int64)

    def _chunk(self, queries: Rows, k: int, own: int | None, space: torch.Tensor) -> IntArray:
        approximate, norms = self._approximate(queries, space[: queries.shape[0]])
        if own is not None:
            rows = torch.arange(len(approximate), device=self.device)
            approximate[rows, own + rows] = torch.inf
        others = approximate.shape[1] - (own is not None)
        best, index = _smallest(approximate, min(k + _SPARE, others))
        candidates = index.cpu().numpy()
        exact = self._exact(queries, candidates)
        order = np.lexsort((candidates, exact), axis=1)[:, :k]
        chosen = np.take_along_axis(candidates, order, 1)
        if candidates.shape[1] == others:
            return chosen
        farthest = torch.from_numpy(np.take_along_axis(exact, order[:, -1:], 1)[:, 0])
        limit = (farthest.to(self.device) - norms + self._error(norms)).float()
        limit = limit.nextafter(torch.full_like(limit, torch.inf))
        # What overflows float32 compares as neither: there all points are candidates.
        for row in (~(best[:, -1] > limit)).nonzero().flatten().tolist():
            near = (~(approximate[row] > limit[row])).nonzero().flatten().cpu().numpy()
            if own is not None:
                near = near[near != own + row]
            distances = self._exact(queries[row : row + 1], near[None])[0]
            chosen[row] = near[np.lexsort((near, distances))[:k]]
        return chosen

    def _approximate(self, queries: Rows, out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """|y|^2 - 2 x.y (n, M) float32 of queries x and points y, and |x|^2 (n,) float64."""
        norms = self._on_device(self._norms(queries)).double()
        if self.transposed is not None:
            shifted = self._on_device(self._shifted(queries))
            return torch.addmm(self.norms, shifted, self.transposed, alpha=-2, out=out), norms
        product = (self.points @ dense(queries).T).T
        scalars = self._on_device(np.ascontiguousarray(product, np.float32))
        return torch.add(self.norms, scalars, alpha=-2, out=out), norms

    def _error(self, norms: torch.Tensor) -> torch.Tensor:
        """A bound on the rounding errors of queries with these norms: those of D + 8 operations on
        terms that add up to at most |x|^2 + |y|^2, each twice."""
        roundings = 2 * (self.points.shape[1] + 8) * torch.finfo(torch.float32).eps
        return torch.mul(norms + self.norms.max().double(), roundings)

    def _exact(self, queries: Rows, candidates: IntArray) -> NDArray[np.float64]:
        """Squared distances (n, c) in float64 of each query to its own candidates (n, c)."""
        taken = dense(self.points[candidates.reshape(-1)]).astype(np.float64, copy=False)
        taken = taken.reshape(*candidates.shape, -1) - dense(queries)[:, None]
        return np.asarray(np.square(taken, out=taken).sum(-1), np.float64)

    def _norms(self, rows: Rows) -> NDArray[np.float32]:
        if self.centre is not None or isinstance(rows, np.ndarray):
            shifted = self._shifted(rows)
            squares = np.einsum("nd,nd->n", shifted, shifted, dtype=np.float64)
        else:
            squares = np.asarray(rows.multiply(rows).sum(1)).reshape(-1)
        return _single(squares)

    def _shifted(self, rows: Rows) -> NDArray[np.float32]:
        shifted = dense(rows) if self.centre is None else dense(rows) - self.centre
        return _single(shifted)

    def _on_device(self, values: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)


def _single(values: NDArray[Any]) -> NDArray[np.float32]:
    """Rounded to float32; what does not fit in becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _smallest(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` smallest values (n, count) of each row, ascending, and their columns.

    A group with one of them is among the `count` groups of the smallest minima: as many values are
    at most the last of these minima. So only the minima and these groups are sorted.
    """
    size = values.shape[1]
    if size < 4 * count * _GROUP:
        best = values.topk(count, dim=1, largest=False)
        return best.values, best.indices
    whole = size // _GROUP * _GROUP
    groups = values[:, :whole].unflatten(1, (-1, _GROUP))
    chosen = groups.amin(2).topk(count, dim=1, largest=False, sorted=False).indices
    within = torch.arange(_GROUP, device=values.device)
    columns = (chosen[..., None] * _GROUP + within).flatten(1)
    rest = torch.arange(whole, size, device=values.device).expand(len(values), -1)
    columns = torch.cat([columns, rest], 1)
    best = values.gather(1, columns).topk(count, dim=1, largest=False)
    return best.values, columns.gather(1, best.indices)
