from __future__ import annotations

import math

import pytest
import torch

from fastmtl.nn import fusion_levels
from fastmtl.nn.fusion_levels import edge_names
from fastmtl.report.attention import MAX_BARS, attention_strips
from fastmtl.report.chart import padded, ticks
from fastmtl.report.confusion import confusion_table
from fastmtl.report.curves import MAX_POINTS, operating, precision_recall
from fastmtl.report.epochs import epochs_charts
from fastmtl.report.graph import graph_levels, weights_table
from fastmtl.report.inspected import Graph, Sample
from fastmtl.report.labels import Concept, Confusion
from fastmtl.report.markup import tag
from fastmtl.training import EpochRecord
from fastmtl.training.history import history_csv, read_history_csv


def test_what_is_no_markup_is_escaped():
    inner = tag("b", "<i>", title='"&')
    assert inner == '<b title="&quot;&amp;">&lt;i&gt;</b>'
    assert tag("p", inner, [None, 1.5, "\x00"]) == f"<p>{inner}1.5\ufffd</p>"


@pytest.mark.parametrize("bounds", [(0, 1), (0, 3e-7), (5, 5), (-2, 40), (1, 100)])
def test_ticks_are_few_and_within(bounds):
    found = ticks(bounds, 5)
    assert len(found) <= 7
    assert all(bounds[0] - 1e-9 <= tick <= bounds[1] + 1e-9 for tick in found)


def test_a_range_holds_what_is_there():
    assert padded([None, math.nan]) == (0.0, 1.0)
    assert padded([2.0, 2.0])[1] > 2
    assert padded([-1.0, 3.0])[0] == -1


def test_a_curve_passes_through_its_operating_points():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(50, generator=generator).mul(20).round().div(20)
    y = (torch.rand(50, generator=generator) < p).float()
    points = precision_recall(p, y)
    for threshold in (0.025, 0.275, 0.525, 0.775):
        each = operating(p, y, threshold)
        assert (each.recall, each.precision) in [pytest.approx(point) for point in points]


def test_long_curves_are_thinned_but_begin_and_end_where_they_did():
    p = torch.linspace(1, 0, 5000)
    y = (torch.arange(5000) % 3 == 0).float()
    points = precision_recall(p, y)
    assert len(points) <= MAX_POINTS
    assert points[0] == (pytest.approx(1 / 1667), 1.0)
    assert points[-1][0] == 1.0
    assert precision_recall(p, torch.zeros(5000)) == []


def test_an_operating_point_without_anything_to_count():
    p, y = torch.tensor([0.2, 0.3]), torch.zeros(2)
    each = operating(p, y, 0.5)
    assert (each.precision, each.recall, each.f1) == (None, None, None)


@pytest.mark.parametrize("modalities", [1, 2, 3, 4, 5])
def test_a_drawing_for_each_level(modalities):
    names = [f"m{k}" for k in range(modalities)]
    levels = fusion_levels(modalities, 4)
    named = edge_names(names, 4)
    weights = [
        dict.fromkeys(names, 1.0),
        *({n: 1 / len(own) for n in own} for own in named),
    ]
    edges = tuple(level.edges for level in levels)
    graph = Graph(tuple(names), edges, named, tuple(weights), tuple(weights))
    drawn = graph_levels(graph, weights)
    assert len(drawn) == len(levels)
    assert weights_table(graph).count("<tr>") == 1 + sum(map(len, weights))
    assert all("nan" not in each for each in drawn)
    if modalities == 5:
        assert "the 30 heaviest drawn" in drawn[-1]


def test_attention_of_long_sequences_is_added_up():
    sample = Sample(
        0, "a", torch.tensor([0.9]), torch.tensor([1.0]), {}, {"x": torch.ones(500) / 500}, ()
    )
    drawn = attention_strips(sample, ["sea"], 0.5)
    assert drawn.count("v-") == MAX_BARS
    assert "500 steps" in drawn


def test_attention_by_task_is_that_of_the_labels_of_a_sample():
    attention = {"x": torch.full((4, 5), 0.2)}
    p, y = torch.tensor([0.1, 0.7, 0.6, 0.2]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    drawn = attention_strips(Sample(0, "a", p, y, {}, attention, ()), ["a", "b", "c", "d"], 0.5)
    places = [drawn.index(f"<b>{name}</b>") for name in ("c", "a", "b")]
    assert places == sorted(places)
    assert "<b>d</b>" not in drawn


def test_a_confusion_matrix():
    counts = torch.tensor([[8, 2], [0, 0]])
    drawn = confusion_table(Confusion("damage", ("<none>", "severe"), counts, 0.8, None))
    assert "&lt;none&gt; taken for severe: 2" in drawn
    assert "--share:0.800" in drawn
    many = Confusion("many", tuple(f"c{k}" for k in range(60)), torch.eye(60).long(), 1.0, 1.0)
    assert "the 40 most frequent of 60 classes" in confusion_table(many)


def records(epochs, tasks, **changes):
    each = {"micro_f1": 0.5, "hamming_loss": None, "map": None, **changes}
    return [
        EpochRecord(k + 1, 0.1, [0.5] * tasks, [None] * tasks, [1.0 + k] * tasks, **each)
        for k in range(epochs)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 30])
@pytest.mark.parametrize("tasks", [1, 8, 100])
def test_every_number_of_epochs_and_tasks_is_drawn(epochs, tasks):
    names = [f"task {k}" for k in range(tasks)]
    drawn = epochs_charts(records(epochs, tasks), names, 1)
    assert "nan" not in drawn
    assert ("highest and 4 lowest of 100" in drawn) == (tasks == 100)


def test_figures_that_no_epoch_has_are_left_out():
    drawn = epochs_charts(records(3, 2), ["a", "b"], 1)
    assert ("mAP" in drawn, "macro-F1" in drawn) == (False, False)
    drawn = epochs_charts(records(3, 2, map=0.5, macro_f1=0.4), ["a", "b"], 1)
    assert ("mAP" in drawn, "macro-F1" in drawn) == (True, True)


def test_a_history_is_read_as_it_was_written():
    written = records(3, 2)
    assert read_history_csv(history_csv(written, ["a/b", "c,d"]), 2) == written
    with pytest.raises(ValueError, match="history: expected the columns of 1 tasks"):
        read_history_csv(history_csv(written, ["a", "b"]), 1)


def test_labels_between_0_and_1_count_as_the_nearer_one():
    p, soft, hard = torch.tensor([0.9, 0.6, 0.2]), torch.tensor([0.5, 0.3, 0.8]), [1.0, 0.0, 1.0]
    assert operating(p, soft, 0.5) == operating(p, torch.tensor(hard), 0.5)
    assert precision_recall(p, soft) == precision_recall(p, torch.tensor(hard))
    own = operating(p, soft, 0.5)
    concept = Concept("sea", torch.arange(3), p, soft, 0.8, own, own, 1.0)
    assert concept.positives == 2
    assert concept.extremes() == {"best": [0, 2], "missed": [], "false": [1]}
    assert concept.mistakes() == [1]
    sample = Sample(0, "", p, soft, {}, {"x": torch.full((3, 2), 0.5)}, ())
    drawn = str(attention_strips(sample, ["sea", "sun", "siren"], 0.95))
    assert [name for name in ("sea", "sun", "siren") if name in drawn] == ["sea", "siren"]
