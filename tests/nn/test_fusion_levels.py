from __future__ import annotations

from itertools import combinations
from math import comb

import pytest

from fastmtl.nn import fusion_levels


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("max_level", [1, 2, 3, 4])
def test_as_many_levels_as_modalities_and_max_level_allow(count: int, max_level: int) -> None:
    levels = fusion_levels(count, max_level)
    assert len(levels) == min(count, max_level) - 1
    for size, level in enumerate(levels, start=2):
        assert len(level.edges) == len(level.members) == len(set(level.edges))
        assert all(len(members) == size for members in level.members)
        assert {frozenset(c) for c in combinations(range(count), size)} == set(level.members)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_numbers_of_edges(count: int) -> None:
    levels = fusion_levels(count, 3)
    assert len(levels[0].edges) == comb(count, 2)
    if count > 2:
        # Each triple: 3 pairs of its bimodal vertices, and 3 with the missing modality.
        assert len(levels[1].edges) == 6 * comb(count, 3)


def test_an_edge_joins_vertices_that_cover_its_members() -> None:
    count = 4
    single = [frozenset([modality]) for modality in range(count)]
    below: list[frozenset[int]] = []
    for level in fusion_levels(count, 4):
        vertices = [*below, *single]
        for (a, b), members in zip(level.edges, level.members, strict=True):
            assert a < b
            assert vertices[a] | vertices[b] == members
            assert a < max(len(below), 1) or not below
        below = list(level.members)


@pytest.mark.parametrize("arguments", [(0, 3), (3, 0)])
def test_wrong_sizes(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected at least 1, got 0"):
        fusion_levels(*arguments)
