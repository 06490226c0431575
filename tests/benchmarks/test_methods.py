from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.gpu.journal import Journal
from benchmarks.methods import __main__ as command
from benchmarks.methods import cost, quality, report, scores
from benchmarks.methods.labels import average_precision, faces
from benchmarks.methods.rooms import CLASSES, mean_overlap, rooms
from fastmtl.training.recipes import BALANCERS

PAGE = "\n".join(report.BEGIN.format(part=part) + "\n" + report.END for part in ("quality", "cost"))


@pytest.fixture
def small(monkeypatch):
    """Problems of few samples, by the names of the large ones."""
    made = {"rooms": rooms(20, 10), "faces": faces(40, 30)}
    for problem in made.values():
        problem.epochs = 1
    monkeypatch.setattr(command, "load", lambda name, folder: made.get(name))
    monkeypatch.setattr(cost, "SECONDS", 0.0)
    return made


@pytest.mark.parametrize("name", ["rooms", "faces"])
@pytest.mark.parametrize("method", BALANCERS)
def test_every_method_trains_on_every_kind_of_problem(small, name, method):
    found = quality.train(small[name], method, seed=0)
    assert all(np.isfinite(score.value) for score in found)
    assert {score.task for score in found} == set(range(small[name].num_tasks))


def test_a_seed_gives_one_result(small):
    first, again, other = (quality.train(small["rooms"], "pcgrad", seed) for seed in (0, 0, 1))
    assert first == again != other


def test_tasks_alone_have_the_scores_of_all_tasks(small):
    together = quality.measure(small["rooms"], "equal", 0)["scores"]
    alone = quality.measure(small["rooms"], quality.ALONE, 0)["scores"]
    keys = ("task", "higher_is_better")
    assert [[s[key] for key in keys] for s in together] == [[s[key] for key in keys] for s in alone]


def test_pictures_are_of_what_is_asked_for():
    problem = rooms(30, 10)
    picture, classes, depth, normals = problem.train
    assert set(classes.unique().tolist()) == set(range(CLASSES))
    assert picture.isfinite().all()
    assert (depth > 0).all()
    torch.testing.assert_close(normals.norm(dim=1), torch.ones_like(classes).float())
    assert (normals[:, 2] <= 1e-6).all()  # what is seen faces the one who sees it


def test_faces_have_attributes_of_all_shares():
    x, y = faces(400, 100).train
    assert x.isfinite().all()
    assert y.shape == (400, 40)
    assert 0.0 < y.mean(0).min() < 0.1
    assert 0.4 < y.mean(0).max() < 0.6
    assert (np.corrcoef(y.T) - np.eye(40)).max() > 0.3


def test_average_precision_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    logits, targets = torch.randn(200), (torch.rand(200) > 0.7).float()
    wanted = metrics.average_precision_score(targets, logits)
    assert average_precision(logits, targets) == pytest.approx(wanted, rel=1e-5)


def test_mean_overlap():
    guess, classes = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    assert mean_overlap(guess, classes) == pytest.approx((1 / 2 + 2 / 3) / 2)


def of(*values, lower=()):
    return [
        {"task": task, "value": value, "higher_is_better": task not in lower}
        for task, value in enumerate(values)
    ]


def test_ranks_and_gains():
    methods = {
        quality.ALONE: {0: of(0.5, 2.0, lower=(1,))},
        "a": {0: of(0.6, 1.0, lower=(1,))},
        "b": {0: of(0.6, 3.0, lower=(1,))},
        "c": {0: of(0.4, 2.0, lower=(1,)), 1: of(0.9, 0.1, lower=(1,))},
    }
    assert scores.mean_ranks(methods) == {"a": 1.25, "b": 2.25, "c": 2.5}
    gains = scores.gains(methods)
    assert gains["a"] == pytest.approx([100 * (0.2 + 0.5) / 2])
    assert gains["c"] == pytest.approx([-10.0])
    assert scores.means_over_problems([{"a": 1.0, "b": 3.0}, {"a": 2.0}]) == {"a": 1.5}


def test_a_run_goes_on_where_it_was_stopped_and_is_reported(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cost, "BALANCERS", ["equal", "upgrad"])
    monkeypatch.setattr(cost, "AGGREGATORS", {"upgrad": cost.AGGREGATORS["upgrad"]})
    out, page, image = tmp_path / "out", tmp_path / "page.md", tmp_path / "picture.png"
    few = ["--problems", "rooms", "--seeds", "1", "--only"]
    command.main([str(out), "--quality", *few, "equal", "single-task"])
    assert capsys.readouterr().out.count("\n") == 2
    command.main([str(out), "--quality", *few, "equal", "upgrad", "single-task"])
    assert capsys.readouterr().out.count("\n") == 1
    command.main([str(out), "--cost", "--problems", "rooms"])
    first = capsys.readouterr().out.count("\n")
    assert first >= len(cost.BALANCERS) + 1
    command.main([str(out), "--cost", "--problems", "rooms"])
    assert not capsys.readouterr().out
    page.write_text(PAGE)
    for _ in range(2):
        report.write(Journal(out / "results.jsonl"), page, image)
    text = page.read_text()
    assert text.count("| `upgrad` |") == 2
    assert text.count(report.END) == 2
    assert image.stat().st_size > 1000


@pytest.mark.parametrize("name", ["rooms", "faces"])
def test_others_ways_give_the_gradients_of_the_sum(small, name):
    """For a balancer that adds up, so that all ways are to the same."""
    torchjd = pytest.importorskip("torchjd.aggregation")
    steps = [cost.Step(small[name]), cost.OneByOne(small[name]), cost.Jacobian(small[name], "mgda")]
    steps[2].aggregator = torchjd.Sum()
    grads = []
    for step in steps:
        step.network.load_state_dict(steps[0].network.state_dict())
        step.backward()
        grads.append([each.grad for each in step.network.parameters()])
    for other in grads[1:]:
        torch.testing.assert_close(other, grads[0], rtol=1e-3, atol=1e-5)


def test_a_page_without_a_place_is_refused():
    with pytest.raises(ValueError, match="no place for cost"):
        report.put("text", "cost", [])
