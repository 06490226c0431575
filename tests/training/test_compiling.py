from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from fastmtl.training import Predictor, TrainConfig, Trainer, compiling

MakeConfig = Callable[..., TrainConfig]
COMPILE = torch.compile


def with_backend(monkeypatch: pytest.MonkeyPatch, backend: Any) -> None:
    """Have graphs run by what takes no minutes to make them."""
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(COMPILE, backend=backend, fullgraph=True))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        pytest.param("mtmlan", {"balancer": "tdb"}, marks=pytest.mark.slow),
        ("mtmlan", {"balancer": "pcgrad", "shared_features": 5}),
        ("mtmlan", {"balancer": "gradnorm", "shared_features": 5, "precision": "bfloat16"}),
        ("hgfn", {"balancer": "dmtl"}),
        pytest.param("hgfn", {"balancer": "mgda"}, marks=pytest.mark.slow),
    ],
)
def test_a_run_is_that_of_the_model_as_it_is(
    model: str,
    options: dict[str, Any],
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one graph, for full batches and the rest: at most another for sizes that vary."""
    counter = CompileCounterWithBackend("eager")
    with_backend(monkeypatch, counter)
    plain = Trainer.from_config(make_config(model, epochs=2, **options), tmp_path / "plain")
    config = make_config(model, epochs=2, compile=True, **options)
    compiled = Trainer.from_config(config, tmp_path / "compiled")
    expected, found = plain.fit(), compiled.fit()
    assert 1 <= counter.frame_count <= 2
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    assert found["val"]["map"] == pytest.approx(expected["val"]["map"], abs=0.05)
    Predictor.load(tmp_path / "compiled")


def test_parts_of_a_step_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="compile: expected only with accumulate 1, got it with 2"):
        Trainer.from_config(make_config(compile=True, accumulate=2), tmp_path)


def test_an_absent_compiler_is_told(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"compile: expected a C\+\+ compiler"):
        Trainer.from_config(make_config(compile=True), tmp_path)


@pytest.mark.slow
def test_inductor(make_config: MakeConfig, tmp_path: Path) -> None:
    if compiling.cxx_compiler() is None:
        pytest.skip("there is no C++ compiler")
    config = make_config("hgfn", epochs=2, compile=True, balancer="gradnorm")
    metrics = Trainer.from_config(config, tmp_path).fit()
    assert metrics["training"]["epochs"] == 2
