from __future__ import annotations

import torch

import fastmtl
from fastmtl.data import MultiTaskData
from fastmtl.training import Batches
from tests.training.conftest import MODALITIES, SEQUENCES

CPU = torch.device("cpu")


def test_a_batch_is_what_indexing_gives():
    data = fastmtl.data.load(SEQUENCES)
    order = torch.randperm(60)[:25]
    batches = list(Batches(data, CPU)(order, 10))
    assert [len(batch.targets) for batch in batches] == [10, 10, 5]
    torch.testing.assert_close(torch.cat([b.x for b in batches]), data.x[order], rtol=0, atol=0)
    assert torch.equal(torch.cat([b.lengths for b in batches]), data.lengths[order])
    targets = torch.cat([b.targets for b in batches])
    torch.testing.assert_close(targets, data.y[order], equal_nan=True, rtol=0, atol=0)
    for batch in batches:
        assert torch.equal(batch.counts, (~batch.targets.isnan()).sum(0).float())


def test_modalities_come_by_name():
    data = fastmtl.data.load(MODALITIES)
    (batch,) = Batches(data, CPU)(torch.tensor([5, 3]), 8)
    assert batch.x.keys() == data.x.keys()
    for name, value in batch.x.items():
        assert torch.equal(value, data.x[name][[5, 3]])
    assert batch.lengths is None
    assert batch.counts.tolist() == [2.0] * 7


def test_no_samples_no_batches():
    data = MultiTaskData.from_arrays(torch.randn(5, 2), torch.eye(5))
    assert list(Batches(data, CPU)(torch.empty(0, dtype=torch.int64), 4)) == []


def test_lengths_by_modality_come_by_name():
    x = {"a": torch.randn(10, 3, 2), "b": torch.randn(10, 5, 2)}
    lengths = {"b": torch.arange(10) % 5 + 1}
    data = MultiTaskData.from_arrays(x, torch.eye(2).repeat(5, 1), lengths=lengths)
    order = torch.tensor([7, 2])
    (batch,) = Batches(data, CPU)(order, 8)
    assert batch.lengths.keys() == {"b"}
    assert torch.equal(batch.lengths["b"], lengths["b"][order])
