from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from fastmtl.data import DataError, MultiTaskData
from fastmtl.report import report
from fastmtl.training import Predictor, arrange
from fastmtl.training.checkpoint import read_json
from tests.report.conftest import NAMES

VOID = {"meta", "img", "br", "col"}


class Page(HTMLParser):
    """Elements, texts and attributes; every element must end where it should."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.texts: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        values = dict(attrs)
        self.links += [values[name] for name in ("href", "src") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_a_page_stands_alone_and_is_escaped(run):
    directory, data = run
    content = report(directory, data)
    page = Page(content)
    assert page.seen.count("script") == page.seen.count("style") == 1
    assert "b" in page.seen  # ours
    for name in NAMES:
        assert name in page.texts
    # Nothing is asked of anybody: links lead to the page's own sections.
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"https?:|url\(|@import|fetch\(", content)
    assert str(directory) not in content


def test_the_figures_are_those_of_the_run(run):
    directory, data = run
    texts = Page(report(directory, data)).texts
    figures = read_json(directory / "metrics.json")["test"]
    for key in ("map", "micro_f1", "hamming_loss"):
        assert f"{figures[key]:.3f}" in texts
    for name in NAMES:
        place = texts.index(name)
        assert texts[place + 1] == str(figures["positives"][name])


def test_sections_are_those_that_a_model_has(run):
    directory, data = run
    page = Page(report(directory, data, split="all", samples=2))
    assert ("fusion" in page.ids) == isinstance(data.x, dict)
    assert {"summary", "concepts", "training", "samples", "settings"} <= set(page.ids)
    assert "classes" not in page.ids
    steps = [text for text in page.texts if "steps, most at step" in text]
    assert steps


def test_the_same_run_gives_the_same_page(run):
    directory, data = run
    assert report(directory, data) == report(directory, data)


def test_chosen_rows_and_pictures(run):
    directory, data = run
    asked = []

    def frames(sample, places):
        asked.append((sample.row, len(places)))
        return ["data:image/png;base64,AAAA"] * 3

    said = {"sample 5": "<water> rises"}
    content = report(directory, data, rows=[5, 2], frames=frames, captions=said)
    # On paper those below the window are there, too.
    assert "loading=" not in content
    page = Page(content)
    assert page.texts.count("<water> rises") == 1
    assert [row for row, _ in asked] == [5, 2]
    assert page.texts.index("sample 5") < page.texts.index("sample 2")
    assert page.seen.count("img") == 6
    with pytest.raises(DataError, match="rows: expected rows from 0 to 59, got 60"):
        report(directory, data, rows=[60])


def test_of_300_labels_the_page_stays_small(make_run, many_labels):
    directory, data = make_run("hgfn", many_labels, epochs=1)
    content = report(directory, data, split="all")
    assert len(content) < 3e6
    page = Page(content)
    assert page.seen.count("article") >= 300
    assert "The other 288 concepts, by rising AP" in page.texts


def test_an_unfinished_run_has_no_history(run, tmp_path):
    directory, data = run
    files = shutil.ignore_patterns("metrics.json", "history.csv")
    unfinished = shutil.copytree(directory, tmp_path / "run", ignore=files)
    page = Page(report(unfinished, data))
    assert "training" not in page.ids
    assert any("validation split of this data" in text for text in page.texts)


def test_labels_without_a_positive_and_one_modality(make_run):
    generator = torch.Generator().manual_seed(1)
    y = torch.zeros(50, 2)
    y[::3, 0] = 1
    y[:, 1] = float("nan")
    y[::5, 1] = 0
    x = torch.randn(50, 4, generator=generator)
    data = MultiTaskData.from_arrays(x, y, label_names=["some", "none"])
    directory, data = make_run("mtmlan", data, epochs=1)
    predictor = Predictor.load(directory, "cpu")
    page = Page(report(directory, arrange(data, "mtmlan"), predictor=predictor, split="all"))
    assert "No positive sample to draw curves of." in page.texts


def test_an_empty_split(run):
    directory, data = run
    with pytest.raises(DataError, match="split: expected samples in test, got none"):
        report(directory, data.subset("train"))


def test_tasks_of_classes(make_run):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, 5, generator=generator)
    y = (torch.rand(60, 1, generator=generator) < 0.4).float()
    damage = ["none", "<mild>", ""]
    classes = {"damage": np.array(damage)[torch.arange(60) % 3]}
    data = MultiTaskData.from_arrays(x, y, classes=classes, label_names=["sea"])
    directory, data = make_run("mtmlan", data, epochs=1)
    page = Page(report(directory, arrange(data, "mtmlan"), split="all"))
    assert {"classes", "concepts"} <= set(page.ids)
    assert "<mild>" in page.texts
    assert any(text.startswith("damage: ") for text in page.texts)
    alone = MultiTaskData.from_arrays(x, None, classes=classes)
    directory, data = make_run("mtmlan", alone, epochs=1)
    page = Page(report(directory, arrange(data, "mtmlan"), split="all"))
    assert "classes" in page.ids
    assert "concepts" not in page.ids


def test_samples_that_lack_a_modality(make_run):
    generator = torch.Generator().manual_seed(0)
    x = {name: torch.randn(60, 4, 3, generator=generator) for name in ("video", "audio")}
    x["text"] = torch.randn(60, 2, generator=generator)
    x["video"][::2], x["audio"][1::2] = float("nan"), float("nan")
    lengths = {"audio": torch.tensor([4, 0] * 30)}
    y = (torch.rand(60, 2, generator=generator) < 0.5).float()
    directory, data = make_run("hgfn", MultiTaskData.from_arrays(x, y, lengths=lengths), epochs=1)
    page = Page(report(directory, data, rows=[0, 1]))
    # Beside each other: the audio of the first, and the video of the second.
    assert page.texts.count("missing") == 2
    assert page.texts.count("4 steps, most at step") == 0
