from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fastmtl.training.calibration import calibrate, calibration_figures, reliability, temperatures


def overconfident(factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are `factor` times those the labels were drawn by."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 2, generator=generator, dtype=torch.float64) * 2
    y = (torch.rand(z.shape, generator=generator, dtype=torch.float64) < z.sigmoid()).double()
    return factor * z, y


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_a_temperature_takes_back_what_was_too_sure(factor: float) -> None:
    z, y = overconfident(factor)
    found = temperatures(z, y)
    assert found.tolist() == pytest.approx([factor, factor], rel=0.15)
    # The loss is lowest there.
    losses = [
        binary_cross_entropy_with_logits(z / (found * scale), y) for scale in (0.98, 1.0, 1.02)
    ]
    assert losses[1] < min(losses[0], losses[2])


def test_missing_labels_do_not_count() -> None:
    z, y = overconfident(3.0)
    more = torch.cat([y, torch.full_like(y, math.nan)])
    assert temperatures(torch.cat([z, -z]), more).equal(temperatures(z, y))


def test_a_label_of_one_kind_keeps_its_probabilities() -> None:
    z, y = overconfident(3.0)
    y[:, 0] = 1
    found = temperatures(z, y)
    assert found[0] == 1
    assert found[1] > 2


def test_separable_labels_end_at_the_bound() -> None:
    z = torch.tensor([[-1.0], [1.0]])
    assert temperatures(z, torch.tensor([[0.0], [1.0]])).item() == pytest.approx(0.05)


def test_calibration_keeps_certainty() -> None:
    p, t = torch.tensor([0.0, 0.5, 1.0]), torch.tensor(3.0)
    assert calibrate(p, t).tolist() == [0.0, 0.5, 1.0]


def test_figures_of_bins() -> None:
    p = torch.tensor([[0.05], [0.07], [0.95], [1.0]])
    y = torch.tensor([[0.0], [1.0], [1.0], [1.0]])
    counts, mean_p, mean_y = reliability(p[:, 0], y[:, 0])
    assert counts.tolist() == [2, *[0] * 8, 2]
    assert mean_p[[0, -1]].tolist() == pytest.approx([0.06, 0.975])
    assert mean_y[[0, -1]].tolist() == [0.5, 1.0]
    figures = calibration_figures(p, y)
    assert figures["calibration_error"] == pytest.approx((0.44 + 0.025) / 2)
    assert figures["brier"] == pytest.approx(float((p - y).square().mean()))
    nothing = calibration_figures(p, torch.full_like(y, math.nan))
    assert nothing == {"brier": None, "calibration_error": None}
