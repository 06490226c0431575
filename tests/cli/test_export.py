from __future__ import annotations

import json

import torch
from safetensors import safe_open


def test_export(run_dir, tmp_path, call):
    out = tmp_path / "run.pt2"
    code, shown, _ = call("export", run_dir, "--out", out)
    assert (code, shown) == (0, f"{out}: from x, lengths to the probabilities of 7 labels\n")
    extra = {"fastmtl.json": ""}
    torch.export.load(out, extra_files=extra)
    assert json.loads(extra["fastmtl.json"])["inputs"] == ["x", "lengths"]

    code, _, err = call("export", run_dir, "--out", out)
    assert code == 2
    assert "expected a new file" in err


def test_what_cannot_be_exported(run_dir, tmp_path, call):
    code, _, err = call("export", run_dir, "--out", tmp_path / "run.h5")
    assert code == 2
    assert err == "fastmtl: --format: expected one of onnx, pt2, safetensors, got 'h5'\n"
    code, _, err = call("export", run_dir, "--out", tmp_path / "run.pt2", "--missing")
    assert code == 2
    assert (
        err == "fastmtl: --missing: expected a run of several modalities, got one of a single one\n"
    )
    code, _, err = call("export", run_dir, "--out", tmp_path / "run.safetensors", "--steps", 4)
    assert code == 2
    assert err.startswith("fastmtl: --steps: expected with pt2, got it with safetensors")
    code, _, err = call("export", tmp_path / "none", "--out", tmp_path / "run.pt2")
    assert code == 2
    assert "none" in err
    assert not list(tmp_path.glob("run.*"))


def test_the_format_may_be_told(run_dir, tmp_path, call):
    out = tmp_path / "weights.bin"
    assert call("export", run_dir, "--format", "safetensors", "--out", out)[0] == 0
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["model"]) == "MTMLAN"
