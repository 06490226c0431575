from __future__ import annotations

import torch

import fastmtl
from fastmtl.data import MultiTaskData
from fastmtl.training import Batches
from fastmtl.training.batches import epoch_seed, shuffled
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


def test_the_order_is_a_function_of_seed_and_epoch():
    rows = torch.arange(10, 60)
    first = shuffled(rows, 0, 1)
    assert torch.equal(first.sort().values, rows)
    torch.rand(3)
    assert torch.equal(shuffled(rows, 0, 1), first)
    assert not torch.equal(shuffled(rows, 0, 2), first)
    assert not torch.equal(shuffled(rows, 1, 1), first)


def test_seeds_of_epochs_do_not_collide():
    seeds = {epoch_seed(seed, epoch) for seed in range(30) for epoch in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
