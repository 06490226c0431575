from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastmtl.nn import AsymmetricLoss, FocalLoss, MultilabelLoss
from fastmtl.training import Trainer, arrange, load_data
from fastmtl.training.checkpoint import read_json
from fastmtl.training.recipes import LOSSES


def loss_of(config):
    return LOSSES[config.loss].build(config, arrange(load_data(config, config.data), config.model))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_resumed_run_with_a_loss_is_the_uninterrupted_one(tmp_path, make_config, loss):
    config = make_config(loss=loss, epochs=4, lr=0.02)
    run = Trainer.from_config(config, tmp_path / "whole")
    whole = run.fit()
    history = run.progress.history
    assert history[-1].total_train_loss < history[0].total_train_loss
    Trainer.from_config(replace(config, epochs=2), tmp_path / "parts").fit()
    resumed = Trainer.from_config(config, tmp_path / "parts").fit(resume=True)
    assert resumed["val"] == whole["val"]
    assert read_json(tmp_path / "whole" / "config.json")["train"]["loss"] == loss


def test_a_loss_has_the_options_of_the_run(make_config):
    assert isinstance(loss_of(make_config(gamma=1.5)), FocalLoss)
    smooth = loss_of(make_config(gamma=1.5, smoothing=0.1))
    assert isinstance(smooth, MultilabelLoss)
    assert (smooth.gamma_pos, smooth.gamma_neg, smooth.smoothing) == (1.5, 1.5, 0.1)
    asymmetric = loss_of(make_config(loss="asymmetric", gamma_neg=3.0, clip=0.1))
    assert isinstance(asymmetric, AsymmetricLoss)
    assert (asymmetric.gamma_pos, asymmetric.gamma_neg, asymmetric.clip) == (1.0, 3.0, 0.1)
    poly = loss_of(make_config(loss="poly1", poly=0.5))
    assert (poly.gamma_pos, poly.gamma_neg, poly.poly) == (2.0, 2.0, 0.5)


def test_balanced_losses_weigh_by_the_training_split(make_config):
    config = make_config(loss="class-balanced")
    positives = arrange(load_data(config, config.data), config.model).positives("train")
    loss = loss_of(config)
    assert (loss.pos_weight.argsort() == positives.argsort(descending=True)).all()
    shift = loss_of(make_config(loss="distribution-balanced")).shift
    assert torch.equal(shift.argsort(), positives.argsort())
