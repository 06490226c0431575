"""The change to a training loop that the page on balancing shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fastmtl

DOCS = Path(__file__).resolve().parents[2] / "docs" / "balancing.md"


def versions() -> dict[str, list[str]]:
    """The lines of the page's diff before and after the change."""
    text = DOCS.read_text(encoding="utf-8")
    lines = re.search(r"```diff\n(.*?)```", text, re.DOTALL)[1].splitlines()
    return {
        sign: [line[2:] for line in lines if line[:1] in ("", " ", sign)] for sign in ("-", "+")
    }


def test_six_lines_change() -> None:
    before, after = versions().values()
    assert len([line for line in after if line not in before]) == 6
    assert "Six lines" in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize("sign", ["-", "+"])
def test_it_runs(sign: str) -> None:
    loader = [(torch.randn(8, 64), torch.randint(0, 2, (8, 3)).float()) for _ in range(2)]
    names: dict[str, Any] = {
        "torch": torch,
        "nn": nn,
        "fastmtl": fastmtl,
        "loader": loader,
        "num_tasks": 3,
        "n_j": [4, 9, 8],
        "N": 16,
    }
    exec("\n".join(versions()[sign]), names)
    assert names["model"].heads[2][1].weight.shape == (1, 256)
    if sign == "+":
        assert not names["balancer"].weights.equal(torch.ones(3))
