"""A page that shows what a run learnt: figures, curves, attention and fusion, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fastmtl.data import MultiTaskData
from fastmtl.report.attention import Frames
from fastmtl.report.findings import SAMPLES, find
from fastmtl.report.inspected import Sample, sample_name
from fastmtl.report.page import render
from fastmtl.training import Predictor

__all__ = ["Frames", "Sample", "report"]


def report(
    run: str | Path,
    data: MultiTaskData,
    *,
    predictor: Predictor | None = None,
    split: str = "test",
    samples: int = SAMPLES,
    rows: Sequence[int] = (),
    frames: Frames | None = None,
    captions: Mapping[str, str] | None = None,
) -> str:
    """The report of a run on data, a page that stands alone.

    Args:
        run: the directory of the run.
        data: samples with labels, in the model's layout (`fastmtl.training.load_data`).
        predictor: the run's, if it is loaded already.
        split: what is measured: "train", "val", "test" or "all".
        samples: how many to look into: half of them the surest hits of each label in turn, the
            others the surest mistakes.
        rows: those to look into, instead.
        frames: gives data URIs of pictures for a sample and places in [0, 1] of its time.
        captions: texts by the samples' names.

    Raises:
        DataError: if the data does not fit the run, or the split is empty.
        RunError: if the run cannot be read.

    Examples:
        >>> from fastmtl.training import load_data
        >>> predictor = Predictor.load("runs/disaster")  # doctest: +SKIP
        >>> data = load_data(predictor.config, "clips.npz", for_training=False)  # doctest: +SKIP
        >>> page = report("runs/disaster", data, predictor=predictor)  # doctest: +SKIP
    """
    predictor = predictor or Predictor.load(run)
    found = find(Path(run), predictor, data, split, samples=samples, rows=rows)
    named = {row for concept in found.concepts for row in concept.extreme_rows()}
    return render(found, {row: sample_name(data, row) for row in named}, frames, captions or {})
