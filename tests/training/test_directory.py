from __future__ import annotations

import pytest

from fastmtl.training import RunError, TrainConfig
from fastmtl.training import directory as run_directory
from fastmtl.training.checkpoint import write_json


def write_config(path, **options):
    path.mkdir(exist_ok=True)
    write_json(
        path / "config.json",
        {
            "train": TrainConfig(**options).to_dict(),
            "model": {"name": "mtmlan", "arguments": {}},
            "data": {"label_names": ["a"], "features": {"x": 2}, "sequences": ["x"]},
        },
    )


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


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"train": {"lr": 0}}'])
def test_a_damaged_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json: "):
        run_directory.read(tmp_path)
