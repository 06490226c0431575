from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastmtl.training import EpochRecord, Interrupted, Predictor, TrainConfig, Trainer
from fastmtl.training.precision import Precision

MakeConfig = Callable[..., TrainConfig]
HALVES = ["bfloat16", "float16"]


@pytest.mark.parametrize("balancer", ["dmtl", "uncertainty"])
@pytest.mark.parametrize("precision", HALVES)
def test_half_precision_trains_as_float32_does(
    precision: str, balancer: str, make_config: MakeConfig, tmp_path: Path
) -> None:
    options = {"balancer": balancer, "clip_grad_norm": 5.0, "epochs": 4}
    exact = Trainer.from_config(make_config(**options), tmp_path / "exact")
    half = Trainer.from_config(make_config(precision=precision, **options), tmp_path / "half")
    exact.fit()
    half.fit()
    losses = [[record.total_train_loss for record in run.progress.history] for run in (exact, half)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert all(value.dtype == torch.float32 for value in half.model.parameters())


@pytest.mark.parametrize("precision", HALVES)
def test_a_run_goes_on_to_the_bit(precision: str, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(precision=precision, epochs=4)
    whole = Trainer.from_config(config, tmp_path / "whole")
    whole.fit()

    def until_the_third(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        Trainer.from_config(config, tmp_path / "parts", on_epoch=until_the_third).fit()
    again = Trainer.from_config(config, tmp_path / "parts")
    again.fit(resume=True)
    for name, value in whole.model.state_dict().items():
        assert value.equal(again.model.state_dict()[name])
    assert again.state.values().get("scaler") == whole.state.values().get("scaler")


def test_what_a_run_predicts_is_computed_in_float32(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    trainer = Trainer.from_config(make_config(precision="bfloat16"), tmp_path)
    trainer.fit()
    predictor = Predictor.load(tmp_path, "cpu")
    logits = trainer.evaluation.logits("test")
    assert logits.dtype == torch.float32
    assert predictor.config.precision == "bfloat16"
    assert trainer.predict("test").equal(logits.double().sigmoid())


def test_a_step_that_overflows_is_left_out() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    precision = Precision("float16", torch.device("cpu"))
    scaler = precision.scaler
    assert scaler is not None
    for max_norm in (None, 1.0):
        scale = scaler.get_scale()
        scaler.scale((weight * torch.tensor([1.0, 1e38, 1.0])).sum()).backward()
        precision.step(optimizer, [weight], max_norm)
        optimizer.zero_grad()
        assert weight.equal(torch.ones(3))
        assert scaler.get_scale() == scale / 2
    scaler.scale(weight.sum()).backward()
    precision.step(optimizer, [weight], 1.0)
    assert weight.isfinite().all()
    assert not weight.equal(torch.ones(3))
