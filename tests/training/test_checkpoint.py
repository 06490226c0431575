from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from fastmtl.training import RunError, checkpoint
from fastmtl.training.checkpoint import (
    digest,
    load_tensors,
    read_json,
    read_sealed,
    remove_temporaries,
    save_tensors,
    seal,
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


def test_every_flipped_bit_is_an_error(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors, values = {"w": torch.randn(3), "n": torch.tensor([1, 2])}, {"epoch": 3}
    save_tensors(path, tensors, values)
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in (0, 3, 7):
            content = bytearray(whole)
            content[position] ^= 1 << bit
            path.write_bytes(content)
            try:
                loaded, found = load_tensors(path)
            except RunError:
                continue
            # Blanks between the parts of the header say nothing.
            assert found == values
            assert digest(loaded) == digest(tensors)


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.int64, torch.float64])
def test_a_digest_sees_names_dtypes_shapes_and_values(dtype):
    x = torch.tensor([[1, 0], [1, 1]]).to(dtype)
    others = [
        {"y": x},
        {"x": x.flatten()},
        {"x": x.t()},
        {"x": x[:1]},
        {"x": x.to(torch.int32)},
        {},
    ]
    prints = {digest({"x": x}), digest({"x": x}, "text"), *map(digest, others)}
    assert len(prints) == len(others) + 2
    assert digest({"x": x.t().contiguous().t()}) == digest({"x": x})
    assert digest({"a": x, "b": x}) == digest({"b": x, "a": x})


def test_a_file_without_a_checksum_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.torch.save({"w": torch.ones(1)}, metadata={"json": "{}"}))
    with pytest.raises(RunError, match=r"a\.safetensors: has no checksum"):
        load_tensors(path)


def test_a_sealed_object_comes_back_and_a_changed_one_does_not(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, seal({"b": [1, 0.1], "a": None}))
    assert read_sealed(path) == {"b": [1, 0.1], "a": None}
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(RunError, match=r"a\.json: is damaged or was changed"):
        read_sealed(path)


@pytest.mark.parametrize("read", [read_json, load_tensors])
def test_pipes_and_directories_are_not_read(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(RunError, match="expected a file, got a directory, pipe or device"):
            read(path)


def test_json_too_deep_or_too_large_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    with pytest.raises(RunError, match=r"a\.json: cannot be read as JSON"):
        read_json(path)
    monkeypatch.setattr(checkpoint, "MAX_JSON_BYTES", 99)
    with pytest.raises(RunError, match=r"a\.json: expected at most 99 bytes, got 100,000"):
        read_json(path)


def test_left_temporary_files_are_removed_and_no_others(tmp_path):
    for name in (".a.json.12.tmp", ".a.json.1.tmp", ".b.json.1.tmp", "a.json"):
        (tmp_path / name).write_text("")
    remove_temporaries(tmp_path, ["a.json"])
    assert {path.name for path in tmp_path.iterdir()} == {".b.json.1.tmp", "a.json"}


def test_a_renamed_file_is_flushed_with_its_directory(tmp_path, monkeypatch):
    flushed = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (flushed.append(os.fstat(fd).st_ino), real(fd)))
    write_atomic(tmp_path / "a", "text")
    assert flushed == [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino]
