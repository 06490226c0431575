"""The shares of several processes together are the batches of one."""

from __future__ import annotations

import pytest
import torch

from fastmtl.training.batches import Batch
from fastmtl.training.shares import share_of_batches, share_of_rows


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize(("samples", "batch_size"), [(12, 4), (11, 4), (10, 7), (3, 8), (5, 1)])
def test_every_batch_is_divided(samples: int, batch_size: int, size: int) -> None:
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(0))
    shares = [share_of_batches(order, batch_size, rank, size) for rank in range(size)]
    assert len({len(share.rows) for share in shares}) == 1
    for step, batch in enumerate(order.split(batch_size)):
        found = []
        for share in shares:
            part = slice(step * share.batch_size, (step + 1) * share.batch_size)
            rows = share.rows[part]
            counted = slice(None) if share.counted is None else share.counted[part]
            found.append(rows[counted])
            assert set(rows.tolist()) <= set(batch.tolist())
        assert torch.equal(torch.cat(found), batch)


def test_a_sample_taken_twice_has_no_label_the_second_time() -> None:
    share = share_of_batches(torch.arange(4), 3, rank=1, size=2)
    targets = torch.ones(2, 3)
    targets[0, 2] = torch.nan
    batch = Batch(torch.zeros(2, 1), targets, None, torch.tensor([2.0, 2.0, 1.0]))
    only = share.only_counted(0, batch)
    assert only.targets.isnan().tolist() == [[False, False, True], [True] * 3]
    assert only.counts.tolist() == [1, 1, 0]
    alone = share_of_batches(torch.arange(4), 2, rank=1, size=2)
    assert alone.only_counted(0, batch) is batch


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("samples", [0, 1, 7, 10])
def test_all_rows_are_taken_in_order(samples: int, size: int) -> None:
    rows = torch.arange(samples)
    shares = [share_of_rows(rows, rank, size) for rank in range(size)]
    assert torch.equal(torch.cat(shares)[:samples], rows)
    assert len({len(share) for share in shares}) == 1
