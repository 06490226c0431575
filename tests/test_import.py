from __future__ import annotations

import subprocess
import sys

import pytest

import fastmtl


@pytest.mark.parametrize(
    ("statement", "module"),
    [
        ("import fastmtl", "torch"),
        ("import fastmtl.cli.app", "torch"),
        ("import fastmtl.training, fastmtl.models", "torch._dynamo"),
        # What a decoding process loads.
        ("import fastmtl.media.worker, fastmtl.media.encoders.stft", "torch"),
        ("import fastmtl.media.encoders.pixels, fastmtl.media.encoders.hashing", "torch"),
    ],
)
def test_what_takes_seconds_is_loaded_when_it_is_used(statement, module) -> None:
    check = f"import sys; {statement}; print({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_the_parts_are_there() -> None:
    assert set(fastmtl.__all__) <= set(dir(fastmtl))
    for name in fastmtl.__all__:
        assert getattr(fastmtl, name) is not None
    with pytest.raises(AttributeError, match="'kernels'"):
        fastmtl.kernels  # noqa: B018
