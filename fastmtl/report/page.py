"""The page: sections put together, with style and script inside."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import fastmtl
from fastmtl._text import short
from fastmtl.data.tasks import is_positive
from fastmtl.report.attention import Frames, attention_strips
from fastmtl.report.concepts import concept_cards, concepts_table
from fastmtl.report.confusion import confusion_table
from fastmtl.report.epochs import epochs_charts, legend_of
from fastmtl.report.findings import Findings
from fastmtl.report.graph import graph_levels, weights_table
from fastmtl.report.inspected import Sample
from fastmtl.report.markup import Markup, join, number, tag
from fastmtl.report.settings import settings_tables
from fastmtl.training.metrics import decide
from fastmtl.training.report import told

# Labels written beside a sample.
MAX_CHIPS = 8


def render(
    findings: Findings,
    names: Mapping[int, str],
    frames: Frames | None = None,
    captions: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The whole page: HTML that asks nobody else for anything.

    Args:
        findings: what it shows.
        names: of samples, by row.
        frames: gives pictures of a sample over time; see `attention_strips`.
        captions: of samples, by their names.
    """
    sections = {
        "Summary": _summary(findings),
        "Concepts": _concepts(findings, names),
        "Classes": _classes(findings),
        "Training": _training(findings),
        "Fusion": _fusion(findings),
        "Samples": _samples(findings, frames, captions),
        "Settings": settings_tables(findings.settings, findings.record),
    }
    there = {name: content for name, content in sections.items() if content}
    links = [tag("a", name, href=f"#{name.lower()}") for name in there]
    body = [
        tag(
            "header",
            tag("h1", findings.title),
            tag("p", findings.data, class_="data"),
            tag("nav", links),
        ),
        tag(
            "main",
            (
                tag("section", tag("h2", name), content, id=name.lower())
                for name, content in there.items()
            ),
        ),
        tag("footer", f"fastmtl {fastmtl.__version__}"),
    ]
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{findings.title} on {findings.data}"),
        tag("style", Markup(_file("style.css"))),
    ]
    script = tag("script", Markup(_file("sort.js")))
    page = tag("html", tag("head", head), tag("body", body, script), lang="en")
    return f"<!doctype html>\n{page}\n"


def _file(name: str) -> str:
    return files("fastmtl.report").joinpath(name).read_text(encoding="utf-8")


def _summary(findings: Findings) -> Markup:
    split = findings.split
    own = findings.figures[split]
    tuned = findings.tuned
    ways = findings.calibration

    def beside(key: str) -> str:
        others = [f"{k} {number(v.get(key))}" for k, v in findings.figures.items() if k != split]
        return ", ".join(others) or f"on {split}"

    macro = _mean(tuned["f1"])
    tiles = [
        ("mAP", own["map"], beside("map")),
        ("micro-F1", own["micro_f1"], beside("micro_f1")),
        ("macro-F1, tuned", macro, f"{number(_mean(own['f1']))} at {findings.threshold:.3g}"),
        ("macro-F1 of classes", own.get("macro_f1"), beside("macro_f1")),
        ("Hamming loss", own["hamming_loss"], beside("hamming_loss")),
        (
            "calibration error",
            ways["calibrated"]["calibration_error"],
            f"{number(ways['as trained']['calibration_error'])} before",
        ),
    ]
    return join(
        tag(
            "div",
            (
                tag("div", tag("b", number(value)), tag("span", name), tag("small", said))
                for name, value, said in tiles
                if value is not None
            ),
            class_="tiles",
        ),
        tag("p", _story(findings), class_="said"),
        tag("details", tag("summary", "More figures"), _figures(findings)),
    )


def _figures(findings: Findings) -> Markup:
    """Every figure of all labels together, by split, and by the labels' own thresholds."""
    threshold = f"{findings.threshold:.3g}"
    columns = {f"{name}, at {threshold}": own for name, own in findings.figures.items()}
    columns[f"{findings.split}, own thresholds"] = findings.tuned
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            (tag("td", number(own.get(key))) for own in columns.values()),
        )
        for key, name in _FIGURES.items()
        if any(own.get(key) is not None for own in columns.values())
    ]
    head = tag("tr", tag("th", ""), (tag("th", name, scope="col") for name in columns))
    return tag("div", tag("table", tag("thead", head), tag("tbody", rows)), class_="scroll")


def _story(findings: Findings) -> str:
    samples = f"{findings.measured:,} samples of the {findings.split} split"
    if findings.split == "all":
        samples = f"all {findings.measured:,} samples"
    story = f"Measured on {samples}: {told(findings.tasks)}."
    training = findings.training
    if {"epochs", "best_epoch", "stopped_early", "seconds_per_epoch"} <= training.keys():
        story += f" Trained for {training['epochs']} epochs"
        story += ", stopped early" if training["stopped_early"] else ""
        story += f"; the weights are those of epoch {training['best_epoch']}."
        story += f" {training['seconds_per_epoch']:.2g} s an epoch."
    return story


