"""The measurements' own code, on the CPU at small sizes, with nothing timed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import figures as figures_of_ops
from benchmarks.gpu import heads, timing
from benchmarks.gpu.journal import Journal
from benchmarks.gpu.phases import COMPILED, PHASES, Phase

EVERYTHING = Phase(None, lambda peer: True)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> timing.Figures:
    for module in (figures_of_ops, heads, timing):
        monkeypatch.setattr(module, "DEVICE", "cpu")
        monkeypatch.setattr(module, "backends", list)
    for module in (figures_of_ops, heads):
        for name, value in module.IN_A_REHEARSAL.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(timing, "time_of", lambda step: (step(), 1.0)[1])
    return timing.Figures(Journal(tmp_path / "journal.jsonl"))


def taken(figures: timing.Figures) -> list[dict[str, Any]]:
    """The figures of the journal, where nothing failed."""
    items = [line for line in figures.journal.lines() if line["kind"] == "item"]
    assert all(item["outcome"] == "passed" for item in items), items
    return [item["figure"] for item in items if "figure" in item]


def test_heads_and_their_recurrence(figures: timing.Figures) -> None:
    heads.heads(figures, EVERYTHING)
    heads.recurrence(figures, EVERYTHING)
    rows = taken(figures)
    assert [row["dtype"] for row in rows[::2]] == [p.name for p in heads.PRECISIONS] + ["float32"]
    assert all(row["seconds"] == 1.0 for row in rows)


def test_ops_and_their_peers(figures: timing.Figures) -> None:
    phase = Phase(None, lambda peer: peer != COMPILED)
    figures.takes = phase.takes
    for measure in (figures_of_ops.focal, figures_of_ops.grads, figures_of_ops.fusion):
        measure(figures, phase)
    assert {row["peer"] for row in taken(figures)} >= {"eager", "autograd.grad per task"}


def test_a_rehearsal_leaves_out_what_a_device_alone_has(
    figures: timing.Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("copy_bandwidth", "gemm_rate"):
        monkeypatch.setattr(figures_of_ops, name, lambda **options: 1.0)
    figures_of_ops.limits(figures.journal)
    assert taken(figures) == []
    assert heads.graphs not in figures_of_ops.measures()
    monkeypatch.setattr(figures_of_ops, "DEVICE", "cuda")
    assert figures_of_ops.measures()[-1] is heads.graphs


def test_fastmtl_before_its_peers_and_the_compiler_last() -> None:
    peers = ["torch.compile", "eager", "fastmtl triton", "fastmtl native"]
    order = [(phase.first, peer) for phase in PHASES for peer in peers if phase.takes(peer)]
    assert order.index((True, "fastmtl native")) < order.index((True, "eager"))
    assert order.index((True, "eager")) < order.index((False, "fastmtl native"))
    assert order[-1] == (None, "torch.compile")
    assert list(PHASES[0].of(range(5))) == [0, 1, 2]
    assert list(PHASES[2].of(range(5))) == [3, 4]


def test_a_figure_that_fails_costs_itself(figures: timing.Figures) -> None:
    def wrong() -> list[torch.Tensor]:
        return [torch.ones(3)]

    def prepare(figures: timing.Figures) -> None:
        exact = {"wanted": lambda: [torch.zeros(3)]}
        figures.add("op", "fastmtl native", "3", torch.float32, wrong, **exact)
        figures.add("op", "eager", "3", torch.float32, wrong)
        raise RuntimeError("no room for the last one")

    figures.case("op at 3", prepare)
    items = {line["name"]: line for line in figures.journal.lines() if line["kind"] == "item"}
    assert "relative error" in items["op, fastmtl native, 3, float32"]["message"]
    assert items["op, eager, 3, float32"]["figure"]["seconds"] == 1.0
    assert items["op at 3"]["outcome"] == "failed"


def test_products_in_one_precision_for_all() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for tf32 in (True, False):
        with timing.products_in(tf32):
            assert torch.backends.cuda.matmul.allow_tf32 == tf32
            assert torch.backends.cudnn.allow_tf32 == tf32
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


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
    heads.graphs(figures, EVERYTHING)
    assert [row["launches"] for row in taken(figures)] == [0, 0]
