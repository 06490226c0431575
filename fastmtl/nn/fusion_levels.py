"""Which vertices a fusion graph joins at each level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from fastmtl._checks import need_size


@dataclass(frozen=True)
class FusionLevel:
    """One level of the graph: each edge joins two vertices into one vertex of this level.

    `edges` index the vertices that take part: at level 2 the M modalities; above it the vertices of
    the level below, in the order of its edges, then the M modalities. `members` gives for each edge
    the modalities that its vertex covers.

    Args:
        edges: pairs of vertices.
        members: for each edge, a set of modalities.

    Examples:
        >>> from fastmtl.nn import FusionLevel, fusion_levels
        >>> fusion_levels(2) == (FusionLevel(edges=((0, 1),), members=(frozenset({0, 1}),)),)
        True
    """

    edges: tuple[tuple[int, int], ...]
    members: tuple[frozenset[int], ...]


def fusion_levels(num_modalities: int, max_level: int = 3) -> tuple[FusionLevel, ...]:
    """Return levels 2 to min(num_modalities, max_level) of the fusion graph.

    A vertex of level k covers exactly k modalities. Level 2 has an edge for each unordered pair of
    modalities. Level k joins two vertices of level k - 1 that together cover k modalities, and each
    vertex of level k - 1 with each modality that it lacks: 3 + 3 edges for M = 3, k = 3.

    Args:
        num_modalities: M.
        max_level: the highest level, where there are modalities enough.

    Raises:
        TypeError or ValueError: for what is no int of at least 1.

    Examples:
        >>> from fastmtl.nn import fusion_levels
        >>> bimodal, trimodal = fusion_levels(3)
        >>> bimodal.edges
        ((0, 1), (0, 2), (1, 2))
        >>> trimodal.edges
        ((0, 1), (0, 2), (1, 2), (0, 5), (1, 4), (2, 3))
    """
    need_size("num_modalities", num_modalities)
    need_size("max_level", max_level)
    single = [frozenset([modality]) for modality in range(num_modalities)]
    below: list[frozenset[int]] = []
    levels = []
    for level in range(2, min(num_modalities, max_level) + 1):
        vertices = below + single
        edges = tuple(
            (a, b)
            for a, b in _candidates(len(below), len(vertices))
            if len(vertices[a] | vertices[b]) == level
        )
        below = [vertices[a] | vertices[b] for a, b in edges]
        levels.append(FusionLevel(edges, tuple(below)))
    return tuple(levels)


def edge_names(modalities: Sequence[str], max_level: int = 3) -> tuple[tuple[str, ...], ...]:
    """Names of the edges of each level, by those of the vertices that they join.

    Args:
        modalities: their names.
        max_level: as for `fusion_levels`.

    Raises:
        TypeError or ValueError: as `fusion_levels`.

    Examples:
        >>> from fastmtl.nn.fusion_levels import edge_names
        >>> edge_names(["text", "audio", "video"])[1][2:4]
        ('(text+video)+(audio+video)', '(text+audio)+video')
    """
    vertices = list(modalities)
    named: list[tuple[str, ...]] = []
    for level in fusion_levels(len(modalities), max_level):
        if named:
            vertices = [*(f"({name})" for name in named[-1]), *modalities]
        named.append(tuple(f"{vertices[a]}+{vertices[b]}" for a, b in level.edges))
    return tuple(named)


def _candidates(below: int, vertices: int) -> list[tuple[int, int]]:
    """Pairs of vertices of the level below, then pairs of one of them and a modality."""
    if below == 0:
        return list(combinations(range(vertices), 2))
    mixed = [(a, b) for a in range(below) for b in range(below, vertices)]
    return [*combinations(range(below), 2), *mixed]
