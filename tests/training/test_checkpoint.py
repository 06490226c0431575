from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from fastmtl.training import RunError
from fastmtl.training.checkpoint import (
    load_tensors,
    read_json,
    save_tensors,
    take_prefix,
    with_prefix,
    write_atomic,
    write_json,
)


def test_tensors_and_metadata_come_back_bit_for_bit(tmp_path):
    tensors = {
        "half": torch.randn(3).half(),
        "view": torch.randn(4, 6)[:, ::2].t(),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "nan": torch.tensor([float("nan"), float("inf")]),
    }
    save_tensors(tmp_path / "a", tensors, {"epoch": 3, "loss": 0.1 + 0.2})
    loaded, metadata = load_tensors(tmp_path / "a")
    assert metadata == {"epoch": 3, "loss": 0.1 + 0.2}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        torch.testing.assert_close(loaded[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_prefixes_are_taken_apart():
    tensors = with_prefix("a", {"x": torch.ones(1)}) | with_prefix("ab", {"x": torch.zeros(1)})
    assert take_prefix("a", tensors) == {"x": torch.ones(1)}


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, failing):
    path = tmp_path / "metrics.json"
    write_json(path, {"old": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_json(path, {"new": 2})
    assert caught.value.filename == str(path)
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_no_file(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", "text")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_device_is_written_to_and_not_replaced():
    with pytest.raises(OSError, match="No space left"):
        write_atomic("/dev/full", "text")
    assert not Path("/dev/full").is_file()
    write_atomic("/dev/null", "text")
    assert not Path("/dev/null").is_file()


def test_a_link_keeps_pointing_to_its_file(tmp_path):
    write_atomic(tmp_path / "file", "old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_an_absent_directory_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        write_atomic(tmp_path / "absent" / "a", "text")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": torch.ones(100)}, {})
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:50], whole[:-4]):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"a\.safetensors: "):
            load_tensors(path)
    with pytest.raises(RunError, match="no such file"):
        load_tensors(tmp_path / "absent")


def test_json_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"half')
    with pytest.raises(RunError, match=r"a\.json: cannot be read"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()
