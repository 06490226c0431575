"""Quality over cost: the mean rank of each method over what its step takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.methods.cost import LIBMTL, OURS, TORCHJD
from fastmtl.training.recipes import BALANCERS

# What a method needs decides its colour and its marker (Okabe and Ito's colours).
_KINDS = {
    "losses or nothing": ("#0072B2", "o"),
    "gradient norms": ("#E69F00", "s"),
    "Gramian": ("#009E73", "^"),
}
_LABEL_FROM = 0.72  # where labels end on the x axis
_LABELS = 32  # that the range of ranks has room for


def draw(ranks: Mapping[str, float], ratios: Mapping[tuple[str, str], float], path: Path) -> None:
    """Save the picture, of the methods that have both a rank and a cost."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 8), layout="constrained")
    methods = [method for method in ranks if (OURS, method) in ratios]
    values = [ranks[method] for method in methods]
    places = spread(values, max(max(values) - min(values), 1) / _LABELS)
    for method, place in zip(methods, places, strict=True):
        x, y = ratios[OURS, method], ranks[method]
        colour, marker = _KINDS[_kind(method)]
        axes.plot([_LABEL_FROM, x], [place, y], color="0.85", linewidth=0.8, zorder=0)
        axes.text(_LABEL_FROM * 0.98, place, method, ha="right", va="center", fontsize=10)
        if (TORCHJD, method) in ratios:
            theirs = ratios[TORCHJD, method]
            axes.plot([x, theirs], [y, y], color="0.6", linewidth=0.8, linestyle=":", zorder=0)
            axes.scatter(
                theirs, y, 45, marker=marker, facecolors="white", edgecolors=colour, linewidths=1.5
            )
        axes.scatter(x, y, 55, color=colour, marker=marker)
    _mark_backward_passes(axes, ratios)
    _finish(axes, ratios)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def spread(values: Sequence[float], height: float) -> list[float]:
    """Places for labels near their values, at least `height` apart, in the order of the values.

    Examples:
        >>> spread([5.0, 1.0, 1.5], height=1.0)
        [5.0, 0.75, 1.75]
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    groups: list[tuple[float, int]] = []  # the middle of labels that touch, and how many they are
    for index in order:
        middle, count = values[index], 1
        while groups and middle - groups[-1][0] < (count + groups[-1][1]) / 2 * height:
            other, others = groups.pop()
            middle = (middle * count + other * others) / (count + others)
            count += others
        groups.append((middle, count))
    sorted_places = [
        middle + (i - (count - 1) / 2) * height for middle, count in groups for i in range(count)
    ]
    places = [0.0] * len(values)
    for index, place in zip(order, sorted_places, strict=True):
        places[index] = place
    return places


def _kind(method: str) -> str:
    needs = getattr(BALANCERS[method].kind, "needs", "")
    if "Gramian" in needs:
        return "Gramian"
    return "gradient norms" if "norms" in needs else "losses or nothing"


def _mark_backward_passes(axes: Any, ratios: Mapping[tuple[str, str], float]) -> None:
    if (LIBMTL, "") not in ratios:
        return
    x = ratios[LIBMTL, ""]
    axes.axvline(x, color="#D55E00", linewidth=1.2, linestyle="--", zorder=0)
    axes.text(
        x * 0.96,
        0.98,
        "one backward pass a task, without any method",
        color="#D55E00",
        rotation=90,
        ha="right",
        va="top",
        transform=axes.get_xaxis_transform(),
    )


def _finish(axes: Any, ratios: Mapping[tuple[str, str], float]) -> None:
    for label, (colour, marker) in _KINDS.items():
        axes.scatter([], [], 55, color=colour, marker=marker, label=f"fastmtl, needs {label}")
    if any(way == TORCHJD for way, _ in ratios):
        axes.scatter([], [], 45, marker="^", c="white", edgecolors="#009E73", label="TorchJD")
    axes.set_xscale("log")
    axes.set_xlim(0.4, 1.3 * max(max(ratios.values()), 2))
    axes.set_xticks([x for x in (1, 2, 5, 10, 20, 50, 100) if x < 1.3 * max(ratios.values())])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.set_xlabel("time of a step over that of a plain one (cheaper to the left)")
    axes.set_ylabel("mean rank over tasks and problems (better above)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
