"""Attention over time of a sample, a strip of bars for each thing that attends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastmtl.data.tasks import is_positive
from fastmtl.report.inspected import Sample
from fastmtl.report.markup import Markup, join, tag
from fastmtl.training.metrics import decide

# Bars of a strip; of longer sequences neighbours are added up.
MAX_BARS = 120
MAX_TASKS = 6
WIDTH, HEIGHT = 640, 44
FRAMES = 10

# The picture files of a sample at places in [0, 1] of its time; none where it has no pictures.
Frames = Callable[[Sample, Sequence[float]], Sequence[str]]


def attention_strips(
    sample: Sample, label_names: Sequence[str], threshold: float, frames: Frames | None = None
) -> Markup:
    """A strip a modality, or a strip a task where each task attends on its own.

    Of the binary tasks those that the sample has or is given are drawn, at most six.

    Args:
        sample: with its attention.
        label_names: of the T tasks.
        threshold: of the decisions.
        frames: gives data URIs of pictures, to stand under the strips.
    """
    strips = []
    for modality, weights in sample.attention.items():
        if weights.dim() == 1:
            strips.append(_strip(modality, weights))
            continue
        for task in _tasks(sample, threshold):
            strips.append(_strip(label_names[task], weights[task]))
        # Multi-class tasks stand behind the binary ones.
        for task, own in enumerate(weights[len(sample.probabilities) :], len(sample.probabilities)):
            strips.append(_strip(label_names[task], own))
    return tag("div", strips, _pictures(sample, frames), class_="strips")


def _tasks(sample: Sample, threshold: float) -> list[int]:
    """The tasks that the sample has, then those that it is given, the likeliest first."""
    order = sample.probabilities.argsort(descending=True, stable=True).tolist()
    has = is_positive(sample.targets).tolist()
    own = [task for task in order if has[task]]
    given = decide(sample.probabilities, threshold)
    given_only = [task for task in order if task not in own and given[task]]
    return (own + given_only or order[:1])[:MAX_TASKS]


def _strip(name: str, weights: Tensor) -> Markup:
    steps = len(weights)
    if not float(weights.sum()):
        return tag("div", tag("p", tag("b", name), tag("span", "missing")), class_="strip")
    values = _binned(weights)
    top = max(float(values.max()), 1e-12)
    even = float(values.sum()) / len(values) / top
    step = WIDTH / len(values)
    gap = min(2.0, 0.2 * step)
    path = "".join(
        f"M{place * step:.1f} {HEIGHT}v-{value / top * HEIGHT:.1f}h{step - gap:.1f}V{HEIGHT}z"
        for place, value in enumerate(values.tolist())
    )
    drawn = tag(
        "svg",
        tag("path", d=path, class_="fill"),
        tag("path", d=f"M0 {HEIGHT * (1 - even):.1f}H{WIDTH}", class_="line guide"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"attention of {name} over {steps} steps",
    )
    peak = int(weights.argmax())
    said = f"{steps} steps, most at step {peak + 1}: {float(weights[peak]):.2f}"
    return tag("div", tag("p", tag("b", name), tag("span", said)), drawn, class_="strip")


def _binned(weights: Tensor) -> Tensor:
    if len(weights) <= MAX_BARS:
        return weights
    index = torch.arange(len(weights)) * MAX_BARS // len(weights)
    return weights.new_zeros(MAX_BARS).index_add_(0, index, weights)


def _pictures(sample: Sample, frames: Frames | None) -> Markup:
    places = [(k + 0.5) / FRAMES for k in range(FRAMES)]
    found = frames(sample, places) if frames else ()
    if not found:
        return join()
    images = [tag("img", src=source, alt="") for source in found]
    return tag("div", images, class_="frames")
