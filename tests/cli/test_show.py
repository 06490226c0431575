from __future__ import annotations

import torch


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
