from __future__ import annotations

import json

import pytest
import torch

from fastmtl import doctor


def test_info(call):
    code, out, err = call("info")
    assert (code, err) == (0, "")
    assert torch.__version__ in out
    assert "focal_loss" in out


def test_systems(call):
    code, out, err = call("systems")
    assert (code, err) == (0, "")
    for name in ("mtmlan-no-tip", "hgfn-mti-net", "mtdnn"):
        assert name in out


@pytest.mark.parametrize(("state", "expected"), [("ok", 0), ("note", 0), ("wrong", 1)])
def test_doctor(call, monkeypatch, state, expected):
    found = [doctor.Finding("GPU", state, "none [of them]", "buy one")]
    monkeypatch.setattr(doctor, "examine", lambda: found)
    code, out, err = call("doctor")
    assert (code, err) == (expected, "")
    for text in (torch.__version__, state, "none [of them]", "-> buy one"):
        assert text in out

    code, out, err = call("doctor", "--json")
    assert (code, err) == (expected, "")
    content = json.loads(out)
    assert content["healthy"] is (expected == 0)
    assert content["findings"][0]["advice"] == "buy one"


def test_doctor_of_this_machine(call):
    code, out, err = call("doctor")
    assert (code, err) == (int("wrong  " in out), "")
    assert out.count("\n") < 30
