from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec

import pytest

from fastmtl.training import Interrupted, Reporter, TrainConfig, Trainer
from fastmtl.training.checkpoint import read_json
from fastmtl.training.options_file import read_options
from fastmtl.tuning import Choice, Range, Search, SearchError, load_samples, tune
from fastmtl.tuning.report import BEST, PLOT, TABLE, trials_csv, trials_table, write_results
from fastmtl.tuning.study import JOURNAL, TRIALS

pytestmark = pytest.mark.skipif(find_spec("optuna") is None, reason="optuna is not installed")

SMALL = TrainConfig(
    data="synthetic:disaster?clips=60&frames=3&features=6",
    hidden_size=4,
    attention_size=3,
    epochs=3,
    device="cpu",
)
SPACE = {"lr": Range(1e-4, 1e-1, log=True), "balancer": Choice(("equal", "tdb")),
         "alpha": Range(0.0, 2.0)}  # fmt: skip
SEARCH = Search(SMALL, SPACE)


def told(outcomes):
    return [(each.number, each.state, each.drawn, each.score, each.epochs) for each in outcomes]


def quiet(text: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search of six trials that nothing stopped, and its directory."""
    out = tmp_path_factory.mktemp("whole")
    outcomes = tune(SEARCH, out, trials=6, say=quiet)
    write_results(SEARCH, outcomes, out)
    return outcomes, out


def test_the_best_comes_first_and_its_run_stays(whole):
    outcomes, out = whole
    assert sorted(each.number for each in outcomes) == list(range(6))
    finished = [each.score for each in outcomes if each.state == "finished"]
    assert finished == sorted(finished, reverse=True)
    assert [path.name for path in (out / TRIALS).iterdir()] == [f"{outcomes[0].number:04d}"]
    metrics = read_json(out / TRIALS / f"{outcomes[0].number:04d}/metrics.json")
    assert "test" not in metrics
    assert metrics["val"]["map"] == outcomes[0].score
    assert {"lr": 1e-3}.items() <= next(o for o in outcomes if o.number == 0).drawn.items()


def test_what_it_leaves_trains_the_best(whole, tmp_path):
    outcomes, out = whole
    config = TrainConfig(**read_options(out / BEST))
    assert config == outcomes[0].config
    metrics = Trainer.from_config(config, tmp_path).fit()
    assert metrics["val"]["map"] == outcomes[0].score
    assert (out / PLOT).read_bytes()[1:4] == b"PNG"
    rows = (out / TABLE).read_text().splitlines()
    assert rows == trials_csv(SEARCH, outcomes).splitlines()
    assert rows[0] == "trial,state,val_map,epochs,seconds,lr,balancer,alpha,error"
    assert [row.split(",")[0] for row in rows[1:]] == list("012345")
    assert trials_table(SEARCH, outcomes).row_count == 6


class Stopping(Reporter):
    """Stops a search in the third epoch from here on."""

    def __init__(self) -> None:
        self.epochs = 0

    def epoch_ended(self, record, best_epoch):
        self.epochs += 1
        if self.epochs == 5:
            raise Interrupted("SIGINT")


def test_a_stopped_search_goes_on_where_it_was(whole, tmp_path):
    with pytest.raises(Interrupted):
        tune(SEARCH, tmp_path, trials=6, say=quiet, reporter=Stopping())
    journal = tmp_path / JOURNAL
    # As a kill in the middle of a write leaves it.
    with open(journal, "ab") as file:
        file.write(b'{"op_code":5,"work')
    (tmp_path / f"{JOURNAL}.lock").symlink_to(journal)
    said: list[str] = []
    outcomes = tune(SEARCH, tmp_path, trials=6, say=said.append)
    assert said[0] == "6 trials over lr, balancer, alpha, 1 of them done already"
    assert told(outcomes) == told(whole[0])
    assert tune(SEARCH, tmp_path, trials=6, say=quiet) == outcomes


def test_trials_can_be_added(whole):
    outcomes, out = whole
    more = tune(SEARCH, out, trials=7, say=quiet)
    assert len(more) == 7
    assert set(map(str, told(outcomes))) <= set(map(str, told(more)))


def test_one_that_fails_does_not_end_the_search(tmp_path):
    search = Search(SMALL, {"lr": Choice((1e-3, 1e30))})
    outcomes = tune(search, tmp_path, trials=4, say=quiet)
    states = {each.drawn["lr"]: each.state for each in outcomes}
    assert states == {1e-3: "finished", 1e30: "failed"}
    assert "loss is nan" in outcomes[-1].error


def test_a_search_without_a_result_says_why(tmp_path):
    search = Search(replace(SMALL, lr=1e29), {"lr": Choice((1e29, 1e30))})
    with pytest.raises(SearchError, match=r"no trial finished: trial \d: failed .*loss is nan"):
        tune(search, tmp_path, trials=2, say=quiet)


def test_what_no_trial_can_be_is_told_before():
    with pytest.raises(ValueError, match="balancer: pcgrad needs a layer that the tasks share"):
        load_samples(Search(SMALL, {"balancer": Choice(("equal", "pcgrad"))}))


def test_a_judge_without_a_value_is_refused(tmp_path):
    import numpy as np

    split = np.array(["train"] * 20 + ["val"] * 10)
    y = np.stack([np.arange(30) % 2, np.arange(30) // 2 % 2], 1) * (np.arange(30) < 20)[:, None]
    x = np.zeros((30, 4), np.float32)
    np.savez(tmp_path / "none.npz", x=x, y=y, split=split)
    search = Search(replace(SMALL, data=str(tmp_path / "none.npz")), {"lr": Range(0.1, 1.0)})
    with pytest.raises(ValueError, match="monitor: expected loss, because no label is positive"):
        load_samples(search)


def test_a_judge_for_other_tasks_is_refused():
    space = {"lr": Range(0.1, 1.0)}
    with pytest.raises(ValueError, match="macro_f1 only with multi-class tasks"):
        load_samples(Search(replace(SMALL, monitor="macro_f1"), space))
    crisis = replace(SMALL, model="hgfn", data="synthetic:crisis", balancer="equal")
    with pytest.raises(ValueError, match="micro_f1 only with binary tasks"):
        load_samples(Search(replace(crisis, monitor="micro_f1"), space))
    assert load_samples(Search(replace(crisis, monitor="macro_f1"), space)).class_names


@pytest.mark.slow
def test_processes_share_the_trials(tmp_path):
    outcomes = tune(SEARCH, tmp_path, trials=4, jobs=2, say=quiet)
    assert sorted(each.number for each in outcomes) == list(range(4))


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_killed_search_loses_no_finished_trial(tmp_path, jobs):
    command = [
        sys.executable, "-m", "fastmtl", "tune", "--data", SMALL.data, "--hidden-size", "4",
        "--attention-size", "3", "--epochs", "40", "--device", "cpu", "--no-prune", "--search",
        "lr=1e-4:1e-1:log", "--trials", "5", "--jobs", jobs, "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("[2/5]"):
            break
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()
    time.sleep(5)  # its workers notice
    again = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert "[5/5]" in again.stdout
    rows = (tmp_path / "out" / TABLE).read_text().splitlines()[1:]
    assert [row.split(",")[:2] for row in rows] == [[str(n), "finished"] for n in range(5)]
