from __future__ import annotations

from pathlib import Path

import pytest

from fastmtl.training import TrainConfig
from fastmtl.training.options_file import options_toml, read_options


def test_what_is_printed_is_read_again(tmp_path: Path) -> None:
    config = TrainConfig(
        data='odd "name" \\ é.npz', lr=3e-7, clip_grad_norm=2, prior_bias=True, threads=3
    )
    path = tmp_path / "run.toml"
    path.write_text(options_toml(config), encoding="utf-8")
    assert TrainConfig(**read_options(path)) == config


def test_hyphens_stand_for_underscores(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('batch-size = 8\nmodel = "hgfn"\n')
    assert read_options(path) == {"batch_size": 8, "model": "hgfn"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = x\n", "expected TOML, got something else .*line 1"),
        ("learning_rate = 1", "expected options of fastmtl train, got learning_rate"),
        ("batchsize = 1", r".* got batchsize \(did you mean 'batch_size'\?\)"),
        ("[training]\nlr = 1", "expected options of fastmtl train, got training"),
        ("lr = 0", "lr: expected a finite number > 0, got 0"),
        ('epochs = "3"', "epochs: expected an integer >= 1, got '3'"),
        ("prior_bias = 1", "prior_bias: expected True or False, got 1"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"run\.toml: {message}"):
        read_options(path)
