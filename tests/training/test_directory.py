from __future__ import annotations

import pytest

from fastmtl.training import RunError, TrainConfig
from fastmtl.training import directory as run_directory
from fastmtl.training.checkpoint import read_sealed, seal, write_json
from fastmtl.training.identity import Identity

RECORD = {
    "model": {"name": "mtmlan", "class": "MTMLAN", "arguments": {}},
    "balancer": {"class": "DynamicMultiTask"},
    "data": {"name": "d", "label_names": ["a"], "features": {"x": 2}, "sequences": ["x"]},
}


def write_config(path, **options):
    path.mkdir(exist_ok=True)
    record = {"train": TrainConfig(**options).to_dict(), **RECORD}
    run_directory.write(path, record, Identity.new(record, "data"))


def test_new_and_empty_directories_are_free(tmp_path):
    for path in (tmp_path, tmp_path / "a" / "b"):
        run_directory.check(path, resume=False, overwrite=False)
    assert not list(tmp_path.iterdir())


def test_a_used_directory_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="expected a new or empty directory"):
        run_directory.check(tmp_path, resume=False, overwrite=False)
    run_directory.check(tmp_path, resume=False, overwrite=True)
    run_directory.clear(tmp_path, keep_state=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match="file"):
            run_directory.check(path, resume=False, overwrite=True)


def test_only_a_run_can_be_resumed(tmp_path):
    with pytest.raises(RunError, match=r"config\.json: no such file"):
        run_directory.check(tmp_path, resume=True, overwrite=False)
    write_config(tmp_path)
    # Killed before its first checkpoint: it can begin anew.
    run_directory.check(tmp_path, resume=True, overwrite=False)
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(RunError, match=r"checkpoint\.safetensors: no such file"):
        run_directory.check(tmp_path, resume=True, overwrite=False)
    with pytest.raises(RunError, match="got both"):
        run_directory.check(tmp_path, resume=True, overwrite=True)


def test_clear_removes_results_and_on_demand_state(tmp_path):
    for name in (*run_directory.STATE, *run_directory.RESULTS):
        (tmp_path / name).write_text("")
    run_directory.clear(tmp_path, keep_state=True)
    assert {path.name for path in tmp_path.iterdir()} == set(run_directory.STATE)
    run_directory.clear(tmp_path, keep_state=False)
    assert not list(tmp_path.iterdir())


def test_a_resumed_run_keeps_its_options(tmp_path):
    write_config(tmp_path, lr=0.01, epochs=5)
    config = run_directory.resumed_config(tmp_path, {"epochs": 9, "lr": 0.01, "threads": 1})
    assert config == TrainConfig(lr=0.01, epochs=9, threads=1)
    with pytest.raises(RunError, match=r"^lr: expected 0\.01 .* got 0\.1"):
        run_directory.resumed_config(tmp_path, {"lr": 0.1})


def test_a_rate_that_falls_over_all_epochs_fixes_them(tmp_path):
    write_config(tmp_path, lr_schedule="cosine", epochs=5)
    assert run_directory.resumed_config(tmp_path, {"epochs": 5}).epochs == 5
    with pytest.raises(RunError, match=r"^epochs: expected 5 as in the run .*cosine\), got 9"):
        run_directory.resumed_config(tmp_path, {"epochs": 9})


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"train": {"lr": 0}}'])
def test_a_damaged_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json: "):
        run_directory.read(tmp_path)


@pytest.mark.parametrize("part", [*RECORD, "train", "run"])
def test_a_configuration_without_a_part_is_named(tmp_path, part):
    write_config(tmp_path)
    whole = read_sealed(tmp_path / "config.json")
    del whole[part]
    write_json(tmp_path / "config.json", seal(whole))
    with pytest.raises(RunError, match=rf"config\.json: not the configuration of a run .*{part}"):
        run_directory.read(tmp_path)


@pytest.mark.parametrize("part", [{"label_names": 7}, {"features": ["x"]}, {"sequences": "x"}])
def test_a_configuration_of_other_kinds_is_refused(tmp_path, part):
    write_config(tmp_path)
    whole = read_sealed(tmp_path / "config.json")
    whole["data"] |= part
    write_json(tmp_path / "config.json", seal(whole))
    with pytest.raises(RunError, match=r"config\.json: not the configuration of a run .*expected"):
        run_directory.read(tmp_path)


def test_a_configuration_that_was_changed_is_refused(tmp_path):
    write_config(tmp_path, epochs=50)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"epochs": 50', '"epochs": 51'))
    with pytest.raises(RunError, match=r"config\.json: is damaged or was changed"):
        run_directory.read(tmp_path)
    write_json(path, {"train": TrainConfig().to_dict(), **RECORD})
    with pytest.raises(RunError, match=r"config\.json: has no checksum"):
        run_directory.read(tmp_path)


def test_what_killed_runs_leave_is_no_content_and_is_removed(tmp_path):
    for name in (".lock", ".config.json.123.tmp", ".model.safetensors.9.tmp"):
        (tmp_path / name).write_text("half")
    run_directory.check(tmp_path, resume=False, overwrite=False)
    (tmp_path / ".notes.1.tmp").write_text("mine")
    with pytest.raises(RunError, match="new or empty"):
        run_directory.check(tmp_path, resume=False, overwrite=False)
    run_directory.clear(tmp_path, keep_state=True)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".notes.1.tmp"}


def test_a_run_of_things_given_in_python_does_not_resume_by_name(tmp_path):
    options = {"epochs": 3, "lr": 0.01, "model": "mtmlan", "balancer": "equal"}
    record = {**RECORD, "train": options}
    run_directory.write(tmp_path, record, Identity.new(record, "data"))
    assert run_directory.read(tmp_path).title == "mtmlan, equal"
    with pytest.raises(RunError, match="the data of this run were given in Python"):
        run_directory.resumable_by_name(tmp_path, {})
    config = run_directory.resumable_by_name(tmp_path, {"data": "a.npz"})
    assert (config.data, config.lr) == ("a.npz", 0.01)
    record["train"] = {"epochs": 3}
    run_directory.write(tmp_path, record, Identity.new(record, "data"))
    assert run_directory.read(tmp_path).title == "MTMLAN, DynamicMultiTask"
    with pytest.raises(RunError, match="the model and the balancer of this run"):
        run_directory.resumable_by_name(tmp_path, {"data": "a.npz"})


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_results_that_are_not_whole_are_none(tmp_path, content):
    assert run_directory.stored_metrics(tmp_path) is None
    (tmp_path / "metrics.json").write_text(content)
    assert run_directory.stored_metrics(tmp_path) is None
