"""Every system of the papers: its name, its row in a table, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastmtl._checks import did_you_mean


@dataclass(frozen=True)
class System:
    """One row of a paper's table.

    Args:
        name: what `fastmtl reproduce --systems` takes.
        row: what the table calls it.
        parts: what it is made of.
        options: the fields of `fastmtl.training.TrainConfig` that define it.
        estimator: the name of a class in `fastmtl.models`, in place of options.

    Examples:
        >>> from fastmtl.reproduce.systems import TABLES
        >>> system = TABLES["mtmlan"].system("ewmtc")
        >>> system.row, system.options["balancer"]
        ('EWMTC', 'equal')
    """

    name: str
    row: str
    parts: str
    options: Mapping[str, Any] = field(default_factory=dict)
    estimator: str | None = None


@dataclass(frozen=True)
class PaperTable:
    """A comparison: the paper, its systems, those shown by default, and the figures reported.

    Args:
        name: what `fastmtl reproduce` takes.
        paper: where the table stands.
        systems: every row.
        default: the names of the rows shown by default.
        figures: keys of `fastmtl.training.multilabel_metrics`; the first decides which row is best
            and is the one tested for significance.
    """

    name: str
    paper: str
    systems: tuple[System, ...]
    default: tuple[str, ...]
    figures: tuple[str, ...]

    def system(self, name: str) -> System:
        """The system called `name`; ValueError if there is none."""
        for system in self.systems:
            if system.name == name:
                return system
        known = ", ".join(system.name for system in self.systems)
        near = did_you_mean(name, [system.name for system in self.systems])
        raise ValueError(f"systems: expected some of {known}, got {name!r}{near}")


_MTMLAN = (
    System(
        "cmlc",
        "CMLC",
        "one 2-layer BiGRU for all labels, cross-entropy",
        {"model": "cmlc", "balancer": "equal", "gamma": 0.0},
    ),
    System(
        "ewmtc",
        "EWMTC",
        "MTMLAN, cross-entropy, equal weights",
        {"model": "mtmlan", "balancer": "equal", "gamma": 0.0},
    ),
    System(
        "gradnorm",
        "GradNorm",
        "MTMLAN, cross-entropy, GradNorm (Chen et al. 2018)",
        {"model": "mtmlan", "balancer": "gradnorm", "gamma": 0.0},
    ),
    System(
        "wu",
        "WU",
        "MTMLAN, cross-entropy, uncertainty weighting (Kendall et al. 2018)",
        {"model": "mtmlan", "balancer": "uncertainty", "gamma": 0.0},
    ),
    System(
        "mtmlan-no-sl",
        "MTMLAN without SL",
        "MTMLAN, cross-entropy, task-level balancing: no sample-level balancing",
        {"model": "mtmlan", "balancer": "dmtl", "gamma": 0.0},
    ),
    System(
        "mtmlan-no-tip",
        "MTMLAN without TIP",
        "MTMLAN, focal loss, task-level balancing without the imbalance penalty N / n_j",
        {"model": "mtmlan", "balancer": "dmtl", "gamma": 2.0, "imbalance_penalty": False},
    ),
    System(
        "mtmlan",
        "MTMLAN",
        "MTMLAN, focal loss, task-level balancing with the imbalance penalty",
        {"model": "mtmlan", "balancer": "dmtl", "gamma": 2.0},
    ),
)

_FUSIONS = {
    "cfc": "concatenation",
    "matf": "multi-agent tensor fusion (Zhao et al. 2019)",
    "gfn": "graph fusion network (Mai et al. 2020)",
    "hgfn": "hierarchical graph fusion",
}
_BALANCINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "lsew": ("cross-entropy, equal weights", {"balancer": "equal", "gamma": 0.0}),
    "moo": (
        "cross-entropy, MGDA on normalised gradients (Sener and Koltun 2018)",
        {"balancer": "mgda", "gamma": 0.0},
    ),
    "mti-net": (
        "cross-entropy, task interaction (Vandenhende et al. 2020)",
        {"balancer": "equal", "gamma": 0.0, "interaction": True},
    ),
    "dmtl": ("focal loss, task-level balancing", {"balancer": "dmtl", "gamma": 2.0}),
}
_HGFN = tuple(
    System(
        f"{fusion}-{balancing}",
        f"{fusion.upper()} + {balancing.upper()}",
        f"{fusing}; {balanced}",
        {"model": fusion, **options},
    )
    for fusion, fusing in _FUSIONS.items()
    for balancing, (balanced, options) in _BALANCINGS.items()
)

_MTDNN = (
    System("mlknn", "ML-kNN", "nearest neighbours, maximum a posteriori", estimator="MLKNN"),
    System("bpmll", "BP-MLL", "one hidden layer, pairwise ranking loss", estimator="BPMLL"),
    System(
        "mtdnn", "MT-DNN", "deep network pretrained by RBMs, two nodes a label", estimator="MTDNN"
    ),
)

TABLES = {
    table.name: table
    for table in (
        PaperTable(
            "mtmlan",
            "Wang and Chen, Multi-label multi-task learning with dynamic task weight balancing, "
            "IRI 2020",
            _MTMLAN,
            tuple(system.name for system in _MTMLAN),
            ("micro_f1", "hamming_loss", "map", "one_error", "ranking_loss"),
        ),
        PaperTable(
            "hgfn",
            "Hierarchical multimodal fusion network with dynamic multi-task learning, IRI 2021",
            _HGFN,
            (
                "cfc-lsew",
                "cfc-dmtl",
                "matf-dmtl",
                "gfn-dmtl",
                "hgfn-lsew",
                "hgfn-moo",
                "hgfn-mti-net",
                "hgfn-dmtl",
            ),
            ("micro_f1", "hamming_loss", "map", "one_error", "ranking_loss"),
        ),
        PaperTable(
            "mtdnn",
            "Huang et al., Multi-task deep neural network for multi-label learning, ICIP 2013",
            _MTDNN,
            tuple(system.name for system in _MTDNN),
            ("hamming_loss", "one_error", "coverage", "ranking_loss", "lrap", "micro_f1"),
        ),
    )
}
