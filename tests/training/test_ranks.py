"""Several processes train what one trains: weights, figures and files."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from fastmtl.training import (
    Interrupted,
    Reporter,
    TrainConfig,
    Trainer,
    preset,
)
from fastmtl.training.checkpoint import load_tensors, read_json
from fastmtl.training.ranks import rank_device
from tests.figures import undrawn
from tests.training.conftest import CLASSES, MODALITIES, SEQUENCES

SIZE = 3
Run = dict[str, Any]
# A batch of 7 is 3, 2 and 2 samples, one of 2 leaves a process without any; a fifth of the labels
# is missing.
RUNS: dict[str, Run] = {
    "equal": {},
    "dmtl": {"balancer": "dmtl"},
    "first layers": {"balancer": "tdb", "balance_at": "first"},
    "shared layer": {"balancer": "cagrad", "shared_features": 5},
    "two samples": {"model": "hgfn", "balancer": "tdb", "batch_size": 2, "epochs": 1},
    "clipped": {"model": "hgfn", "balancer": "mgda", "clip_grad_norm": 0.01},
    "learned": {"model": "hgfn", "balancer": "uncertainty"},
    "drawn": {"model": "hgfn", "balancer": "pcgrad"},
    "cfc": {"model": "cfc"},
    "matf": {"model": "matf"},
    "gfn": {"model": "gfn"},
    "classes": {"model": "hgfn", "balancer": "dmtl", "data": CLASSES},
}


def config(model: str = "mtmlan", **options: Any) -> TrainConfig:
    small = {
        "data": SEQUENCES if model == "mtmlan" else MODALITIES,
        "balancer": "equal",
        "epochs": 2,
        "batch_size": 7,
        "hidden_size": 4,
        "attention_size": 3,
        "dropout": 0.0,
        "device": "cpu",
    }
    return TrainConfig(model=model, **{**preset("paper"), **small, **options})


def in_double(options: Run, out: Path) -> dict[str, torch.Tensor]:
    run = Trainer.from_config(config(**options), out)
    run.model.double()
    run.balancer.double()
    batches = run.batches
    batches.features = {name: value.double() for name, value in batches.features.items()}
    batches.targets = batches.targets.double()
    batches.present = None if batches.present is None else batches.present.double()
    run.fit()
    return run.state.tensors()


class At(Reporter):
    """Acts at the first step of an epoch."""

    def __init__(self, epoch: int, act: Callable[[], object]) -> None:
        self.epoch, self.act, self.now = epoch, act, 0

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        self.now = epoch

    def step(self, loss: Callable[[], float]) -> None:
        if self.now == self.epoch:
            self.now = 0
            self.act()


def interrupted(rank: int, path: Path) -> str:
    """A signal to one process, not the first, stops all after the same epoch."""
    run = Trainer.from_config(config(epochs=4), path / "part")
    run.epochs.reporter = (
        At(2, lambda: os.kill(os.getpid(), signal.SIGINT)) if rank == 1 else Reporter()
    )
    with pytest.raises(Interrupted) as caught:
        run.fit()
    assert run.progress.epoch == 1
    return str(caught.value)


def failing(rank: int, path: Path) -> list[str]:
    """What fails in one process fails in all, with its reason where it is."""
    caught: list[str] = []

    def fail(run: Trainer, **how: bool) -> None:
        with pytest.raises(Exception) as error:
            run.fit(**how)
        caught.append(f"{type(error.value).__name__}: {error.value}")

    fail(Trainer.from_config(config(lr=0.5), path / "part"), resume=True)
    fail(Trainer.from_config(config(lr=1e30), path / "diverged"))
    other = config(data=SEQUENCES + f"&seed={rank}")
    fail(Trainer.from_config(other, path / "differing"))
    return caught


@undrawn()
def work(rank: int, path: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{path}/store", rank=rank, world_size=SIZE
    )
    results: dict[str, Any] = {
        name: in_double(options, path / name) for name, options in RUNS.items()
    }
    options = {"model": "hgfn", "balancer": "dmtl", "dropout": 0.2, "epochs": 3}
    Trainer.from_config(config(**options), path / "dropout").fit()
    Trainer.from_config(config(**options), path / "again").fit()
    told = At(1, lambda: results.__setitem__("told", True))
    results["metrics"] = Trainer.from_config(config(), path / "single", reporter=told).fit()
    results["finished"] = Trainer.from_config(config(), path / "single").fit(resume=True)
    results["interrupted"] = interrupted(rank, path)
    results["failing"] = failing(rank, path)
    torch.save(results, path / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work, (path,), nprocs=SIZE)
    return path


@pytest.fixture(scope="module")
def ranks(path: Path) -> list[dict[str, Any]]:
    return [torch.load(path / f"{rank}.pt") for rank in range(SIZE)]


@pytest.mark.parametrize("name", RUNS)
def test_processes_reach_the_weights_of_one(
    ranks: list[dict[str, Any]], tmp_path: Path, name: str
) -> None:
    expected = in_double(RUNS[name], tmp_path)
    first, *others = (rank[name] for rank in ranks)
    for key, value in expected.items():
        for other in others:
            assert torch.equal(first[key], other[key]), key
        torch.testing.assert_close(first[key], value, rtol=1e-6, atol=1e-6)


def test_processes_reach_the_figures_of_one(
    ranks: list[dict[str, Any]], path: Path, tmp_path: Path
) -> None:
    metrics = Trainer.from_config(config(), tmp_path).fit()
    for rank in ranks:
        for split in ("val", "test"):
            found, expected = rank["metrics"][split], metrics[split]
            assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-3)
            for figure in ("map", "micro_f1", "hamming_loss"):
                assert found[figure] == pytest.approx(expected[figure], abs=1e-3)
        assert rank["metrics"] == rank["finished"] == read_json(path / "single/metrics.json")


def test_the_first_process_alone_reports(ranks: list[dict[str, Any]]) -> None:
    assert ["told" in rank for rank in ranks] == [True, False, False]


def test_a_run_of_several_processes_is_the_same_each_time(path: Path) -> None:
    (one, _), (other, _) = (
        load_tensors(path / name / "checkpoint.safetensors") for name in ("dropout", "again")
    )
    assert all(torch.equal(one[key], other[key]) for key in one | other)


def test_a_signal_to_one_process_stops_all_and_one_process_goes_on(
    ranks: list[dict[str, Any]], path: Path, tmp_path: Path
) -> None:
    assert [rank["interrupted"] for rank in ranks] == ["SIGINT"] * SIZE
    Trainer.from_config(config(epochs=4), path / "part").fit(resume=True)
    Trainer.from_config(config(epochs=4), tmp_path).fit()
    (one, values), (other, _) = (
        load_tensors(each / "checkpoint.safetensors") for each in (path / "part", tmp_path)
    )
    assert len(values["history"]) == 4
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-3, atol=1e-4)


def test_what_fails_in_one_process_fails_in_all(ranks: list[dict[str, Any]]) -> None:
    (lr, diverged, data), *others = (rank["failing"] for rank in ranks)
    assert lr.startswith("RunError: lr: expected 0.001 as in the run to resume")
    assert diverged.startswith("DivergedError: epoch 1: the training loss is nan")
    for other in others:
        assert other[0].startswith("EndedElsewhere: process 0: lr: expected 0.001")
        assert other[1].startswith("EndedElsewhere: process 0: epoch 1: the training loss")
    told = [data, *(other[2] for other in others)]
    assert told.count("RunError: data: expected the same in every process") == 1


def test_a_gpu_of_its_own_for_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank_device("cpu", 5) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert rank_device("auto", 1) == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="device: expected a GPU for each of 3 processes, got 2"):
        rank_device("cuda", 2)
    with pytest.raises(ValueError, match="device: expected auto, cpu or cuda for several"):
        rank_device("cuda:1", 0)
