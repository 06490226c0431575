from __future__ import annotations

import torch

from fastmtl.training.reproducible import epoch_seed, seeded, shuffled, threads


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


def test_blocks_give_back_what_was_there():
    state, count = torch.get_rng_state(), torch.get_num_threads()
    with seeded(3, torch.device("cpu")), threads(count + 1):
        torch.rand(3)
        assert torch.get_num_threads() == count + 1
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == count
