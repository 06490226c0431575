"""Small runs and reproductions, and whether two of them came to the same result."""

from __future__ import annotations

import os
from pathlib import Path

from fastmtl.training.checkpoint import digest, load_tensors, read_json
from tests.torture.process import Bad

DATA = "synthetic:disaster?clips=60&frames=3&features=6"
ON_CPU = ["--device", "cpu", "--threads", "1"]


def train(out: Path, data: str | Path = DATA) -> list[str]:
    """The command that begins a run."""
    sizes = ["--hidden-size", "4", "--attention-size", "3", "--epochs", "4", "--dropout", "0.1"]
    return ["train", *ON_CPU, *sizes, "--data", str(data), "--out", str(out)]


def go_on(out: Path) -> list[str]:
    """The command that goes on with a run, or begins it where there is none."""
    begun = (out / "config.json").exists()
    return ["train", "--out", str(out), "--resume"] if begun else train(out)


def reproduce(out: Path) -> list[str]:
    """The command that begins a reproduction or goes on with it."""
    sizes = ["-o", "epochs=2", "-o", "hidden_size=4", "-o", "attention_size=3"]
    rows = ["--data", DATA, "--systems", "ewmtc,mtmlan", "--seeds", "1"]
    return ["reproduce", "mtmlan", *ON_CPU, *sizes, *rows, "--out", str(out)]


def epochs(run: Path) -> int:
    """How many a run has stored."""
    path = run / "checkpoint.safetensors"
    return len(load_tensors(path)[1]["history"]) if path.exists() else 0


def same_run(run: Path, reference: Path) -> None:
    """Raise Bad unless two finished runs have one result, bit for bit, and files of one name."""
    for name in ("model.safetensors", "checkpoint.safetensors"):
        one, other = (digest(load_tensors(path / name)[0]) for path in (run, reference))
        if one != other:
            raise Bad(f"{run / name}: another result")
    one_figures, other_figures = (read_json(path / "metrics.json") for path in (run, reference))
    for figures in (one_figures, other_figures):
        del figures["training"]["seconds_per_epoch"]
    if one_figures != other_figures:
        raise Bad(f"{run / 'metrics.json'}: other figures")
    same_names(run, reference)


def same_names(folder: Path, reference: Path) -> None:
    """Raise Bad unless two directories hold files of the same names."""
    if differing := set(os.listdir(folder)) ^ set(os.listdir(reference)):
        raise Bad(f"{folder}: {', '.join(sorted(differing))} is there or in {reference}, not both")


def same_reproduction(out: Path, reference: Path) -> None:
    """Raise Bad unless two finished reproductions hold the same runs and files."""
    for system in ("ewmtc", "mtmlan"):
        same_run(out / system / "seed-0", reference / system / "seed-0")
    same_names(out, reference)
