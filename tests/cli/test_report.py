from __future__ import annotations

from tests.cli.cases import CPU, FLAT


def test_report_writes_a_page(call, run_dir, tmp_path):
    out = tmp_path / "report.html"
    code, told, err = call("report", run_dir, "--data", FLAT, "--out", out, *CPU)
    assert (code, err) == (0, "")
    assert told.startswith(f"12 test samples in {out}, 0.")
    page = out.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    code, _, err = call("report", run_dir, "--data", FLAT, "--out", out, *CPU)
    assert code == 2
    assert "--overwrite replaces it" in err
    options = ("--split", "val", "--rows", "3,17", "--overwrite", *CPU)
    assert call("report", run_dir, "--data", FLAT, "--out", out, *options)[0] == 0
    page = out.read_text(encoding="utf-8")
    assert "sample 3</h3>" in page
    assert "sample 17</h3>" in page


def test_what_cannot_be_reported(call, run_dir, tmp_path):
    out = tmp_path / "report.html"
    start = ("report", run_dir, "--data", FLAT, "--out", out, *CPU)
    code, _, err = call(*start, "--rows", "3,x")
    assert (code, err) == (2, "fastmtl: --rows: expected numbers, 3,17, got '3,x'\n")
    code, _, err = call(*start, "--rows", "60")
    assert code == 2
    assert "rows: expected rows from 0 to 59, got 60" in err
    code, _, err = call(*start, "--split", "dev")
    assert code == 2
    assert err.startswith("fastmtl: --split: expected one of train, val, test, all")
    assert not out.exists()
