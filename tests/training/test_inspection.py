from __future__ import annotations

import pytest
import torch

from fastmtl.training import Predictor, Trainer, load_data


@pytest.fixture
def trained(tmp_path, make_config):
    """A predictor of a small run of a model, and the data of the run."""

    def train(model, **options):
        config = make_config(model, epochs=1, **options)
        Trainer.from_config(config, tmp_path / model).fit()
        return Predictor.load(tmp_path / model, "cpu"), load_data(config, config.data)

    return train


def test_attention_of_tasks_is_that_of_standardized_samples(trained):
    predictor, data = trained("mtmlan")
    (attention,) = predictor.attention(data).values()
    assert attention.shape == (60, 7, 4)
    ready = predictor.standardizer.transform(data)
    with torch.no_grad():
        expected = predictor.model.eval().attention(ready.x, ready.lengths)
    torch.testing.assert_close(attention, expected)
    rows = [50, 3]
    torch.testing.assert_close(predictor.attention(data, rows)["x"], attention[rows])
    torch.testing.assert_close(
        predictor.attention(data, "val")["x"], attention[data.indices("val")]
    )


def test_attention_and_weights_of_a_fusion_graph(trained):
    predictor, data = trained("hgfn")
    attention = predictor.attention(data, [4, 5])
    assert {name: tuple(each.shape) for name, each in attention.items()} == {
        name: (2, shape[0]) for name, shape in data.modalities.items() if len(shape) == 2
    }
    weights = predictor.fusion_weights(data, [4, 5])
    assert [len(level) for level in weights] == [3, 3, 6]
    torch.testing.assert_close(sum(weights[1].values()), torch.ones(2))
    whole = predictor.fusion_weights(data)
    name = next(iter(weights[2]))
    torch.testing.assert_close(whole[2][name][[4, 5]], weights[2][name])


def test_models_without_either(trained):
    predictor, data = trained("mtmlan")
    with pytest.raises(ValueError, match="model: expected one with a fusion graph, got MTMLAN"):
        predictor.fusion_weights(data)
    with pytest.raises(ValueError, match="rows: expected at least one sample, got none"):
        predictor.attention(data, [])
    predictor.model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="expected one with attention over time, got Linear"):
        predictor.attention(data)
