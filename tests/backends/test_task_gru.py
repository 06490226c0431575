from __future__ import annotations

import pytest
import torch

from fastmtl.backends import task_gru as parts


@pytest.mark.parametrize(("threads", "tasks"), [(1, 1), (2, 1), (3, 3), (4, 2), (64, 7)])
def test_parts_keep_the_threads_busy(
    monkeypatch: pytest.MonkeyPatch, threads: int, tasks: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    weight = torch.empty(7, 2, 192, 64, device="meta")
    found = parts.task_parts(torch.empty(6000, 1), weight)
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(7))
    assert found[0].stop == tasks
    assert len(parts.task_parts(torch.empty(10, 1), weight)) == 1
    assert parts.task_parts(torch.empty(6000, 1, device="meta"), weight) == [slice(0, 7)]
