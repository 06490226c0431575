"""The measurements' own code, on the CPU at small sizes, with nothing timed."""

from __future__ import annotations

import contextlib

import pytest
import torch

from benchmarks.gpu import heads, timing


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> timing.Figures:
    monkeypatch.setattr(heads, "DEVICE", "cpu")
    for name, value in {"TASKS": 2, "STEPS": 3, "FEATURES": 6, "HIDDEN": 5, "BATCHES": [4]}.items():
        monkeypatch.setattr(heads, name, value)
    monkeypatch.setattr(heads, "gemm_rate", lambda: 1e12)
    monkeypatch.setattr(heads, "backends", list)
    monkeypatch.setattr(timing, "backends", list)
    monkeypatch.setattr(timing, "time_of", lambda step: (step(), 1.0)[1])
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return timing.Figures()


def test_heads_and_their_recurrence(figures: timing.Figures) -> None:
    heads.heads(figures)
    heads.recurrence(figures)
    assert not figures.errors
    assert len(figures.rows) >= 3
    assert all(row["seconds"] == 1.0 for row in figures.rows)


def test_captured_steps(figures: timing.Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    # A graph that runs the step again.
    class Graph:
        def replay(self) -> None:
            steps[0]()

    steps: list[heads.TrainingStep] = []
    create = heads.TrainingStep
    monkeypatch.setattr(
        heads, "TrainingStep", lambda batch: steps.append(create(batch)) or steps[0]
    )

    class Stream:
        def wait_stream(self, other: object) -> None:
            pass

    for name, value in {
        "CUDAGraph": Graph,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda _: contextlib.nullcontext(),
        "graph": lambda _: contextlib.nullcontext(),
        "synchronize": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    heads.graphs(figures)
    assert not figures.errors
    assert [row["launches"] for row in figures.rows] == [0, 0]
