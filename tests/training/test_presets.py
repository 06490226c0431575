from __future__ import annotations

import dataclasses

import pytest

from fastmtl.models import HGFN
from fastmtl.training import TrainConfig, arrange, build_model, load_data, preset
from fastmtl.training.presets import PRESETS
from tests.training.conftest import MODALITIES


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_makes_a_configuration(name):
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert set(preset(name)) <= fields
    TrainConfig(**preset(name))


def test_the_default_preset_is_what_a_configuration_has():
    assert TrainConfig(**preset("default")) == TrainConfig()


def test_the_paper_has_the_equations_as_printed():
    options = {**preset("paper"), "model": "hgfn", "hidden_size": 4, "data": MODALITIES}
    config = TrainConfig(**options)
    model = build_model(config, arrange(load_data(config, MODALITIES), "hgfn"))
    assert isinstance(model, HGFN)
    sequences = model.sequence_modalities
    plain = HGFN(model.modalities, 7, hidden_size=4, sequence_modalities=sequences)
    assert model.config() == plain.config()


def test_a_preset_is_a_copy():
    preset("paper").clear()
    assert preset("paper")


def test_a_wrong_name_is_refused():
    with pytest.raises(ValueError, match=r"^preset: expected one of default, paper, got 'best'"):
        preset("best")
