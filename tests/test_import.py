from __future__ import annotations

import subprocess
import sys

import pytest

import fastmtl


@pytest.mark.parametrize(
    ("statement", "modules"),
    [
        ("import fastmtl, fastmtl.cli.app", "torch"),
        ("import fastmtl.training, fastmtl.models", "torch._dynamo torchmetrics matplotlib"),
        # What a decoding process loads.
        (
            "import fastmtl.media.worker; from fastmtl.media.encoders import hashing, pixels, stft",
            "torch",
        ),
    ],
)
def test_what_takes_seconds_is_loaded_when_it_is_used(statement, modules) -> None:
    check = f"import sys; {statement}; print([m in sys.modules for m in {modules.split()}])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert "True" not in done.stdout
    assert "False" in done.stdout


def test_the_parts_are_there() -> None:
    assert set(fastmtl.__all__) <= set(dir(fastmtl))
    for name in fastmtl.__all__:
        assert getattr(fastmtl, name) is not None
    with pytest.raises(AttributeError, match="'kernels'"):
        fastmtl.kernels  # noqa: B018
