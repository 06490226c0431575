"""Samples ranked by the probability of concepts."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.classification import binary_average_precision

from fastmtl.training.retrieval import Ranking, parse_terms, ranked

NAN = float("nan")
P = torch.tensor([[0.2, 0.9], [0.9, 0.5], [0.9, 0.5], [0.5, 0.1]], dtype=torch.float64)
Y = torch.tensor([[0, 1], [1, 0], [1, NAN], [NAN, 0]])


def test_one_term_is_its_probability_and_ties_keep_their_order():
    found = ranked([(0, True)], P, Y)
    assert found.rows.tolist() == [1, 2, 3, 0]
    assert found.scores.tolist() == [0.9, 0.9, 0.5, 0.2]
    torch.testing.assert_close(found.right, torch.tensor([1, 1, NAN, 0]), equal_nan=True)


def test_several_terms_are_a_product_and_all_must_hold():
    found = ranked([(0, True), (1, False)], P, Y)
    torch.testing.assert_close(found.scores, torch.tensor([0.45, 0.45, 0.45, 0.02]).double())
    assert found.rows.tolist() == [1, 2, 3, 0]
    torch.testing.assert_close(found.right, torch.tensor([1, NAN, NAN, 0]), equal_nan=True)


def test_one_label_that_fails_decides_whatever_is_missing():
    found = ranked([(0, True), (1, True)], P, Y)
    right = found.right[found.rows.argsort()]
    torch.testing.assert_close(right, torch.tensor([0, 0, NAN, 0]), equal_nan=True)


def test_average_precision_is_that_of_torchmetrics():
    torch.manual_seed(0)
    p, y = torch.rand(200, 1), (torch.rand(200, 1) < 0.3).float()
    y[::7] = NAN
    known = ~y[:, 0].isnan()
    expected = binary_average_precision(p[known, 0], y[known, 0].long())
    assert ranked([(0, True)], p, y).average_precision() == pytest.approx(expected.item())


def test_there_may_be_nothing_to_measure():
    assert ranked([(0, True)], P, None).precision_at() == {}
    assert ranked([(0, True)], P, None).average_precision() is None
    nothing = Ranking(torch.arange(2), torch.ones(2), torch.tensor([NAN, 0]))
    assert nothing.average_precision() is None
    assert nothing.precision_at([1, 2]) == {2: 0.0}


def test_terms_that_are_no_label_are_named():
    with pytest.raises(ValueError, match="concept: expected one of fire, flood, got 'not flod'"):
        parse_terms(["not flod"], ["fire", "flood"])
    assert parse_terms(["not safe"], ["safe", "not safe"]) == [(1, True)]
