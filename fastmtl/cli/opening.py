"""What commands on a trained run begin with: the run opened on data, and a file for the answer."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from fastmtl.data import MultiTaskData
from fastmtl.training import Predictor, RunError, TrainConfig, load_data
from fastmtl.training.inputs import check_fits
from fastmtl.training.options import check_choice, declared

SPLITS = ("train", "val", "test", "all")
STDOUT = Path("-")


def check_writable(out: Path, *, overwrite: bool) -> None:
    """Raise unless a file can be written there, or is one that may be replaced."""
    if out == STDOUT:
        return
    if out.is_dir() or not os.access(out.absolute().parent, os.W_OK | os.X_OK):
        raise RunError(f"{out}: expected a file in a writable directory")
    if out.is_file() and not overwrite:
        raise RunError(
            f"{out}: expected a new file, got one that is there (--overwrite replaces it)"
        )


def open_run(
    directory: Path,
    data: str,
    test: str | None,
    xml: str | None,
    memory: str,
    device: str,
    threads: int | None,
    split: str | None,
    *,
    labels: bool = True,
) -> tuple[Predictor, MultiTaskData]:
    """The trained model, and the data it is asked about, with the labels that it was trained on."""
    if split is not None:
        check_choice("split", split, SPLITS)
    if threads is not None:
        declared(TrainConfig)["threads"].check(threads)
        torch.set_num_threads(threads)
    predictor = Predictor.load(directory, device)
    loaded = load_data(
        predictor.config, data, test=test, xml=xml, for_training=False, memory=memory
    )
    check_fits(loaded, predictor.description, labels=labels)
    return predictor, loaded