def _concepts(findings: Findings, names: Mapping[int, str]) -> Markup:
    if not findings.concepts:
        return join()
    here = findings.fitted_here
    where = "the validation split of this data" if here else "the run's validation split"
    said = (
        f"A label's own threshold is the one with its highest F1 on {where}; with few positives "
        "there, it overfits. Average precision (AP) needs none."
    )
    legend = legend_of(
        {
            "as trained; precision over recall": "main",
            "calibrated by the temperature": "second",
            "chance, or perfect calibration": "guide",
        }
    )
    dots = tag(
        "span",
        tag("i", class_="spot hollow"),
        "the run's threshold ",
        tag("i", class_="spot main"),
        "tuned",
        class_="entry",
    )
    return join(
        tag("p", said, class_="said"),
        concepts_table(findings.concepts, findings.threshold),
        tag("div", legend, dots, class_="key-row"),
        concept_cards(findings.concepts, dict(names)),
    )


def _classes(findings: Findings) -> Markup:
    if not findings.groups:
        return join()
    return tag("div", (confusion_table(each) for each in findings.groups), class_="grid wide")


def _training(findings: Findings) -> Markup:
    if not findings.history:
        return join()
    best = findings.training.get("best_epoch")
    return epochs_charts(findings.history, findings.tasks.names, best)


def _fusion(findings: Findings) -> Markup:
    graph = findings.graph
    if graph is None:
        return join()
    said = (
        f"Means over {findings.measured:,} samples. A vertex is as large as its importance, an "
        "edge as wide as its weight; the weights of a level add up to 1."
    )
    return join(
        tag("p", said, class_="said"),
        tag("div", graph_levels(graph, graph.means), class_="grid"),
        tag("details", tag("summary", "As numbers"), weights_table(graph)),
    )


def _samples(findings: Findings, frames: Frames | None, captions: Mapping[str, str]) -> Markup:
    shown = [each for each in findings.samples if each.attention or each.weights]
    if not shown:
        return join()
    said = "What the model looked at. Dashed: attention that is the same at every step."
    cards = [_sample(each, findings, frames, captions.get(each.name)) for each in shown]
    if not shown[0].attention:
        return tag("div", cards, class_="grid wide")
    return join(tag("p", said, class_="said"), cards)


def _sample(
    sample: Sample, findings: Findings, frames: Frames | None, caption: str | None
) -> Markup:
    parts = []
    if sample.attention:
        names, threshold = findings.tasks.names, findings.threshold
        parts.append(attention_strips(sample, names, threshold, frames))
    if findings.graph is not None and sample.weights:
        levels = graph_levels(findings.graph, sample.weights)
        parts.append(tag("div", levels, class_="graphs"))
    looked = tag("div", parts, class_="look beside" if len(parts) > 1 else "look")
    head = join(tag("h3", sample.name), tag("p", caption, class_="said") if caption else None)
    return tag("article", head, _chips(sample, findings), looked, class_="sample")


def _chips(sample: Sample, findings: Findings) -> Markup:
    """The labels that a sample has or is given, with their probabilities."""
    given = decide(sample.probabilities, findings.threshold).tolist()
    has = is_positive(sample.targets).tolist()
    order = sample.probabilities.argsort(descending=True, stable=True).tolist()
    shown = [task for task in order if has[task] or given[task]]
    chips = []
    for task in shown[:MAX_CHIPS]:
        kind = ("hit" if given[task] else "missed") if has[task] else "false"
        if sample.targets[task] != sample.targets[task]:
            kind = "unknown"
        name = short(findings.tasks.names[task])
        p = number(float(sample.probabilities[task]), 2)
        chips.append(tag("span", name, tag("b", p), tag("small", _KINDS[kind]), class_=kind))
    for task, decided in sample.classes.items():
        kind = "hit" if decided.name == decided.true else "missed"
        kind = "unknown" if decided.true is None else kind
        said = _KINDS[kind] if kind != "missed" else f"is {decided.true}"
        name = short(f"{task}: {decided.name}", 40)
        chips.append(
            tag(
                "span",
                name,
                tag("b", number(decided.probability, 2)),
                tag("small", said),
                class_=kind,
            )
        )
    if len(shown) > MAX_CHIPS:
        chips.append(tag("span", f"and {len(shown) - MAX_CHIPS} more"))
    return tag("p", chips, class_="chips")


_FIGURES = {
    "map": "mAP",
    "micro_f1": "micro-F1",
    "hamming_loss": "Hamming loss",
    "macro_f1": "macro-F1 of classes",
    "one_error": "one-error",
    "ranking_loss": "ranking loss",
    "coverage": "coverage",
    "lrap": "label ranking average precision",
}
_KINDS = {"hit": "right", "missed": "missed", "false": "wrong", "unknown": "not labelled"}


def _mean(values: Mapping[str, Any]) -> float | None:
    """Over the labels that have a figure."""
    present = [value for value in values.values() if value is not None]
    return sum(present) / len(present) if present else None
